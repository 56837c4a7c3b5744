"""The preset, as data. Must not import torch or the model."""

from reviewgen.config import Preset

__all__ = ["ATTENTION_CHAR"]

ATTENTION_CHAR = Preset(
    model="attention",
    tokenizer="char",
    model_settings={"hidden_size": 128, "layers": 3, "heads": 4, "window": 64},
    training_settings={
        "batch_size": 32,
        "bptt": 64,
        "learning_rate": 0.01,
        "weight_decay": 0.05,
        "clip_norm": 1.0,
    },
    generation_settings={"max_new_tokens": 600, "temperature": 0.9, "finish": "sentence"},
    sizes=tuple({"hidden_size": size} for size in (64, 128, 192, 256)),
)
