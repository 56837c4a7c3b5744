"""The sentences that users write: ``load``, ``train``, ``blend``, ``sweep`` and the lists of what is installed.

Joins the rooms below and adds no logic of its own; ``run`` holds a training step by step, ``table`` several in a table,
``mixture`` several models in one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reviewgen.api.mixture import blend_models
from reviewgen.api.run import TrainingRun
from reviewgen.api.table import SweepRow, plot_sweep, refuse_plot, sweep
from reviewgen.bundle import read_bundle
from reviewgen.errors import BundleError, ConfigError
from reviewgen.hub import pull
from reviewgen.model import ReviewModel
from reviewgen.names import HubSource, PresetSource, parse_source
from reviewgen.registry import find_preset, list_models, list_presets, list_tokenizers, preset_names

__all__ = [
    "SweepRow",
    "TrainingRun",
    "blend",
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
    )
    run.read()
    run.tokenize()
    try:
        for _ in run:
            pass
    except KeyboardInterrupt:
        run.interrupt()
    return run.finish()


def blend(
    models: Any,
    weights: Any = None,
    *,
    data: Any = None,
    split: str = "all",
    text_column: str | None = None,
    documents: str = "line",
    lowercase: bool | None = None,
    strip_markdown: bool | None = None,
    clean: bool | None = None,
) -> ReviewModel:
    """Return a blend of trained models of one tokenizer: at each token their probabilities, averaged with fixed weights.

    A blend is a model like any other: it evaluates, generates and saves itself. An n-gram and an LSTM together often predict
    better than either. Jelinek & Mercer 1980, "Interpolated Estimation of Markov Source Parameters from Sparse Data".

    >>> model = reviewgen.blend(["./my-ngram", "./my-lstm"], data="held-out.csv")                # doctest: +SKIP

    Args:
        models: Two or more ReviewModels, or what ``load`` takes; a blend may be among them.
        weights: One positive number a model; they are divided by their sum. None: equal, or fitted where data is given.
        data: Texts that no model was trained on. The weights are those under which they are likeliest, found by expectation
            maximisation; ``training["weights"]`` of the blend records them with the bits per character of each part.
        split, text_column, documents, lowercase, strip_markdown, clean: How to read the data; see ``ReviewModel.evaluate``.

    Raises:
        ConfigError: The models are fewer than two or differ in their tokenizers, or the weights are not one positive number a
            model, or both weights and data are given.
        NotADistribution: A model gives scores that do not sum to one.
        DataError: The data cannot be read, or none of its tokens can be predicted.
        ReviewgenError: A model cannot be loaded; see ``load``.
    """
    if not isinstance(models, list | tuple):
        raise ConfigError(f"A blend is made of a list of models, as in blend([a, b]); got {type(models).__name__}.")
    for model in models:
        if not isinstance(model, ReviewModel | str | Path):
            raise ConfigError(f"A blend is made of ReviewModels or of what load takes, a string or a Path; got {model!r}.")
    return blend_models(
        [model if isinstance(model, ReviewModel) else load(model) for model in models],
        weights,
        data,
        split=split,
        text_column=text_column,
        documents=documents,
        lowercase=lowercase,
        strip_markdown=strip_markdown,
        clean=clean,
    )
