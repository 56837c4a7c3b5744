"""Measures texts: by metrics, which are plugins, and by statistics that compare generated texts
with human ones.

The metrics are called at each evaluation of a training. A metric that fails does not end the
training.
"""

import math
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from numbers import Real

from reviewgen.errors import BrokenPlugin, ConfigError
from reviewgen.lexicon.words import words_of
from reviewgen.protocols.extensions import Metric, TextSample
from reviewgen.rates import find_intervals
from reviewgen.registry.metadata import Plugin, title_of
from reviewgen.registry.plugins import find_metric

_MAX_UNIT = 40  # the name of a unit has at most this many characters
_REPETITION_WORDS = 4  # repetition is measured on n-grams of this many words


def make_sample(texts: Sequence[str], training_words: Set[str] = frozenset()) -> TextSample:
    """Return texts and their words in the form that metrics take.

    Args:
        texts: The texts.
        training_words: The words of the training text in lower case.
    """
    return TextSample(tuple(texts), tuple(tuple(words_of(text)) for text in texts), training_words)


def find_metrics(names: Sequence[str]) -> dict[str, tuple[Metric, Plugin]]:
    """Import metrics by name.

    Raises:
        UnknownPlugin: No installed package provides a metric of this name.
        PluginConflict: Two packages provide a metric of the same name.
        BrokenPlugin: A package cannot be imported, or what it provides is not a metric.
    """
    metrics = {name: find_metric(name) for name in names}
    for metric, plugin in metrics.values():
        problem = find_problem(metric)
        if problem:
            raise BrokenPlugin(
                f"{title_of(plugin)} is broken: its entry point should be an object that is called"
                f" with a TextSample and has unit and lower_is_better; {problem}."
            )
    return metrics


def find_problem(metric: object) -> str | None:
    """Return why an object is not a metric; None if it is one."""
    if isinstance(metric, type):
        return f"it is the class {metric.__name__}"
    if not isinstance(metric, Metric):
        return f"it is of the type {type(metric).__name__}"
    if not isinstance(metric.unit, str) or len(metric.unit) > _MAX_UNIT:
        return (
            f"unit should be a string of at most {_MAX_UNIT} characters, and is {metric.unit!r:.60}"
        )
    if not isinstance(metric.lower_is_better, bool | None):
        return (
            f"lower_is_better should be True, False or None, and is {metric.lower_is_better!r:.60}"
        )
    return None


def judge_by_metric(name: str, training_words: Set[str]) -> Callable[[str, str], float]:
    """Return a function ``rate(text, prompt)`` that rates a text by a metric; higher is better.

    The prompt is ignored. An empty text, or one whose value is NaN, is rated -inf.

    Args:
        name: The name of the metric.
        training_words: The words of the training text in lower case.

    Raises:
        PluginError: See ``find_metrics``.
        ConfigError: The metric does not say whether lower is better.
    """
    metric, _ = find_metrics([name])[name]
    if metric.lower_is_better is None:
        raise ConfigError(
            f"The metric {name} does not say whether lower or higher is better, so it cannot judge"
            " texts."
        )
    sign = -1.0 if metric.lower_is_better else 1.0

    def rate(text: str, prompt: str) -> float:
        value = math.nan
        if text:
            value = sign * _value(metric, make_sample([text], training_words))
        return -math.inf if math.isnan(value) else value

    return rate


