"""What the user has named: presets to train, and trained models. Nothing is trained or loaded here."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviewgen.errors import ConfigError
from reviewgen.model import ReviewModel
from reviewgen.names import PresetSource, parse_source
from reviewgen.registry import preset_names
from reviewgen.storage import to_path


@dataclass(frozen=True)
class Entry:
    """One model to compare.

    Attributes:
        name: The name of its row.
        source: What ``load`` takes, or the preset to train; a ReviewModel for one that is loaded already.
        is_preset: Whether it is trained.
    """

    name: str
    source: Any
    is_preset: bool

    @property
    def label(self) -> str:
        """The source for people to read."""
        return self.source.bundle.source or "a loaded model" if isinstance(self.source, ReviewModel) else str(self.source)


def make_entries(models: Any) -> list[Entry]:
    """Return the models to compare, by what the user has given: a list, or a mapping by the names of the rows.

    Raises:
        ConfigError: There are none, one is neither a name nor a model, or two rows have one name.
        SourceError: A name is neither a preset nor the source of a model, or could be both.
    """
    if isinstance(models, Mapping):
        entries = [_make_entry(source, name) for name, source in models.items()]
    elif isinstance(models, Sequence) and not isinstance(models, str):
        entries = [_make_entry(source) for source in models]
    else:
        raise ConfigError(f"models must be a list, or a dictionary by name, as in ['gru-char', 'lstm-char']; got {models!r:.60}.")
    if not entries:
        raise ConfigError("There is no model to compare: give presets, as in gru-char, or saved models.")
    _refuse_same_names(entries)
    return entries


def _make_entry(source: Any, name: Any = None) -> Entry:
    if not isinstance(name, str | None) or name == "":
        raise ConfigError(f"The name of a row must be a string that is not empty; got {name!r:.60}.")
    if isinstance(source, ReviewModel):
        return Entry(name or source.preset, source, is_preset=False)
    if not isinstance(source, str | Path):
        raise ConfigError(f"Compare presets, saved folders, repositories or ReviewModels; got {type(source).__name__}.")
    parsed = parse_source(source, preset_names())
    own = to_path("models", source).resolve().name if isinstance(source, Path) or os.path.exists(source) else source  # noqa: PTH110  Path raises for a name that is too long
    return Entry(name or own or str(source), source, is_preset=isinstance(parsed, PresetSource))


def _refuse_same_names(entries: Sequence[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        other = seen.setdefault(slug(entry.name).casefold(), entry)
        if other is not entry:
            raise ConfigError(
                f"Two rows have the name {entry.name[:60]!r} ({str(other.label)[:60]} and {str(entry.label)[:60]}). Name them: "
                "first=SOURCE second=SOURCE on the command line, {'first': ..., 'second': ...} in Python."
            )


def slug(name: str) -> str:
    """Return a name as the name of a file, which ends with no dot.

    >>> slug("ana/lyrics@v2"), slug("../..")
    ('ana-lyrics-v2', 'model')
    """
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:80] or "model"
