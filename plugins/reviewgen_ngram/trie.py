"""A trained n-gram model as flat arrays, its saved form, and compiled queries.

Nodes, children and links are those of ``nodes``; a *context* is a node that can have children. The
context of a text is its longest suffix that is a context of the model. The probability of a token
is found by the back-off form of ``estimate``: the token is searched among the children of the
context, then among the children of the context's link, and so on. Each step from a context to its
link multiplies the probability by the back-off weight of the context.

Node 0 is the empty context. No node has it as a child, so 0 also means that a search found no node.

The names, dtypes and numbers of axes of the saved arrays depend on the settings only; their sizes
depend on the data. Arrays are checked when they are read, so that damaged ones raise an error and
never give wrong probabilities.
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

GROUP_BITS = 4  # a shift by this number of bits is cheaper than a division by GROUP
GROUP = 1 << GROUP_BITS  # number of contexts that share one entry of ``bases``
# max rounding error of the probability of all unseen tokens, which is computed as one minus that of
# the seen tokens
ROUNDING = 1e-6
TOLERANCE = 1e-4  # max error of the sum of the probabilities after a context


class Trie(NamedTuple):
    """A trained n-gram model over V ids as flat arrays: M nodes, of which the first I are contexts.

    The children of a context are neighbours, sorted by token. The first child of context i is node
    bases[i // 16] plus the sum of ``children`` over the contexts from i // 16 * 16 to i - 1.
    """

    tokens: Integer[np.ndarray, " M"]
    links: Int32[np.ndarray, " I"]  # the link of each context
    # the links of the E = M - I nodes of the last level; None: they are searched, to save memory
    ends: Int32[np.ndarray, " E"] | None
    bases: Int32[np.ndarray, " G"]  # the first child of the first of each 16 contexts
    # the number of children of each context; 0 for the empty one, whose children are in ``heads``
    children: Integer[np.ndarray, " I"]
    # float32, the probability of each node's token after its parent; with a book uint8, its code
    probabilities: Shaped[np.ndarray, " M"]
    backoffs: Float32[np.ndarray, " I"]
    book: Float32[np.ndarray, " 256"] | None  # the probability of each code
    root: Float64[np.ndarray, " V"]  # the probability of each id after the empty context
    # the 1-gram node of each id, a child of the empty context; 0 if there is none
    heads: Int32[np.ndarray, " V"]


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        trie: The nodes and their probabilities.
        starts: The first node of each level, then the number of nodes; L = order + 2.
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
    """Return the trie of estimated nodes. If there is a book, that is, if the trie is quantised, it
    has no ``ends``.
    """
    child_counts = np.diff(nodes.first)
    child_counts[0] = 0  # the children of the empty context are in ``heads``
    bases = nodes.first[:-1:GROUP].copy()
    bases[0] = nodes.starts[2]
    links = nodes.links[: len(child_counts)]
    ends = None if book is not None else nodes.links[len(child_counts) :]
    # the dtype of tokens is large enough, since a context has at most one child for each id
    children = child_counts.astype(nodes.tokens.dtype)
    heads = _heads(nodes.tokens, nodes.starts, len(root))
    return Trie(
        nodes.tokens, links, ends, bases, children, probabilities, backoffs, book, root, heads
    )


def _heads(
    tokens: Integer[np.ndarray, " M"], starts: Int64[np.ndarray, " L"], vocab_size: int
) -> Int32[np.ndarray, " V"]:
    """Return the 1-gram node of each id; 0 for an id that has no node."""
    heads = np.zeros(vocab_size, np.int32)
    heads[tokens[starts[1] : starts[2]]] = np.arange(starts[1], starts[2], dtype=np.int32)
    return heads


def expect_arrays(config: NgramConfig) -> dict[str, TensorSpec]:
    """Return the name, dtype and shape of each array of a model. A size that depends on the data is
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
    if config.quantized:
        specs["book"] = ("float32", (256,))
    else:
        specs["ends"] = ("int32", (None,))
    return specs


def write_arrays(trained: Trained) -> dict[str, np.ndarray]:
    """Return the arrays of a model that are saved; they share its memory."""
    fields = trained.trie._asdict()
    del fields["heads"]  # follows from the others
    arrays = {name: np.asarray(array) for name, array in fields.items() if array is not None}
    return arrays | {
        "bos_id": np.array([trained.bos_id], np.int64),
        "starts": np.asarray(trained.starts),
        "discounts": np.array(trained.discounts, np.float64),
    }


def read_arrays(arrays: Mapping[str, np.ndarray], config: NgramConfig) -> Trained:
    """Check saved arrays, and return the model that they contain.

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
            sums_to_one(trie),
            "backoffs",
            "makes the probabilities sum to one",
        )
    return Trained(trie, starts, bos_id, [(float(a), float(b), float(c)) for a, b, c in discounts])


def _check_specs(arrays: Mapping[str, np.ndarray], expected: Mapping[str, TensorSpec]) -> None:
    """Raise unless the arrays have the expected names, dtypes and numbers of axes."""
    # the names that only one of the two has
    if unpaired := sorted(expected.keys() ^ arrays.keys()):
        name = unpaired[0]
        problem = "missing" if name in expected else "unexpected"
        raise BundleError(
            f"The n-gram tensors do not fit the settings: {name!r} is {problem}. Save the model"
            " again."
        )
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        _require(array.dtype.name == dtype, name, f"has the dtype {dtype}, not {array.dtype}")
        _require(array.ndim == len(shape), name, f"has {len(shape)} axes, not {array.ndim}")


def _check_sizes(arrays: Mapping[str, np.ndarray], starts: np.ndarray, config: NgramConfig) -> None:
    """Raise unless the sizes of the arrays agree with ``starts`` and the settings."""
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
    """Raise unless the nodes form a trie.

    The children of every context must be sorted, and every link must lead to a node of the level
    before with the same last token.
    """
    tokens = trie.tokens
    children = trie.children
    # the first child of each context
    first = starts[2] + np.concatenate([[0], np.cumsum(children, dtype=np.int64)])
    adds_up = (
        children[0] == 0
        and (children >= 0).all()
        and np.array_equal(first[starts[1:-1]], starts[2:])
    )
    _require(adds_up, "children", "adds up to the nodes of each level")
    _require(trie.bases == first[:-1:GROUP], "bases", "agrees with children")
    # whether each token is larger than the one before, or belongs to the first child of a context,
    # which may have any token
    ascends = np.concatenate([[True], tokens[1:] > tokens[:-1]])
    ascends[1] = True
    ascends[first[first < len(tokens)]] = True
    _require(ascends, "tokens", "ascends within every context")
    for level in range(1, len(starts) - 1):
        span = slice(*starts[level : level + 2].tolist())
        links = trie.ends if level == len(starts) - 2 else trie.links[span]
        if links is None:
            continue
        is_inside = ((links >= starts[level - 1]) & (links < starts[level])).all()
        is_same = is_inside and (level == 1 or np.array_equal(tokens[links], tokens[span]))
        _require(is_same, "links", "points to the same n-gram without its first token")


def sums_to_one(trie: Trie) -> bool:
    """Return whether the probabilities after every context sum to one."""
    return bool(abs(trie.root.sum() - 1) < TOLERANCE and _contexts_sum_to_one(trie))


@compiled
def _contexts_sum_to_one(trie):
    """Return whether the probabilities after every context but the empty one sum to one.

    Without ``ends``, contexts whose children are on the last level are not checked, since searching
    the links of these children would take too long.
    """
    links = trie.links
    ends = trie.ends
    backoffs = trie.backoffs
    for context in range(1, len(backoffs)):
        low, high = family(trie.bases, trie.children, context)
        if high > len(links) and ends is None:
            break
        seen = 0.0  # total probability of the tokens seen after the context
        lower = 0.0  # total probability of the same tokens after the next shorter context
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
        # written with ``not``, so that NaN fails, too
        if (
            not abs(seen + backoffs[context] * (1 - lower) - 1)
            < TOLERANCE + backoffs[context] * ROUNDING
        ):
            return False
    return True


def _require(holds: Any, name: str, condition: str) -> None:
    """Raise unless ``holds`` is true; if it is an array, unless each element is.

    Args:
        holds: Whether the tensor is valid.
        name: The name of the tensor.
        condition: What is required of the tensor, for the message "the tensor is valid only if it
            ...". It may go on with what the tensor has instead.
    """
    if not np.all(holds):
        raise BundleError(
            f"The n-gram tensors are damaged or belong to other settings: the tensor {name!r} is"
            f" valid only if it {condition}."
        )


@inlined
def family(bases, children, node):
    """Return the range of the children of a context that is not the empty one."""
    start = np.int64(bases[node >> GROUP_BITS])
    for before in range(node >> GROUP_BITS << GROUP_BITS, node):
        start += np.int64(children[before])
    return start, start + np.int64(children[node])


@inlined
def find(tokens, bases, children, node, token):
    """Return the child of a non-empty context for a token; 0 if there is none."""
    low, high = family(bases, children, node)
    # a binary search for a short range, which is then searched child by child
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
    """Return the context of a text after a token.

    ``child`` is the node of the token among the children of ``context``. The new context is this
    node, or the link of this node if it lies on the last level.
    """
    if child < len(children):
        return child
    end = stored_end(ends, child - len(children))
    if end < 0:
        end = _search_end(tokens, links, bases, children, heads, context, token)
    return end


@compiled
def stored_end(ends, index):
    """Return the link of a node of the last level; -1 if these links are not stored.

    ``index`` is the number of the node within the level. None is a type of its own for numba, so
    only one branch is compiled.
    """
    if ends is None:
        return np.int64(-1)
    return np.int64(ends[index])


@compiled
def _search_end(tokens, links, bases, children, heads, context, token):
    """Return the link of a node on the last level: of the child of ``context`` for ``token``.

    It is the child of the next shorter context for the same token; 0 if ``context`` is empty.
    """
    if context == 0:
        return np.int64(0)
    shorter = np.int64(links[context])
    return find(tokens, bases, children, shorter, token) if shorter != 0 else np.int64(heads[token])


@inlined
def _look_up(tokens, links, bases, children, backoffs, heads, context, token):
    """Search a token after a context, backing off to shorter contexts until the token is found.

    Arguments are arrays instead of a trie, here and in other inner functions. This makes the loops
    up to twice as fast.

    Returns:
        The longest suffix of the context after which the token was seen, the node of the token
        among the children of this suffix, and the product of the back-off weights on the way.
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
    """Return the context of a text after one more token, from the context before it."""
    tokens, links, ends, bases, children, _, backoffs, _, _, heads = trie
    context, child, _ = _look_up(tokens, links, bases, children, backoffs, heads, context, token)
    return context_after(tokens, links, ends, bases, children, heads, context, child, token)


@compiled
def advance(trie, ids, contexts, after):
    """Read ids (B, T), starting from ``contexts`` (B,).

    The context after each id is written to ``after`` (B, T).
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
    """Compute p(targets[b, t] | ids[b, :t + 1]).

    The probabilities are written to ``scores``, float64 (B, T). ``contexts`` (B,) is updated to the
    end of ids.

    The rows take turns, so that one can compute while another waits for memory. The next id is
    usually the target of this position, so the node that was found for the target is used for it.
    """
    tokens, links, ends, bases, children, probabilities, backoffs, book, root, heads = trie
    rows, length = ids.shape
    following = np.full(rows, -1, np.int64)  # each row's context after its next id; -1 if unknown
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

    The row is written once for each suffix of the context, from the empty one to the longest: each
    suffix overwrites the probabilities of its children.
    """
    tokens, links, _, bases, children, probabilities, backoffs, book, root, _ = trie
    length = 0
    shorter = context
    while shorter != 0:
        length += 1
        shorter = np.int64(links[shorter])
    # the suffixes, the longest first, and the product of the back-off weights on the way to each
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
    """Write the probability of every id after each of ``contexts`` (R,) to ``rows``, float64
    (R, V).
    """
    for row in range(len(contexts)):
        fill_row(trie, contexts[row], rows[row])


def log_probabilities(
    trie: Trie, contexts: Int64[np.ndarray, " R"], is_distribution: bool
) -> Float64[np.ndarray, "R V"]:
    """Return the log probability of every id after each context.

    If the model is not a distribution, its scores are normalised first.
    """
    rows = np.empty((len(contexts), len(trie.root)))
    _fill_rows(trie, contexts, rows)
    if not is_distribution:
        rows /= rows.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):  # zero becomes -inf
        return np.log(rows)
