"""Samples from a model's true distribution under a format.

A mask over the next token keeps the model's odds between the tokens that it allows, so beginnings
that are hard to complete come too often (Park et al. 2024, arXiv 2405.21047). For a model with few
states the probability of each completion can be computed instead, backwards over pairs of a state
of the model and a state of the format:

    Z[0, n, s] = 1 if a text may end in s, else 0
    Z[t, n, s] = P(end | n) [a text may end in s] + sum_u P(u | n) Z[t - 1, next(n, u), next(s, u)]

A token u is then sampled with P(u | n) Z[t - 1, next(n, u), next(s, u)] / Z[t, n, s].

Dimensions: N states of the model, S states of the format, V vocabulary, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from reviewgen.config.generation import GenerationConfig
from reviewgen.errors import ConfigError
from reviewgen.formats.automata import DEAD, FIRST, HOLDS, Automaton, distances
from reviewgen.protocols.stepper import Stepper

_MAX_PAIRS = 10_000_000  # states of the model times states of the format
_MAX_CELLS = 50_000_000  # maximum number of values of a table


class ExactTable:
    """The probabilities of all completions of a model under a format.

    Args:
        stepper: The model.
        automaton: The format.
        config: The settings of the call.
        bos, eos: The ids of the tokens at the beginning and at the end.

    Raises:
        ConfigError: The model has too many states.
    """

    def __init__(
        self, stepper: Stepper, automaton: Automaton, config: GenerationConfig, bos: int, eos: int
    ) -> None:
        self.after = automaton.next
        self.is_end = automaton.distance == 0
        states, size = self.after.shape
        logits, self.next = _explore(stepper, size, bos, _MAX_PAIRS // states)
        scores = logits / config.temperatures[0]
        scores[:, bos] = -np.inf
        probs = np.exp(scores - scores.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        ends = probs[:, eos].copy()
        probs[:, eos] = 0
        self.eos = eos
        if (config.max_new_tokens + 1) * len(probs) * states > _MAX_CELLS:
            raise ConfigError(
                f"exact needs too large a table for {len(probs):,} states of the model and"
                f" {config.max_new_tokens} tokens: lower max_new_tokens."
            )
        self.values = np.zeros((config.max_new_tokens + 1, len(probs), states))
        self.values[0] = self.is_end
        for t in range(1, len(self.values)):
            for state in range(1, states):
                later = self.values[t - 1, self.next, self.after[state]]  # (N, V)
                self.values[t, :, state] = (probs * later).sum(axis=1)
                self.values[t, :, state] += ends * self.is_end[state]


@dataclass
class ExactPosition:
    """The position of a text in an ``ExactTable``.

    Attributes:
        table: The table.
        start: How many tokens of the text it does not read: none.
        states: The state of the model and of the format, at the beginning and after each token.
    """

    table: ExactTable
    start: int = 0
    states: list[tuple[int, int]] = field(default_factory=lambda: [(0, FIRST)])

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return bool(self.table.is_end[self.states[-1][1]])

    def mask(self) -> Bool[np.ndarray, " V"]:
        """Return which tokens may follow."""
        allowed: np.ndarray = self.table.after[self.states[-1][1]] != DEAD
        return allowed

    def weights(self, left: int) -> Float64[np.ndarray, " V"]:
        """Return the log probability (nats) that the text can be completed after each next token,
        in ``left`` tokens with this one.
        """
        node, state = self.states[-1]
        table = self.table
        later = table.values[left - 1, table.next[node], table.after[state]]
        later[table.eos] = table.is_end[state]
        with np.errstate(divide="ignore"):
            weights: np.ndarray = np.log(later)
        return weights

    def advance(self, token: int) -> None:
        """Add a token."""
        node, state = self.states[-1]
        self.states.append((int(self.table.next[node, token]), int(self.table.after[state, token])))

    def take_back(self, count: int) -> None:
        """Remove the last tokens."""
        del self.states[len(self.states) - count :]

    def copy(self) -> "ExactPosition":
        """Return a copy, which can be advanced by itself."""
        return replace(self, states=list(self.states))


def product(automata: Sequence[Automaton]) -> Automaton:
    """Return the automaton of the texts that all automata accept."""
    whole = automata[0]
    for other in automata[1:]:
        pairs = [(FIRST, FIRST)]
        numbers = {(FIRST, FIRST): FIRST}
        rows = []
        for first, second in pairs:  # grows
            after = list(zip(whole.next[first].tolist(), other.next[second].tolist(), strict=True))
            for pair in after:
                if DEAD not in pair and pair not in numbers:
                    numbers[pair] = len(numbers) + FIRST
                    pairs.append(pair)
            rows.append([numbers.get(pair, DEAD) for pair in after])
        size = whole.next.shape[1]
        table = np.array([[DEAD] * size, [HOLDS] * size, *rows], np.int32)
        ends = [whole.distance[a] + other.distance[b] == 0 for a, b in pairs]
        distance = distances(table, np.array([False, True, *ends]))
        whole = replace(whole, name=f"{whole.name}, {other.name}", next=table, distance=distance)
    return whole


def _explore(
    stepper: Stepper, size: int, bos: int, most: int
) -> tuple[Float64[np.ndarray, "N V"], Int64[np.ndarray, "N V"]]:
    """Return the logits in each state that the model can reach after bos, the first state first;
    and the state after each token.

    Raises:
        ConfigError: The state of the model is not a number, or there are more than ``most``.
    """
    first_logits, state = stepper.forward(np.array([[bos]]), stepper.initial_state(1))
    if not isinstance(state, np.ndarray) or state.dtype.kind != "i" or state.ndim != 1:
        raise ConfigError(
            "exact needs a model with a finite number of states, such as an n-gram without"
            " conditions: leave exact out."
        )
    nodes = [int(state[0])]
    numbers = {nodes[0]: 0}
    logits = [first_logits[0, :size].astype(np.float64)]
    rows = list[np.ndarray]()
    tokens = np.arange(size)[:, None]
    for node in nodes:  # grows
        after_logits, after = stepper.forward(tokens, np.full(size, node, np.int64))
        for row, number in enumerate(after.tolist()):
            if number not in numbers:
                numbers[number] = len(numbers)
                nodes.append(number)
                logits.append(after_logits[row, :size].astype(np.float64))
        if len(numbers) > most or len(numbers) * size > _MAX_CELLS:
            raise ConfigError(
                f"exact takes up to {most:,} states of the model with this format; this model has"
                " more: take one of a lower order, or leave exact out."
            )
        rows.append(np.array([numbers[number] for number in after.tolist()]))
    return np.stack(logits), np.stack(rows)


def refuse_other_settings(config: GenerationConfig) -> None:
    """Check that only the temperature changes the probabilities of the tokens.

    Raises:
        ConfigError: Another setting does.
    """
    plain = GenerationConfig()
    names = "top_k top_p min_p repetition_penalty no_repeat_ngram_size words min_new_tokens"
    for name in names.split():
        if getattr(config, name) != getattr(plain, name):
            raise ConfigError(
                f"exact samples from the model's own distribution: set {name} to"
                f" {getattr(plain, name)!r}, or leave exact out."
            )
    if len(config.temperatures) > 1 or config.do_sample is False or config.num_beams > 1:
        raise ConfigError("exact samples at one temperature: leave out greedy, beams and cycles.")
