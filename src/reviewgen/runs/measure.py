"""What is measured at the end of a training: bits per character of held-out texts; copy rate and metrics of generated ones.

And whether training the weights that ship with a preset further would have been better: they know a language, and a training from
scratch learns it from its own texts. Once it has read these many times, it has learned what they can teach.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from reviewgen.config import GenerationConfig, to_dict
from reviewgen.data import trained_on
from reviewgen.errors import NotADistribution, ReviewgenError
from reviewgen.evaluation import (
    Document,
    Evaluation,
    Metrics,
    evaluate_documents,
    measure_rate,
    sample_documents,
    spread_documents,
)
from reviewgen.generation import Generator, Request, make_stepper
from reviewgen.lexicon import decode_texts
from reviewgen.model import ReviewModel
from reviewgen.novelty import count_copied
from reviewgen.protocols import CountTrained, LanguageModel
from reviewgen.rates import MIN_CHARACTERS, find_intervals
from reviewgen.registry import find_weights
from reviewgen.runs.corpus import PreparedCorpus
from reviewgen.runs.parts import resolve_parts
from reviewgen.runs.plan import TrainingPlan
from reviewgen.training.evaluator import SAMPLE_TOKENS

_MIN_TOKENS = 2_000  # of chosen texts, however slow the model is
_TEXTS, _MAX_TEXTS = 100, 2_000  # generated at a time, and at most
_COUNTED_CHARACTERS = 100_000  # that an n-gram writes in a tenth of a second

# Bits per character of held-out text after the same time on one core, lstm-word from the weights that ship / from scratch, by how
# often the latter has read its texts; the first column before the vocabulary depended on the size of the corpus:
#     music captions:                12.6 times  0.866 / 0.935    7.6 times  0.961 / 0.918    2.7 times  0.928 / 0.762
#     music blogs:                                                8.0 times  1.946 / 2.258    2.1 times  2.143 / 2.127
_MIN_PASSES = 10.0
_MAX_BITS = 3.0  # of the shipped weights before any training; 1.9 and 2.6 on these, more on texts in another language
_MIN_SECONDS = 30.0  # of a run; the measurement takes up to half a second
_CHARACTERS_PER_SECOND = 100  # of the run: a hundredth of its time, on one slow core
_MAX_CHARACTERS = 6_000


def evaluate(
    model: LanguageModel, documents: Sequence[Document], corpus: PreparedCorpus, device: str = "cpu"
) -> Evaluation | None:
    """Return the evaluation of a model on held-out texts; None if it cannot be scored."""
    try:
        return evaluate_documents(model, documents, corpus.tokenizer.vocab_size, device, given=len(corpus.conditions))
    except NotADistribution:
        return None


def choose_documents(
    model: LanguageModel, corpus: PreparedCorpus, split: str, tokens: int, seconds: float | None
) -> list[Document]:
    """Return texts of a split of about so many tokens; in a time budget no more than a model can score in some seconds."""
    documents = sample_documents(corpus.stores[split], tokens)
    with suppress(NotADistribution):
        if seconds is not None:
            rate = measure_rate(model, documents, corpus.tokenizer.vocab_size, given=len(corpus.conditions))
            share = max(_MIN_TOKENS, rate * seconds) / sum(len(ids) for ids, _ in documents)
            return spread_documents(documents, max(1, round(min(1.0, share) * len(documents))))
    return documents


def measure_texts(model: LanguageModel, corpus: PreparedCorpus, metrics: Metrics) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the copy rates and the metrics of generated texts, and of as many characters of held-out texts.

    Both are texts of up to ``SAMPLE_TOKENS`` tokens, and the training text is read once.
    """
    generated = _write_texts(model, corpus)
    characters = sum(map(len, generated))
    store, first = corpus.stores[corpus.final_split], 1 + len(corpus.conditions)
    each = float((store.characters * (SAMPLE_TOKENS / store.lengths).clip(max=1.0)).mean())
    count = min(len(store), max(1, round(characters / max(1.0, each))))
    numbers = np.linspace(0, len(store) - 1, count).round().astype(int).tolist()
    held_out = [corpus.tokenizer.decode(store.document(number)[first:-1][:SAMPLE_TOKENS].tolist()) for number in numbers]
    counts = count_copied([*generated, *held_out], decode_texts(corpus.stores["train"].blocks, corpus.tokenizer))
    lengths = list(map(len, [*generated, *held_out]))
    pairs = list(zip(counts, lengths, strict=True))
    own, others = pairs[: len(generated)], pairs[len(generated) :]
    rates = {
        "copy_rate": _share(own)[0] if characters else None,
        "copy_rate_interval": find_intervals(_share, own)[0] if characters else None,
        "copy_rate_texts": len(generated),
        "copy_rate_characters": characters,
        "held_out_copy_rate": _share(others)[0] if any(held_out) else None,
    }
    return rates, metrics.facts(generated, held_out)


