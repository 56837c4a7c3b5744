"""The laws of the metric contract in ``reviewgen.protocols``, one function each; ``metric`` is the object of the entry point."""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from reviewgen.errors import counted
from reviewgen.evaluation.metrics import find_problem, make_sample
from reviewgen.protocols import TextSample
from reviewgen.testing.tokenizer_laws import TRAINING_TEXTS

__all__ = ["METRIC_LAWS", "any_texts", "check_metric", "no_memory", "no_order", "protocol"]

GENERATED: tuple[str, ...] = (
    "A good flim. I liked it, and I liked it, and I liked it!",
    "The plot is thin, the aktors are thin, the end is the end of the end",
    "a good day, a good film, a bad end;",
    "Don't watch it: 1999 was the worst of years.\n",
    "ภาพยนตร์เรื่องนี้ดีมาก, très bon 👍🏽",
)
"""Texts as a small model generates them."""

TOLERANCE = 1e-9  # relative, between two sums of the same numbers


def check_metric(metric: Any) -> None:
    """Check all laws in order, and stop at the first that the metric breaks.

    Raises:
        AssertionError: A law is broken.
    """
    for law in METRIC_LAWS:
        law(metric)


def protocol(metric: Any) -> None:
    """The metric is an object with unit and lower_is_better that is called with a TextSample."""
    problem = find_problem(metric)
    assert problem is None, f"The entry point must be an object as reviewgen.protocols.Metric describes: {problem}."


def any_texts(metric: Any) -> None:
    """The value of any texts is a finite number: of one text or many, of long and empty ones, without words, of unknown words."""
    for texts in (GENERATED, GENERATED[:1], GENERATED * 50, (" ".join(GENERATED * 50),), ("",), ("", "!?", "123 👍🏽")):
        for words in (TRAINING_TEXTS, ()):
            _value(metric, _sample(texts, words))


def no_order(metric: Any) -> None:
    """The order of the texts does not change the value."""
    value, backwards = (_value(metric, _sample(texts)) for texts in (GENERATED, GENERATED[::-1]))
    assert math.isclose(value, backwards, rel_tol=TOLERANCE), (
        f"The value is {value} and, of the same texts in the opposite order, {backwards}; the order must not matter."
    )


def no_memory(metric: Any) -> None:
    """The value depends on the sample only: not on earlier calls, and not on chance."""
    value = _value(metric, _sample(GENERATED))
    _value(metric, _sample(GENERATED[:2]))
    again = _value(metric, _sample(GENERATED))
    assert value == again, f"The value is {value} and, when called again with the same sample, {again}; it must be the same."


def _sample(texts: Sequence[str], training: Sequence[str] = TRAINING_TEXTS) -> TextSample:
    words = {word.casefold() for row in make_sample(training).words for word in row}
    return make_sample(texts, frozenset(words))


def _value(metric: Any, sample: TextSample) -> float:
    described = f"{counted(len(sample.texts), 'text')} with {counted(sum(map(len, sample.words)), 'word')}"
    try:
        value = metric(sample)
    except Exception as error:
        raise AssertionError(f"The metric raises {type(error).__name__} for {described}: {error}") from error
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    assert is_number, f"The metric returned {value!r} for {described}; it must return a finite number."
    return float(value)


METRIC_LAWS: tuple[Callable[[Any], None], ...] = (protocol, any_texts, no_order, no_memory)
"""All laws, in the order in which ``check_metric`` checks them."""
