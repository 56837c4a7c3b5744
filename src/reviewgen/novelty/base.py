"""What both kinds of index share: the ids of bos and eos, the vocabulary's size and the fingerprint of the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from reviewgen.errors import ConfigError, DataError, quoted

LARGEST_MAX_COPY = 1 << 31  # tokens; a larger limit has the same effect


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexBase:
    """Facts about the training text, a sequence of token ids in which each text is enclosed in bos and eos.

    Attributes:
        bos_id: The id before each text.
        eos_id: The id after each text.
        vocab_size: The number of ids.
        characters_per_token: The average over the training text, without bos and eos.
        fingerprint: Identifies the model that the index belongs to.
    """

    bos_id: int
    eos_id: int
    vocab_size: int
    characters_per_token: float
    fingerprint: str

    def check_text(self, ids: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " T"]:
        """Return a text's ids as an array for compiled code, which does not check bounds.

        Raises:
            DataError: The ids are not whole numbers, or not in the vocabulary.
        """
        values = np.asarray(ids)
        if not values.size:
            return np.zeros(0, np.int64)
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise DataError(
                f"The ids of a text must be one list of whole numbers; got an array of {values.dtype} with {values.ndim} axes."
            )
        wrong = values[(values < 0) | (values >= self.vocab_size)]
        if wrong.size:
            raise DataError(f"{wrong[0]} is not an id of this model: its ids are 0 to {self.vocab_size - 1}.")
        return np.ascontiguousarray(values, np.int64)

    def is_separator(self, ids: Shaped[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Return a mask of the positions of bos and eos."""
        mask: np.ndarray = (ids == self.bos_id) | (ids == self.eos_id)
        return mask

    def span_limits(self, ids: Int64[np.ndarray, " T"]) -> Int64[np.ndarray, " T"]:
        """Return, for each position of a text, the index at which a span that starts there must end at the latest.

        It is the index of the next bos or eos, or the length of the text.
        """
        stops = np.append(np.flatnonzero(self.is_separator(ids)), len(ids))
        limits: np.ndarray = stops[np.searchsorted(stops, np.arange(len(ids)))]
        return limits


def check_max_copy(max_copy: object) -> int:
    """Return the maximum length of a copied span in tokens, reduced to a number that compiled code can hold.

    Raises:
        ConfigError: It is not a whole number, or negative.
    """
    if isinstance(max_copy, bool) or not isinstance(max_copy, int) or max_copy < 0:
        raise ConfigError(f"max_copy must be a whole number of tokens, 0 or more; got {quoted(max_copy)}.")
    return min(max_copy, LARGEST_MAX_COPY)
