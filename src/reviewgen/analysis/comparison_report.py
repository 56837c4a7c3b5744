"""``Comparison``, the result of ``compare``: its rows as a data frame, as JSON, as tables on a
terminal and as a page.
"""

import math
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float64
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from reviewgen.analysis.comparison_figures import TEMPERATURES, ComparisonRow, Measured, Sample
from reviewgen.analysis.comparison_texts import HeldOut
from reviewgen.config.bounded import to_json
from reviewgen.errors import ConfigError, counted, did_you_mean, quoted
from reviewgen.evaluation.differences import (
    Difference,
    Interval,
    SeedSpread,
    compare_bits,
    find_seed_spread,
    pool_spreads,
)
from reviewgen.novelty import COPY_CHARACTERS
from reviewgen.rates import MIN_CHARACTERS
from reviewgen.runs.trials import describe_unequal
from reviewgen.web.charts import Chart, Panel, Series, draw_figure
from reviewgen.web.rendering import HtmlReport, decimal, duration, percent, size, thousands

if TYPE_CHECKING:
    import pandas

# fields of a row that are not columns of the data frame
_NESTED = (
    "settings",
    "bits_interval",
    "intervals",
    "distinct",
    "samples",
    "curve",
    "notes",
    "picture",
)
# Learning curves are drawn up to this multiple of their lowest bits: the first steps of a training
# would flatten all other points.
_MAX_RATIO = 3.0
_MAX_PAIRS = 15  # maximum number of differences that are shown
_WIDE = 160  # a terminal with at least this many columns shows both tables as one
_SEEDS_WIDTH = 15  # the spread over seeds takes this many columns of a terminal
_NARROW = 80  # with fewer columns beside the spread over seeds, the first table is split
_SAMPLE = 1500  # a sample on a page is cut at this number of characters
_PRINTED = 240  # a sample on a terminal is cut at this number of characters


class Column(NamedTuple):
    """A column of one of the two tables: its name on a page, its name on a terminal, and the
    function that turns a row into the text of a cell.
    """

    name: str
    short: str
    show: Callable[[ComparisonRow], str]


def _rate(
    name: str, characters: str | None = "characters_measured", digits: int = 1
) -> Callable[[ComparisonRow], str]:
    """Return the function that shows a rate of a row, with half the width of its interval. If the
    rate may be zero, the function shows an upper bound. A rate of too few characters is not shown.

    Args:
        name: The field of the rate, or "distinct_n".
        characters: The field with the number of characters that the rate was measured on; None if
            there is no such field.
        digits: The number of digits after the point.
    """

    def show(row: ComparisonRow) -> str:
        """Return the rate of a row with its interval."""
        if characters is not None:
            count = getattr(row, characters)
            if count is not None and count < MIN_CHARACTERS:
                return percent(None)  # too few characters for a rate
        # the last letter of "distinct_2" is its key in ``row.distinct``
        value = row.distinct.get(name[-1]) if name.startswith("distinct") else getattr(row, name)
        limits = row.intervals.get(name)
        if value is None or limits is None:
            return percent(value, digits)
        low, high = limits
        if low < 0.0005:  # the rate may be zero
            return f"< {percent(high, digits)}"
        return f"{100 * value:.{digits}f}±{percent((high - low) / 2, digits)}"

    return show


def _perplexity(row: ComparisonRow) -> str:
    """Return the perplexity and the tokenizer; a perplexity below 100 has two decimals."""
    value = row.perplexity_per_token
    digits = 0 if value is not None and value >= 100 else 2
    return f"{decimal(value, digits)} {row.tokenizer}"


