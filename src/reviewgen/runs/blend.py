"""``reviewgen.blend``: combines trained models, and records facts for ``training.json``.

Models with different tokenizers are converted to one tokenizer: ``char``, with the characters that
all of them can write.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from reviewgen.blending.characters import describe_characters, shared_alphabet
from reviewgen.blending.model import Blend, CharacterModel, EntropyModel
from reviewgen.blending.weights import (
    check_weights,
    features_of,
    fit_gate,
    fit_weights,
    gated_weights,
    mix_scores,
)
from reviewgen.conditions import Condition, Conditions
from reviewgen.config.descriptions import describes_options
from reviewgen.config.generation import CHAR_GENERATION, GenerationConfig
from reviewgen.config.options import EvaluateKwargs, EvaluationOptions, refuse_unknown_options
from reviewgen.config.settings import to_dict
from reviewgen.data.encode import digest_tokenizer
from reviewgen.data.texts import data_records, read_documents
from reviewgen.errors import ConfigError, NotADistribution, quoted
from reviewgen.evaluation.evaluate import score_tokens
from reviewgen.evaluation.scoring import Document
from reviewgen.hub.card import card_text
from reviewgen.lexicon.token_bytes import token_symbols
from reviewgen.model.review_model import ReviewModel
from reviewgen.protocols.abilities import count_parameters
from reviewgen.protocols.model import LanguageModel, SupportsScore
from reviewgen.protocols.tokenizer import SupportsTokenBytes
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import find_model, find_tokenizer
from reviewgen.runs.record import novelty_facts
from reviewgen.runs.setup import part_facts
from reviewgen.saving.layout import Bundle
from reviewgen.saving.weights import ModelWeights


@describes_options(EvaluationOptions)
def blend(
    models: Any, weights: Any = None, *, data: Any = None, **options: Unpack[EvaluateKwargs]
) -> ReviewModel:
    """Blend trained models: at each token, average their probabilities.

    A blend is a ReviewModel like any other: it evaluates, generates and saves itself. An n-gram and
    an LSTM together often predict better than each alone. Jelinek & Mercer 1980, "Interpolated
    Estimation of Markov Source Parameters from Sparse Data". If the models have different
    tokenizers, their probabilities are averaged at each character, and the blend has the tokenizer
    ``char``. Vieira et al. 2024, "From Language Models over Tokens to Language Models over
    Characters".

    >>> model = reviewgen.blend(["./my-ngram", "./my-lstm"], data="held-out.csv")  # doctest: +SKIP

    Args:
        models: Two or more ReviewModels, or what ``load`` takes; a blend may be among them.
        weights: A positive number for each model; they are divided by their sum. None: the weights
            are fitted if ``data`` is given, else equal.
        data: Texts that no model was trained on, to fit the weights to. The fitted weights change
            from token to token, with how certain each model is of the next one.
            ``training["weights"]`` of the blend records the bits per character of each model alone,
            and of the blend with equal, with fixed and with fitted weights.
        See ``EvaluationOptions`` for how the data is read.

    Raises:
        ConfigError: There are fewer than two models; a condition has different values in two of
            them; the tokenizers differ and one does not say which bytes its tokens are; the weights
            are not one positive number for each model; both weights and data are given; or an
            argument is unknown.
        NotADistribution: The scores of a model do not sum to one.
        DataError: The data cannot be read, or none of its tokens can be predicted.
        ReviewgenError: A model cannot be loaded; see ``load``.
    """
    refuse_unknown_options(options, EvaluateKwargs, "blend")
    if not isinstance(models, list | tuple) or not all(
        isinstance(model, ReviewModel | str | Path) for model in models
    ):
        raise ConfigError(
            "blend takes a list of ReviewModels, or of what load takes, as in blend([a, b]); got"
            f" {quoted(models)}."
        )
    if data is not None and weights is not None:
        raise ConfigError("Give weights, or data to fit them on, not both.")
    if len(models) < 2:
        raise ConfigError(f"A blend needs at least two models; got {len(models)}.")
    loaded = [
        model if isinstance(model, ReviewModel) else ReviewModel.from_pretrained(model)
        for model in models
    ]
    _refuse_scores(loaded)
    first, parts = _share_tokenizer(loaded)
    plugins = [model.bundle.model_plugin for model in loaded]
    if data is None:
        equal = Blend.from_models(parts, plugins, check_weights(weights, len(loaded)))
        return ReviewModel(
            make_bundle(
                loaded, equal, {"method": "equal" if weights is None else "given"}, first=first
            )
        )
    documents = read_documents(data, first, [model.bundle for model in loaded], **options)
    fitted, facts = fit_blend(parts, plugins, documents, first.tokenizer.vocab_size)
    source = str(data) if isinstance(data, str | Path) else type(data).__name__
    facts |= {"source": source, "split": options.get("split", "all")}
    return ReviewModel(make_bundle(loaded, fitted, facts, first=first))


def fit_blend(
    models: Sequence[LanguageModel],
    plugins: Sequence[Plugin],
    documents: Iterable[Document],
    vocab_size: int,
) -> tuple[Blend, dict[str, Any]]:
    """Blend models, and fit the weights on held-out texts.

    Args:
        models: The models, in evaluation mode.
        plugins: The plugin of each model.
        documents: Texts that no model was trained on. Each is a pair: the ids of bos, conditions,
            tokens and eos; and the number of characters.
        vocab_size: The tokenizer's. Ids from there on are ids of conditions: the models read them
            and do not predict them.

    Returns:
        The blend, and the facts for ``training.json``.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    texts = list(documents)
    scores, characters = score_tokens(models, texts, vocab_size)
    entropy_models: Any = [EntropyModel(model) for model in models]
    entropies = -score_tokens(entropy_models, texts, vocab_size)[0]
    fixed = fit_weights(scores)
    equal = np.full(len(models), 1 / len(models))
    gate = fit_gate(scores, entropies, fixed)
    mixed = mix_scores(scores, gated_weights(features_of(entropies), fixed, gate))

    def bits(log_probs: np.ndarray) -> float | None:
        """Return bits per character; None if they are infinite, as JSON has no infinity."""
        value = -float(log_probs.sum()) / characters / math.log(2)
        return value if math.isfinite(value) else None

    facts = {
        "method": "gate",
        "tokens": len(scores),
        "characters": characters,
        "zero_probability_tokens": int(np.isneginf(mixed).sum()),
        "bits_per_character": {
            "parts": [bits(column) for column in scores.T],
            "equal_weights": bits(mix_scores(scores, equal)),
            "fixed_weights": bits(mix_scores(scores, fixed)),
            "fitted_weights": bits(mixed),
        },
    }
    return (
        Blend.from_models(models, plugins, fixed.tolist(), {"coefficients": gate.tolist()}),
        facts,
    )


