"""What both forms of the index know of the training text: how it is framed, how large its vocabulary is, whose it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from reviewgen.errors import ConfigError, DataError

__all__ = ["LONGEST_COPY", "Stream", "check_max_copy"]

LONGEST_COPY = 1 << 31  # tokens; a greater limit is no other limit


@dataclass(frozen=True, eq=False, kw_only=True)
class Stream:
    """The facts of a stream of token ids, in which each text stands between bos and eos.

    Attributes:
        bos_id: The id before each text.
        eos_id: The id after each text.
        vocab_size: The number of ids.
        characters_per_token: Of the training text, bos and eos not counted.
        fingerprint: Tells the model that the index belongs to from others.
    """

    bos_id: int
    eos_id: int
    vocab_size: int
    characters_per_token: float
    fingerprint: str

    def check_text(self, ids: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " T"]:
        """Return a text's ids as an array that compiled code may read.

        Raises:
            DataError: They are no whole numbers, or not of the vocabulary.
        """
        found = np.asarray(ids)
        if not found.size:
            return np.zeros(0, np.int64)
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise DataError(f"A text's ids are a sequence of whole numbers, not {found.ndim} axes of {found.dtype}.")
        wrong = found[(found < 0) | (found >= self.vocab_size)]
        if wrong.size:
            raise DataError(f"{wrong[0]} is no id of this model: its ids are 0 to {self.vocab_size - 1}.")
        return np.ascontiguousarray(found, np.int64)

    def separators(self, ids: Shaped[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Return where bos and eos stand."""
        found: np.ndarray = (ids == self.bos_id) | (ids == self.eos_id)
        return found

    def reach(self, ids: Int64[np.ndarray, " T"]) -> Int64[np.ndarray, " T"]:
        """Return for each place of a text where a copied span that starts there must end: at a separator or the text's end."""
        stops = np.append(np.flatnonzero(self.separators(ids)), len(ids))
        found: np.ndarray = stops[np.searchsorted(stops, np.arange(len(ids)))]
        return found


def check_max_copy(max_copy: object) -> int:
    """Return the tokens that a copied span may have at most, as a number that compiled code can hold.

    Raises:
        ConfigError: It is no whole number, or negative.
    """
    if isinstance(max_copy, bool) or not isinstance(max_copy, int) or max_copy < 0:
        raise ConfigError(f"max_copy is {max_copy!r}; give a whole number of tokens, 0 or more.")
    return min(max_copy, LONGEST_COPY)
