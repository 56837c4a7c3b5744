"""Third-party plugins: each example, installed from a copy whose source is then deleted, is listed, trains, saves and loads."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.support.examples import EXAMPLES, install_example
from tests.support.forked import run_python

SMALL = ["--set", "model.hidden_size=16", "--steps", "3"]
PRESETS = {  # of each package: what is trained, and the options
    "reviewgen-uniform": ("uniform-char", []),
    "reviewgen-mingru": ("mingru-char", SMALL),
    "reviewgen-attention": ("attention-char", SMALL),
    "reviewgen-bytes": ("gru-bytes", SMALL),
}
# Greedy: PyTorch rounds differently with one row than with two, and drawing again for valid text uses a number's last digits
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


def run(words, site, cwd):
    return run_python(words, env=os.environ | {"PYTHONPATH": str(site) if site else ""}, cwd=cwd)


def reviewgen(text, site, cwd):
    """Run a command and return what it prints."""
    done = run(["-m", "reviewgen", *text.split()], site, cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=PRESETS)
def package(request):
    return request.param


@pytest.fixture(scope="module")
def site(package, tmp_path_factory):
    """Install an example into a fresh folder and delete what it was installed from."""
    return install_example(package, tmp_path_factory.mktemp("third_party"))


@pytest.fixture(scope="module")
def trained(package, site, tmp_path_factory):
    """A folder with a model, m, that was trained from another folder than the source's, and what the training said."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "reviews.txt").write_text("\n".join(f"Review {number} is short." for number in range(40)))
    preset, options = PRESETS[package]
    done = run(["-m", "reviewgen", "train", preset, *options, "--data", "reviews.txt", "--out", "m"], site, folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_the_plugin_is_listed(package, site, tmp_path):
    listed = json.loads(reviewgen("list --json", site, tmp_path))
    names = {plugin["name"] for plugins in listed.values() for plugin in plugins if plugin["package"] == package}
    assert package.removeprefix("reviewgen-") in names


def test_the_model_is_saved_loaded_evaluated_and_generates(package, site, trained):
    folder, said = trained
    assert ("nothing to train" in said) == (package == "reviewgen-uniform")
    assert reviewgen("generate m --seed 1 --max-new-tokens 20", site, folder)
    assert "bits" in reviewgen("evaluate m --data reviews.txt", site, folder)
    done = run(["-c", TWO_PROMPTS], site, folder)
    assert done.returncode == 0, done.stderr
    alone, first, second = done.stdout.splitlines()
    assert alone == first != second


def test_without_the_plugin_loading_names_the_package(package, trained):
    done = run(["-m", "reviewgen", "generate", "m"], None, trained[0])
    assert done.returncode == 1
    assert f"pip install {package}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["reviewgen-mingru"], indirect=True, scope="module")
def test_a_stepper_generates_without_torch(site, trained):
    script = [sys.executable, "-c", WITHOUT_TORCH]  # a process of its own: others are forked from one that has torch
    done = subprocess.run(script, env=os.environ | {"PYTHONPATH": str(site)}, cwd=trained[0], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_its_own_tests_pass(package, site, tmp_path):
    shutil.copytree(EXAMPLES / package / "tests", tmp_path / "tests")
    done = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests")], site, tmp_path)
    assert done.returncode == 0, done.stdout
