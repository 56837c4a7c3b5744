"""The hash of an n-gram: the same lines for tensors, in training, and for a compiled loop's integers.

It imports no torch. A key has 32 bits and is kept in an integer of 64, whose products wrap around. Fibonacci hashing (Knuth,
volume 3, 6.4) with a shift between the tokens, so that their order counts.
"""

from typing import Any

__all__ = ["bucket_of", "mix"]

MULTIPLIER = 0x9E3779B1  # 2 ** 32 over the golden ratio, made odd
MASK = 0xFFFFFFFF


def mix(key: Any, token: Any) -> Any:
    """Return the key of an n-gram, int64, from that of the tokens after its first one, and the first one; it begins with 0."""
    mixed = ((key + token + 1) * MULTIPLIER) & MASK
    return mixed ^ (mixed >> 15)


def bucket_of(key: Any, buckets: int) -> Any:
    """Return which of some buckets a key falls into: its share of all keys (Lemire 2019, "Fast Random Integer Generation")."""
    return (key * buckets) >> 32
