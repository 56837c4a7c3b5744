"""The bytes of each token of a tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int32, Int64, UInt16

from reviewgen.errors import BrokenPlugin
from reviewgen.protocols import SupportsTokenBytes, Tokenizer


@dataclass(frozen=True)
class Symbols:
    """The UTF-8 bytes of the tokens, one after another; values from 256 on are halves of a byte.

    Attributes:
        values: The bytes, (S,).
        offsets: Where those of each token begin, and where the last ones end, (V + 1,).
    """

    values: UInt16[np.ndarray, " S"]
    offsets: Int64[np.ndarray, " V1"]

    def sorted_tokens(self) -> tuple[Int32[np.ndarray, " V"], Int32[np.ndarray, " V"], int]:
        """Return the tokens sorted by their bytes, how many bytes each has in common with the one before, and the longest's."""
        values, bounds = self.values.tolist(), self.offsets.tolist()
        tokens = [tuple(values[start:end]) for start, end in pairwise(bounds)]
        order = sorted(range(len(tokens)), key=tokens.__getitem__)
        common = [0, *(common_length(tokens[one], tokens[other]) for one, other in pairwise(order))]
        return np.array(order, np.int32), np.array(common, np.int32), max(map(len, tokens))


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many values two sequences have in common at their beginning."""
    length = 0
    while length < min(len(first), len(second)) and first[length] == second[length]:
        length += 1
    return length


def token_symbols(tokenizer: Tokenizer) -> Symbols | None:
    """Return the bytes of each token; None if the tokenizer does not say, and some of its tokens are a part of a character."""
    if isinstance(tokenizer, SupportsTokenBytes):
        symbols = tokenizer.token_bytes()
        is_valid = len(symbols) == tokenizer.vocab_size and all(0 <= value < 256 + 16 for token in symbols for value in token)
        if not is_valid or len(symbols[tokenizer.bos_id]) or len(symbols[tokenizer.eos_id]):
            raise BrokenPlugin(
                f"{type(tokenizer).__name__}.token_bytes must return numbers below 272 for each of {tokenizer.vocab_size} "
                "tokens, and none for bos and eos."
            )
    else:
        pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        if any("\ufffd" in piece for piece in pieces):
            return None
        symbols = [piece.encode("utf-8", "replace") for piece in pieces]
    offsets = np.cumsum([0, *map(len, symbols)])
    values = np.fromiter((value for token in symbols for value in token), np.uint16, int(offsets[-1]))
    return Symbols(values, offsets)
