"""The cache of an n-gram: after the words of a given field, such as a name, comes what follows them in the field.

    p(w | h, s) = (1 - a_m) p_ngram(w | h) + a_m p_cache(w | the last m tokens of h)

p_ngram does not see the fields s. p_cache is the share of w among the tokens of s that follow the longest suffix of the text h,
of m tokens, at most M, that any token of s follows; no suffix crosses the marker before a value. m = 0 is the share of w
among all tokens of s. Nothing is mixed in where no field is given or one is open, so ids of fields, bos and eos get no part.

The weights a_m are those under which some texts that are not counted are most probable, together with a few imaginary tokens:
the largest a posteriori probability under a Beta prior.

Sources: Kuhn & De Mori 1990, "A cache-based natural language model for speech recognition" (the mixture with what a text
contains itself); Grave, Joulin & Usunier 2017, "Improving neural language models with a continuous cache" (what followed
similar contexts); Jelinek & Mercer 1980, "Interpolated estimation of Markov source parameters from sparse data" (weights from
texts that are not counted). Must not import torch.

B batch, T time (tokens), V ids, S numbers of a state, M + 1 weights.
"""

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Integer

from reviewgen.compiled import by_address, compiled, inner
from reviewgen.compiled.linear import add_up, log32
from reviewgen.protocols import CountGroup
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.trie import LONGEST, Trained, Trie, fill_row, follow, probability_after

ROOM = 256  # ids of fields that a state holds; later ones are dropped
CONTEXT, IS_OPEN, SIZE, RECENT = 0, 1, 2, 3  # of a state: the n-gram's, whether a field is open, ids of fields, last tokens
FIELDS = RECENT + LONGEST  # where the ids of fields begin
STATE_SIZE = FIELDS + ROOM

HELD_OUT = 20  # one text in so many
MAX_HELD_OUT, MAX_HELD_OUT_TOKENS = 512, 4096  # texts, and the tokens of one
PRIOR_SHARE, PRIOR_TOKENS = 0.1, 10.0  # of imaginary tokens that come from the cache, and their number
HALVINGS = 50  # of the interval of a weight
LARGEST = np.iinfo(np.int64).max


class Cache(NamedTuple):
    """What a model knows about fields.

    Attributes:
        weights: The weight a_m of the cache after a suffix of m tokens.
        bos_id: The id that begins every text.
        marker: The first id of fields; the last id of the vocabulary closes them, the others open one each.
    """

    weights: Float64[np.ndarray, " W"]
    bos_id: int
    marker: int


class Cached(NamedTuple):
    """An n-gram with a cache."""

    trie: Trie
    cache: Cache


def with_cache(trained: Trained, config: NgramConfig) -> Cached:
    """Return a trained model with its cache; without weights, as long as they are not fitted."""
    weights = np.zeros(LONGEST + 1) if trained.cache_weights is None else trained.cache_weights
    return Cached(trained.trie, Cache(weights, trained.bos_id, config.vocab_size - config.field_ids))


def without_fields(ids: Integer[np.ndarray, " T"], config: NgramConfig) -> Integer[np.ndarray, " T"]:
    """Return the ids of texts, which begin with bos, without their fields."""
    marker, begin = config.vocab_size - config.field_ids, config.vocab_size - 1
    closes = (ids == ids[0]) | (ids == begin)
    last = np.maximum.accumulate(np.where(closes | (ids >= marker), np.arange(len(ids)), 0))  # where a field was opened or closed
    kept: np.ndarray = ids[closes[last] & (ids != begin)]
    return kept


@inner
def read(trie, cache, state, token):
    """Update a state, (S,), with the next id of a text."""
    begin = len(trie.root) - 1
    if token == begin or token == cache.bos_id:
        state[IS_OPEN] = 0
    elif token >= cache.marker:
        state[IS_OPEN] = 1
    if token == begin:
        return
    if token == cache.bos_id:
        state[SIZE] = 0
    if state[IS_OPEN]:
        if state[SIZE] < ROOM:
            state[FIELDS + state[SIZE]] = token
            state[SIZE] += 1
        return
    for at in range(LONGEST - 1, 0, -1):
        state[RECENT + at] = state[RECENT + at - 1]
    state[RECENT] = token
    state[CONTEXT] = follow(trie, state[CONTEXT], token)


