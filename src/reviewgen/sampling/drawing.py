"""From the settings of a call to those of a draw."""

import numpy as np

from reviewgen.compiled.draw import Drawing
from reviewgen.config import GenerationConfig
from reviewgen.protocols import Tokenizer

__all__ = ["make_drawing"]


def make_drawing(config: GenerationConfig, tokenizer: Tokenizer) -> Drawing:
    """Return the settings of a draw in the form that compiled code takes."""
    most = np.iinfo(np.int64).max
    return Drawing(
        temperatures=np.array(config.temperatures, np.float64),
        top_k=config.top_k if config.top_k < tokenizer.vocab_size else 0,
        top_p=float(config.top_p),
        min_p=float(config.min_p),
        repetition_penalty=float(config.repetition_penalty),
        no_repeat_ngram_size=min(config.no_repeat_ngram_size, most),
        min_new_tokens=min(config.min_new_tokens, most),
        max_new_tokens=min(config.max_new_tokens, most),
        is_greedy=config.do_sample is False,
        eos_id=tokenizer.eos_id,
        bos_id=tokenizer.bos_id,
        size=tokenizer.vocab_size,
    )
