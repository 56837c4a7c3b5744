"""Learning curves as a small chart for notebooks: inline SVG, without matplotlib."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from reviewgen.pages import Series, draw_chart

_MAX_RATIO = 3.0  # times a model's fewest bits; the values of first steps, which are higher, would flatten the rest


def draw_inline(
    evaluations: Mapping[str, Sequence[Mapping[str, Any]]], curves: Mapping[str, Mapping[str, Sequence[Any]]], title: str
) -> Markup | None:
    """Return bits per character against seconds as an HTML figure; None while there are fewer than two values.

    Args:
        evaluations: Of each model by name, its evaluations, as in ``training.json``.
        curves: Of each model by name, its curve between them.
        title: The caption.
    """
    series = []
    for style, name in enumerate(evaluations):
        prefix = f"{name}, " if len(evaluations) > 1 else ""
        held_out = [(each.get("seconds"), each.get("bits_per_character")) for each in evaluations[name]]
        columns = (curves.get(name, {}).get(column, ()) for column in ("seconds", "train_bits_per_character"))
        pairs = [_known(held_out), _known(zip(*columns, strict=True))]
        limit = _MAX_RATIO * min((bits for each in pairs for _, bits in each), default=0.0)
        shown = [[(x, y) for x, y in each if y <= limit] for each in pairs]
        series.append(Series(f"{prefix}held-out text", shown[0], style))
        series.append(Series(f"{prefix}training text", shown[1], style, is_dashed=True))
    bits = [y for each in series for _, y in each.points]
    if len(bits) < 2:
        return None
    summary = f"The fewest bits per character so far are {min(bits):.3f}."
    drawn = [each for each in series if each.points]
    return draw_chart(drawn, title=title, x="seconds", y="bits per character", summary=summary, from_zero=True)


def _known(pairs: Any) -> list[tuple[float, float]]:
    """Return the pairs without those that have a value that is None or infinite."""
    return [(x, y) for x, y in pairs if x is not None and y is not None and math.isfinite(y)]