@inner
def _suffix_before(cache, state, at):
    """Return how many of the last tokens of a text stand before an id of fields, at most M; -1 if it is a marker."""
    if state[FIELDS + at] >= cache.marker:
        return -1
    length = 0
    while length < min(at, LONGEST) and state[FIELDS + at - 1 - length] == state[RECENT + length]:
        length += 1
    return length


@inner
def _longest_suffix(cache, state):
    """Return the length of the longest suffix of a text that tokens of fields follow, and their number; -1 and 0 if there is none.

    bos, which is in no field, ends every suffix; so what is left of the text before is not matched.
    """
    longest, places = -1, 0
    if state[IS_OPEN]:
        return longest, places
    for at in range(state[SIZE]):
        length = _suffix_before(cache, state, at)
        if length > longest:
            longest, places = length, 0
        if length >= 0 and length == longest:
            places += 1
    return longest, places


@inner
def _mix(cache, state, row):
    """Mix the cache into the probabilities of a state, (V,)."""
    longest, places = _longest_suffix(cache, state)
    if places == 0:
        return
    weight = cache.weights[longest]
    for token in range(len(row)):
        row[token] *= 1 - weight
    for at in range(state[SIZE]):
        if _suffix_before(cache, state, at) == longest:
            row[state[FIELDS + at]] += weight / places


@compiled
def fill_rows(model, ids, states, is_distribution, rows):
    """Write the probability of every id after each of ids (B, T) to ``rows``, float64 (B, T, V), and update ``states`` (S, B)."""
    trie, cache = model
    for b in range(ids.shape[0]):
        for t in range(ids.shape[1]):
            read(trie, cache, states[:, b], ids[b, t])
            fill_row(trie, states[CONTEXT, b], rows[b, t])
            if not is_distribution:
                rows[b, t] /= add_up(rows[b, t])
            _mix(cache, states[:, b], rows[b, t])


@compiled
def _score(model, ids, targets, states, lengths, ngram, cached):
    """Write both probabilities of targets (B, T) after ids (B, T), and the lengths of suffixes; update ``states`` (S, B)."""
    trie, cache = model
    for b in range(ids.shape[0]):
        for t in range(ids.shape[1]):
            state, target, hits = states[:, b], np.int64(targets[b, t]), 0
            read(trie, cache, state, ids[b, t])
            longest, places = _longest_suffix(cache, state)
            for at in range(state[SIZE]):
                if places > 0 and state[FIELDS + at] == target and _suffix_before(cache, state, at) == longest:
                    hits += 1
            lengths[b, t] = longest
            ngram[b, t] = probability_after(trie, state[CONTEXT], target)
            cached[b, t] = hits / max(places, 1)


def score_with_cache(
    model: Cached, ids: Int64[np.ndarray, "B T"], targets: Int64[np.ndarray, "B T"], states: Int64[np.ndarray, "S B"]
) -> Float64[np.ndarray, "B T"]:
    """Return p(targets[b, t] | ids[b, :t + 1]), and update the states to the end of ids."""
    lengths, ngram, cached = _parts(model, ids, targets, states)
    weights = np.append(model.cache.weights, 0.0)[lengths]  # of -1: nothing is mixed in
    return (1 - weights) * ngram + weights * cached


def _parts(
    model: Cached, ids: Int64[np.ndarray, "B T"], targets: Int64[np.ndarray, "B T"], states: Int64[np.ndarray, "S B"]
) -> tuple[Int64[np.ndarray, "B T"], Float64[np.ndarray, "B T"], Float64[np.ndarray, "B T"]]:
    """Return the lengths of suffixes, and the probabilities of the n-gram and of the cache."""
    lengths, ngram, cached = np.empty(ids.shape, np.int64), np.empty(ids.shape), np.empty(ids.shape)
    _score(model, ids, targets, states, lengths, ngram, cached)
    return lengths, ngram, cached


