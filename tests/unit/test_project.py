"""The project holds together: metadata, changelog, public names."""

import ast
import importlib
import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

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
