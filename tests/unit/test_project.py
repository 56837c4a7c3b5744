"""The project holds together: metadata, changelog, public names."""

import ast
import importlib
import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import reviewgen

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = [
    ".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for file in (ROOT / "src" / "reviewgen").rglob("*.py")
    if file.name != "__main__.py"
]


def test_the_installed_entry_points_are_those_of_pyproject():
    groups = PROJECT["project"]["entry-points"]
    installed = {(p.group, p.name, p.value) for p in distribution("reviewgen").entry_points if p.group.startswith("reviewgen.")}
    assert installed == {(group, name, value) for group, points in groups.items() for name, value in points.items()}


def test_every_plugin_folder_is_in_the_wheel():
    packages = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    folders = {f"plugins/{folder.name}" for folder in (ROOT / "plugins").iterdir() if folder.is_dir()}
    assert packages == folders | {"src/reviewgen"}


def test_the_newest_version_of_the_changelog_is_the_package_s():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"\d+\.\d+\.\d+", headings[0])[0] == reviewgen.__version__


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_there(module):
    imported = importlib.import_module(module)
    for name in getattr(imported, "__all__", []):
        assert getattr(imported, name) is not None


def test_public_functions_have_docstrings():
    missing = []
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node) and len(node.body) > 3:
                missing.append(f"{file.name}:{node.name}")
    assert missing == []


def bounds_in(text):
    """Return the requirements of each list of dependencies in a text, by name."""
    lists = re.findall(r"^dependencies = (\[.*?\])", text, re.MULTILINE | re.DOTALL)
    requirements = [Requirement(line.replace("@version@", "0.1")) for each in lists for line in tomllib.loads(f"a = {each}")["a"]]
    return {requirement.name: str(requirement.specifier) for requirement in requirements}


def test_plugins_have_the_bounds_of_the_core():
    """In the examples, the templates and the documentation: a lower bound that the core does not allow cannot be installed."""
    own = bounds_in((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    own |= {
        Requirement(line).name: str(Requirement(line).specifier) for line in PROJECT["project"]["optional-dependencies"]["dev"]
    }
    files = [*(ROOT / "examples").glob("*/pyproject.toml"), *(ROOT / "src/reviewgen/scaffold").glob("*/pyproject.toml.template")]
    given = {file: bounds_in(file.read_text(encoding="utf-8")) for file in [*files, *(ROOT / "docs").rglob("*.md")]}
    assert sum("torch" in bounds for bounds in given.values()) >= 6
    for file, bounds in given.items():
        assert {name: own[name] for name in bounds if name in own and name != "reviewgen"}.items() <= bounds.items(), file
