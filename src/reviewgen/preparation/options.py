"""The keywords of ``reviewgen.prepare``; loads nothing heavy, so that ``reviewgen.api`` can name them in its signatures."""

from collections.abc import Mapping, Sequence
from typing import Any

from reviewgen.config import ReadingOptions

__all__ = ["PrepareOptions"]


class PrepareOptions(ReadingOptions, total=False):
    """The keywords of ``reviewgen.prepare``.

    Attributes:
        validation: A second source to validate on, instead of a part of the first.
        conditions: Columns beside the text, as in ["stars"], that models are conditioned on.
        tokenizer: Tokenizer settings that differ from the preset's.
        near_duplicates: A similarity from 0.3 to 1; of texts that are at least as similar, only the first is kept. 0.8 finds
            texts that differ slightly. Needs rensa.
        decontaminate: Leave out held-out texts that share a run of this many characters with a training text.
    """

    validation: Any
    conditions: Sequence[str]
    tokenizer: Mapping[str, Any] | None
    near_duplicates: float | None
    decontaminate: int | None
