"""Conditioning in compiled steps: as the ids of a text's conditions and fields are read, their
embeddings are added up, and a matrix projects the sum; as in ``reviewgen.protocols.inputs``. numpy
and numba only.

Shapes: B texts, E embedding, M outputs of the product, M64 rounded up to whole panels.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from reviewgen.compiled.jit import compiled, inner
from reviewgen.compiled.linear import ONE, ZERO, Bits, add_product, pack


class Conditioning(NamedTuple):
    """The ids of conditions and fields, their embeddings, and the matrix that projects a sum."""

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
    """Return the conditioning of a model with this config, from ``embedding.weight`` and ``held``,
    the matrix; None if it has no ``held``.
    """
    if "held" not in tensors:
        return None
    fields = config.vocab_size - config.field_ids
    ids = config.bos_id, fields - config.condition_ids, fields, config.vocab_size - 1
    return Conditioning(*ids, tensors["embedding.weight"], *pack(tensors["held"], bits))


@compiled
def multiply(held, sums, products):
    """Write the projections, (B, M64) or wider, of sums of embeddings, (B, E + 2) or wider."""
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
    """Read a token of each text, and update the state where it belongs to a condition or a field.

    Args:
        held: The model's Conditioning; with None, nothing is updated.
        ids: int64 (R,), the tokens.
        floats: float32 (S, B, W), the state. Its last two arrays, whose first R rows are updated,
            are ``sums``, (B, E + 2) or wider: the sum of the embeddings, their number, and whether
            a field is open; and ``products``, (B, M64) or wider: the projection of each sum.
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
