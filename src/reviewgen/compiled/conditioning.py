"""The vector of a text's conditions and fields, in compiled steps.

As the ids of a text's conditions and fields are read, their embeddings are added up. A matrix
projects this sum, divided by the root of the number of ids; the model adds the result to the input
of one of its layers. ``reviewgen.protocols.inputs`` does the same for torch. This file needs numpy
and numba only.

Shapes: B texts, R texts that are stepped, V vocabulary, E embedding, E2 = E + 2, M outputs of the
projection, M64 rounded up to whole panels; S and W as in ``reviewgen.compiled.steps``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped

from reviewgen.compiled.jit import compiled, inner
from reviewgen.compiled.linear import ONE, ZERO, Bits, add_product, pack


class Conditioning(NamedTuple):
    """The ids of conditions and fields, the embeddings of all ids, and the matrix that projects the
    sum of a text's embeddings.
    """

    bos_id: int
    first_id: int  # the first id of conditions and fields
    first_marker: int  # the first id that opens a field
    last_id: int  # the id that ends the fields
    table: Float32[np.ndarray, "V E"]
    panels: Shaped[np.ndarray, "panels E 64"]
    scales: Float32[np.ndarray, " M64"]

    @property
    def state_width(self) -> int:
        """The width of the arrays ``sums`` and ``products`` of a state; see ``hold``."""
        return max(int(self.table.shape[1]) + 2, len(self.scales))


def pack_conditioning(
    config: Any, tensors: Mapping[str, Float32[np.ndarray, "..."]], bits: Bits
) -> Conditioning | None:
    """Return the conditioning of a model, or None if the model has no conditions and fields.

    Args:
        config: The config of the model.
        tensors: The tensors of the model: ``embedding.weight``, and the matrix ``held`` if there
            are conditions or fields.
        bits: The bits of a weight of the packed matrix.
    """
    if "held" not in tensors:
        return None
    first_marker = config.vocab_size - config.field_ids
    first_id = first_marker - config.condition_ids
    ids = config.bos_id, first_id, first_marker, config.vocab_size - 1
    return Conditioning(*ids, tensors["embedding.weight"], *pack(tensors["held"], bits))


def make_floats(
    held: Conditioning | None, sums: Float32[np.ndarray, "B E2"] | None, shape: tuple[int, int, int]
) -> Float32[np.ndarray, "S B W"]:
    """Return the floats of a state: zeros of shape ``shape``. With a conditioning, two more arrays
    (B, W) follow, ``sums`` and ``products``, which ``hold`` describes; W may then be larger.
    """
    if held is None:
        return np.zeros(shape, np.float32)
    rows, batch, width = shape
    floats = np.zeros((rows + 2, batch, max(width, held.state_width)), np.float32)
    floats[-2, :, : held.table.shape[1] + 2] = sums
    multiply(held, floats[-2], floats[-1])
    return floats


def take_sums(
    held: Conditioning | None, floats: Float32[np.ndarray, "S B W"]
) -> Float32[np.ndarray, "B E2"] | None:
    """Return a copy of the sums in the floats of a state; None without a conditioning."""
    return None if held is None else floats[-2, :, : held.table.shape[1] + 2].copy()


@compiled
def multiply(held, sums, products):
    """Write the projection of each text's sum of embeddings, divided by the root of their number.

    Args:
        held: The Conditioning of the model.
        sums: float32 (B, E + 2) or wider: the sum of the embeddings, and the number of their ids.
        products: float32 (B, M64) or wider; written.
    """
    width = held.table.shape[1]
    vectors = np.empty((len(sums), width), np.float32)
    for row in range(len(sums)):
        scale = ONE / np.sqrt(max(ONE, sums[row, width]))
        for j in range(width):
            vectors[row, j] = sums[row, j] * scale
        products[row, : len(held.scales)] = ZERO
    add_product(held.panels, held.scales, vectors, products)


@inner
def hold(held, ids, floats):
    """Read a token of each text, and update the state if the token belongs to a condition or a
    field.

    Args:
        held: The Conditioning of the model; if it is None, nothing is updated.
        ids: int64 (R,), the tokens.
        floats: float32 (S, B, W), the state. The first R rows of its last two arrays are updated.
            The last but one is ``sums``, (B, E + 2) or wider: the sum of the embeddings, the number
            of their ids, and 1 if a field is open. The last one is ``products``, (B, M64) or wider:
            the projection of each sum.
    """
    if held is None:
        return
    sums = floats[len(floats) - 2]
    products = floats[len(floats) - 1]
    width = held.table.shape[1]
    for row in range(len(ids)):
        token = ids[row]
        state = sums[row]
        # state[width] is the number of ids, state[width + 1] whether a field is open. bos clears
        # the state; a token that belongs neither to a condition nor to a field changes nothing.
        if token == held.bos_id:
            state[: width + 2] = ZERO
        elif token >= held.first_id:
            state[width + 1] = ONE if held.first_marker <= token < held.last_id else ZERO
        elif state[width + 1] == ZERO:
            continue
        if token != held.bos_id:
            state[width] += ONE
            for j in range(width):
                state[j] += held.table[token, j]
        multiply(held, sums[row : row + 1], products[row : row + 1])
