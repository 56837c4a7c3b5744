"""``reviewgen plugin new``: the package of each kind installs, its own tests pass as written, and mypy --strict accepts it."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reviewgen.cli import app
from reviewgen.errors import ConfigError
from reviewgen.registry.plugins import GROUPS
from reviewgen.scaffold import KINDS, new_plugin
from tests.support.forked import run_python

ROOT = Path(__file__).parents[2]
NEEDS = {"processor": "logits processor", "metric": "metric"}
INSTALLABLE = [kind for kind in KINDS if NEEDS.get(kind, "model") in GROUPS]


def run(words, site, cwd):
    env = os.environ | {"PYTHONPATH": str(site) if site else ""}
    return run_python(["-m", *words], env=env, cwd=cwd, timeout=1_800)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that writes and installs the package of a kind, once, and returns its source and the site folder."""
    root, done = tmp_path_factory.mktemp("scaffold"), {}

    def make(kind):
        if kind not in done:
            source, site = new_plugin(f"my{kind}", kind, root / kind), root / f"{kind}-site"
            copy = shutil.copytree(source, root / f"{kind}-copy")
            pip = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), str(copy)]
            installed = run(pip, None, root)
            assert installed.returncode == 0, installed.stderr
            shutil.rmtree(copy)
            done[kind] = source, site
        return done[kind]

    return make


@pytest.mark.parametrize("kind", INSTALLABLE)
def test_its_own_tests_pass_as_written(made, kind, tmp_path):
    source, site = made(kind)
    shutil.copytree(source / "tests", tmp_path / "tests")
    done = run(["pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests")], site, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_mypy_strict_accepts_them(tmp_path):
    """All at once: most of the time goes into what they import."""
    sources = [new_plugin(f"my{kind}", kind, tmp_path / kind) for kind in INSTALLABLE]
    env = os.environ | {"MYPYPATH": os.pathsep.join(map(str, [ROOT / "src", *sources]))}
    packages = [word for kind in INSTALLABLE for word in ("-p", f"reviewgen_my{kind}")]
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, *packages]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_whole(kind, tmp_path):
    folder = new_plugin("haiku", kind, tmp_path / "package")
    files = [file for file in folder.rglob("*") if file.is_file()]
    names = {file.relative_to(folder).as_posix() for file in files}
    assert {"README.md", "LICENSE", "pyproject.toml", ".github/workflows/test.yml", "tests/test_haiku.py"} <= names
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "@name@" not in text and "@Name@" not in text and "@version@" not in text and "template" not in file.name
        if file.suffix == ".py":
            ast.parse(text)
            assert max(map(len, text.splitlines()), default=0) <= 130
        if file.name == "README.md":  # its tree is true
            listed = {word for line in text.splitlines() if "── " in line for word in line.split("── ")[1].split()[:1]}
            assert {"pyproject.toml", "test_haiku.py"} <= listed
            there = {part for name in names for part in Path(name).parts} | {"weights"}
            assert {name.rstrip("/") for name in listed} <= there


def test_settings_stepper_and_presets_load_no_torch(made, tmp_path):
    _, site = made("model")
    code = "import reviewgen_mymodel.stepping, reviewgen_mymodel.presets, sys; print('torch' in sys.modules)"
    env = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["My-Model", "--model"], "'My-Model' cannot name a plugin: use the letters a to z and digits"),
        (["", "--model"], "'' cannot name a plugin"),
        (["2x", "--model"], "'2x' cannot name a plugin"),
        (["é", "--model"], "cannot name a plugin"),
        (["a" * 41, "--model"], "at most 40"),
        (["../x", "--model"], "cannot name a plugin"),
        (["gru", "--model"], "The name 'gru' is reserved for the model 'gru' of reviewgen"),
        (["char", "--metric"], "The name 'char' is reserved"),
        (["reviewgen", "--model"], "The name 'reviewgen' is reserved"),
        (["mine"], "Give one kind of plugin: --model, --tokenizer, --weights, --processor or --metric; got none."),
        (["mine", "--model", "--metric"], "got --model and --metric"),
        (["mine", "--model", "--out", "there"], "there already exists"),
        (["mine", "--model", "--out", "file/below"], "file"),
    ],
)
def test_bad_input_is_one_sentence(words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["plugin", "new", *words])
    assert isinstance(done.exception, ConfigError)  # exit status 2
    assert sentence in str(done.exception) and len(str(done.exception)) < 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "file", "there"] or not (tmp_path / "cache").exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root can write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        new_plugin("mine", "model", tmp_path / "out")
    tmp_path.chmod(0o700)


def test_exit_status_and_json(tmp_path):
    done = run(["reviewgen", "plugin", "new", "No", "--model"], None, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    done = run(["reviewgen", "plugin", "new", "mine", "--metric", "--json"], None, tmp_path)
    written = json.loads(done.stdout)
    assert written["folder"] == "reviewgen-mine" and written["kind"] == "metric"
    assert all((tmp_path / "reviewgen-mine" / file).is_file() for file in written["files"])


@pytest.mark.parametrize("words", [[], ["new"], ["check"]])
def test_help_loads_no_torch(words):
    code = (
        f"import sys; sys.argv = ['reviewgen', 'plugin', *{words!r}, '--help']\nfrom reviewgen.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_templates_are_in_the_wheel(tmp_path):
    """Hatch's own list of the files of a wheel has every template."""
    from hatchling.builders.wheel import WheelBuilder

    listed = {Path(file.path) for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    templates = set((ROOT / "src" / "reviewgen" / "scaffold").rglob("*.template"))
    assert len(templates) > 30
    assert templates <= listed
