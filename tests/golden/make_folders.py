"""Makes ``folders``: a saved model of each kind and a token store, as the code of 28 November 2026
has written them.

They are not made again: that the code reads what it wrote then is what ``test_folders`` is for. A
new kind is added with ``python -m tests.golden.make_folders NAME``.
"""

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import reviewgen
from tests.golden.corpora import CASES, TOKENIZERS, review, write

__all__ = ["FOLDERS", "MODELS", "STORE"]

FOLDERS = Path(__file__).parent / "folders"
STORE = CASES["messy csv"]
TRAINING: dict[str, Any] = {
    "batch_size": 4,
    "bptt": 16,
    "evaluations": 2,
    "threads": 1,
    "novelty_mb": 0.05,
}
SIZES: dict[str, Any] = {"hidden_size": 8, "embedding_size": 4}
CHARS: dict[str, Any] = {"steps": 200, "training": TRAINING, "model": SIZES | {"ngram_buckets": 64}}
WORDS: dict[str, Any] = {
    "steps": 200,
    "training": TRAINING,
    "model": SIZES,
    "tokenizer": {"vocab_size": 300, "min_frequency": 2},
}
COUNTED: dict[str, Any] = {"model": {"order": 3}, "training": {"novelty_mb": 0.05}}

# preset, options of the training, dtype of the saved weights
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "ngram-char-exact-index": (
        "ngram-char",
        COUNTED | {"training": {"novelty": "exact"}},
        "float32",
    ),
    "ngram-word": ("ngram-word", COUNTED | {"tokenizer": WORDS["tokenizer"]}, "float32"),
    "nnlm-word": ("nnlm-word", WORDS, "float32"),
    "rnn-char-no-index": (
        "rnn-char",
        CHARS | {"training": TRAINING | {"novelty": "none"}},
        "float32",
    ),
    "gru-char-conditions": ("gru-char", CHARS | {"conditions": ["stars", "genre"]}, "float32"),
    "lstm-char-int8": ("lstm-char", CHARS, "int8"),
    "lstm-word-float16": ("lstm-word", WORDS, "float16"),
    # as the preset was in version 0.1.0, with an n-gram
    "blend-char": ("blend-char", CHARS | {"model": CHARS["model"] | COUNTED["model"]}, "float32"),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "ngram-word": {
        "temperature": [1.2, 0.5],
        "words": "known",
        "stop_strings": ["xyz"],
        "max_new_tokens": 90,
    },
    "gru-char-conditions": {
        "conditions": {"stars": 4},
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "max_new_tokens": 50,
    },
}


def make(name: str) -> None:
    """Train and save one model, or prepare the token store."""
    if name == "store":
        with tempfile.TemporaryDirectory() as scratch:
            source = write(STORE, Path(scratch))
            reviewgen.prepare(
                source,
                preset="ngram-word",
                out=FOLDERS / name,
                tokenizer=TOKENIZERS["word"],
                **STORE.options,
            )
        return
    preset, options, dtype = MODELS[name]
    rng = random.Random(9)
    reviews = [
        {"text": review(rng, 2), "stars": 1 + number % 5, "genre": ("folk", "jazz")[number % 2]}
        for number in range(40)
    ]
    model = reviewgen.train(preset, reviews, text_column="text", progress=False, **options)
    model.save_pretrained(FOLDERS / name, dtype=dtype)
    if name in DEFAULTS:
        reviewgen.load(FOLDERS / name).save_generation_config(FOLDERS / name, **DEFAULTS[name])


if __name__ == "__main__":
    for each in sys.argv[1:]:
        make(each)
