"""Draws whole texts from a trie in one compiled loop, many rows side by side. Knows nothing of text."""

import numpy as np

from reviewgen.compiled import compiled, inlined
from reviewgen.compiled.sampling import DEAD_END, NONE, sample_from, sample_token, sharpen
from reviewgen.compiled.windows import copies, forbid
from reviewgen_ngram.trie import family, fill_row, find, follow, probability, search_end, settle

__all__ = ["PROPOSALS", "sample", "sample_plain", "sample_scored"]

PROPOSALS = 3  # before a token is drawn from the whole row
MOST_NUMBERS = 2 * PROPOSALS + 2  # uniform numbers that a token takes


@compiled
def sample_plain(trie, ends, book, contexts, uniform, end, rooms, tokens, used):
    """Draw tokens at temperature 1, without filters and guard: ``sample`` with ``_propose`` written out, twice as fast.

    ``ends`` and ``book`` are the trie's; what a None does not need is compiled away. ``rooms`` (B,): tokens that a row may get.
    """
    nodes, links, _, bases, children, probabilities, backoffs, _, root, heads = trie
    live = np.ones(len(uniform), np.bool_)
    tokens[:] = NONE
    used[:] = 0
    for t in range(uniform.shape[1]):
        for row in range(len(uniform)):
            if not live[row] or t >= rooms[row]:
                continue
            context, number, weight, low, high = contexts[row], uniform[row, t], 1.0, 0, 0
            token, child = np.int64(NONE), np.int64(0)  # (the node after the token)
            while context != 0:
                start, stop = family(bases, children, context)
                passed = low
                for place in range(start, stop):
                    candidate = nodes[place]
                    while passed < high and nodes[passed] < candidate:
                        passed += 1
                    if passed < high and nodes[passed] == candidate:
                        passed += 1
                        continue
                    if book is None:
                        number -= weight * probabilities[place]
                    else:
                        number -= weight * book[np.int64(probabilities[place])]
                    if number < 0:
                        token, child = np.int64(candidate), place
                        break
                if number < 0:
                    break
                weight *= backoffs[context]
                low, high = start, stop
                context = np.int64(links[context])
            if context == 0:
                passed = low
                for candidate in range(len(root)):
                    if passed < high and nodes[passed] == candidate:
                        passed += 1
                        continue
                    if weight * root[candidate] > 0:
                        token = np.int64(candidate)
                        number -= weight * root[candidate]
                        if number < 0:
                            break
                if token < 0:  # rounding has passed the last of a context that leaves nothing for others
                    _, token, _ = _last_possible(nodes, links, bases, children, probabilities, book, heads, contexts[row])
                    child = follow(trie, contexts[row], token)
                else:
                    child = np.int64(heads[token])
            tokens[row, t], live[row], used[row] = token, token != end, t + 1
            if child < len(children):
                contexts[row] = child
            elif ends is None:
                contexts[row] = search_end(nodes, links, bases, children, heads, context, token)
            else:
                contexts[row] = np.int64(ends[child - len(children)])


@compiled
def sample(trie, contexts, uniform, params, proposals, windows, run, tails, written, tokens, used):
    """Draw tokens of B rows until each has met its end, a dead end, its last token, or nearly the last of its numbers.

    Below temperature 1 a token is first proposed from the distribution itself and kept with probability p ** (1 / temperature
    - 1), which is exact rejection sampling (von Neumann 1951) and needs no other probability than its own.

    Args:
        contexts: int64 (B,), where the rows stand; moved to where they stand afterwards.
        uniform: float64 (B, N), in [0, 1); a token takes at most MOST_NUMBERS.
        params: How to sample_from, as in ``reviewgen.compiled.sampling``; its penalties, least tokens and greed are not looked at.
        proposals: How many to make at temperatures up to 1, PROPOSALS at most; 0 where there are filters.
        windows, run, tails: What a token must not complete, as in ``copies``, and each row's last tokens (B, K); run 0 is off.
        written: int64 (B,), each row's new tokens so far.
        tokens: int64 (B, N), written: tokens up to the end token or DEAD_END, then NONE.
        used: int64 (B,), written: how many numbers each row took.
    """
    room, kept = uniform.shape[1], tails.shape[1]
    texts, live, sizes, weights = _begin(trie, uniform, tails, tokens, used)
    nodes, links, ends, bases, children, probabilities, backoffs, book, root, heads = trie
    temperatures, top_k, top_p, min_p, _, _, _, most, _, end, _, size = params
    for _ in range(room):
        for row in range(len(uniform)):
            count = written[row] + sizes[row]
            if not live[row] or used[row] + MOST_NUMBERS > room or count >= most:
                continue
            context, place, number = contexts[row], kept + sizes[row], used[row]
            token, after = np.int64(NONE), np.int64(-1)
            temperature = temperatures[count % len(temperatures)]
            for _ in range(proposals if temperature <= 1 else 0):
                candidate, p, following = _propose(
                    nodes, links, ends, bases, children, probabilities, backoffs, book, root, heads, context, uniform[row, number]
                )
                number += 1 if temperature == 1 else 2
                is_kept = temperature == 1 or uniform[row, number - 1] < np.float32(p) ** np.float32(1 / temperature - 1)
                if is_kept and candidate < size:
                    token, after = candidate, following
                    break
            if token == NONE:
                _weigh(trie, context, size, temperature, weights)
                token = sample_from(weights, top_k, top_p, min_p, uniform[row, number])
                number += 1
            texts[row, place] = token
            if run > 0 and token != end and copies(windows, texts[row], place, run):
                _weigh(trie, context, size, 1.0, weights)
                forbid(windows, texts[row], place, run, weights)
                weights[end] = 0.0
                token, after = np.int64(DEAD_END), np.int64(-1)
                if weights.max() > 0:
                    sharpen(weights, temperature)
                    token = sample_from(weights, top_k, top_p, min_p, uniform[row, number])
                    number += 1
                    texts[row, place] = token
            used[row] = number
            tokens[row, sizes[row]] = token
            live[row] = token != end and token != DEAD_END
            if token != DEAD_END:
                sizes[row] += 1
                contexts[row] = after if after >= 0 else follow(trie, context, token)


