"""The laws of logits processors and metrics: good ones pass, and each fault is caught by its
law.
"""

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import SuppressTokensLogitsProcessor, TypicalLogitsWarper

from reviewgen.testing import METRIC_LAWS, PROCESSOR_LAWS, check_metric, check_processor

INF = torch.inf
count = itertools.count()


class NoDigits:
    """The example of the contract."""

    def __init__(self, tokenizer: Any) -> None:
        texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        self.banned = [token for token, text in enumerate(texts) if any(map(str.isdigit, text))]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.banned] = -INF
        return scores


class Metric:
    """A metric of a function; without one, the mean length of a word, the example of the
    contract.
    """

    def __init__(
        self,
        function: Callable[[Any], Any] | None = None,
        unit: Any = "characters",
        direction: Any = None,
    ) -> None:
        self.function = function
        self.unit = unit
        self.lower_is_better = direction

    def __call__(self, sample: Any) -> Any:
        words = list(itertools.chain.from_iterable(sample.words))
        return self.function(sample) if self.function else sum(map(len, words)) / max(1, len(words))


def every(process: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda tokenizer: process


def change_ids(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    ids[:, -1] = 0
    return scores


def biased(tokenizer: Any) -> Any:
    bias = random.random()  # of each processor another
    return lambda ids, scores: scores * bias


GOOD = [
    NoDigits,
    lambda tokenizer: SuppressTokensLogitsProcessor(tokenizer.encode("a")),
    lambda tokenizer: TypicalLogitsWarper(mass=0.9),
    every(lambda ids, scores: scores - scores.max()),
]
PROCESSORS = [
    ("made", every(7), "It returned 7"),
    ("made", lambda tokenizer: NoDigits, "It returned <class"),
    ("scores", every(lambda ids, scores: scores[0]), r"have the shape \(\d+,\)"),
    # knows the tokenizer's ids only, and not those of conditions
    (
        "scores",
        lambda tokenizer: lambda ids, scores: scores[:, : tokenizer.vocab_size],
        r"have the shape \(1, \d+\)",
    ),
    ("scores", every(lambda ids, scores: scores.tolist()), "It returned a list"),
    (
        "scores",
        every(lambda ids, scores: scores * 0),
        r"After 0 tokens, with V = \d+: A score is nan",
    ),
    ("scores", every(lambda ids, scores: scores.clamp(min=INF)), "A score is inf"),
    (
        "scores",
        every(lambda ids, scores: torch.full_like(scores, -INF)),
        r"After 0 tokens, with V = \d+: It rules out every token",
    ),
    (
        "scores",
        every(lambda ids, s: torch.full_like(s, -INF) if ids.shape[1] > 200 else s),
        r"After 300 tokens, with V = \d+: It rules out every",
    ),
    ("ids_unchanged", every(change_ids), "does not change the ids"),
    (
        "no_memory",
        every(lambda ids, s: s + (torch.arange(s.shape[1]) == next(count) % 9)),
        "must depend on ids and scores only",
    ),
    (
        "no_memory",
        every(lambda ids, scores: scores + random.random()),
        "must depend on ids and scores only",
    ),
    ("no_memory", biased, "from another processor of the factory"),
]
METRICS = [
    ("protocol", Metric, "it is the class Metric"),
    ("protocol", len, "of the type builtin_function_or_method"),
    ("protocol", Metric(unit=None), "unit should be a string"),
    ("protocol", Metric(unit="x" * 41), "at most 40"),
    ("protocol", Metric(direction="yes"), "lower_is_better should be"),
    (
        "any_texts",
        Metric(lambda s: 1 / sum(map(len, s.words))),
        "For 1 text with 0 words: ZeroDivisionError",
    ),
    (
        "any_texts",
        Metric(lambda s: 1 / len(s.training_words)),
        r"For 5 texts with .* words: ZeroDivisionError",
    ),
    ("any_texts", Metric(lambda s: "0.5"), "It returned '0.5'"),
    (
        "any_texts",
        Metric(lambda s: float("nan") if s.texts == ("",) else 1),
        "For 1 text with 0 words: It returned nan",
    ),
    ("any_texts", Metric(lambda s: len(s.texts) > 2), "It returned True"),
    ("no_order", Metric(lambda s: len(s.texts[0])), "in the opposite order"),
    ("no_memory", Metric(lambda s: next(count)), "called again with the same sample"),
]


def test_good_ones_keep_the_laws():
    for factory in GOOD:
        check_processor(factory)
    check_metric(Metric())


@pytest.mark.parametrize(
    "laws, check, faults",
    [(PROCESSOR_LAWS, check_processor, PROCESSORS), (METRIC_LAWS, check_metric, METRICS)],
)
def test_each_fault_is_caught_by_its_law(laws, check, faults):
    assert [law.__name__ for law in laws] == list(dict.fromkeys(name for name, _, _ in faults))
    for name, plugin, words in faults:
        (law,) = [law for law in laws if law.__name__ == name]
        with pytest.raises(AssertionError, match=words):
            law(plugin)
        with pytest.raises(AssertionError):
            check(plugin)
