"""Samples from a model's true distribution under a format.

A mask over the next token keeps the model's odds between the tokens that it allows, so beginnings
that are hard to complete come too often (Park et al. 2024, arXiv 2405.21047). For a model with few
states, the exact probabilities can be computed instead. Z[t, n, s] is the probability that a text
that is in state n of the model and in state s of the format is completed within t more tokens:

    Z[0, n, s] = 1 if a text may end in s, else 0
    Z[t, n, s] = P(end | n) [a text may end in s] + sum_u P(u | n) Z[t - 1, next(n, u), next(s, u)]

A token u is then sampled with the probability P(u | n) Z[t - 1, next(n, u), next(s, u)] /
Z[t, n, s].

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

_MAX_PAIRS = 10_000_000  # max number of states of the model times states of the format
_MAX_CELLS = 50_000_000  # max number of values of a table


class ExactTable:
    """The probabilities of all completions of a model under a format.

    Args:
        stepper: The model.
        automaton: The format.
        config: The settings of the call.
        bos, eos: The ids of the tokens at the beginning and at the end.

    Attributes:
        after: The state of the format after each token, (S, V).
        is_end: In which states of the format a text may end, (S,).
        next: The state of the model after each token, (N, V).
        eos: The id of the end token.
        values: The probabilities Z, (T + 1, N, S).

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
        scores = logits / config.temperatures[0]  # (N, V)
        scores[:, bos] = -np.inf
        probs = np.exp(scores - scores.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        end_probs = probs[:, eos].copy()
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
            for state in range(1, states):  # all but DEAD
                # (N, V): the probability of a completion after each token
                later = self.values[t - 1, self.next, self.after[state]]
                self.values[t, :, state] = (probs * later).sum(axis=1)
                self.values[t, :, state] += end_probs * self.is_end[state]


@dataclass
class ExactPosition:
    """The position of a text in an ``ExactTable``.

    Attributes:
        table: The table.
        start: How many tokens at the beginning of the text are not read: 0, as for all rules that
            also hold for the prompt.
        states: Pairs of a state of the model and a state of the format: the pair at the beginning,
            and the pair after each token.
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
        """Return, for each next token, the log probability (nats) that the model completes the text
        after it, within ``left`` tokens of which the next token is the first.
        """
        node, state = self.states[-1]
        table = self.table
        # a copy, because the indexes are arrays
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
        # the states of the new automaton are pairs of states, one of ``whole`` and one of ``other``
        pairs = [(FIRST, FIRST)]
        numbers = {(FIRST, FIRST): FIRST}
        rows = []
        for first, second in pairs:  # the loop adds new pairs to the list, and comes to them later
            after = list(zip(whole.next[first].tolist(), other.next[second].tolist(), strict=True))
            for pair in after:
                if DEAD not in pair and pair not in numbers:
                    numbers[pair] = len(numbers) + FIRST
                    pairs.append(pair)
            rows.append([numbers.get(pair, DEAD) for pair in after])
        vocab_size = whole.next.shape[1]
        table = np.array([[DEAD] * vocab_size, [HOLDS] * vocab_size, *rows], np.int32)
        ends = [whole.distance[a] + other.distance[b] == 0 for a, b in pairs]
        distance = distances(table, np.array([False, True, *ends]))
        whole = replace(whole, name=f"{whole.name}, {other.name}", next=table, distance=distance)
    return whole


def _explore(
    stepper: Stepper, vocab_size: int, bos: int, max_states: int
) -> tuple[Float64[np.ndarray, "N V"], Int64[np.ndarray, "N V"]]:
    """Find the states that the model can reach after bos. Return the logits in each state, and the
    index of the state that each token leads to. The state right after bos has the index 0.

    Raises:
        ConfigError: The state of the model is not a number, or there are more than ``max_states``
            states.
    """
    first_logits, state = stepper.forward(np.array([[bos]]), stepper.initial_state(1))
    if not isinstance(state, np.ndarray) or state.dtype.kind != "i" or state.ndim != 1:
        raise ConfigError(
            "exact needs a model with a finite number of states, such as an n-gram without"
            " conditions: leave exact out."
        )
    nodes = [int(state[0])]
    index_of = {nodes[0]: 0}
    logits = [first_logits[0, :vocab_size].astype(np.float64)]
    rows = list[np.ndarray]()
    tokens = np.arange(vocab_size)[:, None]
    for node in nodes:  # the loop adds new states to the list, and comes to them later
        # one step with every token at once, as a batch of texts that are all in the same state
        after_logits, after = stepper.forward(tokens, np.full(vocab_size, node, np.int64))
        for token, next_node in enumerate(after.tolist()):
            if next_node not in index_of:
                index_of[next_node] = len(index_of)
                nodes.append(next_node)
                logits.append(after_logits[token, :vocab_size].astype(np.float64))
        if len(index_of) > max_states or len(index_of) * vocab_size > _MAX_CELLS:
            raise ConfigError(
                f"exact takes up to {max_states:,} states of the model with this format; this model"
                " has more: take one of a lower order, or leave exact out."
            )
        rows.append(np.array([index_of[next_node] for next_node in after.tolist()]))
    return np.stack(logits), np.stack(rows)


def refuse_other_settings(config: GenerationConfig) -> None:
    """Check that no setting but the temperature changes the probabilities of the tokens.

    Raises:
        ConfigError: Another setting changes them.
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
