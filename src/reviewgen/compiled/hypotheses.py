"""Lets a model write texts in the ids of another tokenizer, by sums over tokenizations.

The text is written one id at a time. Each token of the model is spelled as one or more of these
ids. Usually several strings of tokens spell the same text, so the probability of the text is a sum
over all of them. The most probable strings are followed as hypotheses.

A hypothesis consists of complete tokens and of a range of tokens that may come next. The tokens are
sorted by their spelling, so the tokens that begin with the same ids are neighbours. Each id that is
written narrows the range of every hypothesis. If the id completes a token, a new hypothesis begins
after that token, and one step of the model gives its distribution over the next tokens.

The text can always continue from the best of the hypotheses that began last. This one is therefore
kept, together with the most probable others.

Source: Vieira et al. 2024, "From Language Models over Tokens to Language Models over Characters".

Shapes: B texts, K hypotheses of a text, V tokens of the model, W ids of the other tokenizer. A
*rank* is the position of a token in the sorted order, a *slot* the number of a hypothesis.
"""

import numpy as np

from reviewgen.compiled.jit import compiled, inner

NEGLIGIBLE = 1e-4  # a hypothesis with at most this share of the total probability is dropped
# the min probability of a completed token: it was written, even if the model gives it zero
IMPOSSIBLE = 1e-300


@inner
def _first_rank(characters, starts, low, high, depth, wanted_id):
    """Find by binary search the first token of a range whose id at ``depth`` is at least
    ``wanted_id``; return its rank, or ``high`` if there is none.
    """
    while low < high:
        middle = (low + high) // 2
        if characters[starts[middle] + depth] < wanted_id:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def _keep(scores, ages, count, is_kept):
    """Mark in ``is_kept`` up to ``count`` hypotheses to keep.

    The first one marked is the most probable of the youngest hypotheses, those that began last
    (``youngest``). Then come the most probable others, except negligible ones.

    Args:
        scores: float64 (2 * K,), the probability of each hypothesis; 0 where there is none.
        ages: int64 (2 * K,), the number of ids since each hypothesis began its current token.
        count: The maximum number of hypotheses to keep, K.
        is_kept: bool (2 * K,), written.
    """
    youngest = -1
    total = scores.sum()
    for slot in range(len(scores)):
        is_kept[slot] = False
        if scores[slot] > 0:
            # the youngest so far; of several that are as young, the most probable
            is_older = youngest >= 0 and ages[slot] > ages[youngest]
            if not is_older and (
                youngest < 0 or ages[slot] < ages[youngest] or scores[slot] > scores[youngest]
            ):
                youngest = slot
    next_kept = youngest
    for _ in range(count):
        if next_kept < 0:
            break
        is_kept[next_kept] = True
        next_kept = -1
        for slot in range(len(scores)):
            if (
                not is_kept[slot]
                and scores[slot] > NEGLIGIBLE * total
                and (next_kept < 0 or scores[slot] > scores[next_kept])
            ):
                next_kept = slot


@inner
def _narrow(characters, starts, probs, span, next_id, weight, slot, scores, ages, ranges):
    """Narrow the range of a hypothesis to the tokens whose next id is ``next_id``.

    Args:
        characters, starts: As in ``choose_hypotheses``.
        probs: (V,), the probability of each token, by rank.
        span: int64 (3,), the first rank of the range, the rank after its last, and the number of
            ids since the hypothesis began its current token.
        next_id: The id by which the text has grown.
        weight: The weight of the hypothesis.
        slot: The number of the hypothesis, less than K.
        scores: float64 (2 * K,). The entry at ``slot`` becomes the new probability of the
            hypothesis. If the id completes a token, a new hypothesis begins; the entry at
            K + ``slot`` becomes its probability.
        ages: int64 (2 * K,). The entry at ``slot`` becomes the new number of ids since the
            hypothesis began its current token.
        ranges: int64 (K, 2). The row at ``slot`` becomes the narrowed range.

    Returns:
        The rank of the most probable token that the id completes. It has no meaning if the id
        completes none.
    """
    depth = span[2]
    low = _first_rank(characters, starts, span[0], span[1], depth, next_id)
    high = _first_rank(characters, starts, low, span[1], depth, next_id + 1)
    ended = 0.0  # probability of the tokens that the id completes
    mass = 0.0  # probability of the tokens that it does not complete
    best = low
    ages[slot] = depth + 1
    # the tokens that the id completes are the shortest of the range, so they come first
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
def _begin(span, token_count):
    """Set the ``span`` of a hypothesis, (3,), to that at the beginning of a token: all
    ``token_count`` ranks, and no ids yet.
    """
    span[0] = 0
    span[1] = token_count
    span[2] = 0


@compiled
def choose_hypotheses(ids, characters, starts, order, probs, weights, spans, steps):
    """Narrow the hypotheses of each text by one id, and choose which to keep.

    The caller then steps the model for each new hypothesis.

    Args:
        ids: int64 (B,), the id that was written to each text.
        characters, starts, order: As in ``reviewgen.blending.characters.TokenCharacters``.
        probs, weights, spans: As in the state of
            ``reviewgen.blending.characters.CharacterStepper``. Weights and spans are updated. The
            weight of a new hypothesis is not yet divided by the sum of its probabilities.
        steps: int64 (B * K, 3), written: one row for each new hypothesis. The row holds the index
            of the new hypothesis, the index of the hypothesis that it continues, and the token to
            step with. An index is text * K + slot.

    Returns:
        The number of new hypotheses.
    """
    count = weights.shape[1]  # K
    new_count = 0
    # the next three arrays have K entries for the hypotheses that continue, then K for new ones
    scores = np.zeros(2 * count)
    ages = np.zeros(2 * count, np.int64)
    is_kept = np.empty(2 * count, np.bool_)
    ranges = np.empty((count, 2), np.int64)
    completed = np.empty(count, np.int64)  # the rank of the token that each hypothesis completes
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
        # if no hypothesis can write the id, the best one continues after its last complete token
        if not scores.sum() > 0:
            best = np.argmax(weights[text])
            weights[text] = 0
            weights[text, best] = 1
            _begin(spans[text, best], len(order))
            continue
        _keep(scores, ages, count, is_kept)
        for slot in range(count):
            if is_kept[slot]:
                spans[text, slot, :2] = ranges[slot]
                spans[text, slot, 2] = ages[slot]
            else:
                weights[text, slot] = 0
        # new hypotheses get the slots of those that were dropped
        free = 0
        for slot in range(count):
            if is_kept[count + slot]:
                while weights[text, free] > 0:
                    free += 1
                weights[text, free] = scores[count + slot]
                _begin(spans[text, free], len(order))
                steps[new_count, 0] = text * count + free
                steps[new_count, 1] = text * count + slot
                steps[new_count, 2] = order[completed[slot]]
                new_count += 1
    return new_count


@compiled
def read_distributions(characters, starts, probs, weights, spans, table):
    """Compute the log probability of each next id of each text from its hypotheses.

    The weights of a text's hypotheses are divided by the sum over all its next ids, so that the
    probabilities sum to one.

    Args:
        characters, starts: As in ``reviewgen.blending.characters.TokenCharacters``.
        probs, weights, spans: As in the state of
            ``reviewgen.blending.characters.CharacterStepper``. The weights are updated.
        table: float64 (B, W), the log probabilities, written.
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
        for next_id in range(len(row)):
            row[next_id] = np.log(row[next_id] / total)
        weights[text, :] /= total
