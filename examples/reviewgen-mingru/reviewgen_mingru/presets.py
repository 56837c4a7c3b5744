"""The presets, as data. Must not import torch or the models."""

from reviewgen.config import Preset

__all__ = ["MINGRU_CHAR", "MINGRU_WORD", "MINLSTM_CHAR"]

CHAR_TRAINING = {
    "batch_size": 32,
    "bptt": 64,
    "learning_rate": 0.01,
    "weight_decay": 0.05,
    "clip_norm": 1.0,
}
CHAR_GENERATION = {"max_new_tokens": 600, "temperature": 0.9, "finish": "sentence"}
CHAR_SIZES = tuple({"hidden_size": size} for size in (128, 256, 384, 512))

MINGRU_CHAR = Preset(
    model="mingru",
    tokenizer="char",
    model_settings={"hidden_size": 256, "layers": 2, "window": 4},
    training_settings=CHAR_TRAINING,
    generation_settings=CHAR_GENERATION,
    sizes=CHAR_SIZES,
)

MINLSTM_CHAR = Preset(
    model="minlstm",
    tokenizer="char",
    model_settings={"hidden_size": 256, "layers": 2, "window": 4},
    training_settings=CHAR_TRAINING,
    generation_settings=CHAR_GENERATION,
    sizes=CHAR_SIZES,
)

MINGRU_WORD = Preset(
    model="mingru",
    tokenizer="word",
    model_settings={"hidden_size": 128, "layers": 2, "window": 2},
    tokenizer_settings={"vocab_size": 8000, "min_frequency": 20},
    training_settings={
        "batch_size": 16,
        "bptt": 32,
        "learning_rate": 0.01,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
    },
    generation_settings={"max_new_tokens": 200, "temperature": 0.95, "finish": "sentence"},
    sizes=tuple({"hidden_size": size} for size in (64, 128, 256)),
)
