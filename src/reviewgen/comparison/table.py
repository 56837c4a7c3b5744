"""The table of a comparison on a terminal: one from 160 columns on, below that two narrow ones, which fit into 80."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reviewgen.comparison.page import cut_sample, describe_best
from reviewgen.comparison.rows import Row
from reviewgen.pages.numbers import decimal, duration, percent, size, thousands

if TYPE_CHECKING:
    from reviewgen.comparison.comparison import Comparison

_WIDE = 160  # columns of a terminal, for one table
_MAX_PAIRS = 15  # that are printed
_SAMPLE = 240  # characters of a sample that are printed

Column = tuple[str, Callable[[Row], str]]


def _bits(row: Row) -> str:
    return decimal(row.bits_per_character) + ("*" if row.has_seen_held_out else "")


def _interval(row: Row) -> str:
    return "–" if row.bits_interval is None else f"{row.bits_interval[0]:.3f}-{row.bits_interval[1]:.3f}"


def _perplexity(row: Row) -> str:
    value = row.perplexity_per_token
    return decimal(value, 2 if value is None or value < 100 else 0)


def _short(number: int | None) -> str:
    """Return a number of parameters in few characters."""
    return size(number).removesuffix("B").strip() if number is not None else "–"


_PREDICTION: Sequence[Column] = (
    ("bits/char", _bits),
    ("95 %", _interval),
    ("ppl/token", lambda row: f"{_perplexity(row)} {row.tokenizer}"),
    ("params", lambda row: _short(row.parameters)),
    ("size", lambda row: size(row.bytes_on_disk)),
    ("trained", lambda row: duration(row.training_seconds)),
    ("epoch", lambda row: duration(row.seconds_per_epoch)),
)
_TEXTS: Sequence[Column] = (
    ("copied", lambda row: percent(row.copy_rate)),
    ("held out", lambda row: percent(row.held_out_copy_rate)),
    ("new words", lambda row: percent(row.new_words)),
    ("distinct-1", lambda row: percent(row.distinct.get("1"))),
    ("distinct-2", lambda row: percent(row.distinct.get("2"))),
    ("char/s", lambda row: thousands(row.characters_per_second)),
)


def draw_tables(comparison: "Comparison", width: int) -> Group:
    """Return the tables, the failures, the differences and the samples, for a terminal of some columns."""
    finished = [row for row in comparison.rows if row.failed is None]
    columns = [(*_PREDICTION, *_TEXTS)] if width >= _WIDE else [_PREDICTION, _TEXTS]
    parts: list[RenderableType] = []
    for each in columns if finished else ():
        parts += [_table(finished, each, width), Text("")]
    parts += [Text(f"{row.name} failed: {row.failed}", style="red") for row in comparison.rows if row.failed is not None]
    parts += [Text(f"{'* ' if row.has_seen_held_out else ''}{row.name}: {note}") for row in finished for note in row.notes]
    parts += [Text(describe_best(comparison)), Text(comparison.describe_held_out(), style="dim")]
    parts += [Text("")] if comparison.pairs else []
    parts += [Text(pair.describe()) for pair in comparison.pairs[:_MAX_PAIRS]]
    if (more := len(comparison.pairs) - _MAX_PAIRS) > 0:
        parts.append(Text(f"... and {more} more pairs; --json and --html have all.", style="dim"))
    for row in finished:
        parts += _samples(row)
    return Group(*parts)


def _table(rows: Sequence[Row], columns: Sequence[Column], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2 if width >= 100 else 1, 0, 0))
    table.add_column("model", overflow="fold", min_width=8)
    for name, _ in columns:
        table.add_column(name, justify="right", overflow="fold", no_wrap=False)
    for row in rows:
        table.add_row(Text(row.name), *(Text(cell(row)) for _, cell in columns))
    return table


def _samples(row: Row) -> list[RenderableType]:
    """Return the samples of a model, with copied spans underlined."""
    grid = Table.grid(padding=(0, 1))
    for sample in row.samples:
        text = Text()
        for piece, is_copied in cut_sample(sample):
            text.append(_printable(piece), style="underline" if is_copied else "")
        text.truncate(_SAMPLE, overflow="ellipsis")
        grid.add_row(Text(f"  {sample.temperature}", style="dim"), text)
    return [Text(f"\n{row.name}", style="bold"), grid]


def _printable(text: str) -> str:
    """Return a text on one line, without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)
