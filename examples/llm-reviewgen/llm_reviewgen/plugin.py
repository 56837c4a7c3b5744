"""What llm calls. llm imports this file at every start, even for ``llm --help``, so it imports
nothing of reviewgen.
"""

from collections.abc import Callable
from typing import Any

import llm

__all__ = ["register_models"]


@llm.hookimpl
def register_models(register: Callable[..., Any]) -> None:
    """Register the models: called when a command needs the list of models."""
    from llm_reviewgen.model import PREFIX, ReviewgenModel
    from llm_reviewgen.sources import find_sources

    register(ReviewgenModel(PREFIX))
    for name, source in find_sources().items():
        register(ReviewgenModel(f"{PREFIX}/{name}", source))