@compiled
def sample_scored(trie, contexts, uniform, params, windows, run, tails, written, tokens, used):
    """Draw tokens as ``sample`` does, by the log probabilities of all tokens, with all that ``sample_token`` looks at."""
    room, kept = uniform.shape[1], tails.shape[1]
    texts, live, sizes, weights = _begin(trie, uniform, tails, tokens, used)
    scores, spare = np.empty(len(weights)), np.empty(len(weights))
    most, end = params.max_new_tokens, params.eos_id
    for row in range(len(uniform)):
        while live[row] and used[row] + 2 <= room and written[row] + sizes[row] < most:
            count, place = written[row] + sizes[row], kept + sizes[row]
            fill_row(trie, contexts[row], weights)
            _take_logs(weights)
            first, second = uniform[row, used[row]], uniform[row, used[row] + 1]
            token, taken = sample_token(weights, texts[row], place, count, first, second, params, windows, run, scores, spare)
            used[row] += taken
            tokens[row, sizes[row]] = token
            live[row] = token != end and token >= 0
            if token >= 0:
                texts[row, place] = token
                sizes[row] += 1
                contexts[row] = follow(trie, contexts[row], token)


@compiled
def _begin(trie, uniform, tails, tokens, used):
    """Empty what is written, and return texts (B, K + N + 1) that begin with their tails, which go on, sizes, and a row (V,)."""
    rows, room = uniform.shape
    texts = np.zeros((rows, tails.shape[1] + room + 1), np.int64)
    texts[:, : tails.shape[1]] = tails
    tokens[:] = NONE
    used[:] = 0
    return texts, np.ones(rows, np.bool_), np.zeros(rows, np.int64), np.empty(len(trie.root))


@compiled
def _weigh(trie, context, size, temperature, weights):
    """Write the probability of each token below ``size``, to the power of 1 / temperature, up to a factor."""
    fill_row(trie, context, weights)
    weights[size:] = 0.0
    sharpen(weights, temperature)


@compiled
def _take_logs(weights):
    """Turn the weights of a row into log probabilities, in place."""
    total = weights.sum()
    for token in range(len(weights)):
        weights[token] = np.log(weights[token] / total) if weights[token] > 0 else -np.inf


@inlined
def _propose(tokens, links, ends, bases, children, probabilities, backoffs, book, root, heads, context, number):
    """Return a token drawn by inverse CDF, the children of the longest context first, its probability and the context after it.

    A shorter context is asked for the tokens only that are no children of the longer one; those are a part of its own.
    """
    started, weight, low, high = context, 1.0, 0, 0  # the children of the longer context are low:high
    token, found, mass = np.int64(-1), np.int64(0), 0.0
    while context != 0:
        start, stop = family(bases, children, context)
        passed = low
        for child in range(start, stop):
            candidate = tokens[child]
            while passed < high and tokens[passed] < candidate:
                passed += 1
            if passed < high and tokens[passed] == candidate:
                passed += 1
                continue
            mass = weight * probability(probabilities, book, child)
            number -= mass
            if number < 0:
                token, found = np.int64(candidate), child
                break
        if number < 0:
            break
        weight *= backoffs[context]
        low, high = start, stop
        context = np.int64(links[context])
    if context == 0:
        passed = low
        for candidate in range(len(root)):
            if passed < high and tokens[passed] == candidate:
                passed += 1
                continue
            if weight * root[candidate] > 0:
                token, mass = np.int64(candidate), weight * root[candidate]
                number -= mass
                if number < 0:
                    break
        if token < 0:  # rounding has passed the last of a context that leaves nothing for others
            context, token, mass = _last_possible(tokens, links, bases, children, probabilities, book, heads, started)
        found = np.int64(heads[token])
        if context != 0:
            found = find(tokens, bases, children, context, token)
    return token, mass, settle(tokens, links, ends, bases, children, heads, context, found, token)


@compiled
def _last_possible(tokens, links, bases, children, probabilities, book, heads, context):
    """Return the longest context that has a child of positive probability, that child's token and probability."""
    while context != 0:
        start, stop = family(bases, children, context)
        for child in range(stop - 1, start - 1, -1):
            p = probability(probabilities, book, child)
            if p > 0:
                return context, np.int64(tokens[child]), p
        context = np.int64(links[context])
    return context, np.int64(np.argmax(heads)), 1.0
