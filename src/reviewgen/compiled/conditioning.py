"""The step of ``reviewgen.protocols.given``: what a model holds of the ids that a text is given. numpy and numba only.

Shapes: B texts, E embedding, M outputs of the product, M64 rounded up to whole panels.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from reviewgen.compiled.jit import compiled
from reviewgen.compiled.linear import ONE, ZERO, Bits, add_product, pack


class Conditioning(NamedTuple):
    """How a model holds what a text is given: its ids, and the matrix that its vector is multiplied by when one is read."""

    bos_id: int
    first_id: int  # of those of conditions and fields
    first_marker: int
    last_id: int  # which ends the fields
    table: Float32[np.ndarray, "V E"]
    panels: Shaped[np.ndarray, "panels E 64"]
    scales: Float32[np.ndarray, " M64"]

    @property
    def state_width(self) -> int:
        """The width of the two rows of a state, that of ``sums`` and that of ``products``, in ``advance``."""
        return max(int(self.table.shape[1]) + 2, len(self.scales))


def pack_conditioning(
    config: Any, table: Float32[np.ndarray, "V E"], matrix: Float32[np.ndarray, "M E"], bits: Bits
) -> Conditioning | None:
    """Return how a model with this config holds what a text is given; None if it does not."""
    if not config.holds:
        return None
    fields = config.vocab_size - config.field_ids
    ids = config.bos_id, fields - config.condition_ids, fields, config.vocab_size - 1
    return Conditioning(*ids, table, *pack(matrix, bits))


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


@compiled
def hold(held, ids, sums, products):
    """Read a token of each text.

    Args:
        held: The model's.
        ids: int64 (R,), the tokens.
        sums: float32 (B, E + 2) or wider, of which the first R rows are updated: the sum of the given ids' embeddings, their
            number and whether a field is open.
        products: float32 (B, M64) or wider, the product of each; updated where an id is given.
    """
    width = held.table.shape[1]
    for row in range(len(ids)):
        token, state = ids[row], sums[row]
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
