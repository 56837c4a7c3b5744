"""A trained n-gram model as flat arrays, and compiled queries: the back-off form of ``estimate`` over the nodes of ``nodes``.

The context of a text is the node of its longest suffix that is a context of the model. A token is searched among that node's
children, then among those of its link, and so on; each back-off multiplies the probability by the context's back-off weight.
Node 0 is the empty context; as a child or as the result of a search, 0 means "none".
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Integer, Shaped

from reviewgen.compiled import compiled, inlined
from reviewgen_ngram.estimate import Estimate, root_row
from reviewgen_ngram.nodes import Nodes
from reviewgen_ngram.prune import Quantized

GROUP_BITS = 4  # shifts are cheaper than divisions that round down
GROUP = 1 << GROUP_BITS  # contexts that share one base


class Trie(NamedTuple):
    """A trained n-gram model as flat arrays: M nodes, the first I of them contexts, over V ids.

    The children of context i start at bases[i // 16] plus the number of children of the contexts in between, sorted by token.
    """

    tokens: Integer[np.ndarray, " M"]
    links: Int32[np.ndarray, " I"]  # the context without its first token
    ends: Int32[np.ndarray, " E"] | None  # the same of the last level's E = M - I nodes; None: searched, with less memory
    bases: Int32[np.ndarray, " G"]
    children: Integer[np.ndarray, " I"]  # the number of children; 0 for the empty context, whose children are in ``heads``
    probabilities: Shaped[np.ndarray, " M"]  # float32, or, with a book, uint8: codes
    backoffs: Float32[np.ndarray, " I"]
    book: Float32[np.ndarray, " 256"] | None  # the probability of each code
    root: Float64[np.ndarray, " V"]  # the probability of each id after the empty context
    heads: Int32[np.ndarray, " V"]  # the node of each id after the empty context, 0 if there is none


def make_trie(nodes: Nodes, estimated: Estimate, quantized: Quantized | None, vocab_size: int, bos_id: int) -> Trie:
    """Return the trie of estimated nodes; without ``ends`` if it is quantised."""
    children = np.diff(nodes.first)
    children[0] = 0
    bases = nodes.first[:-1:GROUP].copy()
    bases[0] = nodes.starts[2]
    first, stop = int(nodes.starts[1]), int(nodes.starts[2])
    heads = np.zeros(vocab_size, np.int32)
    heads[nodes.tokens[first:stop]] = np.arange(first, stop, dtype=np.int32)
    return Trie(
        tokens=nodes.tokens,
        links=nodes.links[: len(children)],
        ends=nodes.links[len(children) :] if quantized is None else None,
        bases=bases,
        children=children.astype(nodes.tokens.dtype),
        probabilities=estimated.probabilities if quantized is None else quantized.codes,
        backoffs=estimated.backoffs if quantized is None else quantized.backoffs,
        book=None if quantized is None else quantized.book,
        root=root_row(nodes, estimated, vocab_size, bos_id),
        heads=heads,
    )


@inlined
def family(bases, children, node):
    """Return the range of nodes that are children of a context other than the empty one."""
    start = np.int64(bases[node >> GROUP_BITS])
    for before in range(node >> GROUP_BITS << GROUP_BITS, node):
        start += np.int64(children[before])
    return start, start + np.int64(children[node])


@inlined
def find(tokens, bases, children, node, token):
    """Return the child node for a token of a non-empty context, 0 if it has none."""
    low, high = family(bases, children, node)
    while high - low > 8:
        middle = (low + high) >> 1
        if tokens[middle] <= token:
            low = middle
        else:
            high = middle
    match = np.int64(0)
    for child in range(low, high):
        if tokens[child] == token:
            match = child
            break
    return match


@compiled
def probability(probabilities, book, node):
    """Return the stored probability of a node's token after its parent."""
    if book is None:
        return np.float64(probabilities[node])
    return np.float64(book[np.int64(probabilities[node])])


@inlined
def context_after(tokens, links, ends, bases, children, heads, context, child, token):
    """Return the next context of a text after a token that was found as a child of a context, given both nodes."""
    if child < len(children):
        return child
    end = stored_end(ends, child - len(children))
    if end < 0:
        end = search_end(tokens, links, bases, children, heads, context, token)
    return end


@compiled
def stored_end(ends, index):
    """Return the link of a node of the last level, -1 if links are not stored. None is a type, so only one branch is compiled."""
    if ends is None:
        return np.int64(-1)
    return np.int64(ends[index])


@compiled
def search_end(tokens, links, bases, children, heads, context, token):
    """Search and return the link of a context's child in the last level."""
    if context == 0:
        return np.int64(0)
    shorter = np.int64(links[context])
    return find(tokens, bases, children, shorter, token) if shorter != 0 else np.int64(heads[token])


@compiled
def follow(trie, context, token):
    """Return the context after a token that follows a context."""
    tokens, links, ends, bases, children, _, _, _, _, heads = trie
    while context != 0:
        child = find(tokens, bases, children, context, token)
        if child != 0:
            return context_after(tokens, links, ends, bases, children, heads, context, child, token)
        context = np.int64(links[context])
    return context_after(tokens, links, ends, bases, children, heads, context, np.int64(heads[token]), token)


@compiled
def advance(trie, ids, contexts, after):
    """Write the context after each of ids (B, T) to ``after`` (B, T), starting from ``contexts`` (B,)."""
    for row in range(ids.shape[0]):
        context = contexts[row]
        for t in range(ids.shape[1]):
            context = follow(trie, context, ids[row, t])
            after[row, t] = context


@compiled
def score(trie, ends, book, ids, targets, contexts, scores):
    """Write p(targets[b, t] | ids[b, :t + 1]) to ``scores``, float64 (B, T), and update ``contexts`` (B,) to the end of ids.

    Rows take turns, so that one waits for memory while another computes. Mostly the next id is the last target, whose node was
    just found. ``ends`` and ``book`` are the trie's: passed by themselves, numba compiles only the branch for None or for an
    array, and the inner loop is twice as fast.
    """
    tokens, links, _, bases, children, probabilities, backoffs, _, root, heads = trie
    rows, length = ids.shape
    following = np.full(rows, -1, np.int64)
    for t in range(length):
        for row in range(rows):
            context = following[row] if following[row] >= 0 else follow(trie, contexts[row], ids[row, t])
            contexts[row] = context
            token, weight, child = np.int64(targets[row, t]), 1.0, np.int64(0)
            while context != 0:
                child = find(tokens, bases, children, context, token)
                if child != 0:
                    break
                weight *= backoffs[context]
                context = np.int64(links[context])
            if context == 0:
                child = np.int64(heads[token])
                scores[row, t] = weight * root[token]
            elif book is None:
                scores[row, t] = weight * probabilities[child]
            else:
                scores[row, t] = weight * book[np.int64(probabilities[child])]
            if t + 1 == length or ids[row, t + 1] != token:
                following[row] = -1
            elif child < len(children):
                following[row] = child
            elif ends is None:
                following[row] = search_end(tokens, links, bases, children, heads, context, token)
            else:
                following[row] = np.int64(ends[child - len(children)])


@compiled
def fill_row(trie, context, row):
    """Write the probability of every id after a context to ``row``, float64 (V,).

    From the empty context to the longest, each overwrites the probabilities of its children: no test of what is there.
    """
    tokens, links, _, bases, children, probabilities, backoffs, book, root, _ = trie
    length, shorter = 0, context
    while shorter != 0:
        length += 1
        shorter = np.int64(links[shorter])
    contexts, weights = np.empty(length, np.int64), np.empty(length)
    weight = 1.0
    for position in range(length):
        contexts[position], weights[position] = context, weight
        weight *= backoffs[context]
        context = np.int64(links[context])
    for token in range(len(row)):
        row[token] = weight * root[token]
    for position in range(length - 1, -1, -1):
        low, high = family(bases, children, contexts[position])
        for child in range(low, high):
            row[np.int64(tokens[child])] = weights[position] * probability(probabilities, book, child)


@compiled
def dense(trie, contexts, rows):
    """Write the probability of every id after each context (R,) to ``rows``, float64 (R, V)."""
    for row in range(len(contexts)):
        fill_row(trie, contexts[row], rows[row])
