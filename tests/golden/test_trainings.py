"""Each preset, made small, reaches in 200 steps the bits per character that are stored; n-grams
exactly.

``trainings.json`` is written by ``python -m tests.golden.test_trainings``. The texts are new to the
model. How far four orders of the same training texts are apart, in percent: rnn-char 0.5, nnlm-char
1.7, gru-char 1.7, nnlm-word 0.3, rnn-word 0.3, lstm-word 0.5; so a loop that draws another order
may need new values for two of them, and another seed does.
"""

import os
import random
import sys
import tempfile
from typing import Any

import pytest

import reviewgen
from tests.golden.corpora import TOKENIZERS, review
from tests.golden.stored import read_stored, write_stored

PRESETS = [
    f"{model}-{tokenizer}"
    for tokenizer in TOKENIZERS
    for model in ("ngram", "nnlm", "rnn", "gru", "lstm", "blend")
]
PRESETS += ["mixing-char"]
COUNTED = ["ngram-char", "ngram-word", "mixing-char"]
FAST = [*COUNTED, "gru-word"]
TRAINING = {
    "evaluations": 1,
    "copy_tokens": 0,
    "novelty": "none",
    "threads": 1,
    "precision": "no",
    "device": "cpu",
}


def observe(preset: str) -> dict[str, float]:
    """Train a preset and return its bits per character of texts that it has not seen, and what it
    has learned from.
    """
    model, tokenizer = preset.split("-")
    options: dict[str, Any] = {"tokenizer": TOKENIZERS[tokenizer], "training": TRAINING}
    if preset not in COUNTED:
        options |= {
            "steps": 200,
            "model": {"hidden_size": 96, "embedding_size": 16 if model == "nnlm" else 48},
        }
    training, unseen = (
        [review(rng, 3) for _ in range(n)]
        for rng, n in ((random.Random(7), 2000), (random.Random(8), 100))
    )
    trained = reviewgen.train(preset, training, seed=0, progress=False, **options)
    return {
        "bits": trained.evaluate(unseen, clean=False).bits_per_character,
        "final bits": trained.training["held_out"]["bits_per_character"],
        "vocabulary": trained.tokenizer.vocab_size,
        "steps": trained.training["steps"],
        "tokens": trained.training["tokens_seen"],
    }


@pytest.mark.parametrize(
    "preset",
    [each if each in FAST else pytest.param(each, marks=pytest.mark.slow) for each in PRESETS],
)
def test_a_training_reaches_the_stored_bits_per_character(preset: str):
    assert observe(preset) == pytest.approx(
        read_stored("trainings")[preset], rel=1e-9 if preset.startswith("ngram") else 0.01
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["REVIEWGEN_CACHE"] = scratch
        write_stored("trainings", {preset: observe(preset) for preset in sys.argv[1:] or PRESETS})
