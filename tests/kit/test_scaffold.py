"""``reviewgen plugin new``: the package of each kind is whole, installs, passes its own tests and
mypy --strict.
"""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest

from reviewgen.errors import ConfigError
from reviewgen.testing.scaffold import KINDS, new_plugin
from tests.support.forked import run_python

ROOT = Path(__file__).parents[2]


def run(words: Sequence[str], cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run_python(["-m", *words], env=os.environ | environment, cwd=cwd, timeout=1_800)


@pytest.mark.install
@pytest.mark.parametrize("kind", KINDS)
def test_it_installs_and_its_own_tests_pass(kind, tmp_path):
    source = new_plugin("mine", kind, tmp_path / "source")
    site = tmp_path / "site"
    shutil.move(source / "tests", tmp_path / "tests")
    pip = [
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
        str(source),
    ]
    installed = run(pip, tmp_path, PYTHONPATH="")
    assert installed.returncode == 0, installed.stderr
    shutil.rmtree(source)
    tested = run(
        ["pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests")],
        tmp_path,
        PYTHONPATH=str(site),
    )
    assert tested.returncode == 0 and " passed" in tested.stdout, tested.stdout[-3000:]
    if kind == "model":
        code = (
            "import reviewgen_mine.stepping, reviewgen_mine.presets, sys; sys.exit('torch' in"
            " sys.modules)"
        )
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(site)},
            cwd=tmp_path,
            check=True,
        )


@pytest.mark.install
def test_mypy_strict_accepts_all(tmp_path):
    sources = [new_plugin(f"my{kind}", kind, tmp_path / kind) for kind in KINDS]
    env = os.environ | {"MYPYPATH": os.pathsep.join(map(str, [ROOT / "src", *sources]))}
    packages = list(chain.from_iterable(("-p", f"reviewgen_my{kind}") for kind in KINDS))
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, *packages]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_whole(kind, tmp_path):
    folder = new_plugin(f"haiku{kind}", kind, tmp_path / "package")
    texts = {
        file.relative_to(folder).as_posix(): file.read_text()
        for file in folder.rglob("*")
        if file.is_file()
    }
    expected = {
        "README.md",
        "LICENSE",
        "pyproject.toml",
        ".github/workflows/test.yml",
        f"tests/test_haiku{kind}.py",
    }
    assert expected <= texts.keys()
    assert [
        name
        for name, text in texts.items()
        if "@name@" in text or "@Name@" in text or "@version@" in text
    ] == []
    listed = set(re.findall(r"── (\S+)", texts["README.md"]))
    assert {"pyproject.toml", f"test_haiku{kind}.py"} <= listed  # the README's tree is true
    existing = set(chain.from_iterable(Path(name).parts for name in texts))
    assert {name.rstrip("/") for name in listed} <= existing | {"weights"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_modules_can_be_read_and_imported(kind, tmp_path, monkeypatch):
    folder = new_plugin(f"haiku{kind}", kind, tmp_path / "package")
    monkeypatch.syspath_prepend(str(folder))
    for file in folder.rglob("*.py"):
        name = file.relative_to(folder).as_posix()
        text = file.read_text()
        ast.parse(text)
        assert max(map(len, text.splitlines()), default=0) <= 130
        if name.startswith("reviewgen_"):
            importlib.import_module(
                name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            )


def test_a_bad_name_or_folder_is_refused(tmp_path, monkeypatch, run_command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for name in "My-Model", "", "2x", "é", "a" * 41, "../x", "gru", "char", "reviewgen":
        with pytest.raises(ConfigError, match=r"cannot name a plugin|is reserved"):
            new_plugin(name, "model")
    for name, kind, folder in (
        ("mine", "model", Path("file")),
        ("mine", "model", Path("file/below")),
        ("mine", "poem", None),
    ):
        with pytest.raises(ConfigError):
            new_plugin(name, kind, folder)
    for words in (
        ["mine"],
        ["mine", "--model", "--metric"],
        ["No", "--model"],
        ["mine", "--model", "--out", "file"],
    ):
        status, _, err = run_command("plugin", "new", *words)
        assert status == 2 and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_command_names_what_it_has_written(tmp_path, monkeypatch, run_command):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run_command("plugin", "new", "mine", "--metric", "--json")
    written = json.loads(out)
    assert status == 0 and written["folder"] == "reviewgen-mine" and written["kind"] == "metric"
    assert all((tmp_path / "reviewgen-mine" / file).is_file() for file in written["files"])


def test_the_templates_are_in_the_wheel():
    from hatchling.builders.wheel import WheelBuilder

    listed = {Path(file.path) for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    templates = set((ROOT / "src" / "reviewgen" / "testing" / "templates").rglob("*.template"))
    assert len(templates) > 30 and templates <= listed
