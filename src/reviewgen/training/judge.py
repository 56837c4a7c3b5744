"""The judge of a run: evaluates on held-out texts, remembers the best, writes a sample."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

from reviewgen.config import GenerationConfig
from reviewgen.evaluation import Document, Evaluation, evaluate_documents
from reviewgen.protocols import LanguageModel, Tokenizer
from reviewgen.sampling import Pieces, decode, start_rows

__all__ = ["Judge"]

SAMPLE_TOKENS = 100


@dataclass
class Judge:
    """Evaluates on held-out texts and remembers what was best."""

    tokenizer: Tokenizer
    documents: list[Document]
    patience: int
    best: float = math.inf
    without_gain: int = 0
    seconds: float = 0.0  # that the last evaluation took
    pieces: Pieces = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = Pieces(self.tokenizer)

    def evaluate(self, model: Any, device: str = "cpu") -> tuple[Evaluation, bool]:
        """Return the evaluation, and whether it is the best so far."""
        start = time.monotonic()
        evaluation = evaluate_documents(model, self.documents, self.tokenizer.vocab_size, device)
        bits = evaluation.bits_per_character
        is_best = bits < self.best or (self.best == math.inf and not math.isnan(bits))
        self.best = bits if is_best else self.best
        self.without_gain = 0 if is_best else self.without_gain + 1
        self.seconds = time.monotonic() - start
        return evaluation, is_best

    def sample(self, model: LanguageModel, device: str = "cpu") -> str:
        """Return a text of the model, the same draw each time."""
        rows = start_rows([""], self.pieces, seed=0)
        for _ in decode(model, self.tokenizer, self.pieces, rows, GenerationConfig(max_new_tokens=SAMPLE_TOKENS), device=device):
            pass
        return rows[0].text
