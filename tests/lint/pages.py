"""Public names exist, and the documentation lists what there is: pages, public names, commands and
their help.
"""

import ast
import importlib
import itertools
import os
import pkgutil
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

import reviewgen
from reviewgen.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TEXT = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.rglob("*.md"))}
# the most calls
CHAINS = {"### From generate to the sampled token": 9, "### From train to the optimizer's step": 5}


def check_names() -> Iterator[str]:
    """Yield public names that do not exist."""
    for module in pkgutil.walk_packages(reviewgen.__path__, "reviewgen."):
        loaded = None if module.name.endswith("__main__") else importlib.import_module(module.name)
        yield from (
            f"{module.name}: has no {name}"
            for name in getattr(loaded, "__all__", [])
            if not hasattr(loaded, name)
        )


def check_pages() -> Iterator[str]:
    """Yield pages and public names that the documentation lacks, and files and calls of its
    architecture that do not exist.
    """
    listed = re.findall(
        r"^ *- .+: (\S+\.md)$",
        (DOCS / "mkdocs" / "mkdocs.yml").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    yield from _differ(
        "docs/mkdocs/mkdocs.yml", listed, (page.relative_to(DOCS).as_posix() for page in TEXT)
    )
    names = {*reviewgen.__all__} - {
        "__version__",
        "ReviewgenError",
        "Comparison",
        "Explanation",
        "Probe",
    }
    yield from _differ(
        "docs/reference/python.md",
        re.findall(r"(?m)^\| `(.+?)`", TEXT[DOCS / "reference" / "python.md"]),
        names,
    )
    page = TEXT[DOCS / "architecture.md"]
    for name in {*re.findall(r"`([\w/]+\.(?:py|js|html|toml))\b", page)}:
        if not any(
            itertools.chain(
                ROOT.glob(name), *((ROOT / top).rglob(name) for top in ("src", "plugins"))
            )
        ):
            yield f"docs/architecture.md: {name} does not exist"
    for heading, most in CHAINS.items():
        chain = [line.split(": ") for line in _block(page, heading)]
        yield from [f"docs/architecture.md: {heading} has more than {most} calls"] * (
            len(chain) > most + 1
        )
        for (file, name), (_, following) in itertools.pairwise(chain):
            nodes = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            if not any(
                following in _called(node) for node in nodes if getattr(node, "name", None) == name
            ):
                yield f"docs/architecture.md: {name} in {file} does not call {following}"


def check_help() -> Iterator[str]:
    """Yield commands whose help is missing, cut off, or not on the page of the command line."""
    commands = dict(_commands(get_command(app), ""))
    yield from _differ(
        "docs/reference/cli.md",
        re.findall(r"(?m)^\| `(.+?)`", TEXT[DOCS / "reference" / "cli.md"]),
        commands,
    )
    tasks = " ".join(
        re.findall(r"^\| [^|]+ \| (`[^|]+`) \|", TEXT[DOCS / "which-command.md"], re.MULTILINE)
    )
    yield from _differ("docs/which-command.md", re.findall(r"`(.+?)`", tasks), commands)
    os.environ["COLUMNS"] = "80"
    for name, command in commands.items():
        text = CliRunner().invoke(app, [*name.split(), "--help"]).stdout
        words = [command.help, *(getattr(each, "help", None) for each in command.params)]
        if "…" in text or any(
            not each or re.sub(r"\s", "", each) not in re.sub(r"\s", "", text) for each in words
        ):
            yield f"reviewgen {name} --help: an option has no help, or is cut off at 80 columns"


def _differ(where: str, listed: Iterable[str], existing: Iterable[str]) -> Iterator[str]:
    yield from (
        f"{where}: {name} is missing, or does not exist" for name in {*listed} ^ {*existing}
    )


def _block(page: str, heading: str) -> list[str]:
    return (
        page.split(f"{heading}\n", 1)[1].split("```text\n", 1)[1].split("\n```", 1)[0].splitlines()
    )


def _called(function: ast.AST) -> set[str]:
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    loops = {"__iter__" for node in ast.walk(function) if isinstance(node, ast.For | ast.YieldFrom)}
    return {
        call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls
    } | loops


def _commands(group: Any, above: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield from (
            _commands(command, f"{above}{name} ")
            if hasattr(command, "commands")
            else [(above + name, command)]
        )
