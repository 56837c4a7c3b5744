"""The n-gram model as the n-grams of an ARPA file, and back.

Every node of the trie is an n-gram of the file. The 1-grams of ids that were never seen have no
node, and get the probability of the row of the root.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64, Integer

from reviewgen.errors import BundleError, ConfigError
from reviewgen.protocols import ArpaNgrams
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.counts import token_dtype
from reviewgen_ngram.nodes import Nodes
from reviewgen_ngram.trie import Trained, make_trie, sums_to_one, write_arrays

ZERO = 1e-99  # the probability that is written for zero, as in other programs


def to_arpa(trained: Trained, config: NgramConfig) -> list[ArpaNgrams]:
    """Return the n-grams of each order; see ``SupportsArpa``.

    Raises:
        ConfigError: The smoothing is "none" or "stupid-backoff".
    """
    if config.smoothing in ("none", "stupid-backoff"):
        raise ConfigError(
            f"An n-gram with smoothing={config.smoothing!r} does not have the form of an ARPA file:"
            " train with kneser-ney, absolute or witten-bell."
        )
    trie = trained.trie
    starts = trained.starts.tolist()
    stored = trie.probabilities if trie.book is None else trie.book[trie.probabilities]
    # the n-grams of the last level are not contexts; their weight is 1
    weights = np.ones(starts[-1])
    weights[: len(trie.backoffs)] = trie.backoffs
    ids: Integer[np.ndarray, "N n"] = np.arange(config.vocab_size)[:, None]
    root_weights = np.where(trie.heads > 0, weights[trie.heads], 1.0)
    ngrams = [ArpaNgrams(ids, _log10(trie.root), _log10(root_weights))]
    ids = trie.tokens[starts[1] : starts[2], None]
    for level in range(2, config.order + 1):
        parents = slice(*starts[level - 1 : level + 1])
        nodes = slice(*starts[level : level + 2])
        before = np.repeat(ids, trie.children[parents], axis=0)
        ids = np.column_stack([before, trie.tokens[nodes]])
        ngrams.append(ArpaNgrams(ids, _log10(stored[nodes]), _log10(weights[nodes])))
    return ngrams


def _log10(values: np.ndarray) -> np.ndarray:
    """Return the decimal logarithms of probabilities or weights, at least that of ``ZERO``."""
    return np.log10(np.maximum(values.astype(np.float64), ZERO))


def from_arpa(
    ngrams: Sequence[ArpaNgrams], vocab_size: int, bos_id: int
) -> tuple[NgramConfig, Mapping[str, np.ndarray]]:
    """Return the config and the tensors of a model; see ``SupportsArpa``.

    A file does not name its smoothing, so the config has the default, and the discounts are zero.

    Raises:
        BundleError: An n-gram occurs twice, has bos at another place than its beginning, or lacks
            the shorter n-grams that it begins and ends with; or probabilities do not sum to one.
    """
    order = len(ngrams)
    config = NgramConfig(vocab_size=vocab_size, order=order)
    starts = np.cumsum([0, 1, *(len(level.ids) for level in ngrams)])
    size = int(starts[-1])
    tokens = np.zeros(size, token_dtype(vocab_size))
    links = np.zeros(size, np.int32)
    probabilities = np.zeros(size, np.float32)
    weights = np.ones(size, np.float32)
    children = np.zeros(size, np.int64)
    keys: list[Int64[np.ndarray, " N"]] = []  # parent * V + token of each level, sorted
    for level, (ids, log_probabilities, log_weights) in enumerate(ngrams, 1):
        if (ids[:, 1:] == bos_id).any():
            raise BundleError("the beginning of a text stands inside an n-gram")
        parents = _find_nodes(keys, starts, ids[:, :-1], vocab_size)
        level_keys = parents * vocab_size + ids[:, -1]
        ascending = np.argsort(level_keys)
        keys.append(level_keys[ascending])
        if (np.diff(keys[-1]) == 0).any():
            raise BundleError(f"an n-gram of order {level} occurs twice")
        nodes = slice(*starts[level : level + 2].tolist())
        tokens[nodes] = ids[ascending, -1]
        links[nodes] = _find_nodes(keys[:-1], starts, ids[ascending, 1:], vocab_size)
        probabilities[nodes] = 10.0 ** log_probabilities[ascending]
        weights[nodes] = 10.0 ** log_weights[ascending]
        children += np.bincount(parents, minlength=size)
    contexts = int(starts[-2])
    first = np.cumsum(np.append([1], children[:contexts])).astype(np.int32)
    root = np.zeros(vocab_size)
    # the 1-grams, of which bos gets the probability zero
    level_1 = slice(*starts[1:3].tolist())
    root[tokens[level_1]] = probabilities[level_1]
    root[bos_id] = 0.0
    probabilities[level_1] = root[tokens[level_1]]
    trie = make_trie(
        Nodes(starts, tokens, first, links), probabilities, weights[:contexts], None, root
    )
    if not sums_to_one(trie):
        raise BundleError("the probabilities of the words after a context do not sum to one")
    return config, write_arrays(Trained(trie, starts, bos_id, [(0.0, 0.0, 0.0)] * order))


def _find_nodes(
    keys: Sequence[Int64[np.ndarray, " M"]],
    starts: Int64[np.ndarray, " L"],
    ids: Integer[np.ndarray, "N n"],
    vocab_size: int,
) -> Int64[np.ndarray, " N"]:
    """Return the node of each n-gram.

    ``keys`` has for each level, from level 1 on, the ascending keys of its nodes: a key is the
    node's parent times V, plus its token.

    Raises:
        BundleError: There is no node for an n-gram.
    """
    # from the empty context on, go to the child for each token
    nodes = np.zeros(len(ids), np.int64)
    for column, level_keys in enumerate(keys[: ids.shape[1]]):
        wanted = nodes * vocab_size + ids[:, column]
        index = np.searchsorted(level_keys, wanted)
        # the index may be len(level_keys), where a -1 is added, which equals no key
        if (np.append(level_keys, -1)[index] != wanted).any():
            raise BundleError(
                f"an n-gram of order {ids.shape[1] + 1} begins or ends with one of order"
                f" {ids.shape[1]} that is missing"
            )
        nodes = starts[column + 1] + index
    return nodes
