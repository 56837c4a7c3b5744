"""Suggests to train the weights that ship with a preset further, after a training from scratch that this would have beaten.

Such weights know a language, and a training from scratch learns it from its own texts. Once it has read these many times, it has
learned what they can teach.
"""

import math
from collections.abc import Iterator
from typing import Any

from reviewgen.config import from_dict, to_dict
from reviewgen.data import TokenStore, frame_texts, trained_on
from reviewgen.errors import NotADistribution, ReviewgenError
from reviewgen.evaluation import evaluate_documents, sample_documents
from reviewgen.model import ReviewModel
from reviewgen.protocols import Tokenizer
from reviewgen.registry import find_preset, find_weights
from reviewgen.runs.parts import resolve_parts
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.prepare import PreparedCorpus

# Bits per character of held-out text after the same time on one core, lstm-word from the weights that ship / from scratch, by how
# often the latter has read its texts; the first column before the vocabulary depended on the size of the corpus:
#     music captions:                12.6 times  0.866 / 0.935    7.6 times  0.961 / 0.918    2.7 times  0.928 / 0.762
#     music blogs:                                                8.0 times  1.946 / 2.258    2.1 times  2.143 / 2.127
_MIN_PASSES = 10.0
_MAX_BITS = 3.0  # of the shipped weights before any training; 1.9 and 2.6 on these, more on texts in another language
_MIN_SECONDS = 30.0  # of a run; the measurement takes up to half a second
_CHARACTERS_PER_SECOND = 100  # of the run: a hundredth of its time, on one slow core
_MAX_CHARACTERS = 6_000


def suggest_trained_weights(plan: TrainingPlan, corpus: PreparedCorpus, split: str, tokens: int, seconds: float) -> list[str]:
    """Return a sentence if the weights that ship with a preset, trained further, would have made a better model; else nothing.

    Args:
        plan: The plan of the finished run.
        corpus: Its corpus.
        split: The split of its last evaluation.
        tokens: The number of training tokens it has seen.
        seconds: How long it took; decides how many texts the shipped weights are measured on.
    """
    passes = tokens / max(1, corpus.stores["train"].tokens)
    if plan.parts.trained is not None or seconds < _MIN_SECONDS or passes < _MIN_PASSES:
        return []
    trained = _find_trainable(plan)
    if trained is None:
        return []
    characters = min(_MAX_CHARACTERS, round(seconds * _CHARACTERS_PER_SECOND))
    bits = _measure_bits(trained, corpus, split, characters)
    if bits > _MAX_BITS:
        return []
    return [
        f"This training has read its texts {passes:.0f} times. On so small a corpus, training the weights that ship with "
        f"{plan.preset} further should give a better model in the same time: use --from {plan.preset}. They take {bits:.3f} "
        "bits per character of these held-out texts before any training."
    ]


def _find_trainable(plan: TrainingPlan) -> ReviewModel | None:
    """Return the shipped model of a preset, if it can be trained further with the settings of a plan on texts cleaned alike."""
    try:
        folder = find_weights(plan.preset)
        if folder is None or plan.parts.is_counted:
            return None
        trained = ReviewModel.from_pretrained(folder)
        resolve_parts(trained, *_chosen_settings(plan))
    except ReviewgenError:
        return None
    data = trained_on(trained.training)[0]
    is_cleaned_alike = all(data.get(name, value) == value for name, value in plan.data.cleaning.items())
    return trained if is_cleaned_alike and plan.data.conditions in ((), trained.conditions.names) else None


def _chosen_settings(plan: TrainingPlan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of model and tokenizer that the user has set, which a trained model must agree with."""
    parts, preset = plan.parts, find_preset(plan.preset)
    settings, usual = parts.model_settings, preset.model_settings
    chosen = {name for name, value in settings.items() if name not in usual or usual[name] != value}
    if parts.sizes is None:  # a size was set, perhaps to that of the preset
        chosen |= {name for size in preset.sizes for name in size if name in settings}
    defaults = to_dict(from_dict(parts.tokenizer_class.Config, preset.tokenizer_settings))
    tokenizer = {name: value for name, value in to_dict(parts.tokenizer_config).items() if defaults[name] != value}
    return {name: settings[name] for name in chosen}, tokenizer


def _measure_bits(trained: ReviewModel, corpus: PreparedCorpus, split: str, characters: int) -> float:
    """Return a model's bits per character on the first ``characters`` of held-out texts; infinite if it cannot score them."""
    texts = _read_texts(corpus.stores[split], corpus.tokenizer, 1 + len(corpus.conditions), characters)
    documents = frame_texts(((text, trained.conditions.unspecified_ids) for text in texts), trained.tokenizer)
    try:
        return evaluate_documents(
            trained.bundle.model, documents, trained.tokenizer.vocab_size, given=len(trained.conditions)
        ).bits_per_character
    except NotADistribution:
        return math.inf


def _read_texts(store: TokenStore, tokenizer: Tokenizer, given: int, characters: int) -> Iterator[str]:
    """Yield evenly spaced texts of a store until there are enough characters; the last one is cut."""
    tokens = round(characters * store.tokens / max(1, int(store.characters.sum())))
    for ids, _ in sample_documents(store, tokens):
        text = tokenizer.decode(ids[given:-1][:tokens].tolist())[:characters]
        tokens -= len(ids)
        characters -= len(text)
        if text:
            yield text
        if characters <= 0 or tokens <= 0:
            return
