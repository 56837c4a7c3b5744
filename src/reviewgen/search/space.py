"""What a search may set, and to what: ranges and lists of values, from a model's own settings or as a person types them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, get_args, get_origin

from reviewgen.config import Bound, fields_of, from_dict
from reviewgen.errors import ConfigError
from reviewgen.protocols import CountTrained
from reviewgen.runs.arguments import merge_settings
from reviewgen.runs.start import Start
from reviewgen.search.variants import split_name
from reviewgen.training import TrainingConfig

__all__ = ["Choice", "Range", "Space", "current", "parse_space", "usual_space"]

_WIDE = 10  # a range whose ends differ by that factor is searched by orders of magnitude
_DROPOUTS = ("output_dropout", "dropout")  # one is enough for twenty trials: the first that a model has


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones where both are."""

    low: int | float
    high: int | float
    step: int | None = None  # of whole numbers

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def is_logarithmic(self) -> bool:
        """Whether it is searched by orders of magnitude."""
        return self.step is None and self.low > 0 and self.high >= _WIDE * self.low

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that show whether all are allowed."""
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        """Return whether a value can be drawn."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or (value - self.low) % self.step == 0


@dataclass(frozen=True)
class Choice:
    """Some values, in no order."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that show whether all are allowed: all."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Return whether a value can be drawn."""
        return value in self.values


Space: TypeAlias = dict[str, Range | Choice]
"""By the name of a setting, as in "model.hidden_size"."""


def current(start: Start, setting: str) -> Any:
    """Return the value that a setting has where nothing is searched."""
    group, name = split_name(setting)
    if group == "model":
        return getattr(from_dict(start.model_class.Config, {"vocab_size": 2} | start.model_settings), name)
    return getattr(start.training if group == "training" else start.tokenizer_config, name)


def usual_space(start: Start, fixed: Sequence[str]) -> Space:
    """Return what is searched if nobody says otherwise: learning rate, size and dropout, or the order of a model that counts.

    Args:
        start: What the trainings start from; a trained model keeps its size.
        fixed: Settings that are not to be searched, as in "model.hidden_size".
    """
    fields = fields_of(start.model_class.Config)
    if issubclass(start.model_class, CountTrained):
        names = ["order"] if "order" in fields else []
        found = {f"model.{name}": _around(current(start, f"model.{name}"), 1) for name in names}
    else:
        rate = start.training.learning_rate
        found = {"training.learning_rate": Range(rate / 8, rate * 4)}
        if "hidden_size" in fields and start.trained is None:
            size = current(start, "model.hidden_size")
            found["model.hidden_size"] = _around(size, max(1, size // 4))
        dropout = next((name for name in _DROPOUTS if name in fields), None)
        if dropout is not None:
            found[f"model.{dropout}"] = Range(0.0, max(0.5, current(start, f"model.{dropout}")))
    space: Space = {name: _within(_bound(start, name), range_) for name, range_ in found.items() if name not in fixed}
    if not space:
        raise ConfigError("Nothing is left to search: name settings and their values, as in --search training.bptt=16:128.")
    return space


def parse_space(start: Start, search: Mapping[str, Any]) -> Space:
    """Return a space from what a person typed.

    >>> parse_space(start, {"model.order": "2:8", "model.smoothing": "kneser-ney,absolute"})     # doctest: +SKIP

    Args:
        start: What the trainings start from.
        search: By the name of a setting: "low:high" or a tuple of both is a range, "a,b,c" or a list are values to choose from.

    Raises:
        ConfigError: A setting is unknown, a range upside down or of no numbers, or a list empty.
    """
    return {setting: _parse(start, setting, given) for setting, given in search.items()}


def _parse(start: Start, setting: str, given: Any) -> Range | Choice:
    if isinstance(given, str):
        given = tuple(given.split(":")) if ":" in given else given.split(",")
    if not isinstance(given, list | tuple) or not given:
        raise ConfigError(f"{setting} is searched in a range, as in 2:8, or a list, as in 2,4,8; got {given!r}.")
    values = [_typed(start, setting, value.strip() if isinstance(value, str) else value) for value in given]
    if isinstance(given, list):
        return Choice(tuple(dict.fromkeys(values)))
    if len(values) != 2 or any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        raise ConfigError(f"A range of {setting} is two numbers, as in 2:8; got {':'.join(map(str, given))}.")
    low, high = values
    if not low < high:
        raise ConfigError(f"The range {low}:{high} of {setting} is upside down or empty: write the lower end first.")
    return Range(low, high)


def _typed(start: Start, setting: str, value: Any) -> Any:
    """Return a value of a setting as its own type.

    Raises:
        ConfigError: The setting is unknown, or it is no value of it, or not one that can be searched.
    """
    group, name = split_name(setting)
    config = {"model": start.model_class.Config, "training": TrainingConfig, "tokenizer": start.tokenizer_class.Config}[group]
    found = merge_settings(config, {}, {name: value}, group)[name]
    if found is not None and not isinstance(found, bool | int | float | str):
        raise ConfigError(f"{setting} is no number and no word, so it cannot be searched.")
    return found


def _around(value: int, step: int) -> Range:
    return Range(max(step, value - 2 * step) if value >= step else value, value + 4 * step, step)


def _bound(start: Start, setting: str) -> Bound:
    """Return the bounds of a setting of a model or of the training."""
    group, name = split_name(setting)
    hint = fields_of(start.model_class.Config if group == "model" else TrainingConfig)[name]
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((extra for extra in extras if isinstance(extra, Bound)), Bound())


def _within(bound: Bound, found: Range) -> Range:
    """Return the part of a range that is within bounds."""
    low = found.low if bound.at_least is None else max(found.low, bound.at_least)
    high = found.high if bound.at_most is None else min(found.high, bound.at_most)
    if found.is_whole:
        low, high = int(low), int(high)
    return Range(low, high, found.step)
