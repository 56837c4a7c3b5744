"""The implementation of ``reviewgen.blend``: trained models of one tokenizer combined, with the facts for ``training.json``."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float64

from reviewgen.blending.gate import features_of, fit_gate, gated_weights
from reviewgen.blending.model import Blend, EntropyModel
from reviewgen.blending.weights import check_weights, fit_weights, mix_scores
from reviewgen.card import describe, write_card
from reviewgen.config import EvaluateOptions, GenerationConfig, refuse_unknown_options, to_dict
from reviewgen.data import digest_tokenizer, read_documents, trained_on
from reviewgen.errors import ConfigError, NotADistribution, quoted
from reviewgen.evaluation import Document, score_tokens
from reviewgen.lexicon import Lexicon
from reviewgen.model import Bundle, ReviewModel, Weights
from reviewgen.novelty import Index
from reviewgen.protocols import LanguageModel, SupportsScore
from reviewgen.registry import find_model
from reviewgen.runs.record import CopyRates, novelty_facts, part_facts


def blend(models: Any, weights: Any = None, *, data: Any = None, **options: Unpack[EvaluateOptions]) -> ReviewModel:
    """Return a blend of trained models; see ``reviewgen.blend``."""
    refuse_unknown_options(options, EvaluateOptions, "blend")
    if not isinstance(models, list | tuple):
        raise ConfigError(f"blend takes a list of models, as in blend([a, b]); got {type(models).__name__}.")
    for model in models:
        if not isinstance(model, ReviewModel | str | Path):
            raise ConfigError(f"blend takes ReviewModels, or what load takes, a string or a Path; got {quoted(model)}.")
    loaded = [model if isinstance(model, ReviewModel) else ReviewModel.from_pretrained(model) for model in models]
    if data is not None and weights is not None:
        raise ConfigError("Give weights, or data to fit them on, not both.")
    if len(loaded) < 2:
        raise ConfigError(f"A blend needs at least two models; got {len(loaded)}.")
    _refuse_other_tokenizers(loaded)
    _refuse_scores(loaded)
    if data is not None:
        return ReviewModel(make_bundle(loaded, *_fit_on(loaded, data, options)))
    facts = {"method": "equal" if weights is None else "given"}
    return ReviewModel(make_bundle(loaded, check_weights(weights, len(loaded)), {}, facts))


def _fit_on(
    models: Sequence[ReviewModel], data: Any, options: EvaluateOptions
) -> tuple[tuple[float, ...], dict[str, Any], dict[str, Any]]:
    """Fit a mixture on a source of texts; see ``fit_mixture``."""
    tokenizer, conditions = models[0].tokenizer, models[0].conditions
    trained = [known for model in models for known in trained_on(model.training)]
    documents = read_documents(data, tokenizer, trained, conditions=conditions, **options)
    parts, vocab_size = [model.bundle.model for model in models], conditions.vocab_size or tokenizer.vocab_size
    weights, gate, facts = fit_mixture(parts, documents, vocab_size, given=len(conditions))
    source = str(data) if isinstance(data, str | Path) else type(data).__name__
    return weights, gate, facts | {"source": source, "split": options.get("split", "all")}


def fit_mixture(
    models: Sequence[LanguageModel], documents: Iterable[Document], vocab_size: int, given: int = 0
) -> tuple[tuple[float, ...], dict[str, Any], dict[str, Any]]:
    """Fit a mixture of models on texts that none of them was trained on.

    Args:
        models: The models, in evaluation mode.
        documents: The texts, each with its number of characters: the ids of bos, conditions, tokens and eos.
        vocab_size: The number of ids.
        given: The number of condition ids after bos, which are inputs and not scored.

    Returns:
        The mixture weights and the gate, as ``Blend.from_models`` takes them, and the facts for ``training.json``.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    texts = list(documents)
    scores, characters = score_tokens(models, texts, vocab_size, given=given)
    entropy_models: Any = [EntropyModel(model) for model in models]
    entropies = -score_tokens(entropy_models, texts, vocab_size, given=given)[0]
    fixed, equal = fit_weights(scores), np.full(len(models), 1 / len(models))
    gate = fit_gate(scores, entropies, fixed)
    mixed = mix_scores(scores, gated_weights(features_of(entropies), fixed, gate))
    facts = {
        "method": "gate",
        "tokens": len(scores),
        "characters": characters,
        "zero_probability_tokens": int(np.isneginf(mixed).sum()),
        "bits_per_character": {
            "parts": [_bits(column, characters) for column in scores.T],
            "equal_weights": _bits(mix_scores(scores, equal), characters),
            "fixed_weights": _bits(mix_scores(scores, fixed), characters),
            "fitted_weights": _bits(mixed, characters),
        },
    }
    return tuple(fixed.tolist()), {"coefficients": gate.tolist()}, facts


