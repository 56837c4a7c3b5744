"""Strict settings: types, bounds, unknown keys, typed-in strings and durations."""

import json
import math
from dataclasses import FrozenInstanceError, dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewgen.config import (
    Bound,
    GenerationConfig,
    Preset,
    RenamedValues,
    check,
    fields_of,
    from_dict,
    from_strings,
    parse_duration,
    parse_settings,
    rename_values,
    to_dict,
)
from reviewgen.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sample:
    size: Annotated[int, Bound(at_least=1, at_most=100)]
    rate: Annotated[float, Bound(above=0, below=1)] = 0.5
    free: float = 0.0
    kind: Literal["fast", "slow", 3] = "fast"
    on: bool = False
    name: Annotated[str, Bound(at_least=1)] = "x"
    limit: Annotated[int | None, Bound(at_least=0)] = None
    names: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    heat: Annotated[float | tuple[float, ...], Bound(above=0, at_most=9)] = 1.0

    def __post_init__(self) -> None:
        check(self)


def test_defaults_round_trip_through_json() -> None:
    config = Sample(size=3, limit=7, names=("a", "b"), heat=(0.5, 1))
    assert from_dict(Sample, json.loads(json.dumps(to_dict(config)))) == config
    assert list(fields_of(Sample)) == list(to_dict(config))
    with pytest.raises(FrozenInstanceError):
        config.size = 4


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"siez": 3}, "Did you mean 'size'"),
        ({}, "'size' is missing"),
        ({"size": 0}, "at least 1 and at most 100; got 0"),
        ({"size": 101}, "at most 100"),
        ({"size": 10**400}, "size must be"),
        ({"size": True}, "a whole number; got True"),
        ({"size": 1.0}, "a whole number"),
        ({"size": "1"}, "a whole number"),
        ({"size": None}, "a whole number"),
        ({"size": [1]}, "a whole number"),
        ({"size": 1, "rate": 0}, "above 0 and below 1"),
        ({"size": 1, "rate": 1}, "below 1"),
        ({"size": 1, "rate": math.nan}, "finite"),
        ({"size": 1, "free": math.inf}, "finite"),
        ({"size": 1, "free": True}, "a number; got True"),
        ({"size": 1, "kind": "medium"}, '"fast" or "slow" or 3'),
        ({"size": 1, "kind": 3.0}, "kind must be"),
        ({"size": 1, "kind": None}, "kind must be"),
        ({"size": 1, "on": 1}, "true or false"),
        ({"size": 1, "on": "true"}, "true or false"),
        ({"size": 1, "name": ""}, "at least 1"),
        ({"size": 1, "name": 5}, "a string"),
        ({"size": 1, "limit": -1}, "at least 0"),
        ({"size": 1, "limit": 1.5}, "a whole number or none"),
        ({"size": [1, 2]}, "a whole number; got [1, 2]"),
        ({"size": 1, "names": "ab"}, "names must be a list of strings; got 'ab'"),
        ({"size": 1, "names": ["a", 1]}, "a list of strings; got ('a', 1)"),
        ({"size": 1, "names": ["a", ""]}, "names must be at least 1 characters long; got ''"),
        ({"size": 1, "heat": [1, True]}, "a number or a list of numbers"),
        ({"size": 1, "heat": [1.0, math.nan]}, "finite"),
        ({"size": 1, "heat": [1.0, 0.0]}, "above 0 and at most 9; got 0.0"),
        ({"size": 1, "heat": 10.0}, "above 0 and at most 9; got 10.0"),
    ],
)
def test_refused_values(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        from_dict(Sample, values)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ({"size": "12"}, {"size": 12}),
        ({"rate": "0.25", "free": "1e-3"}, {"rate": 0.25, "free": 0.001}),
        ({"free": "3"}, {"free": 3.0}),
        ({"kind": "slow"}, {"kind": "slow"}),
        ({"kind": "3"}, {"kind": 3}),
        ({"on": "yes"}, {"on": True}),
        ({"on": "False"}, {"on": False}),
        ({"limit": "none"}, {"limit": None}),
        ({"limit": "4"}, {"limit": 4}),
        ({"name": "12"}, {"name": "12"}),
        ({"size": 5}, {"size": 5}),
        ({"names": "stars"}, {"names": ("stars",)}),
        ({"names": "stars, genre"}, {"names": ("stars", "genre")}),
        ({"heat": "0.7"}, {"heat": 0.7}),
        ({"heat": "0.7,1"}, {"heat": (0.7, 1.0)}),
    ],
)
def test_strings_become_values_of_the_type(typed: dict[str, Any], value: dict[str, Any]) -> None:
    parsed = from_strings(Sample, typed)
    assert parsed == value
    assert [type(v) for v in parsed.values()] == [type(v) for v in value.values()]


