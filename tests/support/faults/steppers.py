"""Correct steppers of ``models.Twin``, and for each law steppers that break it. Imports no torch,
as a plugin's must not.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["FAULTS", "Counting", "SamplingStepper", "Scaled", "TwinStepper", "V", "sampling"]

V = 11


class TwinStepper:
    """A correct stepper, and its factory."""

    def __init__(self, config, tensors, weight_bits=32):
        self.config = config
        self.tensors = tensors

    @classmethod
    def expect(cls, config):
        size = config.hidden_size
        vocabulary = config.vocab_size
        return {
            "embedding.weight": ("float32", (vocabulary, size)),
            "recurrent.weight": ("float32", (size, size)),
            "recurrent.bias": ("float32", (size,)),
            "output.weight": ("float32", (vocabulary, size)),
            "output.bias": ("float32", (None,)),
        }

    def initial_state(self, batch_size):
        return (np.zeros((batch_size, self.config.hidden_size), np.float32),)

    def forward(self, ids, state):
        h = state[0]
        for column in ids.T:
            recurrent = h @ self.tensors["recurrent.weight"].T + self.tensors["recurrent.bias"]
            h = np.tanh(recurrent + self.tensors["embedding.weight"][column])
        return self.score_all(h), (h,)

    def score_all(self, h):
        return h @ self.tensors["output.weight"].T + self.tensors["output.bias"]


class SamplingStepper(TwinStepper):
    """A correct stepper that also samples, with one random number for each token."""

    def sample(self, state, uniform, params, texts, new_tokens, constraints=None):
        rows, room = uniform.shape
        tokens = np.full((rows, room), -1)
        used = np.zeros(rows, np.int64)
        after = state[0].copy()
        for row in range(rows):
            h = after[row : row + 1]
            while used[row] < room and (
                used[row] == 0 or tokens[row, used[row] - 1] != params.eos_id
            ):
                logits = self.score_all(h)[0].astype(np.float64)
                logits[params.bos_id] = -np.inf
                if new_tokens[row] + used[row] < params.min_new_tokens:
                    logits[params.eos_id] = -np.inf
                sums = np.exp(logits - logits.max()).cumsum()
                drawn = np.searchsorted(sums, uniform[row, used[row]] * sums[-1], side="right")
                tokens[row, used[row]] = logits.argmax() if params.is_greedy else drawn
                _, (h,) = self.forward(tokens[row : row + 1, used[row] : used[row] + 1], (h,))
                used[row] += 1
            after[row] = h[0]
        return tokens, used, (after,)


class Counting(TwinStepper):
    """A correct stepper whose state also counts tokens; ``count`` is (B,)."""

    def initial_state(self, batch_size):
        return (*super().initial_state(batch_size), np.zeros(batch_size, np.int64))

    def forward(self, ids, state):
        logits, (h,) = super().forward(ids, state[:1])
        count = state[1] + ids.shape[1]
        return logits * self.factor(count)[:, None].astype(np.float32), (h, count)

    def factor(self, count):
        return np.ones(len(count))


def broken(base: type = TwinStepper, **members: Any) -> type:
    """Return a class that differs from a correct one in some members."""
    return type("Broken", (base,), {"__module__": __name__} | members)


def expecting(change: Callable[[dict[str, Any]], Any]) -> type:
    """Return a factory that expects other tensors."""
    return broken(expect=classmethod(lambda cls, config: change(TwinStepper.expect(config))))


def calling(change: Callable[..., Any], *more: Callable[[int], Any]) -> type:
    """Return a stepper with further arrays in its first state; ``change`` takes ids, state, logits
    and the state after them.
    """
    return broken(
        initial_state=lambda self, batch: (
            *TwinStepper.initial_state(self, batch),
            *(array(batch) for array in more),
        ),
        forward=lambda self, ids, state: change(
            ids, state, *TwinStepper.forward(self, ids, state[:1])
        ),
    )


def sampling(
    numbers: Any = np.asarray, params: Any = lambda params: params, tokens: Any = np.asarray
) -> type:
    """Return a stepper that samples with other random numbers or settings, or returns other
    tokens.
    """

    def sample(self, state, uniform, given, *others):
        sampled, used, state = SamplingStepper.sample(
            self, state, numbers(uniform), params(given), *others
        )
        return tokens(sampled), used, state

    return broken(SamplingStepper, sample=sample)


def keep_ids(ids, state, logits, after):
    return logits, (*after, np.concatenate((state[1], ids), axis=1))


class Recognising(TwinStepper):
    """Keeps the last ids, and gives them other logits."""

    last = np.zeros((0, 0))

    def forward(self, ids, state):
        is_known = ids.shape[1] > 1 and np.array_equal(ids, self.last)
        self.last = ids
        logits, state = super().forward(ids, state)
        return 1.01 * logits if is_known else logits, state


class Scaled(TwinStepper):
    def score_all(self, h):
        return 1.01 * super().score_all(h)


FAULTS: dict[str, list[tuple[Any, str]]] = {
    "stepper_protocol": [
        (
            broken(__init__=lambda self, config, tensors: tensors["output_bias"]),
            "KeyError: 'output_bias'",
        ),
        (broken(forward=None), "lacks forward of reviewgen.protocols.Stepper"),
    ],
    "expected_tensors": [
        (
            expecting(lambda specs: specs.pop("output.bias") and specs),
            "the model has ['embedding.weight', 'output.bias'",
        ),
        (
            expecting(lambda specs: specs | {"gate.weight": ("float32", (1,))}),
            "It names ['embedding.weight', 'gate.weight'",
        ),
    ],
    "batch_first": [
        (
            calling(lambda ids, state, logits, after: (logits, state), lambda _: np.zeros(7)),
            "B is 1; a part is array",
        ),
        (
            calling(lambda ids, state, logits, after: (logits[:, None], after)),
            "Logits are (1, 1, 11), not (B, V) = (1, 11)",
        ),
    ],
    "fixed_step_state": [
        (
            calling(keep_ids, lambda batch: np.zeros((batch, 0))),
            "After 1 tokens it has [((1, 8), dtype('float32')), ((1, 1)",
        ),
        (
            calling(lambda ids, state, logits, after: (logits, (after[0].astype(float),))),
            "dtype('float64'))]; it must have",
        ),
    ],
    "step_logits": [
        (Scaled, "In chunks of [12] tokens, logits (B, V) differ after 12 tokens"),
        (
            broken(
                forward=lambda m, ids, _: TwinStepper.forward(m, ids, m.initial_state(len(ids)))
            ),
            "In chunks of [1, 1,",
        ),
    ],
    "stacked": [
        (
            broken(Counting, factor=lambda _, count: count / count[:1]),
            "Texts of [1, 3, 7] tokens get different logits",
        )
    ],
    "drift": [
        (
            broken(Counting, factor=lambda _, count: 1 + 2e-6 * count),
            "After 500 calls of one token",
        ),
        (
            broken(Counting, factor=lambda _, count: np.ones(256)[count - 1]),
            "It fails at call 256 of 500: IndexError",
        ),
    ],
    "samples": [
        (sampling(params=lambda params: params._replace(is_greedy=False)), "greedy decoding"),
        (
            sampling(tokens=lambda tokens: np.where(np.arange(tokens.shape[1]) == 0, 1, tokens)),
            "nor eos (1) within 12 tokens",
        ),
    ],
    "no_step_trace": [(Recognising, "The logits of a text are different once it has been read")],
}
"""Of each law, by name, steppers that break it before any other, and words of the message."""
