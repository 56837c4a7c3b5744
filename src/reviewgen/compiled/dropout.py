"""Dropout (Srivastava et al. 2014), for every point where a network applies it. Needs torch.

Masks are sampled and applied here. torch's dropout takes 12 ns per element on a CPU, up to half of
a training step; the compiled loops take less than 0.3 ns. On a CPU, a hash of each element's index
and two keys gives the mask; the keys come from torch's global generator.

Sources: Zaremba et al. 2014 (on embeddings, between layers, on the output); Gal and Ghahramani
2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks" (one mask for
all time steps; whole rows of the embedding table); Wan et al. 2013, "Regularization of Neural
Networks using DropConnect", and Merity et al. 2017, "Regularizing and Optimizing LSTM Language
Models" (on recurrent matrices).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.autograd.function import once_differentiable

from reviewgen.compiled.jit import compiled
from reviewgen.compiled.linear import ZERO
from reviewgen.compiled.tensors import PRECISIONS, as_array, narrow, wide

SIXTEEN = np.uint32(16)
FIFTEEN = np.uint32(15)
# factors found by Wellons' "hash prospector": each bit of the input flips half of the output's bits
FIRST_FACTOR = np.uint32(0x7FEB352D)
SECOND_FACTOR = np.uint32(0x846CA68B)
KEYS = 1 << 32  # number of possible values of a key of the hash


def drop(x: Tensor, p: float, training: bool, is_locked: bool = False) -> Tensor:
    """Return x with each element set to zero with probability p. The others are divided by 1 - p,
    so that the expectation stays the same.

    Args:
        x: The tensor; its first axis is time if ``is_locked``.
        p: The probability that an element is dropped.
        training: Whether the model is being trained; otherwise x is returned unchanged.
        is_locked: Whether all time steps share one mask.
    """
    if not training or p == 0:
        return x
    dropped = make_mask((1, *x.shape[1:]) if is_locked else x.shape, p, x.device)
    if x.device.type == "cpu" and x.dtype in PRECISIONS:
        result: Tensor = _Drop.apply(x, dropped, 1 / (1 - p))
        return result
    return x.masked_fill(dropped, 0.0) * (1 / (1 - p))


class _Drop(torch.autograd.Function):
    """Sets the elements of x where a mask is true to zero, and multiplies the others by a factor;
    does the same with the gradient. x is (T, ...), the mask (T, ...) or (1, ...).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: Tensor, scale: float) -> Tensor:
        """Return x after dropout."""
        ctx.save_for_backward(dropped)
        ctx.scale = scale
        return _apply_mask(x, dropped, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of x."""
        return _apply_mask(grad, ctx.saved_tensors[0], ctx.scale), None, None


def _apply_mask(x: Tensor, dropped: Tensor, scale: float) -> Tensor:
    """Return x with the masked elements set to zero, and the others multiplied by ``scale``."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    # (rows, elements of the mask); if all time steps share the mask, there are several rows
    shape = (x.numel() // max(1, dropped.numel()), dropped.numel())
    rows = as_array(x.contiguous().view(shape))
    _mask_rows(rows, as_array(out.view(shape)), dropped.view(-1).numpy(), np.float32(scale))
    return out


def make_mask(shape: Sequence[int], p: float, device: torch.device) -> Bool[Tensor, "..."]:
    """Return a random mask; each element is true with probability p."""
    if device.type != "cpu":
        return torch.rand(shape, device=device) < p
    mask = torch.empty(shape, dtype=torch.bool)
    first, second = map(np.uint32, torch.randint(KEYS, (2,)).tolist())
    limit = np.uint32(min(round(p * KEYS), KEYS - 1))
    _fill(mask.view(-1).numpy(), first, second, limit)
    return mask


@compiled
def _fill(mask, first_key, second_key, limit):
    """Set each element of a mask to true if the hash of its index and two keys is below a limit."""
    for j in range(len(mask)):
        # numba widens sums and products to 64 bits, so each is cut to 32 again
        number = np.uint32(np.uint32(j) + first_key)
        number = np.uint32(np.uint32((number ^ (number >> SIXTEEN)) * FIRST_FACTOR) ^ second_key)
        number = np.uint32((number ^ (number >> FIFTEEN)) * SECOND_FACTOR)
        mask[j] = (number ^ (number >> SIXTEEN)) < limit


@compiled
def _mask_rows(x, out, dropped, scale):
    """Write each row of x after dropout to ``out``; all rows have the same mask."""
    for row in range(len(x)):
        _mask_row(x[row], out[row], dropped, scale)


@compiled
def _mask_row(x, out, dropped, scale):
    """Write a row of x after dropout to ``out``."""
    for j in range(len(x)):
        out[j] = narrow(ZERO if dropped[j] else wide(x[j]) * scale, x[j])
