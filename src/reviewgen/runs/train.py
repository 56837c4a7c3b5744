"""``train``: a preset, or a trained model, and a corpus become a trained model, in one call."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reviewgen.model import ReviewModel
from reviewgen.runs.training_run import TrainingRun

__all__ = ["train"]


def train(
    start: str | ReviewModel,
    source: Any,
    *,
    validation: Any = None,
    out: str | Path | None = None,
    budget: str | float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    seed: int = 0,
    model: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    text_column: str | None = None,
    documents: str = "line",
    lowercase: bool = False,
    strip_markdown: bool = False,
    clean: bool = True,
    conditions: Sequence[str] = (),
    log: str | None = None,
    resume: bool = False,
) -> ReviewModel:
    """Train a model and return it; the arguments are those of ``TrainingRun``, which says what they mean.

    An interrupt (Ctrl-C) ends the training early; the best model so far is returned, and saved where ``out`` is given.

    >>> model = reviewgen.train("lstm-word", "reviews.csv", budget="2m", out="my-model")         # doctest: +SKIP
    >>> tuned = reviewgen.train(model, "more-reviews.csv", budget="30s", out="my-tuned-model")   # doctest: +SKIP
    """
    run = TrainingRun(
        start,
        source,
        validation=validation,
        out=out,
        budget=budget,
        steps=steps,
        epochs=epochs,
        seed=seed,
        model=model,
        tokenizer=tokenizer,
        training=training,
        text_column=text_column,
        documents=documents,
        lowercase=lowercase,
        strip_markdown=strip_markdown,
        clean=clean,
        conditions=conditions,
        log=log,
        resume=resume,
    )
    run.read()
    run.tokenize()
    try:
        for _ in run:
            pass
    except KeyboardInterrupt:
        run.interrupt()
    return run.finish()
