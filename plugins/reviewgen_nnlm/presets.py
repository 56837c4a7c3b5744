"""The presets of nnlm, as data, for a corpus of 1 to 50 MB and a few minutes on two cores.

Must not import torch or the model. The char preset has the model's default shape. With words, most of the work is the output
layer (V x H), so the hidden layer is narrow, and batches are small, for more steps in the same time.
"""

from reviewgen.config import CHAR_GENERATION, WORD_GENERATION, Preset

WORD_TRAINING = {
    "batch_size": 16, "bptt": 32, "learning_rate": 0.008, "weight_decay": 0.01, "clip_norm": 1.0, "sampled_softmax": 500
}  # fmt: skip
BY_EPOCHS = ((3.0, {"dropout": 0.1}), (6.0, {"dropout": 0.2}), (12.0, {"dropout": 0.3}))


NNLM_CHAR = Preset(
    model="nnlm",
    tokenizer="char",
    model_settings={"order": 12, "embedding_size": 32, "hidden_size": 768},
    training_settings={"batch_size": 32, "bptt": 64, "learning_rate": 0.01, "weight_decay": 0.01, "clip_norm": 1.0},
    generation_settings=CHAR_GENERATION,
    sizes=tuple({"hidden_size": size} for size in (256, 512, 768)),  # within a minute of training, wider ones were worse
    by_epochs=BY_EPOCHS,
)

NNLM_WORD = Preset(
    model="nnlm",
    tokenizer="word",
    model_settings={"order": 5, "embedding_size": 64, "hidden_size": 128},
    tokenizer_settings={"vocab_size": 8000, "min_frequency": 20},
    training_settings=WORD_TRAINING,
    generation_settings=WORD_GENERATION | {"likeness": {"temperature": 0.9, "repetition_penalty": 1.0}},
    sizes=tuple({"hidden_size": size, "embedding_size": size // 2} for size in (64, 128, 256)),
    by_epochs=BY_EPOCHS,
)
