"""The HTML page of a comparison, and the fragment for notebooks: what the templates beside this file are given."""

import math
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from markupsafe import Markup

from reviewgen.comparison.rows import Pair, Row, Sample
from reviewgen.comparison.sampling import TEMPERATURES
from reviewgen.novelty import COPY_CHARACTERS
from reviewgen.pages import Series, draw_chart, render

_MAX_RATIO = 3.0  # times the lowest bits; the first steps of a training would flatten all other points
_MAX_SAMPLE = 1500  # characters that are shown
_MAX_PAIRS = 15  # that are shown at once; more are folded


@runtime_checkable
class Compared(Protocol):
    """What a page needs of a ``Comparison``, which imports this file."""

    rows: list[Row]
    prompt: str
    is_interrupted: bool

    @property
    def pairs(self) -> list[Pair]:
        """The paired differences."""

    def describe_held_out(self) -> str:
        """Return a sentence on the held-out texts."""


def render_page(comparison: Compared) -> str:
    """Return a comparison as a whole page."""
    return render("comparison/page.html", **_values(comparison))


def render_fragment(comparison: Compared) -> str:
    """Return a comparison as a part of a page, for notebooks."""
    return render("comparison/fragment.html", **_values(comparison))


def _values(comparison: Compared) -> dict[str, Any]:
    """Return the values of the templates."""
    numbered = [(style, row) for style, row in enumerate(comparison.rows) if row.failed is None]
    return {
        "rows": comparison.rows,
        "finished": [row for _, row in numbered],
        "pairs": comparison.pairs,
        "are_pairs_folded": len(comparison.pairs) > _MAX_PAIRS,
        "best": describe_best(comparison),
        "held_out": comparison.describe_held_out(),
        "prompt": comparison.prompt,
        "is_interrupted": comparison.is_interrupted,
        "charts": list(_charts(numbered)),
        "samples": {row.name: [(each.temperature, cut_sample(each)) for each in row.samples] for _, row in numbered},
        "temperatures": ", ".join(map(str, TEMPERATURES)),
        "copy_characters": COPY_CHARACTERS,
        "pictures": [(row, b64encode(row.picture.encode()).decode()) for _, row in numbered if row.picture],
    }


def describe_best(comparison: Compared) -> str:
    """Return which model has the fewest bits per character, and which models do not differ from it significantly."""
    rated = [row for row in comparison.rows if row.bits_per_character is not None and not row.has_seen_held_out]
    rated = [row for row in rated if math.isfinite(row.bits_per_character or math.inf)]
    if not any(row.failed is None for row in comparison.rows):
        return "No model was evaluated."
    if not rated:
        return "No model has finite bits per character on these texts."
    best = min(rated, key=lambda row: row.bits_per_character or math.inf).name
    like = [pair for pair in comparison.pairs if best in (pair.first, pair.second) and pair.interval and not pair.is_told_apart]
    others = [pair.second if pair.first == best else pair.first for pair in like]
    told = f"; not told apart from it: {', '.join(others)}" if others else ""
    return f"{best} has the fewest bits per character{told}."


def cut_sample(sample: Sample) -> list[tuple[str, bool]]:
    """Return a sample in pieces, each with whether it was copied."""
    text, pieces, place = sample.text[:_MAX_SAMPLE], [], 0
    for start, end in sample.copied or ():
        pieces += [(text[place:start], False), (text[start:end], True)]
        place = end
    pieces.append((text[place:] + ("…" if len(sample.text) > _MAX_SAMPLE else ""), False))
    return [(piece, is_copied) for piece, is_copied in pieces if piece]


def _charts(numbered: Sequence[tuple[int, Row]]) -> Iterator[Markup]:
    """Yield the charts that there are values for."""
    curves = [(style, row, _visible(row)) for style, row in numbered if row.curve]
    for x, name in (("seconds of training", "seconds"), ("tokens trained on", "tokens")) if curves else ():
        series = [
            Series(row.name, [(getattr(p, name), p.bits_per_character) for p in points], style) for style, row, points in curves
        ]
        summary = "Each line is a model; its points are the evaluations on validation texts during the training."
        yield draw_chart(
            series,
            title=f"Bits per character against {x}",
            x=x,
            y="bits per character, validation texts",
            summary=summary,
            from_zero=True,
            log_x=name == "tokens",  # counting reads millions of tokens while a network learns from thousands
        )
    if sized := [(style, row) for style, row in numbered if row.parameters and row.bits_per_character is not None]:
        yield draw_chart(
            [_mark(row, style) for style, row in sized],
            title="Bits per character against parameters",
            x="parameters",
            y="bits per character, held-out texts",
            summary="Each mark is a model, with its 95 % interval over the held-out texts.",
            log_x=True,
        )
    if counted := [(style, row) for style, row in numbered if row.orders]:
        yield draw_chart(
            [series for style, row in counted for series in _orders(row, style)],
            title="Order of an n-gram: training against held-out text",
            x="order",
            y="bits per character",
            summary="All orders count the same text. What a long context gains there and not on held-out text is memorised.",
        )


def _visible(row: Row) -> list[Any]:
    """Return the evaluations of a row that are not far above its lowest one."""
    known = [(point.bits_per_character, point) for point in row.curve if point.bits_per_character is not None]
    lowest = min((bits for bits, _ in known), default=0.0)
    return [point for bits, point in known if bits <= _MAX_RATIO * lowest]


def _mark(row: Row, style: int) -> Series:
    bits = math.inf if row.bits_per_character is None else row.bits_per_character
    return Series(
        row.name, [(float(row.parameters or 0), bits)], style, intervals=[row.bits_interval] if row.bits_interval else ()
    )


def _orders(row: Row, style: int) -> Iterator[Series]:
    for words, name, is_dashed in (("held-out text", "held_out_bits", False), ("training text", "train_bits", True)):
        points = [(float(each.order), getattr(each, name)) for each in row.orders]
        known = [(order, bits) for order, bits in points if bits is not None]
        yield Series(f"{row.name}, {words}", known, style, is_dashed)
