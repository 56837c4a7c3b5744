"""The presets of ngram, as data, for a corpus of 1 to 50 MB.

Held-out bits per character by char order (5, 6, 7, 8, 9): 2018 blogs without leaks 2.22, 2.10, 2.06, 2.05, 2.04; Shakespeare
2.30, 2.24, 2.24, 2.24, 2.24; 32 M characters of film reviews 2.00, 1.83, 1.75, 1.70, 1.68, in models of 13, 37, 83, 162 and
279 MB. From order 8 on the gain is small. Words, 8.5 M tokens of the same reviews, orders 3, 4, 5: 1.63, 1.60, 1.60.
"""

from reviewgen.config import Preset

NGRAM_CHAR = Preset(
    model="ngram",
    tokenizer="char",
    model_settings={"order": 8},
    generation_settings={"max_new_tokens": 600, "temperature": 0.7, "finish": "sentence", "likeness": {"temperature": 1.0}},
)
NGRAM_WORD = Preset(
    model="ngram",
    tokenizer="word",
    model_settings={"order": 4},
    tokenizer_settings={"vocab_size": 8000, "min_frequency": 20},
    generation_settings={"max_new_tokens": 200, "temperature": 0.7, "finish": "sentence", "likeness": {"temperature": 1.0}},
)
