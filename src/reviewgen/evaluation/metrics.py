"""Metrics of generated texts by name: installed plugins, called at each evaluation. One that fails does not end the training."""

import math
from collections.abc import Sequence, Set
from numbers import Real

from reviewgen.errors import BrokenPlugin
from reviewgen.lexicon import words_of
from reviewgen.protocols import Metric, TextSample
from reviewgen.registry import Plugin, find_metric

_MAX_UNIT = 40  # characters


def make_sample(texts: Sequence[str], training_words: Set[str] = frozenset()) -> TextSample:
    """Return texts as metrics take them; ``training_words`` are the words of the training text in lower case."""
    return TextSample(tuple(texts), tuple(tuple(words_of(text)) for text in texts), training_words)


def find_metrics(names: Sequence[str]) -> dict[str, tuple[Metric, Plugin]]:
    """Import metrics by name.

    Raises:
        UnknownPlugin: No installed package provides a name.
        PluginConflict: Two packages provide a name.
        BrokenPlugin: A package cannot be imported, or what it provides is not a metric.
    """
    metrics = {name: find_metric(name) for name in names}
    for name, (metric, plugin) in metrics.items():
        if problem := find_problem(metric):
            raise BrokenPlugin(
                f"The metric {name!r} of {plugin.package} {plugin.version} is broken: its entry point should be an object that "
                f"is called with a TextSample and has unit and lower_is_better; {problem}."
            )
    return metrics


def find_problem(metric: object) -> str | None:
    """Return why an object is not a metric, if it is not."""
    if isinstance(metric, type):
        return f"it is the class {metric.__name__}"
    if not isinstance(metric, Metric):
        return f"it is of the type {type(metric).__name__}"
    if not isinstance(metric.unit, str) or len(metric.unit) > _MAX_UNIT:
        return f"unit should be a string of at most {_MAX_UNIT} characters, and is {metric.unit!r:.60}"
    if not isinstance(metric.lower_is_better, bool | None):
        return f"lower_is_better should be True, False or None, and is {metric.lower_is_better!r:.60}"
    return None


class Metrics:
    """The metrics of a training.

    Args:
        names: Their names.
        training_words: The words of the training text in lower case.

    Raises:
        PluginError: See ``find_metrics``.
    """

    def __init__(self, names: Sequence[str] = (), training_words: Set[str] = frozenset()) -> None:
        self._metrics, self._training_words = find_metrics(names), training_words
        self._has_failed: set[str] = set()
        self._notes: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._metrics)

    def measure(self, texts: Sequence[str]) -> dict[str, float | None]:
        """Return the value of each metric; None for one that fails, of which there is then a note."""
        sample = make_sample(texts, self._training_words) if self._metrics else TextSample((), (), frozenset())
        return {name: self._measure(name, sample) for name in self._metrics}

    def facts(self, generated: Sequence[str] = (), held_out: Sequence[str] = ()) -> dict[str, dict[str, object]]:
        """Return each metric as JSON values: its unit, its direction, and its value of generated and of held-out texts.

        Args:
            generated: Texts of the model; none leaves the values out.
            held_out: About as much text by people.
        """
        values = [self.measure(texts) if texts else {} for texts in (generated, held_out)]
        return {
            name: {
                "unit": metric.unit,
                "lower_is_better": metric.lower_is_better,
                "generated": values[0].get(name),
                "held_out": values[1].get(name),
            }
            for name, (metric, _) in self._metrics.items()
        }

    def pop_notes(self) -> tuple[str, ...]:
        """Return a sentence for each metric that has failed for the first time since the last call."""
        notes, self._notes = tuple(self._notes), []
        return notes

    def _measure(self, name: str, sample: TextSample) -> float | None:
        metric, plugin = self._metrics[name]
        try:
            value = metric(sample)
        except (Exception, SystemExit) as error:  # third-party code may raise anything; hours of training must not be lost to it
            problem = f"{type(error).__name__}: {error!s:.200}"
        else:
            if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
            problem = f"it returned {value!r:.60}, not a finite number"
        if name not in self._has_failed:
            self._has_failed.add(name)
            self._notes.append(
                f"The metric {name!r} of {plugin.package} {plugin.version} failed and is shown as missing: {_end(problem)}"
            )
        return None


def _end(sentence: str) -> str:
    """Return a sentence on one line with one full stop at its end."""
    return " ".join(sentence.split()).rstrip(".") + "."
