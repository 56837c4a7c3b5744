"""Dropout (Srivastava et al. 2014) in the places where a recurrent model takes it, and zoneout.

Masks are drawn and applied here, not by torch's dropout, which on a processor takes 12 ns a number, up to half of a training
step; the compiled loops take less than 0.3. Their two keys come from torch's global generator. It must not know any cell.

Sources: Zaremba et al. 2014 (on embeddings, between layers, on the output); Gal and Ghahramani 2016, "A Theoretically Grounded
Application of Dropout in Recurrent Neural Networks" (one mask for all time steps; whole rows of the embedding table); Wan et
al. 2013, "Regularization of Neural Networks using DropConnect", on recurrent matrices Merity et al. 2017, "Regularizing and
Optimizing LSTM Language Models"; Krueger et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.autograd.function import once_differentiable

from reviewgen.compiled import compiled
from reviewgen.compiled.precision import narrow, wide
from reviewgen.compiled.tensors import PRECISIONS, as_array

__all__ = ["draw_mask", "draw_zones", "drop", "zone_out"]

ZERO, SIXTEEN, FIFTEEN = np.float32(0), np.uint32(16), np.uint32(15)
FIRST, SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)  # of Wellons' "hash prospector": each bit turns half of the others
KEYS = 1 << 32


def drop(x: Tensor, share: float, training: bool, is_locked: bool = False) -> Tensor:
    """Return x with a share of its numbers at zero and the others scaled up, so that each keeps its expectation.

    Args:
        x: If locked (T, ...): every step has the same mask.
    """
    if not training or share == 0:
        return x
    dropped = draw_mask((1, *x.shape[1:]) if is_locked else x.shape, share, x.device)
    if x.device.type == "cpu" and x.dtype in PRECISIONS:
        return _Drop.apply(x, dropped, 1 / (1 - share))
    return x.masked_fill(dropped, 0.0) * (1 / (1 - share))


def draw_zones(shape: Sequence[int], share: float, training: bool, device: torch.device) -> Bool[Tensor, "..."] | None:
    """Return which units of a memory keep their old value, at every step by themselves; None where none are to be drawn."""
    return draw_mask(shape, share, device) if training and share > 0 else None


def zone_out(old: Tensor, new: Tensor, share: float, zoned: Bool[Tensor, "B H"] | None) -> Tensor:
    """Return a part of a memory of which some units keep their old value or, with no zones drawn, the expectation of that."""
    if zoned is not None:
        return torch.where(zoned, old, new)
    return share * old + (1 - share) * new if share > 0 else new


class _Drop(torch.autograd.Function):
    """Numbers under a mask, (T, ...) under (T, ...) or (1, ...), the others scaled; so is the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: Tensor, scale: float) -> Tensor:
        """Return the numbers."""
        ctx.save_for_backward(dropped)
        ctx.scale = scale
        return _apply_mask(x, dropped, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the numbers."""
        return _apply_mask(gradient, *ctx.saved_tensors, ctx.scale), None, None


def _apply_mask(x: Tensor, dropped: Tensor, scale: float) -> Tensor:
    found = torch.empty_like(x, memory_format=torch.contiguous_format)
    shape = (x.numel() // max(1, dropped.numel()), dropped.numel())
    _mask_rows(*(as_array(part.view(shape)) for part in (x.contiguous(), found)), dropped.view(-1).numpy(), np.float32(scale))
    return found


def draw_mask(shape: Sequence[int], share: float, device: torch.device) -> Bool[Tensor, "..."]:
    """Return a mask that is true for a share of its places."""
    if device.type != "cpu":
        return torch.rand(shape, device=device) < share
    mask = torch.empty(shape, dtype=torch.bool)
    first, second = torch.randint(KEYS, (2,)).tolist()
    _fill(mask.view(-1).numpy(), np.uint32(first), np.uint32(second), np.uint32(min(round(share * KEYS), KEYS - 1)))
    return mask


@compiled
def _fill(mask, first_key, second_key, limit):
    """Make true each place whose number, mixed with two keys, lies below a limit."""
    for j in range(len(mask)):
        number = np.uint32(np.uint32(j) + first_key)  # a sum or product of two is one of 64 bits, unless cut
        number = np.uint32(np.uint32((number ^ (number >> SIXTEEN)) * FIRST) ^ second_key)
        number = np.uint32((number ^ (number >> FIFTEEN)) * SECOND)
        mask[j] = (number ^ (number >> SIXTEEN)) < limit


@compiled
def _mask_rows(x, out, dropped, scale):
    for row in range(len(x)):
        _mask_row(x[row], out[row], dropped, scale)


@compiled
def _mask_row(x, out, dropped, scale):
    for j in range(len(x)):
        out[j] = narrow(ZERO if dropped[j] else wide(x[j]) * scale, x[j])
