"""The recurrence ``h_t = a_t * h_{t-1} + b_t`` of a whole sequence, forward and backward.

On an accelerator, the sequence is cut into about sqrt(T) chunks, which are computed side by side:
first what each chunk multiplies a state by and adds to it, then the states at the chunks'
beginnings, one after another, then all states. That is about 3 sqrt(T) operations on large tensors
in place of T on small ones. On a CPU, memory is what takes time, and compiled ``loops`` read it
once.

Nothing is divided by a cumulative product and no logarithm is taken, so that the result is as
accurate as that of a loop, for factors of 0, too; the paper's scan in log space (its appendix B)
needs positive candidates. The gradient is a recurrence of the same kind, backwards in time.

Shapes: T time, first; N numbers that have a recurrence each.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reviewgen_mingru import loops

__all__ = ["recur_in_chunks", "scan", "sequential_scan"]


def scan(factors: Tensor, terms: Tensor, start: Tensor) -> Tensor:
    """Return h_1 to h_T of ``h_t = factors[t] * h_{t-1} + terms[t]``, where h_0 is ``start``.

    Args:
        factors: (T, ...), usually between 0 and 1.
        terms: (T, ...).
        start: (...).
    """
    if torch.compiler.is_exporting():
        # compiled loops are not operations that can be exported
        return sequential_scan(factors, terms, start)
    flat = factors.flatten(1).contiguous(), terms.flatten(1).contiguous(), start.flatten()
    states: Tensor = _Scan.apply(*flat)
    return states.view_as(terms)


def sequential_scan(factors: Tensor, terms: Tensor, start: Tensor) -> Tensor:
    """Return the same, by the recurrence as it is written: for tests and for comparison."""
    states = []
    for factor, term in zip(factors.unbind(), terms.unbind(), strict=True):
        start = factor * start + term
        states.append(start)
    return torch.stack(states)


class _Scan(torch.autograd.Function):
    """The scan of factors and terms (T, N), start (N,)."""

    @staticmethod
    def forward(ctx: Any, factors: Tensor, terms: Tensor, start: Tensor) -> Tensor:
        states = torch.empty_like(terms)
        if _uses_loops(terms):
            loops.forward(*(tensor.detach().numpy() for tensor in (factors, terms, start, states)))
        else:
            recur_in_chunks(factors, terms, start, states)
        ctx.save_for_backward(factors, start, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients: ``grad_terms[t] = grad_states[t] + factors[t + 1] * grad_terms[t +
        1]``, a scan from the end.
        """
        factors, start, states = ctx.saved_tensors
        grad_states = grad_states.contiguous()
        grad_terms = torch.empty_like(grad_states)
        grad_factors = torch.empty_like(factors)
        if _uses_loops(grad_states):
            grad_start = torch.empty_like(start)
            tensors = factors, start, states, grad_states, grad_factors, grad_terms, grad_start
            loops.backward(*(tensor.detach().numpy() for tensor in tensors))
            return grad_factors, grad_terms, grad_start
        grad_terms[-1] = grad_states[-1]
        recur_in_chunks(
            factors[1:], grad_states[:-1], grad_terms[-1], grad_terms[:-1], backwards=True
        )
        torch.mul(grad_terms[0], start, out=grad_factors[0])
        torch.mul(grad_terms[1:], states[:-1], out=grad_factors[1:])
        return grad_factors, grad_terms, grad_terms[0] * factors[0]


def _uses_loops(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def recur_in_chunks(
    factors: Tensor, terms: Tensor, start: Tensor, states: Tensor, backwards: bool = False
) -> None:
    """Write the states (T, N) that follow ``start``, (N,), in the order of time or against it."""
    time = len(terms)
    size = max(1, math.isqrt(time))  # of a chunk
    rest = time % size  # tokens that fill no chunk; they come last
    whole = slice(rest, None) if backwards else slice(time - rest)
    # (chunks, size, N)
    a, b, h = (tensor[whole].unflatten(0, (-1, size)) for tensor in (factors, terms, states))
    steps = range(size)
    chunks = range(len(a))
    others = range(time - rest, time)
    if backwards:
        steps = steps[::-1]
        chunks = chunks[::-1]
        others = range(rest)[::-1]
    # a chunk after h ends with product * h + total
    product = torch.ones_like(a[:, 0])
    total = torch.zeros_like(b[:, 0])
    for t in steps:
        product *= a[:, t]
        total = torch.addcmul(b[:, t], a[:, t], total)
    before = torch.empty_like(total)  # the state before each chunk
    for chunk in chunks:
        before[chunk] = start
        start = torch.addcmul(total[chunk], product[chunk], start)
    for t in steps:
        before = torch.addcmul(b[:, t], a[:, t], before, out=h[:, t])
    for t in others:
        start = torch.addcmul(terms[t], factors[t], start, out=states[t])
