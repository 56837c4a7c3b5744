"""The held-out texts: the same for all models, read once and cleaned alike, so that their differences are those of the models."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from reviewgen.config import from_dict
from reviewgen.data import DataConfig, Texts, cached_corpus, frame_texts, read_examples, trained_on
from reviewgen.errors import DataError
from reviewgen.evaluation.losses import batches, token_losses
from reviewgen.model import ReviewModel
from reviewgen.novelty import COPY_CHARACTERS

_CHARACTERS = 150_000  # that each model is evaluated on, at most, where trainings have no time budget
_PER_SECOND = 2500  # characters, by the time budget: an LSTM takes about a tenth of it to score them
_MIN_CHARACTERS, _MAX_CHARACTERS = 20_000, 400_000
_MAX_TEXTS = 2000
_SURE_CHARACTERS = 200  # of a text that a compact index, which gives upper bounds, does not find by chance
_LOOKED_UP = 200  # texts that are looked up in a model's training text
_READ = 200_000  # texts of a separate source, at most

Example = tuple[str, Sequence[Any]]


@dataclass(frozen=True)
class HeldOut:
    """The texts that all models are evaluated on.

    Attributes:
        texts: The texts.
        values: The values of the conditions beside each text, by name.
        total: The number of texts that these were chosen from, evenly spread.
        split: Which part of the data they are: "test", "validation", or "all" of a separate source.
        source: The name of the source.
        corpus: The fingerprint of the corpus that they are a part of; None for a separate source.
    """

    texts: Sequence[str]
    values: Sequence[Mapping[str, Any]]
    total: int
    split: str
    source: str
    corpus: str | None

    @property
    def characters(self) -> Int64[np.ndarray, " N"]:
        """The number of characters of each text."""
        return np.array([len(text) for text in self.texts], np.int64)

    @property
    def digest(self) -> str:
        """A hash of the texts."""
        return hashlib.blake2b("\0".join(self.texts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True)
class TextBits:
    """A model's bits of each held-out text, end tokens included."""

    bits: Float64[np.ndarray, " N"]
    tokens: int
    zero_probability_tokens: int


def read_held_out(
    data: Any, separate: Any, split: str | None, options: Mapping[str, Any], budget: float | None = None
) -> HeldOut:
    """Read the held-out texts: the test split of the data, or its validation split if that is empty; or a separate source.

    Args:
        data: The source that presets are trained on.
        separate: A source of held-out texts only; None takes those of the data.
        split: The split of a dataset with the held-out texts, of ``separate`` or of the data.
        options: The settings of ``DataConfig`` that the user has given.
        budget: The time budget of each training in seconds, which limits the texts; None for trainings without one.

    Raises:
        DataError: A source cannot be read, or there is no held-out text.
    """
    names = {"split": "dataset_split"}
    config = from_dict(DataConfig, {names.get(name, name): each for name, each in options.items() if each is not None})
    limit = _CHARACTERS if budget is None else round(min(max(_MIN_CHARACTERS, _PER_SECOND * budget), _MAX_CHARACTERS))
    if separate is not None or split is not None:
        separate = data if separate is None else separate
        read = read_examples(separate, replace(config, dataset_split=split))
        return _choose(islice(read, _READ), "all", _name(separate), None, config.conditions, limit)
    corpus = cached_corpus(Texts(data, config, allow_missing=True))
    part = "test" if corpus.count("test") else "validation"
    return _choose(corpus.examples(part), part, corpus.source.name, corpus.fingerprint, config.conditions, limit)


def _choose(
    examples: Iterable[Example], split: str, source: str, corpus: str | None, conditions: Sequence[str], limit: int
) -> HeldOut:
    """Return some of the texts, evenly spread, with about ``limit`` characters at most."""
    known = [(text, values) for text, values in examples if text]
    if not known:
        raise DataError(
            f"There are no held-out texts in {source}: its {split} part has no text. Give more texts, or held-out ones."
        )
    mean = sum(len(text) for text, _ in known) / len(known)
    count = max(1, min(len(known), _MAX_TEXTS, math.ceil(limit / mean)))
    chosen = [known[(2 * number + 1) * len(known) // (2 * count)] for number in range(count)]
    values = [dict(zip(conditions, each, strict=True)) for _, each in chosen]
    return HeldOut([text for text, _ in chosen], values, len(known), split, source, corpus)


def _name(source: Any) -> str:
    return str(source) if not isinstance(source, list | tuple) else f"{len(source):,} given texts"


def measure_bits(model: ReviewModel, held_out: HeldOut) -> TextBits:
    """Return a model's bits of each text, in the order of the texts.

    Raises:
        NotADistribution: The model's scores do not sum to one.
    """
    conditions, tokenizer = model.conditions, model.tokenizer
    prefixes = [conditions.encode_values([values.get(name) for name in conditions.names]) for values in held_out.values]
    documents = frame_texts(zip(held_out.texts, prefixes, strict=True), tokenizer)
    bits, tokens, zeros = [], 0, 0
    for batch in batches(documents):
        ids = [each for each, _ in batch]
        for losses in token_losses(model.bundle.model, ids, tokenizer.vocab_size, given=len(conditions)):
            bits.append(float(losses.sum(dtype=np.float64)) / math.log(2))
            tokens, zeros = tokens + losses.size, zeros + int(np.isinf(losses).sum())
    return TextBits(np.array(bits), tokens, zeros)


def is_same_corpus(model: ReviewModel, held_out: HeldOut) -> bool:
    """Return whether all trainings of a model had the corpus of the held-out texts, with the same split of it."""
    fingerprints = {data.get("fingerprint") for data in trained_on(model.training)}
    return held_out.corpus is not None and fingerprints == {held_out.corpus}


def find_seen(model: ReviewModel, held_out: HeldOut, training: Iterable[str] | None = None) -> float | None:
    """Return which share of the held-out texts stands in a model's training text as a whole.

    Texts of fewer than 50 characters are left out, since people repeat those; for a compact index, those of fewer than 200.
    None if the model has no index of its training text, or all texts are that short.

    Args:
        model: The model.
        held_out: The texts.
        training: The training text, if that is at hand; then no index is needed, and if all texts are short, none is left out.
    """
    if training is not None:
        texts = [text for text in held_out.texts if len(text) >= COPY_CHARACTERS] or held_out.texts
        known = set(texts).intersection(training)
        return sum(text in known for text in texts) / len(texts)
    index = model.bundle.index
    shortest = COPY_CHARACTERS if index is not None and index.form == "exact" else _SURE_CHARACTERS
    texts = [text for text in held_out.texts if len(text) >= shortest]
    if index is None or not texts:
        return None
    chosen = texts[:: math.ceil(len(texts) / _LOOKED_UP)]
    reports = [model.novelty(text) for text in chosen]
    return sum(report.longest_tokens >= report.tokens for report in reports) / len(reports)
