"""The page of an explanation, and what a notebook shows: the same content."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviewgen.explanation.results import Explanation, Line, ModelExplanation
from reviewgen.pages import render, save_page

__all__ = ["HeatMap", "render_fragment", "render_page", "write_page"]


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


def render_page(explanation: Explanation) -> str:
    """Return the page."""
    return render("explanation/explanation.html", **_values(explanation))


def render_fragment(explanation: Explanation) -> str:
    """Return what a notebook shows."""
    return render("explanation/fragment.html", **_values(explanation))


def write_page(explanation: Explanation, file: Path, overwrite: bool) -> None:
    """Write the page.

    Raises:
        ConfigError: The suffix is not that of a page.
        OutputExists: The file exists, and ``overwrite`` is false.
        StorageError: It cannot be written.
    """
    save_page(render_page(explanation), file, overwrite)


def _values(explanation: Explanation) -> dict[str, Any]:
    return {
        "explanation": explanation,
        "axes": _axes,
        "number": _number,
        "gate_maps": [list(_gate_maps(model, explanation)) for model in explanation.models],
        "unit_maps": [list(_unit_maps(model, explanation)) for model in explanation.models],
    }


def _axes(line: Line) -> str:
    pairs = zip(line.axes, line.sizes, strict=True)
    return " ".join(letter if letter == str(size) else f"{letter}={size}" for letter, size in pairs)


def _number(value: float | None) -> str:
    """Return a number of any size with four digits or so; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2g}"


def _gate_maps(model: ModelExplanation, explanation: Explanation) -> Iterator[tuple[HeatMap, ...]]:
    """Yield the heat maps of each gate, one for each text: from the least open to the most open."""
    for gate in model.gates:
        low, high = _ends(gate.openings)
        pairs = zip(explanation.tokens, gate.openings, strict=True)
        yield tuple(HeatMap(gate.name, low, high, _cells(tokens, values, low, high)) for tokens, values in pairs)


def _unit_maps(model: ModelExplanation, explanation: Explanation) -> Iterator[tuple[HeatMap, ...]]:
    """Yield the heat maps of each unit, one for each text: zero has no colour, and each sign one of its own."""
    for unit in model.units:
        low, high = _ends(unit.values)
        largest = max(abs(low), abs(high))
        name = f"{unit.state}, unit {unit.unit}"
        pairs = zip(explanation.tokens, unit.values, strict=True)
        yield tuple(HeatMap(name, low, high, _cells(tokens, values, 0.0, largest)) for tokens, values in pairs)


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
