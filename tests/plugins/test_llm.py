"""examples/llm-reviewgen, the plugin of the llm command: installed, its own tests pass, and what the README shows works."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import reviewgen
from tests.support.examples import EXAMPLES, install_example
from tests.support.forked import run_python

pytest.importorskip("llm", reason="the llm command is not installed: pip install llm")
PACKAGE = "llm-reviewgen"
README = (EXAMPLES / PACKAGE / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install_example(PACKAGE, tmp_path_factory.mktemp("llm"))


@pytest.fixture
def environment(site, tmp_path):
    return os.environ | {"PYTHONPATH": str(site), "LLM_USER_PATH": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}


def test_its_own_tests_pass(environment, tmp_path):
    shutil.copytree(EXAMPLES / PACKAGE / "tests", tmp_path / "tests")
    done = run_python(["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests")], env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_command_writes_to_a_pipe(environment):
    """A process of its own, as a shell starts it."""
    words = [*shlex.split('llm -m reviewgen/lstm-word "The movie"'), "-o", "seed", "1", "-o", "max_tokens", "30"]
    done = subprocess.run([sys.executable, "-m", *words], env=environment, input="", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == reviewgen.load("lstm-word").generate_one("The movie", seed=1, max_new_tokens=30) + "\n"


def test_what_the_readme_shows_runs(environment, tmp_path):
    """The commands that need no model of the user's, each shortened to a few tokens; and the lines of Python."""
    blocks = re.findall(r"(?:^    .*\n)+", README, re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if re.match(r"llm (-m reviewgen/lstm-word|-c) ", line)]
    assert len(commands) >= 4
    for command in commands:
        done = run_python(["-m", *shlex.split(command), "-o", "max_tokens", "5"], env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().startswith("The ")
    (python,) = [block for block in blocks if "import llm" in block]
    code = re.sub(r"^    ", "", python, flags=re.MULTILINE).replace("temperature=0.6", "temperature=0.6, max_tokens=5")
    done = run_python(["-c", code], env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The movie")
