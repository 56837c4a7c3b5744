"""The presets of the recurrent models, as data, for a corpus of 1 to 50 MB and a few minutes on two cores.

Must not import torch or any model. A char preset has its model's default shape and n-gram embeddings; with a time budget, one of
``sizes`` is chosen. With words, most of the work is the output layer (V x E), so the embeddings are narrow and tied, and batches
are small, for more steps in the same time. Dropout grows with the number of epochs, since it only costs in the first ones, and
n-grams become shorter, since they learn fastest and are the first to overfit.
"""

from reviewgen.config import CHAR_GENERATION, WORD_GENERATION, Preset

WORD_MODEL = {"embedding_size": 128, "hidden_size": 256, "layers": 1, "tied": True}
WORD_TOKENIZER = {"vocab_size": 8000, "min_frequency": 20}
WORD_TRAINING = {"batch_size": 16, "bptt": 32, "weight_decay": 0.01, "clip_norm": 1.0, "sampled_softmax": 500}
CHAR_SIZES = tuple({"hidden_size": size} for size in (128, 192, 256, 384, 512, 768, 1024))
WORD_SIZES = tuple({"hidden_size": size, "embedding_size": size // 2} for size in (128, 256, 384, 512))
CHAR_BY_EPOCHS = (
    (1.5, {"output_dropout": 0.2, "locked_dropout": True}),
    (3.0, {"output_dropout": 0.3, "locked_dropout": True, "ngrams": 3, "ngram_dropout": 0.1}),
    (6.0, {"output_dropout": 0.5, "locked_dropout": True, "ngrams": 3, "ngram_dropout": 0.2}),
    (12.0, {"output_dropout": 0.55, "locked_dropout": True, "ngrams": 3, "ngram_dropout": 0.25}),
    (24.0, {"output_dropout": 0.65, "locked_dropout": True, "ngrams": 3, "ngram_dropout": 0.35}),
)
WORD_BY_EPOCHS = (
    (1.5, {"output_dropout": 0.1}),
    (3.0, {"output_dropout": 0.2}),
    (6.0, {"output_dropout": 0.4, "locked_dropout": True, "embedding_dropout": 0.1}),
    (12.0, {"output_dropout": 0.5, "locked_dropout": True, "embedding_dropout": 0.2}),
    (24.0, {"output_dropout": 0.5, "locked_dropout": True, "embedding_dropout": 0.2, "weight_dropout": 0.3}),
    (48.0, {"output_dropout": 0.55, "locked_dropout": True, "embedding_dropout": 0.3, "weight_dropout": 0.4}),
    (96.0, {"output_dropout": 0.6, "locked_dropout": True, "embedding_dropout": 0.3, "weight_dropout": 0.5}),
)
WORD_TRAINING_BY_EPOCHS = ((6.0, {"weight_decay": 0.1}),)


def _char(model: str, hidden_size: int, learning_rate: float) -> Preset:
    return Preset(
        model=model,
        tokenizer="char",
        model_settings={"embedding_size": 64, "hidden_size": hidden_size, "layers": 1, "ngrams": 5},
        training_settings={"batch_size": 32, "bptt": 64, "learning_rate": learning_rate, "weight_decay": 0.15, "clip_norm": 1.0},
        generation_settings=CHAR_GENERATION,
        sizes=CHAR_SIZES,
        by_epochs=CHAR_BY_EPOCHS,
    )


def _word(model: str, learning_rate: float) -> Preset:
    return Preset(
        model=model,
        tokenizer="word",
        model_settings=WORD_MODEL,
        tokenizer_settings=WORD_TOKENIZER,
        training_settings=WORD_TRAINING | {"learning_rate": learning_rate},
        generation_settings=WORD_GENERATION,
        sizes=WORD_SIZES,
        by_epochs=WORD_BY_EPOCHS,
        training_by_epochs=WORD_TRAINING_BY_EPOCHS,
    )


RNN_CHAR = _char("rnn", 512, 0.004)  # at 0.01 the recurrent matrix grows until, after about 1,500 steps, nothing more is learned
GRU_CHAR = _char("gru", 320, 0.015)
LSTM_CHAR = _char("lstm", 320, 0.016)
RNN_WORD = _word("rnn", 0.003)
GRU_WORD = _word("gru", 0.012)
LSTM_WORD = _word("lstm", 0.015)
