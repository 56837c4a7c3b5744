"""A third-party plugin: the example, installed from a copy whose source is then deleted, is listed, trains, saves and loads."""

import os
import shutil
from pathlib import Path

import pytest

from tests.forked import run_python

EXAMPLE = Path(__file__).parents[2] / "examples" / "reviewgen-uniform"


def run(words, site, cwd):
    return run_python(["-m", *words], env=os.environ | {"PYTHONPATH": str(site) if site else ""}, cwd=cwd)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Install the example into a fresh folder and delete what it was installed from."""
    root = tmp_path_factory.mktemp("third_party")
    source = root / "source"
    shutil.copytree(EXAMPLE, source)
    pip = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(root / "site"), str(source)]
    done = run(pip, None, root)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    return root / "site"


def test_the_plugin_is_listed_trains_saves_and_loads(site, tmp_path):
    (tmp_path / "reviews.txt").write_text("\n".join(f"Review {number} is short." for number in range(40)))
    listed = run(["reviewgen", "list"], site, tmp_path)
    assert "uniform" in listed.stdout
    assert "reviewgen-uniform" in listed.stdout
    trained = run(["reviewgen", "train", "uniform-char", "--data", "reviews.txt", "--out", "m"], site, tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "nothing to train" in trained.stderr
    texts = [
        run(["reviewgen", "generate", "m", "--seed", "1", "--max-new-tokens", "20"], site, tmp_path).stdout for _ in range(2)
    ]
    assert texts[0] == texts[1] != ""
    scored = run(["reviewgen", "score", "m", "--text", "Review"], site, tmp_path)
    assert scored.returncode == 0, scored.stderr


def test_without_the_plugin_loading_names_the_package(site, tmp_path):
    (tmp_path / "reviews.txt").write_text("one review\nanother review\n")
    run(["reviewgen", "train", "uniform-word", "--data", "reviews.txt", "--out", "m"], site, tmp_path)
    done = run(["reviewgen", "generate", "m"], None, tmp_path)
    assert done.returncode == 1
    assert "pip install reviewgen-uniform" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_own_tests_pass(site, tmp_path):
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    done = run(["pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests")], site, tmp_path)
    assert done.returncode == 0, done.stdout
