"""What is measured at the end of a training: bits per character of held-out texts; copy rate and metrics of generated ones."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from reviewgen.config import GenerationConfig
from reviewgen.errors import NotADistribution
from reviewgen.evaluation import (
    Document,
    Evaluation,
    Metrics,
    evaluate_documents,
    finite,
    measure_rate,
    sample_documents,
    spread_documents,
)
from reviewgen.generation import Generator, Request
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.lexicon import decode_texts
from reviewgen.novelty import copied_shares
from reviewgen.protocols import LanguageModel
from reviewgen.runs.prepare import PreparedCorpus
from reviewgen.runs.record import CopyRates
from reviewgen.training.device import using_threads
from reviewgen.training.evaluator import SAMPLE_TOKENS

__all__ = ["count_texts", "describe_held_out", "evaluate_held_out", "final_split", "measure_texts"]

_FINAL_TOKENS = 100_000  # held-out tokens of the final evaluation, at most
_FINAL_SHARE = 0.015  # of a time budget, for the final evaluation
_COPY_SHARE = 0.005  # of a time budget, or of the tokens trained on, for texts to measure the copy rate on
_MIN_TEXTS, _MAX_TEXTS = 4, 200  # of these


def final_split(corpus: PreparedCorpus) -> str:
    """Return the split that a model is evaluated on at the end: test, or validation if test is empty."""
    return "test" if len(corpus.stores["test"]) else "validation"


def evaluate_held_out(
    models: Sequence[LanguageModel], corpus: PreparedCorpus, threads: int, budget: float | None
) -> list[Evaluation | None]:
    """Evaluate models on the same texts of the test split, or of the validation split if that is empty.

    Args:
        models: The models. The last one decides how many texts can be scored in the time of a final evaluation.
        corpus: The prepared corpus.
        threads: CPU threads.
        budget: Seconds of the time budget, if any.

    Returns:
        An evaluation for each model; None for one that cannot be scored.
    """
    documents = sample_documents(corpus.stores[final_split(corpus)], _FINAL_TOKENS)
    with using_threads(threads):
        if budget is not None:
            documents = _limit(documents, models[-1], corpus, _FINAL_SHARE * budget)
        return [_evaluate(model, documents, corpus) for model in models]


def _evaluate(model: LanguageModel, documents: list[Document], corpus: PreparedCorpus) -> Evaluation | None:
    try:
        return evaluate_documents(model, documents, corpus.tokenizer.vocab_size, given=len(corpus.conditions))
    except NotADistribution:
        return None


def _limit(documents: list[Document], model: LanguageModel, corpus: PreparedCorpus, seconds: float) -> list[Document]:
    """Return as many of the texts as a model can score in a time; at least one."""
    try:
        rate = measure_rate(model, documents, corpus.tokenizer.vocab_size, given=len(corpus.conditions))
    except NotADistribution:
        return documents
    share = rate * seconds / sum(len(ids) for ids, _ in documents)
    return spread_documents(documents, max(1, round(min(1.0, share) * len(documents))))


def describe_held_out(evaluation: Evaluation | None, corpus: PreparedCorpus) -> dict[str, Any] | None:
    """Return the last evaluation as JSON values, with its split; None for a model that was not evaluated."""
    if evaluation is None:
        return None
    split = final_split(corpus)
    return {"split": split, "reviews_in_split": len(corpus.stores[split])} | finite(asdict(evaluation))


def measure_texts(
    model: LanguageModel, corpus: PreparedCorpus, threads: int, budget: float | None, trained_tokens: int, metrics: Metrics
) -> tuple[CopyRates, dict[str, Any]]:
    """Return the copy rates and the metrics of texts that a model generates, and of as many characters of held-out texts.

    Both are texts of up to ``SAMPLE_TOKENS`` tokens, and the training text is read once.

    Args:
        model: The model, in evaluation mode.
        corpus: The prepared corpus.
        threads: CPU threads.
        budget: Seconds of the time budget, if any; limits the number of generated texts.
        trained_tokens: The number of tokens that the model was trained on; limits it where there is no budget, so that two runs
            of one seed are equal.
        metrics: The metrics.
    """
    count = _MAX_TEXTS if budget is not None else count_texts(trained_tokens)
    with using_threads(threads):
        generated = _generate(model, corpus, count, None if budget is None else _COPY_SHARE * budget)
    held_out = _take_beginnings(corpus, sum(map(len, generated)))
    training = decode_texts(corpus.stores["train"].blocks, corpus.tokenizer)
    return CopyRates(*copied_shares([generated, held_out], training)), metrics.facts(generated, held_out)


def count_texts(trained_tokens: int) -> int:
    """Return how many texts to generate after a training on some tokens without a time budget."""
    return min(max(_MIN_TEXTS, round(_COPY_SHARE * trained_tokens / SAMPLE_TOKENS)), _MAX_TEXTS)


def _generate(model: LanguageModel, corpus: PreparedCorpus, count: int, seconds: float | None) -> list[str]:
    """Generate texts as an evaluation does; after the first few, as many more as a time allows."""
    generator = Generator(make_stepper(model), corpus.tokenizer)
    config, prefix = GenerationConfig(max_new_tokens=SAMPLE_TOKENS), corpus.conditions.unspecified_ids

    def generate(first: int, last: int) -> list[str]:
        request = Request([""] * last, config, seed=0, prefix=prefix)
        return [row.text for row in generator.generate(request, first)]

    start = time.monotonic()
    texts = generate(0, _MIN_TEXTS)
    if seconds is not None:
        count = min(count, int(_MIN_TEXTS * seconds / max(time.monotonic() - start, 1e-9)))
    return texts + generate(_MIN_TEXTS, max(_MIN_TEXTS, count))


def _take_beginnings(corpus: PreparedCorpus, characters: int) -> list[str]:
    """Return the beginnings of held-out texts, evenly spread, with about as many characters in all."""
    store, first = corpus.stores[final_split(corpus)], 1 + len(corpus.conditions)
    each = float((store.characters * (SAMPLE_TOKENS / store.lengths).clip(max=1.0)).mean())
    count = min(len(store), max(1, round(characters / max(1.0, each))))
    numbers = np.linspace(0, len(store) - 1, count).round().astype(int).tolist()
    return [corpus.tokenizer.decode(store.document(number)[first:-1][:SAMPLE_TOKENS].tolist()) for number in numbers]