class TextMetrics:
    """The metrics of a training.

    Args:
        names: The names of the metrics.
        training_words: The words of the training text in lower case.

    Raises:
        PluginError: See ``find_metrics``.
    """

    def __init__(self, names: Sequence[str] = (), training_words: Set[str] = frozenset()) -> None:
        self._metrics = find_metrics(names)
        self._training_words = training_words
        self._failed_names: set[str] = set()
        self._notes: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._metrics)

    def measure(self, texts: Sequence[str]) -> dict[str, float | None]:
        """Return the value of each metric by its name.

        The value of a metric that fails is None; ``pop_notes`` then has a sentence about it.
        """
        # without metrics, nothing has to be split into words
        sample = make_sample(texts if self._metrics else (), self._training_words)
        return {name: self._measure(name, sample) for name in self._metrics}

    def facts(
        self, generated: Sequence[str] = (), held_out: Sequence[str] = ()
    ) -> dict[str, dict[str, object]]:
        """Return the facts of each metric as JSON values.

        These are its unit; whether lower is better; its value on generated texts, with the 95 %
        interval of this value and the number of characters of these texts; and its value on
        held-out texts.

        Args:
            generated: Texts of the model; without any, the value is None.
            held_out: About as much text that people wrote.
        """
        if not self._metrics:
            return {}
        of_generated = self.measure(generated) if generated else {}
        of_held_out = self.measure(held_out) if held_out else {}

        def measure_each(some: Sequence[str]) -> list[float]:
            """Return the value of each metric on some of the texts; NaN if it fails."""
            sample = make_sample(some, self._training_words)
            return [_value(metric, sample) for metric, _ in self._metrics.values()]

        intervals: Sequence[object] = [None] * len(self._metrics)
        if generated:
            are_shares = [metric.unit == "share" for metric, _ in self._metrics.values()]
            intervals = find_intervals(measure_each, generated, are_shares)
        facts: dict[str, dict[str, object]] = {}
        for (name, (metric, _)), interval in zip(self._metrics.items(), intervals, strict=True):
            facts[name] = {
                "unit": metric.unit,
                "lower_is_better": metric.lower_is_better,
                "generated": of_generated.get(name),
                "held_out": of_held_out.get(name),
                "interval": interval,
                "characters": sum(map(len, generated)),
            }
        return facts

    def pop_notes(self) -> tuple[str, ...]:
        """Return the notes that were added since the last call, and remove them.

        A note is a sentence about a metric that has failed for the first time.
        """
        notes = tuple(self._notes)
        self._notes = []
        return notes

    def _measure(self, name: str, sample: TextSample) -> float | None:
        """Return the value of a metric; None if it fails. The first failure is noted."""
        metric, plugin = self._metrics[name]
        try:
            value = metric(sample)
        # third-party code may raise anything, and must not end hours of training
        except (Exception, SystemExit) as error:
            problem = f"{type(error).__name__}: {error!s:.200}"
        else:
            if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
            problem = f"it returned {value!r:.60}, not a finite number"
        if name not in self._failed_names:
            self._failed_names.add(name)
            problem = " ".join(problem.split()).rstrip(".")  # on one line
            self._notes.append(f"{title_of(plugin)} failed and is shown as missing: {problem}.")
        return None


def _value(metric: Metric, sample: TextSample) -> float:
    """Return the value of a metric; NaN if it fails.

    The failure is not reported here: ``TextMetrics.measure`` reports it.
    """
    try:
        return float(metric(sample))
    except (Exception, SystemExit):
        return math.nan


@dataclass(frozen=True)
class TextStatistics:
    """Statistics of some texts. Words are compared in lower case.

    Attributes:
        words: The number of words of all texts together.
        words_per_text: The mean length of a text in words.
        unknown_words: The share of words that the model does not know; None if the model has no
            known words.
        distinct: For n from 1 to 4, the number of different n-grams of words divided by the number
            of all n-grams. It falls as the number of words grows.
        repetition: The share of a text's 4-grams of words that occurred earlier in the same text,
            averaged over the texts.
        bits_per_character: Bits per character under another model, the judge; None without a judge.
        repeated_sentences: The share of texts in which a sentence occurs twice.
    """

    words: int
    words_per_text: float
    unknown_words: float | None
    distinct: tuple[float, float, float, float]
    repetition: float
    bits_per_character: float | None = None
    repeated_sentences: float = 0.0


def measure_texts(
    texts: Sequence[str],
    is_known: Callable[[str], bool] | None = None,
    score: Callable[[Sequence[str]], float] | None = None,
) -> TextStatistics:
    """Compute the statistics of some texts.

    Args:
        texts: The texts.
        is_known: ``is_known(word)`` returns whether the model knows a word; None if the model has
            no known words.
        score: ``score(texts)`` returns their bits per character under the judge; None without a
            judge.
    """
    sample = make_sample(texts)
    words = list(chain.from_iterable(sample.words))
    unknown = None
    if is_known is not None:
        unknown = sum(not is_known(word) for word in words) / max(1, len(words))
    return TextStatistics(
        words=len(words),
        words_per_text=len(words) / max(1, len(texts)),
        unknown_words=unknown,
        distinct=(sample.distinct(1), sample.distinct(2), sample.distinct(3), sample.distinct(4)),
        repetition=sample.repetition(_REPETITION_WORDS),
        bits_per_character=None if score is None or not any(texts) else score(texts),
        repeated_sentences=sample.repeated_sentences(),
    )


def take_words(texts: Iterable[str], words: int) -> list[str]:
    """Return the first texts, up to the one with which they have at least ``words`` words together.
    Return all texts if they have fewer words.
    """
    sample: list[str] = []
    word_count = 0
    for text in texts:
        if word_count >= words:
            break
        sample.append(text)
        word_count += len(words_of(text))
    return sample
