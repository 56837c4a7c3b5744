"""The counting loop: every text once, then probabilities."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from reviewgen.data import TokenStore
from reviewgen.training.config import Report
from reviewgen.training.interrupts import uninterrupted
from reviewgen.training.judge import Judge

__all__ = ["count"]


def count(model: Any, train: TokenStore, deadline: float | None, judge: Judge) -> Iterator[Report]:
    """Count every text once, then finish and evaluate; a count that is cut short finishes with what it has seen."""
    start, seen, texts = time.monotonic(), 0, 0
    every = max(1, len(train) // 100)
    try:
        for texts in range(1, len(train) + 1):
            document = train.document(texts - 1)
            model.observe(document)
            seen += len(document)
            if texts % every == 0:
                yield Report(texts, texts / len(train), time.monotonic() - start, seen)
            if deadline is not None and time.monotonic() > deadline:
                break
    finally:
        facts: Mapping[str, Any] = {}
        if seen:
            with uninterrupted():
                facts = model.finish()
        train.forget()
    evaluation, is_best = judge.evaluate(model)
    yield Report(
        step=texts,
        progress=1.0,
        seconds=time.monotonic() - start,
        tokens=seen,
        evaluation=evaluation,
        is_best=is_best,
        sample=judge.sample(model),
        notes=tuple(facts.get("notes", ())),
        stopped="all texts counted" if texts == len(train) else "budget spent",
    )
