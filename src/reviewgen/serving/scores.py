"""The log probability of a token, and of the most probable tokens in its place, from logits.

They are the model's own, at temperature 1, before filters, penalties and processors. V logits.
"""

import math

import numpy as np
from jaxtyping import Float

from reviewgen.generation import Pieces
from reviewgen.protocols import Tokenizer
from reviewgen.serving.events import Alternative
from reviewgen.serving.outlet import Scored

__all__ = ["Scorer"]


class Scorer:
    """Scores tokens.

    Args:
        tokenizer, pieces: The tokenizer, and the texts of its single tokens.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: Pieces) -> None:
        self._tokenizer, self._pieces = tokenizer, pieces

    def score(self, logits: Float[np.ndarray, " V"], token: int, count: int) -> Scored:
        """Return the log probability of a token and the ``count`` most probable ones; none that the model rules out."""
        logs = logits.astype(np.float64)
        largest = float(logs.max())
        logs -= largest + math.log(float(np.exp(logs - largest).sum()))
        own = float(logs[token])
        if count == 0:
            return Scored(own)
        logs[self._tokenizer.bos_id] = -np.inf
        logs = logs[: self._tokenizer.vocab_size]  # the others are those of conditions
        best = np.argpartition(-logs, min(count, len(logs)) - 1)[:count]
        best = best[np.lexsort((best, -logs[best]))]
        kept = [number for number in best.tolist() if logs[number] > -np.inf]
        return Scored(own, tuple(Alternative(number, self._pieces.texts[number], float(logs[number])) for number in kept))
