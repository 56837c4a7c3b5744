"""Two small models for blends whose last model mixes the others: one that can mix an expert in, and
one that knows what the first cannot see.

Shapes: B batch, T time, V vocabulary.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from reviewgen.compiled import CompiledStep, CompiledStepper, by_address, feed

State: TypeAlias = Any
SCALES = [*product((0.5, 0.75, 1.0, 1.25), (0.25, 0.5, 0.75, 1.0))]
WEB_STEPPER = """
export default function createStepper(name, config, tensors) {
  const size = config.vocab_size;
  const { tables: { data: tables }, scales: { data: scales } } = tensors;
  function forward(ids, state, expert) {
    const [before, last] = [...state.history, ...ids].slice(-2);
    const trust = 0.75 * state.trust + 0.25 * (state.probs ? state.probs[last] : 1);
    const logits = Float64Array.from({ length: size }, (_, id) => {
      const own = tables[last * size + id] + tables[(size + 1 + before) * size + id];
      return config.expert ? scales[0] * (0.5 + trust) * expert[id] + scales[1] * own : own;
    });
    const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
    const next = { history: [before, last], trust, probs: config.expert && expert.map(Math.exp) };
    return { logits: logits.map((logit) => logit - total), state: next };
  }
  return { initialState: () => ({ history: [size, size], trust: 1 }), forward };
}
"""
KINDS = 4  # values of each of the two halves of a token


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """The settings of ``Pairs``."""

    vocab_size: int
    expert: bool = False


class Pairs(nn.Module):
    """Counts which token follows the last token, and the one before it; adds up the logs of both
    probabilities. With an expert: softmax(a * (0.5 + trust) * expert + b * own), where the trust
    is a moving average of the probabilities that the expert gave to the tokens of the text.

    The state: the last two ids (B, 2), the trust (B,), and the expert's last distribution (B, V),
    which is 1 before the text.
    """

    Config = PairsConfig
    tables: Tensor  # (2, V+1, V); the id V is before the text
    scales: Tensor  # a and b

    def __init__(self, config: PairsConfig) -> None:
        super().__init__()
        self.config = config
        size = config.vocab_size
        self.register_buffer("tables", torch.full((2, size + 1, size), 0.1))
        self.register_buffer("scales", torch.ones(2))

    def observe(self, ids: np.ndarray) -> None:
        padded = np.concatenate(([self.config.vocab_size], ids))
        np.add.at(self.tables[0].numpy(), (padded[1:-1], padded[2:]), 1)
        np.add.at(self.tables[1].numpy(), (padded[:-2], padded[2:]), 1)

    def finish(self) -> Mapping[str, Any]:
        self.tables = (self.tables / self.tables.sum(-1, keepdim=True)).log()
        return {}

    def initial_state(self, batch_size: int) -> State:
        size = self.config.vocab_size
        history = torch.full((batch_size, 2), size)
        return history, torch.ones(batch_size), torch.ones(batch_size, size)

    def forward(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        history = torch.cat((state[0], ids), dim=1)
        own = self.tables[0][history[:, 2:]] + self.tables[1][history[:, 1:-1]]
        return own.log_softmax(-1), (history[:, -2:].clone(), *state[1:])

    def call_with_expert(self, ids: Tensor, expert: Tensor, state: State) -> tuple[Tensor, State]:
        own, (history, trust, last) = self(ids, state)
        probs = torch.cat((last[:, None], expert.exp()), dim=1)  # (B, 1+T, V)
        trusts = []
        for hits in probs[:, :-1].gather(-1, ids[..., None])[..., 0].T:
            trust = 0.75 * trust + 0.25 * hits
            trusts.append(trust)
        factors = 0.5 + torch.stack(trusts, dim=1)[..., None]  # (B, T, 1)
        a, b = self.scales
        logits = (a * factors * expert + b * own).log_softmax(-1)
        return logits, (history, trust, probs[:, -1].clone())

    def score_with_expert(
        self, ids: Tensor, targets: Tensor, expert: Tensor, state: State
    ) -> tuple[Tensor, State]:
        logits, state = self.call_with_expert(ids, expert, state)
        return logits.gather(-1, targets[..., None])[..., 0], state

    def fit_expert(self, texts: Iterable[tuple[np.ndarray, np.ndarray]]) -> "Pairs":
        fitted = type(self)(replace(self.config, expert=True))
        fitted.tables = self.tables
        totals = np.zeros(len(SCALES))
        for text, log_probs in texts:
            ids = torch.from_numpy(text)[None]
            expert = torch.from_numpy(log_probs)[None]
            for number, scales in enumerate(SCALES):
                fitted.scales = torch.tensor(scales)
                logits, _ = fitted.call_with_expert(ids, expert, self.initial_state(1))
                scores = logits[:, :-1].gather(-1, ids[:, 1:, None])
                totals[number] += scores.clamp(min=-50).sum()
        fitted.scales = torch.tensor(SCALES[totals.argmax()])
        return fitted.eval()

    def stepper(self, weight_bits: int = 32) -> "PairsStepper":
        tensors = {name: tensor.numpy() for name, tensor in self.state_dict().items()}
        return PairsStepper(self.config, tensors)


class Weights(NamedTuple):
    """The weights of ``Pairs`` for the compiled step."""

    tables: np.ndarray
    scales: np.ndarray
    has_expert: int


@by_address
def pairs_step(weights, ids, floats, ints, logits):
    """Step ``Pairs``; see ``reviewgen.compiled.steps``."""
    model = weights[0]
    size = model.tables.shape[2]
    for row in range(len(ids)):
        ints[0, row] = ints[1, row]
        ints[1, row] = ids[row]
        if model.has_expert:
            state = floats[0, row]  # the trust, and the expert's last distribution
            state[0] = 0.75 * state[0] + 0.25 * state[1 + ids[row]]
            probs = np.exp(logits[row, :size])
            state[1 : 1 + size] = probs / probs.sum()
    for row in range(len(logits)):
        own = model.tables[0, ints[1, row]] + model.tables[1, ints[0, row]]
        if model.has_expert:
            factor = model.scales[0] * (np.float32(0.5) + floats[0, row, 0])
            own = model.scales[1] * own + factor * logits[row, :size]
        largest = own.max()
        total = np.log(np.exp(own - largest).sum()) + largest
        for token in range(size):
            logits[row, token] = own[token] - total


class PairsStepper(CompiledStepper):
    """The stepper of ``Pairs``."""

    Config = PairsConfig

    def __init__(self, config: Any, tensors: Mapping[str, np.ndarray], weight_bits: int = 32):
        self.config = config
        self._weights = Weights(
            tensors["tables"].copy(), tensors["scales"].copy(), int(config.expert)
        )

    @staticmethod
    def expect(config: PairsConfig) -> dict[str, Any]:
        size = config.vocab_size
        return {"tables": ("float32", (2, size + 1, size)), "scales": ("float32", (2,))}

    @cached_property
    def compiled_step(self) -> CompiledStep:
        return CompiledStep(pairs_step, self._weights)

    def initial_state(self, batch_size: int) -> State:
        size = self.config.vocab_size
        trusts_and_probs = np.ones((batch_size, 1 + size), np.float32)
        return np.full((batch_size, 2), size), trusts_and_probs

    def forward_with_expert(self, ids: Any, expert: Any, state: Any) -> tuple[np.ndarray, Any]:
        return feed(self, self.config.vocab_size, ids, state, expert)

    def state_arrays(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        history, trusts_and_probs = state
        return trusts_and_probs[None].copy(), np.array(history.T, order="C")

    def state_of(self, floats: np.ndarray, ints: np.ndarray) -> State:
        return np.ascontiguousarray(ints.T), floats[0].copy()


class Thirds(nn.Module):
    """Knows the first half of each token of ``halves`` from the token three before; the second half
    is uniform, for it.
    """

    Config = PairsConfig

    def __init__(self, config: PairsConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("gain", torch.tensor(4.0))

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 2, dtype=torch.int64)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        history = torch.cat((state, ids), dim=1)
        first = (torch.arange(self.config.vocab_size) - 2) // KINDS  # (V,)
        expected = ((history[:, :-2] - 2) // KINDS + 1) % KINDS  # (B, T)
        return self.gain * (first == expected[..., None]), history[:, -2:].clone()


def halves(number: int, seed: int) -> list[np.ndarray]:
    """Return texts of ids 2 to 17 between bos, 0, and eos, 1: two independent halves. The first
    half follows from the one three before it, the second from the last one.
    """
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(number):
        first = [*rng.integers(KINDS, size=3)]
        second = [rng.integers(KINDS)]
        for _ in range(30):
            first.append((first[-3] + 1) % KINDS if rng.random() < 0.9 else rng.integers(KINDS))
            second.append((second[-1] + 1) % KINDS if rng.random() < 0.9 else rng.integers(KINDS))
        tokens = 2 + KINDS * np.array(first[:30]) + np.array(second[:30])
        texts.append(np.concatenate(([0], tokens, [1])).astype(np.int64))
    return texts


def count_pairs(texts: Iterable[np.ndarray], vocab_size: int) -> Pairs:
    """Return a ``Pairs`` that has counted texts."""
    model = Pairs(PairsConfig(vocab_size=vocab_size))
    for text in texts:
        model.observe(text)
    model.finish()
    return model.eval()
