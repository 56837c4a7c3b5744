"""Loads the model to explain or draw: a trained model, a new model of a preset without trained
weights, or a model object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from reviewgen.conditions import Conditions
from reviewgen.config.names import parse_source
from reviewgen.errors import ConfigError
from reviewgen.model.review_model import ReviewModel
from reviewgen.protocols.model import CountTrained, LanguageModel
from reviewgen.registry.plugins import find_preset, find_weights, preset_names

# the text that a new tokenizer is trained on, if there are no texts
_CHARACTERS = "".join(map(chr, range(32, 127)))


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer, its conditions, and facts about it.

    Attributes:
        source: The name that the user gave.
        name: The name of the model's plugin, or of its class.
        model: The model, in evaluation mode.
        tokenizer: The model's tokenizer; None for a model object.
        conditions: The conditions of the model.
        is_trained: Whether the weights are trained; None if that is not known.
        batch: The sizes of B and T in the model's training; empty if they are not known.
        notes: Notes for the user, as sentences.
        review: The ReviewModel of a trained model; None for a new model and for a model object.
    """

    source: str
    name: str
    model: Any
    tokenizer: Any = None
    conditions: Conditions = field(default_factory=Conditions)
    is_trained: bool | None = None
    batch: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    review: ReviewModel | None = None

    @classmethod
    def of(cls, source: object, texts: Sequence[str] = ()) -> "LoadedModel":
        """Load the model of a source. If it is a preset without trained weights, make a new model.

        Args:
            source: A source as for ``reviewgen.load``, a ReviewModel, or a LanguageModel.
            texts: The texts that a new model should be able to read. Without texts, its vocabulary
                has the size in the settings of its tokenizer.

        Raises:
            ConfigError: The source is none of these, or is a blend without trained weights.
            SourceError, UnknownPlugin, BundleError, HubError: As in ``reviewgen.load``.
        """
        if isinstance(source, str | Path):
            parsed = parse_source(source, preset_names())
            if isinstance(parsed, str) and find_weights(parsed) is None:
                return _new_model(parsed, texts)
            return _trained_model(ReviewModel.from_pretrained(source), str(source))
        if isinstance(source, ReviewModel):
            return _trained_model(source, source.bundle.origin or source.preset)
        if not isinstance(source, LanguageModel):
            raise ConfigError(
                "Give a preset, a saved model, a ReviewModel or a LanguageModel; got a"
                f" {type(source).__name__}."
            )
        class_name = type(source).__name__
        return cls(class_name, name=class_name, model=source)


def _trained_model(review: ReviewModel, source: str) -> LoadedModel:
    """Return a trained model with the facts about it."""
    model = review.bundle.model
    if isinstance(model, nn.Module):
        model.eval()
    # a blend was not trained itself, so the settings are those of its first part that has some
    runs = [review.training, *(review.training.get("parts") or ())]
    settings: Mapping[str, Any] = next((run["config"] for run in runs if run.get("config")), {})
    sizes = {"B": settings.get("batch_size"), "T": settings.get("bptt")}
    batch = {letter: size for letter, size in sizes.items() if size}
    return LoadedModel(
        source,
        review.bundle.model_plugin.name,
        model,
        review.tokenizer,
        review.conditions,
        is_trained=True,
        batch=batch,
        review=review,
    )


def _new_model(name: str, texts: Sequence[str]) -> LoadedModel:
    """Return a new model of a preset. A count model counts the texts; other models have random
    weights.
    """
    from reviewgen.runs.setup import resolve_setup  # imports accelerate and datasets

    if find_preset(name).parts:
        raise ConfigError(
            f"{name} is a blend without trained weights, so there is nothing to show. Train it"
            " first."
        )
    setup = resolve_setup(name)
    training_texts = list(texts) or [_CHARACTERS]
    tokenizer = setup.tokenizer_class.train(training_texts, setup.tokenizer_config)
    conditions = Conditions(first_id=tokenizer.vocab_size)
    built_for = conditions  # decides the vocabulary size of the model
    if not texts:
        # the tokenizer knows only a few characters, so the size in its settings is used instead
        size = getattr(setup.tokenizer_config, "vocab_size", tokenizer.vocab_size)
        built_for = Conditions(first_id=size)
    model: Any = setup.build_model(tokenizer, built_for, seed=0)
    if isinstance(model, CountTrained):
        for text in training_texts:
            ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
            model.observe(np.array(ids, np.int64))
        model.finish()
        remark = f"it has counted {len(texts)} short texts, those shown among them"
    else:
        remark = "its weights are random, and its tokenizer is trained on the texts shown"
    if isinstance(model, nn.Module):
        model.eval()
    batch = {"B": setup.training.batch_size, "T": setup.training.bptt}
    return LoadedModel(
        name,
        setup.model_plugin.name,
        model,
        tokenizer,
        conditions,
        is_trained=False,
        batch=batch,
        notes=(f"No trained weights of {name} are installed: {remark}.",),
    )
