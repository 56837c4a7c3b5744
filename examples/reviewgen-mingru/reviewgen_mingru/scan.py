"""The recurrence ``h_t = a_t * h_{t-1} + b_t`` of a whole sequence, forward and backward, without a step for each token.

The sequence is cut into about sqrt(T) chunks, which are computed side by side: first what each chunk multiplies a state by and
adds to it, then the states at the chunks' beginnings, one after another, then all states. That is about 3 sqrt(T) operations on
large tensors in place of T on small ones. Nothing is divided by a cumulative product and no logarithm is taken, so that the
result is as accurate as that of a loop, for factors of 0, too; the paper's scan in log space (its appendix B) needs positive
candidates. The gradient is a recurrence of the same kind, backwards in time.

Shapes: T time, first; the recurrence is elementwise in all other dimensions.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["scan", "sequential_scan"]


def scan(factors: Tensor, terms: Tensor, start: Tensor) -> Tensor:
    """Return h_1 to h_T of ``h_t = factors[t] * h_{t-1} + terms[t]``, where h_0 is ``start``.

    Args:
        factors: (T, ...), usually between 0 and 1.
        terms: (T, ...).
        start: (...).
    """
    states: Tensor = _Scan.apply(factors.contiguous(), terms.contiguous(), start.contiguous())
    return states


def sequential_scan(factors: Tensor, terms: Tensor, start: Tensor) -> Tensor:
    """Return the same, by the recurrence as it is written: for tests and for comparison."""
    states = []
    for factor, term in zip(factors.unbind(), terms.unbind(), strict=True):
        start = factor * start + term
        states.append(start)
    return torch.stack(states)


class _Scan(torch.autograd.Function):
    """With g the gradients of h, ``grad_terms[t] = g[t] + factors[t + 1] * grad_terms[t + 1]``: a scan from the end."""

    @staticmethod
    def forward(ctx: Any, factors: Tensor, terms: Tensor, start: Tensor) -> Tensor:
        states = _recur(factors, terms, start)
        ctx.save_for_backward(factors, start, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        factors, start, states = ctx.saved_tensors
        grad_states = grad_states.contiguous()
        later = torch.cat((factors[1:], torch.zeros_like(factors[:1])))  # the last state has no successor
        grad_terms = _recur(later.flip(0), grad_states.flip(0), torch.zeros_like(start)).flip(0)
        before = torch.cat((start[None], states[:-1]))
        return grad_terms * before, grad_terms, grad_terms[0] * factors[0]


def _recur(factors: Tensor, terms: Tensor, start: Tensor) -> Tensor:
    """Return the states (T, ...); the tensors are contiguous."""
    time = len(factors)
    size = max(1, math.isqrt(time))  # of a chunk
    whole = time // size * size
    states = torch.empty_like(terms)
    a, b, h = (tensor[:whole].unflatten(0, (-1, size)) for tensor in (factors, terms, states))  # (chunks, size, ...)
    product, total = a[:, 0].clone(), b[:, 0].clone()  # a chunk that starts with h ends with product * h + total
    for t in range(1, size):
        product *= a[:, t]
        total = torch.addcmul(b[:, t], a[:, t], total)
    before = torch.empty_like(total)  # the state before each chunk
    for chunk in range(len(before)):
        before[chunk] = start
        start = torch.addcmul(total[chunk], product[chunk], start)
    for t in range(size):
        before = torch.addcmul(b[:, t], a[:, t], before, out=h[:, t])
    for t in range(whole, time):  # the rest, shorter than a chunk
        start = torch.addcmul(terms[t], factors[t], start, out=states[t])
    return states
