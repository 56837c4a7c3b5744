"""The saved form of a trie: named arrays. A damaged array is an error when it is read, never a wrong probability later.

Names, dtypes and numbers of axes depend on the settings only; sizes depend on the data.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from reviewgen.compiled import compiled
from reviewgen.errors import BundleError
from reviewgen.protocols import TensorSpec
from reviewgen_ngram.counts import token_dtype
from reviewgen_ngram.trie import GROUP, Trie, family, probability, stored_end

TOO_LARGE = np.int64(1 << 40)  # above any link
ROUNDING = 1e-6  # error of the probability that a shorter context leaves, computed as a difference from one
TOLERANCE = 1e-4  # on the sum of the probabilities of a context


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


def expect_arrays(vocab_size: int, quantized: bool) -> dict[str, TensorSpec]:
    """Return the name, dtype and shape of a model's arrays; sizes that depend on the data are None."""
    token = np.dtype(token_dtype(vocab_size)).name
    specs: dict[str, TensorSpec] = {
        "bos_id": ("int64", (None,)),
        "starts": ("int64", (None,)),
        "tokens": (token, (None,)),
        "links": ("int32", (None,)),
        "bases": ("int32", (None,)),
        "children": (token, (None,)),
        "probabilities": ("uint8" if quantized else "float32", (None,)),
        "backoffs": ("float32", (None,)),
        "root": ("float64", (vocab_size,)),
        "discounts": ("float64", (None, 3)),
    }
    own: dict[str, TensorSpec] = {"book": ("float32", (256,))} if quantized else {"ends": ("int32", (None,))}
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


def read_arrays(arrays: Mapping[str, np.ndarray], vocab_size: int, order: int, quantized: bool, is_distribution: bool) -> Trained:
    """Return the model that is saved in arrays.

    Raises:
        BundleError: An array is missing, unexpected, of another dtype or shape, or damaged.
    """
    _check_specs(arrays, expect_arrays(vocab_size, quantized))
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    _require(arrays["bos_id"].size == 1, "bos_id", "holds one id, of a trained model")
    bos_id = int(arrays["bos_id"][0])
    _require(0 <= bos_id < vocab_size, "bos_id", f"lies in 0..{vocab_size - 1}")
    discounts = arrays["discounts"]
    _require(discounts.shape == (order, 3) and bool(np.isfinite(discounts).all()), "discounts", f"holds {order} x 3 numbers")
    starts = arrays["starts"]
    _check_sizes(arrays, starts, vocab_size, order, quantized)
    heads = np.zeros(vocab_size, np.int32)
    first, stop = int(starts[1]), int(starts[2])
    level = arrays["tokens"][first:stop].astype(np.int64)
    _require(bool(((level >= 0) & (level < vocab_size)).all()), "tokens", f"holds ids in 0..{vocab_size - 1}")
    heads[level] = np.arange(first, stop, dtype=np.int32)
    _require(bool(heads[bos_id] > 0), "tokens", "holds bos as a context")
    trie = Trie(
        **{name: arrays[name] for name in ("tokens", "links", "bases", "children", "probabilities", "backoffs", "root")},
        ends=arrays.get("ends"),
        book=arrays.get("book"),
        heads=heads,
    )
    fault = _find_fault(trie, starts, bos_id, is_distribution)
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


def _check_sizes(arrays: Mapping[str, np.ndarray], starts: np.ndarray, vocab_size: int, order: int, quantized: bool) -> None:
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
        "root": vocab_size,
    }
    sizes |= {"book": 256} if quantized else {"ends": nodes - contexts}
    if quantized:
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
