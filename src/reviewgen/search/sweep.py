"""The implementation of ``reviewgen.sweep`` and ``reviewgen.plot_sweep``: a bias-variance table of one setting."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from reviewgen.config import check_flags, check_list, check_text
from reviewgen.errors import ConfigError, NotADistribution, quoted
from reviewgen.evaluation import evaluate_documents, finite, sample_documents
from reviewgen.pictures import new_figure, plain, refuse_plot, save_figure
from reviewgen.runs import TrainingRun
from reviewgen.runs.plan import TrainOptions
from reviewgen.search.variants import Variants, check_values

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
    refuse_plot(file, overwrite)
    figure = new_figure(7, 4.5)
    bits = figure.add_subplot()
    positions, labels = range(len(rows)), [plain(str(row.value)) for row in rows]
    for name, style, color in ("train_bits", "o--", "tab:gray"), ("held_out_bits", "o-", "tab:blue"):
        heights = [math.nan if (value := getattr(row, name)) is None else value for row in rows]  # nothing is drawn for NaN
        bits.plot(positions, heights, style, color=color, label=name.removesuffix("_bits").replace("_", "-") + " text")
    bits.set(xticks=positions, xticklabels=labels, xlabel=plain(setting), ylabel="bits per character", title=plain(preset))
    rates = [row.token_copy_rate for row in rows]
    if any(rate is not None for rate in rates):
        copies = bits.twinx()
        copies.bar(positions, [rate or 0.0 for rate in rates], width=0.4, alpha=0.2, color="tab:red", label="token copy rate")
        copies.set(ylabel="token copy rate", ylim=(0, 1))
    figure.legend(loc="outside lower center", ncols=3)
    save_figure(figure, file)
