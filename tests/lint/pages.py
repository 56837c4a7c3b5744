"""Public names exist, and the documentation lists what there is: files, pages, public names, commands and their help."""

import ast
import importlib
import itertools
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

import reviewgen
from reviewgen.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TEXT = {page: page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]}
UNLISTED = {"__version__", "ReviewgenError"}
CHAINS = {"### From generate to the sampled token": 9, "### From train to the optimizer's step": 5}
"""The most calls of the two call chains of the page on architecture."""


def check_names() -> Iterator[str]:
    """Yield public names that do not exist."""
    for module in pkgutil.walk_packages(reviewgen.__path__, "reviewgen."):
        loaded = None if module.name.endswith("__main__") else importlib.import_module(module.name)
        yield from (f"{module.name}: has no {name}" for name in getattr(loaded, "__all__", []) if not hasattr(loaded, name))


def check_pages() -> Iterator[str]:
    """Yield pages and public names that a list of the documentation lacks."""
    listed = re.findall(r"^ *- .+: (\S+\.md)$", (DOCS / "mkdocs" / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {str(page.relative_to(DOCS)) for page in TEXT if page != ROOT / "README.md"}
    yield from (f"docs/mkdocs/mkdocs.yml: {page} is missing or too much" for page in pages ^ set(listed))
    reference = set(re.findall(r"^::: reviewgen\.(\w+)$", "\n".join(TEXT.values()), re.MULTILINE))
    yield from (f"docs/reference: reviewgen.{name} is missing" for name in set(reviewgen.__all__) - reference - UNLISTED)


def check_architecture() -> Iterator[str]:
    """Yield files that the page on architecture does not list, and calls of its chains that do not exist."""
    page, listed, parents = TEXT[DOCS / "architecture.md"], set(), list[str]()
    for line in _block(page, "## Files"):
        parents[(len(line) - len(line.lstrip())) // 4 :] = [line.split()[0]]
        listed.add("".join(parents))
    files = {str(file.relative_to(ROOT)) for top in ("src/reviewgen", "plugins") for file in (ROOT / top).rglob("*.py")}
    yield from (
        f"docs/architecture.md: {file} is missing or too much" for file in files ^ {x for x in listed if x.endswith(".py")}
    )
    for heading, most in CHAINS.items():
        chain = [line.split(": ") for line in _block(page, heading)]
        if len(chain) > most + 1:
            yield f"docs/architecture.md: {heading} has more than {most} calls"
        for (file, name), (_, following) in itertools.pairwise(chain):
            functions = [node for node in ast.walk(ast.parse((ROOT / file).read_text())) if getattr(node, "name", None) == name]
            if not any(following in _called(function) for function in functions):
                yield f"docs/architecture.md: {name} in {file} does not call {following}"


def _block(page: str, heading: str) -> list[str]:
    return page.split(f"{heading}\n", 1)[1].split("```text\n", 1)[1].split("\n```", 1)[0].splitlines()


def _called(function: ast.AST) -> set[str]:
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    loops = {"__iter__" for node in ast.walk(function) if isinstance(node, ast.For | ast.YieldFrom)}
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls} | loops


def check_help() -> Iterator[str]:
    """Yield commands whose help is missing, cut off, or not on the page of the command line."""
    page = TEXT[DOCS / "reference" / "cli.md"]
    shown = set(re.findall(r"^<!-- help: (\S.*) -->$", page, re.MULTILINE))
    commands = dict(_commands(get_command(app), ""))
    yield from (
        f"docs/reference/cli.md: {name} is missing or too much"
        for name in shown ^ {name for name, each in commands.items() if not hasattr(each, "commands")}
    )
    os.environ["COLUMNS"] = "80"
    for name, command in commands.items():
        text = CliRunner().invoke(app, [*name.split(), "--help"]).stdout
        squeezed = re.sub(r"\s", "", text)
        words = [command.help, *(getattr(each, "help", None) for each in command.params)]
        if "…" in text or any(not each or re.sub(r"\s", "", each) not in squeezed for each in words):
            yield f"reviewgen {name} --help: an option has no help, or is cut off at 80 columns"


def _commands(group: Any, above: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield above + name, command
        yield from _commands(command, f"{above}{name} ") if hasattr(command, "commands") else ()
