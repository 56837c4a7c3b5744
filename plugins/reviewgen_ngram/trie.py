"""A trained n-gram model as flat arrays, its saved form, and compiled queries.

The context of a text is the node of its longest suffix that is a context of the model. A token is searched among that node's
children, then among those of its link, and so on; each back-off multiplies the probability by the context's back-off weight: the
back-off form of ``estimate`` over the nodes of ``nodes``. Node 0 is the empty context; as a child or as the result of a search,
0 means "none".

Names, dtypes and numbers of axes of the saved arrays depend on the settings only; sizes depend on the data. A damaged array is
an error when it is read, never a wrong probability later.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, Integer, Shaped

from reviewgen.compiled import compiled, inlined
from reviewgen.errors import BundleError
from reviewgen.protocols import TensorSpec
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.counts import token_dtype
from reviewgen_ngram.estimate import Estimate, root_row
from reviewgen_ngram.nodes import Nodes
from reviewgen_ngram.prune import Quantized

GROUP_BITS = 4  # shifts are cheaper than divisions that round down
GROUP = 1 << GROUP_BITS  # contexts that share one base
TOO_LARGE = np.int64(1 << 40)  # above any link
ROUNDING = 1e-6  # error of the probability that a shorter context leaves, computed as a difference from one
TOLERANCE = 1e-4  # on the sum of the probabilities of a context


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


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        trie: The probabilities.
        starts: The first node of each level, and the number of nodes; L = order + 2.
        bos_id: The id that begins every text.
        discounts: The discounts of each order.
    """

    trie: Trie
    starts: Int64[np.ndarray, " L"]
    bos_id: int
    discounts: list[tuple[float, float, float]]


def make_trie(nodes: Nodes, estimated: Estimate, quantized: Quantized | None, vocab_size: int, bos_id: int) -> Trie:
    """Return the trie of estimated nodes; without ``ends`` if it is quantised."""
    children = np.diff(nodes.first)
    children[0] = 0
    bases = nodes.first[:-1:GROUP].copy()
    bases[0] = nodes.starts[2]
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
        heads=_heads(nodes.tokens, nodes.starts, vocab_size),
    )


def _heads(tokens: Integer[np.ndarray, " M"], starts: Int64[np.ndarray, " L"], vocab_size: int) -> Int32[np.ndarray, " V"]:
    """Return the node of each id after the empty context, 0 if there is none."""
    heads = np.zeros(vocab_size, np.int32)
    heads[tokens[starts[1] : starts[2]]] = np.arange(starts[1], starts[2], dtype=np.int32)
    return heads


def expect_arrays(config: NgramConfig) -> dict[str, TensorSpec]:
    """Return the name, dtype and shape of a model's arrays; sizes that depend on the data are None."""
    token = token_dtype(config.vocab_size).name
    specs: dict[str, TensorSpec] = {
        "bos_id": ("int64", (None,)),
        "starts": ("int64", (None,)),
        "tokens": (token, (None,)),
        "links": ("int32", (None,)),
        "bases": ("int32", (None,)),
        "children": (token, (None,)),
        "probabilities": ("uint8" if config.quantized else "float32", (None,)),
        "backoffs": ("float32", (None,)),
        "root": ("float64", (config.vocab_size,)),
        "discounts": ("float64", (None, 3)),
    }
    own: dict[str, TensorSpec] = {"book": ("float32", (256,))} if config.quantized else {"ends": ("int32", (None,))}
    return specs | own


def write_arrays(trained: Trained) -> dict[str, np.ndarray]:
    """Return the model as arrays that share its memory."""
    trie = trained.trie
    names = ("tokens", "links", "bases", "children", "probabilities", "backoffs", "root", "ends", "book")
    arrays = {name: np.asarray(array) for name in names if (array := getattr(trie, name)) is not None}
    return arrays | {
        "bos_id": np.array([trained.bos_id], np.int64),
        "starts": np.asarray(trained.starts),
        "discounts": np.array(trained.discounts, np.float64),
    }


def read_arrays(arrays: Mapping[str, np.ndarray], config: NgramConfig) -> Trained:
    """Return the model that is saved in arrays.

    Raises:
        BundleError: An array is missing, unexpected, of another dtype or shape, or damaged.
    """
    vocab_size, order = config.vocab_size, config.order
    _check_specs(arrays, expect_arrays(config))
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    _require(arrays["bos_id"].size == 1, "bos_id", "holds one id, of a trained model")
    bos_id = int(arrays["bos_id"][0])
    _require(0 <= bos_id < vocab_size, "bos_id", f"lies in 0..{vocab_size - 1}")
    discounts = arrays["discounts"]
    _require(discounts.shape == (order, 3) and bool(np.isfinite(discounts).all()), "discounts", f"holds {order} x 3 numbers")
    starts = arrays["starts"]
    _check_sizes(arrays, starts, config)
    level = arrays["tokens"][starts[1] : starts[2]]
    _require(bool((level >= 0).all() and (level.astype(np.int64) < vocab_size).all()), "tokens", "holds ids of the vocabulary")
    heads = _heads(arrays["tokens"], starts, vocab_size)
    _require(bool(heads[bos_id] > 0), "tokens", "holds bos as a context")
    trie = Trie(
        **{name: arrays[name] for name in ("tokens", "links", "bases", "children", "probabilities", "backoffs", "root")},
        ends=arrays.get("ends"),
        book=arrays.get("book"),
        heads=heads,
    )
    fault = _find_fault(trie, starts, bos_id, config.is_distribution)
    _require(fault == 0, *FAULTS[int(fault)])
    return Trained(trie, starts, bos_id, [(float(a), float(b), float(c)) for a, b, c in discounts])


