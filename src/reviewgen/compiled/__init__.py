"""Compiled functions that plugins share: matrix products, cross entropy, sampling, token windows,
known words. They need numpy and numba; only ``tensors`` and ``dropout`` need torch.

A stepper that generates in its own loop (``SupportsSample``) imports these functions, so that a
temperature, a top-p and a copy limit mean the same for every model.

    linear        products of a matrix, stored in panels, with the vectors of a few rows; exp, tanh
                  and sigmoid that vectorise in loops
    tensors       torch's tensors of 16, 32 and 64 bits in compiled loops; cross entropy and its
                  gradient; imports torch
    dropout       dropout in training; imports torch
    ngrams        hashes n-grams, and adds up their embeddings
    sampling      samples one token from logits
    steps         the step of a model as a compiled function, so that one loop runs every model
    decoding      the loop that samples many tokens with such a step
    conditioning  updates the vector of a text's conditions and fields as each id is read
    mixing        mixtures of next-token distributions
    hypotheses    sums over all token sequences that spell a text, for a blend of models with
                  different tokenizers
    spelling      checks, token by token, that a text has known words only
    windows       hashed sets of token windows, to find out whether a token would complete a copied
                  span
    jit           compiles functions, caches their machine code, and shows a line on the terminal
                  while a function is compiled
"""

from typing import TYPE_CHECKING

from reviewgen.compiled.decoding import CompiledStepper, feed, logits_width, sample
from reviewgen.compiled.jit import by_address, compiled, inlined, inner, reordered, unmanaged
from reviewgen.compiled.linear import (
    PANEL,
    add_product,
    add_up,
    exp32,
    log32,
    pack,
    refuse_non_finite,
    sigmoid32,
    tanh32,
)
from reviewgen.compiled.mixing import mix
from reviewgen.compiled.sampling import (
    DEAD_END,
    NONE,
    NOT_A_NUMBER,
    NOTHING_LEFT,
    Constraints,
    SamplingParams,
    apply_penalties,
    apply_temperature,
    draw_token,
    sample_from,
    sample_rows,
    sharpen,
)
from reviewgen.compiled.spelling import (
    HALF,
    Spelling,
    follow_all,
    mark_spelled,
    no_places,
    start_of_text,
)
from reviewgen.compiled.steps import CompiledStep
from reviewgen.compiled.windows import (
    NO_WINDOWS,
    WindowSet,
    build_windows,
    copies,
    count_windows,
    false_positive_rate,
    forbid,
    hash_window,
    sample_windows,
)
from reviewgen.lazy import import_on_first_use

if TYPE_CHECKING:
    from reviewgen.compiled.tensors import target_losses

__all__ = [
    "DEAD_END",
    "HALF",
    "NONE",
    "NOTHING_LEFT",
    "NOT_A_NUMBER",
    "NO_WINDOWS",
    "PANEL",
    "CompiledStep",
    "CompiledStepper",
    "Constraints",
    "SamplingParams",
    "Spelling",
    "WindowSet",
    "add_product",
    "add_up",
    "apply_penalties",
    "apply_temperature",
    "build_windows",
    "by_address",
    "compiled",
    "copies",
    "count_windows",
    "draw_token",
    "exp32",
    "false_positive_rate",
    "feed",
    "follow_all",
    "forbid",
    "hash_window",
    "inlined",
    "inner",
    "log32",
    "logits_width",
    "mark_spelled",
    "mix",
    "no_places",
    "pack",
    "refuse_non_finite",
    "reordered",
    "sample",
    "sample_from",
    "sample_rows",
    "sample_windows",
    "sharpen",
    "sigmoid32",
    "start_of_text",
    "tanh32",
    "target_losses",
    "unmanaged",
]

# ``tensors`` imports torch, so it is not imported before the function is used
__getattr__ = import_on_first_use(__name__, {"tensors": "target_losses"})
