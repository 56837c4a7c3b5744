"""The presets of blends, as data: an LSTM and an n-gram of one tokenizer. Must not import torch or a model.

The two differ in their errors: an n-gram knows names and phrases that it has seen once, an LSTM what lies further back.
"""

from reviewgen.config import Preset

BLEND_CHAR = Preset(
    model="blend",
    tokenizer="char",
    generation_settings={"max_new_tokens": 600, "temperature": 0.7, "finish": "sentence"},
    parts=("lstm-char", "ngram-char"),
)
BLEND_WORD = Preset(
    model="blend",
    tokenizer="word",
    tokenizer_settings={"vocab_size": 8000, "min_frequency": 20},
    generation_settings={"max_new_tokens": 200, "temperature": 0.7, "finish": "sentence"},
    parts=("lstm-word", "ngram-word"),
)