def make_bundle(
    models: Sequence[ReviewModel],
    blend: Blend,
    facts: Mapping[str, Any],
    preset: str = "blend",
    generation: GenerationConfig | None = None,
    training: Mapping[str, Any] | None = None,
    first: Bundle | None = None,
) -> Bundle:
    """Return the bundle of a blend: the model, and everything else that is saved with it.

    Args:
        models: The models that are blended.
        blend: The blend of these models.
        facts: How the weights were found.
        preset: The preset that the blend was trained from.
        generation: The generation defaults of the blend; those of ``first`` if not given.
        training: The record of the training, if one run has trained all the models.
        first: The bundle whose tokenizer and conditions the blend gets; that of the first model if
            not given.
    """
    first = first or models[0].bundle
    bundles = [model.bundle for model in models]
    records = itertools.chain.from_iterable(data_records(model.training) for model in models)
    fingerprints = {data.get("fingerprint") for data in records}
    index = None  # the novelty index, if all models were trained on the same corpus
    if len(fingerprints) == 1 and None not in fingerprints:
        entries = zip(bundles, blend.config.models, strict=True)
        indexes = [bundle.index for bundle, entry in entries if "characters" not in entry]
        index = next((index for index in indexes if index is not None), None)
    known = [bundle.lexicon for bundle in bundles if bundle.lexicon is not None]
    lexicon = reduce(or_, known) if len(known) == len(bundles) else None
    is_known = lexicon is not None and all(bundle.generation.words == "known" for bundle in bundles)
    weight_bits = models[0].weight_bits if len({model.weight_bits for model in models}) == 1 else 32
    each_data = [model.training.get("data") or {} for model in models]
    data = {
        key: value
        for key, value in each_data[0].items()
        if all(key in other and other[key] == value for other in each_data)
    }
    record = {
        "preset": preset,
        "data": data,
        "parts": [
            {"preset": model.preset, "weight": weight} | part_facts(model.training)
            for model, weight in zip(models, blend.config.weights, strict=True)
        ],
        "weights": dict(facts),
        "parameters": count_parameters(blend),
        "novelty": novelty_facts(index, data.get("fingerprint"), {}),
    } | dict(training or {})
    bundle = Bundle(
        preset=preset,
        weights=ModelWeights(blend, weight_bits=weight_bits),
        conditions=first.conditions,
        tokenizer=first.tokenizer,
        model_plugin=find_model("blend")[1],
        tokenizer_plugin=first.tokenizer_plugin,
        tokenizer_config=first.tokenizer_config,
        generation=replace(generation or first.generation, words="known" if is_known else "any"),
        training=record,
        index=index,
        lexicon=lexicon,
    )
    bundle.card = card_text(bundle)
    return bundle