_SEEDS = Column(
    "spread over seeds",
    "spread",
    lambda row: "–" if row.spread is None else f"±{row.spread:.3f} ({row.seeds})",
)
PREDICTION = (
    Column(
        "bits per character",
        "bits/char",
        lambda row: decimal(row.bits_per_character) + ("*" if row.has_seen_held_out else ""),
    ),
    Column(
        "95 % interval",
        "95 %",
        lambda row: "{:.3f}–{:.3f}".format(*row.bits_interval) if row.bits_interval else "–",
    ),
    Column("perplexity per token", "ppl/token", _perplexity),
    Column("agreement past an attractor", "agree", _rate("agreement", None, 0)),
    # ``size`` shortens a number of bytes; the unit is removed
    Column("parameters", "params", lambda row: size(row.parameters).removesuffix("B").strip()),
    Column("size on disk", "size", lambda row: size(row.bytes_on_disk)),
    Column("training", "trained", lambda row: duration(row.training_seconds)),
    Column("an epoch", "epoch", lambda row: duration(row.seconds_per_epoch)),
)
GENERATED = (
    Column("copy rate", "copied", _rate("copy_rate", "copy_rate_characters")),
    Column("copy rate of held-out texts", "held out", lambda row: percent(row.held_out_copy_rate)),
    Column("membership", "member", lambda row: decimal(row.membership, 2)),
    Column("new words", "new words", _rate("new_words")),
    Column("distinct-1", "distinct-1", _rate("distinct_1")),
    Column("distinct-2", "distinct-2", _rate("distinct_2")),
    Column("distinct-3", "distinct-3", _rate("distinct_3")),
    Column("characters a second", "char/s", lambda row: thousands(row.characters_per_second)),
)


