"""The laws of logits processors and metrics: good ones pass, and each planted fault is caught by its law."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import SuppressTokensLogitsProcessor, TypicalLogitsWarper

from reviewgen.registry import find_metric, list_plugins
from reviewgen.testing import METRIC_LAWS, PROCESSOR_LAWS, check_metric, check_processor

INF = torch.inf


class NoDigits:
    """The example of the contract."""

    def __init__(self, tokenizer: Any) -> None:
        texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        self.banned = [token for token, text in enumerate(texts) if any(map(str.isdigit, text))]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.banned] = -INF
        return scores


class WordLength:
    """The example of the contract."""

    unit = "characters"
    lower_is_better = None

    def __call__(self, sample: Any) -> float:
        words = [word for row in sample.words for word in row]
        return sum(map(len, words)) / max(1, len(words))


@pytest.mark.parametrize(
    "factory",
    [
        NoDigits,
        lambda tokenizer: SuppressTokensLogitsProcessor(tokenizer.encode("a")),
        lambda tokenizer: TypicalLogitsWarper(mass=0.9),
        lambda tokenizer: lambda ids, scores: scores - scores.max(),
    ],
)
@pytest.mark.parametrize("law", PROCESSOR_LAWS, ids=lambda law: law.__name__)
def test_a_good_processor_keeps_the_laws(factory: Any, law: Callable[[Any], None]) -> None:
    law(factory)


def every(process: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda tokenizer: process


class Counting:
    """Remembers how many tokens it was called for."""

    def __init__(self, tokenizer: Any) -> None:
        self.calls = 0

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return scores + (torch.arange(scores.shape[1]) == self.calls)


class Narrow:
    """Knows the tokenizer's ids only, and not those of conditions."""

    def __init__(self, tokenizer: Any) -> None:
        self.bias = torch.zeros(1, tokenizer.vocab_size)

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores[:, : self.bias.shape[1]] + self.bias


def chance(tokenizer: Any) -> Any:
    bias = random.random()  # of each processor another
    return lambda ids, scores: scores * bias


def long_texts(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return torch.full_like(scores, -INF) if ids.shape[1] > 200 else scores


def change_ids(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    ids[:, -1] = 0
    return scores


PROCESSOR_FAULTS: dict[str, tuple[str, Any, str]] = {
    "not callable": ("made", every(7), "returned 7"),
    "a class": ("made", lambda tokenizer: NoDigits, "the class NoDigits"),
    "one row short": ("scores", every(lambda ids, scores: scores[0]), r"shape \(\d+,\)"),
    "narrow": ("scores", Narrow, r"they should have the shape"),
    "a list": ("scores", every(lambda ids, scores: scores.tolist()), "returned list"),
    "nothing": ("scores", every(lambda ids, scores: None), "returned NoneType"),
    "times zero": ("scores", every(lambda ids, scores: scores * 0), r"is nan after 0 tokens, with V = \d+"),
    "plus infinity": ("scores", every(lambda ids, scores: scores.clamp(min=INF)), "is inf"),
    "nothing left": ("scores", every(lambda ids, scores: torch.full_like(scores, -INF)), "rules out every token after 0 tokens"),
    "nothing left in long texts": ("scores", every(long_texts), "rules out every token after 300 tokens"),
    "changed ids": ("ids_unchanged", every(change_ids), "changes the ids"),
    "counts calls": ("no_memory", Counting, r"different after other texts, by up to 1"),
    "chance": ("no_memory", every(lambda ids, scores: scores + random.random()), "must depend on ids and scores only"),
    "chance of the factory": ("no_memory", chance, "from another processor of the factory"),
}


@pytest.mark.parametrize("fault", PROCESSOR_FAULTS)
def test_a_fault_of_a_processor_is_caught(fault: str) -> None:
    name, factory, message = PROCESSOR_FAULTS[fault]
    (law,) = [law for law in PROCESSOR_LAWS if law.__name__ == name]
    with pytest.raises(AssertionError, match=message):
        law(factory)
    with pytest.raises(AssertionError):
        check_processor(factory)


def test_the_installed_metrics_and_the_example_keep_the_laws() -> None:
    names = [plugin.name for plugin in list_plugins("metric") if plugin.package == "reviewgen"]
    assert len(names) == 6
    for name in names:
        check_metric(find_metric(name)[0])
    check_metric(WordLength())


class Metric(WordLength):
    """A metric of one function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, sample: Any) -> Any:
        return self.function(sample)


class Badly(WordLength):
    """A metric whose unit is missing, or of another type."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


calls: list[int] = []

METRIC_FAULTS: dict[str, tuple[str, Any, str]] = {
    "a class": ("protocol", WordLength, "it is the class WordLength"),
    "a function": ("protocol", len, "of the type builtin_function_or_method"),
    "a unit of no text": ("protocol", Badly(unit=None), "unit should be a string"),
    "a long unit": ("protocol", Badly(unit="x" * 41), "at most 40"),
    "a direction in words": ("protocol", Badly(lower_is_better="yes"), "lower_is_better should be"),
    "no words": ("any_texts", Metric(lambda s: 1 / sum(map(len, s.words))), "raises ZeroDivisionError for 1 text with 0 words"),
    "no training words": ("any_texts", Metric(lambda s: 1 / len(s.training_words)), "raises ZeroDivisionError for 5 texts"),
    "not a number": ("any_texts", Metric(lambda s: "0.5"), "returned '0.5'"),
    "nan": ("any_texts", Metric(lambda s: float("nan") if s.texts == ("",) else 1), "returned nan for 1 text with 0 words"),
    "a bool": ("any_texts", Metric(lambda s: len(s.texts) > 2), "returned True"),
    "the first text": ("no_order", Metric(lambda s: len(s.texts[0])), "in the opposite order"),
    "chance": ("no_memory", Metric(lambda s: random.random()), "called again with the same sample"),
    "counts calls": ("no_memory", Metric(lambda s: calls.append(1) or len(calls)), "called again with the same sample"),
}


@pytest.mark.parametrize("fault", METRIC_FAULTS)
def test_a_fault_of_a_metric_is_caught(fault: str) -> None:
    name, metric, message = METRIC_FAULTS[fault]
    (law,) = [law for law in METRIC_LAWS if law.__name__ == name]
    with pytest.raises(AssertionError, match=message):
        law(metric)
    with pytest.raises(AssertionError):
        check_metric(metric)
