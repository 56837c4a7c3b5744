"""The measurements at the end of a run: the bits per character of held-out texts, and the copy rate
and the metrics of generated texts.

A note may advise to train the weights that ship with a preset further instead of training from
scratch. The shipped weights already know the language, while a training from scratch learns it from
its own texts only: after many epochs, a small corpus has no more to teach.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from reviewgen.config.generation import GenerationConfig
from reviewgen.config.settings import to_dict
from reviewgen.data.tokens import count_given, tokens_of
from reviewgen.errors import NotADistribution, ReviewgenError
from reviewgen.evaluation.evaluate import (
    Evaluation,
    evaluate_documents,
    measure_rate,
    sample_documents,
    spread_documents,
    spread_indices,
)
from reviewgen.evaluation.metrics import TextMetrics
from reviewgen.evaluation.scoring import Document, token_losses
from reviewgen.generation.generator import Generator
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.generation.request import Request
from reviewgen.lexicon.token_bytes import decode_texts
from reviewgen.model.review_model import ReviewModel
from reviewgen.novelty import count_copied
from reviewgen.protocols.model import CountTrained, LanguageModel
from reviewgen.rates import MIN_CHARACTERS, area_under_curve, find_intervals
from reviewgen.registry.plugins import find_weights
from reviewgen.runs.corpus import PreparedCorpus
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.setup import resolve_setup
from reviewgen.training.evaluator import SAMPLE_TOKENS

_MIN_TOKENS = 2_000  # minimum number of tokens of the chosen texts, even if the model is slow
# time for scoring the wanted number of texts, even if the time budget is short
_TEXT_SECONDS = 4.0
_TEXTS = 100  # texts per call of the generator
# To measure how well training texts can be told from held-out ones by their bits, this number of
# each is scored.
_MEMBERS = 100
_MIN_MEMBERS = 50  # with fewer texts of a kind, this is not measured
_MAX_TEXTS = 2_000  # maximum number of generated texts
# characters to generate with a model trained by counting; an n-gram model does so in 0.1 s
_COUNTED_CHARACTERS = 100_000

# When are the shipped weights of a preset, trained further, better than a training from scratch?
# Measured: bits per character of held-out text after the same time on one core, for lstm-word from
# the shipped weights / from scratch, by the number of passes of the training from scratch over its
# texts. (The value for 12.6 passes is older: the vocabulary did not depend on the corpus size yet.)
#     music captions    12.6 passes: 0.866 / 0.935    7.6: 0.961 / 0.918    2.7: 0.928 / 0.762
#     music blogs        8.0 passes: 1.946 / 2.258    2.1: 2.143 / 2.127
# So the shipped weights are suggested to a run that makes at least this many passes.
_MIN_PASSES = 10.0
# They are suggested only if they take fewer bits per character than this before any training. They
# take 1.9 and 2.6 on the two corpora above, and more on texts in another language.
_MAX_BITS = 3.0
# They are measured only after a run of this length, since the measurement takes up to half a second
_MIN_SECONDS = 30.0
# For each second of the run, they are measured on this many characters. On one slow core, this
# takes a hundredth of the time of the run.
_CHARACTERS_PER_SECOND = 100
_MAX_CHARACTERS = 6_000  # maximum number of these characters


def evaluate(
    model: LanguageModel,
    documents: Sequence[Document],
    vocab_size: int,
    device: str = "cpu",
) -> Evaluation | None:
    """Return the evaluation of a model on held-out texts; None if its scores are not a probability
    distribution.
    """
    with suppress(NotADistribution):
        return evaluate_documents(model, documents, vocab_size, device)
    return None


def choose_documents(
    model: LanguageModel,
    corpus: PreparedCorpus,
    split: str,
    tokens: int,
    seconds: float | None,
    texts: int = 1,
) -> list[Document]:
    """Return evenly spaced texts of a split to score a model on.

    Args:
        model: The model.
        corpus: The corpus.
        split: The name of the split.
        tokens: The number of tokens of the texts in all, approximately.
        seconds: If given, there are only as many texts as the model can score in this time.
        texts: In spite of ``seconds``, there are at least this many texts, if the model can score
            them in ``_TEXT_SECONDS`` and they do not exceed ``tokens``.
    """
    documents = sample_documents(corpus.stores[split], tokens)
    with suppress(NotADistribution):
        if seconds is not None:
            speed = measure_rate(model, documents, corpus.tokenizer.vocab_size)  # tokens per second
            mean_tokens = sum(len(ids) for ids, _ in documents) / len(documents)
            min_count = min(texts, speed * _TEXT_SECONDS / mean_tokens)
            count = max(_MIN_TOKENS / mean_tokens, speed * seconds / mean_tokens, min_count)
            return spread_documents(documents, max(1, round(min(count, len(documents)))))
    return documents


def measure_texts(
    model: LanguageModel, corpus: PreparedCorpus, metrics: TextMetrics
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure generated texts and, for comparison, held-out texts of about the same total length.

    Each text has at most ``SAMPLE_TOKENS`` tokens. One pass over the training text gives the copy
    rates of all of them.

    Returns:
        The copy rates in characters, and the metrics, both by name.
    """
    generated = _write_texts(model, corpus)
    characters = sum(map(len, generated))
    store = corpus.stores[corpus.final_split]
    tokenizer = corpus.tokenizer
    # characters of a held-out text that is cut off after SAMPLE_TOKENS tokens
    mean_length = float((store.characters * (SAMPLE_TOKENS / store.lengths).clip(max=1.0)).mean())
    count = min(len(store), max(1, round(characters / max(1.0, mean_length))))
    indices = np.linspace(0, len(store) - 1, count).round().astype(int).tolist()
    documents = [tokens_of(store.document(index), tokenizer.vocab_size) for index in indices]
    held_out = [tokenizer.decode(ids[:SAMPLE_TOKENS].tolist()) for ids in documents]
    texts = [*generated, *held_out]
    training_text = decode_texts(corpus.stores["train"].blocks, tokenizer)
    copied = count_copied(texts, training_text)
    pairs = list(zip(copied, map(len, texts), strict=True))  # (copied characters, characters)
    generated_pairs = pairs[: len(generated)]
    held_out_pairs = pairs[len(generated) :]
    rates = {
        "copy_rate": _share(generated_pairs)[0] if characters else None,
        "copy_rate_interval": find_intervals(_share, generated_pairs)[0] if characters else None,
        "copy_rate_texts": len(generated),
        "copy_rate_characters": characters,
        "held_out_copy_rate": _share(held_out_pairs)[0] if any(held_out) else None,
    }
    with suppress(NotADistribution):
        rates |= _measure_membership(model, corpus)
    return rates, metrics.facts(generated, held_out)


