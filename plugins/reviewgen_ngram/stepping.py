"""The stepper of ``ngram``: inference from the arrays of a trained model, and a compiled loop that
samples tokens. Must not import torch.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int64

from reviewgen.compiled import by_address, compiled, inlined, inner
from reviewgen.compiled.decoding import CompiledStepper
from reviewgen.compiled.linear import add_up, log32
from reviewgen.compiled.sampling import NONE, SamplingParams, choose, compiled_constraints
from reviewgen.compiled.spelling import follows
from reviewgen.compiled.steps import CompiledStep
from reviewgen.compiled.windows import copies
from reviewgen.errors import DataError
from reviewgen.protocols import ArpaNgrams, Constraints, CountedContext, TensorSpec
from reviewgen_ngram.arpa import from_arpa, to_arpa
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.explain import explain
from reviewgen_ngram.fields import (
    AFTER,
    BELIEFS,
    CAP,
    CONTEXT,
    FIELDS,
    SIZE,
    STATE_SIZE,
    WRITTEN,
    step_with_fields,
    with_fields,
)
from reviewgen_ngram.trie import (
    Trained,
    advance,
    context_after,
    expect_arrays,
    family,
    fill_row,
    follow,
    log_probabilities,
    probability,
    read_arrays,
)

# max proposals for a token; if all are rejected, all probabilities are computed
PROPOSALS = 3
# the same at temperature 1 without a limit on copies, where only unknown words are rejected
UNTEMPERED_PROPOSALS = 8
# max random numbers for a token: one or two for each proposal, and one for ``choose``
MAX_NUMBERS = max(2 * PROPOSALS, UNTEMPERED_PROPOSALS) + 1


class NgramStepper(CompiledStepper):
    """The stepper of ``ngram``.

    The state is that of the model. Without fields it is int64 (B,), the node of each row's context;
    with fields it is int64 (B, S).

    An n-gram has no weight matrices, so ``weight_bits`` has no effect. A trained model in memory is
    used without checks.

    Raises:
        BundleError: The arrays are damaged or do not fit the config.
    """

    Config: ClassVar[type] = NgramConfig

    def __init__(
        self,
        config: NgramConfig,
        tensors: Mapping[str, np.ndarray] | Trained,
        weight_bits: int = 32,
    ) -> None:
        self.config = config
        self._trained = tensors if isinstance(tensors, Trained) else read_arrays(tensors, config)

    @classmethod
    def expect(cls, config: NgramConfig) -> Mapping[str, TensorSpec]:
        """Return the name, dtype and shape of every array of a model with this config."""
        return expect_arrays(config)

    def to_arpa(self) -> list[ArpaNgrams]:
        """Return the n-grams of each order; see ``reviewgen.protocols.SupportsArpa``."""
        return to_arpa(self._trained, self.config)

    @classmethod
    def from_arpa(
        cls, ngrams: Sequence[ArpaNgrams], vocab_size: int, bos_id: int
    ) -> tuple[NgramConfig, Mapping[str, np.ndarray]]:
        """Return the config and the tensors; see ``reviewgen.protocols.SupportsArpa``."""
        return from_arpa(ngrams, vocab_size, bos_id)

    def initial_state(self, batch_size: int) -> Int64[np.ndarray, "B *S"]:
        """Return the state before the first token of B texts."""
        return np.zeros((batch_size, STATE_SIZE) if self.config.field_ids else batch_size, np.int64)

    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: Int64[np.ndarray, "B *S"]
    ) -> tuple[Float32[np.ndarray, "B V"], Int64[np.ndarray, "B *S"]]:
        """Return the log probabilities after the last of T >= 1 tokens, and the state after this
        token.

        Raises:
            DataError: An id is outside the vocabulary, or the state is not one of this model.
        """
        if self.config.field_ids:
            return super().forward(checked_ids(ids, self.config), state)
        trie = self._trained.trie
        contexts = np.empty(ids.shape, np.int64)
        before = checked_state(state, self._trained)
        advance(trie, checked_ids(ids, self.config), before, contexts)
        last_contexts = contexts[:, -1].copy()
        logits = log_probabilities(trie, last_contexts, self.config.is_distribution)
        return logits.astype(np.float32), last_contexts

    def sample(
        self,
        state: Int64[np.ndarray, "B *S"],
        uniform: Float64[np.ndarray, "B N"],
        params: SamplingParams,
        texts: Int64[np.ndarray, "B K"],
        new_tokens: Int64[np.ndarray, " B"],
        constraints: Constraints | None = None,
    ) -> tuple[Int64[np.ndarray, "B N"], Int64[np.ndarray, " B"], Int64[np.ndarray, "B *S"]]:
        """Sample up to N tokens for each row, in one compiled loop.

        See ``reviewgen.protocols.SupportsSample``. If no setting but the temperature is used, a
        loop of this file samples by proposals, without computing all probabilities.

        Raises:
            DataError: The state is not one of this model.
        """
        if self.config.field_ids or not (params.is_plain and self.config.is_distribution):
            return super().sample(state, uniform, params, texts, new_tokens, constraints)
        contexts = checked_state(state, self._trained)
        tokens = np.full(uniform.shape, NONE, np.int64)
        used = np.zeros(len(uniform), np.int64)
        # ``run`` is the number of consecutive windows that make a copied span; 0 sets no limit
        windows, run, spelling, places = compiled_constraints(params, constraints, len(uniform))
        # a proposal at temperature 1 from the whole vocabulary is rejected only by a constraint
        is_untempered = (
            len(params.temperatures) == 1
            and params.temperatures[0] == 1
            and params.vocab_size >= self.config.vocab_size
        )
        proposals = UNTEMPERED_PROPOSALS if is_untempered and run == 0 else PROPOSALS
        padded = np.pad(texts, ((0, 0), (0, uniform.shape[1] + 1)))
        limits = params.max_new_tokens - new_tokens  # how many tokens each row may still get
        _sample(
            self._trained.trie,
            contexts,
            uniform,
            params,
            proposals,
            windows,
            run,
            spelling,
            places,
            padded,
            texts.shape[1],
            new_tokens,
            limits,
            tokens,
            used,
        )
        return tokens, used, contexts

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step that compiled loops call; see ``reviewgen.protocols.SupportsCompiledStep``."""
        if self.config.field_ids:
            return CompiledStep(step_with_fields, with_fields(self._trained, self.config))
        return CompiledStep(_step, self._trained.trie)

    def state_arrays(
        self, state: Int64[np.ndarray, "B *S"]
    ) -> tuple[Float32[np.ndarray, "0 B 0"], Int64[np.ndarray, "K B"]]:
        """Return a copy of a state in the form that the compiled step needs.

        The array of floats is empty, since the state has none. The array of integers has a column
        for each row of the batch: its context alone, or with fields all numbers of its state.

        Raises:
            DataError: The state is not one of this model.
        """
        checked = checked_state(state, self._trained)  # (B,); with fields (B, S)
        ints = np.ascontiguousarray(checked.T) if self.config.field_ids else checked[None]
        return np.empty((0, len(state), 0), np.float32), ints

    def state_of(
        self, floats: Float32[np.ndarray, "0 B 0"], ints: Int64[np.ndarray, "K B"]
    ) -> Int64[np.ndarray, "B *S"]:
        """Convert the arrays of ``state_arrays`` back to a state."""
        return np.ascontiguousarray(ints.T) if self.config.field_ids else ints[0].copy()

    def explain(self, ids: Int64[np.ndarray, " T"]) -> list[CountedContext]:
        """Return the contexts and counts behind the prediction after a text.

        See ``reviewgen.protocols.SupportsExplain``.

        Raises:
            DataError: An id is outside the vocabulary.
        """
        _, state = self.forward(ids[None], self.initial_state(1))
        return explain(self._trained, self.config, int(state.reshape(-1)[CONTEXT]), ids)


