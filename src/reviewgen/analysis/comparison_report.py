"""``Comparison``: the rows, and what is made of them: a data frame, JSON, tables on a terminal, a
page.
"""

import math
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from reviewgen.analysis.comparison_figures import TEMPERATURES, ComparisonRow, Measured, Sample
from reviewgen.analysis.comparison_texts import Bootstrap, HeldOut, Pair
from reviewgen.config.bounded import to_json
from reviewgen.novelty import COPY_CHARACTERS
from reviewgen.rates import MIN_CHARACTERS
from reviewgen.web.charts import Chart, Panel, Series, draw_figure
from reviewgen.web.rendering import HtmlReport, decimal, duration, percent, size, thousands

if TYPE_CHECKING:
    import pandas

_NESTED = ("bits_interval", "intervals", "distinct", "samples", "curve", "notes", "picture")
# times the lowest bits; the first steps of a training would flatten all other points
_MAX_RATIO = 3.0
_MAX_PAIRS = 15  # that are shown at once
_WIDE = 160  # columns of a terminal, for one table
_SAMPLE = 1500  # characters of a sample on a page
_PRINTED = 240  # characters of a sample on a terminal


class Column(NamedTuple):
    """A column of one of the two tables: its name on a page and on a terminal, and what its cells
    show of a row.
    """

    name: str
    short: str
    show: Callable[[ComparisonRow], str]


def _rate(
    name: str, characters: str | None = "characters_measured", digits: int = 1
) -> Callable[[ComparisonRow], str]:
    """Return what shows a rate: half the width of its interval after it; only a bound, where it may
    be zero.
    """

    def show(row: ComparisonRow) -> str:
        value = row.distinct.get(name[-1]) if name.startswith("distinct") else getattr(row, name)
        count = None if characters is None else getattr(row, characters)
        limits = row.intervals.get(name)
        if count is not None and count < MIN_CHARACTERS:
            return percent(None)
        if value is None or limits is None:
            return percent(value, digits)
        low, high = limits
        spread = percent((high - low) / 2, digits)
        return (
            f"< {percent(high, digits)}" if low < 0.0005 else f"{100 * value:.{digits}f}±{spread}"
        )

    return show


def _perplexity(row: ComparisonRow) -> str:
    value = row.perplexity_per_token
    return f"{decimal(value, 2 if value is None or value < 100 else 0)} {row.tokenizer}"


PREDICTION = (
    Column(
        "bits per character",
        "bits/char",
        lambda row: decimal(row.bits_per_character) + "*" * row.has_seen_held_out,
    ),
    Column(
        "95 % interval",
        "95 %",
        lambda row: "{:.3f}–{:.3f}".format(*row.bits_interval) if row.bits_interval else "–",
    ),
    Column("perplexity per token", "ppl/token", _perplexity),
    Column("agreement past an attractor", "agree", _rate("agreement", None, 0)),
    Column("parameters", "params", lambda row: size(row.parameters).removesuffix("B").strip()),
    Column("size on disk", "size", lambda row: size(row.bytes_on_disk)),
    Column("training", "trained", lambda row: duration(row.training_seconds)),
    Column("an epoch", "epoch", lambda row: duration(row.seconds_per_epoch)),
)
GENERATED = (
    Column("copy rate", "copied", _rate("copy_rate", "copy_rate_characters")),
    Column("copy rate of held-out texts", "held out", lambda row: percent(row.held_out_copy_rate)),
    Column("new words", "new words", _rate("new_words")),
    Column("distinct-1", "distinct-1", _rate("distinct_1")),
    Column("distinct-2", "distinct-2", _rate("distinct_2")),
    Column("distinct-3", "distinct-3", _rate("distinct_3")),
    Column("characters a second", "char/s", lambda row: thousands(row.characters_per_second)),
)


