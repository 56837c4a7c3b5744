"""Makes ``folders``: a saved model of each kind and a token store, as the code of 28 November 2026 has written them.

They are not made again: that code of today reads them is what ``test_folders`` is for. A new kind is added with
``python -m tests.golden.make_folders NAME``.
"""

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import reviewgen
from tests.golden.corpora import CASES, TOKENIZERS, review

__all__ = ["FOLDERS", "MODELS", "STORE_CASE"]

FOLDERS = Path(__file__).parent / "folders"
STORE_CASE = "messy csv"
NETWORK: dict[str, Any] = {
    "steps": 200,
    "model": {"hidden_size": 8, "embedding_size": 4},
    "training": {"batch_size": 4, "bptt": 16, "evaluations": 2, "threads": 1, "novelty_mb": 0.05},
}
CHARS: dict[str, Any] = {"model": NETWORK["model"] | {"ngram_buckets": 64}}
WORDS: dict[str, Any] = {"tokenizer": {"vocab_size": 300, "min_frequency": 2}}
COUNTED: dict[str, Any] = {"model": {"order": 3}}
CONDITIONAL: dict[str, Any] = {"conditions": ["stars", "genre"]}

MODELS: dict[str, tuple[str, dict[str, Any], str]] = {  # preset, options of the training, dtype of the saved weights
    "ngram-char-exact-index": ("ngram-char", COUNTED | {"training": {"novelty": "exact"}}, "float32"),
    "ngram-word": ("ngram-word", COUNTED | WORDS | {"training": {"novelty_mb": 0.05}}, "float32"),
    "nnlm-word": ("nnlm-word", NETWORK | WORDS, "float32"),
    "rnn-char-no-index": ("rnn-char", NETWORK | CHARS | {"training": NETWORK["training"] | {"novelty": "none"}}, "float32"),
    "gru-char-conditions": ("gru-char", NETWORK | CHARS | CONDITIONAL, "float32"),
    "lstm-char-int8": ("lstm-char", NETWORK | CHARS, "int8"),
    "lstm-word-float16": ("lstm-word", NETWORK | WORDS, "float16"),
    "blend-char": ("blend-char", NETWORK | {"model": CHARS["model"] | COUNTED["model"]}, "float32"),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "ngram-word": {
        "temperature": [1.2, 0.5],
        "words": "known",
        "stop_strings": ["xyz"],
        "finish": "sentence",
        "max_new_tokens": 90,
    },
    "gru-char-conditions": {"conditions": {"stars": 4}, "top_p": 0.9, "repetition_penalty": 1.1, "max_new_tokens": 50},
}


def records() -> list[dict[str, Any]]:
    """Return the reviews that all models are trained on."""
    rng = random.Random(9)
    return [{"text": review(rng, 2), "stars": 1 + number % 5, "genre": ("folk", "jazz")[number % 2]} for number in range(40)]


def make(name: str) -> None:
    """Train and save one model, or prepare the token store."""
    if name == "store":
        with tempfile.TemporaryDirectory() as scratch:
            write, options = CASES[STORE_CASE]
            source = write(Path(scratch))
            reviewgen.prepare(source, preset="ngram-word", out=FOLDERS / name, tokenizer=TOKENIZERS["word"], **options)
        return
    preset, options, dtype = MODELS[name]
    model = reviewgen.train(preset, records(), text_column="text", progress=False, **options)
    model.save_pretrained(FOLDERS / name, dtype=dtype)
    if name in DEFAULTS:
        reviewgen.load(FOLDERS / name).save_generation_config(FOLDERS / name, **DEFAULTS[name])


if __name__ == "__main__":
    FOLDERS.mkdir(exist_ok=True)
    for each in sys.argv[1:]:
        make(each)
