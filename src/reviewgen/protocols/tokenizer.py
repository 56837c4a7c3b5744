"""Tokenizer, the contract of what turns text into ids and back, and its optional companions."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into ids and back.

    The core puts ``bos_id`` before and ``eos_id`` after each text; ``encode`` never returns them,
    whatever the text. Encoding never fails. All ids are at least 0 and below ``vocab_size``.
    ``decode(encode(text)) == text`` for text whose symbols are all in the vocabulary; for any text,
    encoding the decoded ids gives the same ids again. Training twice on the same texts gives the
    same ids, and so does saving and loading.

    Attributes:
        Config: A frozen keyword-only dataclass of JSON values.
    """

    Config: ClassVar[type]

    @property
    def vocab_size(self) -> int:
        """The number of ids, bos and eos included."""
        ...

    @property
    def bos_id(self) -> int:
        """The beginning-of-text id."""
        ...

    @property
    def eos_id(self) -> int:
        """The end-of-text id."""
        ...

    @classmethod
    def train(cls, texts: Iterable[str], config: Any) -> "Tokenizer":
        """Return a tokenizer with a vocabulary learned from texts, which can be iterated once."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of any text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of any ids; bos and eos decode to the empty string."""
        ...

    def save(self, folder: Path) -> None:
        """Write plain data files (text or JSON) into an existing folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Return the tokenizer that ``save`` wrote into a folder."""
        ...


@runtime_checkable
class SupportsTokenBytes(Protocol):
    """A tokenizer whose tokens may be parts of a character.

    During generation, only tokens that keep the text valid UTF-8 are sampled. Without this
    protocol, this works only if every token is whole characters.
    """

    def token_bytes(self) -> Sequence[Sequence[int]]:
        """Return the UTF-8 bytes of each token, none for bos and eos; 256 + n stands for n, half a
        byte, the higher half first."""
        ...


@runtime_checkable
class SupportsEncodeBatch(Protocol):
    """A tokenizer that encodes many texts faster than one by one."""

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Sequence[int] | np.ndarray]:
        """Return the ids of each text as ``encode`` does, as lists or arrays."""
        ...


@runtime_checkable
class SupportsTokenizerJson(Protocol):
    """A tokenizer that other programs can use, because the library ``tokenizers`` and transformers
    have a form of it.
    """

    def tokenizer_json(self) -> str:
        """Return a ``tokenizer.json`` of the library ``tokenizers`` that encodes every text of
        well-formed UTF-8 to the same ids and decodes them to the same text. bos and eos are ids of
        its model with names of their own, not added tokens, so that a text never encodes to them;
        they decode to nothing."""
        ...


@runtime_checkable
class SupportsTrainingInParts(Protocol):
    """A tokenizer that can be trained on shares of the texts, so that the processes of a launcher
    share the work.
    """

    @classmethod
    def combine(cls, tokenizers: Sequence[Any]) -> Tokenizer:
        """Return the tokenizer that ``train`` returns for the texts of all given tokenizers, one
        after another; they have one class and settings. One of them may have had no texts."""
        ...
