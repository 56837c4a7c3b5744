"""The sentences that users write: ``load``, ``train``, ``sweep``, ``list_presets``, ``list_models``, ``list_tokenizers``.

Joins the rooms below and adds no logic of its own; ``run`` holds a training step by step, ``table`` several in a table.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reviewgen.api.run import TrainingRun
from reviewgen.api.table import SweepRow, plot_sweep, refuse_plot, sweep
from reviewgen.bundle import read_bundle
from reviewgen.errors import BundleError
from reviewgen.hub import pull
from reviewgen.model import ReviewModel
from reviewgen.names import HubSource, PresetSource, parse_source
from reviewgen.registry import find_preset, list_models, list_presets, list_tokenizers, preset_names

__all__ = [
    "SweepRow",
    "TrainingRun",
    "list_models",
    "list_presets",
    "list_tokenizers",
    "load",
    "plot_sweep",
    "refuse_plot",
    "sweep",
    "train",
]


def load(source: str | Path) -> ReviewModel:
    """Return a trained model from a local folder, the Hub (``owner/name[@revision]``) or a preset's published weights.

    Raises:
        SourceError: The source can be read as nothing, or as two things.
        BundleError: The folder is missing, damaged or foreign, or the preset has no published weights.
        UnknownPlugin: The model's plugin is not installed; says what to install.
        HubError: The Hub was not reached, or has no such repository.
    """
    parsed = parse_source(source, preset_names())
    if isinstance(parsed, PresetSource):
        find_preset(parsed.name)
        raise BundleError(
            f"The preset {parsed.name} has no published weights yet. Train it: reviewgen train {parsed.name} --data ..."
        )
    return ReviewModel(read_bundle(pull(parsed) if isinstance(parsed, HubSource) else parsed.path))


def train(
    preset: str,
    source: Any,
    *,
    validation: Any = None,
    out: str | Path | None = None,
    budget: str | float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    seed: int = 0,
    model: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    text_column: str | None = None,
    documents: str = "line",
    lowercase: bool = False,
    strip_markdown: bool = False,
    clean: bool = True,
    conditions: Sequence[str] = (),
) -> ReviewModel:
    """Train a model and return it; the arguments are those of ``TrainingRun``, which says what they mean.

    An interrupt (Ctrl-C) ends the training early; the best model so far is returned, and saved where ``out`` is given.

    >>> model = reviewgen.train("lstm-word", "reviews.csv", budget="2m", out="my-model")         # doctest: +SKIP
    """
    run = TrainingRun(
        preset,
        source,
        validation=validation,
        out=out,
        budget=budget,
        steps=steps,
        epochs=epochs,
        seed=seed,
        model=model,
        tokenizer=tokenizer,
        training=training,
        text_column=text_column,
        documents=documents,
        lowercase=lowercase,
        strip_markdown=strip_markdown,
        clean=clean,
        conditions=conditions,
    )
    run.read()
    run.tokenize()
    try:
        for _ in run:
            pass
    except KeyboardInterrupt:
        run.interrupt()
    return run.finish()
