"""Validation of config dataclasses, and their conversion from and to JSON values and strings.

A plugin's ``Config`` is a frozen keyword-only dataclass. The type of a field is bool, int, float or
str; a ``Literal`` with values of these types; a ``tuple[X, ...]`` with one of these types (a list
in JSON); ``dict[str, Any]`` (any JSON object); a dataclass of this kind; or a union such as ``X |
None``. Bounds are part of the type; the bounds of a tuple apply to each element. ``check``
validates types and bounds::

    @dataclass(frozen=True, kw_only=True)
    class GruConfig:
        vocab_size: PositiveInt
        layers: Annotated[int, Bound(at_least=1, at_most=64)] = 1
        dropout: Probability = 0.0

        def __post_init__(self) -> None:
            check(self)

If a value of a setting gets a new name, the old name can still be accepted, from saved files and
from the user. The type says so::

    layer: Annotated[Literal["fast", "plain"], RenamedValues({"quick": "fast"})] = "fast"

``from_dict`` rejects unknown and missing keys and invalid values. ``from_strings`` converts the
strings that a user types after ``--set``. Imports the standard library only, neither torch nor any
plugin.
"""

import dataclasses
import json
import math
import operator
import re
import secrets
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from reviewgen.errors import ConfigError, did_you_mean, quoted

ConfigT = TypeVar("ConfigT")

VOCABULARY_FIELDS = ("vocab_size", "bos_id", "eos_id", "condition_ids", "field_ids", "alphabet")
"""The fields of a model's config that the tokenizer and the conditions decide. A config must have
the first; the others are optional.
"""

GIVEN_IDS = ("condition_ids", "field_ids")
"""The fields of ``VOCABULARY_FIELDS`` that say how many ids there are for conditions, and how many
for fields of free text. A model reads these ids before a text and does not predict them.
"""

SMALLEST_VOCABULARY: dict[str, Any] = {"vocab_size": 2, "bos_id": 0, "eos_id": 1}
"""A placeholder for checking the other settings of a config before there is a tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The allowed range of a number, or of the length of a string, for use in ``Annotated``.

    Attributes:
        at_least: The minimum, inclusive; None for no limit.
        above: The minimum, exclusive; None for no limit.
        at_most: The maximum, inclusive; None for no limit.
        below: The maximum, exclusive; None for no limit.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether a value is finite and in the range."""
        return _is_finite(value) and all(
            _HOLDS[name](value, limit) for name, limit in limits_of(self).items()
        )

    def __str__(self) -> str:
        limits = limits_of(self).items()
        return " and ".join(f"{name.replace('_', ' ')} {limit:g}" for name, limit in limits)


PositiveInt: TypeAlias = Annotated[int, Bound(at_least=1)]
NonNegativeInt: TypeAlias = Annotated[int, Bound(at_least=0)]
Probability: TypeAlias = Annotated[float, Bound(at_least=0, below=1)]

_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}


def limits_of(bound: Bound | None) -> dict[str, float]:
    """Return the limits of a bound by name, without those that are None."""
    return {name: limit for name, limit in vars(bound or Bound()).items() if limit is not None}


@dataclass(frozen=True, eq=False)  # hashed by identity, since the mapping has no hash
class RenamedValues:
    """Maps old to new values of a string setting, for use in ``Annotated``.

    ``from_dict`` and ``from_strings`` replace an old value by the new one; ``to_dict`` and messages
    have the new one only.
    """

    new_values: Mapping[str, str]


@dataclass(frozen=True)
class Technique:
    """A technique that makes models better or training faster, with the settings that switch it
    off. ``reviewgen.ablate`` measures what each technique gains.

    The config class of a model lists the techniques of the model in a ClassVar, ``techniques``;
    ``TrainingConfig`` lists those of training.

    Attributes:
        name: The name, as in "n-gram vectors".
        description: What the technique is, in one line, with its source.
        off: The settings of the class that switch the technique off, as in {"ngrams": 1}.
    """

    name: str
    description: str
    off: Mapping[str, Any]


def settings_off(config: type) -> dict[str, Any]:
    """Return the settings that switch all techniques of a config class off."""
    off: dict[str, Any] = {}
    for technique in getattr(config, "techniques", ()):
        off |= technique.off
    return off


def check(config: Any) -> None:
    """Validate a config dataclass: every field must have its declared type and be within its
    bounds.

    Raises:
        ConfigError: A field has the wrong type or is out of range.
    """
    for name, hint in fields_of(type(config)).items():
        check_value(name, getattr(config, name), hint)