def _bits(log_probs: Float64[np.ndarray, " N"], characters: int) -> float | None:
    """Return bits per character; None if they are infinite, as everywhere in training.json."""
    bits = -float(log_probs.sum()) / characters / math.log(2)
    return bits if math.isfinite(bits) else None


def make_bundle(
    models: Sequence[ReviewModel],
    weights: tuple[float, ...],
    gate: Mapping[str, Any],
    facts: Mapping[str, Any],
    preset: str = "blend",
    generation: GenerationConfig | None = None,
    training: Mapping[str, Any] | None = None,
) -> Bundle:
    """Return a blend with everything that is saved with it.

    Args:
        models: Its models.
        weights, gate: Their weights, as ``Blend.from_models`` takes them.
        facts: How the weights were found.
        preset: The preset that it was trained from.
        generation: Its generation defaults; those of the first model if not given.
        training: Facts of the training in which all of it was trained, if it was one.
    """
    first, parts = models[0].bundle, [model.bundle for model in models]
    plugin = find_model("blend")[1]
    blend = Blend.from_models([part.model for part in parts], [part.model_plugin for part in parts], weights, gate)
    index, lexicon = _shared_index(models), _join_lexicons([part.lexicon for part in parts])
    is_known = lexicon is not None and all(part.generation.words == "known" for part in parts)
    weight_bits = models[0].weight_bits if len({model.weight_bits for model in models}) == 1 else 32
    data = _shared_facts([model.training.get("data", {}) for model in models])
    record = {
        "preset": preset,
        "data": data,
        "parts": [
            {"preset": model.preset, "weight": weight} | part_facts(model.training)
            for model, weight in zip(models, weights, strict=True)
        ],
        "weights": dict(facts),
        "novelty": novelty_facts(index, data.get("fingerprint"), CopyRates()),
    } | dict(training or {})
    bundle = Bundle(
        preset=preset,
        weights=Weights(blend, weight_bits=weight_bits),
        conditions=first.conditions or None,
        tokenizer=first.tokenizer,
        model_plugin=plugin,
        tokenizer_plugin=first.tokenizer_plugin,
        tokenizer_config=first.tokenizer_config,
        generation=replace(generation or first.generation, words="known" if is_known else "any"),
        training=record,
        index=index,
        lexicon=lexicon,
    )
    bundle.card = write_card(describe(bundle))
    return bundle


def _shared_facts(data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts on the data that are the same for all parts."""
    first, *others = data
    return {key: value for key, value in first.items() if all(key in other and other[key] == value for other in others)}


def _shared_index(models: Sequence[ReviewModel]) -> Index | None:
    """Return an index of the training text, if all parts were trained on the same text."""
    fingerprints = {data.get("fingerprint") for model in models for data in trained_on(model.training)}
    if len(fingerprints) > 1 or None in fingerprints:
        return None
    return next((model.bundle.index for model in models if model.bundle.index is not None), None)


def _join_lexicons(lexicons: Sequence[Lexicon | None]) -> Lexicon | None:
    """Return the words of all parts; None if one of them has no lexicon."""
    known = [lexicon for lexicon in lexicons if lexicon is not None]
    return reduce(or_, known) if len(known) == len(lexicons) else None


def _refuse_other_tokenizers(models: Sequence[ReviewModel]) -> None:
    """Raise unless all models have the same conditions and tokenizer (plugin, settings, and every byte that it saves)."""
    first, *others = models
    contents = _contents(first)
    for number, other in enumerate(others, start=2):
        if _contents(other) != contents:
            same = " of other contents" if _describe_tokenizer(other) == _describe_tokenizer(first) else ""
            raise ConfigError(
                f"The models of a blend share one tokenizer, but model 1 ({first.preset}) has {_describe_tokenizer(first)} and "
                f"model {number} ({other.preset}) {_describe_tokenizer(other)}{same}: train both on the same texts with the same "
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


def _describe_tokenizer(model: ReviewModel) -> str:
    return f"a {model.tokenizer_name!r} tokenizer of {model.tokenizer.vocab_size} tokens"


def _refuse_scores(models: Sequence[ReviewModel]) -> None:
    """Raise if a model's scores are not probabilities; only scoring can show that."""
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
