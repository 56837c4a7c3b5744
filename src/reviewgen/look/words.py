"""What a model knows of words and texts: neighbours of a word, words that a condition prefers, the value that fits a text.

Words in similar contexts get similar embeddings (Bengio et al. 2003), so their cosine is high. A word of several tokens has the mean
of their embeddings. The values of a condition are compared by the probabilities that a model gives its next words in the texts that
it writes, and fitted to a text by Bayes' rule: P(value | text) is proportional to P(value) P(text | value).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import nn

from reviewgen.conditions import Condition, is_missing
from reviewgen.config import check_count, check_text
from reviewgen.data import frame_texts, read_texts, trained_on
from reviewgen.errors import ConfigError, DataError, counted, did_you_mean, quoted
from reviewgen.evaluation import token_losses
from reviewgen.generation import flatten_state
from reviewgen.model import ReviewModel
from reviewgen.rates import describe_rate, find_intervals

_TEXTS, _TOKENS = 60, 60  # that a model writes for each value of a condition
_MIN_TIMES = 5.0  # a word is expected in these texts
_CLASSIFIED = 1000  # texts at most, of which the accuracy is measured


@dataclass(frozen=True)
class Neighbour:
    """A word near another one.

    Attributes:
        word: The word.
        cosine: The cosine of the angle between the embeddings of both, from -1 to 1.
    """

    word: str
    cosine: float


@dataclass(frozen=True)
class PreferredWord:
    """A word that texts of one value of a condition have more often than those of the others.

    Attributes:
        value: The value.
        word: The word.
        log_ratio: log2 of its probability among the words of these texts, divided by that among the words of the others.
    """

    value: str
    word: str
    log_ratio: float


@dataclass(frozen=True)
class Classified:
    """The value of a condition that fits a text best.

    Attributes:
        text: The text.
        value: The value.
        probabilities: The probability of each value.
    """

    text: str
    value: str
    probabilities: Mapping[str, float]


def find_embedding(model: ReviewModel) -> Float32[np.ndarray, "V E"]:
    """Return the embedding of each token of a model; of a blend those of its first model that has them.

    Raises:
        ConfigError: The model has none, as one that is trained by counting.
    """
    own = model.bundle.model
    for part in (own, *getattr(own, "parts", ())):
        for module in part.modules() if isinstance(part, nn.Module) else ():
            if isinstance(module, nn.Embedding) and module.num_embeddings == own.config.vocab_size:
                table: np.ndarray = module.weight.detach().float().cpu().numpy()
                return table
    raise ConfigError(f"{model.preset} has no embeddings of tokens: it counts.")


def words_of_one_token(model: ReviewModel) -> dict[str, int]:
    """Return the words that are one token, the most frequent first as a rule; of characters, the characters."""
    pieces, lexicon = model.generator.pieces, model.bundle.lexicon
    if pieces.are_characters:
        return {text: token for token, text in enumerate(pieces.texts) if text.strip()}
    words = {
        text[1:]: token for token, text in enumerate(pieces.texts) if text[:1] == " " and text[1:].isalpha() and len(text) > 2
    }
    return {word: token for word, token in words.items() if lexicon is None or lexicon.spells(word)}


def neighbours(model: ReviewModel, word: str, count: int = 10) -> list[Neighbour]:
    """Return the words whose embeddings are nearest to that of a word, the nearest first.

    Raises:
        ConfigError: The word is empty, or the model has no embeddings.
    """
    check_text("word", word)
    check_count("count", count)
    if not word.strip():
        raise ConfigError("The word is empty.")
    table, known = find_embedding(model), words_of_one_token(model)
    is_character = model.generator.pieces.are_characters
    vector = table[model.tokenizer.encode(word if is_character else f" {word}")].mean(axis=0)
    vectors = table[list(known.values())]
    cosines = vectors @ vector / np.maximum(np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector), 1e-12)
    names = list(known)
    ranked = [Neighbour(names[place], float(cosines[place])) for place in np.argsort(-cosines, kind="stable").tolist()]
    return [each for each in ranked if each.word.casefold() != word.casefold()][:count]


def map_words(model: ReviewModel, count: int = 300) -> tuple[list[str], Float32[np.ndarray, "W 2"]]:
    """Return the most frequent words, and where they stand in a plane: the first two principal components of their embeddings."""
    words = list(words_of_one_token(model).items())[:count]
    vectors = find_embedding(model)[[token for _, token in words]]
    centred = vectors - vectors.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    return [word for word, _ in words], (centred @ axes.T).astype(np.float32)


def contrast(model: ReviewModel, condition: str, count: int = 10, seed: int = 0) -> list[PreferredWord]:
    """Return the words that each value of a condition prefers, the most preferred first.

    Of each value the model writes 60 texts, and the probabilities of all next words along them are added up.

    Raises:
        ConfigError: The model has no such condition, or it is free text.
    """
    own, words = _find_condition(model, condition), words_of_one_token(model)
    tokens, expected = np.array(list(words.values())), []
    for value in own.values:
        texts = model.generate(
            num_return_sequences=_TEXTS,
            max_new_tokens=_TOKENS,
            seed=seed,
            conditions={condition: value.label},
            profile="likeness",
        )
        expected.append(_expected_words(model, texts, model.conditions.encode({condition: value.label}), tokens))
    found: list[PreferredWord] = []
    for place, value in enumerate(own.values):
        others = np.sum([each for number, each in enumerate(expected) if number != place], axis=0)
        here, there = expected[place] / expected[place].sum(), others / others.sum()
        ratios = np.where(expected[place] >= _MIN_TIMES, np.log2(here / np.maximum(there, 1e-12)), -np.inf)
        best = [number for number in np.argsort(-ratios, kind="stable").tolist()[:count] if ratios[number] > 0]
        found += [PreferredWord(value.label, list(words)[number], float(ratios[number])) for number in best]
    return found


@torch.inference_mode()
def _expected_words(
    model: ReviewModel, texts: Sequence[str], prefix: Sequence[int], tokens: np.ndarray
) -> Float64[np.ndarray, " W"]:
    """Return how often each of some tokens is expected in texts after an own prefix."""
    total = np.zeros(len(tokens))
    start = 1 + len(prefix)
    for ids, _ in frame_texts(((text, prefix) for text in texts), model.tokenizer):
        own = torch.from_numpy(np.asarray(ids, np.int64))[None]
        logits, _ = model.bundle.model(own, model.bundle.model.initial_state(1))
        total += logits[0, start - 1 :].double().softmax(-1).sum(0).numpy()[tokens]
    return total


def classify(model: ReviewModel, texts: Sequence[str], condition: str) -> list[Classified]:
    """Return for each text the value of a condition that fits it best, with the probabilities of all values.

    Raises:
        ConfigError: The model has no such condition, or it is free text.
        DataError: A text is empty or not a string.
    """
    own = _find_condition(model, condition)
    for text in texts:
        if not isinstance(text, str) or not text:
            raise DataError(f"A text to classify must be a string of at least one character; got {quoted(text)}.")
    weights, columns = model.bundle.weights, list[np.ndarray]()
    for value in own.values:
        prefix = model.conditions.encode({condition: value.label})
        framed = [ids for ids, _ in frame_texts([(text, prefix) for text in texts], model.tokenizer)]
        losses = token_losses(weights.model_on_device, framed, model.tokenizer.vocab_size, weights.device)
        columns.append(np.array([math.log(max(value.share, 1e-12)) - each.sum(dtype=np.float64) for each in losses]))
    logs = np.stack(columns, axis=1)
    probabilities = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None])
    labels = [value.label for value in own.values]
    return [
        Classified(text, labels[int(row.argmax())], dict(zip(labels, row.tolist(), strict=True)))
        for text, row in zip(texts, probabilities, strict=True)
    ]


@dataclass(frozen=True)
class Accuracy:
    """How often the value of a condition that fits a text best is its own.

    Attributes:
        condition: The condition.
        accuracy: The share of the texts.
        interval: Its 95 % interval, low and high; None of fewer than ten texts.
        most_frequent: The share of the most frequent value, which a guess without reading reaches.
        texts: The number of texts.
    """

    condition: str
    accuracy: float
    interval: Sequence[float] | None
    most_frequent: float
    texts: int

    def describe(self) -> str:
        """Return a line for the user."""
        rate = describe_rate(self.accuracy, self.interval)
        return (
            f"{self.condition}: {rate} of {counted(self.texts, 'text')} right; the most frequent value {self.most_frequent:.1%}"
        )


def measure_accuracy(model: ReviewModel, source: Any, condition: str, **options: Any) -> Accuracy:
    """Return how often ``classify`` finds the value that stands beside a text, of at most the first 1,000 texts with one.

    Args:
        model: The model.
        source: Texts with a column of the condition's name; see ``ReviewModel.evaluate``.
        condition: The condition.
        options: How the texts are read; see ``ReviewModel.evaluate``.

    Raises:
        ConfigError: The model has no such condition, or it is free text.
        DataError: The source cannot be read, or no text has a known value.
    """
    own, place = _find_condition(model, condition), model.conditions.names.index(condition)
    read = read_texts(source, trained_on(model.training), conditions=model.conditions, **options)
    found = ((text, own.find(values[place])) for text, values in read if text and not is_missing(values[place]))
    pairs = list(islice(((text, number) for text, number in found if number is not None), _CLASSIFIED))
    if not pairs:
        raise DataError(f"No text has a known value of {quoted(condition)}.")
    labels = [own.values[number].label for _, number in pairs]
    classified = classify(model, [text for text, _ in pairs], condition)
    right = [float(each.value == label) for each, label in zip(classified, labels, strict=True)]
    (interval,) = find_intervals(lambda some: [fmean(some)], right)
    frequent = Counter(labels).most_common(1)[0][1] / len(labels)
    return Accuracy(condition, fmean(right), interval, frequent, len(right))


@torch.inference_mode()
def embed(model: ReviewModel, texts: Sequence[str]) -> Float32[np.ndarray, "N H"]:
    """Return a vector of each text: the mean of the states that a network goes through while it reads the text.

    Raises:
        ConfigError: The model has no state of numbers, as one that is trained by counting.
        DataError: A text is not a string.
    """
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise DataError(f"A text must be a string; got {quoted(wrong[0])}.")
    own, prefix, vectors = model.bundle.model, model.conditions.unspecified_ids, list[np.ndarray]()
    if not any(part.is_floating_point() and part.numel() for part in flatten_state(own.initial_state(1))):
        raise ConfigError(f"{model.preset} keeps no state of numbers while it reads, so it has no vectors of texts.")
    for ids, _ in frame_texts([(text, prefix) for text in texts], model.tokenizer):
        state, sums = own.initial_state(1), list[np.ndarray]()
        for token in ids[:-1].tolist():
            _, state = own(torch.tensor([[token]]), state)
            parts = [part.float().flatten().numpy() for part in flatten_state(state) if part.is_floating_point()]
            sums.append(np.concatenate(parts))
        vectors.append(np.mean(sums, axis=0, dtype=np.float32))
    return np.stack(vectors)


def _find_condition(model: ReviewModel, name: str) -> Condition:
    check_text("condition", name)
    own: Any = {condition.name: condition for condition in model.conditions.fixed}
    if name not in own:
        known = did_you_mean(name, list(own)) if own else "It has none of categories or numbers."
        raise ConfigError(f"{quoted(name)} is not a condition of {model.preset} with known values. {known}")
    found: Condition = own[name]
    if len(found.values) < 2:
        raise ConfigError(f"The condition {quoted(name)} has a single value, so there is nothing to compare.")
    return found
