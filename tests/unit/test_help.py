"""The help of every command on a narrow terminal: each name, type and description is there in full."""

import re
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from reviewgen.cli import app

COMMANDS: dict[str, Any] = get_command(app).commands
NESTED: dict[str, Any] = {  # "plugin new", ...
    f"{group} {name}": command for group, above in COMMANDS.items() for name, command in getattr(above, "commands", {}).items()
}


def help_of(*words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0
    return done.stdout


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.fixture(autouse=True, params=[80, 120])
def columns(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def test_the_list_of_commands(columns: int) -> None:
    text = help_of()
    assert "…" not in text and max(map(len, text.splitlines())) <= columns
    for name, command in COMMANDS.items():
        summary = command.help.partition("\n")[0]
        assert summary.endswith(".") and squeezed(name + summary) in squeezed(text)


def test_the_commands_of_a_group() -> None:
    assert NESTED.keys() >= {"plugin new", "plugin check"}
    for names, command in NESTED.items():
        group, name = names.split()
        summary = command.help.partition("\n")[0]
        assert summary.endswith(".") and squeezed(name + summary) in squeezed(help_of(group))


@pytest.mark.parametrize("name", [*COMMANDS, *NESTED])
def test_a_command(name: str, columns: int) -> None:
    command, text = (COMMANDS | NESTED)[name], help_of(*name.split())
    assert "…" not in text and max(map(len, text.splitlines())) <= columns
    assert squeezed(command.help) in squeezed(text)
    for parameter in command.params:
        row = parameter.help if hasattr(parameter, "help") else None
        names = [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else []
        assert all(re.search(rf"{option}(?![\w-])", text) for option in names)
        assert row and squeezed(row) in squeezed(text), parameter.name
