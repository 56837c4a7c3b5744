"""Tokenizer, the contract of a class that turns text into ids and back, and optional abilities."""

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
        """Learn a vocabulary from texts, which can be iterated only once; return the tokenizer."""
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

    Generation uses the bytes to sample only tokens that keep the text valid UTF-8. A tokenizer can
    do without this protocol only if each of its tokens consists of whole characters.
    """

    def token_bytes(self) -> Sequence[Sequence[int]]:
        """Return the UTF-8 bytes of each token; bos and eos have none. For a token that is half of
        a byte, the value 256 + n stands for the four bits n; the higher half of a byte comes first.
        """
        ...


@runtime_checkable
class SupportsEncodeBatch(Protocol):
    """A tokenizer that encodes many texts faster than one by one."""

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Sequence[int] | np.ndarray]:
        """Return the ids of each text as ``encode`` does, as lists or arrays."""
        ...


@runtime_checkable
class SupportsTokenizerJson(Protocol):
    """A tokenizer that can be exported for other programs, such as transformers, as a
    ``tokenizer.json`` of the library ``tokenizers``.
    """

    def tokenizer_json(self) -> str:
        """Return the content of a ``tokenizer.json`` of the library ``tokenizers``.

        The exported tokenizer encodes every text of well-formed UTF-8 to the same ids, and decodes
        these ids to the same text. bos and eos belong to the vocabulary of its model, with names of
        their own. They are not added tokens, so that no text encodes to them, and they decode to
        nothing.
        """
        ...


@runtime_checkable
class SupportsTrainingInParts(Protocol):
    """A tokenizer that several processes can train together, each on a share of the texts
    (``accelerate launch``).
    """

    @classmethod
    def combine(cls, tokenizers: Sequence[Any]) -> Tokenizer:
        """Combine tokenizers of one class with equal settings, each trained on a share of the
        texts. The result equals the tokenizer that ``train`` returns for all these texts, in order.
        A share may have had no texts.
        """
        ...