FAULTS = {
    0: ("", ""),
    1: ("bases", "agrees with children"),
    2: ("children", "adds up to the nodes of each level"),
    3: ("tokens", "ascends within every context"),
    4: ("tokens", "holds ids of the vocabulary, and bos as a context only"),
    5: ("links", "points to the same n-gram without its first token"),
    6: ("probabilities", "lies in 0..1"),
    7: ("backoffs", "is finite and not negative"),
    8: ("backoffs", "makes the probabilities of every context sum to one"),
}


def _check_specs(arrays: Mapping[str, np.ndarray], expected: Mapping[str, TensorSpec]) -> None:
    for problem, names in ("missing", expected.keys() - arrays.keys()), ("unexpected", arrays.keys() - expected.keys()):
        if names:
            raise BundleError(f"The n-gram tensors do not fit the settings: {min(names)!r} is {problem}. Save the model again.")
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        _require(array.dtype.name == dtype, name, f"has the dtype {dtype}, not {array.dtype}")
        _require(array.ndim == len(shape), name, f"has {len(shape)} axes, not {array.ndim}")


def _check_sizes(arrays: Mapping[str, np.ndarray], starts: np.ndarray, config: NgramConfig) -> None:
    order = config.order
    _require(len(starts) == order + 2, "starts", f"holds {order + 2} numbers, not {len(starts)}")
    ascends = starts[0] == 0 and starts[1] == 1 and starts[2] > 1 and bool((starts[1:] >= starts[:-1]).all())
    _require(bool(ascends), "starts", "ascends from 0, 1")
    nodes, contexts = int(starts[-1]), int(starts[-2])
    sizes = {
        "tokens": nodes,
        "links": contexts,
        "bases": -(-contexts // GROUP),
        "children": contexts,
        "probabilities": nodes,
        "backoffs": contexts,
        "root": config.vocab_size,
    }
    sizes |= {"book": 256} if config.quantized else {"ends": nodes - contexts}
    if config.quantized:
        _require(bool(((arrays["book"] >= 0) & (arrays["book"] <= 1)).all()), "book", "lies in 0..1")
    for name, size in sizes.items():
        _require(len(arrays[name]) == size, name, f"holds {size:,} numbers, not {len(arrays[name]):,}")
    root = arrays["root"]
    _require(bool(np.isfinite(root).all() and (root >= 0).all() and (root <= 1).all()), "root", "lies in 0..1")


@compiled
def _find_fault(trie, starts, bos, is_distribution):
    """Return the first fault, a key of FAULTS; every value is checked before it is used as an index."""
    tokens, links, ends, bases, children, _, _, _, root, _ = trie
    contexts, vocab_size = len(children), len(root)
    if is_distribution and not abs(root.sum() - 1) < TOLERANCE:
        return 8
    level, first = 1, starts[2] if contexts > 1 else starts[1]
    if children[0] != 0 or root[bos] != 0:
        return 4
    for node in range(1, starts[2]):
        if np.int64(tokens[node]) < 0 or np.int64(tokens[node]) >= vocab_size:
            return 4
        if node > 1 and tokens[node] <= tokens[node - 1]:
            return 3
        if _stored_link(links, ends, node) > 0:
            return 5
    for node in range(1, contexts):
        while node >= starts[level + 1]:
            level += 1
        if node == starts[level] and first != starts[level + 1]:
            return 2
        if node % GROUP == 0 and bases[node // GROUP] != first:
            return 1
        count = np.int64(children[node])
        if count < 0 or first + count > starts[level + 2]:
            return 2
        before = np.int64(-1)
        for child in range(first, first + count):
            token = np.int64(tokens[child])
            if token <= before:
                return 3
            if token >= vocab_size or token == bos:
                return 4
            before = token
            link = _stored_link(links, ends, child)
            if link >= 0 and (link < starts[level] or link >= starts[level + 1] or tokens[link] != tokens[child]):
                return 5
        first += count
    if bases[0] != (starts[2] if contexts > 1 else bases[0]) or first != (len(tokens) if contexts > 1 else first):
        return 2
    return _find_fault_in_probabilities(trie, is_distribution)


@compiled
def _stored_link(links, ends, node):
    """Return a node's link; -1 if links are not stored, and TOO_LARGE if the stored one is negative."""
    link = np.int64(links[node]) if node < len(links) else stored_end(ends, node - len(links))
    return link if link >= 0 or (node >= len(links) and ends is None) else TOO_LARGE


@compiled
def _find_fault_in_probabilities(trie, is_distribution):
    """Return the first fault of the probabilities, once all indices are valid; without ``ends`` the last sums cost too much."""
    _, links, ends, bases, children, probabilities, backoffs, book, root, _ = trie
    for node in range(len(probabilities)):
        if not 0 <= probability(probabilities, book, node) <= 1:
            return 6
    for context in range(len(backoffs)):
        if not 0 <= backoffs[context] < np.inf:
            return 7
    for context in range(1, len(backoffs) if is_distribution else 0):
        low, high = family(bases, children, context)
        if high > len(links) and ends is None:
            break
        seen, lower = 0.0, 0.0
        for child in range(low, high):
            link = _stored_link(links, ends, child)
            seen += probability(probabilities, book, child)
            lower += root[trie.tokens[link]] if links[context] == 0 else probability(probabilities, book, link)
        if not abs(seen + backoffs[context] * (1 - lower) - 1) < TOLERANCE + backoffs[context] * ROUNDING:
            return 8
    return 0


def _require(holds: bool, name: str, condition: str) -> None:
    if not holds:
        raise BundleError(
            f"The n-gram tensors are damaged or belong to other settings: the tensor {name!r} is valid only if it {condition}."
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