def _write_texts(model: LanguageModel, corpus: PreparedCorpus) -> list[str]:
    """Return generated texts with as many characters as a rate needs; how many there are follows from no clock."""
    wanted = _COUNTED_CHARACTERS if isinstance(model, CountTrained) else MIN_CHARACTERS
    config, texts = GenerationConfig(max_new_tokens=SAMPLE_TOKENS), list[str]()
    generator = Generator(make_stepper(model), corpus.tokenizer)
    while len(texts) < _MAX_TEXTS and sum(map(len, texts)) < wanted:
        request = Request([""] * _TEXTS, config, seed=len(texts) // _TEXTS, prefix=corpus.conditions.unspecified_ids)
        texts += [row.text for row in generator.generate(request)]
    return texts


def _share(pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return the share of copied characters, given how many each text has, and of how many."""
    return [sum(copied for copied, _ in pairs) / max(1, sum(length for _, length in pairs))]


def suggest_trained_weights(plan: TrainingPlan, corpus: PreparedCorpus, tokens: int, seconds: float) -> list[str]:
    """Return a sentence if the weights that ship with a preset, trained further, would have made a better model; else nothing.

    Args:
        plan: The plan of the finished run.
        corpus: Its corpus.
        tokens: The number of training tokens it has seen.
        seconds: How long it took; decides how many texts the shipped weights are measured on.
    """
    passes = tokens / max(1, corpus.stores["train"].tokens)
    if plan.parts.trained is not None or plan.parts.is_counted or seconds < _MIN_SECONDS or passes < _MIN_PASSES:
        return []
    trained = _find_trainable(plan)
    characters = min(_MAX_CHARACTERS, round(seconds * _CHARACTERS_PER_SECOND))
    bits = math.inf if trained is None else _measure_bits(trained, corpus, characters)
    if bits > _MAX_BITS:
        return []
    return [
        f"This training has read its texts {passes:.0f} times. On so small a corpus, training the weights that ship with "
        f"{plan.preset} further should give a better model in the same time: use --from {plan.preset}. They take {bits:.3f} "
        "bits per character of these held-out texts before any training."
    ]


def _find_trainable(plan: TrainingPlan) -> ReviewModel | None:
    """Return the shipped model of a preset, if it can be trained further with a plan's own settings on texts cleaned alike."""
    parts = plan.parts
    try:
        usual, folder = resolve_parts(plan.preset), find_weights(plan.preset)
        if folder is None:
            return None
        trained, kept = ReviewModel.from_pretrained(folder), to_dict(usual.tokenizer_config)
        model = {name: value for name, value in parts.model_settings.items() if value != usual.model_settings.get(name)}
        tokenizer = {name: value for name, value in to_dict(parts.tokenizer_config).items() if value != kept[name]}
        resolve_parts(trained, model, tokenizer)
    except ReviewgenError:
        return None
    data = trained_on(trained.training)[0]
    is_cleaned_alike = all(data.get(name, value) == value for name, value in plan.data.cleaning.items())
    return trained if is_cleaned_alike and plan.data.conditions in ((), trained.conditions.names) else None


def _measure_bits(trained: ReviewModel, corpus: PreparedCorpus, characters: int) -> float:
    """Return a model's bits per character on evenly spaced held-out texts of about so many characters."""
    store, first = corpus.stores[corpus.final_split], 1 + len(corpus.conditions)
    tokens = round(characters * store.tokens / max(1, int(store.characters.sum())))
    texts = [corpus.tokenizer.decode(ids[first:-1][:tokens].tolist()) for ids, _ in sample_documents(store, tokens)]
    with suppress(NotADistribution):
        return trained.evaluate([text for text in texts if text], clean=False).bits_per_character
    return math.inf
