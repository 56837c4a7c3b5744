"""From a row of logits to one token: penalties, temperature, top-k, top-p, min-p, then one draw by inverse CDF.

Every setting means what it means in transformers, and they act in its order. Knows neither a model nor a tokenizer.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from reviewgen.compiled import compiled
from reviewgen.compiled.windows import copies, forbid

__all__ = [
    "DEAD_END",
    "NONE",
    "NOTHING_LEFT",
    "NOT_A_NUMBER",
    "Drawing",
    "adjust",
    "choose",
    "choose_live",
    "choose_rows",
    "draw",
    "weigh",
    "weigh_probabilities",
]

NONE, DEAD_END, NOTHING_LEFT, NOT_A_NUMBER = -1, -2, -3, -4
"""In place of a token: none, for the row has ended; only forbidden ones were left; none at all was left; logits were NaN."""


class Drawing(NamedTuple):
    """How tokens are drawn. A numba-compiled function takes it as it is; each part must have exactly the type given here."""

    temperatures: Float64[np.ndarray, " K"]  # new token t is drawn at temperatures[t % K]
    top_k: int  # 0 is off
    top_p: float  # 1 is off
    min_p: float  # 0 is off
    repetition_penalty: float  # 1 is off
    no_repeat_ngram_size: int  # 0 is off
    min_new_tokens: int
    max_new_tokens: int  # a row's last
    is_greedy: bool  # the most probable token, of equals that of the smallest id
    eos_id: int
    bos_id: int  # never drawn
    size: int  # ids from here on are never drawn

    @property
    def looks_back(self) -> bool:
        """Whether a draw depends on the tokens before it."""
        return self.repetition_penalty != 1 or self.no_repeat_ngram_size > 0


@compiled
def choose(logits, text, size, written, first, second, drawing, windows, run, scores, weights):
    """Return the token after ``text[:size]``, or DEAD_END, NOTHING_LEFT or NOT_A_NUMBER; and how many numbers it took, 1 or 2.

    Args:
        logits: float (V,).
        text: int64, at least size + 1 long; what stands from ``size`` on may be overwritten.
        size: How many tokens of the text there are.
        written: How many of them are new.
        first, second: Numbers in [0, 1); the second is taken where the first token drawn was forbidden.
        drawing: A Drawing.
        windows, run: What must not be completed, as in ``copies``; a run of 0 is off.
        scores, weights: float64 (V,), written.
    """
    temperatures, top_k, top_p, min_p, _, _, _, _, is_greedy, eos, _, _ = drawing
    largest = adjust(logits, text, size, written, drawing, scores)
    if not np.isfinite(largest):
        return (NOTHING_LEFT if largest == -np.inf else NOT_A_NUMBER), 1
    temperature = temperatures[written % len(temperatures)]
    token = _pick(scores, largest, temperature, top_k, top_p, min_p, is_greedy, first, weights)
    if run == 0 or token == eos:
        return token, 1
    text[size] = token
    if not copies(windows, text, size, run):
        return token, 1
    weigh(scores, largest, 1.0, weights)  # at a low temperature all but the forbidden would seem impossible
    forbid(windows, text, size, run, weights)
    weights[eos] = 0.0
    largest = -np.inf
    for other in range(len(weights)):
        if weights[other] == 0:
            scores[other] = -np.inf
        largest = max(largest, scores[other])
    if largest == -np.inf:
        return DEAD_END, 2
    return _pick(scores, largest, temperature, top_k, top_p, min_p, is_greedy, second, weights), 2


@compiled
def choose_rows(logits, texts, sizes, written, uniform, drawing, windows, runs, tokens, used):
    """Write the token that follows each of B texts into ``tokens`` and how many numbers it took into ``used``, both int64 (B,).

    Args:
        logits: float (B, V).
        texts: int64 (B, T), each at least one longer than its ``sizes``, int64 (B,).
        written: int64 (B,).
        uniform: float64 (B, 2).
        drawing, windows: As in ``choose``.
        runs: int64 (B,), each row's ``run``.
    """
    scores, weights = np.empty(logits.shape[1]), np.empty(logits.shape[1])
    for row in range(len(logits)):
        tokens[row], used[row] = choose(
            logits[row],
            texts[row],
            sizes[row],
            written[row],
            uniform[row, 0],
            uniform[row, 1],
            drawing,
            windows,
            runs[row],
            scores,
            weights,
        )


@compiled
def choose_live(logits, rows, live, texts, begun, drawn, written, uniform, used, drawing, windows, run, ids, scores, weights):
    """Draw a token for each text that is not at its end, and say in ``ids`` what there is to read next.

    A loop that writes keeps the texts that have not ended in the first ``live`` of its slots.

    Args:
        logits: float (R, V), of the slots.
        rows: int64 (R,), the text that stands in a slot.
        texts: int64 (B, begun + N), of which ``begun`` tokens stood there before the loop; the new token is written.
        drawn: int64 (B,), how many tokens the loop has drawn; written.
        written: int64 (B,), how many new tokens there were before the loop.
        uniform: float64 (B, N), in [0, 1).
        used: int64 (B,), how many of them were taken; written.
        drawing, windows, run: As in ``choose``.
        ids: int64 (R,), written: the token, or NONE where the text has ended, with its last of ``max_new_tokens``, too, or fewer
            than two numbers are left.
        scores, weights: float64 (V,), written.
    """
    for slot in range(live):
        row = rows[slot]
        number, size, new = used[row], begun + drawn[row], written[row] + drawn[row]
        ids[slot] = NONE
        if number + 2 > uniform.shape[1] or new >= drawing.max_new_tokens:
            continue
        first, second = uniform[row, number], uniform[row, number + 1]
        token, took = choose(logits[slot], texts[row], size, new, first, second, drawing, windows, run, scores, weights)
        texts[row, size] = token
        drawn[row] += 1
        used[row] += took
        if token >= 0 and token != drawing.eos_id and new + 1 < drawing.max_new_tokens:
            ids[slot] = token


@compiled
def adjust(logits, text, size, written, drawing, scores):
    """Write the logits after penalties into ``scores`` and return the largest; NaN where they hold NaN or plus infinity.

    The repetition penalty (Keskar et al. 2019) divides the positive logits of all tokens in the text by it and multiplies the
    negative ones; no token completes an n-gram a second time (Paulus et al. 2017); the end waits for the least new tokens.
    """
    _, _, _, _, penalty, ngram, least, _, _, eos, bos, vocabulary = drawing
    scores[:] = -np.inf
    for token in range(vocabulary):
        scores[token] = logits[token]
    if penalty != 1:
        for place in range(size):
            token = text[place]
            if 0 <= token < vocabulary:  # from the logits, so that a token met twice is not penalised twice
                logit = np.float64(logits[token])
                scores[token] = logit * penalty if logit < 0 else logit / penalty
    if 0 < ngram <= size + 1:
        for start in range(size - ngram + 1):
            place = 0
            while place < ngram - 1 and text[start + place] == text[size - ngram + 1 + place]:
                place += 1
            if place == ngram - 1 and 0 <= text[start + place] < vocabulary:
                scores[text[start + place]] = -np.inf
    if written < least:
        scores[eos] = -np.inf
    scores[bos] = -np.inf
    largest = -np.inf
    for token in range(vocabulary):
        if not scores[token] < np.inf:  # NaN compares false
            return np.nan
        largest = max(largest, scores[token])
    return largest


@compiled
def weigh(scores, largest, temperature, weights):
    """Write exp((score - largest) / temperature) of every token into ``weights``, float64 (V,)."""
    for token in range(len(scores)):
        weights[token] = np.exp((scores[token] - largest) / temperature)


@compiled
def _pick(scores, largest, temperature, top_k, top_p, min_p, is_greedy, number, weights):
    if is_greedy:
        return np.int64(np.argmax(scores))
    weigh(scores, largest, temperature, weights)
    return np.int64(draw(weights, top_k, top_p, min_p, number))


@compiled
def weigh_probabilities(weights, temperature):
    """Raise probabilities, float64 (V,), to the power of 1 / temperature, in place and up to a factor."""
    if temperature == 1.0:
        return
    largest, exponent = weights.max(), np.float32(1 / temperature)
    for token in range(len(weights)):  # in single precision, whose power is four times as fast
        weights[token] = np.float32(weights[token] / largest) ** exponent


@compiled
def draw(weights, top_k, top_p, min_p, uniform):
    """Return the token at which the filtered cumulative weight passes ``uniform``, in [0, 1) of its total.

    top-k keeps the k heaviest tokens and their equals (Fan et al. 2018); top-p the smallest set of that share or more (Holtzman
    et al. 2020), of equals those of smaller id; min-p those at least min_p times as heavy as the heaviest (Nguyen et al. 2024).
    The heaviest always stays. 0, 1 and 0 switch them off.

    Args:
        weights: float64 (V,), not negative, at least one above zero; what the filters drop becomes zero.
    """
    if 0 < top_k < len(weights) or top_p < 1:
        _keep_heaviest(weights, top_k if top_k > 0 else len(weights), top_p)
    if min_p > 0:
        floor = min_p * weights.max()
        for token in range(len(weights)):
            if weights[token] < floor:
                weights[token] = 0.0
    rest = uniform * weights.sum()
    last = 0
    for token in range(len(weights)):
        if weights[token] > 0:
            last = token  # the last token of positive weight, should rounding pass it
            rest -= weights[token]
            if rest < 0:
                break
    return last


@compiled
def _keep_heaviest(weights, top_k, top_p):
    """Zero all but the top_k heaviest and their equals, and of these all but the heaviest that make up a share top_p."""
    heap = np.arange(len(weights))
    size = len(heap)
    for place in range(size // 2 - 1, -1, -1):
        _sink(heap, size, place, weights)
    total = weights.sum() if top_k >= size else np.inf  # of what top-k leaves; not known yet where it drops some
    kept, before = 0, 0.0
    while size > 0 and before < top_p * total and (kept < top_k or weights[heap[0]] == weights[heap[size]]):
        size -= 1
        heap[0], heap[size] = heap[size], heap[0]  # the kept ones stand behind the heap, the lightest first
        before += weights[heap[size]]
        kept += 1
        _sink(heap, size, 0, weights)
    total, before = before if total == np.inf else total, 0.0
    for place in range(len(heap) - 1, -1, -1):
        weight = weights[heap[place]]
        if place < size or before >= top_p * total:
            weights[heap[place]] = 0.0
        before += weight


@compiled
def _sink(heap, size, place, weights):
    """Let a token sink in a heap whose top is the heaviest token, of equals that of the smallest id."""
    while True:
        best, first = place, 2 * place + 1
        for child in range(first, min(first + 2, size)):
            a, b = heap[child], heap[best]
            if weights[a] > weights[b] or (weights[a] == weights[b] and a < b):
                best = child
        if best == place:
            return
        heap[place], heap[best] = heap[best], heap[place]
        place = best
