"""Draws whole texts from a trie in one compiled loop, many rows side by side. Knows nothing of text."""

import numpy as np

from reviewgen.compiled import compiled, inlined
from reviewgen.compiled.draw import draw, weigh_probabilities
from reviewgen.compiled.windows import copies, forbid
from reviewgen.protocols import DEAD_END
from reviewgen_ngram.trie import family, fill_row, find, follow, probability, search_end, settle

__all__ = ["PROPOSALS", "sample", "sample_plain"]

NONE = -1
PROPOSALS = 3  # before a token is drawn from the whole row
MOST_NUMBERS = 2 * PROPOSALS + 2  # uniform numbers that a token takes


@compiled
def sample_plain(trie, ends, book, contexts, uniform, end, tokens):
    """Draw tokens at temperature 1, without filters and guard: ``sample`` with ``_propose`` written out, twice as fast.

    ``ends`` and ``book`` are the trie's; numba leaves out what an argument that is None does not need.
    """
    nodes, links, _, bases, children, probabilities, backoffs, _, root, heads = trie
    live = np.ones(len(uniform), np.bool_)
    tokens[:] = NONE
    for t in range(uniform.shape[1]):
        for row in range(len(uniform)):
            if not live[row]:
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
            tokens[row, t], live[row] = token, token != end
            if child < len(children):
                contexts[row] = child
            elif ends is None:
                contexts[row] = search_end(nodes, links, bases, children, heads, context, token)
            else:
                contexts[row] = np.int64(ends[child - len(children)])


@compiled
def sample(trie, contexts, uniform, end, settings, windows, run, tails, tokens):
    """Draw tokens of B rows until each has met its end token, a dead end, or nearly the last of its uniform numbers.

    Below temperature 1 a token is first proposed from the distribution itself and kept with probability p ** (1 / temperature
    - 1), which is exact rejection sampling (von Neumann 1951) and needs no other probability than its own.

    Args:
        contexts: int64 (B,), where the rows stand; moved to where they stand afterwards.
        uniform: float64 (B, N), in [0, 1); a token takes at most MOST_NUMBERS.
        end: The id that ends a text.
        settings: How many proposals to make, PROPOSALS at most; temperature, top_k, top_p, min_p.
        windows, run, tails: What a token must not complete, as in ``copies``, and each row's last tokens (B, K); run 0 is off.
        tokens: int64 (B, N), written: tokens up to the end token or DEAD_END, then NONE.
    """
    rows, room = uniform.shape
    kept = tails.shape[1]
    texts = np.zeros((rows, kept + room), np.int64)
    texts[:, :kept] = tails
    tokens[:] = NONE
    live, used, sizes = np.ones(rows, np.bool_), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    weights = np.empty(len(trie.root))
    nodes, links, ends, bases, children, probabilities, backoffs, book, root, heads = trie
    proposals, temperature, top_k, top_p, min_p = settings
    for _ in range(room):
        for row in range(rows):
            if not live[row] or used[row] + MOST_NUMBERS > room:
                continue
            context, place, number = contexts[row], kept + sizes[row], used[row]
            token, after = np.int64(NONE), np.int64(-1)
            for _ in range(proposals):
                candidate, p, following = _propose(
                    nodes, links, ends, bases, children, probabilities, backoffs, book, root, heads, context, uniform[row, number]
                )
                number += 1 if temperature == 1 else 2
                if temperature == 1 or uniform[row, number - 1] < np.float32(p) ** np.float32(1 / temperature - 1):
                    token, after = candidate, following
                    break
            if token == NONE:
                fill_row(trie, context, weights)
                weigh_probabilities(weights, temperature)
                token = draw(weights, top_k, top_p, min_p, uniform[row, number])
                number += 1
            if run > 0:
                texts[row, place] = token
                if token != end and copies(windows, texts[row], place, run):
                    fill_row(trie, context, weights)
                    forbid(windows, texts[row], place, run, weights)
                    weights[end] = 0.0
                    token, after = np.int64(DEAD_END), np.int64(-1)
                    if weights.max() > 0:
                        weigh_probabilities(weights, temperature)
                        token = draw(weights, top_k, top_p, min_p, uniform[row, number])
                        number += 1
                        texts[row, place] = token
            used[row] = number
            tokens[row, sizes[row]] = token
            live[row] = token != end and token != DEAD_END
            if token != DEAD_END:
                sizes[row] += 1
                contexts[row] = after if after >= 0 else follow(trie, context, token)


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