@pytest.mark.parametrize(
    "typed",
    [
        {"size": "1.5"},
        {"size": ""},
        {"size": "9" * 5000},
        {"on": "maybe"},
        {"kind": "SLOW"},
        {"x": "1"},
        {"heat": "1,"},
        {"heat": "1,x"},
    ],
)
def test_strings_that_are_not_values(typed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        from_strings(Sample, typed)


@dataclass(frozen=True, kw_only=True)
class Renamed:
    mode: Annotated[Literal["auto", "new", 3], RenamedValues({"old": "new", "older": "new"})] = "auto"
    name: str = "old"

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(("given", "value"), [("old", "new"), ("older", "new"), ("new", "new"), ("auto", "auto"), (3, 3)])
def test_a_renamed_value_is_accepted_under_its_old_name(given: str | int, value: str | int) -> None:
    config = from_dict(Renamed, {"mode": given})
    assert config == Renamed(mode=value, name="old")
    assert to_dict(config) == {"mode": value, "name": "old"}
    assert from_strings(Renamed, {"mode": given, "name": "old"}) == {"mode": value, "name": "old"}
    assert from_strings(Renamed, {"mode": str(given)}) == {"mode": value}
    assert rename_values(Renamed, {"mode": given, "name": "old", "unknown": "old"}) == {
        "mode": value,
        "name": "old",
        "unknown": "old",
    }


@pytest.mark.parametrize("given", ["olds", "OLD", "", None, 4, ["old"], {"old": "new"}])
def test_a_message_names_only_the_new_values(given: object) -> None:
    with pytest.raises(ConfigError, match=r'^mode must be "auto" or "new" or 3; got ') as caught:
        from_dict(Renamed, {"mode": given})
    assert "older" not in str(caught.value)


def test_a_field_may_have_bounds_and_renamed_values_and_be_optional() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Both:
        name: Annotated[str | None, Bound(at_least=2), RenamedValues({"x": "yes"})] = None

        def __post_init__(self) -> None:
            check(self)

    assert from_dict(Both, {"name": "x"}).name == "yes"
    assert from_dict(Both, {}).name is None
    with pytest.raises(ConfigError, match="at least 2"):
        from_dict(Both, {"name": "y"})


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from(list(fields_of(Sample))) | st.text(max_size=8), SCALARS | st.lists(SCALARS, max_size=3)))
def test_any_json_object_makes_a_config_or_a_config_error(values: dict[str, Any]) -> None:
    try:
        config = from_dict(Sample, values)
    except ConfigError:
        return
    assert from_dict(Sample, to_dict(config)) == config


@dataclass(frozen=True, kw_only=True)
class Nested:
    shares: tuple[Annotated[float, Bound(at_least=0)], ...] = ()
    parts: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check(self)


def test_lists_of_json_are_tuples() -> None:
    config = Nested(shares=(1, 0.5), parts=({"name": "x", "sizes": [1, {"y": None}]}, {}))
    assert from_dict(Nested, json.loads(json.dumps(to_dict(config)))) == config
    assert from_dict(Nested, {}) == Nested()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"shares": 0.5}, "shares must be a list of numbers; got 0.5"),
        ({"shares": [0.5, -1.0]}, "shares must be at least 0; got -1.0"),
        ({"shares": [0.5, "a"]}, "shares must be a list of numbers; got (0.5, 'a')"),
        ({"shares": [math.nan]}, "shares must be a finite number; got nan"),
        ({"shares": [[0.5]]}, "shares must be a list of numbers"),
        ({"parts": [3]}, "parts must be a list of objects; got (3,)"),
        ({"parts": {"a": 1}}, "parts must be a list"),
    ],
)
def test_each_value_of_a_list_is_checked(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_dict(Nested, values)
    assert said in str(refused.value)
    with pytest.raises(ConfigError, match="shares must be a list of numbers; got '1'"):
        from_strings(Nested, {"shares": "1"})


def test_bounds() -> None:
    assert str(Bound(at_least=0, below=1)) == "at least 0 and below 1"
    assert Bound(at_least=0, below=1).holds(0)
    assert not Bound(at_least=0, below=1).holds(1)
    assert not Bound(above=0).holds(0)
    assert Bound(at_most=1).holds(1)
    for endless in (math.nan, math.inf, -math.inf, 10**400):
        assert not Bound().holds(endless)


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0},
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.01},
        {"top_k": -1},
        {"min_p": -0.1},
        {"max_new_tokens": -1},
    ],
)
def test_generation_settings_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        from_dict(GenerationConfig, values)


def test_settings_by_group() -> None:
    assert parse_settings(["training.rate = 1=2"]) == {"model": {}, "tokenizer": {}, "training": {"rate": "1=2"}}
    for wrong in ("x", "model", "model.", "model.x", "hidden_size=3", ".x=3", "modle.x=1", "=", ""):
        with pytest.raises(ConfigError):
            parse_settings([wrong])
    with pytest.raises(ConfigError, match="Did you mean 'model'"):
        parse_settings(["modle.hidden_size=3"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("2m", 120), ("1.5h", 5400), (" 10 S ", 10), ("7", 7), (3, 3), (0.5, 0.5)]
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "wrong", ["", "0", "0s", "-1m", "m", "2 days", "1m30s", "inf", "nan", "9" * 400 + "h", True, -3, math.inf, math.nan]
)
def test_invalid_durations(wrong: str | float) -> None:
    with pytest.raises(ConfigError, match="duration"):
        parse_duration(wrong)


def test_presets_do_not_share_their_defaults() -> None:
    one, other = Preset(model="a", tokenizer="b"), Preset(model="a", tokenizer="b")
    assert one.model_settings is not other.model_settings