def _measure_membership(model: LanguageModel, corpus: PreparedCorpus) -> dict[str, Any]:
    """Return how well the nats per token of a text tell that it was a training text: the area under
    the curve of training texts against held-out texts. Nothing is returned for few texts.
    """
    stores = corpus.stores["train"], corpus.stores[corpus.final_split]
    count = min(_MEMBERS, *map(len, stores))
    if count < _MIN_MEMBERS:
        return {}
    vocab_size = corpus.tokenizer.vocab_size
    means = []  # for each store, the mean nats per token of each text
    for store in stores:
        indices = spread_indices(len(store), count)
        texts = [store.document(index) for index in indices]
        cut = [ids[: 1 + count_given(ids, vocab_size) + SAMPLE_TOKENS] for ids in texts]
        means.append([float(nats.mean()) for nats in token_losses(model, cut, vocab_size)])
    train_means, held_out_means = means
    # training texts should have fewer nats, so the held-out texts are the positive class
    pairs = list(zip(held_out_means, train_means, strict=True))

    def area(sample: Sequence[tuple[float, float]]) -> list[float]:
        """Return the area for some of the pairs, as a list of one number."""
        return [area_under_curve(*zip(*sample, strict=True))]

    return {
        "membership": area(pairs)[0],
        "membership_interval": find_intervals(area, pairs)[0],
        "membership_texts": count,
    }