def checked_ids(ids: Int64[np.ndarray, "B T"], config: NgramConfig) -> Int64[np.ndarray, "B T"]:
    """Return ``ids`` if all of them are in the vocabulary.

    Raises:
        DataError: An id is outside the vocabulary.
    """
    if ids.size and (ids.min() < 0 or ids.max() >= config.vocab_size):
        raise DataError(
            f"Got ids {ids.min()}..{ids.max()}; this model accepts 0..{config.vocab_size - 1}."
        )
    return ids


def checked_state(state: Int64[np.ndarray, "B *S"], trained: Trained) -> Int64[np.ndarray, "B *S"]:
    """Return a copy of a state if its numbers are valid for a model.

    Raises:
        DataError: The state is not one of this model.
    """
    last = len(trained.trie.children) - 1  # the last context
    contexts = state if state.ndim == 1 else state[:, [CONTEXT, AFTER]]
    if contexts.size and (contexts.min() < 0 or contexts.max() > last):
        raise DataError(f"The state is not one of this model, which has the contexts 0..{last}.")
    if state.ndim > 1 and len(state):
        sizes = state[:, [SIZE, WRITTEN]]
        ids = state[:, FIELDS:BELIEFS]
        has_sizes = sizes.min() >= 0 and sizes.max() <= CAP
        if not has_sizes or ids.min() < 0 or ids.max() >= len(trained.trie.root):
            raise DataError(
                f"The state is not one of this model, which holds up to {CAP} ids of fields."
            )
    return state.copy()


