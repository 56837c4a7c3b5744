"""Compiled loops that sample tokens from a trie for many rows at once. Must not know text."""

import numpy as np

from reviewgen.compiled import by_address, compiled, inlined, inner
from reviewgen.compiled.linear import add_up, log32
from reviewgen.compiled.sampling import DEAD_END, NONE, another_number, draw_allowed, draw_token, filter_probs, sharpen
from reviewgen.compiled.spelling import follows, rule_out_misspelled
from reviewgen.compiled.windows import copies, forbid
from reviewgen_ngram.trie import context_after, family, fill_row, find, follow, probability, search_end

PROPOSALS = 3  # rejected before a token is sampled from all probabilities
MAX_NUMBERS = 2 * PROPOSALS + 1  # random numbers that a token takes
MAX_MISSES = 8  # tokens of unknown words, after which one is sampled from all that are not


@compiled
def sample_plain(trie, ends, book, contexts, uniform, bos, end, limits, spelling, places, tokens, used):
    """Sample tokens at temperature 1, without filters or copy limit: as ``sample``, with ``_propose`` inlined, twice as fast.

    Args:
        trie: The model's.
        ends, book: The trie's; if one is None, the branch that needs it is not compiled.
        contexts, uniform, spelling, places, tokens, used: As in ``sample``.
        bos, end: The tokens at the beginning, which is never sampled, and at the end.
        limits: int64 (B,), the number of tokens that each row may get.
    """
    nodes, links, _, bases, children, probabilities, backoffs, _, root, heads = trie
    live, probs = np.ones(len(uniform), np.bool_), np.empty(len(root))
    sizes, misses = np.zeros(len(uniform), np.int64), np.zeros(len(uniform), np.int64)
    tokens[:] = NONE
    used[:] = 0
    for _ in range(uniform.shape[1]):
        for row in range(len(uniform)):
            if not live[row] or sizes[row] >= limits[row] or used[row] >= uniform.shape[1]:
                continue
            context, number, weight, low, high = contexts[row], uniform[row, used[row]], 1.0, 0, 0
            token, child = np.int64(NONE), np.int64(0)  # child: the node of the token
            while context != 0:
                start, stop = family(bases, children, context)
                passed = low
                for node in range(start, stop):
                    candidate = nodes[node]
                    while passed < high and nodes[passed] < candidate:
                        passed += 1
                    if passed < high and nodes[passed] == candidate:
                        passed += 1
                        continue
                    if book is None:
                        number -= weight * probabilities[node]
                    else:
                        number -= weight * book[np.int64(probabilities[node])]
                    if number < 0:
                        token, child = np.int64(candidate), node
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
                if token < 0:  # rounding has passed the last child, and the context leaves nothing for other tokens
                    _, token, _ = _last_possible(nodes, links, bases, children, probabilities, book, heads, contexts[row])
                    child = follow(trie, contexts[row], token)
                else:
                    child = np.int64(heads[token])
            used[row] += 1
            if spelling is not None:
                is_spelled, place = follows(spelling, places[row], token, end)
                if misses[row] < MAX_MISSES and (token == bos or not is_spelled):
                    misses[row] += 1
                    continue  # and propose another
                if misses[row] == MAX_MISSES:
                    fill_row(trie, contexts[row], probs)
                    probs[bos] = 0.0
                    rule_out_misspelled(spelling, places[row], end, probs, 0.0)
                    token, context = np.int64(DEAD_END), np.int64(-1)
                    if add_up(probs) > 0:
                        token = np.int64(draw_token(probs, uniform[row, used[row] - 1]))
                        child, place = follow(trie, contexts[row], token), follows(spelling, places[row], token, end)[1]
                misses[row] = 0
                places[row, 0], places[row, 1], places[row, 2] = place
            tokens[row, sizes[row]], live[row] = token, token != end and token != DEAD_END
            sizes[row] += 1
            if context < 0:
                contexts[row] = child
                continue
            if child < len(children):
                contexts[row] = child
            elif ends is None:
                contexts[row] = search_end(nodes, links, bases, children, heads, context, token)
            else:
                contexts[row] = np.int64(ends[child - len(children)])
    for row in range(len(uniform)):
        if live[row]:
            used[row] -= misses[row]  # the same numbers are passed again


