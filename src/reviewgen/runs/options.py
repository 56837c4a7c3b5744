"""The keywords of a training; loads nothing heavy, so that ``reviewgen.api`` can name them in its signatures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reviewgen.config import ReadingOptions


class TrainOptions(ReadingOptions, total=False):
    """The keywords of ``reviewgen.train`` and ``TrainingRun``; ``sweep`` and ``tune`` take those that apply to several trainings.

    Attributes:
        validation: A second source to validate on, instead of a part of the first.
        validation_split: The split of a dataset to validate on; of the first source if ``validation`` is not given.
        near_duplicates: A similarity from 0.3 to 1; of texts that are at least as similar, only the first is kept. 0.8 finds
            texts that differ slightly. Needs rensa.
        decontaminate: Leave out held-out texts that share a run of this many characters with a training text.
        out: A folder to save the model in; it must not exist.
        budget: Training time ("2m", "90s", seconds), from the end of the first step to the last evaluation. Default: two minutes.
        steps: Train for this number of steps, instead of a budget.
        epochs: Train for this number of passes over the corpus, instead of a budget.
        seed: Seed of the initial weights, the order of the texts and dropout. Default: 0.
        model: Model settings that differ from the preset's. When a trained model is trained further, only settings that do not
            change its predictions can differ, such as dropout.
        tokenizer: Tokenizer settings that differ from the preset's. A trained model keeps its own.
        training: Training settings that differ from the preset's. When a trained model is trained further, the learning rate
            peaks at half of its preset's.
        initial_weights: A safetensors file of another source whose tensors a new model starts from, if the model supports that.
        conditions: Columns beside the text, as in ["stars"], that the model is conditioned on.
        log: Also log the curves to a tracker of accelerate, which must be installed: "tensorboard", "wandb", "mlflow" ...
        resume: Resume an interrupted run of the same arguments from its last checkpoint in ``<out>.run``.
    """

    validation: Any
    validation_split: str | None
    near_duplicates: float | None
    decontaminate: int | None
    out: str | Path | None
    budget: str | float | None
    steps: int | None
    epochs: float | None
    seed: int
    model: Mapping[str, Any] | None
    tokenizer: Mapping[str, Any] | None
    training: Mapping[str, Any] | None
    initial_weights: str | Path | None
    conditions: Sequence[str]
    log: str | None
    resume: bool


class CorpusOptions(ReadingOptions, total=False):
    """The keywords of ``reviewgen.corpus``; see ``TrainOptions``."""

    validation: Any
    validation_split: str | None
    conditions: Sequence[str]
    near_duplicates: float | None
    decontaminate: int | None


class PrepareOptions(CorpusOptions, total=False):
    """The keywords of ``reviewgen.prepare``; see ``TrainOptions``."""

    tokenizer: Mapping[str, Any] | None
