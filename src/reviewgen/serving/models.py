"""The models that a server has: their names, and what ``GET /v1/models`` says of them."""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from reviewgen.config import to_dict
from reviewgen.errors import ConfigError, quoted
from reviewgen.hub.card import brief_facts
from reviewgen.model import ReviewModel
from reviewgen.storage import to_path

_MAX_NAME = 100  # characters
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


@dataclass(frozen=True)
class ServedModel:
    """A model under the name that requests give.

    Attributes:
        name: The name.
        model: The model.
        created: When it was loaded, in seconds since 1970.
    """

    name: str
    model: ReviewModel
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def description(self) -> dict[str, Any]:
        """The entry of ``GET /v1/models``: OpenAI's fields, and what a page needs to know, under ``reviewgen``."""
        own = {
            "preset": self.model.preset,
            "conditions": self.model.conditions.to_json(),
            "defaults": to_dict(self.model.generation_config),
            "has_index": self.model.bundle.index is not None,
            "facts": brief_facts(self.model.bundle),
            "card": _FRONT_MATTER.sub("", self.model.bundle.card).strip(),
        }
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "reviewgen", "reviewgen": own}


def name_source(given: str) -> tuple[str, str]:
    """Return name and source of a model as typed: NAME=SOURCE, or a source, named by its preset, folder or repository.

    >>> name_source("mine=./my-model"), name_source("lstm-word"), name_source("ana/music@v2")
    (('mine', './my-model'), ('lstm-word', 'lstm-word'), ('ana/music', 'ana/music@v2'))

    Raises:
        ConfigError: The name is empty, too long or not printable.
    """
    before, equals, after = given.partition("=")
    is_named = equals and not os.path.exists(os.path.expanduser(given))  # noqa: PTH110, PTH111  Path raises for a name that is too long
    source = after if is_named else given
    is_path = source.startswith(("/", "./", "../", "~")) or source in (".", "..")
    name = before if is_named else to_path("model", source).resolve().name if is_path else _without_revision(source)
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or not source:
        raise ConfigError(f"{quoted(given)} does not name a model: give MODEL, or NAME=MODEL with a printable name.")
    return name, source


def check_names(named: Sequence[tuple[str, str]]) -> None:
    """Raise if two models have the same name.

    Raises:
        ConfigError: They have; names both sources.
    """
    seen: dict[str, str] = {}
    for name, source in named:
        if name in seen:
            raise ConfigError(f"Two models are named {quoted(name)}: {seen[name]} and {source}. Name one of them: NAME=MODEL.")
        seen[name] = source


def _without_revision(source: str) -> str:
    return source.removeprefix("hf://").partition("@")[0]
