"""Whether synthetic texts repeat each other."""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from statistics import fmean

import numpy as np

from reviewgen.assessment.figures import MIN_TEXTS, NOT_KNOWN, Figure, Measured, Section, measure
from reviewgen.assessment.grams import Encoded, Runs, count_texts, encode
from reviewgen.assessment.texts import Texts, split_words
from reviewgen.data.split import NearDuplicates
from reviewgen.web.charts import Chart, Panel, Series

_TEXTS = 5_000  # maximum number of texts of each side that are measured
_EDGE = 3  # number of words of a beginning or an ending
_SIMILAR = 0.5  # near duplicates share at least this part of their runs of three words
_POINTS = 12  # maximum number of points of a line in a chart
_LISTED = 20  # maximum number of rows of a list
_MAX_SHOWN = 100  # maximum number of characters of a listed text
_DISTINCT = (1, 2, 3, 4)  # n of the n-grams of words of which different ones are counted


def measure_variety(synthetic: Texts, real: Texts) -> Section:
    """Measure how varied the synthetic texts are, beside as many real ones."""
    count = min(len(synthetic), len(real), _TEXTS)
    if count < MIN_TEXTS:
        words = "Whether these texts repeat each other is not known: there are too few."
        return Section("variety", words)
    made = synthetic.sample(count)
    some = real.sample(count)
    # Lists and pairs by side: first of the synthetic texts, then of the real ones.
    sides = [made.texts, some.texts]
    origins = [_near_duplicates(texts) for texts in sides]
    figures = [
        Figure(
            "near_duplicates",
            "near duplicates of an earlier text",
            (_share_of(origins[0]), _share_of(origins[1])),
            is_share=True,
            note=(
                "They share half of their runs of three words or more."
                if origins[0] is not None
                else "This needs rensa: pip install 'reviewgen[report]'."
            ),
        )
    ]
    beginnings = [_edges(texts, is_end=False) for texts in sides]
    endings = [_edges(texts, is_end=True) for texts in sides]
    for key, name, both in (
        ("beginnings", "texts that begin as another does", beginnings),
        ("endings", "texts that end as another does", endings),
    ):
        shares = _share_repeated(both[0]), _share_repeated(both[1])
        note = f"With the same {_EDGE} words; {count:,} texts of each side."
        figures.append(Figure(key, name, shares, is_share=True, note=note))
    encoded = [encode(texts) for texts in sides]
    for n in _DISTINCT:
        shares = _distinct(encoded[0].runs(n), count), _distinct(encoded[1].runs(n), count)
        note = f"Different runs of {n} words among all." if n > 1 else "Different words among all."
        figures.append(Figure(f"distinct_{n}", f"distinct-{n}", shares, digits=3, note=note))
    figures.append(_vocabulary(made, real))
    lists = {
        "Repeated beginnings": _list_edges(beginnings),
        "Repeated endings": _list_edges(endings),
        "Texts with near duplicates": _list_duplicates(made.texts, origins[0]),
    }
    return Section(
        "variety",
        _describe({figure.key: figure for figure in figures}),
        figures,
        [_distinct_chart(encoded), *_duplicates_chart(origins)],
        {title: rows for title, rows in lists.items() if len(rows) > 1},
    )


def _describe(figures: dict[str, Figure]) -> str:
    """Return the sentence on the figures: what the texts repeat most, or how varied they are."""
    for key, what in (
        ("near_duplicates", "are near duplicates of another one"),
        ("beginnings", "begin as another one does"),
        ("endings", "end as another one does"),
    ):
        figure = figures[key]
        made = figure.synthetic
        real = figure.real
        if made.value is None or real.value is None or made.interval is None:
            continue
        # half as much again as the real texts, or as 1 % if the real texts hardly do so
        if made.interval[0] > 1.5 * max(real.value, 0.01):
            shares = [figure.show(each._replace(interval=None)) for each in (made, real)]
            return (
                f"These texts repeat each other: {shares[0]} {what}, and {shares[1]} of the real"
                " ones."
            )
    used = figures["vocabulary"].synthetic.value
    by_real = figures["vocabulary"].real.value
    if used is not None and by_real is not None and used < 0.8 * by_real:
        return "These texts do not repeat each other, but they use fewer different words."
    if figures["near_duplicates"].synthetic.value is None:
        return "The words of these texts are as varied as real ones; near duplicates are not known."
    return "These texts are as varied as real ones."


def _near_duplicates(texts: Sequence[str]) -> list[int | None] | None:
    """Return for each text the index of an earlier one that it nearly equals, or None if it is new.
    Return None instead of the list if rensa is not installed.
    """
    if find_spec("rensa") is None:
        return None
    duplicates = NearDuplicates(_SIMILAR)
    firsts = list[int]()  # the indices of the texts that had no near duplicate before them
    origins = list[int | None]()
    for index, text in enumerate(texts):
        found = duplicates.find_or_add(text)  # the place in ``firsts``; None if the text is new
        origins.append(None if found is None else firsts[found])
        if found is None:
            firsts.append(index)
    return origins


def _share_of(origins: Sequence[int | None] | None) -> Measured:
    """Return the share of texts that nearly equal an earlier one; see ``_near_duplicates``."""
    if origins is None:
        return NOT_KNOWN
    return measure(fmean, [origin is not None for origin in origins], True)


