"""An option that is declared once is found wherever options are: the command line, its help, ``settings``, and the checks."""

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal, TypedDict

import typer
from typer.testing import CliRunner

from reviewgen import cli, config
from tests.lint.options import check_options, differences


@dataclass(frozen=True, kw_only=True)
class Dummy(config.options.ReadingOptions):
    """Options with one more.

    Attributes:
        dummy_size: How large it is.
        kind: Which one it is.
        is_quiet: Say nothing.
        parts: What it is made of.
    """

    dummy_size: Annotated[int, config.Bound(at_least=1)] = 7
    kind: Literal["red", "blue"] = "red"
    is_quiet: bool = False
    parts: tuple[str, ...] = ()


class DummyOptions(TypedDict, total=False):
    kind: int


def test_a_dummy_option_reaches_every_face() -> None:
    given: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    @cli.options.takes(Dummy)
    def command(name: str, **options: Any) -> None:
        given.update(options, name=name)

    text = CliRunner().invoke(app, ["--help"], terminal_width=100).stdout
    assert "--dummy-size" in text and "How large it is." in text and "default: 7" in text
    words = ["--dummy-size", "9", "--kind", "blue", "--is-quiet", "--parts", "a", "--parts", "b", "--no-clean", "x"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert {"dummy_size": 9, "kind": "blue", "is_quiet": True, "parts": ["a", "b"], "clean": False}.items() <= given.items()
    assert CliRunner().invoke(app, ["x"]).exit_code == 0 and given["dummy_size"] == 7 and given["parts"] == ()
    assert CliRunner().invoke(app, ["--dummy-size", "0", "x"]).exit_code == 2
    [row] = [each for each in config.descriptions.describe_settings(Dummy) if each["name"] == "dummy_size"]
    assert (row["accepts"], row["description"]) == ("int, >= 1", "How large it is.")
    found = list(differences("DummyOptions", (Dummy,), DummyOptions.__annotations__))
    assert "DummyOptions: dummy_size of Dummy is missing" in found and "DummyOptions: kind is not of the types of Dummy" in found


def test_keywords_docstrings_and_the_server_have_what_is_declared() -> None:
    assert list(check_options()) == []
    settings, protocol = config.fields_of(config.GenerationConfig), import_module("reviewgen.serving.protocol")
    assert protocol.DESCRIPTIONS["top_k"] == config.describe_fields(config.GenerationConfig)["top_k"]
    assert config.bounds_of(protocol.HINTS["top_k"]) == config.bounds_of(settings["top_k"])
