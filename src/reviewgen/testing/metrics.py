"""The laws of the contracts of metrics and of readers in ``reviewgen.protocols``, one function
each.

A law of a metric is called with the metric. A law of a reader is called with the reader and a file
that it can read.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from numbers import Real
from typing import Any

from reviewgen.data.columns import DataConfig
from reviewgen.data.tables import records_of
from reviewgen.data.texts import read_examples
from reviewgen.errors import counted
from reviewgen.evaluation.metrics import find_problem, make_sample
from reviewgen.protocols.checks import asserting
from reviewgen.testing.laws import Laws
from reviewgen.testing.tokenizers import TRAINING_TEXTS

GENERATED: tuple[str, ...] = (
    "A good flim. I liked it, and I liked it, and I liked it!",
    "The plot is thin, the aktors are thin, the end is the end of the end",
    "a good day, a good film, a bad end;",
    "Don't watch it: 1999 was the worst of years.\n",
    "ภาพยนตร์เรื่องนี้ดีมาก, très bon 👍🏽",
)
"""Texts as a small model generates them."""


METRIC_LAWS = Laws(lambda metric: [(metric,)])
"""All laws of a metric, in the order in which ``check_metric`` checks them."""
law = METRIC_LAWS.law
READER_LAWS = Laws(lambda reader, source: [(reader, source)])
"""All laws of a reader, in the order in which ``check_reader`` checks them."""


def check_metric(metric: Any) -> None:
    """Check all laws in order, and stop at the first that the metric breaks.

    Raises:
        AssertionError: A law is broken.
    """
    METRIC_LAWS.check(metric)


def check_reader(reader: Any, source: str) -> None:
    """Check all laws in order, and stop at the first that the reader breaks.

    Args:
        reader: The reader.
        source: A file or a URL with at least one text.

    Raises:
        AssertionError: A law is broken.
    """
    READER_LAWS.check(reader, source)


@law()
def protocol(metric: Any) -> None:
    """The metric is an object with unit and lower_is_better that is called with a TextSample."""
    problem = find_problem(metric)
    assert problem is None, problem


@law()
def any_texts(metric: Any) -> None:
    """The value for any texts is finite: for one text or many, long or empty, without words, with
    unknown words.
    """
    for texts in (
        GENERATED,
        GENERATED[:1],
        GENERATED * 50,
        (" ".join(GENERATED * 50),),
        ("",),
        ("", "!?", "123 👍🏽"),
    ):
        for words in (TRAINING_TEXTS, ()):
            _value(metric, texts, words)


@law()
def no_order(metric: Any) -> None:
    """The order of the texts must not matter."""
    value = _value(metric, GENERATED)
    backwards = _value(metric, GENERATED[::-1])
    assert math.isclose(value, backwards), (
        f"The value is {value} and, of the same texts in the opposite order, {backwards}."
    )


@law()
def no_memory(metric: Any) -> None:
    """The value depends on the sample only: not on earlier calls, and not on chance."""
    value = _value(metric, GENERATED)
    _value(metric, GENERATED[:2])
    again = _value(metric, GENERATED)
    assert value == again, (
        f"The value is {value} and, when called again with the same sample, {again}."
    )


@READER_LAWS.law()
def records(reader: Any, source: str) -> None:
    """The reader yields Arrow batches or lists of mappings, whose columns have names."""
    rows = _read(reader, source)
    assert rows and all(map(_has_names, rows)), f"From {source} it reads {rows!r:.80}."


def _has_names(row: Any) -> bool:
    """Return whether a record is a mapping from the names of its columns."""
    return isinstance(row, Mapping) and all(isinstance(name, str) for name in row)


@READER_LAWS.law()
def same_again(reader: Any, source: str) -> None:
    """The reader reads the same records each time."""
    assert _read(reader, source) == _read(reader, source)


@READER_LAWS.law()
def texts(reader: Any, source: str) -> None:
    """A column of the records holds text."""
    examples = read_examples(_read(reader, source), DataConfig(clean=False))
    assert any(text.strip() for text, _ in examples)


def _value(metric: Any, texts: Sequence[str], training: Sequence[str] = TRAINING_TEXTS) -> float:
    """Return the metric of texts, for a model that was trained on some training texts."""
    training_words = chain.from_iterable(make_sample(training).words)
    sample = make_sample(texts, frozenset(map(str.casefold, training_words)))
    words = counted(sum(map(len, sample.words)), "word")
    with asserting(f"For {counted(len(texts), 'text')} with {words}:"):
        value = metric(sample)
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        assert is_number and math.isfinite(value), f"It returned {value!r:.80}."
    return float(value)


def _read(reader: Any, source: str) -> list[Any]:
    """Return all records of a source."""
    return list(records_of(reader(source)))
