"""The search space: ranges and lists of values of settings, from a model's own settings or as the user types them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, get_args, get_origin

from reviewgen.config import Bound, fields_of
from reviewgen.errors import ConfigError, quoted
from reviewgen.runs.parts import TrainingParts, check_settings, merge_settings
from reviewgen.search.variants import split_name
from reviewgen.training import TrainingConfig

_LOGARITHMIC_FACTOR = 10  # a range whose ends differ by this factor is searched on a logarithmic scale
_DROPOUTS = ("output_dropout", "dropout")  # one is enough for twenty trials: the first of these that a model has


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones where both are."""

    low: int | float
    high: int | float
    step: int | None = None  # of whole numbers

    @property
    def is_whole(self) -> bool:
        """Whether it contains whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def is_logarithmic(self) -> bool:
        """Whether it is searched on a logarithmic scale."""
        return self.step is None and self.low > 0 and self.high >= _LOGARITHMIC_FACTOR * self.low

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values to check: if these are allowed, all are."""
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        """Return whether it contains a value."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or (value - self.low) % self.step == 0


@dataclass(frozen=True)
class Choice:
    """Some values, without an order."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values to check: all of them."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Return whether it contains a value."""
        return value in self.values


Space: TypeAlias = dict[str, Range | Choice]
"""The values of each setting, by its name, as in "model.hidden_size"."""


def current(parts: TrainingParts, setting: str) -> Any:
    """Return the value of a setting without a search."""
    group, name = split_name(setting)
    if group == "model":
        return getattr(check_settings(parts.model_class.Config, parts.model_settings), name)
    return getattr(parts.training if group == "training" else parts.tokenizer_config, name)


def usual_space(parts: TrainingParts, fixed: Sequence[str]) -> Space:
    """Return the default space: learning rate, size and dropout, or the order of a model that is trained by counting.

    Args:
        parts: The parts of the trainings; a trained model keeps its size.
        fixed: Settings that are not searched, as in "model.hidden_size".
    """
    fields = fields_of(parts.model_class.Config)
    if parts.is_counted:
        names = ["order"] if "order" in fields else []
        ranges = {f"model.{name}": _around(current(parts, f"model.{name}"), 1) for name in names}
    else:
        rate = parts.training.learning_rate
        ranges = {"training.learning_rate": Range(rate / 8, rate * 4)}
        if "hidden_size" in fields and parts.trained is None:
            size = current(parts, "model.hidden_size")
            ranges["model.hidden_size"] = _around(size, max(1, size // 4))
        dropout = next((name for name in _DROPOUTS if name in fields), None)
        if dropout is not None:
            ranges[f"model.{dropout}"] = Range(0.0, max(0.5, current(parts, f"model.{dropout}")))
    space: Space = {name: _within(_bound(parts, name), values) for name, values in ranges.items() if name not in fixed}
    if not space:
        raise ConfigError("Nothing is left to search: name settings and their values, as in --search training.bptt=16:128.")
    return space


def parse_space(parts: TrainingParts, search: Mapping[str, Any]) -> Space:
    """Return a space from ranges and lists as the user types them.

    >>> parse_space(parts, {"model.order": "2:8", "model.smoothing": "kneser-ney,absolute"})     # doctest: +SKIP

    Args:
        parts: The parts of the trainings.
        search: By the name of a setting: "low:high" or a tuple of both is a range, "a,b,c" or a list are values to choose from.

    Raises:
        ConfigError: A setting is unknown, a range is reversed or not of numbers, or a list is empty.
    """
    return {setting: _parse(parts, setting, given) for setting, given in search.items()}


def _parse(parts: TrainingParts, setting: str, given: Any) -> Range | Choice:
    if isinstance(given, str):
        given = tuple(given.split(":")) if ":" in given else given.split(",")
    if not isinstance(given, list | tuple) or not given:
        raise ConfigError(f"{setting} is searched in a range, as in 2:8, or a list, as in 2,4,8; got {quoted(given)}.")
    values = [_typed(parts, setting, value.strip() if isinstance(value, str) else value) for value in given]
    if isinstance(given, list):
        return Choice(tuple(dict.fromkeys(values)))
    if len(values) != 2 or any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        raise ConfigError(f"A range of {setting} is two numbers, as in 2:8; got {':'.join(map(str, given))}.")
    low, high = values
    if not low < high:
        raise ConfigError(f"The range {low}:{high} of {setting} is reversed or empty: write the lower end first.")
    return Range(low, high)


def _typed(parts: TrainingParts, setting: str, value: Any) -> Any:
    """Return a value of a setting as its own type.

    Raises:
        ConfigError: The setting is unknown, or the value is not one of its type, or cannot be searched.
    """
    group, name = split_name(setting)
    config = {"model": parts.model_class.Config, "training": TrainingConfig, "tokenizer": parts.tokenizer_class.Config}[group]
    typed = merge_settings(config, {}, {name: value}, group)[name]
    if typed is not None and not isinstance(typed, bool | int | float | str):
        raise ConfigError(f"{setting} is neither a number nor a string, so it cannot be searched.")
    return typed


def _around(value: int, step: int) -> Range:
    return Range(max(step, value - 2 * step) if value >= step else value, value + 4 * step, step)


def _bound(parts: TrainingParts, setting: str) -> Bound:
    """Return the bounds of a setting of a model or of the training."""
    group, name = split_name(setting)
    hint = fields_of(parts.model_class.Config if group == "model" else TrainingConfig)[name]
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((extra for extra in extras if isinstance(extra, Bound)), Bound())


def _within(bound: Bound, values: Range) -> Range:
    """Return the part of a range that is within bounds."""
    low = values.low if bound.at_least is None else max(values.low, bound.at_least)
    high = values.high if bound.at_most is None else min(values.high, bound.at_most)
    if values.is_whole:
        low, high = int(low), int(high)
    return Range(low, high, values.step)
