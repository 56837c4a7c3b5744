"""Hashed n-grams of the last tokens, in training and in compiled steps.

A model may add an embedding for each of the last n-grams to the embedding of a token. The row of an
n-gram in the table is found by a hash. ``reviewgen.protocols.ngrams`` does the same for torch. This
file needs numpy and numba only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from reviewgen.compiled.jit import compiled, inlined, inner

MULTIPLIER = 0x9E3779B1  # 2 ** 32 divided by the golden ratio, made odd
MASK = 0xFFFFFFFF


def extend_key(key: Any, token: Any) -> Any:
    """Return the hash key of an n-gram, int64.

    The arguments are the first token of the n-gram, and the key of the tokens after it (0 if there
    are none). A key has 32 bits. It is computed in 64, of which only the lowest 32 are kept, so it
    does no harm that the product overflows.

    This is Fibonacci hashing (Knuth, volume 3, 6.4) with a shift between the tokens, so that their
    order matters. In training, the same function hashes tensors.
    """
    mixed = ((key + token + 1) * MULTIPLIER) & MASK
    return mixed ^ (mixed >> 15)


def bucket_of(key: Any, buckets: int) -> Any:
    """Return the bucket of a key. Buckets are equal ranges of the key's values (Lemire 2019, "Fast
    Random Integer Generation").
    """
    return (key * buckets) >> 32


def ngram_rows(
    config: Any, tensors: Mapping[str, Float32[np.ndarray, "..."]]
) -> Float32[np.ndarray, "N1 buckets E"] | None:
    """Return the embeddings of n-grams of 2, 3, ... tokens, as ``add_ngrams`` takes them; None if
    the model has none.
    """
    table = tensors.get("ngrams.table.weight")
    return None if table is None else table.reshape(-1, config.ngram_buckets, table.shape[1])


_extend_key = inlined(extend_key)
_bucket_of = inlined(bucket_of)


@inner
def append_token(token, past, row):
    """Append a token to the last tokens of a text, and drop the oldest one.

    ``past`` is int64 (N, B): column ``row`` has the last N tokens of this text, the oldest first.
    """
    for j in range(1, len(past)):
        past[j - 1, row] = past[j, row]
    if len(past) > 0:
        past[len(past) - 1, row] = token


@compiled
def add(numbers, row):
    """Add ``numbers``, (N,), to the first N elements of ``row``, which may have more."""
    for j in range(len(numbers)):
        row[j] += numbers[j]


@inner
def add_ngrams(ngrams, token, past, row, vector):
    """Add to ``vector``, (E,), the embeddings of the n-grams of 2, 3, ... tokens that end with a
    token of a text.

    Args:
        ngrams: float32 (N, buckets, E), as ``ngram_rows`` returns it.
        token: The token.
        past, row: The tokens before it, as in ``append_token``.
        vector: Updated.
    """
    key = _extend_key(0, token)
    for before in range(len(past)):
        key = _extend_key(key, past[len(past) - 1 - before, row])
        add(ngrams[before, _bucket_of(key, ngrams.shape[1])], vector)
