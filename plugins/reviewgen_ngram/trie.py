"""A trained n-gram model as flat arrays, its saved form, and compiled queries.

The context of a text is the node of its longest suffix that is a context of the model. A token is
searched among that node's children, then among those of its link, and so on; each back-off
multiplies the probability by the context's back-off weight: the back-off form of ``estimate`` over
the nodes of ``nodes``. Node 0 is the empty context; as a child or as the result of a search, 0
means "none".

Names, dtypes and numbers of axes of the saved arrays depend on the settings only; sizes depend on
the data. A damaged array is an error when it is read, never a wrong probability later.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, Integer, Shaped

from reviewgen.compiled import compiled, inlined
from reviewgen.errors import BundleError
from reviewgen.protocols import TensorSpec
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.counts import token_dtype
from reviewgen_ngram.nodes import Nodes

GROUP_BITS = 4  # shifts are cheaper than divisions that round down
GROUP = 1 << GROUP_BITS  # contexts that share one base
# error of the probability that a shorter context leaves, computed as a difference from one
ROUNDING = 1e-6
TOLERANCE = 1e-4  # on the sum of the probabilities of a context


class Trie(NamedTuple):
    """A trained n-gram model as flat arrays: M nodes, the first I of them contexts, over V ids.

    The children of context i start at bases[i // 16] plus the number of children of the contexts in
    between, sorted by token.
    """

    tokens: Integer[np.ndarray, " M"]
    links: Int32[np.ndarray, " I"]  # the context without its first token
    # the same for the last level's E = M - I nodes; None: it is searched, which saves memory
    ends: Int32[np.ndarray, " E"] | None
    bases: Int32[np.ndarray, " G"]
    # the number of children; 0 for the empty context, whose children are in ``heads``
    children: Integer[np.ndarray, " I"]
    probabilities: Shaped[np.ndarray, " M"]  # float32, or, with a book, uint8: codes
    backoffs: Float32[np.ndarray, " I"]
    book: Float32[np.ndarray, " 256"] | None  # the probability of each code
    root: Float64[np.ndarray, " V"]  # the probability of each id after the empty context
    # the node of each id after the empty context, 0 if there is none
    heads: Int32[np.ndarray, " V"]


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


def make_trie(
    nodes: Nodes,
    probabilities: Shaped[np.ndarray, " M"],
    backoffs: Float32[np.ndarray, " I"],
    book: Float32[np.ndarray, " 256"] | None,
    root: Float64[np.ndarray, " V"],
) -> Trie:
    """Return the trie of estimated nodes; without ``ends`` if it has a book."""
    children = np.diff(nodes.first)
    children[0] = 0
    bases = nodes.first[:-1:GROUP].copy()
    bases[0] = nodes.starts[2]
    ends = None if book is not None else nodes.links[len(children) :]
    heads = _heads(nodes.tokens, nodes.starts, len(root))
    few = children.astype(nodes.tokens.dtype)  # at most one child for each id
    links = nodes.links[: len(children)]
    numbers = (probabilities, backoffs, book, root)
    return Trie(nodes.tokens, links, ends, bases, few, *numbers, heads)


def _heads(
    tokens: Integer[np.ndarray, " M"], starts: Int64[np.ndarray, " L"], vocab_size: int
) -> Int32[np.ndarray, " V"]:
    """Return the node of each id after the empty context; 0 for an id that has no node."""
    heads = np.zeros(vocab_size, np.int32)
    heads[tokens[starts[1] : starts[2]]] = np.arange(starts[1], starts[2], dtype=np.int32)
    return heads


def expect_arrays(config: NgramConfig) -> dict[str, TensorSpec]:
    """Return the name, dtype and shape of a model's arrays; sizes that depend on the data are
    None.
    """
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
    extra: dict[str, TensorSpec] = (
        {"book": ("float32", (256,))} if config.quantized else {"ends": ("int32", (None,))}
    )
    return specs | extra


def write_arrays(trained: Trained) -> dict[str, np.ndarray]:
    """Return the model as arrays that share its memory."""
    fields = trained.trie._asdict()
    del fields["heads"]
    arrays = {name: np.asarray(array) for name, array in fields.items() if array is not None}
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
    vocab_size = config.vocab_size
    order = config.order
    _check_specs(arrays, expect_arrays(config))
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    _require(arrays["bos_id"].size == 1, "bos_id", "holds one id, of a trained model")
    bos_id = int(arrays["bos_id"][0])
    _require(0 <= bos_id < vocab_size, "bos_id", f"lies in 0..{vocab_size - 1}")
    discounts = arrays["discounts"]
    _require(
        discounts.shape == (order, 3) and np.isfinite(discounts).all(),
        "discounts",
        f"holds {order} x 3 numbers",
    )
    starts = arrays["starts"]
    _check_sizes(arrays, starts, config)
    tokens = arrays["tokens"]
    root = arrays["root"]
    _require(
        (tokens >= 0) & (tokens.astype(np.int32) < vocab_size),
        "tokens",
        "holds ids of the vocabulary",
    )
    heads = _heads(tokens, starts, vocab_size)
    _require(heads[bos_id] > 0 and root[bos_id] == 0, "tokens", "holds bos as a context only")
    _require(tokens[starts[2] :] != bos_id, "tokens", "holds bos as a context only")
    _require((root >= 0) & (root <= 1), "root", "lies in 0..1")
    trie = Trie(**{name: arrays.get(name) for name in Trie._fields} | {"heads": heads})
    _check_nodes(trie, starts)
    stored = trie.probabilities if trie.book is None else trie.book
    _require((stored >= 0) & (stored <= 1), "probabilities", "lies in 0..1")
    _require(
        (trie.backoffs >= 0) & (trie.backoffs < np.inf), "backoffs", "is finite and not negative"
    )
    if config.is_distribution:
        _require(
            abs(root.sum() - 1) < TOLERANCE and _sums_to_one(trie),
            "backoffs",
            "makes the probabilities sum to one",
        )
    return Trained(trie, starts, bos_id, [(float(a), float(b), float(c)) for a, b, c in discounts])


def _check_specs(arrays: Mapping[str, np.ndarray], expected: Mapping[str, TensorSpec]) -> None:
    if odd := sorted(expected.keys() ^ arrays.keys()):
        problem = "missing" if odd[0] in expected else "unexpected"
        raise BundleError(
            f"The n-gram tensors do not fit the settings: {odd[0]!r} is {problem}. Save the model"
            " again."
        )
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        _require(array.dtype.name == dtype, name, f"has the dtype {dtype}, not {array.dtype}")
        _require(array.ndim == len(shape), name, f"has {len(shape)} axes, not {array.ndim}")


def _check_sizes(arrays: Mapping[str, np.ndarray], starts: np.ndarray, config: NgramConfig) -> None:
    order = config.order
    _require(len(starts) == order + 2, "starts", f"holds {order + 2} numbers, not {len(starts)}")
    _require(
        starts[0] == 0 and starts[1] == 1 < starts[2] and (np.diff(starts) >= 0).all(),
        "starts",
        "ascends from 0, 1",
    )
    nodes = int(starts[-1])
    contexts = int(starts[-2])
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
    for name, size in sizes.items():
        _require(
            len(arrays[name]) == size, name, f"holds {size:,} numbers, not {len(arrays[name]):,}"
        )


def _check_nodes(trie: Trie, starts: Int64[np.ndarray, " L"]) -> None:
    """Raise unless the children of every context are in order, and links lead to the contexts
    without the first token.
    """
    tokens = trie.tokens
    children = trie.children
    # where the children of each context start
    first = starts[2] + np.concatenate([[0], np.cumsum(children, dtype=np.int64)])
    adds_up = (
        children[0] == 0
        and (children >= 0).all()
        and np.array_equal(first[starts[1:-1]], starts[2:])
    )
    _require(adds_up, "children", "adds up to the nodes of each level")
    _require(trie.bases == first[:-1:GROUP], "bases", "agrees with children")
    ascends = np.concatenate([[True], tokens[1:] > tokens[:-1]])
    ascends[1] = ascends[first[first < len(tokens)]] = True  # the first child of each context
    _require(ascends, "tokens", "ascends within every context")
    for level in range(1, len(starts) - 1):
        span = slice(*starts[level : level + 2].tolist())
        links = trie.ends if level == len(starts) - 2 else trie.links[span]
        if links is not None:
            is_inside = ((links >= starts[level - 1]) & (links < starts[level])).all()
            is_same = is_inside and (level == 1 or np.array_equal(tokens[links], tokens[span]))
            _require(is_same, "links", "points to the same n-gram without its first token")


@compiled
def _sums_to_one(trie):
    """Return whether the probabilities after every context sum to one; without ``ends``, the last
    contexts would take too long and are not checked.
    """
    links = trie.links
    ends = trie.ends
    backoffs = trie.backoffs
    for context in range(1, len(backoffs)):
        low, high = family(trie.bases, trie.children, context)
        if high > len(links) and ends is None:
            break
        seen = 0.0
        lower = 0.0
        for child in range(low, high):
            link = (
                np.int64(links[child])
                if child < len(links)
                else stored_end(ends, child - len(links))
            )
            seen += probability(trie.probabilities, trie.book, child)
            lower += (
                trie.root[trie.tokens[link]]
                if links[context] == 0
                else probability(trie.probabilities, trie.book, link)
            )
        if (
            not abs(seen + backoffs[context] * (1 - lower) - 1)
            < TOLERANCE + backoffs[context] * ROUNDING
        ):
            return False
    return True


def _require(holds: Any, name: str, condition: str) -> None:
    """Raise unless a condition, or each of an array, is true."""
    if not np.all(holds):
        raise BundleError(
            f"The n-gram tensors are damaged or belong to other settings: the tensor {name!r} is"
            f" valid only if it {condition}."
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
    """Return the context of a text after a token, from the context before it and the token's node
    among the children of that context.
    """
    if child < len(children):
        return child
    end = stored_end(ends, child - len(children))
    if end < 0:
        end = _search_end(tokens, links, bases, children, heads, context, token)
    return end


@compiled
def stored_end(ends, index):
    """Return the link of a node of the last level, -1 if links are not stored. None is a type, so
    only one branch is compiled.
    """
    if ends is None:
        return np.int64(-1)
    return np.int64(ends[index])


@compiled
def _search_end(tokens, links, bases, children, heads, context, token):
    """Search and return the link of a context's child in the last level."""
    if context == 0:
        return np.int64(0)
    shorter = np.int64(links[context])
    return find(tokens, bases, children, shorter, token) if shorter != 0 else np.int64(heads[token])


@inlined
def _look_up(tokens, links, bases, children, backoffs, heads, context, token):
    """Return the longest suffix of a context after which a token was seen, its node there, and the
    weight of that suffix.

    Arrays instead of a trie, here and in other inner functions, make the loops up to twice as fast.
    """
    weight = 1.0
    child = np.int64(0)
    while context != 0:
        child = find(tokens, bases, children, context, token)
        if child != 0:
            break
        weight *= backoffs[context]
        context = np.int64(links[context])
    return context, child if context != 0 else np.int64(heads[token]), weight


@compiled
def follow(trie, context, token):
    """Return the context after a token that follows a context."""
    tokens, links, ends, bases, children, _, backoffs, _, _, heads = trie
    context, child, _ = _look_up(tokens, links, bases, children, backoffs, heads, context, token)
    return context_after(tokens, links, ends, bases, children, heads, context, child, token)


@compiled
def advance(trie, ids, contexts, after):
    """Write the context after each of ids (B, T) to ``after`` (B, T), starting from ``contexts``
    (B,).
    """
    for row in range(ids.shape[0]):
        context = contexts[row]
        for t in range(ids.shape[1]):
            context = follow(trie, context, ids[row, t])
            after[row, t] = context


@compiled
def probability_after(trie, context, token):
    """Return the probability of a token after a context."""
    tokens, links, _, bases, children, probabilities, backoffs, book, root, heads = trie
    context, child, weight = _look_up(
        tokens, links, bases, children, backoffs, heads, context, token
    )
    return weight * (root[token] if context == 0 else probability(probabilities, book, child))


@compiled
def score(trie, ids, targets, contexts, scores):
    """Write p(targets[b, t] | ids[b, :t + 1]) to ``scores``, float64 (B, T), and update
    ``contexts`` (B,) to the end of ids.

    Rows take turns, so that one waits for memory while another computes. Mostly the next id is the
    last target, whose node was just found.
    """
    tokens, links, ends, bases, children, probabilities, backoffs, book, root, heads = trie
    rows, length = ids.shape
    following = np.full(rows, -1, np.int64)
    for t in range(length):
        for row in range(rows):
            context = (
                following[row] if following[row] >= 0 else follow(trie, contexts[row], ids[row, t])
            )
            contexts[row] = context
            token = np.int64(targets[row, t])
            context, child, weight = _look_up(
                tokens, links, bases, children, backoffs, heads, context, token
            )
            scores[row, t] = weight * (
                root[token] if context == 0 else probability(probabilities, book, child)
            )
            following[row] = -1
            if t + 1 < length and ids[row, t + 1] == token:
                following[row] = context_after(
                    tokens, links, ends, bases, children, heads, context, child, token
                )


@compiled
def fill_row(trie, context, row):
    """Write the probability of every id after a context to ``row``, float64 (V,).

    From the empty context to the longest, each overwrites the probabilities of its children.
    """
    tokens, links, _, bases, children, probabilities, backoffs, book, root, _ = trie
    length = 0
    shorter = context
    while shorter != 0:
        length += 1
        shorter = np.int64(links[shorter])
    contexts = np.empty(length, np.int64)
    weights = np.empty(length)
    weight = 1.0
    for position in range(length):
        contexts[position] = context
        weights[position] = weight
        weight *= backoffs[context]
        context = np.int64(links[context])
    for token in range(len(row)):
        row[token] = weight * root[token]
    for position in range(length - 1, -1, -1):
        low, high = family(bases, children, contexts[position])
        for child in range(low, high):
            row[np.int64(tokens[child])] = weights[position] * probability(
                probabilities, book, child
            )


@compiled
def _fill_rows(trie, contexts, rows):
    """Write the probability of every id after each context (R,) to ``rows``, float64 (R, V)."""
    for row in range(len(contexts)):
        fill_row(trie, contexts[row], rows[row])


def log_probabilities(
    trie: Trie, contexts: Int64[np.ndarray, " R"], is_distribution: bool
) -> Float64[np.ndarray, "R V"]:
    """Return the log probability of every id after each context; scores that do not sum to one are
    normalised.
    """
    rows = np.empty((len(contexts), len(trie.root)))
    _fill_rows(trie, contexts, rows)
    if not is_distribution:
        rows /= rows.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):  # zero becomes -inf
        return np.log(rows)
