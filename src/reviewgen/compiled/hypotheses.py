"""Sums over all strings of tokens that write a text, for a model that is used with ids of another
tokenizer.

A hypothesis is a string of complete tokens and the range of the tokens that may be the next one:
tokens are sorted by what they are written in, so those that begin with the same ids are a range. An
id that is written narrows each range; where a token is complete, a new hypothesis begins, whose
distribution is that of a step of the model. A text can always go on from the best of the hypotheses
that began last, so that one is kept, with the most probable others.

Source: Vieira et al. 2024, "From Language Models over Tokens to Language Models over Characters".

B texts, K hypotheses, V tokens of the model, W ids that are written.
"""

import numpy as np

from reviewgen.compiled.jit import compiled, inner

NEGLIGIBLE = 1e-4  # the share of a hypothesis that is dropped
IMPOSSIBLE = 1e-300  # the probability of a token that was written although the model gives it none


@inner
def _find(characters, starts, low, high, depth, written):
    """Return the first rank of a range whose id at a depth is at least ``written``; ``high`` if
    there is none.
    """
    while low < high:
        middle = (low + high) // 2
        if characters[starts[middle] + depth] < written:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def _keep(scores, ages, count, is_kept):
    """Mark the ``count`` best of some hypotheses, without negligible ones, but with the best of
    those that began last.
    """
    youngest = -1
    total = scores.sum()
    for slot in range(len(scores)):
        is_kept[slot] = False
        if scores[slot] > 0:
            is_older = youngest >= 0 and ages[slot] > ages[youngest]
            if not is_older and (
                youngest < 0 or ages[slot] < ages[youngest] or scores[slot] > scores[youngest]
            ):
                youngest = slot
    best = youngest
    for _ in range(count):
        if best < 0:
            break
        is_kept[best] = True
        best = -1
        for slot in range(len(scores)):
            if (
                not is_kept[slot]
                and scores[slot] > NEGLIGIBLE * total
                and (best < 0 or scores[slot] > scores[best])
            ):
                best = slot


@inner
def _narrow(characters, starts, probs, span, written, weight, slot, scores, ages, ranges):
    """Narrow a hypothesis by an id.

    Args:
        characters, starts: As in ``choose_hypotheses``.
        probs, span, weight: Those of the hypothesis.
        written: The id.
        slot: The number of the hypothesis, of K.
        scores: float64 (2 * K,); written for the hypothesis, and for the new one that begins if the
            id completes a token.
        ages, ranges: int64 (2 * K,) and (K, 2); written for the hypothesis.

    Returns:
        The rank of the token that the id completes; of several the most probable.
    """
    depth = span[2]
    low = _find(characters, starts, span[0], span[1], depth, written)
    high = _find(characters, starts, low, span[1], depth, written + 1)
    ended = 0.0
    mass = 0.0
    best = low
    ages[slot] = depth + 1
    while low < high and starts[low + 1] - starts[low] == depth + 1:
        best = low if probs[low] > probs[best] else best
        ended += probs[low]
        scores[len(ranges) + slot] = weight * max(ended, IMPOSSIBLE)
        low += 1
    for rank in range(low, high):
        mass += probs[rank]
    scores[slot] = weight * mass
    ranges[slot, 0] = low
    ranges[slot, 1] = high
    return best


@inner
def _begin(span, tokens):
    """Begin a new token, which may be any of a number of tokens."""
    span[0] = 0
    span[1] = tokens
    span[2] = 0


@compiled
def choose_hypotheses(ids, characters, starts, order, probs, weights, spans, steps):
    """Narrow the hypotheses of each text by an id, and choose those that are kept.

    Args:
        ids: int64 (B,).
        characters, starts, order: As in ``reviewgen.blending.characters.TokenCharacters``.
        probs, weights, spans: As in the state of its ``CharacterStepper``; weights and spans are
            written. The weight of a new hypothesis is not yet divided by the sum of its
            probabilities.
        steps: int64 (B * K, 3), written: of each new hypothesis its place, that of the one that it
            continues, and its token.

    Returns:
        The number of new hypotheses.
    """
    count = weights.shape[1]
    stepped = 0
    scores = np.zeros(2 * count)  # of the hypotheses that continue, then of new ones
    ages = np.zeros(2 * count, np.int64)  # of the same hypotheses
    ranges = np.empty((count, 2), np.int64)
    completed = np.empty(count, np.int64)  # ranks of tokens
    is_kept = np.empty(2 * count, np.bool_)
    for text in range(len(ids)):
        scores[:] = 0
        for slot in range(count):
            if weights[text, slot] > 0:
                completed[slot] = _narrow(
                    characters,
                    starts,
                    probs[text, slot],
                    spans[text, slot],
                    ids[text],
                    weights[text, slot],
                    slot,
                    scores,
                    ages,
                    ranges,
                )
        # none can write it: the best goes on after its last complete token
        if not scores.sum() > 0:
            best = np.argmax(weights[text])
            weights[text] = 0
            weights[text, best] = 1
            _begin(spans[text, best], len(order))
            continue
        _keep(scores, ages, count, is_kept)
        place = 0
        for slot in range(count):
            if is_kept[slot]:
                spans[text, slot, 0] = ranges[slot, 0]
                spans[text, slot, 1] = ranges[slot, 1]
                spans[text, slot, 2] = ages[slot]
            else:
                weights[text, slot] = 0
        for slot in range(count):
            if is_kept[count + slot]:
                while weights[text, place] > 0:
                    place += 1
                weights[text, place] = scores[count + slot]
                _begin(spans[text, place], len(order))
                steps[stepped, 0] = text * count + place
                steps[stepped, 1] = text * count + slot
                steps[stepped, 2] = order[completed[slot]]
                stepped += 1
    return stepped


@compiled
def read_distributions(characters, starts, probs, weights, spans, table):
    """Write the log probability of each id after each text, and scale the weights of its
    hypotheses.

    Args:
        characters, starts: As in ``reviewgen.blending.characters.TokenCharacters``.
        probs, weights, spans: As in the state of its ``CharacterStepper``.
        table: float64 (B, W), written.
    """
    for text in range(len(table)):
        row = table[text]
        total = 0.0
        row[:] = 0
        for slot in range(weights.shape[1]):
            depth = spans[text, slot, 2]
            weight = weights[text, slot]
            if weight > 0:
                for rank in range(spans[text, slot, 0], spans[text, slot, 1]):
                    mass = weight * probs[text, slot, rank]
                    row[characters[starts[rank] + depth]] += mass
                    total += mass
        for number in range(len(row)):
            row[number] = np.log(row[number] / total)
        weights[text, :] /= total