@by_address
def _step(tries, ids, floats, ints, logits):
    """Feed a token to each text, and write the log probabilities after it.

    This is a step of ``reviewgen.compiled.steps``.

    Args:
        tries: A pointer to the model's trie, which is ``tries[0]``.
        ids: The token to feed to each text, as in ``reviewgen.compiled.steps``.
        floats: Not used.
        ints: The contexts, (1, B); updated.
        logits: The log probabilities, written. If it has no rows, only the contexts are updated.
    """
    trie = tries[0]
    probs = np.empty(len(trie.root))
    for row in range(len(ids)):
        ints[0, row] = follow(trie, ints[0, row], ids[row])
    for row in range(len(logits)):
        _write_logits(trie, ints[0, row], probs, logits[row])


@inner
def _write_logits(trie, context, probs, logits):
    """Write the log probabilities after a context; ``probs`` is scratch memory."""
    fill_row(trie, context, probs)
    scale = 1 / add_up(probs)
    for token in range(len(probs)):
        logits[token] = log32(np.float32(probs[token] * scale))


@compiled
def _sample(
    trie,
    contexts,
    uniform,
    params,
    proposals,
    windows,
    run,
    spelling,
    places,
    texts,
    start,
    new_tokens,
    limits,
    tokens,
    used,
):
    """Sample tokens for B rows, by rejection sampling.

    A row stops at its end token, at its last allowed token, at a failure, or when too few random
    numbers are left for another token.

    At temperatures up to 1, a token is proposed from the distribution at temperature 1 and accepted
    with probability p ** (1 / temperature - 1), where p is the probability of the token. This
    rejection sampling is exact (von Neumann 1951), and needs no other probability than p. If all
    proposals are rejected, the accepted one would complete a copied span, or the temperature is
    above 1, ``choose`` draws the token from the probabilities of all tokens.

    Args:
        trie: The trie of the model.
        contexts: int64 (B,), the state; updated.
        uniform: float64 (B, N), random numbers in [0, 1). A token takes at most MAX_NUMBERS.
        params: SamplingParams, in which only the temperatures and the ids are set.
        proposals: The maximum number of proposals for a token.
        windows: The token windows of the training text, as in ``choose``.
        run: How many consecutive windows make a copied span; 0 sets no limit on copies.
        spelling: The known words, as in ``choose``.
        places: int64 (B, 5), the place of each row in ``spelling``; updated.
        texts: int64 (B, start + N + 1), for the windows. The new tokens are written.
        start: The number of tokens that are already in each text.
        new_tokens: int64 (B,), the number of new tokens of each row before this call.
        limits: int64 (B,), the number of tokens that each row may still get.
        tokens: int64 (B, N), filled with NONE. The tokens of each row are written, up to the end
            token or the code of a failure.
        used: int64 (B,), zeros. The number of random numbers that each row has used is written.
    """
    trie_tokens, links, ends, bases, children, probabilities, backoffs, book, root, heads = trie
    live = np.ones(len(uniform), np.bool_)  # whether each row may get a further token
    sizes = np.zeros(len(uniform), np.int64)  # number of tokens that each row has got
    eos = params.eos_id
    logits = np.empty(len(trie.root), np.float32)
    scores = np.empty(len(trie.root))
    probs = np.empty(len(trie.root))
    # each round gives one token to each live row, for which it takes at least one random number
    for _ in range(uniform.shape[1]):
        for row in range(len(uniform)):
            if (
                not live[row]
                or used[row] + MAX_NUMBERS > uniform.shape[1]
                or sizes[row] >= limits[row]
            ):
                continue
            context = contexts[row]
            position = start + sizes[row]
            drawn = used[row]  # number of random numbers used
            count = new_tokens[row] + sizes[row]  # number of new tokens, also before this call
            token = np.int64(NONE)
            after = np.int64(-1)  # the context after the token
            completes_copy = False
            temperature = params.temperatures[count % len(params.temperatures)]
            place = (
                places[row, 0],
                places[row, 1],
                places[row, 2],
                places[row, 3],
                places[row, 4],
            )
            for _ in range(proposals if temperature <= 1 else 0):
                candidate, p, following = _propose(
                    trie_tokens,
                    links,
                    ends,
                    bases,
                    children,
                    probabilities,
                    backoffs,
                    book,
                    root,
                    heads,
                    context,
                    uniform[row, drawn],
                )
                drawn += 1 if temperature == 1 else 2
                is_accepted = temperature == 1 or uniform[row, drawn - 1] < np.float32(
                    p
                ) ** np.float32(1 / temperature - 1)
                is_accepted = (
                    is_accepted
                    and 0 <= candidate < params.vocab_size
                    and candidate != params.bos_id
                )
                # numba compiles this branch only if there is a spelling: None is a type of its own
                if spelling is not None and is_accepted:
                    is_accepted, place = follows(spelling, places[row], candidate, eos)
                if is_accepted:
                    token = candidate
                    after = following
                    break
            # an accepted proposal may complete a copied span
            if windows is not None and run > 0 and token >= 0 and token != eos:
                texts[row, position] = token
                completes_copy = copies(windows, texts[row], position, run)
            if token == NONE or completes_copy:
                _write_logits(trie, context, probs, logits)
                token = choose(
                    logits,
                    params,
                    texts[row],
                    position,
                    count,
                    uniform[row, drawn],
                    windows,
                    run,
                    spelling,
                    places[row],
                    scores,
                    probs,
                    completes_copy,
                )
                drawn += 1
                if token >= 0:
                    after = follow(trie, context, token)
            elif spelling is not None:
                for number in range(len(place)):
                    places[row, number] = place[number]
            used[row] = drawn
            tokens[row, sizes[row]] = token
            texts[row, position] = token
            live[row] = token >= 0 and token != eos
            if token >= 0:
                sizes[row] += 1
                contexts[row] = after


