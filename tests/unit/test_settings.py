"""``reviewgen settings``, and the descriptions of settings that it takes from docstrings and type hints."""

import json
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import pytest

from reviewgen.cli.settings import _format_value
from reviewgen.config import (
    Bound,
    TrainingConfig,
    bounds_of,
    choices_of,
    describe_fields,
    describe_hint,
    fields_of,
    from_strings,
)
from reviewgen.registry import find_preset, list_presets
from tests.support.fakes import run_command
from tests.unit.test_lazy import RUN, loaded

PRESETS = [plugin.name for plugin in list_presets()]


@dataclass(frozen=True, kw_only=True)
class Base:
    """Settings of a model.

    Attributes:
        size: The size of a layer,
            which continues here: as indented
            text.
        rate (float): A type in brackets is left out.
        gone: Not a field.

    Raises:
        sizes: Not a description.
    """

    size: int = 1
    rate: float = 0.5
    bare: bool = False


@dataclass(frozen=True, kw_only=True)
class Child(Base):
    """Settings of another model.

    Attributes:
        rate: Described anew.
        bare: With ``code`` in it.
    """

    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class NoSection(Base):
    pass


def test_descriptions_come_from_the_attributes_of_a_class_and_its_bases():
    first = "The size of a layer, which continues here: as indented text."
    assert describe_fields(Base) == {"size": first, "rate": "A type in brackets is left out.", "bare": ""}
    assert describe_fields(Child) == {"size": first, "rate": "Described anew.", "bare": "With ``code`` in it."}
    assert describe_fields(NoSection) == describe_fields(Base)


def test_a_class_without_a_docstring_has_no_descriptions():
    @dataclass
    class Bare:
        size: int = 1

    assert describe_fields(Bare) == {"size": ""}


@pytest.mark.parametrize(
    ("hint", "words", "choices", "bounds"),
    [
        (int, "int", None, {}),
        (bool, "true | false", [True, False], {}),
        (str | None, "string | none", None, {}),
        (Literal["a", "b"] | None, "a | b | none", ["a", "b", None], {}),
        (Annotated[int, Bound(at_least=1, at_most=1 << 24)], "int, 1 to 16777216", None, {"at_least": 1, "at_most": 1 << 24}),
        (Annotated[float, Bound(at_least=0, below=1)], "float, >= 0, < 1", None, {"at_least": 0, "below": 1}),
        (Annotated[float, Bound(above=0.5)], "float, > 0.5", None, {"above": 0.5}),
        (Annotated[Literal["x"], "some other extra"], "x", ["x"], {}),
        (tuple[Annotated[int, Bound(at_least=2)], ...], "list of int, >= 2", None, {"at_least": 2}),
        (dict[str, Any], "JSON object", None, {}),
    ],
)
def test_accepted_values_are_described(hint, words, choices, bounds):
    assert (describe_hint(hint), choices_of(hint), bounds_of(hint)) == (words, choices, bounds)


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_of_a_shipped_preset_has_a_description(name, monkeypatch, capsys):
    status, out, _ = run_command(monkeypatch, capsys, "settings", name, "--json")
    facts = json.loads(out)
    assert status == 0 and facts["preset"] == name
    rows = [
        (f"{group}.{row['name']}", row["description"]) for group in ("model", "tokenizer", "training") for row in facts[group]
    ]
    assert [setting for setting, description in rows if not description] == []


def test_every_training_setting_is_listed_with_its_default_and_bounds(monkeypatch, capsys):
    rows = json.loads(run_command(monkeypatch, capsys, "settings", "ngram-char", "--json")[1])["training"]
    assert [row["name"] for row in rows] == [field.name for field in fields(TrainingConfig)]
    by_name = {row["name"]: row for row in rows}
    assert by_name["bptt"]["bounds"] == {"at_least": 1, "at_most": 65536}
    assert by_name["optimizer"]["choices"] == ["muon", "adamw"]
    assert by_name["optimizer"]["value"] == TrainingConfig().optimizer


def test_the_values_are_those_of_the_preset(monkeypatch, capsys):
    facts = json.loads(run_command(monkeypatch, capsys, "settings", "lstm-word", "--json")[1])
    preset = find_preset("lstm-word")
    for group in ("model", "tokenizer", "training"):
        values = {row["name"]: row["value"] for row in facts[group]}
        own = getattr(preset, f"{group}_settings")
        assert {name: values[name] for name in own} == dict(own)
    assert facts["sizes"] == [dict(size) for size in preset.sizes]
    assert "vocab_size" not in {row["name"] for row in facts["model"]}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["lstm-word", "ngram-char", "gru-word"])
def test_the_tables_fit_the_terminal(name, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    status, out, _ = run_command(monkeypatch, capsys, "settings", name)
    lines = out.splitlines()
    assert status == 0 and max(map(len, lines[:-1])) <= width
    for field in fields(TrainingConfig):
        assert any(line.split()[:1] == [field.name] for line in lines)
    assert "``" not in out and lines[-1].startswith(f"Change a setting with --set: reviewgen train {name} --set model.")


def test_printed_values_can_be_typed_after_set(monkeypatch, capsys):
    rows = json.loads(run_command(monkeypatch, capsys, "settings", "lstm-word", "--json")[1])["training"]
    typed = {row["name"]: _format_value(row["value"]) for row in rows}
    values = {row["name"]: tuple(row["value"]) if isinstance(row["value"], list) else row["value"] for row in rows}
    assert from_strings(TrainingConfig, typed) == values
    assert set(typed) == set(fields_of(TrainingConfig))


def test_an_unknown_preset_is_named(monkeypatch, capsys):
    status, _, err = run_command(monkeypatch, capsys, "settings", "lsm-word")
    assert status == 1 and "Did you mean 'lstm-word'?" in err


def test_train_help_mentions_the_command(monkeypatch, capsys):
    assert "reviewgen settings PRESET" in " ".join(run_command(monkeypatch, capsys, "train", "--help")[1].split())


@pytest.mark.parametrize("name", ["lstm-word", "nnlm-char", "ngram-word", "blend-char"])
def test_the_command_loads_no_torch(name):
    assert loaded(RUN.format(words=["settings", name])).isdisjoint({"torch", "datasets", "accelerate"})
