"""The bytes of each token of a tokenizer."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt16

from reviewgen.protocols import SupportsTokenBytes, Tokenizer

__all__ = ["Symbols", "token_symbols"]


@dataclass(frozen=True)
class Symbols:
    """The UTF-8 bytes of the tokens, one after another; values from 256 on are halves of a byte.

    Attributes:
        values: The bytes, (S,).
        offsets: Where those of each token begin, and where the last ones end, (V + 1,).
    """

    values: UInt16[np.ndarray, " S"]
    offsets: Int64[np.ndarray, " V1"]


def token_symbols(tokenizer: Tokenizer) -> Symbols | None:
    """Return the bytes of each token; None if the tokenizer does not say, and some of its tokens are a part of a character."""
    if isinstance(tokenizer, SupportsTokenBytes):
        symbols = tokenizer.token_bytes()
    else:
        pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        if any("\ufffd" in piece for piece in pieces):
            return None
        symbols = [piece.encode("utf-8", "replace") for piece in pieces]
    offsets = np.cumsum([0, *map(len, symbols)])
    values = np.fromiter((value for token in symbols for value in token), np.uint16, int(offsets[-1]))
    return Symbols(values, offsets)
