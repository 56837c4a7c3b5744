"""The log probability of a token, and of the most probable tokens in its place, from logits.

They are the model's own, at temperature 1, before filters, penalties and processors. R rows of V logits.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

from reviewgen.errors import GenerationError
from reviewgen.generation import Pieces
from reviewgen.protocols import Tokenizer
from reviewgen.serving.events import Alternative, Scored


class Scorer:
    """Scores tokens.

    Args:
        tokenizer, pieces: The tokenizer, and the texts of its single tokens.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: Pieces) -> None:
        self._tokenizer, self._pieces = tokenizer, pieces

    def score(self, logits: Float[np.ndarray, " V"], token: int, count: int) -> Scored:
        """Return the log probability of a token and the ``count`` most probable ones; none that the model rules out."""
        return self.score_rows(logits[None], [token], count)[0]

    def score_rows(self, logits: Float[np.ndarray, "R V"], tokens: Sequence[int], count: int) -> list[Scored]:
        """Return the same for a token of each row.

        Raises:
            GenerationError: The logits are damaged: NaN or infinite, or all tokens are ruled out.
        """
        logs = logits.astype(np.float64)
        largest = logs.max(axis=1, keepdims=True)
        if not np.isfinite(largest).all():
            raise GenerationError.of_damaged_logits()
        logs -= largest
        logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
        own = logs[np.arange(len(tokens)), tokens].tolist()
        if count == 0:
            return [Scored(each) for each in own]
        logs[:, self._tokenizer.bos_id] = -np.inf
        logs = logs[:, : self._tokenizer.vocab_size]  # the others are those of conditions
        best = np.argpartition(-logs, min(count, logs.shape[1]) - 1, axis=1)[:, :count]
        return [Scored(each, self._alternatives(row, kept)) for each, row, kept in zip(own, logs, best, strict=True)]

    def _alternatives(self, logs: Float[np.ndarray, " V"], best: Int64[np.ndarray, " K"]) -> tuple[Alternative, ...]:
        """Return some tokens, the most probable first; none that the model rules out."""
        best = best[np.lexsort((best, -logs[best]))]
        texts = self._pieces.texts
        return tuple(
            Alternative(token, texts[token], logprob)
            for token, logprob in zip(best.tolist(), logs[best].tolist(), strict=True)
            if logprob > -np.inf
        )