@compiled
def sample(trie, contexts, uniform, params, proposals, windows, run, spelling, places, tails, new_tokens, tokens, used):
    """Sample tokens of B rows until each has ended, has its last token, or has too few random numbers left.

    Up to temperature 1, a token is proposed from the unsharpened distribution and accepted with probability
    p ** (1 / temperature - 1): exact rejection sampling (von Neumann 1951), which needs no probability but the token's own.

    Args:
        trie: The model's.
        contexts: int64 (B,), the state; updated.
        uniform: float64 (B, N), random numbers in [0, 1); a token takes at most MAX_NUMBERS.
        params: SamplingParams, of which the penalties, min_new_tokens and is_greedy are ignored.
        proposals: The number of proposals a token at temperatures up to 1, at most PROPOSALS; 0 if there are filters.
        windows, run, spelling: What the texts must not contain, as in ``choose``.
        places: int64 (B, 3), the ``place`` of each row; updated.
        tails: int64 (B, K), each row's last tokens, for the windows.
        new_tokens: int64 (B,), how many new tokens each row had before.
        tokens: int64 (B, N), output: tokens up to the end token or DEAD_END, then NONE.
        used: int64 (B,), output: how many random numbers each row used.
    """
    length, kept = uniform.shape[1], tails.shape[1]
    texts, live, sizes, probs = _allocate(trie, uniform, tails, tokens, used)
    nodes, links, ends, bases, children, probabilities, backoffs, book, root, heads = trie
    temperatures, top_k, top_p, min_p = params.temperatures, params.top_k, params.top_p, params.min_p
    end, bos, vocab_size = params.eos_id, params.bos_id, params.vocab_size
    for _ in range(length):
        for row in range(len(uniform)):
            count = new_tokens[row] + sizes[row]
            if not live[row] or used[row] + MAX_NUMBERS > length or count >= params.max_new_tokens:
                continue
            context, position, number = contexts[row], kept + sizes[row], used[row]
            token, after = np.int64(NONE), np.int64(-1)
            temperature = temperatures[count % len(temperatures)]
            place = (places[row, 0], places[row, 1], places[row, 2])
            for _ in range(proposals if temperature <= 1 else 0):
                candidate, p, following = _propose(
                    nodes, links, ends, bases, children, probabilities, backoffs, book, root, heads, context, uniform[row, number]
                )
                number += 1 if temperature == 1 else 2
                is_accepted = temperature == 1 or uniform[row, number - 1] < np.float32(p) ** np.float32(1 / temperature - 1)
                is_accepted = is_accepted and candidate < vocab_size and candidate != bos
                if spelling is not None and is_accepted:
                    is_accepted, place = follows(spelling, places[row], candidate, end)
                if is_accepted:
                    token, after = candidate, following
                    break
            own, is_drawn = uniform[row, number], token == NONE  # the number of a token that is not proposed
            if token == NONE:
                _compute_probs(trie, context, bos, vocab_size, temperature, probs)
                if windows is not None:  # None is a type: without windows, this is not compiled
                    filter_probs(probs, top_k, top_p, min_p)
                token = draw_allowed(probs, spelling, places[row], end, own)
                if spelling is not None:
                    if token == NONE:
                        _compute_probs(trie, context, bos, vocab_size, 1.0, probs)
                        rule_out_misspelled(spelling, places[row], end, probs, 0.0)
                        token = np.int64(DEAD_END)
                        if add_up(probs) > 0:
                            sharpen(probs, temperature)
                            if windows is not None:
                                filter_probs(probs, top_k, top_p, min_p)
                            own = another_number(own)
                            token = np.int64(draw_token(probs, own))
                    if token >= 0:
                        place = follows(spelling, places[row], token, end)[1]
            texts[row, position] = token
            if windows is not None and run > 0 and token >= 0 and token != end and copies(windows, texts[row], position, run):
                _compute_probs(trie, context, bos, vocab_size, 1.0, probs)
                forbid(windows, texts[row], position, run, probs)
                probs[end] = 0.0
                if spelling is not None:
                    rule_out_misspelled(spelling, places[row], end, probs, 0.0)
                token, after, is_drawn = np.int64(DEAD_END), np.int64(-1), True
                if add_up(probs) > 0:
                    sharpen(probs, temperature)
                    filter_probs(probs, top_k, top_p, min_p)
                    token = np.int64(draw_token(probs, another_number(own)))
                    texts[row, position] = token
                    if spelling is not None:
                        place = follows(spelling, places[row], token, end)[1]
            if spelling is not None and token != DEAD_END:
                places[row, 0], places[row, 1], places[row, 2] = place
            used[row] = number + is_drawn
            tokens[row, sizes[row]] = token
            live[row] = token != end and token != DEAD_END
            if token != DEAD_END:
                sizes[row] += 1
                contexts[row] = after if after >= 0 else follow(trie, context, token)


