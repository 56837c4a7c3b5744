"""Dropout (Srivastava et al. 2014) in the places where a recurrent model takes it, and zoneout.

Masks are drawn here, not by torch's dropout, which on a processor spends 12 ns on each number of a mask (up to half of a
training step), 16 bits of a random word spend 1. They come from torch's global generator. It must not know any cell.

Sources: Zaremba et al. 2014 (on embeddings, between layers, on the output); Gal and Ghahramani 2016, "A Theoretically Grounded
Application of Dropout in Recurrent Neural Networks" (one mask for all time steps; whole rows of the embedding table); Wan et
al. 2013, "Regularization of Neural Networks using DropConnect", on recurrent matrices Merity et al. 2017, "Regularizing and
Optimizing LSTM Language Models"; Krueger et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations".
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

__all__ = ["draw_zones", "drop", "drop_sequence", "zone_out"]

LEVELS = 1 << 16  # a share is rounded to a multiple of one LEVELSth


def drop(x: Tensor, share: float, training: bool, shape: Sequence[int] | None = None) -> Tensor:
    """Return x with a share of its numbers at zero and the others scaled up, so that each keeps its expectation.

    Args:
        shape: The mask's, 1 along the axes on which all share it; that of x if not given.
    """
    share = _round(share)
    if not training or share == 0:
        return x
    return x.masked_fill(_draw(x.shape if shape is None else shape, share, x.device), 0.0) * (1 / (1 - share))


def drop_sequence(x: Tensor, share: float, training: bool, is_locked: bool) -> Tensor:
    """Return ``drop`` of a sequence (T, B, width); locked, all its time steps have the same mask."""
    return drop(x, share, training, (1, *x.shape[1:]) if is_locked else None)


def draw_zones(shape: Sequence[int], share: float, training: bool, device: torch.device) -> Bool[Tensor, "..."] | None:
    """Return which units of a memory keep their old value, at every step by themselves; None where none are to be drawn."""
    return _draw(shape, _round(share), device) if training and share > 0 else None


def zone_out(old: Tensor, new: Tensor, share: float, zoned: Bool[Tensor, "B H"] | None) -> Tensor:
    """Return a part of a memory of which some units keep their old value or, with no zones drawn, the expectation of that."""
    if zoned is not None:
        return torch.where(zoned, old, new)
    return share * old + (1 - share) * new if share > 0 else new


def _round(share: float) -> float:
    return min(round(share * LEVELS), LEVELS - 1) / LEVELS


def _draw(shape: Sequence[int], share: float, device: torch.device) -> Bool[Tensor, "..."]:
    """Return a mask that is true for a share of its places, a multiple of one LEVELSth."""
    if device.type != "cpu":
        return torch.rand(shape, device=device) < share
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    return (words.view(torch.int16)[:count] < round(share * LEVELS) - LEVELS // 2).view(*shape)
