"""Sampling one token from logits: penalties, temperature, top-k, top-p, min-p, then one draw.

Each setting means what it means in transformers, and the settings are applied in the order of
transformers. Knows neither a model nor a tokenizer.

    choose              all of this; draws another token if the first one would complete a copied
                        span or an unknown word
    sample_rows         ``choose`` for each row of a batch
    apply_penalties     applies the repetition penalty, and rules out repeated n-grams, and the end
                        before ``min_new_tokens``
    apply_temperature   turns scores into unnormalised probabilities
    filter_probs        applies the filters that are on
    sample_from         applies the filters, then draws a token
    draw_allowed        draws a token; draws again if it would make an unknown word
    draw_token          draws a token

A token is drawn by an exponential race. Each token gets a random number x of its own, a hash of the
draw's number and of the token's id, and from x an exponential arrival time, -log(1 - x) / p. The
first token to arrive wins; a token with probability p is the first with probability p (the
Gumbel-max trick; Maddison et al. 2014). So slightly different probabilities nearly always give the
same token. Inverse transform sampling would do for one machine. But if another machine rounds the
probabilities differently, each border of the cumulative sum moves, and with 8,000 tokens a hundred
times as many draws change.

If some tokens are ruled out, the next token to arrive is a fair draw among the others. So one
random number is enough for a token. This does not hold if the filters then admit tokens that were
not in the race: these would arrive too early. In this case all tokens race again, with
``another_number``. The race's arithmetic has 32 bits, and is exact in numba, in Python and in
JavaScript (``web/static/sampling.js``).

Shapes: B rows, V vocabulary, T tokens of a text, K temperatures.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from reviewgen.compiled.jit import compiled, inner
from reviewgen.compiled.spelling import Spelling, follows, no_places, rule_out_misspelled
from reviewgen.compiled.windows import NO_WINDOWS, WindowSet, copies, forbid

NONE = -1
DEAD_END = -2
NOTHING_LEFT = -3
NOT_A_NUMBER = -4
"""Codes in place of a token. NONE: the row has ended. DEAD_END: every token that is left is
forbidden. NOTHING_LEFT: every token has probability zero. NOT_A_NUMBER: a logit is NaN or plus
infinity.
"""

# max number of times that a token which may not follow is drawn again, before all such tokens are
# ruled out at once
MAX_REDRAWS = 8
MASK = 0xFFFFFFFF  # 32 bits
GOLDEN = 0x9E3779B9  # 2 ** 32 divided by the golden ratio; spreads ids that are close


class SamplingParams(NamedTuple):
    """The sampling settings of one call. Compiled functions take this tuple as it is, so each field
    must have exactly the declared type.
    """

    temperatures: Float64[np.ndarray, " K"]  # new token t is sampled at temperatures[t % K]
    top_k: int  # 0 is off
    top_p: float  # 1 is off
    min_p: float  # 0 is off
    repetition_penalty: float  # 1 is off
    no_repeat_ngram_size: int  # 0 is off
    min_new_tokens: int
    max_new_tokens: int
    is_greedy: bool  # take the most probable token; if several are, the one with the smallest id
    eos_id: int
    bos_id: int  # never sampled
    vocab_size: int  # ids from here on, such as those of conditions, are never sampled

    @property
    def looks_back(self) -> bool:
        """Whether a penalty makes a token's probability depend on the tokens before it."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram_size > 0

    @property
    def has_filter(self) -> bool:
        """Whether a filter leaves tokens out."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @property
    def is_plain(self) -> bool:
        """Whether all settings but the temperature are off."""
        return not (self.has_filter or self.looks_back or self.is_greedy or self.min_new_tokens > 0)


class Constraints(NamedTuple):
    """What the texts of a call must not contain.

    Attributes:
        windows, run: A span of the training text is copied if ``run`` windows of tokens in
            succession are all in ``windows``; see ``copies``. Without a limit, None and 0.
        spelling: The known words and characters, which texts must consist of; None allows any.
        places: int64 (B, 5), the place of each text in ``spelling``, that is, the state of its
            automaton after the text; updated while sampling.
    """

    windows: WindowSet | None
    run: int
    spelling: Spelling | None
    places: Int64[np.ndarray, "B 5"]


def compiled_constraints(
    params: SamplingParams, constraints: Constraints | None, count: int
) -> tuple[WindowSet | None, int, Spelling | None, Int64[np.ndarray, "B 5"]]:
    """Return the constraints of ``count`` texts as the compiled functions take them.

    The windows are None only if no setting but the temperature is in use. numba treats None as a
    type of its own, and does not compile the branches that need windows then. So the code for
    penalties, filters and the copy limit is compiled only when a call first uses one of them. A
    spelling that is None has the same effect on the code that checks words.
    """
    windows, run, spelling, places = constraints or (None, 0, None, no_places(count))
    if windows is None and not params.is_plain:
        windows = NO_WINDOWS  # not None, so that penalties and filters are compiled
    return windows, run, spelling, places


@inner
def choose(
    logits,
    params,
    text,
    size,
    new_tokens,
    uniform,
    windows,
    run,
    spelling,
    place,
    scores,
    probs,
    drew_copy,
):
    """Return the token after ``text[:size]``, or DEAD_END, NOTHING_LEFT or NOT_A_NUMBER.

    Args:
        logits: float (V,).
        params: SamplingParams.
        text: int64, at least size + 1 long; ``text[size:]`` may be overwritten.
        size: Number of tokens in the text.
        new_tokens: How many of these tokens are new.
        uniform: A random number in [0, 1).
        windows, run: The copy limit, as in ``Constraints``. If run is 0, there is no limit. If
            windows is None, the temperature is the only setting in use, and no code for the others
            is compiled; see ``compiled_constraints``.
        spelling, place: The words that the text may contain, and the place of the text in this
            automaton, int64 (5,); the place is updated. A spelling of None allows any text.
        scores, probs: float64 (V,), scratch memory.
        drew_copy: Whether the caller has already drawn a token that would complete a copied span.
            If so, a token is chosen in place of that one.
    """
    eos = params.eos_id
    temperature = params.temperatures[new_tokens % len(params.temperatures)]
    if windows is None:
        largest = _write_scores(logits, params.bos_id, params.vocab_size, scores)
    else:
        largest = apply_penalties(logits, text, size, new_tokens, params, scores)
    if not -np.inf < largest < np.inf:
        return np.int64(NOTHING_LEFT if largest == -np.inf else NOT_A_NUMBER)
    # the first draw, unless the caller has made it
    token = np.int64(NONE)
    is_copy = drew_copy
    if not drew_copy:
        _weigh(windows, scores, largest, temperature, params, probs)
        token = draw_allowed(probs, spelling, place, eos, uniform)
    if windows is not None and run > 0 and token >= 0 and token != eos:
        text[size] = token
        is_copy = copies(windows, text, size, run)
    # the first draw gave no token, or one that completes a copied span: rule out all tokens that
    # are not allowed, and draw again
    if token == NONE or is_copy:
        if windows is not None and run > 0:
            _rule_out_copies(windows, text, size, run, eos, is_copy, largest, scores, probs)
        if spelling is not None:
            rule_out_misspelled(spelling, place, eos, scores, -np.inf)
        largest = _largest_score(scores)
        if largest == -np.inf:
            return np.int64(DEAD_END)
        _weigh(windows, scores, largest, temperature, params, probs)
        token = np.int64(draw_token(probs, another_number(uniform)))
    if spelling is not None:
        place[0], place[1], place[2], place[3], place[4] = follows(spelling, place, token, eos)[1]
    return token


@inner
def _weigh(windows, scores, largest, temperature, params, probs):
    """Write to ``probs`` the unnormalised probabilities after temperature and filters. If greedy,
    the most probable token gets all of the probability.

    ``windows`` is not read: if it is None, the temperature is the only setting in use, and numba
    compiles nothing for the others.
    """
    if windows is not None and params.is_greedy:
        probs[:] = 0.0
        probs[np.argmax(scores)] = 1.0  # if several are largest, the one with the smallest id
        return
    apply_temperature(scores, largest, temperature, probs)
    if windows is not None:
        filter_probs(probs, params.top_k, params.top_p, params.min_p)


@compiled
def sample_rows(
    logits, texts, sizes, new_tokens, uniform, params, windows, runs, spelling, places, tokens
):
    """Sample the next token of each of B texts into ``tokens``, int64 (B,).

    Args:
        logits: float (B, V).
        texts: int64 (B, T). A text has at least one element more than its size.
        sizes: int64 (B,), the number of tokens in each text.
        new_tokens: int64 (B,), how many of them are new.
        uniform: float64 (B,), a random number in [0, 1) for each text.
        params, windows, spelling: As in ``choose``.
        runs: int64 (B,), the ``run`` of each row.
        places: int64 (B, 5), the ``place`` of each row; updated.
    """
    scores = np.empty(logits.shape[1])
    probs = np.empty(logits.shape[1])
    for row in range(len(logits)):
        tokens[row] = choose(
            logits[row],
            params,
            texts[row],
            sizes[row],
            new_tokens[row],
            uniform[row],
            windows,
            runs[row],
            spelling,
            places[row],
            scores,
            probs,
            False,
        )


@compiled
def apply_penalties(logits, text, size, new_tokens, params, scores):
    """Write the logits after penalties into ``scores``. Return the largest score, or NaN if a score
    is NaN or plus infinity.

    The repetition penalty (Keskar et al. 2019) applies to all tokens that the text contains:
    positive logits are divided by it, negative ones multiplied. No token may complete an n-gram
    that the text already contains (Paulus et al. 2017). eos is ruled out before ``min_new_tokens``.
    """
    penalty = params.repetition_penalty
    ngram_size = params.no_repeat_ngram_size
    vocab_size = params.vocab_size
    _write_scores(logits, params.bos_id, vocab_size, scores)
    if penalty != 1:
        for position in range(size):
            token = text[position]
            # computed from the logits, so that a token that occurs twice is not penalised twice
            if 0 <= token < vocab_size:
                logit = np.float64(logits[token])
                scores[token] = logit * penalty if logit < 0 else logit / penalty
    if 0 < ngram_size <= size + 1:
        tail = size - ngram_size + 1  # where the last n - 1 tokens of the text begin
        for start in range(tail):
            # the number of tokens from ``start`` on that are equal to those from ``tail`` on
            length = 0
            while length < ngram_size - 1 and text[start + length] == text[tail + length]:
                length += 1
            # the token after n - 1 equal ones must not follow again
            if length == ngram_size - 1 and 0 <= text[start + length] < vocab_size:
                scores[text[start + length]] = -np.inf
    if new_tokens < params.min_new_tokens:
        scores[params.eos_id] = -np.inf
    scores[params.bos_id] = -np.inf  # again, since the repetition penalty may have changed it
    return _largest_score(scores)


@inner
def _write_scores(logits, bos, vocab_size, scores):
    """Write the logits into ``scores``; bos and the ids from ``vocab_size`` on get minus infinity.
    Return the largest score as ``_largest_score`` does.
    """
    for token in range(len(scores)):
        scores[token] = logits[token] if token < vocab_size else -np.inf
    scores[bos] = -np.inf
    return _largest_score(scores)


@inner
def _largest_score(scores):
    """Return the largest score, or NaN if a score is NaN or plus infinity."""
    largest = -np.inf
    for token in range(len(scores)):
        if not scores[token] < np.inf:  # NaN compares false
            return np.nan
        largest = max(largest, scores[token])
    return largest


@compiled
def apply_temperature(scores, largest, temperature, probs):
    """Write the unnormalised probability of each token, exp((score - largest) / temperature), into
    ``probs``, float64 (V,).
    """
    for token in range(len(scores)):
        probs[token] = math.exp((scores[token] - largest) / temperature)


@compiled
def sharpen(probs, temperature):
    """Apply a temperature to probabilities, float64 (V,), in place. Each is raised to the power 1 /
    temperature; the results are unnormalised.
    """
    if temperature == 1.0:
        return
    largest = probs.max()
    exponent = np.float32(1 / temperature)
    for token in range(len(probs)):  # in float32, in which a power is four times as fast
        probs[token] = np.float32(probs[token] / largest) ** exponent


@compiled
def sample_from(probs, top_k, top_p, min_p, uniform):
    """Filter unnormalised probabilities, and draw a token; see ``draw_token``.

    A filter is off if top_k is 0, top_p is 1, or min_p is 0. The most probable token always stays.

    Args:
        probs: float64 (V,), not negative, at least one above zero. The filters set the tokens that
            they drop to zero.
        uniform: A random number in [0, 1).
    """
    filter_probs(probs, top_k, top_p, min_p)
    return draw_token(probs, uniform)


@inner
def filter_probs(probs, top_k, top_p, min_p):
    """Apply the filters that are on to unnormalised probabilities, float64 (V,), in place; see
    ``sample_from``.

    min-p (Nguyen et al. 2024) drops the tokens whose probability is less than min_p times that of
    the most probable token.
    """
    if 0 < top_k < len(probs) or top_p < 1:
        filter_top_k_top_p(probs, top_k if top_k > 0 else len(probs), top_p)
    if min_p > 0:
        threshold = min_p * probs.max()
        for token in range(len(probs)):
            if probs[token] < threshold:
                probs[token] = 0.0


@inner
def draw_allowed(probs, spelling, place, eos, uniform):
    """Draw a token that may follow a text.

    If the token that was drawn may not follow, its probability is set to zero and another one is
    drawn; at most MAX_REDRAWS times.

    Args:
        probs: float64 (V,), unnormalised probabilities; those of refused tokens become zero.
        spelling, place, eos: As in ``follows``. A spelling of None refuses no token.
        uniform: A random number in [0, 1).

    Returns:
        The token, or NONE if all tokens that were drawn were refused.
    """
    token = np.int64(draw_token(probs, uniform))
    if spelling is None:
        return token
    for _ in range(MAX_REDRAWS):
        if follows(spelling, place, token, eos)[0]:
            return token
        probs[token] = 0.0
        token = np.int64(draw_token(probs, uniform))
        if probs[token] == 0:  # no token is left; draw_token then returns 0
            return np.int64(NONE)
    return token if follows(spelling, place, token, eos)[0] else np.int64(NONE)


@inner
def filter_top_k_top_p(probs, top_k, top_p):
    """Keep the ``top_k`` most probable tokens, and of these only the smallest set that has at least
    the share ``top_p`` of their probability. Set the other tokens to zero.

    top-k is by Fan et al. 2018; tokens as probable as the last of the ``top_k`` are kept, too.
    top-p is by Holtzman et al. 2020; of equally probable tokens, those with smaller ids are kept
    first.
    """
    size = len(probs)  # number of tokens in the heap
    heap = np.arange(size)
    for position in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, position, probs)
    # the probability of the tokens that top-k keeps; infinite for now if it drops some tokens,
    # since it is not known yet which
    total = probs.sum() if top_k >= size else np.inf
    count = 0  # number of tokens that were kept
    kept_sum = 0.0
    # heap[size] is the token that was kept last
    while (
        size > 0
        and kept_sum < top_p * total
        and (count < top_k or probs[heap[0]] == probs[heap[size]])
    ):
        size -= 1
        # kept tokens are stored behind the heap, the least probable first
        heap[0], heap[size] = heap[size], heap[0]
        kept_sum += probs[heap[size]]
        count += 1
        _sift_down(heap, size, 0, probs)
    total = kept_sum if total == np.inf else total
    # drop the tokens that are not behind the heap, and those that top-p does not need
    before = 0.0  # total probability of the more probable tokens
    for position in range(len(heap) - 1, -1, -1):
        prob = probs[heap[position]]
        if position < size or before >= top_p * total:
            probs[heap[position]] = 0.0
        before += prob


@inner
def _sift_down(heap, size, position, probs):
    """Restore the order of the heap ``heap[:size]`` of tokens, in which only the token at
    ``position`` may be too high.

    The most probable token is at the top; of equally probable tokens, the one with the smallest id.
    """
    while True:
        best = position
        first_child = 2 * position + 1
        for child in range(first_child, min(first_child + 2, size)):
            token = heap[child]
            best_token = heap[best]
            if probs[token] > probs[best_token] or (
                probs[token] == probs[best_token] and token < best_token
            ):
                best = child
        if best == position:
            return
        heap[position], heap[best] = heap[best], heap[position]
        position = best


@inner
def _rule_out_copies(windows, text, size, run, eos, is_copy, largest, scores, probs):
    """Rule out each token that would complete a copied span. If ``is_copy``, the token that was
    drawn first would have completed one; then rule out eos, too.
    """
    # ``forbid`` sets the probability of such a token to zero. The temperature is 1, since at a low
    # one the probabilities of other tokens could underflow to zero, too.
    apply_temperature(scores, largest, 1.0, probs)
    forbid(windows, text, size, run, probs)
    for token in range(len(probs)):
        if token == eos:
            if is_copy:
                scores[token] = -np.inf
        elif probs[token] == 0:
            scores[token] = -np.inf


@inner
def draw_token(probs, uniform):
    """Draw a token by its probability, in the exponential race that the docstring of this file
    explains.

    If some tokens are ruled out, the same random number gives the next token to arrive among the
    others.

    Args:
        probs: float64 (V,), unnormalised probabilities, not negative. If all are zero, the result
            is token 0.
        uniform: A random number in [0, 1).
    """
    scaled = uniform * 4294967296.0  # 2 ** 32
    # two keys from the 64 bits of the random number, for the hashes of the tokens
    high = int(scaled)
    low = int((scaled - high) * 4294967296.0)
    first = _mix((high + low) & MASK, low)
    second = _mix((low + GOLDEN) & MASK, first)
    winner = 0
    prob = 0.0
    time = np.inf  # the winner's arrival time, times its probability
    for token in range(len(probs)):
        if probs[token] <= 0:
            continue
        bits = _mix((first + token * GOLDEN) & MASK, second)  # the first 32 bits of x
        # -log(1 - x) >= x, so a token for which even x is too late cannot be the first to arrive
        if probs[token] * time <= prob * (bits * 2.0**-32):
            continue
        x = (bits + (_mix(bits, first) >> 11) * 2.0**-21) * 2.0**-32  # 53 bits, in [0, 1)
        own_time = -math.log1p(-x)
        # own_time / probs[token] < time / prob, without a division
        if probs[token] * time > prob * own_time:
            winner = token
            prob = probs[token]
            time = own_time
    return winner


@inner
def another_number(uniform):
    """Return a second uniform random number, (uniform + 0.25) mod 1, for an independent exponential
    race.
    """
    return uniform + 0.25 if uniform < 0.75 else uniform - 0.75


@inner
def _mix(x, key):
    """Return a 32-bit hash of two 32-bit numbers. The constants are by Wellons 2018, found by
    search ("lowbias32").
    """
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & MASK
    x = ((x ^ (x >> 15) ^ key) * 0x735A2D97) & MASK
    return x ^ (x >> 15)
