"""The preset of the byte tokenizer, as data: the model ``lstm`` of reviewgen with the settings of
its preset ``lstm-char``.
"""

from reviewgen.config import Preset

__all__ = ["LSTM_BYTES"]

LSTM_BYTES = Preset(
    model="lstm",
    tokenizer="bytes",
    model_settings={"embedding_size": 64, "hidden_size": 320, "layers": 1, "ngrams": 5},
    training_settings={
        "batch_size": 32,
        "bptt": 64,
        "learning_rate": 0.016,
        "weight_decay": 0.15,
        "clip_norm": 1.0,
    },
    generation_settings={"max_new_tokens": 600, "temperature": 0.9, "finish": "sentence"},
    sizes=tuple({"hidden_size": size} for size in (128, 256, 384, 512)),
)
