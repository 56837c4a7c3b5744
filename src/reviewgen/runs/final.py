"""What is measured at the end of a training: bits per character of held-out texts; copy rate and metrics of generated ones."""

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
from reviewgen.generation.model_stepper import make_stepper, using_threads
from reviewgen.lexicon import decode_texts
from reviewgen.novelty import copied_shares
from reviewgen.protocols import LanguageModel
from reviewgen.runs.prepare import PreparedCorpus
from reviewgen.runs.record import CopyRates
from reviewgen.training import SAMPLE_TOKENS

_FINAL_TOKENS = 100_000  # held-out tokens of the final evaluation, at most
_FINAL_SHARE = 0.015  # of a time budget, for the final evaluation
_TEXTS = 100  # that the copy rate and the metrics are measured on; they cost as much as two or three training steps


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
    model: LanguageModel, corpus: PreparedCorpus, threads: int, metrics: Metrics
) -> tuple[CopyRates, dict[str, Any]]:
    """Return the copy rates and the metrics of ``_TEXTS`` generated texts, and of as many characters of held-out texts.

    Both are texts of up to ``SAMPLE_TOKENS`` tokens, and the training text is read once. How many there are follows from no
    clock, so that the copy rate of a model is the same however fast it was measured.

    Args:
        model: The model, in evaluation mode.
        corpus: The prepared corpus.
        threads: CPU threads.
        metrics: The metrics.
    """
    config, prefix = GenerationConfig(max_new_tokens=SAMPLE_TOKENS), corpus.conditions.unspecified_ids
    request = Request([""] * _TEXTS, config, seed=0, prefix=prefix)
    with using_threads(threads):
        generated = [row.text for row in Generator(make_stepper(model), corpus.tokenizer).generate(request)]
    characters = sum(map(len, generated))
    held_out = _take_beginnings(corpus, characters)
    training = decode_texts(corpus.stores["train"].blocks, corpus.tokenizer)
    rate, held_out_rate = copied_shares([generated, held_out], training)
    return CopyRates(rate, held_out_rate, len(generated), characters), metrics.facts(generated, held_out)


def _take_beginnings(corpus: PreparedCorpus, characters: int) -> list[str]:
    """Return the beginnings of held-out texts, evenly spread, with about as many characters in all."""
    store, first = corpus.stores[final_split(corpus)], 1 + len(corpus.conditions)
    each = float((store.characters * (SAMPLE_TOKENS / store.lengths).clip(max=1.0)).mean())
    count = min(len(store), max(1, round(characters / max(1.0, each))))
    numbers = np.linspace(0, len(store) - 1, count).round().astype(int).tolist()
    return [corpus.tokenizer.decode(store.document(number)[first:-1][:SAMPLE_TOKENS].tolist()) for number in numbers]