def _edges(texts: Sequence[str], is_end: bool) -> list[tuple[str, int]]:
    """Return for each text its first or last words, and the number of texts that have the same."""
    found = []
    for text in texts:
        words = split_words(text)
        found.append(" ".join(words[-_EDGE:] if is_end else words[:_EDGE]))
    counts = Counter(found)
    return [(edge, counts[edge]) for edge in found]


def _share_repeated(edges: Sequence[tuple[str, int]]) -> Measured:
    """Return the share of texts whose first or last words another text has, too."""
    return measure(fmean, [count > 1 for _, count in edges], True)


def _list_edges(both: Sequence[Sequence[tuple[str, int]]]) -> list[list[str]]:
    """Return a table of the first or last words that several synthetic texts share, with the number
    of texts of each side that have them. ``both`` has the edges of the two sides; see
    ``_edges``.
    """
    made, real = (dict(each) for each in both)
    ranked = sorted(made, key=lambda edge: (-made[edge], edge))[:_LISTED]
    rows = [
        [edge, f"{made[edge]:,}", f"{real.get(edge, 0):,}"] for edge in ranked if made[edge] > 1
    ]
    return [["words", "synthetic texts", "real texts"], *rows]


def _list_duplicates(texts: Sequence[str], origins: Sequence[int | None] | None) -> list[list[str]]:
    """Return a table of the texts with the most near duplicates after them; ``origins`` is what
    ``_near_duplicates`` returns.
    """
    counts = Counter(origin for origin in origins or () if origin is not None)
    rows = [
        [texts[origin][:_MAX_SHOWN] + "…" * (len(texts[origin]) > _MAX_SHOWN), f"{count:,}"]
        for origin, count in counts.most_common(_LISTED)
    ]
    return [["text", "near duplicates"], *rows]


def _vocabulary(made: Texts, real: Texts) -> Figure:
    """Return the figure of which share of the words of one half of the real texts is used in the
    synthetic texts, and in as many texts of the other half.
    """
    first, second = real.halves()
    words = encode(first.texts)
    codes, counts = count_texts(words.runs(1))
    known = codes[counts > 1]  # the words of at least two texts
    size = min(len(made), len(second))

    def measure_used(texts: Texts) -> Measured:
        """Return the share of the known words that the texts use."""
        used = np.unique(encode(texts.sample(size).texts, words.vocabulary).runs(1).codes)
        is_used = np.isin(known, used)
        return measure(fmean, is_used.tolist(), True)._replace(texts=size)

    return Figure(
        "vocabulary",
        "real vocabulary that is used",
        (measure_used(made), measure_used(second)),
        is_share=True,
        note=f"{len(known):,} words of at least two real texts; {size:,} texts of each side.",
    )


def _distinct(runs: Runs, count: int) -> Measured:
    """Return the number of different runs, as a share of all runs of ``count`` texts."""
    # the codes of the runs of each text
    by_text = np.split(runs.codes, np.searchsorted(runs.texts, np.arange(1, count)))

    def share(some: Sequence[np.ndarray]) -> float:
        """Return the share of different runs of some texts."""
        codes = np.concatenate(some)
        return len(np.unique(codes)) / max(1, len(codes))

    return measure(share, by_text, True)


def _sizes(count: int) -> list[int]:
    """Return the numbers of texts at which a chart has points, up to ``count``. They grow by about
    the same factor.
    """
    return sorted({round(size) for size in np.geomspace(min(MIN_TEXTS, count), count, _POINTS)})


def _distinct_chart(sides: Sequence[Encoded]) -> Chart:
    """Return a chart of distinct-2 by the number of texts, with a line for each side."""
    lines = []
    for style, (name, texts) in enumerate(zip(("synthetic", "real"), sides, strict=True)):
        runs = texts.runs(2)
        points = []
        for size in _sizes(texts.count):
            codes = runs.codes[: np.searchsorted(runs.texts, size)]  # of the first ``size`` texts
            points.append((float(size), len(np.unique(codes)) / max(1, len(codes))))
        lines.append(Series(name, points, style))
    return Chart(
        "Distinct pairs of words, by the number of texts",
        "texts",
        [Panel("distinct-2", lines, ends=(0.0,))],
        "If the line of the synthetic texts falls below, they begin to repeat themselves.",
        log_x=True,
    )


def _duplicates_chart(origins: Sequence[Sequence[int | None] | None]) -> list[Chart]:
    """Return a chart of the share of near duplicates by the number of texts, with a line for each
    side; no chart if near duplicates are not known.
    """
    if None in origins:
        return []
    lines = []
    for style, (name, each) in enumerate(zip(("synthetic", "real"), origins, strict=True)):
        # for each text, how many texts up to it nearly equal an earlier one
        repeats = np.cumsum([origin is not None for origin in each or ()])
        points = [(float(n), 100 * float(repeats[n - 1]) / n) for n in _sizes(len(repeats))]
        lines.append(Series(name, points, style))
    return [
        Chart(
            "Near duplicates, by the number of texts",
            "texts",
            [Panel("% of texts", lines, ends=(0.0, 1.0))],
            "The more texts, the more of them are like an earlier one.",
            log_x=True,
        )
    ]
