"""``reviewgen.blend``: combines trained models, and records facts for ``training.json``.

Models with different tokenizers are converted to one tokenizer: ``char``, with the characters that
all of them can write.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

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
from reviewgen.evaluation.evaluate import score_tokens, spread_documents
from reviewgen.evaluation.scoring import Document
from reviewgen.hub.card import card_text
from reviewgen.lexicon.token_bytes import token_symbols
from reviewgen.model.review_model import ReviewModel
from reviewgen.novelty import Index
from reviewgen.protocols.abilities import count_parameters
from reviewgen.protocols.model import LanguageModel, SupportsExpert, SupportsScore
from reviewgen.protocols.tokenizer import SupportsTokenBytes
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import find_model, find_tokenizer
from reviewgen.runs.record import list_parts, novelty_facts, order_parts
from reviewgen.saving.layout import Bundle
from reviewgen.saving.weights import ModelWeights

FIT_TOKENS = 1 << 17  # max tokens to fit a model that mixes an expert in
# max logits of the expert in one call: they take 12 MB, and a blend has ten copies of them
MAX_LOGITS = 3 << 20
MAX_ROWS = 64  # max texts in one call of the expert


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
            from token to token, with how certain each model is of the next token. A model that can
            mix in the distribution of others (``reviewgen.protocols.SupportsExpert``) does so with
            their average; if there are several, the last one does.
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
    _check_scores(loaded)
    shared, components = _share_tokenizer(loaded)
    plugins = [model.bundle.model_plugin for model in loaded]
    if data is not None:
        documents = read_documents(data, shared, [model.bundle for model in loaded], **options)
        blended, facts = fit_blend(components, plugins, documents, shared.tokenizer.vocab_size)
        source = str(data) if isinstance(data, str | Path) else type(data).__name__
        facts |= {"source": source, "split": options.get("split", "all")}
    else:
        blended = Blend.from_models(components, plugins, check_weights(weights, len(loaded)))
        facts = {"method": "equal" if weights is None else "given"}
    return ReviewModel(_make_bundle(loaded, blended, facts, shared))


def fit_blend(
    models: Sequence[LanguageModel],
    plugins: Sequence[Plugin],
    documents: Iterable[Document],
    vocab_size: int,
) -> tuple[Blend, dict[str, Any]]:
    """Blend models, and fit the weights on held-out texts.

    If some of the models are a ``SupportsExpert``, the last of these becomes the last component of
    the blend. The average of the others is its expert, which it mixes in by weights that are fitted
    on the same texts.

    Args:
        models: The models, in evaluation mode.
        plugins: The plugin of each model.
        documents: Texts that no model was trained on. Each is a pair: the ids of bos, conditions,
            tokens and eos; and the number of characters.
        vocab_size: The vocabulary size of the tokenizer. Ids from this number on are those of
            conditions, which the models read and do not predict.

    Returns:
        The blend, and the facts for ``training.json``, whose parts are in the order of the blend.
        If one of the models mixes the others, ``order`` has the number of each part in ``models``.

    Raises:
        DataError: There are no texts, or none of them has a character.
    """
    document_list = list(documents)
    # the index of the last model that can mix the others in; empty if there is none
    mixing = [number for number, each in enumerate(models) if isinstance(each, SupportsExpert)][-1:]
    order = [number for number in range(len(models)) if number not in mixing] + mixing
    parts: list[Any] = [models[number] for number in order]
    part_plugins = [plugins[number] for number in order]
    scores, characters = score_tokens(parts, document_list, vocab_size)
    equal = np.full(len(parts), 1 / len(parts))
    fixed = fit_weights(scores)
    averaged = len(parts) - len(mixing)  # number of averaged models, which come first
    weights, gate, fitted_scores = _fit_average(
        parts[:averaged], scores[:, :averaged], document_list, vocab_size
    )
    if mixing:
        expert = parts[0]
        if averaged > 1:
            expert = Blend.from_models(parts[:averaged], part_plugins[:averaged], weights, gate)
        parts[-1] = parts[-1].fit_expert(_expert_texts(expert, document_list))
        weights.append(0.0)  # the model that mixes the others is not averaged with them
    blended = Blend.from_models(parts, part_plugins, weights, gate)
    if mixing:
        fitted_scores, _ = score_tokens([blended], document_list, vocab_size)

    def bits(log_probs: np.ndarray) -> float | None:
        """Return bits per character; None if they are infinite, as JSON has no infinity."""
        value = -float(log_probs.sum()) / characters / math.log(2)
        return value if math.isfinite(value) else None

    facts: dict[str, Any] = {
        "method": "mixing" if mixing else "gate",
        "tokens": len(scores),
        "characters": characters,
        "zero_probability_tokens": int(np.isneginf(fitted_scores).sum()),
        "bits_per_character": {
            "parts": [bits(column) for column in scores.T],
            "equal_weights": bits(mix_scores(scores, equal)),
            "fixed_weights": bits(mix_scores(scores, fixed)),
            "fitted_weights": bits(fitted_scores),
        },
    }
    if mixing:
        facts["order"] = order
    return blended, facts


def _fit_average(
    models: Sequence[LanguageModel],
    scores: Float64[np.ndarray, "N M"],
    documents: Sequence[Document],
    vocab_size: int,
) -> tuple[list[float], dict[str, Any], Float64[np.ndarray, " N"]]:
    """Fit an average of models. Return its weights, its gate, and the log probability of each
    token. A single model has weight 1 and no gate.

    Args:
        models, documents, vocab_size: As in ``fit_blend``.
        scores: The log probability of each token under each model.
    """
    if len(models) == 1:
        return [1.0], {}, scores[:, 0]
    # an EntropyModel scores each token with the negative entropy of the model's distribution
    entropy_models: Any = [EntropyModel(model) for model in models]
    negative_entropies, _ = score_tokens(entropy_models, documents, vocab_size)
    entropies = -negative_entropies
    fixed = fit_weights(scores)
    gate = fit_gate(scores, entropies, fixed)
    mixed = mix_scores(scores, gated_weights(features_of(entropies), fixed, gate))
    return fixed.tolist(), {"coefficients": gate.tolist()}, mixed


@torch.inference_mode()
def _expert_texts(
    expert: LanguageModel, documents: Sequence[Document]
) -> Iterator[tuple[Int64[np.ndarray, " T"], Float32[np.ndarray, "T V"]]]:
    """Yield evenly spaced texts of up to about ``FIT_TOKENS`` tokens together: the ids of each,
    and the expert's log probabilities (nats) after each id. Long texts are cut.
    """
    tokens = sum(len(ids) for ids, _ in documents)
    chosen = spread_documents(documents, max(1, len(documents) * FIT_TOKENS // tokens))
    max_tokens = max(2, MAX_LOGITS // expert.config.vocab_size)  # max tokens of a batch
    texts = [ids[:max_tokens] for ids, _ in chosen]
    batch_size = min(MAX_ROWS, max_tokens // max(map(len, texts)))
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        ids = np.zeros((len(batch), max(map(len, batch))), np.int64)  # zeros after the end
        for row, text in zip(ids, batch, strict=True):
            row[: len(text)] = text
        logits, _ = expert(torch.from_numpy(ids), expert.initial_state(len(batch)))
        log_probs = logits.float().log_softmax(-1).numpy()  # (B, T, V)
        for row, row_log_probs, text in zip(ids, log_probs, batch, strict=True):
            yield row[: len(text)], np.ascontiguousarray(row_log_probs[: len(text)])


def _make_bundle(
    models: Sequence[ReviewModel],
    blend: Blend,
    facts: Mapping[str, Any],
    shared: Bundle,
) -> Bundle:
    """Return the bundle of a blend: the model, and everything else that is saved with it.

    Args:
        models: The models that are blended.
        blend: The blend of these models.
        facts: How the weights were found.
        shared: The bundle whose tokenizer, conditions and generation defaults the blend gets.
    """
    bundles = [model.bundle for model in models]
    index = _shared_index(models, blend, facts)
    lexicons = [bundle.lexicon for bundle in bundles if bundle.lexicon is not None]
    lexicon = reduce(or_, lexicons) if len(lexicons) == len(bundles) else None
    is_known = lexicon is not None and all(bundle.generation.words == "known" for bundle in bundles)
    bit_widths = {model.weight_bits for model in models}
    # the weights of a blend are saved like those of its models, if these agree
    weight_bits = bit_widths.pop() if len(bit_widths) == 1 else 32
    # what the models' records say about their data, as far as they agree
    recorded = [model.training.get("data") or {} for model in models]
    data = {
        key: value
        for key, value in recorded[0].items()
        if all(other.get(key) == value for other in recorded)
    }
    facts_of_models = [{"preset": model.preset} | model.training for model in models]
    record = {
        "preset": "blend",
        "data": data,
        "parts": list_parts(facts_of_models, blend, facts),
        "weights": dict(facts),
        "parameters": count_parameters(blend),
        "novelty": novelty_facts(index, data.get("fingerprint"), {}),
    }
    bundle = Bundle(
        preset="blend",
        weights=ModelWeights(blend, weight_bits=weight_bits),
        conditions=shared.conditions,
        tokenizer=shared.tokenizer,
        model_plugin=find_model("blend")[1],
        tokenizer_plugin=shared.tokenizer_plugin,
        tokenizer_config=shared.tokenizer_config,
        generation=replace(shared.generation, words="known" if is_known else "any"),
        training=record,
        index=index,
        lexicon=lexicon,
        bigrams=shared.bigrams,
    )
    bundle.card = card_text(bundle)
    return bundle


def _shared_index(
    models: Sequence[ReviewModel], blend: Blend, facts: Mapping[str, Any]
) -> Index | None:
    """Return the novelty index of one of the models of a blend, if all were trained on the same
    corpus; else None.
    """
    fingerprints = set[Any]()
    for model in models:
        fingerprints |= {data.get("fingerprint") for data in data_records(model.training)}
    if len(fingerprints) != 1 or None in fingerprints:
        return None
    for model, entry in zip(order_parts(models, facts), blend.config.models, strict=True):
        # a model with the entry "characters" has another tokenizer than the blend
        if model.bundle.index is not None and "characters" not in entry:
            return model.bundle.index
    return None


def _share_tokenizer(models: Sequence[ReviewModel]) -> tuple[Bundle, list[LanguageModel]]:
    """Return a bundle with the tokenizer, conditions and generation defaults of a blend; and the
    models. A model is converted to that tokenizer if it has another tokenizer or lacks conditions.

    Raises:
        ConfigError: The models must be converted, but cannot be: a tokenizer does not say which
            bytes its tokens are, or there are fields of free text.
    """
    bundles = [model.bundle for model in models]
    shared = bundles[0]
    conditions = _join_conditions(models)
    # a model is converted if its tokenizer or its number of conditions differs from the blend's
    kinds = [(_identify(bundle), len(bundle.conditions)) for bundle in bundles]
    tokenizer_kind, _ = kinds[0]
    if all(kind == (tokenizer_kind, len(conditions)) for kind in kinds):
        return shared, [bundle.model for bundle in bundles]
    _check_convertible(models, conditions)
    symbols: list[Any] = [token_symbols(bundle.tokenizer) for bundle in bundles]
    if any(kind != tokenizer_kind for kind, _ in kinds):
        shared = _character_bundle(bundles, symbols)
    shared = replace(shared, conditions=conditions.with_ids_from(shared.tokenizer.vocab_size))
    components = list[LanguageModel]()
    shared_symbols: Any = token_symbols(shared.tokenizer)
    first_ids = dict(zip(conditions.names, shared.conditions.open_ids, strict=True))
    for bundle, kind, bundle_symbols in zip(bundles, kinds, symbols, strict=True):
        if kind == (_identify(shared), len(conditions)):
            components.append(bundle.model)
            continue
        condition_ids = list[int]()  # the blend's ids of the conditions that the model has
        for condition in bundle.conditions:
            # a condition has an id for "unspecified", then one for each value
            first_id = first_ids[condition.name]
            condition_ids += range(first_id, first_id + 1 + len(condition.values))
        entry = describe_characters(
            bundle_symbols,
            shared_symbols,
            (bundle.tokenizer.bos_id, shared.tokenizer.bos_id),
            (bundle.tokenizer.eos_id, shared.tokenizer.eos_id),
            condition_ids,
        )
        components.append(CharacterModel(bundle.model, entry, shared.conditions.vocab_size))
    return shared, components


def _check_convertible(models: Sequence[ReviewModel], conditions: Conditions) -> None:
    """Check that models can be converted to one tokenizer.

    Raises:
        ConfigError: A tokenizer does not say which bytes its tokens are, or there are fields of
            free text.
    """
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


def _character_bundle(bundles: Sequence[Bundle], symbols: list[Any]) -> Bundle:
    """Return the first bundle with another tokenizer: ``char``, with the characters that all models
    can write. The generation defaults are those of the first character model; without one,
    ``CHAR_GENERATION``.

    Args:
        bundles: The bundles of the models.
        symbols: The spellings of each model's tokens.
    """
    first = bundles[0]
    tokenizer_class, plugin = find_tokenizer("char")
    generation = GenerationConfig(**CHAR_GENERATION, conditions=first.generation.conditions)
    for bundle in bundles:
        if bundle.tokenizer_plugin.name == plugin.name:
            generation = bundle.generation
            break
    return replace(
        first,
        tokenizer=tokenizer_class.train([shared_alphabet(symbols)], tokenizer_class.Config()),
        bigrams=None,  # the saved ones are of other tokens
        tokenizer_plugin=plugin,
        tokenizer_config=tokenizer_class.Config(),
        generation=generation,
    )


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
    joined = dict[str, Condition]()
    # the model with the most conditions comes first, so that it sets the order of its conditions
    for model in sorted(models, key=lambda model: -len(model.conditions)):
        for condition in model.conditions:
            joined.setdefault(condition.name, condition)
        names = model.conditions.names
        shared = [condition for condition in joined.values() if condition.name in names]
        for own, other in zip(model.conditions, shared, strict=True):
            if _describe(own) != _describe(other):
                raise ConfigError(
                    f"{model.preset} has the condition {_describe(own)}, where another model of the"
                    f" blend has {_describe(other)}: train both on the same texts, with the"
                    " conditions in the same order, or rename the column of one."
                )
    return Conditions(tuple(joined.values()))


def _describe(condition: Condition) -> str:
    """Return the name and the values of a condition, to compare conditions and for messages."""
    return f"{condition.name!r} with the values {[value.label for value in condition.values]}"


def _check_scores(models: Sequence[ReviewModel]) -> None:
    """Check that the scores of models are probabilities, by scoring one token with each model.

    Raises:
        NotADistribution: The scores of a model are not.
    """
    for number, model in enumerate(models, start=1):
        ids = torch.tensor([[model.tokenizer.bos_id]])
        scorer = model.bundle.model
        try:
            with torch.inference_mode():
                if isinstance(scorer, SupportsScore):
                    scorer.score(ids, ids, scorer.initial_state(1))
        except NotADistribution as error:
            reason = str(error).split(". ")[0].rstrip(".")
            raise NotADistribution(
                f"Model {number} ({model.preset}) cannot be blended: {reason}."
            ) from None