@dataclass(frozen=True, kw_only=True)
class ConditionedConfig:
    """Base class of the settings of models that can use the conditions of a text at every step.

    Attributes:
        vocab_size: Number of token ids, V; taken from the tokenizer.
        bos_id: The id that begins a text; taken from the tokenizer. None in models saved by older
            versions.
        condition_ids: Number of ids of conditions, which follow the tokenizer's; taken from the
            conditions. If above 0, the model uses the conditions at every step.
        field_ids: Number of ids of fields, the last ones; taken from the fields.
    """

    vocab_size: PositiveInt
    bos_id: int | None = None
    condition_ids: NonNegativeInt = 0
    field_ids: NonNegativeInt = 0

    @property
    def holds(self) -> bool:
        """Whether the model uses the conditions at every step."""
        return self.condition_ids + self.field_ids > 0

    def __post_init__(self) -> None:
        check(self)


def check_seed(seed: int) -> int:
    """Validate a seed and return it.

    Raises:
        ConfigError: The seed is not a whole number from 0 to 2**64 - 1.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 64:
        raise ConfigError(
            f"seed must be a whole number of at least 0 and below 2**64; got {quoted(seed)}."
        )
    return seed


def seed_or_random(seed: int | None) -> int:
    """Validate a seed and return it; return a random seed for None.

    Raises:
        ConfigError: See ``check_seed``.
    """
    return secrets.randbits(63) if seed is None else check_seed(seed)


def fields_of(cls: type) -> dict[str, Any]:
    """Return the type hint of each field of a config dataclass, with its bounds."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def rename_values(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a config dataclass in which old names of values are replaced by their new
    names; see ``RenamedValues``.
    """
    hints = fields_of(cls)
    renamed = dict(values)
    for name, value in values.items():
        for extra in getattr(hints.get(name), "__metadata__", ()):
            if isinstance(extra, RenamedValues) and isinstance(value, str):
                renamed[name] = extra.new_values.get(value, value)
    return renamed


def from_dict(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Create a config of class ``cls`` from JSON values; unknown keys are an error.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type or is out of range.
    """
    hints = _check_keys(cls, values)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # the classes are dataclasses, which ConfigT does not say
        missing = dataclasses.MISSING
        is_required = field.default is missing and field.default_factory is missing
        if is_required and field.name not in values:
            raise ConfigError(f"The setting {quoted(field.name)} is missing.")
    renamed = rename_values(cls, values)
    return cls(**{name: _from_json(value, hints[name]) for name, value in renamed.items()})


