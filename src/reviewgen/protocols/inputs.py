"""What a model is called with: checks of ids and states, and the vector of a text's conditions and
fields. Needs torch.

Errors about shapes name each axis with its expected and its actual size. A check that passes only
compares two tuples, which takes about a microsecond; checks stand at the top of a model's call,
never in an inner loop.

A text is read as bos, the ids of its conditions, its fields (each a marker and the tokens of its
value), then its own tokens. The ids of conditions and of fields are the last of the V ids::

    V - field_ids - condition_ids ...    conditions
    V - field_ids ... V - 2              markers, each of which opens a field
    V - 1                                ends the fields, if there are any

Shapes: B batch, T time (tokens), E embedding.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reviewgen.errors import ShapeError

_INTEGERS = {torch.int64, torch.int32}
_MEANINGS = {"B": " texts", "L": " layers", "H": " hidden units", "K": " tokens before"}
# With a scale of 1, a gru over words of music posts lost 0.03 to 0.07 bits per character.
_LEARNING_RATE_SCALE = 0.3
GIVEN_FORMULA = "g_t = sum of e[id] / sqrt(n), of the n ids that the text is given"


def check_ids(ids: Any) -> int:
    """Return B of the ids that a model is called with.

    Raises:
        ShapeError: They are not a tensor of integers of the shape (B, T).
    """
    if not isinstance(ids, torch.Tensor) or ids.ndim != 2 or ids.dtype not in _INTEGERS:
        hint = (
            " For one text write ids[None], which adds the axis B."
            if getattr(ids, "ndim", 0) == 1
            else ""
        )
        raise ShapeError(
            "ids must be integers of the shape (B, T), B texts of T tokens each; got"
            f" {_describe(ids)}.{hint}"
        )
    return ids.shape[0]  # len would fix the size of the batch in an exported model


def check_state(state: Any, parts: int) -> tuple[Any, ...]:
    """Return the items of a state: those of a tuple, or the state itself if it is a single tensor.

    Raises:
        ShapeError: It has another number of items than ``parts``.
    """
    given = state if isinstance(state, tuple) else (state,)
    if len(given) != parts:
        expected = "one tensor" if parts == 1 else f"a tuple of {parts} parts"
        raise ShapeError(
            f"The state must be {expected}, as initial_state(B) and each call return it; got"
            f" {', '.join(map(_describe, given))}."
        )
    return given


def check_shape(
    name: str, tensor: Any, sizes: Mapping[str, int], *, is_integer: bool = False
) -> None:
    """Raise unless a tensor has the expected size on each axis.

    Args:
        name: What it is, as in "the state h".
        tensor: The tensor.
        sizes: The size of each axis by its letter, in order.
        is_integer: Whether it must hold integers, else floating-point numbers.

    Raises:
        ShapeError: It has another shape or dtype, or is not a tensor.
    """
    if isinstance(tensor, torch.Tensor) and tensor.shape == tuple(sizes.values()):
        is_right = tensor.dtype in _INTEGERS if is_integer else tensor.is_floating_point()
        if is_right:
            return
    expected = ", ".join(
        f"{letter}={size}{_MEANINGS.get(letter, '')}" for letter, size in sizes.items()
    )
    kind = "integers" if is_integer else "floating-point numbers"
    shape = getattr(tensor, "shape", ())
    differences = ""
    if len(shape) == len(sizes):
        pairs = zip(sizes.items(), shape, strict=True)
        differences = "".join(
            f", {letter} is {given}" for (letter, size), given in pairs if given != size
        )
    raise ShapeError(
        f"{name} must be {kind} of the shape ({', '.join(sizes)}), here {expected}; got"
        f" {_describe(tensor)}{differences}. initial_state(B) returns one of the right shape."
    )


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return (
            f"a tensor of {str(value.dtype).removeprefix('torch.')} of the shape"
            f" {tuple(value.shape)}"
        )
    return f"a {type(value).__name__}"


def hold_given(
    config: Any, table: Float[Tensor, "V E"], ids: Int[Tensor, "B T"], held: Float[Tensor, "B E2"]
) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B E2"]]:
    """Return, for each token, the vector of the condition ids read so far in its text, and the sums
    to carry in the state.

    The vector is the sum of the embeddings of the given ids, divided by the root of their number;
    zeros before the first one. It begins anew at bos.

    Args:
        config: The model's, with ``vocab_size``, ``bos_id``, ``condition_ids`` and ``field_ids``.
        table: The embeddings.
        ids: The tokens.
        held: The sum, the number of ids and 1 if a field is open, else 0; zeros before the first
            token.
    """
    fields = config.vocab_size - config.field_ids
    is_bos = ids == config.bos_id
    is_added = ids >= fields - config.condition_ids
    is_marker = (ids >= fields) & (ids < config.vocab_size - 1)
    is_open = _latest(is_marker[..., None], is_bos | is_added, held[:, None, -1:] > 0)  # (B, T, 1)
    is_given = is_added[..., None] | is_open
    counted = F.pad(F.embedding(ids, table), (0, 1), value=1.0)  # (B, T, E + 1)
    sums = (counted * is_given).cumsum(1) + held[:, None, :-1]
    sums = sums - _latest(sums, is_bos, torch.zeros_like(held[:, None, :-1]))
    after = torch.cat([sums[:, -1], is_open[:, -1].to(sums.dtype)], dim=-1)
    return sums[..., :-1] / sums[..., -1:].clamp(min=1.0).sqrt(), after


def learn_given(given: Float[Tensor, "B T E"], is_training: bool) -> Float[Tensor, "B T E"]:
    """Return the vector used in training: zeroed in half of the rows, and without a gradient to the
    embeddings.

    So a model learns to use what a text is given, in addition to what it learns without it. In
    trials with ``gru-word`` on 900 posts about music, 1,000 steps, two seeds, using all rows, a
    gradient to the embeddings, and Muon cost 0.009 bits per character of new posts; this costs
    none.
    """
    given = given.detach()
    return (
        given * (torch.rand(len(given), 1, 1, device=given.device) < 0.5) if is_training else given
    )


def group_held(held: Tensor | None) -> list[dict[str, Any]]:
    """Return the parameter group of the matrix that multiplies the vector, which learns slowly; for
    ``parameter_groups``.
    """
    return (
        []
        if held is None
        else [{"params": [held], "learning_rate_scale": _LEARNING_RATE_SCALE, "optimizer": "adamw"}]
    )


def _latest(
    values: Float[Tensor, "B T N"] | Bool[Tensor, "B T N"],
    is_event: Bool[Tensor, "B T"],
    before: Tensor,
) -> Float[Tensor, "B T N"] | Bool[Tensor, "B T N"]:
    """Return the values at the last event up to each position; before the first event, ``before``,
    (B, 1, N).
    """
    number = is_event.long().cumsum(1)  # (B, T), of events so far
    place = torch.where(is_event, torch.arange(is_event.shape[1], device=is_event.device) + 1, 0)
    # the same as a cummax of place, which ONNX lacks
    places = torch.zeros_like(F.pad(place, (1, 0))).scatter_add(1, number, place).gather(1, number)
    padded = torch.cat([before.to(values.dtype), values], dim=1)
    return padded.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))
