"""Strict settings: types, bounds, unknown keys, strings, durations, descriptions; errors of the
system in one sentence.
"""

import errno
import json
import math
from dataclasses import FrozenInstanceError, dataclass
from itertools import chain
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewgen.config import (
    Bound,
    GenerationConfig,
    RenamedValues,
    check,
    fields_of,
    from_dict,
    from_strings,
    options,
    parse_duration,
    parse_settings,
    rename_values,
    to_dict,
)
from reviewgen.config.descriptions import describes_options, parse_entries
from reviewgen.errors import ConfigError, StorageError, storage_errors
from reviewgen.generation.request import GenerateKwargs


@dataclass(frozen=True, kw_only=True)
class Sample:
    size: Annotated[int, Bound(at_least=1, at_most=100)]
    rate: Annotated[float, Bound(above=0, below=1)] = 0.5
    free: float = 0.0
    kind: Annotated[
        Literal["fast", "slow", 3], RenamedValues({"quick": "fast", "swift": "fast"})
    ] = "fast"
    on: bool = False
    name: Annotated[str, Bound(at_least=1)] = "x"
    limit: Annotated[int | None, Bound(at_least=0)] = None
    names: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    heat: Annotated[float | tuple[float, ...], Bound(above=0, at_most=9)] = 1.0
    shares: tuple[Annotated[float, Bound(at_least=0)], ...] = ()
    parts: tuple[dict[str, Any], ...] = ()
    word: Annotated[str | None, Bound(at_least=2), RenamedValues({"x": "yes"})] = None

    def __post_init__(self) -> None:
        check(self)


def test_a_config_comes_back_through_json():
    config = Sample(
        size=3,
        limit=7,
        names=("a", "b"),
        heat=(0.5, 1),
        parts=({"name": "x", "sizes": [1, {"y": None}]}, {}),
    )
    assert from_dict(Sample, json.loads(json.dumps(to_dict(config)))) == config
    assert list(fields_of(Sample)) == list(to_dict(config))
    with pytest.raises(FrozenInstanceError):
        config.size = 4


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"siez": 3}, "Did you mean 'size'"),
    ({}, "'size' is missing"),
    *(
        ({"size": size}, word)
        for size, word in (
            (0, "at least 1 and at most 100; got 0"),
            (101, "at most 100"),
            (10**400, "size must be"),
            (True, "got True"),
            (1.0, "a whole number"),
            ("1", "a whole number"),
            (None, "a whole number"),
            ([1], "a whole number; got [1]"),
        )
    ),
    *(
        ({"size": 1, name: value}, word)
        for name, value, word in (
            ("rate", 0, "above 0 and below 1"),
            ("rate", 1, "below 1"),
            ("rate", math.nan, "finite"),
            ("free", math.inf, "finite"),
            ("free", True, "a number; got True"),
            ("kind", "medium", '"fast" or "slow" or 3'),
            ("kind", 3.0, "kind must be"),
            ("kind", None, "kind must be"),
            ("kind", ["quick"], "kind must be"),
            ("on", 1, "true or false"),
            ("on", "true", "true or false"),
            ("name", "", "at least 1"),
            ("name", 5, "a string"),
            ("limit", -1, "at least 0"),
            ("limit", 1.5, "a whole number or none"),
            ("names", "ab", "names must be a list of strings; got 'ab'"),
            ("names", ["a", 1], "got ('a', 1)"),
            ("names", ["a", ""], "at least 1 characters long; got ''"),
            ("shares", 0.5, "a list of numbers; got 0.5"),
            ("shares", [0.5, -1.0], "at least 0; got -1.0"),
            ("shares", [[0.5]], "a list of numbers"),
            ("parts", [3], "a list of objects; got (3,)"),
            ("parts", {"a": 1}, "a list"),
            ("word", "y", "at least 2"),
        )
    ),
]


def test_refused_values():
    wrong = {}
    for values, word in REFUSED:
        with pytest.raises(ConfigError) as caught:
            from_dict(Sample, values)
        if (
            word not in str(caught.value)
            or "\n" in str(caught.value)
            or "swift" in str(caught.value)
        ):
            wrong[str(values)] = str(caught.value)
    assert wrong == {}


def test_values_at_the_bounds_are_accepted():
    for values in (
        {"size": 1},
        {"size": 100},
        {"size": 1, "heat": 9},
        {"size": 1, "limit": 0, "shares": [0]},
    ):
        assert from_dict(Sample, values).size == values["size"]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(
    st.dictionaries(
        st.sampled_from(list(fields_of(Sample))) | st.text(max_size=8),
        SCALARS | st.lists(SCALARS, max_size=3),
    )
)
def test_any_json_object_makes_a_config_or_a_config_error(values):
    try:
        config = from_dict(Sample, values)
    except ConfigError:
        return
    assert from_dict(Sample, to_dict(config)) == config