class Comparison(HtmlReport):
    """Models on one scale; ``reviewgen.compare`` returns it.

    Args:
        held_out: The texts that all models are evaluated on.
        prompt: The beginning of the samples.
        seed: The seed of the intervals.

    Attributes:
        rows: A ``ComparisonRow`` for each model, in the order that they were given in.
        is_interrupted: Whether Ctrl-C has ended the comparison before all rows were finished.
    """

    _template: ClassVar[str] = "analysis/comparison.html"

    def __init__(self, held_out: HeldOut, prompt: str, seed: int) -> None:
        self.held_out = held_out
        self.prompt = prompt
        self.seed = seed
        self.rows: list[ComparisonRow] = []
        self.is_interrupted = False
        self._bits: dict[str, tuple[float, ...]] = {}

    def add(self, measured: Measured) -> None:
        """Add a finished row."""
        self.rows.append(measured.row)
        if measured.bits is not None and measured.row.is_ranked:
            self._bits[measured.row.name] = measured.bits
        self.__dict__.pop("pairs", None)

    @cached_property
    def pairs(self) -> list[Pair]:
        """The paired difference of each pair of models on the same texts, without models that are
        not ranked.
        """
        return Bootstrap(self.held_out.characters, self.seed).pairs(self._bits)

    @property
    def has_failed(self) -> bool:
        """Whether a model has failed."""
        return any(row.failed is not None for row in self.rows)

    def describe_held_out(self) -> str:
        """Return a sentence on the texts that all models are evaluated on."""
        held_out, total = self.held_out, self.held_out.total
        part = (
            f"{len(held_out.texts):,} of {total:,}" if len(held_out.texts) < total else f"{total:,}"
        )
        source = (
            held_out.source
            if held_out.split == "all"
            else f"the {held_out.split} split of {held_out.source}"
        )
        texts = (
            f"held-out {'text' if total == 1 else 'texts'} ({held_out.characters.sum():,}"
            " characters)"
        )
        return f"All are evaluated on the same {part} {texts}: {source}."

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; a number that is infinite becomes None."""
        held_out = self.held_out
        facts = {"prompt": self.prompt, "seed": self.seed, "is_interrupted": self.is_interrupted}
        texts = {
            "source": held_out.source,
            "split": held_out.split,
            "texts": len(held_out.texts),
            "of": held_out.total,
        }
        texts |= {"characters": int(held_out.characters.sum()), "digest": held_out.digest}
        rows = [to_json(row) | {"has_seen_held_out": row.has_seen_held_out} for row in self.rows]
        pairs = [to_json(pair) | {"is_significant": pair.is_significant} for pair in self.pairs]
        return {"held_out": texts, **facts, "rows": rows, "pairs": pairs}

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the figures as a data frame, a row for each model, its name as the index."""
        import pandas  # takes half a second to import

        records = []
        for row in self.rows:
            record = {name: value for name, value in vars(row).items() if name not in _NESTED}
            record["bits_low"], record["bits_high"] = row.bits_interval or (None, None)
            record |= {f"distinct_{n}": share for n, share in row.distinct.items()}
            for name, limits in row.intervals.items():
                record[f"{name}_low"], record[f"{name}_high"] = limits or (None, None)
            records.append(record)
        return pandas.DataFrame(records, index=[row.name for row in self.rows]).drop(
            columns="name", errors="ignore"
        )

    def _values(self) -> dict[str, Any]:
        """Return what the template of the page is filled with."""
        finished = [row for row in self.rows if row.failed is None]
        return {
            "comparison": self,
            "finished": finished,
            "tables": [("Prediction and cost", PREDICTION), ("Generated text", GENERATED)],
            "most_pairs": _MAX_PAIRS,
            "best": self.describe_best(),
            "charts": [draw_figure(chart) for chart in _charts(self.rows)],
            "samples": {
                row.name: [(sample.temperature, _cut(sample)) for sample in row.samples]
                for row in finished
            },
            "temperatures": ", ".join(map(str, TEMPERATURES)),
            "copy_characters": COPY_CHARACTERS,
            "pictures": [
                (row, b64encode(row.picture.encode()).decode()) for row in finished if row.picture
            ],
        }

    def describe_best(self) -> str:
        """Return which model has the fewest bits per character, and which models do not differ from
        it significantly.

        No model is named while one has no verdict: with more training, that one might be the best.
        """
        rated = {row.name: row.bits_per_character for row in self.rows if row.is_ranked}
        unknown = [row.name for row in self.rows if row.verdict == "unknown"]
        known = {
            name: bits for name, bits in rated.items() if bits is not None and math.isfinite(bits)
        }
        if all(row.failed is not None for row in self.rows):
            return "No model was evaluated."
        if unknown:
            return (
                "No model is named the best, since there is no verdict on the training of"
                f" {', '.join(unknown)}."
            )
        if not known:
            return "No model has finite bits per character on texts that it was not trained on."
        best = min(known, key=lambda name: known[name])
        like = [
            pair
            for pair in self.pairs
            if best in (pair.first, pair.second) and pair.interval and not pair.is_significant
        ]
        others = [pair.second if pair.first == best else pair.first for pair in like]
        told = f"; not significantly different: {', '.join(others)}" if others else ""
        return f"{best} has the fewest bits per character{told}."

    def __repr__(self) -> str:
        return f"Comparison({[row.name for row in self.rows]})"