@dataclass(frozen=True)
class Pair:
    """The difference of two models on the same texts.

    Attributes:
        first, second: The names of their rows.
        measured: The difference, with the second model as the base.
    """

    first: str
    second: str
    measured: Difference

    @property
    def difference(self) -> float:
        """Bits per character of the first model minus those of the second. If it is below zero, the
        first model is better.
        """
        return self.measured.value

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the difference over the texts, and over the seeds if a model was
        trained from several; None if the bits of a model are infinite, or if there is only one
        text.
        """
        return self.measured.interval

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.measured.is_significant

    def to_dict(self) -> dict[str, Any]:
        """Return the pair as JSON values; an infinite number becomes None."""
        return {
            "first": self.first,
            "second": self.second,
            "difference": to_json(self.difference),
            "interval": self.interval,
            "is_significant": self.is_significant,
            "is_over_seeds": self.measured.is_over_seeds,
        }

    def describe(self) -> str:
        """Return a sentence on which model is better, and by how much."""
        both = f"{self.first} and {self.second}"
        if self.interval is None:
            return f"{both}: no interval, because one is infinite or there is a single text."
        low, high = self.interval
        if not self.is_significant:
            return (
                f"{both} do not differ significantly: {self.difference:+.3f} ({low:+.3f} to"
                f" {high:+.3f})."
            )
        better = self.first
        other = self.second
        if self.difference > 0:
            better, other = other, better
        smallest, largest = sorted(map(abs, self.interval))
        return (
            f"{better} is better than {other} by {abs(self.difference):.3f} bits per character"
            f" ({smallest:.3f} to {largest:.3f})."
        )


class Comparison(HtmlReport):
    """The result of ``reviewgen.compare``: several models, measured on the same held-out texts.

    Args:
        held_out: The texts that all models are evaluated on.
        prompt: The beginning of the samples.
        seed: The seed of the trainings and of the generated texts.

    Attributes:
        rows: A ``ComparisonRow`` for each model, in the order in which the models were given.
        is_interrupted: Whether Ctrl-C ended the comparison before all rows were finished.
    """

    _template: ClassVar[str] = "analysis/comparison.html"

    def __init__(self, held_out: HeldOut, prompt: str, seed: int) -> None:
        self.held_out = held_out
        self.prompt = prompt
        self.seed = seed
        self.rows: list[ComparisonRow] = []
        self.is_interrupted = False
        # the nats of each held-out text for each seed, by the name of the row
        self._nats: dict[str, Float64[np.ndarray, "S N"]] = {}

    def add(self, measured: Measured) -> None:
        """Add a finished row."""
        self.rows.append(measured.row)
        if measured.nats is not None and measured.row.is_ranked:
            self._nats[measured.row.name] = measured.nats
        self.__dict__.pop("pairs", None)  # the cached pairs lack the new row

    @cached_property
    def pairs(self) -> list[Pair]:
        """The difference of each pair of ranked models on the same texts."""
        characters = self.held_out.characters
        return [
            Pair(first, second, compare_bits(self._nats[second], self._nats[first], characters))
            for first, second in combinations(self._nats, 2)
        ]

    @property
    def seed_spread(self) -> SeedSpread | None:
        """How much trainings from different seeds differ, estimated from all rows with several
        seeds; None if there are none. A model that is the same from each seed, as an n-gram is,
        says nothing about the others.
        """
        characters = self.held_out.characters
        spreads = [find_seed_spread(nats, characters) for nats in self._nats.values()]
        return pool_spreads([spread for spread in spreads if spread and spread.deviation > 0])

    def is_better(self, name: str, seed_spread: SeedSpread | None = None) -> bool | None:
        """Return whether a row, the candidate, has fewer bits per character than the first row, the
        base.

        It is True or False only if the 95 % interval of the difference excludes zero, and takes
        into account the choice of the texts and of the seed. It is None, for unknown, if the
        interval contains zero; if each model was trained from one seed and no spread is given; if a
        model has failed, is not ranked, or had less processor time in the same time budget.

        Args:
            name: The name of the candidate's row.
            seed_spread: The spread over seeds of similar trainings, such as those of earlier
                comparisons. It is pooled with that of these two models.

        Raises:
            ConfigError: No row has this name.
        """
        names = [row.name for row in self.rows]
        if name not in names:
            raise ConfigError(f"There is no row {quoted(name)}. {did_you_mean(name, names)}")
        base = self._nats.get(names[0])
        candidate = self._nats.get(name)
        if base is None or candidate is None or self.describe_unequal() is not None:
            return None
        return compare_bits(base, candidate, self.held_out.characters, seed_spread).is_better

    def describe_unequal(self) -> str | None:
        """Return a sentence on the rows that had less processor time than others in the same time
        budget, as on a busy machine; None if all had about the same.
        """
        return describe_unequal({row.name: row.processor_share for row in self.rows})

    @property
    def _covered(self) -> str:
        """What the intervals of the differences are over."""
        is_over_seeds = any(pair.measured.is_over_seeds for pair in self.pairs)
        return "texts and seeds" if is_over_seeds else "texts"

    @property
    def _finished(self) -> list[ComparisonRow]:
        """The rows of the models that have not failed."""
        return [row for row in self.rows if row.failed is None]

    @property
    def _prediction(self) -> tuple[Column, ...]:
        """The columns of the first table. The spread over seeds stands beside the interval."""
        if any(row.seeds > 1 for row in self.rows):
            return (*PREDICTION[:2], _SEEDS, *PREDICTION[2:])
        return PREDICTION

    @property
    def has_failed(self) -> bool:
        """Whether a model has failed."""
        return len(self._finished) < len(self.rows)

    def describe_held_out(self) -> str:
        """Return a sentence on the texts that all models are evaluated on."""
        held_out = self.held_out
        chosen = len(held_out.texts)
        # as in "the same 500 of 2,000 held-out texts"
        part = f"{chosen:,} of " if chosen < held_out.total else ""
        source = held_out.source
        if held_out.split != "all":
            source = f"the {held_out.split} split of {source}"
        return (
            f"All are evaluated on the same {part}{counted(held_out.total, 'held-out text')}"
            f" ({held_out.characters.sum():,} characters): {source}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; an infinite number becomes None.

        Each row but the first has ``better``: true, false or "unknown"; see ``is_better``. With two
        rows, ``better`` of the second also stands at the top.
        """
        held_out = self.held_out
        rows = []
        for row in self.rows:
            better = self.is_better(row.name)
            rows.append(
                to_json(row)
                | {"has_seen_held_out": row.has_seen_held_out}
                | {"better": "unknown" if better is None else better}
            )
        if rows:
            del rows[0]["better"]
        return {
            **({"better": rows[1]["better"]} if len(rows) == 2 else {}),
            "held_out": {
                "source": held_out.source,
                "split": held_out.split,
                "texts": len(held_out.texts),
                "of": held_out.total,
                "characters": int(held_out.characters.sum()),
                "digest": held_out.digest,
            },
            "prompt": self.prompt,
            "seed": self.seed,
            "is_interrupted": self.is_interrupted,
            "not_comparable": self.describe_unequal(),
            "seed_spread": None if self.seed_spread is None else self.seed_spread._asdict(),
            "rows": rows,
            "pairs": [pair.to_dict() for pair in self.pairs],
        }

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the figures as a data frame. It has a row for each model; the index has the names
        of the rows.
        """
        import pandas  # takes half a second to import

        records = []
        for row in self.rows:
            record = {name: value for name, value in vars(row).items() if name not in _NESTED}
            record["bits_low"], record["bits_high"] = row.bits_interval or (None, None)
            record |= {f"distinct_{n}": share for n, share in row.distinct.items()}
            for name, limits in row.intervals.items():
                record[f"{name}_low"], record[f"{name}_high"] = limits or (None, None)
            records.append(record)
        frame = pandas.DataFrame(records, index=[row.name for row in self.rows])
        return frame.drop(columns="name", errors="ignore")  # without rows, there are no columns

    def _values(self) -> dict[str, Any]:
        """Return the values that the template of the page uses."""
        finished = self._finished
        return {
            "comparison": self,
            "finished": finished,
            "tables": [("Prediction and cost", self._prediction), ("Generated text", GENERATED)],
            "most_pairs": _MAX_PAIRS,
            "best": self.describe_best(),
            "has_seeds": _SEEDS in self._prediction,
            "covered": self._covered,
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
        """Return a sentence that names the model with the fewest bits per character, and the models
        that do not differ significantly from it.

        No model is named if a training was too short for a verdict, or had less processor time than
        others: with more training, that model might be the best.
        """
        if not self._finished:
            return "No model was evaluated."
        unequal = self.describe_unequal()
        if unequal is not None:
            return f"No model is named the best. {unequal}"
        unknown = [row.name for row in self.rows if row.verdict == "unknown"]
        if unknown:
            return (
                "No model is named the best, since there is no verdict on the training of"
                f" {', '.join(unknown)}."
            )
        ranked = {row.name: row.bits_per_character for row in self.rows if row.is_ranked}
        finite = {
            name: bits for name, bits in ranked.items() if bits is not None and bits < math.inf
        }
        if not finite:
            return "No model has finite bits per character on texts that it was not trained on."
        best = min(finite, key=finite.__getitem__)
        tied = list[str]()
        for pair in self.pairs:
            if best in (pair.first, pair.second) and pair.interval and not pair.is_significant:
                tied.append(pair.second if pair.first == best else pair.first)
        ties = f"; not significantly different: {', '.join(tied)}" if tied else ""
        return f"{best} has the fewest bits per character{ties}."

    def __repr__(self) -> str:
        return f"Comparison({[row.name for row in self.rows]})"


def draw_tables(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    """Yield the tables, the failures, the differences and the samples, for a terminal with
    ``width`` columns.
    """
    finished = comparison._finished
    if finished:
        prediction = comparison._prediction
        room = width - _SEEDS_WIDTH if _SEEDS in prediction else width
        groups = [prediction, GENERATED]
        if room >= _WIDE:
            groups = [(*prediction, *GENERATED)]
        # ``room`` is less than ``width`` only if there is a column for the spread over seeds
        elif room < min(width, _NARROW):
            groups = [prediction[:5], prediction[5:], GENERATED]
        for columns in groups:
            table = Table(box=None, pad_edge=False, padding=(0, 2 if width >= 100 else 1, 0, 0))
            table.add_column("model", overflow="fold", min_width=8)
            for column in columns:
                table.add_column(column.short, justify="right", overflow="fold")
            for row in finished:
                table.add_row(Text(row.name), *(Text(column.show(row)) for column in columns))
            yield table
            yield Text("")
    for row in comparison.rows:
        if row.failed is not None:
            yield Text(f"{row.name} failed: {row.failed}", style="red")
    for row in finished:
        mark = "* " if row.has_seen_held_out else ""
        for note in row.notes:
            yield Text(f"{mark}{row.name}: {note}")
    yield Text(comparison.describe_best())
    yield Text(comparison.describe_held_out(), style="dim")
    if comparison.pairs:
        yield Text("")
    for pair in comparison.pairs[:_MAX_PAIRS]:
        yield Text(pair.describe())
    if comparison._covered != "texts":
        yield Text(f"The intervals are over {comparison._covered}.", style="dim")
    more = len(comparison.pairs) - _MAX_PAIRS
    if more > 0:
        yield Text(f"... and {more} more pairs; --json and --html have all.", style="dim")
    for row in finished:
        yield Text(f"\n{row.name}", style="bold")
        yield _draw_samples(row)


def _draw_samples(row: ComparisonRow) -> Table:
    """Return a table of the samples of a model; copied spans are underlined."""
    grid = Table.grid(padding=(0, 1))
    for sample in row.samples:
        text = Text()
        for piece, is_copied in _cut(sample):
            # a terminal would obey control characters
            shown = "".join(sign if sign.isprintable() else " " for sign in piece)
            text.append(shown, style="underline" if is_copied else "")
        text.truncate(_PRINTED, overflow="ellipsis")
        grid.add_row(Text(f"  {sample.temperature}", style="dim"), text)
    return grid


def _cut(sample: Sample) -> list[tuple[str, bool]]:
    """Cut a sample at the ends of its copied spans. Return each piece, and whether it is copied. A
    long sample ends with an ellipsis.
    """
    text = sample.text[:_SAMPLE]
    pieces = []
    position = 0
    for start, end in sample.copied or ():
        pieces += [(text[position:start], False), (text[start:end], True)]
        position = end
    ellipsis = "…" if len(sample.text) > _SAMPLE else ""
    pieces.append((text[position:] + ellipsis, False))
    return [(piece, is_copied) for piece, is_copied in pieces if piece]


def _charts(rows: Sequence[ComparisonRow]) -> Iterator[Chart]:
    """Yield the charts that have values. A row has the same colour and mark in each chart."""
    if any(row.curve for row in rows):
        yield _learning_chart(rows, "seconds", "seconds of training")
        yield _learning_chart(rows, "tokens", "tokens trained on")
    marks = list[Series]()
    for style, row in enumerate(rows):
        bits = row.bits_per_character
        if row.parameters and bits is not None:
            points = [(row.parameters, bits)]
            marks.append(Series(row.name, points, style, interval=row.bits_interval))
    if marks:
        panels = [Panel("bits per character, held-out texts", marks)]
        note = "Each mark is a model, with its 95 % interval over the held-out texts."
        yield Chart("Bits per character against parameters", "parameters", panels, note, log_x=True)


def _learning_chart(rows: Sequence[ComparisonRow], field: str, x_label: str) -> Chart:
    """Return a chart of the learning curves. ``field``, a field of ``CurvePoint``, is the
    horizontal axis.
    """
    lines = []
    for style, row in enumerate(rows):
        if row.curve:
            points = [
                (getattr(point, field), point.bits_per_character)
                for point in row.curve
                if point.bits_per_character is not None
            ]
            highest = _MAX_RATIO * min((bits for _, bits in points), default=0.0)
            shown = [(x, bits) for x, bits in points if bits <= highest]
            lines.append(Series(row.name, shown, style))
    panels = [Panel("bits per character, validation texts", lines)]
    note = (
        "Each line is a model; its points are the evaluations on validation texts during the"
        " training."
    )
    # an n-gram counts millions of tokens while a network learns from thousands
    log_x = field == "tokens"
    title = f"Bits per character against {x_label}"
    return Chart(title, x_label, panels, note, log_x=log_x, from_zero=True)
