"""The scan on a CPU: compiled loops that read and write each number once. Must not import torch.

Shapes: T time, N numbers that have a recurrence each.
"""

from reviewgen.compiled import compiled, inner

__all__ = ["backward", "forward"]


@compiled
def forward(factors, terms, start, states):
    """Write the states (T, N) of ``scan``, given factors and terms (T, N) and the state before them
    (N,).
    """
    for t in range(len(terms)):
        before = start if t == 0 else states[t - 1]
        _advance(factors[t], terms[t], before, states[t])


@compiled
def backward(factors, start, states, grad_states, grad_factors, grad_terms, grad_start):
    """Write the gradients of factors, terms (T, N) and start (N,), given that of the states."""
    grad_start[:] = 0
    for t in range(len(states) - 1, -1, -1):
        before = start if t == 0 else states[t - 1]
        _retreat(factors[t], before, grad_states[t], grad_factors[t], grad_terms[t], grad_start)


@inner
def _advance(factors, terms, before, states):
    for j in range(len(states)):
        states[j] = factors[j] * before[j] + terms[j]


@inner
def _retreat(factors, before, grad_states, grad_factors, grad_terms, carried):
    for j in range(len(carried)):
        grad = grad_states[j] + carried[j]
        grad_terms[j] = grad
        grad_factors[j] = grad * before[j]
        carried[j] = grad * factors[j]
