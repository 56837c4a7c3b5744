"""The columns and rows of generated texts, and of what a text copies."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reviewgen.conditions import Conditions
from reviewgen.model import Generation, ReviewModel
from reviewgen.novelty import WINDOWS, Novelty
from reviewgen.receipts import make_receipt
from reviewgen.writing.schema import plain_value

NOVELTY_COLUMNS = {
    "longest_copy": "string",
    "longest_copy_characters": "int64",
    "longest_copy_tokens": "int64",
    **{f"copied_share_{length}": "double" for length in WINDOWS},
}
_OWN = {"text": "string", "number": "int64", "seed": "uint64", "prompt": "string", "finish_reason": "string"}


def novelty_row(novelty: Novelty | None) -> dict[str, Any]:
    """Return the values of ``NOVELTY_COLUMNS``: the longest copied span, and the shares of windows that are copied."""
    if novelty is None:
        return dict.fromkeys(NOVELTY_COLUMNS)
    longest = (novelty.longest_text, novelty.longest_characters, novelty.longest_tokens)
    return dict(zip(NOVELTY_COLUMNS, (*longest, *(novelty.windows.get(length) for length in WINDOWS)), strict=True))


def column_names(conditions: Conditions, others: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Return the column of each condition: its name, after ``condition_`` if another column has it."""
    names, taken = {}, {*others, *conditions.names}
    for name in conditions.names:
        column = name
        if name in others:
            while column in taken:
                column = f"condition_{column}"
            taken.add(column)
        names[name] = column
    return names


def choose_type(values: Sequence[Any]) -> str:
    """Return the pyarrow type of a column with some values: integers, numbers or text."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int) for value in known):
        return "int64"
    return "double" if known and all(isinstance(value, int | float) for value in known) else "string"


@dataclass(frozen=True)
class Rows:
    """Makes the rows of generated texts.

    Attributes:
        model: The model.
        source: The model's source, for the receipts.
        out: The path of the table, for the receipts.
        kinds: The type of the column of each condition.
        has_columns: Whether there are columns beside the text.
        has_novelty: Whether there are those of what was copied.
    """

    model: ReviewModel
    source: str | Path | None
    out: Path
    kinds: Mapping[str, str]
    has_columns: bool
    has_novelty: bool
    _same: dict[str, Any] = field(default_factory=dict)  # what all receipts have in common

    @cached_property
    def columns(self) -> dict[str, str]:
        """Return the type of each column."""
        columns = {"text": "string"}
        if self.has_columns:
            given = {self._names[name]: kind for name, kind in self.kinds.items()}
            columns = {**_OWN, **given, "receipt": "string"}
        return columns | (NOVELTY_COLUMNS if self.has_novelty else {})

    @cached_property
    def _names(self) -> dict[str, str]:
        return column_names(self.model.conditions, [*_OWN, "receipt", *NOVELTY_COLUMNS])

    def make(self, text: Generation, conditions: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row of a text, given its conditions by name."""
        row: dict[str, Any] = {"text": text.text}
        if self.has_columns:
            own = (text.text, text.number, text.seed, text.prompt, text.finish_reason)
            row = dict(zip(_OWN, own, strict=True))
            for condition in self.model.conditions:
                value = plain_value(condition, conditions.get(condition.name))  # one that is given is not plain yet
                row[self._names[condition.name]] = _typed(value, self.kinds[condition.name])
            row["receipt"] = self._receipt(text, conditions)
        return row | (novelty_row(text.novelty) if self.has_novelty else {})

    def _receipt(self, text: Generation, conditions: Mapping[str, Any]) -> str:
        """Return the receipt of a text; its versions are looked up once."""
        if not self._same:
            self._same.update(make_receipt(self.model, text, self.source, self.out / "receipts.jsonl"))
        given = {name: value for name, value in conditions.items() if value is not None}
        settings = self._same["settings"]
        config = settings["generation_config"] | {"conditions": given}
        own = {"text": text.text, "prompt": text.prompt, "number": text.number, "seed": text.seed}
        return json.dumps(self._same | own | {"settings": settings | {"generation_config": config}}, ensure_ascii=False)


def _typed(value: Any, kind: str) -> Any:
    if value is None:
        return None
    return str(value) if kind == "string" else float(value) if kind == "double" else value
