"""What is explained: a trained model, or a new one of a preset that has no trained weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from reviewgen.conditions import Conditions
from reviewgen.data import trained_on
from reviewgen.errors import ConfigError
from reviewgen.explanation.batch import SAMPLE_TEXTS
from reviewgen.model import ReviewModel
from reviewgen.names import PresetSource, parse_source
from reviewgen.protocols import CountTrained, LanguageModel, Tokenizer
from reviewgen.registry import find_preset, find_weights, preset_names


@dataclass(frozen=True)
class Subject:
    """A model with what belongs to it.

    Attributes:
        source: What the user has named.
        name: The model's plugin.
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        conditions: Its conditions.
        trained: The ``data`` entries of its trainings; see ``reviewgen.data.trained_on``.
        notes: What to know of it.
        is_trained: Whether its weights are trained ones.
    """

    source: str
    name: str
    model: LanguageModel
    tokenizer: Tokenizer
    conditions: Conditions
    trained: Sequence[Any] = ()
    notes: tuple[str, ...] = ()
    is_trained: bool = True


def find_subject(source: object, texts: Sequence[str]) -> Subject:
    """Return the model that a user has named, or given; a preset without trained weights is initialised.

    Args:
        source: A ReviewModel, or what ``reviewgen.load`` takes.
        texts: What the tokenizer of a new model is trained on, besides sample texts.

    Raises:
        ReviewgenError: There is no such model, or it cannot be loaded.
    """
    if isinstance(source, ReviewModel):
        return _of(source, source.preset)
    if not isinstance(source, str | Path):
        raise ConfigError(f"Give a preset, a saved model or a ReviewModel to explain; got {type(source).__name__}.")
    parsed = parse_source(source, preset_names())
    if isinstance(parsed, PresetSource) and find_weights(parsed.name) is None:
        return _initialise(parsed.name, texts)
    return _of(ReviewModel.from_pretrained(source), str(source))


def _of(model: ReviewModel, source: str) -> Subject:
    bundle = model.bundle
    language_model = bundle.model
    if isinstance(language_model, nn.Module):
        language_model.eval()
    return Subject(
        source, bundle.model_plugin.name, language_model, model.tokenizer, model.conditions, trained_on(model.training)
    )


def _initialise(name: str, texts: Sequence[str]) -> Subject:
    """Return a new model of a preset; one that is trained by counting counts the texts."""
    from reviewgen.runs.parts import resolve_parts  # imports what training needs

    if find_preset(name).parts:
        raise ConfigError(f"{name} is a blend without trained weights, so there is nothing to explain. Train it first.")
    parts = resolve_parts(name)
    sample = [*SAMPLE_TEXTS, *texts]
    tokenizer = parts.tokenizer_class.train(sample, parts.tokenizer_config)
    model = parts.build_model(tokenizer, tokenizer.vocab_size, seed=0)
    note = f"No trained weights of {name} are installed: its weights are random, and its tokenizer is trained on the texts shown."
    if isinstance(model, CountTrained):
        for text in sample:
            model.observe(np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id], np.int64))
        model.finish()
        note = f"No trained weights of {name} are installed: it has counted {len(sample)} short texts, those shown among them."
    if isinstance(model, nn.Module):
        model.eval()
    conditions = Conditions(first_id=tokenizer.vocab_size)
    return Subject(name, parts.model_plugin.name, model, tokenizer, conditions, notes=(note,), is_trained=False)
