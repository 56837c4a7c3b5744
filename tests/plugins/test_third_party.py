"""Third-party plugins: each example, installed from a copy whose source is then deleted, is listed,
trains, saves and loads.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from tests.support.forked import run_python

pytestmark = pytest.mark.install
EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ["--set", "model.hidden_size=16", "--steps", "3"]
PRESETS: dict[str, tuple[str, list[str]]] = {  # of each package: what is trained, and the options
    "reviewgen-uniform": ("uniform-char", []),
    "reviewgen-mingru": ("mingru-char", SMALL),
    "reviewgen-attention": ("attention-char", SMALL),
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


@pytest.mark.parametrize("package", PRESETS)
def test_an_installed_plugin_is_listed_trains_saves_loads_and_passes_its_own_tests(
    package: str, tmp_path: Path
) -> None:
    site = install(package, tmp_path)
    preset = PRESETS[package]
    listed = json.loads(run(["-m", "reviewgen", "list", "--json"], site, tmp_path))
    names = {
        plugin["name"]
        for plugins in listed.values()
        for plugin in plugins
        if plugin["package"] == package
    }
    assert package.removeprefix("reviewgen-") in names
    (tmp_path / "reviews.txt").write_text(
        "\n".join(f"Review {number} is short." for number in range(40))
    )
    command = ["-m", "reviewgen"]
    said = run(
        [*command, "train", preset[0], *preset[1], "--data", "reviews.txt", "--out", "m"],
        site,
        tmp_path,
    )
    assert ("nothing to train" in said) == (package == "reviewgen-uniform")
    assert "bits" in run([*command, "evaluate", "m", "--data", "reviews.txt"], site, tmp_path)
    alone, first, second = run(["-c", TWO_PROMPTS], site, tmp_path).splitlines()
    assert alone == first != second
    done = run_python(
        [*command, "generate", "m"], env=os.environ | {"PYTHONPATH": ""}, cwd=tmp_path
    )
    assert (
        done.returncode == 1
        and f"pip install {package}" in done.stderr
        and "Traceback" not in done.stderr
    )
    # its stepper generates without torch; a process of its own, not forked from one with it
    if package == "reviewgen-mingru":
        environment = os.environ | {"PYTHONPATH": str(site)}
        words = [sys.executable, "-c", WITHOUT_TORCH]
        printed = subprocess.run(
            words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        assert printed.splitlines()[-1] == "False"
    shutil.copytree(EXAMPLES / package / "tests", tmp_path / "tests")
    run(["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests")], site, tmp_path)


def test_the_plugin_of_the_llm_command(tmp_path: Path) -> None:
    """Its own tests pass, it writes to a pipe, and what its README shows runs, each command
    shortened to a few tokens.
    """
    pytest.importorskip("llm", reason="the llm command is not installed: pip install llm")
    package = EXAMPLES / "llm-reviewgen"
    site = install(package.name, tmp_path)
    own: dict[str, Any] = {"LLM_USER_PATH": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
    shutil.copytree(package / "tests", tmp_path / "tests")
    run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests")],
        site,
        tmp_path,
        **own,
    )
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
    lines = [line.strip() for block in blocks for line in block.splitlines()]
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
