"""The presets of the recurrent models: plain data, sized for a corpus of 1 to 50 MB and a few minutes on two cores.

It must not import torch or any model. A char preset's shape is its model's default. With words, most of the work is the
output layer (V x E), so the embeddings are narrow and tied, and the batches small, for more steps in the same time.
"""

from reviewgen.config import Preset

__all__ = ["GRU_CHAR", "GRU_WORD", "LSTM_CHAR", "LSTM_WORD", "RNN_CHAR", "RNN_WORD"]

CHAR_GENERATION = {"max_new_tokens": 600, "temperature": 0.8}
WORD_GENERATION = {"max_new_tokens": 200, "temperature": 0.8}
WORD_MODEL = {"embedding_size": 128, "hidden_size": 256, "layers": 1, "tied": True}
WORD_TOKENIZER = {"vocab_size": 8000}


def _char_training(learning_rate: float) -> dict[str, int | float]:
    return {"batch_size": 32, "bptt": 64, "learning_rate": learning_rate, "weight_decay": 0.01, "clip_norm": 1.0}


def _word_training(learning_rate: float) -> dict[str, int | float]:
    return {"batch_size": 16, "bptt": 32, "learning_rate": learning_rate, "weight_decay": 0.01, "clip_norm": 1.0}


RNN_CHAR = Preset(
    model="rnn",
    tokenizer="char",
    model_settings={"embedding_size": 64, "hidden_size": 512, "layers": 1},
    training_settings=_char_training(0.004),
    generation_settings=CHAR_GENERATION,
)

GRU_CHAR = Preset(
    model="gru",
    tokenizer="char",
    model_settings={"embedding_size": 64, "hidden_size": 320, "layers": 1},
    training_settings=_char_training(0.008),
    generation_settings=CHAR_GENERATION,
)

LSTM_CHAR = Preset(
    model="lstm",
    tokenizer="char",
    model_settings={"embedding_size": 64, "hidden_size": 384, "layers": 1},
    training_settings=_char_training(0.008),
    generation_settings=CHAR_GENERATION,
)

RNN_WORD = Preset(
    model="rnn",
    tokenizer="word",
    model_settings=WORD_MODEL,
    tokenizer_settings=WORD_TOKENIZER,
    training_settings=_word_training(0.003),
    generation_settings=WORD_GENERATION,
)

GRU_WORD = Preset(
    model="gru",
    tokenizer="word",
    model_settings=WORD_MODEL,
    tokenizer_settings=WORD_TOKENIZER,
    training_settings=_word_training(0.008),
    generation_settings=WORD_GENERATION,
)

LSTM_WORD = Preset(
    model="lstm",
    tokenizer="word",
    model_settings=WORD_MODEL,
    tokenizer_settings=WORD_TOKENIZER,
    training_settings=_word_training(0.015),
    generation_settings=WORD_GENERATION,
)
