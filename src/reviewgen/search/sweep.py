"""The implementation of ``reviewgen.sweep`` and ``reviewgen.plot_sweep``: a bias-variance table of one setting."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from reviewgen.config import check_flags, check_list, check_text
from reviewgen.config.options import TrainOptions
from reviewgen.errors import ConfigError, NotADistribution, quoted
from reviewgen.evaluation import evaluate_documents, finite, sample_documents
from reviewgen.runs import TrainingRun
from reviewgen.search.variants import Variants, check_values
from reviewgen.web.charts import Chart, Panel, Series, refuse_chart, save_chart

_TRAIN_TOKENS = 100_000  # of the training text, scored


@dataclass(frozen=True)
class SweepRow:
    """The model of one value. Bits per character are None if its scores are not a probability distribution."""

    value: Any
    train_bits: float | None
    held_out_bits: float | None
    megabytes: float
    seconds: float  # of training and its evaluations, without reading and tokenizing
    token_copy_rate: float | None  # share of 20-token windows of generated texts that occur in the training text

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON values; an infinite number becomes None."""
        return finite(asdict(self))


def sweep(
    preset: str,
    source: Any,
    setting: str,
    values: Sequence[Any],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Unpack[TrainOptions],
) -> Iterator[SweepRow]:
    """Train a preset with each value of a setting; see ``reviewgen.sweep``."""
    variants = Variants(("sweep", "setting", "values", "settings"), preset, source, settings, options)
    check_values(setting, values)
    plans = [variants.plan({setting: value}) for value in values]  # a bad value is refused before any work
    return (train_row(variants.start(plan), value) for plan, value in zip(plans, values, strict=True))


def train_row(run: TrainingRun, value: Any) -> SweepRow:
    """Train to the end and return the row of the table."""
    seconds = 0.0
    for report in run:
        seconds = report.seconds
    model = run.finish()
    documents = sample_documents(run.stores["train"], _TRAIN_TOKENS)
    train_bits = None
    with suppress(NotADistribution):
        evaluation = evaluate_documents(run.model, documents, run.tokenizer.vocab_size, given=len(run.conditions))
        train_bits = evaluation.bits_per_character
    return SweepRow(
        value=value,
        train_bits=train_bits,
        held_out_bits=None if run.evaluation is None else run.evaluation.bits_per_character,
        megabytes=sum(tensor.nbytes for tensor in run.model.state_dict().values()) / 1e6,
        seconds=seconds,
        token_copy_rate=(model.training["novelty"] or {}).get("token_copy_rate"),
    )


def plot_sweep(rows: Sequence[SweepRow], setting: str, preset: str, file: Path, *, overwrite: bool = False) -> None:
    """Draw the rows of a sweep; see ``reviewgen.plot_sweep``."""
    for name, value in (("setting", setting), ("preset", preset)):
        check_text(name, value)
    rows = check_list("rows", rows, "list(reviewgen.sweep(...))")
    if wrong := [row for row in rows if not isinstance(row, SweepRow)]:
        raise ConfigError(f"rows must be what reviewgen.sweep has yielded; got {quoted(wrong[0])} among them.")
    check_flags(overwrite=overwrite)
    refuse_chart(file, overwrite)
    bits = [
        Series("held-out text", _points(rows, "held_out_bits")),
        Series("training text", _points(rows, "train_bits"), 7, is_dashed=True),
    ]
    panels = [Panel("bits per character", bits)]
    if copies := _points(rows, "token_copy_rate"):
        panels.append(Panel("token copy rate of generated text", [Series("token copy rate", copies, 5)], 90.0, (0.0, 1.0)))
    save_chart(Chart(preset, setting, panels, labels=[str(row.value) for row in rows]), file)


def _points(rows: Sequence[SweepRow], name: str) -> list[tuple[float, float]]:
    """Return the place of each row and its number, of those that have it."""
    return [(float(n), value) for n, row in enumerate(rows) if (value := getattr(row, name)) is not None]
