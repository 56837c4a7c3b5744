"""The processes of a launcher make sure, before they train, that all of them are about to train the same."""

from collections.abc import Mapping
from typing import Any

import torch

from reviewgen.conditions import Conditions
from reviewgen.config import to_dict
from reviewgen.data import Corpus
from reviewgen.protocols import LanguageModel
from reviewgen.training import all_processes
from reviewgen.version import __version__

__all__ = ["refuse_differences"]


def refuse_differences(model: LanguageModel, corpus: Corpus, conditions: Conditions, told: Mapping[str, Any]) -> None:
    """Raise in every process where one was told something else; ``told`` are JSON values by the name a message gives them.

    Raises:
        TrainingError: They differ.
        ProcessLost: One is gone.
    """
    with all_processes() as processes:
        processes.refuse_differences(
            {
                "the corpus": [corpus.fingerprint, conditions.to_json()],
                "model settings": to_dict(model.config),
                "versions": [__version__, torch.__version__],
                **told,
            }
        )