@inlined
def _propose(
    tokens,
    links,
    ends,
    bases,
    children,
    probabilities,
    backoffs,
    book,
    root,
    heads,
    context,
    uniform,
):
    """Draw a token after a context by inverse transform sampling, with the random number
    ``uniform``.

    The probabilities are subtracted from ``uniform`` until it is negative. The children of the
    longest context come first. Then, context by context, come the children of the next shorter
    context, except those tokens that are also children of the longer one.

    Returns:
        The token, its probability, and the context after it. If rounding errors leave no token, the
        token is NONE.
    """
    weight = 1.0
    # the range of the children of the next longer context; empty for the longest one
    low = 0
    high = 0
    while context != 0:
        start, stop = family(bases, children, context)
        passed = low  # the next child of the longer context to look for
        for child in range(start, stop):
            token = np.int64(tokens[child])
            while passed < high and tokens[passed] < token:
                passed += 1
            if passed < high and tokens[passed] == token:
                passed += 1
                continue
            mass = weight * probability(probabilities, book, child)
            uniform -= mass
            if uniform < 0:
                return (
                    token,
                    mass,
                    context_after(
                        tokens, links, ends, bases, children, heads, context, child, token
                    ),
                )
        weight *= backoffs[context]
        low = start
        high = stop
        context = np.int64(links[context])
    passed = low
    for token in range(len(root)):
        if passed < high and tokens[passed] == token:
            passed += 1
            continue
        mass = weight * root[token]
        uniform -= mass
        if uniform < 0:
            node = np.int64(heads[token])
            return (
                np.int64(token),
                mass,
                context_after(tokens, links, ends, bases, children, heads, context, node, token),
            )
    return np.int64(NONE), 0.0, np.int64(0)
