"""``reviewgen.report`` and its result, ``Report``: as JSON, on a terminal and as a page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reviewgen.api import generate_dataset
from reviewgen.assessment.figures import MIN_TEXTS, Section
from reviewgen.assessment.likeness import measure_likeness
from reviewgen.assessment.privacy import measure_privacy
from reviewgen.assessment.texts import (
    MAX_REAL,
    MAX_SYNTHETIC,
    MAX_VALUES,
    Texts,
    read_table,
    read_trained,
)
from reviewgen.assessment.use import measure_use
from reviewgen.assessment.variety import measure_variety
from reviewgen.config.settings import check_count, check_list
from reviewgen.errors import ConfigError, counted
from reviewgen.model.review_model import ReviewModel
from reviewgen.storage import temporary_folder
from reviewgen.web.charts import draw_figure
from reviewgen.web.rendering import HtmlReport

_SHOWN_ROWS = 5  # maximum number of rows of a list that a terminal shows
_HELD_OUT = ("validation", "test")  # splits of a corpus


@dataclass(frozen=True)
class Report(HtmlReport):
    """The result of ``reviewgen.report``.

    Attributes:
        synthetic: The synthetic texts.
        train: The real texts that they were made from.
        held_out: Other real texts; None if there are none.
        sections: likeness, variety, use and privacy.
        notes: Sentences about the tables.
    """

    _template: ClassVar[str] = "assessment/report.html"

    synthetic: Texts
    train: Texts
    held_out: Texts | None
    sections: Sequence[Section]
    notes: Sequence[str]

    def section(self, name: str) -> Section:
        """Return a section by its name."""
        return next(section for section in self.sections if section.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; an infinite number becomes None."""
        tables = {"synthetic": self.synthetic, "train": self.train, "held_out": self.held_out}
        return {
            "tables": {
                # None without held-out texts
                name: texts and {"source": texts.name, "texts": len(texts), "total": texts.total}
                for name, texts in tables.items()
            },
            "notes": list(self.notes),
            "sections": {section.name: section.to_dict() for section in self.sections},
        }

    def describe_tables(self) -> str:
        """Return a sentence on what was compared."""
        held_out = "without held-out texts"
        if self.held_out is not None:
            held_out = f"and {_describe(self.held_out)} that they were not made from"
        return f"{_describe(self.synthetic)}, beside {_describe(self.train)}, {held_out}."

    def render(self) -> Iterator[RenderableType]:
        """Yield the tables for a terminal."""
        yield Text(self.describe_tables())
        for note in self.notes:
            yield Text(note)
        for section in self.sections:
            yield Text(f"\n{section.name.capitalize()}", style="bold")
            yield Text(section.words)
            table = Table(box=None, pad_edge=False, show_header=bool(section.figures))
            table.add_column("")
            table.add_column("synthetic", no_wrap=True)
            table.add_column("real against real", no_wrap=True)
            table.add_column("texts", no_wrap=True, justify="right")
            notes = list[str]()
            for figure in section.figures:
                shown = (figure.show(each) for each in (figure.synthetic, figure.real))
                table.add_row(figure.name, *shown, f"{figure.synthetic.texts:,}")
                if figure.synthetic.value is None and figure.note:
                    notes.append(figure.note)
            yield Padding(table, (1, 0, 0, 2))
            for note in dict.fromkeys(notes):
                yield Padding(Text(note, style="dim"), (0, 0, 0, 2))
            for title, rows in section.lists.items():
                head, *others = rows
                listed = Table(*head, box=None, pad_edge=False)
                for row in others[:_SHOWN_ROWS]:
                    listed.add_row(*map(Text, row))
                if len(others) > _SHOWN_ROWS:
                    title += f" (the first {_SHOWN_ROWS} of {len(others)}; the page has all)"
                yield Padding(Text(f"{title}:"), (1, 0, 0, 2))
                yield Padding(listed, (0, 0, 0, 4))

    def _values(self) -> dict[str, Any]:
        charts = {
            section.name: [draw_figure(chart) for chart in section.charts]
            for section in self.sections
        }
        return {"report": self, "charts": charts}


def _describe(texts: Texts) -> str:
    """Return what a table holds, as in "10,000 of 12,000 texts of made.csv"."""
    part = f"{len(texts):,} of " if len(texts) < texts.total else ""
    return f"{part}{counted(texts.total, 'text')} of {texts.name}"