def test_strings_become_values_of_the_type():
    for name, typed, value in (
        ("size", "12", 12),
        ("rate", "0.25", 0.25),
        ("free", "1e-3", 0.001),
        ("free", "3", 3.0),
        ("kind", "slow", "slow"),
        ("kind", "3", 3),
        ("kind", "quick", "fast"),
        ("on", "yes", True),
        ("on", "False", False),
        ("limit", "none", None),
        ("limit", "4", 4),
        ("name", "12", "12"),
        ("size", 5, 5),
        ("names", "stars", ("stars",)),
        ("heat", "0.7", 0.7),
        ("names", "stars, genre", ("stars", "genre")),
        ("heat", "0.7,1", (0.7, 1.0)),
    ):
        parsed = from_strings(Sample, {name: typed})
        assert parsed == {name: value} and type(parsed[name]) is type(value), (name, typed)
    for name, typed in (
        ("size", "1.5"),
        ("size", ""),
        ("size", "9" * 5000),
        ("on", "maybe"),
        ("kind", "SLOW"),
        ("x", "1"),
        ("heat", "1,"),
        ("heat", "1,x"),
        ("shares", "1"),
    ):
        with pytest.raises(ConfigError):
            from_strings(Sample, {name: typed})


def test_a_renamed_value_is_accepted_under_its_old_name():
    for given_value, value in (("quick", "fast"), ("swift", "fast"), ("slow", "slow"), (3, 3)):
        config = from_dict(Sample, {"size": 1, "kind": given_value, "name": "quick"})
        assert (config.kind, config.name, to_dict(config)["kind"]) == (value, "quick", value)
        assert rename_values(Sample, {"kind": given_value, "unknown": "quick"}) == {
            "kind": value,
            "unknown": "quick",
        }
    assert from_dict(Sample, {"size": 1, "word": "x"}).word == "yes"


def test_settings_by_group_and_durations():
    assert parse_settings(["training.rate = 1=2"]) == {
        "model": {},
        "tokenizer": {},
        "training": {"rate": "1=2"},
    }
    for wrong in ("x", "model", "model.", "model.x", "hidden_size=3", ".x=3", "=", ""):
        with pytest.raises(ConfigError):
            parse_settings([wrong])
    with pytest.raises(ConfigError, match="Did you mean 'model'"):
        parse_settings(["modle.hidden_size=3"])
    durations = {"90s": 90, "2m": 120, "1.5h": 5400, " 10 S ": 10, "7": 7, 3: 3, 0.5: 0.5}
    assert {text: parse_duration(text) for text in durations} == durations
    for text in (
        "",
        "0",
        "0s",
        "-1m",
        "m",
        "2 days",
        "1m30s",
        "inf",
        "nan",
        "9" * 400 + "h",
        True,
        -3,
        math.inf,
        math.nan,
    ):
        with pytest.raises(ConfigError, match="duration"):
            parse_duration(text)


def test_errors_of_the_system_are_one_sentence_with_the_path_and_others_pass():
    for number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EACCES,
        errno.EROFS,
        errno.ENAMETOOLONG,
    ):
        with (
            pytest.raises(StorageError, match=r"^[^\n]*the/path[^\n]*the system's message[^\n]*$"),
            storage_errors("the/path"),
        ):
            raise OSError(number, "the system's message")
    for error in (OSError(errno.EIO, "input/output error"), KeyError("x")):
        with pytest.raises(type(error)) as caught, storage_errors("the/path"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    "keywords, classes",
    [
        (options.EvaluateKwargs, [options.EvaluationOptions]),
        (options.CorpusKwargs, [options.CorpusOptions]),
        (options.TrainKwargs, [options.CorpusOptions, options.TrainingOptions]),
        (options.CompareKwargs, [options.TrainingTextOptions, options.TrialOptions]),
        (GenerateKwargs, [GenerationConfig, options.CallOptions]),
    ],
)
def test_each_declared_option_is_a_keyword(keywords: type, classes: list[type]) -> None:
    names = chain.from_iterable(map(fields_of, classes))
    assert {*names} <= keywords.__annotations__.keys()


def test_a_docstring_describes_the_options_of_a_class_with_their_defaults() -> None:
    @describes_options(options.TrialOptions)
    def walk() -> None:
        """Walk.

        Args:
            how: Slowly.
            See ``TrialOptions``.

        Raises:
            ConfigError: Never.
        """

    described = parse_entries(walk.__doc__ or "", "Args:")
    assert list(described) == ["how", "budget", "steps", "epochs", "seed"]
    assert described["seed"].endswith("dropout and samples. Default: 0.")
