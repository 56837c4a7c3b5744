"""The presets of the weights: small models for 1.5 MB of text, which is read many times."""

from reviewgen.config import Preset

__all__ = ["BLEND_WORD_MUSIC", "GRU_WORD_MUSIC", "NGRAM_WORD_MUSIC"]

WORDS = {"vocab_size": 4000, "min_frequency": 5}  # the models of a blend share their tokens
GENERATION = {"max_new_tokens": 200, "temperature": 0.8, "finish": "sentence"}

GRU_WORD_MUSIC = Preset(
    model="gru",
    tokenizer="word",
    model_settings={
        "hidden_size": 384,
        "embedding_size": 192,
        "tied": True,
        # of many epochs
        "output_dropout": 0.5,
        "locked_dropout": True,
        "embedding_dropout": 0.2,
    },
    tokenizer_settings=WORDS,
    training_settings={
        "batch_size": 16,
        "bptt": 64,
        "learning_rate": 0.012,
        "weight_decay": 0.1,
    },
    generation_settings=GENERATION,
)
NGRAM_WORD_MUSIC = Preset(
    model="ngram",
    tokenizer="word",
    model_settings={"order": 4, "smoothing": "witten-bell", "quantized": True, "min_count": 2},
    tokenizer_settings=WORDS,
    generation_settings=GENERATION,
)
BLEND_WORD_MUSIC = Preset(
    model="blend",
    tokenizer="word",
    tokenizer_settings=WORDS,
    generation_settings=GENERATION,
    parts=("gru-word-music", "ngram-word-music"),
)
