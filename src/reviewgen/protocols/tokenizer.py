"""Text to ids and back."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

__all__ = ["SupportsEncodeBatch", "Tokenizer"]


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into ids and back. ``bos_id`` and ``eos_id`` frame a text; ``encode`` never emits them."""

    Config: ClassVar[type]  # a frozen keyword-only dataclass of JSON values

    @property
    def vocab_size(self) -> int:
        """The number of ids, bos and eos among them."""
        ...

    @property
    def bos_id(self) -> int:
        """The id before a text's first token."""
        ...

    @property
    def eos_id(self) -> int:
        """The id after a text's last token."""
        ...

    @classmethod
    def train(cls, texts: Iterable[str], config: Any) -> "Tokenizer":
        """Learn a vocabulary from texts, read once."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of any text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of any ids; bos and eos spell nothing."""
        ...

    def save(self, folder: Path) -> None:
        """Write plain data files (text or JSON) into an existing folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read what ``save`` wrote."""
        ...


@runtime_checkable
class SupportsEncodeBatch(Protocol):
    """A tokenizer that encodes many texts faster than one by one."""

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Sequence[int] | np.ndarray]:
        """Return what ``encode`` would for each text, as lists or as arrays."""
        ...