def _write_texts(model: LanguageModel, corpus: PreparedCorpus) -> list[str]:
    """Generate texts until they have enough characters for a copy rate. Their number does not
    depend on a clock, so the result is reproducible.
    """
    wanted = _COUNTED_CHARACTERS if isinstance(model, CountTrained) else MIN_CHARACTERS
    config = GenerationConfig(max_new_tokens=SAMPLE_TOKENS)
    texts = list[str]()
    generator = Generator(make_stepper(model), corpus.tokenizer)
    while len(texts) < _MAX_TEXTS and sum(map(len, texts)) < wanted:
        request = Request(
            [""] * _TEXTS,
            config,
            seed=len(texts) // _TEXTS,  # the number of the call, from 0
            prefix=corpus.conditions.unspecified_ids,
        )
        texts += [row.text for row in generator.generate(request)]
    return texts


def _share(pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return the share of copied characters, given each text's (copied characters, characters). It
    is a list of one number, as ``find_intervals`` needs it.
    """
    return [sum(copied for copied, _ in pairs) / max(1, sum(length for _, length in pairs))]


def suggest_trained_weights(
    plan: TrainingPlan, corpus: PreparedCorpus, tokens: int, seconds: float
) -> list[str]:
    """Return advice for the user, as a list of one sentence, if training the shipped weights of the
    preset further should give a better model; else an empty list.

    Args:
        plan: The plan of the finished run.
        corpus: The corpus of the run.
        tokens: The number of training tokens that the run has seen.
        seconds: The duration of the run. The longer it was, the more text the shipped weights are
            measured on.
    """
    passes = tokens / max(1, corpus.stores["train"].count)
    if (
        plan.setup.trained is not None
        or plan.setup.is_counted
        or seconds < _MIN_SECONDS
        or passes < _MIN_PASSES
    ):
        return []
    trained = _find_trainable(plan)
    characters = min(_MAX_CHARACTERS, round(seconds * _CHARACTERS_PER_SECOND))
    bits = math.inf if trained is None else _measure_bits(trained, corpus, characters)
    if bits > _MAX_BITS:
        return []
    return [
        f"This training has read its texts {passes:.0f} times. On such a small corpus, training the"
        f" weights that ship with {plan.preset} further should give a better model in the same"
        f" time: use --from {plan.preset}. They take {bits:.3f} bits per character of these"
        " held-out texts before any training."
    ]


def _find_trainable(plan: TrainingPlan) -> ReviewModel | None:
    """Return the shipped model of a plan's preset, if it could be trained further with the settings
    of the plan, and its texts were cleaned in the same way; else None.
    """
    setup = plan.setup
    try:
        folder = find_weights(plan.preset)
        if folder is None:
            return None
        trained = ReviewModel.from_pretrained(folder)
        own = {
            group: {
                name: value
                for name, value in to_dict(setup.config_of(group)).items()
                if f"{group}.{name}" in setup.own
            }
            for group in ("model", "tokenizer")
        }
        # raises if the shipped model cannot be trained further with these settings
        resolve_setup(trained, **own)
    except ReviewgenError:
        return None
    if plan.data.columns not in ((), trained.conditions.names):
        return None
    # an option that is missing in the record is newer than the weights, and is not compared
    data = trained.training.get("data") or {}
    for name, value in plan.data.cleaning.items():
        if data.get(name, value) != value:
            return None
    return trained


def _measure_bits(trained: ReviewModel, corpus: PreparedCorpus, characters: int) -> float:
    """Return a model's bits per character on evenly spaced held-out texts, which have about
    ``characters`` characters in all.
    """
    store = corpus.stores[corpus.final_split]
    tokenizer = corpus.tokenizer
    tokens = round(characters * store.count / max(1, int(store.characters.sum())))
    documents = [tokens_of(ids, tokenizer.vocab_size) for ids, _ in sample_documents(store, tokens)]
    # a single text may be longer than wanted
    texts = [tokenizer.decode(ids[:tokens].tolist()) for ids in documents]
    with suppress(NotADistribution):
        return trained.evaluate([text for text in texts if text], clean=False).bits_per_character
    return math.inf
