"""Third-party plugins: each example, installed from a copy whose source is then deleted, is listed,
trains, saves and loads.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

import reviewgen
from tests.support.forked import run_python
from tests.support.launches import made_once

pytestmark = pytest.mark.install
EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ["--set", "model.hidden_size=16", "--steps", "3"]
PRESETS: dict[str, tuple[str, list[str]]] = {  # of each package: what is trained, and the options
    "reviewgen-uniform": ("uniform-char", []),
    "reviewgen-mingru": ("mingru-char", SMALL),
    "reviewgen-bytes": ("gru-bytes", SMALL),
}
# Greedy: PyTorch rounds differently with one row than with two, and drawing again for valid text
# uses a number's last digits
TWO_PROMPTS = """
from pathlib import Path
import reviewgen
model = reviewgen.load(Path("m"))
for prompts in ["A"], ["A", "A much longer prompt"]:
    for text in model.generate(prompts, max_new_tokens=9, seed=1, do_sample=False):
        print(repr(text))
"""
WITHOUT_TORCH = """
import sys
from pathlib import Path
import reviewgen
print(reviewgen.load(Path("m")).generate_one("Review ", max_new_tokens=9, seed=1))
print("torch" in sys.modules)
"""


def run(words: list[str], site: Path | str, cwd: Path, **env: str) -> str:
    """Run a Python program, which ends well, and return what it prints."""
    done = run_python(words, env=os.environ | {"PYTHONPATH": str(site)} | env, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def install(package: str, root: Path) -> Path:
    """Install an example as a user does, and return the folder for PYTHONPATH."""
    shutil.copytree(EXAMPLES / package, root / "source")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(root / "site")]
    run(["-m", "pip", "install", *options, str(root / "source")], "", root)
    shutil.rmtree(root / "source")
    return root / "site"


@pytest.fixture(scope="module", params=PRESETS)
def package(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def place(package: str, tmp_path_factory) -> Path:
    """A folder with an installed package in ``site``, and data and a model that it trained."""
    return made_once(tmp_path_factory, package, lambda folder: train(package, folder))


def train(package: str, folder: Path) -> None:
    site = install(package, folder)
    texts = "\n".join(f"Review {number} is short." for number in range(40))
    (folder / "reviews.txt").write_text(texts)
    preset, options = PRESETS[package]
    words = ["-m", "reviewgen", "train", preset, *options, "--data", "reviews.txt", "--out", "m"]
    (folder / "said.txt").write_text(run(words, site, folder))


def test_an_installed_plugin_is_listed(package, place):
    listed = json.loads(run(["-m", "reviewgen", "list", "--json"], place / "site", place))
    plugins = itertools.chain.from_iterable(listed.values())
    names = {plugin["name"] for plugin in plugins if plugin["package"] == package}
    assert package.removeprefix("reviewgen-") in names


def test_an_installed_plugin_trains_and_is_evaluated(package, place):
    said = (place / "said.txt").read_text()
    assert ("nothing to train" in said) == (package == "reviewgen-uniform")
    words = ["-m", "reviewgen", "evaluate", "m", "--data", "reviews.txt"]
    assert "bits" in run(words, place / "site", place)


def test_a_text_of_a_plugin_does_not_depend_on_other_prompts(place):
    alone, first, second = run(["-c", TWO_PROMPTS], place / "site", place).splitlines()
    assert alone == first != second


def test_a_model_without_its_plugin_says_what_to_install(package, place):
    words = ["-m", "reviewgen", "generate", "m"]
    done = run_python(words, env=os.environ | {"PYTHONPATH": ""}, cwd=place)
    assert (
        done.returncode == 1
        and f"pip install {package}" in done.stderr
        and "Traceback" not in done.stderr
    )


@pytest.mark.parametrize("package", ["reviewgen-mingru"], indirect=True)
def test_the_stepper_of_a_plugin_generates_without_torch(place):
    """In a process of its own, not forked from one with torch."""
    environment = os.environ | {"PYTHONPATH": str(place / "site")}
    words = [sys.executable, "-c", WITHOUT_TORCH]
    printed = subprocess.run(
        words, env=environment, cwd=place, capture_output=True, text=True, check=True
    ).stdout
    assert printed.splitlines()[-1] == "False"


def test_the_tests_of_a_plugin_pass(package, place, tmp_path):
    run_tests(EXAMPLES / package, place / "site", tmp_path)


def run_tests(package: Path, site: Path, root: Path, **env: str) -> None:
    shutil.copytree(package / "tests", root / "tests")
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(root / "tests")]
    run(words, site, root, **env)


@pytest.mark.parametrize("name", ["reviewgen-haiku", "reviewgen-music"])
def test_a_readme_shows_what_its_command_writes(name, tmp_path):
    """The tests of the package pass, too."""
    pytest.importorskip("syllapy")
    site = install(name, tmp_path)
    run_tests(EXAMPLES / name, site, tmp_path)
    readme = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    reviewgen (generate .*)$", readme, re.MULTILINE)
    said = run(["-m", "reviewgen", *shlex.split(command)], site, tmp_path)
    assert indent(said, "    ") in readme


def test_the_provider_of_faker(tmp_path):
    """Its own tests pass, and the Python of its README runs, with a shipped model as the user's."""
    pytest.importorskip("faker", reason="Faker is not installed: pip install faker")
    package = EXAMPLES / "faker-reviewgen"
    site = install(package.name, tmp_path)
    run_tests(package, site, tmp_path)
    readme = (package / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    code = (
        "".join(blocks).replace("./my-model", "ngram-char").replace("count = 2000", "count = 100")
    )
    said = run(["-c", code], site, tmp_path)
    assert "texts a second" in said and "{'stars': " in said


def test_the_plugin_of_the_llm_command(tmp_path):
    """Its own tests pass, it writes to a pipe, and what its README shows runs, each command
    shortened to a few tokens.
    """
    pytest.importorskip("llm", reason="the llm command is not installed: pip install llm")
    package = EXAMPLES / "llm-reviewgen"
    site = install(package.name, tmp_path)
    own: dict[str, Any] = {"LLM_USER_PATH": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
    run_tests(package, site, tmp_path, **own)
    words = [
        sys.executable,
        "-m",
        *shlex.split('llm -m reviewgen/lstm-word "The movie" -o seed 1 -o max_tokens 30'),
    ]
    environment = os.environ | {"PYTHONPATH": str(site)} | own
    # as a shell starts it
    done = subprocess.run(words, env=environment, input="", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == reviewgen.load("lstm-word").generate_one("The movie", seed=1, max_new_tokens=30) + "\n"
    )
    blocks = re.findall(
        r"(?:^    .*\n)+", (package / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    lines = [line.strip() for line in "".join(blocks).splitlines()]
    commands = [line for line in lines if re.match(r"llm (-m reviewgen/lstm-word|-c) ", line)]
    assert len(commands) >= 4
    for command in commands:
        said = run(["-m", *shlex.split(command), "-o", "max_tokens", "5"], site, tmp_path, **own)
        assert said.strip().startswith("The ")
    (python,) = [block for block in blocks if "import llm" in block]
    code = re.sub(r"^    ", "", python, flags=re.MULTILINE).replace(
        "temperature=0.6", "temperature=0.6, max_tokens=5"
    )
    assert run(["-c", code], site, tmp_path, **own).startswith("The movie")