def _share_tokenizer(models: Sequence[ReviewModel]) -> tuple[Bundle, list[LanguageModel]]:
    """Return a bundle with the tokenizer, conditions and generation defaults of a blend; and the
    models, converted to that tokenizer if they have another one or lack conditions.

    Raises:
        ConfigError: The tokenizers or conditions differ, and a tokenizer does not say which bytes
            its tokens are, or the models have fields of free text.
    """
    bundles = [model.bundle for model in models]
    first = bundles[0]
    conditions = _join_conditions(models)
    kinds = [(_identify(bundle), len(bundle.conditions)) for bundle in bundles]
    tokenizer_kind = kinds[0][0]
    if all(kind == (tokenizer_kind, len(conditions)) for kind in kinds):
        return first, [bundle.model for bundle in bundles]
    for number, model in enumerate(models, start=1):
        if not isinstance(model.tokenizer, SupportsTokenBytes):
            raise ConfigError(
                "The models have different tokenizers or conditions, and the tokenizer of model"
                f" {number} ({model.preset}), {model.tokenizer_name!r}, does not say which bytes"
                " its tokens are (reviewgen.protocols.SupportsTokenBytes): train all alike."
            )
    if fields := conditions.fields:
        raise ConfigError(
            "The models have different tokenizers or conditions, and fields of free text,"
            f" {', '.join(field.name for field in fields)}: train all with one tokenizer and the"
            " same ones, or without fields."
        )
    symbols: list[Any] = [token_symbols(bundle.tokenizer) for bundle in bundles]
    shared = first
    if any(kind != tokenizer_kind for kind, _ in kinds):
        tokenizer_class, plugin = find_tokenizer("char")
        defaults = [
            bundle.generation for bundle in bundles if bundle.tokenizer_plugin.name == plugin.name
        ]
        shared = replace(
            first,
            tokenizer=tokenizer_class.train([shared_alphabet(symbols)], tokenizer_class.Config()),
            tokenizer_plugin=plugin,
            tokenizer_config=tokenizer_class.Config(),
            generation=(
                defaults[0]
                if defaults
                else GenerationConfig(**CHAR_GENERATION, conditions=first.generation.conditions)
            ),
        )
    shared = replace(shared, conditions=conditions.with_ids_from(shared.tokenizer.vocab_size))
    parts: list[LanguageModel] = []
    written: Any = token_symbols(shared.tokenizer)
    first_ids = dict(zip(conditions.names, shared.conditions.open_ids, strict=True))
    for bundle, kind, bundle_symbols in zip(bundles, kinds, symbols, strict=True):
        if kind == (_identify(shared), len(conditions)):
            parts.append(bundle.model)
            continue
        given = list[int]()
        for known in bundle.conditions:
            first_id = first_ids[known.name]
            given += range(first_id, first_id + 1 + len(known.values))
        pairs = (
            (bundle.tokenizer.bos_id, shared.tokenizer.bos_id),
            (bundle.tokenizer.eos_id, shared.tokenizer.eos_id),
        )
        entry = describe_characters(bundle_symbols, written, *pairs, given)
        parts.append(CharacterModel(bundle.model, entry, shared.conditions.vocab_size))
    return shared, parts


def _identify(bundle: Bundle) -> tuple[Any, ...]:
    """Return what identifies the tokenizer of a model: the plugin, its settings, and a digest of
    all that it saves.
    """
    return (
        bundle.tokenizer_plugin.name,
        to_dict(bundle.tokenizer_config),
        digest_tokenizer(bundle.tokenizer),
    )


def _join_conditions(models: Sequence[ReviewModel]) -> Conditions:
    """Return the conditions of all models.

    Raises:
        ConfigError: Conditions of the same name have different values in two models, or the
            conditions have a different order.
    """
    joined: dict[str, Condition] = {}
    for model in sorted(models, key=lambda model: -len(model.conditions)):
        for condition in model.conditions:
            joined.setdefault(condition.name, condition)
        shared = [
            condition for condition in joined.values() if condition.name in model.conditions.names
        ]
        for own, other in zip(
            map(_describe, model.conditions), map(_describe, shared), strict=True
        ):
            if own != other:
                raise ConfigError(
                    f"{model.preset} has the condition {own}, where another model of the blend has"
                    f" {other}: train both on the same texts, with the conditions in the same"
                    " order, or rename the column of one."
                )
    return Conditions(tuple(joined.values()))


def _describe(condition: Condition) -> str:
    return f"{condition.name!r} with the values {[value.label for value in condition.values]}"


def _refuse_scores(models: Sequence[ReviewModel]) -> None:
    """Raise if a model's scores are not probabilities. To find out, score one token with each."""
    for number, model in enumerate(models, start=1):
        ids = torch.tensor([[model.tokenizer.bos_id]])
        part = model.bundle.model
        try:
            with torch.inference_mode():
                if isinstance(part, SupportsScore):
                    part.score(ids, ids, part.initial_state(1))
        except NotADistribution as error:
            reason = str(error).split(". ")[0].rstrip(".")
            raise NotADistribution(
                f"Model {number} ({model.preset}) cannot be blended: {reason}."
            ) from None
