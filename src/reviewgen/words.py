"""What a model has learned about words, texts and the values of its conditions.

Words in similar contexts get similar embeddings (Bengio et al. 2003), so the cosine of their
embeddings is high. The embedding of a word of several tokens is the mean of the tokens' embeddings.
The value of a condition that fits a text best is found by Bayes' rule: P(value | text) is
proportional to P(value) P(text | value).

Shapes by letter: V size of the vocabulary, E size of an embedding, W words, N texts, B texts of a
batch, T tokens of a text, H size of a hidden state.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress, islice
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from reviewgen.conditions import Condition
from reviewgen.config.generation import GenerationConfig
from reviewgen.config.settings import check_count, check_list, check_text
from reviewgen.data.texts import read_texts
from reviewgen.data.tokens import frame_texts
from reviewgen.errors import ConfigError, DataError, counted, did_you_mean, quoted
from reviewgen.evaluation.scoring import token_losses
from reviewgen.generation.pieces import TokenTexts
from reviewgen.generation.states import map_state
from reviewgen.protocols.model import flatten_state
from reviewgen.rates import describe_rate, find_intervals
from reviewgen.saving.layout import Bundle
from reviewgen.web.charts import draw_words
from reviewgen.web.rendering import refuse_file, save_text

# settings of the texts that the model generates for ``contrast``
_CONTRAST_TEXTS = GenerationConfig(temperature=1.0, max_new_tokens=40, num_return_sequences=60)
_MIN_SHARE = 2e-4  # min share of all tokens that a preferred word is expected to have
_MIN_LOG_RATIO = 0.05  # min log ratio of a preferred word; a smaller one would be shown as +0.0
_MAX_CLASSIFIED = 1000  # max number of texts that the accuracy is measured on
_ROWS = 32  # max batch size: the number of texts, or words, that a model reads at once
# a token that begins with an apostrophe continues a word, like one that begins with a letter
_APOSTROPHES = ("'", "’")


@dataclass(frozen=True)
class Neighbour:
    """A word near another word.

    Attributes:
        word: The word.
        cosine: The cosine of the angle between the embeddings of the two words, from -1 to 1.
    """

    word: str
    cosine: float


@dataclass(frozen=True)
class WordMap:
    """The most frequent words in a plane. The axes are the first two principal components of the
    words' embeddings. A notebook shows the map.

    Attributes:
        words: The words.
        points: The coordinates of each word.
    """

    words: Sequence[str]
    points: Float32[np.ndarray, "W 2"]

    def to_svg(self) -> str:
        """Return the map as SVG; words that would overlap are moved apart."""
        title = f"The {counted(len(self.words), 'most frequent word')}"
        return draw_words(
            self.words,
            self.points.tolist(),
            title,
            "Words near each other have similar embeddings.",
        )

    def save(self, file: str | Path, *, overwrite: bool = False) -> None:
        """Save the map as a .svg file.

        Raises:
            ConfigError: The file is not a path, or its suffix is not .svg.
            OutputExists: The file exists, and ``overwrite`` is false.
            StorageError: The file cannot be written.
        """
        save_text(self.to_svg(), refuse_file(file, [".svg"], overwrite))

    def _repr_html_(self) -> str:
        return self.to_svg()


@dataclass(frozen=True)
class PreferredWord:
    """A word that is more probable with one value of a condition than with the others.

    Attributes:
        word: The word.
        log_ratio: log2(p / q), where p is the probability of the word with that value, and q is the
            mean of its probabilities with the other values.
    """

    word: str
    log_ratio: float


@dataclass(frozen=True)
class Classification:
    """The value of a condition that fits a text best.

    Attributes:
        value: The value.
        probabilities: The probability of each value, given the text.
    """

    value: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Accuracy:
    """How often a model finds the value of a condition that a text has.

    Attributes:
        condition: The condition.
        accuracy: The share of texts whose value is found.
        interval: The low and high end of the 95 % interval of ``accuracy``; None for fewer than ten
            texts.
        baseline: The share of the most frequent value. It is the accuracy of always answering this
            value.
        texts: The number of texts.
    """

    condition: str
    accuracy: float
    interval: Sequence[float] | None
    baseline: float
    texts: int

    def describe(self) -> str:
        """Return a line on the accuracy for the user."""
        rate = describe_rate(self.accuracy, self.interval)
        return (
            f"{self.condition}: accuracy {rate} on {counted(self.texts, 'text')}; always the most"
            f" frequent: {describe_rate(self.baseline)}"
        )


def find_neighbours(bundle: Bundle, pieces: TokenTexts, word: str, count: int) -> list[Neighbour]:
    """Return the words whose embeddings are nearest to the embedding of a word; see
    ``ReviewModel.neighbours``.
    """
    check_text("word", word)
    check_count("k", count)
    word = word.strip()
    ids = bundle.tokenizer.encode(word if pieces.are_characters else f" {word}")
    if not word or not ids:
        raise ConfigError("The word is empty, or none of its characters is known.")
    table = _embeddings(bundle)
    words = _single_token_words(bundle, pieces)
    vector = table[ids].mean(axis=0)
    vectors = table[list(words)]  # (W, E)
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    cosines = vectors @ vector / np.maximum(norms, 1e-12)
    cosine_of = dict(zip(words, cosines.tolist(), strict=True))
    nearest_first = sorted(words, key=lambda token: -cosine_of[token])
    others = (token for token in nearest_first if words[token].casefold() != word.casefold())
    nearest = islice(_whole_words(bundle, pieces, others), count)
    return [Neighbour(words[token], cosine_of[token]) for token in nearest]


def map_words(bundle: Bundle, pieces: TokenTexts, count: int) -> WordMap:
    """Return the map of the most frequent words; see ``ReviewModel.word_map``."""
    check_count("words", count)
    table = _embeddings(bundle)
    words = _single_token_words(bundle, pieces)
    tokens = list(islice(_whole_words(bundle, pieces, iter(words)), count))
    if len(tokens) < 2:
        raise ConfigError(f"A map needs at least two words of one token; got {len(tokens)}.")
    centred = table[tokens] - table[tokens].mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False).Vh[:2]
    points = np.zeros((len(tokens), 2), np.float32)
    # if E is 1, there is one axis, and the second coordinate stays zero
    points[:, : len(axes)] = centred @ axes.T
    return WordMap([words[token] for token in tokens], points)


def _networks(bundle: Bundle) -> Iterator[nn.Module]:
    """Yield the networks that read the token ids of a model: the model itself, or the components of
    a blend.
    """
    model = bundle.weights.model_on_device
    for network in (model, *getattr(model, "components", ())):
        if isinstance(network, nn.Module):
            yield network


def _embeddings(bundle: Bundle) -> Float32[np.ndarray, "V E"]:
    """Return the embedding of each token. For a blend, return those of its first model that has
    embeddings.

    Raises:
        ConfigError: The model has no embeddings of its tokens.
    """
    size = bundle.tokenizer.vocab_size
    for network in _networks(bundle):
        for module in network.modules():
            if isinstance(module, nn.Embedding) and module.num_embeddings >= size:
                table: np.ndarray = module.weight[:size].detach().float().cpu().numpy()
                return table
    raise ConfigError(
        f"{bundle.preset} has no embeddings of its tokens; networks such as rnn, gru, lstm and nnlm"
        " have them."
    )


def _single_token_words(bundle: Bundle, pieces: TokenTexts) -> dict[int, str]:
    """Return the words that are a single token, by token id, in the order of the vocabulary:
    frequent words come first. If tokens are characters, return all visible characters.

    Raises:
        ConfigError: No token is a word.
    """
    if pieces.are_characters:
        return {token: text for token, text in enumerate(pieces.texts) if text.strip()}
    lexicon = bundle.lexicon
    words = dict[int, str]()
    for token, text in enumerate(pieces.texts):
        is_word = text.startswith(" ") and len(text) > 2 and text[1:].isalpha()
        if is_word and (lexicon is None or lexicon.spells(text[1:])):
            words[token] = text[1:]
    if not words:
        raise ConfigError(
            f"The tokenizer of {bundle.preset} has no tokens that are words with a space before"
            " them."
        )
    return words


@torch.no_grad()  # not inference_mode: the model may be built here, and its weights stay trainable
def _whole_words(bundle: Bundle, pieces: TokenTexts, tokens: Iterator[int]) -> Iterator[int]:
    """Yield the ``tokens`` that are whole words. In a vocabulary of subwords, a token such as
    " th" may be the beginning of "thrill" more often than a word.

    A token is a whole word if the model gives a probability below one half to a letter or an
    apostrophe after it, where the token is the first of a text.
    """
    if pieces.are_characters:
        yield from tokens
        return
    model = bundle.weights.model_on_device
    device = bundle.weights.device
    continuations = [
        token
        for token, text in enumerate(pieces.texts)
        if text[:1].isalpha() or text[:1] in _APOSTROPHES
    ]
    prefix = [bundle.tokenizer.bos_id, *bundle.conditions.unspecified_ids]
    _, start = model(torch.tensor([prefix], device=device), model.initial_state(1))
    while batch := list(islice(tokens, _ROWS)):
        # each token of the batch is read in a row of its own, after the same prefix
        state = map_state(partial(torch.repeat_interleave, repeats=len(batch), dim=0), start)
        logits, _ = model(torch.tensor(batch, device=device)[:, None], state)
        probabilities = logits[:, -1].softmax(-1)[:, continuations].sum(-1)
        for token, probability in zip(batch, probabilities.tolist(), strict=True):
            if probability < 0.5:
                yield token


def _find_condition(bundle: Bundle, name: str) -> Condition:
    """Find a condition of categories or numbers by its name.

    Raises:
        ConfigError: The model has no such condition, it is free text, or it has a single value.
    """
    check_text("condition", name)
    by_name = {condition.name: condition for condition in bundle.conditions.fixed}
    if name not in by_name:
        hint = did_you_mean(name, list(by_name)) if by_name else "It has none."
        raise ConfigError(
            f"{quoted(name)} is not a condition of {bundle.preset} with categories or numbers."
            f" {hint}"
        )
    if len(by_name[name].values) < 2:
        raise ConfigError(
            f"The condition {quoted(name)} has a single value, so there is nothing to compare."
        )
    return by_name[name]


def contrast_words(
    bundle: Bundle,
    pieces: TokenTexts,
    condition_name: str,
    count: int,
    generate: Callable[[GenerationConfig], list[str]],
) -> dict[str, list[PreferredWord]]:
    """Return for each value of a condition up to ``count`` words that are more probable with it
    than with the other values, in texts that ``generate`` writes; see ``ReviewModel.contrast``.
    """
    check_count("k", count)
    condition = _find_condition(bundle, condition_name)
    if pieces.are_characters:
        raise ConfigError(
            f"contrast compares words, and the tokens of {bundle.preset} are characters."
        )
    words = _single_token_words(bundle, pieces)
    tokens = list(words)
    texts = generate(_CONTRAST_TEXTS)
    by_value = [
        _expected_counts(bundle, texts, {condition_name: value.label}) for value in condition.values
    ]
    expected: Any = np.stack(by_value, axis=1)[:, :, tokens]  # (N, values, W)
    preferred = dict[str, list[PreferredWord]]()
    for index, value in enumerate(condition.values):
        measure = partial(_log_ratios, index=index)
        ratios = measure(expected)  # (W,)
        # the counts are scaled: a word with the share _MIN_SHARE has the count 1
        is_frequent = expected[:, index].sum(axis=0) >= 1
        is_candidate = is_frequent & (ratios >= _MIN_LOG_RATIO)
        highest_first = np.argsort(-ratios, kind="stable")
        candidates = highest_first[is_candidate[highest_first]]  # columns of ``expected``
        intervals = find_intervals(measure, expected[:, :, candidates], [False] * len(candidates))
        # the tokens whose log ratio is above zero by more than chance
        ratio_of = {
            tokens[column]: float(ratios[column])
            for column, interval in zip(candidates, intervals, strict=True)
            if interval and interval[0] > 0
        }
        chosen = islice(_whole_words(bundle, pieces, iter(ratio_of)), count)
        preferred[value.label] = [PreferredWord(words[token], ratio_of[token]) for token in chosen]
    return preferred


def _log_ratios(expected: Any, index: int) -> Any:
    """Return for each word log2(p / q), where p is its expected count with one value of a
    condition, and q is the mean of its expected counts with the other values.

    Args:
        expected: The expected count of each word in each text with each value, (N, values, W).
        index: The index of the value.
    """
    total = np.sum(expected, axis=0)  # (values, W)
    other_mean = np.delete(total, index, axis=0).mean(axis=0)
    return np.log2(np.maximum(total[index], 1e-30) / np.maximum(other_mean, 1e-30))


@torch.no_grad()
def _expected_counts(
    bundle: Bundle, texts: Sequence[str], values: Mapping[str, str]
) -> Float64[np.ndarray, "N V"]:
    """Return the expected count of each token in each text, given values of conditions: the sum of
    its probabilities at all positions. The counts are scaled so that a token with the share
    ``_MIN_SHARE`` has the count 1 in all texts together.
    """
    counts = list[np.ndarray]()
    predictions = 0
    model = bundle.weights.model_on_device
    for ids, lengths, start in _batches(bundle, texts, bundle.conditions.encode(values)):
        logits, _ = model(ids, model.initial_state(len(ids)))
        for row, length in zip(logits, lengths, strict=True):
            # the logits at a position are those of the next token
            probabilities = row[start - 1 : length - 1].float().softmax(-1)
            counts.append(probabilities.sum(0).double().cpu().numpy())
            predictions += length - start
    return np.stack(counts)[:, : bundle.tokenizer.vocab_size] / (predictions * _MIN_SHARE)


def _batches(
    bundle: Bundle, texts: Sequence[str], prefix: Sequence[int]
) -> Iterator[tuple[Tensor, list[int], int]]:
    """Yield batches of texts: the ids (B, T), padded with zeros; the length of each row; and the
    position at which the texts begin, after bos and ``prefix``.
    """
    framed = frame_texts([(text, prefix) for text in texts], bundle.tokenizer)
    rows = (torch.from_numpy(ids) for ids, _ in framed)
    while batch := list(islice(rows, _ROWS)):
        ids = pad_sequence(batch, batch_first=True).to(bundle.weights.device)
        yield ids, list(map(len, batch)), 1 + len(prefix)


def classify_texts(
    bundle: Bundle, texts: str | Sequence[str], condition_name: str
) -> list[Classification]:
    """Return for each text the value of a condition that fits it best; see
    ``ReviewModel.classify``.
    """
    condition = _find_condition(bundle, condition_name)
    weights = bundle.weights
    tokenizer = bundle.tokenizer
    texts = _check_texts(texts)
    labels = [value.label for value in condition.values]
    columns = list[np.ndarray]()
    for label in labels:
        prefix = bundle.conditions.encode({condition_name: label})
        rows = [ids for ids, _ in frame_texts([(text, prefix) for text in texts], tokenizer)]
        losses = token_losses(weights.model_on_device, rows, tokenizer.vocab_size, weights.device)
        columns.append(np.array([-nats.sum(dtype=np.float64) for nats in losses]))
    log_likelihoods = np.stack(columns, axis=1)  # log P(text | value), (N, values)
    # a text that is impossible with every value says nothing about the value
    log_likelihoods[~np.isfinite(log_likelihoods).any(axis=1)] = 0.0
    # Bayes' rule: P(value | text) is the joint probability divided by its sum over the values
    log_joint = log_likelihoods + np.log([max(value.share, 1e-12) for value in condition.values])
    posteriors = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1)[:, None])
    return [
        Classification(labels[int(row.argmax())], dict(zip(labels, row.tolist(), strict=True)))
        for row in posteriors
    ]


def measure_accuracy(bundle: Bundle, source: Any, condition_name: str, **options: Any) -> Accuracy:
    """Measure how often ``classify_texts`` finds the value that a text has; see
    ``ReviewModel.accuracy``.
    """
    condition = _find_condition(bundle, condition_name)
    column = bundle.conditions.names.index(condition_name)
    draw = random.Random(0)
    chosen = list[tuple[str, str]]()  # texts with their labels
    read_count = 0
    for text, values in read_texts(source, bundle, **options):
        index = condition.find(values[column])
        if not text or index is None:
            continue
        # reservoir sampling (Vitter 1985, algorithm R): each text is equally likely to be chosen;
        # the first texts are appended, and a later one replaces a chosen text
        slot = read_count if read_count < _MAX_CLASSIFIED else draw.randrange(read_count + 1)
        read_count += 1
        if slot < _MAX_CLASSIFIED:
            chosen[slot : slot + 1] = [(text, condition.values[index].label)]
    if not chosen:
        raise DataError(f"No text has a known value of {quoted(condition_name)}.")
    texts, labels = zip(*chosen, strict=True)
    classified = classify_texts(bundle, texts, condition_name)
    right = [float(result.value == label) for result, label in zip(classified, labels, strict=True)]
    (interval,) = find_intervals(lambda scores: [fmean(scores)], right)
    baseline = Counter(labels).most_common(1)[0][1] / len(labels)
    return Accuracy(condition_name, fmean(right), interval, baseline, len(right))


@torch.no_grad()
def embed_texts(bundle: Bundle, texts: str | Sequence[str]) -> Float32[np.ndarray, "N H"]:
    """Return a vector for each text; see ``ReviewModel.embed``."""
    texts = _check_texts(texts)
    prefix = bundle.conditions.unspecified_ids
    for network in _networks(bundle):
        is_changing = _find_changing(network, bundle, prefix)
        if any(is_changing):
            batches = _batches(bundle, texts, prefix)
            vectors = [_mean_states(network, is_changing, *batch) for batch in batches]
            return np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)
    raise ConfigError(
        f"{bundle.preset} has no hidden state that changes with the text; networks such as rnn, gru"
        " and lstm have one."
    )


def _find_changing(network: Any, bundle: Bundle, prefix: Sequence[int]) -> list[bool]:
    """Return for each tensor of a network's state whether it is a hidden state that changes with
    the text. The ids of a window, and tensors that depend only on the conditions, are not.
    """
    # compare the state before and after a token, here eos
    tokenizer = bundle.tokenizer
    framed = [tokenizer.bos_id, *prefix, tokenizer.eos_id]
    ids = torch.tensor([framed], device=bundle.weights.device)
    _, before = network(ids[:, :-1], network.initial_state(1))
    _, after = network(ids[:, -1:], before)
    pairs = zip(flatten_state(before), flatten_state(after), strict=True)
    return [old.is_floating_point() and not torch.equal(old, new) for old, new in pairs]


def _mean_states(
    network: Any, is_changing: Sequence[bool], ids: Tensor, lengths: Sequence[int], start: int
) -> Float32[np.ndarray, "B H"]:
    """Return for each text the mean of the hidden states that a network has after the tokens of the
    text.

    Args:
        network: The network.
        is_changing: As ``_find_changing`` returns it.
        ids, lengths, start: A batch, as ``_batches`` yields it.
    """
    _, state = network(ids[:, :start], network.initial_state(len(ids)))
    sums = torch.zeros(len(ids), 1, device=ids.device)  # becomes (B, H) with the first token
    ends = torch.tensor(lengths, device=ids.device)[:, None] - 1  # the positions of eos, (B, 1)
    for time in range(start, max(lengths) - 1):
        _, state = network(ids[:, time : time + 1], state)
        # all changing tensors of the state side by side, (B, H)
        changing = compress(flatten_state(state), is_changing)
        hidden = torch.cat([tensor.float().flatten(1) for tensor in changing], dim=1)
        sums = sums + torch.where(time < ends, hidden, 0.0)
    return (sums / (ends - start).clamp(min=1)).cpu().numpy()


def _check_texts(texts: Any) -> list[str]:
    """Check the texts of a user, and return them as a list."""
    if isinstance(texts, str):
        texts = [texts]
    listed = check_list("texts", texts, '["A wonderful film."]')
    for text in listed:
        if not isinstance(text, str) or not text:
            raise DataError(
                f"A text must be a string of at least one character; got {quoted(text)}."
            )
    return listed
