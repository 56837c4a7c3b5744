"""Blends: trained models of one tokenizer put together, with the facts that training.json and the card hold."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from reviewgen.blending.model import Blend
from reviewgen.blending.weights import check_weights, fit_weights, mix_scores
from reviewgen.bundle import Bundle, Weights
from reviewgen.card import describe, write_card
from reviewgen.config import to_dict
from reviewgen.data import digest_tokenizer, read_documents, trained_on
from reviewgen.errors import ConfigError, NotADistribution
from reviewgen.evaluation import score_tokens
from reviewgen.model import ReviewModel
from reviewgen.novelty import Index
from reviewgen.protocols import SupportsScore
from reviewgen.registry import find_model
from reviewgen.runs.record import novelty_facts, past_facts

__all__ = ["blend"]


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
    return _blend(
        [model if isinstance(model, ReviewModel) else ReviewModel.from_pretrained(model) for model in models],
        weights,
        data,
        split=split,
        text_column=text_column,
        documents=documents,
        lowercase=lowercase,
        strip_markdown=strip_markdown,
        clean=clean,
    )


def _blend(models: Sequence[ReviewModel], weights: Any, data: Any, **reading: Any) -> ReviewModel:
    """Return a blend of trained models."""
    if data is not None and weights is not None:
        raise ConfigError("Give weights, or data to fit them on, not both.")
    if len(models) < 2:
        raise ConfigError(f"A blend needs at least two models; got {len(models)}.")
    _refuse_other_tokenizers(models)
    _refuse_scores(models)
    chosen, facts = check_weights(weights, len(models)), {"method": "equal" if weights is None else "given"}
    if data is not None:
        chosen, facts = _fit(models, data, **reading)
    return ReviewModel(_bundle(models, chosen, facts))


def _fit(models: Sequence[ReviewModel], data: Any, **reading: Any) -> tuple[tuple[float, ...], dict[str, Any]]:
    """Return weights fitted on a source of texts, and what is known of the fit."""
    tokenizer = models[0].tokenizer
    trained = [known for model in models for known in trained_on(model.training)]
    conditions = models[0].conditions
    documents = read_documents(data, tokenizer, trained, conditions=conditions, **reading)
    scores, characters = score_tokens(
        [model.bundle.model for model in models], documents, conditions.vocab_size or tokenizer.vocab_size, given=len(conditions)
    )
    fitted = fit_weights(scores)
    equal = np.full(len(models), 1 / len(models))
    facts = {
        "method": "expectation-maximisation",
        "source": str(data) if isinstance(data, str | Path) else type(data).__name__,
        "split": reading.get("split", "all"),
        "tokens": len(scores),
        "characters": characters,
        "zero_probability_tokens": int(np.isneginf(mix_scores(scores, fitted)).sum()),
        "bits_per_character": {
            "parts": [_bits(column, characters) for column in scores.T],
            "equal_weights": _bits(mix_scores(scores, equal), characters),
            "fitted_weights": _bits(mix_scores(scores, fitted), characters),
        },
    }
    return tuple(fitted.tolist()), facts


def _bits(log_probs: Float64[np.ndarray, " N"], characters: int) -> float | None:
    """Return bits per character; None where they are infinite, as in all of training.json."""
    bits = -float(log_probs.sum()) / characters / math.log(2)
    return bits if math.isfinite(bits) else None


def _bundle(models: Sequence[ReviewModel], weights: tuple[float, ...], fit: Mapping[str, Any]) -> Bundle:
    first, parts = models[0].bundle, [model.bundle for model in models]
    plugin = find_model("blend")[1]
    blend = Blend.from_models([part.model for part in parts], [part.model_plugin for part in parts], weights)
    index = _shared_index(models)
    weight_bits = models[0].weight_bits if len({model.weight_bits for model in models}) == 1 else 32
    data = _shared_facts([model.training.get("data", {}) for model in models])
    training = {
        "preset": "blend",
        "data": data,
        "parts": [
            {"preset": model.preset, "weight": weight} | past_facts(model.training)
            for model, weight in zip(models, weights, strict=True)
        ],
        "weights": dict(fit),
        "novelty": novelty_facts(index, data.get("fingerprint"), (), None),
    }
    bundle = Bundle(
        preset="blend",
        weights=Weights(blend, weight_bits=weight_bits),
        conditions=first.conditions or None,
        tokenizer=first.tokenizer,
        model_plugin=plugin,
        tokenizer_plugin=first.tokenizer_plugin,
        tokenizer_config=first.tokenizer_config,
        generation=first.generation,
        training=training,
        index=index,
    )
    bundle.card = write_card(describe(bundle))
    return bundle


def _shared_facts(data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is known of the data and the same for all parts."""
    first, *others = data
    return {name: value for name, value in first.items() if all(name in o and o[name] == value for o in others)}


def _shared_index(models: Sequence[ReviewModel]) -> Index | None:
    """Return an index of the training text, where all parts were trained on the same."""
    prints = {data.get("fingerprint") for model in models for data in trained_on(model.training)}
    if len(prints) > 1 or None in prints:
        return None
    return next((model.bundle.index for model in models if model.bundle.index is not None), None)


def _refuse_other_tokenizers(models: Sequence[ReviewModel]) -> None:
    """Raise unless all tokenizers are the same: plugin, settings, and every byte that they save; and all conditions."""
    first, *others = models
    contents = _contents(first)
    for number, other in enumerate(others, start=2):
        if _contents(other) != contents:
            same = " of other contents" if _spell_tokenizer(other) == _spell_tokenizer(first) else ""
            raise ConfigError(
                f"The models of a blend share one tokenizer, but model 1 ({first.preset}) has {_spell_tokenizer(first)} and "
                f"model {number} ({other.preset}) {_spell_tokenizer(other)}{same}: train both on the same texts, with the same "
                "tokenizer settings."
            )
        if other.conditions != first.conditions:
            raise ConfigError(
                f"The models of a blend share their conditions, but model 1 ({first.preset}) and model {number} "
                f"({other.preset}) differ in theirs: train both with the same ones, on the same texts."
            )


def _contents(model: ReviewModel) -> tuple[Any, ...]:
    settings, size = to_dict(model.bundle.tokenizer_config), model.tokenizer.vocab_size
    return model.tokenizer_name, settings, size, digest_tokenizer(model.tokenizer)


def _spell_tokenizer(model: ReviewModel) -> str:
    return f"a {model.tokenizer_name!r} tokenizer of {model.tokenizer.vocab_size} tokens"


def _refuse_scores(models: Sequence[ReviewModel]) -> None:
    """Raise where a model's scores are no probabilities, which only scoring tells."""
    ids = torch.tensor([[models[0].tokenizer.bos_id]])
    for number, model in enumerate(models):
        part = model.bundle.model
        if not isinstance(part, SupportsScore):
            continue
        try:
            with torch.inference_mode():
                part.score(ids, ids, part.initial_state(1))
        except NotADistribution as error:
            reason = str(error).split(". ")[0].rstrip(".")
            raise NotADistribution(f"Model {number + 1} ({model.preset}) cannot be blended: {reason}.") from None
