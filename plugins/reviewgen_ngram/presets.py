"""Sensible n-grams for corpora of 1 to 50 MB."""

from reviewgen.config import Preset

__all__ = ["NGRAM_CHAR", "NGRAM_WORD"]

NGRAM_CHAR = Preset(
    model="ngram",
    tokenizer="char",
    model_settings={"order": 8},
    generation_settings={"max_new_tokens": 600, "temperature": 1.0},
)
NGRAM_WORD = Preset(
    model="ngram",
    tokenizer="word",
    model_settings={"order": 4},
    tokenizer_settings={"vocab_size": 8000},
    generation_settings={"max_new_tokens": 200, "temperature": 1.0},
)
