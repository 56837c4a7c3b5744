"""SupportsArpa, the ability of a stepper to be written as an ARPA file, and to be read from one:
n-grams with their log probabilities and back-off weights. Needs no torch.

    p(w | h) = p[h w]                                       if the file has the n-gram h w
               bow[h] p(w | h without its first token)      otherwise
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Integer


class ArpaNgrams(NamedTuple):
    """The N n-grams of one order, in any order.

    Attributes:
        ids: The token ids of each n-gram, (N, n).
        probabilities: The log probability (base 10) of the last token after the others, (N,).
        backoffs: The logarithm (base 10) of the back-off weight, (N,). Zero for an n-gram after
            which no token was seen.
    """

    ids: Integer[np.ndarray, "N n"]
    probabilities: Float64[np.ndarray, " N"]
    backoffs: Float64[np.ndarray, " N"]


@runtime_checkable
class SupportsArpa(Protocol):
    """A stepper whose probabilities have the form of an ARPA file."""

    def to_arpa(self) -> Sequence[ArpaNgrams]:
        """Return the n-grams of each order, from order 1 on. Order 1 has every token id.

        Raises:
            ConfigError: The model with its settings does not have this form; the message says what
                to do.
        """
        ...

    @classmethod
    def from_arpa(
        cls, ngrams: Sequence[ArpaNgrams], vocab_size: int, bos_id: int
    ) -> tuple[Any, Mapping[str, np.ndarray]]:
        """Return the config and the tensors of the model that the n-grams of each order define.

        A token without a 1-gram has probability zero, and so has bos.

        Raises:
            BundleError: The n-grams do not define probabilities that sum to one.
        """
        ...
