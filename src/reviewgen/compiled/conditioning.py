"""The step of ``reviewgen.protocols.inputs``: what a model holds of the ids that a text is given.
numpy and numba only.

Shapes: B texts, E embedding, M outputs of the product, M64 rounded up to whole panels.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from reviewgen.compiled.jit import compiled, inner
from reviewgen.compiled.linear import ONE, ZERO, Bits, add_product, pack


class Conditioning(NamedTuple):
    """How a model holds what a text is given: its ids, and the matrix that its vector is multiplied
    by when one is read.
    """

    bos_id: int
    first_id: int  # of those of conditions and fields
    first_marker: int
    last_id: int  # which ends the fields
    table: Float32[np.ndarray, "V E"]
    panels: Shaped[np.ndarray, "panels E 64"]
    scales: Float32[np.ndarray, " M64"]

    @property
    def state_width(self) -> int:
        """The width of the two rows of a state, that of ``sums`` and that of ``products``, in
        ``hold``.
        """
        return max(int(self.table.shape[1]) + 2, len(self.scales))


def pack_conditioning(
    config: Any, tensors: Mapping[str, Float32[np.ndarray, "..."]], bits: Bits
) -> Conditioning | None:
    """Return how a model with this config and ``embedding.weight`` holds what a text is given; None
    if it has no ``held``.
    """
    if "held" not in tensors:
        return None
    fields = config.vocab_size - config.field_ids
    ids = config.bos_id, fields - config.condition_ids, fields, config.vocab_size - 1
    return Conditioning(*ids, tensors["embedding.weight"], *pack(tensors["held"], bits))


@compiled
def multiply(held, sums, products):
    """Write the products, (B, M64) or wider, of what is held, (B, E + 2) or wider."""
    width = held.table.shape[1]
    vectors = np.empty((len(sums), width), np.float32)
    for row in range(len(sums)):
        scale = ONE / np.sqrt(max(ONE, sums[row, width]))
        for j in range(width):
            vectors[row, j] = sums[row, j] * scale
        for j in range(len(held.scales)):
            products[row, j] = ZERO
    add_product(held.panels, held.scales, vectors, products)


@inner
def hold(held, ids, floats):
    """Read a token of each text.

    Args:
        held: The model's; None for a model without, of which nothing is updated.
        ids: int64 (R,), the tokens.
        floats: float32 (S, B, W), a state of which the last two are ``sums``: the sum of the given
            ids' embeddings, their number and whether a field is open, (B, E + 2) or wider, of which
            the first R rows are updated; and ``products``: the product of each, (B, M64) or wider,
            updated where an id is given.
    """
    if held is None:
        return
    sums = floats[len(floats) - 2]
    products = floats[len(floats) - 1]
    width = held.table.shape[1]
    for row in range(len(ids)):
        token = ids[row]
        state = sums[row]
        if token == held.bos_id:
            for j in range(width + 2):
                state[j] = ZERO
        elif token >= held.first_id:
            state[width + 1] = ONE if held.first_marker <= token < held.last_id else ZERO
        elif state[width + 1] == ZERO:
            continue
        if token != held.bos_id:
            state[width] += ONE
            for j in range(width):
                state[j] += held.table[token, j]
        multiply(held, sums[row : row + 1], products[row : row + 1])