@by_address
def step(trie, ids, floats, ints, logits):
    """Feed a token to each text, and write the log probabilities after it; see ``reviewgen.compiled.steps``.

    Args:
        trie: The address of the model's trie.
        ids, logits: As there.
        floats: Not used.
        ints: The contexts.
    """
    model = trie[0]
    probs = np.empty(len(model.root))
    for row in range(len(logits)):
        if len(ids) > 0:
            ints[0, row] = follow(model, ints[0, row], ids[row])
        fill_row(model, ints[0, row], probs)
        scale = 1 / add_up(probs)
        for token in range(len(probs)):
            logits[row, token] = log32(np.float32(probs[token] * scale))


@inner
def _allocate(trie, uniform, tails, tokens, used):
    """Clear the outputs; return texts (B, K + N + 1) that begin with the tails, which rows are live, sizes, and a row (V,)."""
    rows, length = uniform.shape
    texts = np.zeros((rows, tails.shape[1] + length + 1), np.int64)
    for row in range(rows):
        for position in range(tails.shape[1]):  # to assign a slice would take seconds to compile
            texts[row, position] = tails[row, position]
    tokens[:] = NONE
    used[:] = 0
    return texts, np.ones(rows, np.bool_), np.zeros(rows, np.int64), np.empty(len(trie.root))


@inner
def _compute_probs(trie, context, bos, vocab_size, temperature, probs):
    """Write the unnormalised probability at a temperature of each token below ``vocab_size``; zero for the others and bos."""
    fill_row(trie, context, probs)
    probs[bos] = 0.0
    probs[vocab_size:] = 0.0
    sharpen(probs, temperature)


@inlined
def _propose(tokens, links, ends, bases, children, probabilities, backoffs, book, root, heads, context, number):
    """Return a token by inverse transform sampling, its probability and the context after it.

    The children of the longest context come first, then, context by context, those of a shorter one that the longer one lacks.
    The children of a longer context are also children of the shorter one.
    """
    started, weight, low, high = context, 1.0, 0, 0  # the children of the longer context are low:high
    token, node, mass = np.int64(-1), np.int64(0), 0.0
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
                token, node = np.int64(candidate), child
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
        if token < 0:  # rounding has passed the last child, and the context leaves nothing for other tokens
            context, token, mass = _last_possible(tokens, links, bases, children, probabilities, book, heads, started)
        node = np.int64(heads[token])
        if context != 0:
            node = find(tokens, bases, children, context, token)
    return token, mass, context_after(tokens, links, ends, bases, children, heads, context, node, token)


@inner
def _last_possible(tokens, links, bases, children, probabilities, book, heads, context):
    """Return the longest context that has a child of positive probability, and the last such child's token and probability."""
    while context != 0:
        start, stop = family(bases, children, context)
        for child in range(stop - 1, start - 1, -1):
            p = probability(probabilities, book, child)
            if p > 0:
                return context, np.int64(tokens[child]), p
        context = np.int64(links[context])
    return context, np.int64(np.argmax(heads)), 1.0