@by_address
def step_with_cache(model, ids, floats, ints, logits):
    """Feed a token to each text, and write the log probabilities after it; see ``reviewgen.compiled.steps``.

    Args:
        model: The address of the n-gram with its cache.
        ids: As there.
        floats: Not used.
        ints: The states.
        logits: As there; without rows, only the states are updated.
    """
    trie, cache = model[0]
    probs = np.empty(len(trie.root))
    for row in range(len(ids)):
        read(trie, cache, ints[:, row], ids[row])
    for row in range(len(logits)):
        fill_row(trie, ints[CONTEXT, row], probs)
        probs /= add_up(probs)
        _mix(cache, ints[:, row], probs)
        for token in range(len(probs)):
            logits[row, token] = log32(np.float32(probs[token]))


class HeldOut:
    """The texts with fields that set the weights and are not counted: one in twenty, at most 512, chosen by their digests.

    So the same ones are held out in any order of the texts and any number of processes, and copies of one text together.
    """

    def __init__(self) -> None:
        self._texts: dict[int, list[np.ndarray]] = {}  # the copies of each, by digest

    def add(self, ids: Integer[np.ndarray, " T"]) -> list[Integer[np.ndarray, " T"]]:
        """Hold out a text if it is one of those; return the texts that are to be counted after all."""
        ids = ids.astype(np.int64)
        digest = _digest(ids)
        if digest % HELD_OUT or len(ids) > MAX_HELD_OUT_TOKENS:
            return [ids]
        self._texts.setdefault(digest, []).append(ids)
        return self._texts.pop(max(self._texts)) if len(self._texts) > MAX_HELD_OUT else []

    def settle(self, has_counted: bool, group: CountGroup) -> tuple[list[Int64[np.ndarray, " T"]], list[Int64[np.ndarray, " T"]]]:
        """Return the texts that this process must still count, and, in rank 0, those that set the weights.

        All processes call it once, with whether they have counted a text: if none has, none is held out.
        """
        own = np.full(MAX_HELD_OUT + 1, LARGEST)
        own[: len(self._texts)], own[-1] = sorted(self._texts), has_counted
        gathered = group.all_gather(own)
        kept = set(np.unique(gathered[:, :-1])[:MAX_HELD_OUT].tolist() if gathered[:, -1].any() else ())
        counted = [ids for digest, copies in self._texts.items() if digest not in kept for ids in copies]
        sent = [copies[0] for digest, copies in self._texts.items() if digest in kept]
        nothing = np.empty(0, np.int64)
        parts = [np.concatenate([nothing, *sent]), *[nothing] * (group.world_size - 1)]
        received = np.concatenate(group.all_to_all(parts))
        starts = np.flatnonzero(received == received[0])[1:] if len(received) else nothing
        texts = {_digest(ids): ids for ids in np.split(received, starts)}
        return counted, [ids for _, ids in sorted(texts.items()) if len(ids)]


def _digest(ids: Int64[np.ndarray, " T"]) -> int:
    return int.from_bytes(blake2b(ids.tobytes(), digest_size=7).digest(), "little")


def fit_weights(model: Cached, texts: list[Int64[np.ndarray, " T"]]) -> Float64[np.ndarray, " W"]:
    """Return the weights under which texts are most probable, with ``PRIOR_TOKENS`` for each length of suffix.

    The logarithm of that probability is concave in each weight: its slope is zero at the best one, which is found by halving.
    """
    parts = [
        [part[0] for part in _parts(model, ids[None, :-1], ids[None, 1:], np.zeros((STATE_SIZE, 1), np.int64))] for ids in texts
    ]
    lengths, ngram, cached = (np.concatenate([np.empty(0), *each]) for each in (zip(*parts, strict=True) if parts else [()] * 3))
    weights = np.empty(LONGEST + 1)
    for length in range(LONGEST + 1):
        is_here = (lengths == length) & (ngram + cached > 0)
        p, q = ngram[is_here], cached[is_here]
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            weight = (low + high) / 2
            slope = ((q - p) / ((1 - weight) * p + weight * q)).sum()
            slope += PRIOR_TOKENS * (PRIOR_SHARE / weight - (1 - PRIOR_SHARE) / (1 - weight))
            low, high = (weight, high) if slope > 0 else (low, weight)
        weights[length] = (low + high) / 2
    return weights