def from_strings(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert strings to values of a config dataclass, by the type of the field that each is for.
    Values that are not strings are returned unchanged.

    Raises:
        ConfigError: A key is unknown, or a string cannot be converted.
    """
    hints = _check_keys(cls, values)
    return {
        name: _convert(name, value, hints[name]) if isinstance(value, str) else value
        for name, value in rename_values(cls, values).items()
    }


def to_dict(config: Any) -> dict[str, Any]:
    """Return the config as plain JSON values. The numbers of ids of conditions and of fields of
    free text are left out if they are 0, the beginning-of-text id if it is None, and each setting
    in ``added_settings`` if it has its default, so that a folder of an earlier version is saved
    again with the same digest.
    """
    values = dataclasses.asdict(config)
    for name in (*GIVEN_IDS, *getattr(config, "added_settings", ())):
        # the value is 0 or the default, or the config has no such field
        if not values.get(name) or values[name] == getattr(type(config), name):
            values.pop(name, None)
    if values.get("bos_id") is None:
        values.pop("bos_id", None)
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
    }


def parse_settings(
    settings: list[str], groups: tuple[str, ...] = ("model", "tokenizer", "training")
) -> dict[str, dict[str, str]]:
    """Split ``group.name=value`` strings, as given with ``--set``, by group.

    >>> parse_settings(["model.hidden_size=256", "training.batch_size=64"])
    {'model': {'hidden_size': '256'}, 'tokenizer': {}, 'training': {'batch_size': '64'}}

    Raises:
        ConfigError: A string does not have this form, or its group is unknown.
    """
    split: dict[str, dict[str, str]] = {group: {} for group in groups}
    for setting in settings:
        path, equals, value = setting.partition("=")
        group, _, name = path.strip().partition(".")
        if not equals or not name:
            raise ConfigError(
                "A setting must have the form group.name=value, as in model.hidden_size=256; got"
                f" {quoted(setting)}."
            )
        if group not in split:
            raise ConfigError(
                f"{quoted(group)} in {quoted(setting)} is not a group of settings."
                f" {did_you_mean(group, split)}"
            )
        split[group][name] = value.strip()
    return split


def parse_duration(text: str | float) -> float:
    """Return seconds from ``"90s"``, ``"2m"``, ``"1.5h"`` or a number of seconds.

    >>> parse_duration("2m")
    120.0

    Raises:
        ConfigError: The text is not a duration above zero.
    """
    units = {"s": 1, "m": 60, "h": 3600, "": 1}
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smh]?)", str(text).strip().lower())
    seconds = float(match[1]) * units[match[2]] if match else 0.0
    if not 0 < seconds < math.inf:
        raise ConfigError(
            "A duration must be a number above 0 with an optional unit s, m or h, as in 90s or 2m;"
            f" got {quoted(text)}."
        )
    return seconds


def _check_keys(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Raise ConfigError if a key of ``values`` is not a field of ``cls``; return the type hint of
    each field of ``cls``.
    """
    hints = fields_of(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(f"{quoted(key)} is not a setting here. {did_you_mean(key, hints)}")
    return hints


def options_of(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union type. For a type that is not a union, return a tuple with only
    this type.
    """
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def bare(hint: Any) -> Any:
    """Return a type hint without its bounds."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def bound_of(hint: Any) -> Bound | None:
    """Return the bound in the type hint of a number, or of the elements of a list; None if there is
    no bound.
    """
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, Bound):
            return extra
    inner = bare(hint)
    return bound_of(get_args(inner)[0]) if get_origin(inner) is tuple else None


def check_value(name: str, value: Any, hint: Any) -> None:
    """Validate the value of a field or an argument against the type hint and its bounds.

    Raises:
        ConfigError: The value has the wrong type or is out of range.
    """
    inner = bare(hint)
    bound = bound_of(hint)
    if not any(_has_type(value, option) for option in options_of(inner)):
        raise ConfigError(f"{name} must be {_describe_type(inner)}; got {quoted(value)}.")
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, float) and not _is_finite(part):
            raise ConfigError(f"{name} must be a finite number; got {quoted(part)}.")
        if bound is None or part is None:
            continue
        number = part
        unit = ""
        if isinstance(part, str):
            number = len(part)
            unit = " characters long"
        if not bound.holds(number):
            raise ConfigError(f"{name} must be {bound}{unit}; got {quoted(part)}.")


def _from_json(value: Any, hint: Any) -> Any:
    """Convert a JSON list to a tuple if the type hint has a tuple, and a JSON object to a dataclass
    if the type hint has a dataclass. Other values are returned unchanged.
    """
    for option in options_of(bare(hint)):
        if isinstance(value, list) and get_origin(option) is tuple:
            return tuple(_from_json(part, get_args(option)[0]) for part in value)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(option):
            return from_dict(option, value)  # type: ignore[arg-type]  # a class, not an instance of one
    return value


def _is_finite(value: float) -> bool:
    """Return whether a number is finite, and still is when converted to a float."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an int too large for a float
        return False


def _has_type(value: Any, option: Any) -> bool:
    """Return whether a value has the type ``option``, one member of a union. A bool does not count
    as a number; an int counts as a float.
    """
    kind = get_origin(option) or option
    if kind is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(option))
    if kind is tuple:
        return isinstance(value, tuple) and all(
            _has_type(part, bare(get_args(option)[0])) for part in value
        )
    if kind is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return isinstance(value, kind)


def _describe_type(hint: Any) -> str:
    """Return what values a type hint accepts, for a message."""
    return " or ".join(_describe_option(option) for option in options_of(hint))


def _describe_option(option: Any) -> str:
    """Return what values one member of a union accepts, for a message."""
    if get_origin(option) is Literal:
        return " or ".join(json.dumps(choice) for choice in get_args(option))
    if get_origin(option) is tuple:
        inner = bare(get_args(option)[0])
        return f"a list of {_PLURALS.get(get_origin(inner) or inner, 'objects')}"
    return _TYPE_NAMES.get(get_origin(option) or option, "an object")


_TYPE_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    list: "a list",
    types.NoneType: "none",
}
_PLURALS: dict[Any, str] = {
    int: "whole numbers",
    float: "numbers",
    str: "strings",
    bool: "true or false",
}


_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _convert(name: str, text: str, hint: Any) -> Any:
    """Convert a string to the first type of the hint to which it can be converted.

    Raises:
        ConfigError: The string cannot be converted to any type of the hint.
    """
    inner = bare(hint)
    for option in options_of(inner):
        value = _convert_to(text, option)
        if _has_type(value, option):
            return value
    raise ConfigError(f"{name} must be {_describe_type(inner)}; got {quoted(text)}.")


def _convert_to(text: str, option: Any) -> Any:
    """Convert a string to one type; return the string unchanged if that is not possible."""
    if option is bool:
        return _FLAGS.get(text.lower(), text)
    if option is types.NoneType:
        return None if text.lower() in ("none", "null", "") else text
    if get_origin(option) is Literal:
        return next((choice for choice in get_args(option) if str(choice) == text), text)
    if get_origin(option) is tuple:
        parts = text.split(",") if text else ()
        return tuple(_convert_to(part.strip(), get_args(option)[0]) for part in parts)
    if option in (int, float):
        with suppress(ValueError):
            return option(text)
    return text


def vocabulary_settings(
    config: type,
    vocab_size: int,
    bos_id: int,
    eos_id: int,
    condition_ids: int = 0,
    field_ids: int = 0,
    alphabet: str = "",
) -> dict[str, Any]:
    """Return the settings of a model that the tokenizer and the conditions decide. Settings that
    the config class does not have are left out, except ``vocab_size``.

    Args:
        config: The config class.
        vocab_size: The number of all ids, including those of conditions and fields.
        bos_id, eos_id: The beginning-of-text and the end-of-text id.
        condition_ids, field_ids: The number of ids of conditions, and the number of ids of fields
            of free text. The tokenizer's ids come first, then those of conditions, then those of
            fields.
        alphabet: The character of each id of the tokenizer, NUL for other ids; empty if unknown.
    """
    known = fields_of(config)
    values = (vocab_size, bos_id, eos_id, condition_ids, field_ids, alphabet)
    named = zip(VOCABULARY_FIELDS, values, strict=True)
    settings: dict[str, Any] = dict(named)
    return {name: settings[name] for name in settings if name in known or name == "vocab_size"}


def without_vocabulary(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's settings without those of ``vocabulary_settings``."""
    return {name: value for name, value in settings.items() if name not in VOCABULARY_FIELDS}


def check_count(name: str, value: Any) -> None:
    """Check that an argument is a whole number of at least 1.

    Raises:
        ConfigError: The argument is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1; got {quoted(value)}.")


def check_flags(**flags: Any) -> None:
    """Check that each argument is True or False. Other values are refused, since some have no truth
    value, such as an array.

    Raises:
        ConfigError: An argument is something else.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False; got {quoted(value)}.")


def check_text(name: str, value: Any, *, optional: bool = False) -> None:
    """Check that an argument is a string or, if ``optional`` is true, None.

    Raises:
        ConfigError: The argument is something else.
    """
    if isinstance(value, str) or (optional and value is None):
        return
    raise ConfigError(
        f"{name} must be a string{' or None' if optional else ''}; got {quoted(value)}."
    )


def check_list(name: str, value: Any, example: str) -> list[Any]:
    """Check that an argument is a list, a tuple or another iterable, but not a string or a mapping;
    return its items as a list.

    Args:
        name: The name of the argument.
        value: The value of the argument.
        example: A list that would be accepted, for the message.

    Raises:
        ConfigError: The value is something else, or iterating it fails.
    """
    if isinstance(value, Iterable) and not isinstance(
        value, str | bytes | bytearray | Mapping | type
    ):
        with suppress(TypeError, ValueError):  # such as an array without dimensions
            return list(value)
    raise ConfigError(f"{name} must be a list, as in {example}; got {quoted(value)}.")


def check_mapping(name: str, value: Any, example: str) -> dict[str, Any]:
    """Check that an argument is a mapping with strings as keys; return it as a dictionary.

    Args:
        name: The name of the argument.
        value: The value of the argument.
        example: A dictionary that would be accepted, for the message.

    Raises:
        ConfigError: The value is something else, or reading it fails.
    """
    if isinstance(value, Mapping):
        with suppress(Exception):  # the user's own mapping class may raise anything
            items = dict(value)
            if all(isinstance(key, str) for key in items):
                return items
    raise ConfigError(
        f"{name} must be a dictionary with strings as keys, as in {example}; got {quoted(value)}."
    )