def report(
    synthetic: Any = None,
    train: Any = None,
    held_out: Any = None,
    *,
    model: "str | Path | ReviewModel | None" = None,
    n: int = 2000,
    text_column: str | None = None,
    labels: Sequence[str] | None = None,
    seed: int = 0,
) -> Report:
    """Measure how good synthetic texts are, and what they give away: likeness, variety, use and
    privacy. Each figure stands beside the same figure of real texts against real texts.

    >>> page = reviewgen.report("made.csv", "reviews.csv")  # doctest: +SKIP
    >>> page.save_html("report.html")  # doctest: +SKIP

    Args:
        synthetic: The synthetic texts, of any tool: a csv, parquet or jsonl file, a data frame, or
            another source that ``train`` accepts. By default, ``model`` generates them. Of more
            than 10,000 texts, a random sample is taken.
        train: The real texts that they were made from; by default, the training texts of
            ``model``. Of more than 30,000, a random sample is taken.
        held_out: Other real texts, which show what is chance in the figures of privacy; by default,
            the held-out texts of ``model``.
        model: A trained model, as for ``load``. If it is given, membership is measured with it.
        n: The number of texts that the model generates.
        text_column: The column of the texts in all tables; guessed if not given.
        labels: The columns of labels, as in ["stars"]; by default, those that both tables have,
            and that hold few values.
        seed: The seed of the texts that the model generates.

    Raises:
        ConfigError: There is nothing to measure, or an argument is unusable.
        DataError: A source cannot be read or has no texts, or the corpus of the model is not known.
        SourceError, BundleError, HubError: The model cannot be loaded; see ``load``.
    """
    check_count("n", n)
    if labels is not None:
        check_list("labels", labels, '["stars"]')
    if model is None and (synthetic is None or train is None):
        raise ConfigError(
            "A report needs the synthetic texts and the real ones: reviewgen report made.csv"
            " --train reviews.csv; or a model: reviewgen report --model lstm-word."
        )
    trained = ReviewModel.from_pretrained(model) if isinstance(model, str | Path) else model
    real, others = _read_real(trained, train, held_out, text_column, labels)
    if synthetic is None:
        assert trained is not None  # else there would be no training texts
        texts = read_table(_generate(trained, n, real, seed), MAX_SYNTHETIC, "text", labels)
        made = replace(texts, name=str(trained.bundle.origin or trained.bundle.preset))
    else:
        made = _read("synthetic", synthetic, MAX_SYNTHETIC, text_column, labels)
    for label in labels or ():
        if label not in {**made.labels, **real.labels}:
            raise ConfigError(f"Neither {made.name} nor {real.name} has a column {label!r}.")
    sections = (
        measure_likeness(made, real),
        measure_variety(made, real),
        measure_use(made, real),
        measure_privacy(made, real, others, trained),
    )
    return Report(made, real, others, sections, list(_notes(made, real, others)))


def _read_real(
    model: Any, train: Any, held_out: Any, text_column: str | None, labels: Sequence[str] | None
) -> tuple[Texts, Texts | None]:
    """Return the training texts and the held-out ones: those given, or those of the model."""
    if train is None:
        real = read_trained(model, ["train"], MAX_REAL)
    else:
        real = _read("train", train, MAX_REAL, text_column, labels)
    if held_out is not None:
        return real, _read("held_out", held_out, MAX_REAL, text_column, labels)
    return real, read_trained(model, _HELD_OUT, MAX_REAL) if train is None else None


def _read(argument: str, source: Any, *options: Any) -> Texts:
    """Read a table with ``read_table``. If it is not a file, its name is that of the argument."""
    texts = read_table(source, *options)
    return texts if isinstance(source, str | Path) else replace(texts, name=argument)


def _generate(model: ReviewModel, n: int, real: Texts, seed: int) -> Any:
    """Return the texts that a model generates, with conditions as those of the real texts. Labels
    that are no conditions of the model are left out.
    """
    import pyarrow  # importing it takes a tenth of a second

    known = {key: real.labels[key] for key in real.labels if key in model.conditions.names}
    rows = pyarrow.table(known).to_pylist()
    with temporary_folder() as folder:  # only a saved model can generate a table
        model.save_pretrained(folder / "model")
        return generate_dataset(folder / "model", n, schema=rows or None, seed=seed)


def _notes(synthetic: Texts, train: Texts, held_out: Texts | None) -> Iterator[str]:
    """Yield what the user must know about the tables, in sentences."""
    for texts in filter(None, (synthetic, train, held_out)):
        if len(texts) < texts.total:
            yield f"{texts.name}: a random sample of {len(texts):,} of {texts.total:,} texts."
        if len(texts) < MIN_TEXTS:
            yield (
                f"{texts.name} has {counted(len(texts), 'text')}; most figures need at least"
                f" {MIN_TEXTS}, and are not known."
            )
    known = set(train.texts)
    for table, end in ((synthetic, ""), (held_out, ": they are not used as held-out texts")):
        equal = sum(text in known for text in table.texts) if table is not None else 0
        if table is not None and equal:
            yield (
                f"{equal:,} of {len(table):,} texts of {table.name} are texts of {train.name},"
                f" word for word{end}."
            )
    for name in sorted({*synthetic.labels} ^ {*train.labels}):  # labels of one table only
        lacking, having = (train, synthetic) if name in synthetic.labels else (synthetic, train)
        yield (
            f"{lacking.name} has no column {name!r} of 2 to {MAX_VALUES} values, which"
            f" {having.name} has: it is left out."
        )
