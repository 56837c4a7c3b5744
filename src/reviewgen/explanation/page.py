"""What the templates of the page, and of what a notebook shows, need: numbers as text, and heat maps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reviewgen.explanation.results import Line, ModelExplanation, show_percent


@dataclass(frozen=True)
class HeatMap:
    """A text whose tokens are coloured by a number each.

    Attributes:
        name: What the numbers are.
        low, high: The smallest and the largest number.
        cells: Each token, its number, the sign of its colour ("high" or "low") and the strength of its colour in percent.
    """

    name: str
    low: float
    high: float
    cells: tuple[tuple[str, float, str, int], ...]


def values_of(models: Sequence[ModelExplanation], tokens: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return what the templates need besides the explanation.

    Args:
        models: The models of the explanation.
        tokens: The tokens of each text, for display.
    """
    return {
        "axes": _axes,
        "number": _number,
        "percent": show_percent,
        "gate_maps": [list(_gate_maps(model, tokens)) for model in models],
        "unit_maps": [list(_unit_maps(model, tokens)) for model in models],
    }


def _axes(line: Line) -> str:
    pairs = zip(line.axes, line.sizes, strict=True)
    return " ".join(letter if letter == str(size) else f"{letter}={size}" for letter, size in pairs)


def _number(value: float | None) -> str:
    """Return a number of any size with four digits or so; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2g}"


def _gate_maps(model: ModelExplanation, tokens: Sequence[Sequence[str]]) -> Iterator[tuple[HeatMap, ...]]:
    """Yield the heat maps of each gate, one for each text: from the least open to the most open."""
    for gate in model.gates:
        low, high = _ends(gate.openings)
        pairs = zip(tokens, gate.openings, strict=True)
        yield tuple(HeatMap(gate.name, low, high, _cells(row, values, low, high)) for row, values in pairs)


def _unit_maps(model: ModelExplanation, tokens: Sequence[Sequence[str]]) -> Iterator[tuple[HeatMap, ...]]:
    """Yield the heat maps of each unit, one for each text: zero has no colour, and each sign one of its own."""
    for unit in model.units:
        low, high = _ends(unit.values)
        largest = max(abs(low), abs(high))
        name = f"{unit.state}, unit {unit.unit}"
        pairs = zip(tokens, unit.values, strict=True)
        yield tuple(HeatMap(name, low, high, _cells(row, values, 0.0, largest)) for row, values in pairs)


def _ends(rows: Sequence[Sequence[float]]) -> tuple[float, float]:
    numbers = [number for row in rows for number in row]
    return min(numbers), max(numbers)


def _cells(tokens: Sequence[str], values: Sequence[float], zero: float, full: float) -> tuple[tuple[str, float, str, int], ...]:
    """Return tokens with their colours: none at ``zero``, the strongest at ``full`` on either side."""
    width = (full - zero) or 1.0
    pairs = zip(tokens, values, strict=True)
    return tuple(
        (token, value, "high" if value >= zero else "low", round(100 * min(1.0, abs(value - zero) / width)))
        for token, value in pairs
    )
