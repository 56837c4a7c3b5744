"""Compiled functions that plugins share: matrix products, cross entropy, sampling, sets of token windows. numpy and numba.

A stepper that generates in a loop of its own (``SupportsSample``) imports these, so that a temperature, a top-p and a copy limit
mean the same for every model. Importing the package loads numba; each function is imported on first use.

    linear     matrices in panels, times the vectors of a few rows; exp, tanh and sigmoid of many numbers at once
    entropy    cross entropy and its gradient
    sampling   from logits to one token
    drawing    the token of a random number
    steps      the step of a model as a compiled function, so that one loop runs every model
    decoding   the loop that samples many tokens with such a step
    mixing     mixtures of next-token distributions
    precision  numbers of 16, 32 and 64 bits in one loop
    windows    hashed sets of token windows, and whether a token would complete a copied span
    jit        what compiles a function, and where its machine code is cached
    notice     a line on the terminal while functions are compiled for the first use
    tensors    the memory of torch's tensors as arrays; the only file here that imports torch
"""

import lazy_loader

from reviewgen.compiled.jit import by_address, compiled, inlined, inner, reordered

TYPE_CHECKING = False  # as in ``reviewgen``
if TYPE_CHECKING:
    from reviewgen.compiled.decoding import feed, logits_width, sample
    from reviewgen.compiled.drawing import draw_token
    from reviewgen.compiled.entropy import target_losses
    from reviewgen.compiled.linear import PANEL, add_product, add_up, exp32, log32, pack, refuse_non_finite, sigmoid32, tanh32
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
        sample_from,
        sample_rows,
        sharpen,
    )
    from reviewgen.compiled.spelling import HALF, Spelling, follow_all, mark_spelled, no_places, start_of_text
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

__all__ = [
    "DEAD_END",
    "HALF",
    "NONE",
    "NOTHING_LEFT",
    "NOT_A_NUMBER",
    "NO_WINDOWS",
    "PANEL",
    "CompiledStep",
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
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decoding": ["feed", "logits_width", "sample"],
        "drawing": ["draw_token"],
        "entropy": ["target_losses"],
        "linear": ["PANEL", "add_product", "add_up", "exp32", "log32", "pack", "refuse_non_finite", "sigmoid32", "tanh32"],
        "mixing": ["mix"],
        "sampling": [
            "Constraints",
            "DEAD_END",
            "NONE",
            "NOTHING_LEFT",
            "NOT_A_NUMBER",
            "SamplingParams",
            "apply_penalties",
            "apply_temperature",
            "sample_from",
            "sample_rows",
            "sharpen",
        ],
        "spelling": ["HALF", "Spelling", "follow_all", "mark_spelled", "no_places", "start_of_text"],
        "steps": ["CompiledStep"],
        "windows": [
            "NO_WINDOWS",
            "WindowSet",
            "build_windows",
            "copies",
            "count_windows",
            "false_positive_rate",
            "forbid",
            "hash_window",
            "sample_windows",
        ],
    },
)