def draw_tables(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    """Yield the tables, the failures, the differences and the samples, for a terminal of some
    columns.
    """
    finished = [row for row in comparison.rows if row.failed is None]
    groups = [(*PREDICTION, *GENERATED)] if width >= _WIDE else [PREDICTION, GENERATED]
    for columns in groups if finished else ():
        table = Table(box=None, pad_edge=False, padding=(0, 2 if width >= 100 else 1, 0, 0))
        table.add_column("model", overflow="fold", min_width=8)
        for column in columns:
            table.add_column(column.short, justify="right", overflow="fold")
        for row in finished:
            table.add_row(Text(row.name), *(Text(column.show(row)) for column in columns))
        yield table
        yield Text("")
    yield from (
        Text(f"{row.name} failed: {row.failed}", style="red")
        for row in comparison.rows
        if row.failed is not None
    )
    yield from (
        Text(f"{'* ' if row.has_seen_held_out else ''}{row.name}: {note}")
        for row in finished
        for note in row.notes
    )
    yield Text(comparison.describe_best())
    yield Text(comparison.describe_held_out(), style="dim")
    yield from [Text("")] if comparison.pairs else []
    yield from (Text(pair.describe()) for pair in comparison.pairs[:_MAX_PAIRS])
    if (more := len(comparison.pairs) - _MAX_PAIRS) > 0:
        yield Text(f"... and {more} more pairs; --json and --html have all.", style="dim")
    for row in finished:
        grid = Table.grid(padding=(0, 1))
        for sample in row.samples:
            text = Text()
            # without control characters, which a terminal would obey
            for piece, is_copied in _cut(sample):
                shown = "".join(sign if sign.isprintable() else " " for sign in piece)
                text.append(shown, style="underline" if is_copied else "")
            text.truncate(_PRINTED, overflow="ellipsis")
            grid.add_row(Text(f"  {sample.temperature}", style="dim"), text)
        yield Text(f"\n{row.name}", style="bold")
        yield grid


def _cut(sample: Sample) -> list[tuple[str, bool]]:
    """Return a sample in pieces, each with whether it was copied."""
    text = sample.text[:_SAMPLE]
    pieces = []
    position = 0
    for start, end in sample.copied or ():
        pieces += [(text[position:start], False), (text[start:end], True)]
        position = end
    pieces.append((text[position:] + ("…" if len(sample.text) > _SAMPLE else ""), False))
    return [(piece, is_copied) for piece, is_copied in pieces if piece]


def _charts(rows: Sequence[ComparisonRow]) -> Iterator[Chart]:
    """Yield the charts that there are values for; a row keeps its style."""
    curves = [(style, row) for style, row in enumerate(rows) if row.curve]
    for x, name in (
        (("seconds of training", "seconds"), ("tokens trained on", "tokens")) if curves else ()
    ):
        lines = []
        for style, row in curves:
            points = [
                (getattr(point, name), bits)
                for point in row.curve
                if (bits := point.bits_per_character) is not None
            ]
            lowest = min((bits for _, bits in points), default=0.0)
            lines.append(
                Series(
                    row.name, [point for point in points if point[1] <= _MAX_RATIO * lowest], style
                )
            )
        panels = [Panel("bits per character, validation texts", lines)]
        note = (
            "Each line is a model; its points are the evaluations on validation texts during the"
            " training."
        )
        # counting reads millions of tokens while a network learns from thousands
        log_x = name == "tokens"
        yield Chart(f"Bits per character against {x}", x, panels, note, log_x=log_x, from_zero=True)
    marks = [
        Series(row.name, [(row.parameters, bits)], style, interval=row.bits_interval)
        for style, row in enumerate(rows)
        if row.parameters and (bits := row.bits_per_character) is not None
    ]
    if marks:
        panels = [Panel("bits per character, held-out texts", marks)]
        note = "Each mark is a model, with its 95 % interval over the held-out texts."
        yield Chart("Bits per character against parameters", "parameters", panels, note, log_x=True)
