"""A bias-variance table: one preset trained with each of several values of a setting, and what came of each.

Joins the training run, evaluation and generation; the numbers are theirs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reviewgen.errors import ConfigError, NotADistribution
from reviewgen.evaluation import evaluate_documents, finite, sample_documents
from reviewgen.pictures import new_figure, refuse_plot, save_figure
from reviewgen.runs.training_run import TrainingRun
from reviewgen.search.variants import prepare, split_name, variant

__all__ = ["SweepRow", "plot_sweep", "sweep"]

_TRAIN_TOKENS = 100_000  # of the training text, scored


@dataclass(frozen=True)
class SweepRow:
    """One value and its model. Bits per character are None for a model whose scores are no distribution."""

    value: Any
    train_bits: float | None
    held_out_bits: float | None
    megabytes: float
    seconds: float  # of training and its evaluations; the corpus is read and tokenized before
    copy_rate: float | None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values; an infinite number becomes None."""
        return finite(asdict(self))


def sweep(
    preset: str,
    source: Any,
    setting: str,
    values: Sequence[Any],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **run: Any,
) -> Iterator[SweepRow]:
    """Train a preset with each value of a setting and yield a row for each, as it is done.

    Args:
        preset: ``<model>-<tokenizer>``.
        source: The reviews.
        setting: One setting of the model, the tokenizer or the training, as in "model.order".
        values: What to set it to, one after the other; strings are read as a person types them.
        settings: Others that differ from the preset's, by group, as in {"model": {"smoothing": "witten-bell"}}.
        run: What else ``TrainingRun`` takes, but for ``out``: budget, steps, epochs, seed, lowercase, ...

    Raises:
        ConfigError: The setting or a value is unknown; nothing was trained by then.
    """
    split_name(setting)
    if isinstance(values, str) or not values:
        raise ConfigError(f"Give a list of at least one value of {setting}; got {values!r}.")
    makes = [partial(variant, preset, source, settings, {setting: value}, **run) for value in values]
    for make in makes:
        make()  # a bad value is refused before any work
    readers: list[TrainingRun] = []
    return (_train(prepare(make, readers), value) for make, value in zip(makes, values, strict=True))


def _train(run: TrainingRun, value: Any) -> SweepRow:
    seconds = 0.0
    for report in run:
        seconds = report.seconds
    model = run.finish()
    tensors = model.model.state_dict().values()
    return SweepRow(
        value=value,
        train_bits=_train_bits(run),
        held_out_bits=None if run.held_out is None else run.evaluation.bits_per_character,
        megabytes=sum(tensor.nbytes for tensor in tensors) / 1e6,
        seconds=seconds,
        copy_rate=(model.training["novelty"] or {}).get("copy_rate"),
    )


def _train_bits(run: TrainingRun) -> float | None:
    """Return the bits per character on a part of the training text."""
    documents = sample_documents(run.stores["train"], _TRAIN_TOKENS)
    try:
        return evaluate_documents(run.model, documents, run.tokenizer.vocab_size, given=len(run.conditions)).bits_per_character
    except NotADistribution:
        return None


def plot_sweep(rows: Sequence[SweepRow], setting: str, preset: str, file: Path) -> None:
    """Draw bits per character and copy rate against the values, as PNG, SVG or PDF by the file's suffix.

    Raises:
        ConfigError: matplotlib is not installed, or the suffix is none that it writes.
        StorageError: The file cannot be written.
    """
    refuse_plot(file)
    figure = new_figure(7, 4.5)
    bits = figure.add_subplot()
    places, labels = range(len(rows)), [str(row.value) for row in rows]
    for name, style, color in ("train_bits", "o--", "tab:gray"), ("held_out_bits", "o-", "tab:blue"):
        found = [getattr(row, name) for row in rows]
        heights = [math.nan if value is None else value for value in found]  # nothing is drawn there
        bits.plot(places, heights, style, color=color, label=name.removesuffix("_bits").replace("_", "-") + " text")
    bits.set(xticks=places, xticklabels=labels, xlabel=setting, ylabel="bits per character", title=preset)
    rates = [row.copy_rate for row in rows]
    if any(rate is not None for rate in rates):
        share = bits.twinx()
        share.bar(places, [rate or 0.0 for rate in rates], width=0.4, alpha=0.2, color="tab:red", label="copy rate")
        share.set(ylabel="copy rate", ylim=(0, 1))
    figure.legend(loc="outside lower center", ncols=3)
    save_figure(figure, file)
