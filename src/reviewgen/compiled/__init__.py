"""Compiled functions that plugins share: products, cross entropy, sampling, token windows, known
words. numpy and numba, and torch where it is said.

A stepper that generates in a loop of its own (``SupportsSample``) imports these, so that a
temperature, a top-p and a copy limit mean the same for every model. Each name is imported on first
use.

    linear     matrices in panels, times the vectors of a few rows; exp, tanh and sigmoid of many
               numbers at once
    tensors    torch's tensors of 16, 32 and 64 bits in compiled loops; cross entropy and its
               gradient; imports torch
    sampling   from logits to one token
    steps      the step of a model as a compiled function, so that one loop runs every model
    decoding   the loop that samples many tokens with such a step
    conditioning  the vector of a text's conditions and fields, as each id is read
    mixing     mixtures of next-token distributions
    hypotheses sums over the tokens that write a text, for a blend of models with different
    tokenizers
    spelling   follows the known words of a text, token by token
    windows    hashed sets of token windows, and whether a token would complete a copied span
    jit        what compiles a function, where its machine code is cached, and a line on the
               terminal while it is compiled
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
