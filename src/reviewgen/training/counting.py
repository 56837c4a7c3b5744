"""The counting loop: every text once, then probabilities."""

import time
from collections.abc import Iterator
from typing import Any

from reviewgen.data import TokenStore
from reviewgen.training.config import Report
from reviewgen.training.judge import Judge

__all__ = ["count"]


def count(model: Any, train: TokenStore, judge: Judge) -> Iterator[Report]:
    """Count every text once, then finish and evaluate; an interrupted count finishes with what it has seen."""
    start, seen = time.monotonic(), 0
    every = max(1, len(train) // 100)
    try:
        for number in range(len(train)):
            model.observe(train.document(number))
            seen += len(train.document(number))
            if (number + 1) % every == 0:
                yield Report(number + 1, (number + 1) / len(train), time.monotonic() - start, seen)
    finally:
        facts = model.finish()
        train.forget()
    evaluation, is_best = judge.evaluate(model)
    yield Report(
        step=len(train),
        progress=1.0,
        seconds=time.monotonic() - start,
        tokens=seen,
        evaluation=evaluation,
        is_best=is_best,
        sample=judge.sample(model),
        notes=tuple(facts.get("notes", ())),
    )
