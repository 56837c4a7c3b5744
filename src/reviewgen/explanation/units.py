"""Gates, and hidden units that follow a property of the text: Karpathy, Johnson and Fei-Fei 2015, "Visualizing and Understanding
Recurrent Networks" (arXiv 1506.02078), section 4.1.

A unit is chosen by its correlation with the property on one half of the texts; what is reported is the correlation on the other
half, since the best of a thousand units correlates with anything on the texts that it is chosen by. N tokens, H units.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64

from reviewgen.explanation.batch import Batch
from reviewgen.explanation.results import Gate, Unit
from reviewgen.protocols import Operation, SupportsOperations

QUOTES, LINE = "inside quotes", "position in the line"
_UNITS = 3  # that are reported of each property
_ROWS = 16  # texts that are read at once


class ReadText(NamedTuple):
    """A text to measure on: its ids with bos and unspecified conditions, and its known properties, by name, at each of them."""

    ids: list[int]
    properties: Mapping[str, Sequence[float]]


def explain_gates(operations: Sequence[Operation], batch: Batch) -> Iterator[Gate]:
    """Yield the mean opening of each gate at each token of each text."""
    for operation in operations:
        if operation.kind == "gate":
            means = operation.values.double().flatten(2).mean(-1)  # (B, T)
            rows = zip(means.tolist(), batch.rows, strict=True)
            yield Gate(operation.name, tuple(tuple(mean[: len(row)]) for mean, row in rows))


def properties_of(pieces: Sequence[str], given: int) -> dict[str, list[float]]:
    """Return the properties of a text after each of its tokens: whether a quote is open, and the characters since the line began.

    >>> properties_of(['"', "a", '"', "b"], given=1)
    {'inside quotes': [0.0, 1.0, 1.0, 0.0, 0.0], 'position in the line': [0.0, 1.0, 2.0, 3.0, 4.0]}

    Args:
        pieces: The text of each token.
        given: The number of ids before the text.
    """
    is_open, place = False, 0
    quotes, line = [0.0] * given, [0.0] * given
    for piece in pieces:
        for character in piece:
            place = 0 if character == "\n" else place + 1
            if character in '"\u201c\u201d':
                is_open = character == "\u201c" or (character == '"' and not is_open)
        quotes.append(float(is_open))
        line.append(float(place))
    return {QUOTES: quotes, LINE: line}


def find_units(
    model: SupportsOperations, texts: Sequence[ReadText], operations: Sequence[Operation], batch: Batch, padding: int
) -> Iterator[Unit]:
    """Yield, for each property of some texts, the units that follow it most.

    Args:
        model: The model.
        texts: The texts to measure on; every second one chooses the units.
        operations: What the model computed on the explained batch.
        batch: That batch.
        padding: The id that fills rows up.
    """
    read = _read(model, texts, padding)
    explained = {operation.name: operation.values for operation in operations if operation.kind == "state"}
    for name in dict.fromkeys(name for text in texts for name in text.properties):
        for chosen, measured, state, unit in _rank(read, texts, name):
            rows = zip(explained[state][..., unit].tolist(), batch.rows, strict=True)
            yield Unit(name, state, unit, measured, chosen, tuple(tuple(row[: len(ids)]) for row, ids in rows))


def _rank(
    read: Mapping[str, Sequence[Float64[np.ndarray, "_ H"]]], texts: Sequence[ReadText], name: str
) -> list[tuple[float, float, str, int]]:
    """Return the units that follow a property most: their correlations where chosen and where measured, state and number."""
    having = [number for number, text in enumerate(texts) if name in text.properties]
    first, second = having[::2], having[1::2]
    ranked = []
    for state, units in read.items() if second else ():
        chosen, measured = (
            correlations(
                np.concatenate([units[number] for number in half]),
                np.concatenate([np.array(texts[number].properties[name], np.float64) for number in half]),
            )
            for half in (first, second)
        )
        known = np.flatnonzero(np.isfinite(chosen) & np.isfinite(measured))
        ranked += [(float(chosen[unit]), float(measured[unit]), state, int(unit)) for unit in known]
    return sorted(ranked, key=lambda each: -abs(each[0]))[:_UNITS]


def correlations(units: Float64[np.ndarray, "N H"], values: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " H"]:
    """Return Pearson's correlation of each unit with a property; NaN where one of the two does not vary."""
    centred, wanted = units - units.mean(axis=0), values - values.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        result: np.ndarray = wanted @ centred / np.sqrt((centred**2).sum(axis=0) * (wanted**2).sum())
    return result


@torch.no_grad()
def _read(model: SupportsOperations, texts: Sequence[ReadText], padding: int) -> dict[str, list[Float64[np.ndarray, "_ H"]]]:
    """Return the units of each part of the state at each token of each text."""
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(texts), _ROWS):
        some = [text.ids for text in texts[start : start + _ROWS]]
        ids = torch.full((len(some), max(map(len, some))), padding)
        for row, text in zip(ids, some, strict=True):
            row[: len(text)] = torch.tensor(text)
        for operation in model.operations(ids, model.initial_state(len(some))):  # type: ignore[attr-defined]  # each model has initial_state
            if operation.kind == "state":
                rows = zip(operation.values.double().numpy(), some, strict=True)
                parts.setdefault(operation.name, []).extend(values[: len(text)] for values, text in rows)
    return parts
