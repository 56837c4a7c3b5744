"""What models are compared on, and what is measured of each: held-out texts, bits of each text with intervals, samples and words.

The held-out texts are the same for all models, read once and cleaned alike. All models generate with the same settings, plain
sampling from the whole distribution, instead of the defaults that were saved with each: it is the models that are compared.
Texts have about the same length in characters, whatever a token is.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from reviewgen.config import GenerationConfig
from reviewgen.data import Corpus, DataConfig, Texts, cached_corpus, frame_texts, read_examples, trained_on
from reviewgen.errors import DataError, NotADistribution, ReviewgenError, counted
from reviewgen.evaluation import batches, measure_texts, take_words, token_losses
from reviewgen.look.picture import draw
from reviewgen.look.results import CurvePoint, Interval, Pair, Row, Sample
from reviewgen.look.trace import count_parameters
from reviewgen.model import ReviewModel
from reviewgen.novelty import COPY_CHARACTERS, TextWindows
from reviewgen.protocols import CountTrained
from reviewgen.rates import find_intervals
from reviewgen.storage import temporary_folder

TEMPERATURES = (0.5, 0.8, 1.2)
_LENGTH, _TEXTS, _MAX_TEXTS = 300, 32, 640  # characters of a generated text, about; texts of a batch, and at most
_CHARACTERS = 30_000  # of generated text, at least
_WORDS = 4500  # that distinct n-grams are counted on: their share falls as the text grows
_MAX_SECONDS = 10.0  # of a batch of texts, for a model that is very slow
_SURE_CHARACTERS = 200  # of a text that a compact index, which gives upper bounds, does not find by chance
_LOOKED_UP = 200  # texts that are looked up in a model's training text
_INDEX = "novelty.safetensors"
_HELD_OUT_CHARACTERS = 150_000  # that each model is evaluated on, at most, where trainings have no time budget
_PER_SECOND = 2500  # characters, by the time budget: an LSTM takes about a tenth of it to score them
_MIN_CHARACTERS, _MAX_CHARACTERS = 20_000, 400_000
_MAX_HELD_OUT = 2000  # texts
_READ = 200_000  # texts of a separate source, at most
_RESAMPLES = 4000
_LEVEL = (2.5, 97.5)  # percentiles

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


class TextBits(NamedTuple):
    """A model's bits of each held-out text, end tokens included; the number of tokens, and of those with probability zero."""

    bits: Float64[np.ndarray, " N"]
    tokens: int
    zero_probability_tokens: int


class Reading(NamedTuple):
    """How the data is read: the source that presets are trained on, a separate one or a split with the held-out texts."""

    data: Any
    held_out: Any
    held_out_split: str | None
    config: DataConfig
    budget: float | None

    def corpus(self) -> Corpus:
        """Return the corpus that presets are trained on, from the cache once it was read."""
        return cached_corpus(Texts(self.data, self.config, allow_missing=True))

    def training_texts(self) -> Iterator[str]:
        """Yield the texts that presets are trained on."""
        return (text for text, _ in self.corpus().examples("train"))

    def read_held_out(self) -> HeldOut:
        """Read the held-out texts: the test split of the data, or its validation split if that is empty; or a separate source.

        Raises:
            DataError: A source cannot be read, or there is no held-out text.
        """
        limit = _HELD_OUT_CHARACTERS
        if self.budget is not None:
            limit = round(min(max(_MIN_CHARACTERS, _PER_SECOND * self.budget), _MAX_CHARACTERS))
        if self.held_out is not None or self.held_out_split is not None:
            separate = self.data if self.held_out is None else self.held_out
            read = read_examples(separate, replace(self.config, split=self.held_out_split))
            return self._choose(islice(read, _READ), "all", _name(separate), None, limit)
        corpus = self.corpus()
        part = "test" if corpus.counts["test"] else "validation"
        return self._choose(corpus.examples(part), part, corpus.source.name, corpus.fingerprint, limit)

    def _choose(self, examples: Iterable[Example], split: str, source: str, corpus: str | None, limit: int) -> HeldOut:
        """Return some of the texts, evenly spread, with about ``limit`` characters at most."""
        known = [(text, values) for text, values in examples if text]
        if not known:
            raise DataError(f"There are no held-out texts in {source}: its {split} part has no text. Give held-out texts.")
        mean = sum(len(text) for text, _ in known) / len(known)
        count = max(1, min(len(known), _MAX_HELD_OUT, math.ceil(limit / mean)))
        chosen = [known[(2 * n + 1) * len(known) // (2 * count)] for n in range(count)]
        values = [dict(zip(self.config.conditions, each, strict=True)) for _, each in chosen]
        return HeldOut([text for text, _ in chosen], values, len(known), split, source, corpus)


def _name(source: Any) -> str:
    """Return the name of a source: its own, or what it is."""
    named = isinstance(source, str) or hasattr(source, "__fspath__")
    return str(source) if named else counted(len(source), "given text") if hasattr(source, "__len__") else type(source).__name__


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


class Bootstrap:
    """Intervals by drawing texts with replacement (Efron 1979, "Bootstrap Methods: Another Look at the Jackknife"): percentiles.

    A text is drawn whole, with its bits and its characters, because the characters of one text are not independent. All models
    are drawn on the same texts, so a difference of two has the interval of paired texts.
    """

    def __init__(self, characters: Int64[np.ndarray, " N"], seed: int) -> None:
        count = len(characters)
        self._characters = characters
        self._drawn: np.ndarray = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
        self._drawn_characters = np.maximum(1, self._drawn @ characters)

    def interval(self, bits: Float64[np.ndarray, " N"]) -> Interval | None:
        """Return the 95 % interval of bits per character; None for a single text, or if bits are not finite."""
        if len(bits) < 2 or not np.isfinite(bits).all():
            return None
        low, high = np.percentile((self._drawn @ bits) / self._drawn_characters, _LEVEL)
        return float(low), float(high)

    def pairs(self, bits: Mapping[str, Sequence[float]]) -> list[Pair]:
        """Return the paired difference of each two models, whose bits of each text are given by name."""
        pairs, total = [], int(self._characters.sum())
        for first, second in combinations(bits, 2):
            one, other = np.array(bits[first]), np.array(bits[second])
            sums = float(one.sum()), float(other.sum())
            difference = 0.0 if sums[0] == sums[1] else (sums[0] - sums[1]) / total
            is_finite = np.isfinite(one).all() and np.isfinite(other).all()
            pairs.append(Pair(first, second, difference, self.interval(one - other) if is_finite else None))
        return pairs


@dataclass(frozen=True)
class Measured:
    """A row, and the bits of each held-out text that differences are computed from; None for a model without them."""

    row: Row
    bits: tuple[float, ...] | None


def measure_model(
    model: ReviewModel, row: Row, held_out: HeldOut, prompt: str, seed: int, training: Callable[[], Iterable[str]] | None = None
) -> Measured:
    """Return the row of a model, given with its name and source; ``training`` returns its training text, if that is at hand.

    Raises:
        ReviewgenError: The model cannot generate, or its weights are damaged.
    """
    texts, notes = None, list[str]()
    try:
        texts = measure_bits(model, held_out)
        zeros = texts.zero_probability_tokens
        notes += [f"{zeros:,} held-out tokens have probability zero, so its bits are infinite."] if zeros else []
    except NotADistribution as error:
        notes.append(f"It has no bits per character: {error}")
    sample = held_out.texts[:200]
    density = sum(len(model.tokenizer.encode(text)) for text in sample) / sum(map(len, sample))  # tokens per character
    fingerprints = {data.get("fingerprint") for data in trained_on(model.training)}
    row = replace(
        row,
        tokenizer=model.tokenizer_name,
        parameters=count_parameters(model.bundle.model),
        bytes_on_disk=_saved_bytes(model),
        samples=_draw_samples(model, prompt, density, seed, training),
        is_same_split=held_out.corpus is not None and fingerprints == {held_out.corpus},
        **_generation_facts(model, density, seed),
        **_training_facts(model.training),
        **({} if texts is None else _bits_facts(texts, held_out, seed)),
    )
    row = replace(row, seen=_find_seen(model, held_out, None if row.is_same_split else training))  # its parts share no text
    try:
        row = replace(row, picture=draw(model))
    except ReviewgenError as error:  # a plugin's description of its graph may be damaged
        notes.append(f"Its graph cannot be drawn: {error}")
    if model.training.get("steps") == 1 and not isinstance(model.bundle.model, CountTrained):
        notes.append("It was trained for one step only, so it has learned next to nothing: give it more time.")
    if row.has_seen_held_out:
        notes.append(f"It was trained on {row.seen:.0%} of the held-out texts, so its bits per character are too low.")
    if row.seen is None and not row.is_same_split:
        index = "no index of it" if model.bundle.index is None else "an index that finds only longer texts"
        notes.append(f"Whether it was trained on the held-out texts is not known: it has other data, and {index}.")
    return Measured(replace(row, notes=tuple(notes)), None if texts is None else tuple(texts.bits.tolist()))


def _bits_facts(texts: TextBits, held_out: HeldOut, seed: int) -> dict[str, Any]:
    characters, total = held_out.characters, float(texts.bits.sum())
    bits_per_token = total / texts.tokens
    perplexity = 2.0**bits_per_token if bits_per_token < 1000 else math.inf
    facts = {
        "bits_per_character": total / int(characters.sum()),
        "bits_interval": Bootstrap(characters, seed).interval(texts.bits),
    }
    return facts | {"perplexity_per_token": perplexity, "zero_probability_tokens": texts.zero_probability_tokens}


def _training_facts(training: dict[str, Any]) -> dict[str, Any]:
    """Return what training.json says; a model of an older version, or a blend, may lack some of it."""
    novelty, data = training.get("novelty") or {}, training.get("data") or {}
    evaluations = [each for each in training.get("evaluations") or () if each.get("tokens_seen") and "seconds" in each]
    curve = tuple(CurvePoint(each["seconds"], each["tokens_seen"], each.get("bits_per_character")) for each in evaluations)
    tokens = (data.get("tokens") or {}).get("train")
    epoch = curve[-1].seconds * tokens / curve[-1].tokens if curve and tokens else None
    rates = {name: novelty.get(name) for name in ("copy_rate", "copy_rate_characters", "held_out_copy_rate")}
    return {"training_seconds": training.get("seconds"), "seconds_per_epoch": epoch, "curve": curve} | rates


def _saved_bytes(model: ReviewModel) -> int:
    """Return the size of the saved folder, without the index of the training text, which is that of the text."""
    with temporary_folder() as parent:
        model.save_pretrained(parent / "model")
        return sum(file.stat().st_size for file in parent.rglob("*") if file.is_file() and file.name != _INDEX)


def _find_seen(model: ReviewModel, held_out: HeldOut, training: Callable[[], Iterable[str]] | None) -> float | None:
    """Return which share of the held-out texts stands in a model's training text as a whole.

    Texts of fewer than 50 characters are left out, since people repeat those; for a compact index, those of fewer than 200.
    None if the model has no index of its training text, or all texts are that short. With the training text at hand, no index is
    needed, and if all texts are short, none is left out.
    """
    index = model.bundle.index
    is_sure = training is not None or (index is not None and index.form == "exact")
    texts = [text for text in held_out.texts if len(text) >= (COPY_CHARACTERS if is_sure else _SURE_CHARACTERS)]
    if training is not None:
        texts = texts or list(held_out.texts)
        known = set(texts).intersection(training())
        return sum(text in known for text in texts) / len(texts)
    if index is None or not texts:
        return None
    reports = [model.novelty(text) for text in texts[:: math.ceil(len(texts) / _LOOKED_UP)]]
    return sum(report.longest_tokens >= report.tokens for report in reports) / len(reports)


def _draw_samples(
    model: ReviewModel, prompt: str, density: float, seed: int, training: Callable[[], Iterable[str]] | None
) -> tuple[Sample, ...]:
    """Return a text for each of ``TEMPERATURES``, from one prompt, with its copied spans if the training text or an exact index
    says which they are; a compact index gives upper bounds."""
    config, index = _config(density), model.bundle.index
    settings = [replace(config, temperature=temperature) for temperature in TEMPERATURES]
    texts = [model.generate_one(prompt, generation_config=each, seed=seed) for each in settings]
    copied: Sequence[Any] = [None] * len(texts)
    if training is not None:
        copied = [tuple(spans) for spans in TextWindows(texts).spans(training())]
    elif index is not None and index.form == "exact":
        copied = [_spans(model, text) for text in texts]
    return tuple(Sample(*each) for each in zip(TEMPERATURES, texts, copied, strict=True))


def _spans(model: ReviewModel, text: str) -> tuple[tuple[int, int], ...]:
    """Return the copied spans of at least 50 characters, in order, joined where they overlap."""
    joined: list[tuple[int, int]] = []
    spans = model.novelty(text).spans
    for start, end in sorted((each.start, each.end) for each in spans if each.end - each.start >= COPY_CHARACTERS):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return tuple(joined)


def _generation_facts(model: ReviewModel, density: float, seed: int) -> dict[str, Any]:
    """Generate texts at temperature 1, and return how fast, and how new and various their words are."""
    config = _config(density)
    model.generate("", num_return_sequences=_TEXTS, generation_config=replace(config, max_new_tokens=1), seed=seed)  # compiles
    start, texts = time.perf_counter(), list[str]()
    while len(texts) < _MAX_TEXTS and sum(map(len, texts)) < _CHARACTERS and time.perf_counter() < start + 2 * _MAX_SECONDS:
        texts += model.generate("", num_return_sequences=_TEXTS, generation_config=config, seed=seed + len(texts) // _TEXTS)
    seconds = max(time.perf_counter() - start, 1e-9)
    lexicon = model.bundle.lexicon
    is_known = None if lexicon is None else lexicon.__contains__

    def measure(some: Sequence[str]) -> list[float]:
        figures = measure_texts(some, is_known)
        return [figures.unknown_words or 0.0, *figures.distinct]

    taken = take_words(texts, _WORDS)
    figures = measure_texts(taken, is_known)
    names = ("new_words", *(f"distinct_{n}" for n in range(1, 5)))
    intervals = dict(zip(names, find_intervals(measure, taken), strict=True))
    if is_known is None:
        intervals["new_words"] = None
    intervals["copy_rate"] = (model.training.get("novelty") or {}).get("copy_rate_interval")
    return {
        "characters_per_second": sum(map(len, texts)) / seconds,
        "characters_measured": sum(map(len, texts)),
        "intervals": {name: limits and (limits[0], limits[1]) for name, limits in intervals.items()},
        "new_words": figures.unknown_words if figures.words else None,
        "distinct": {str(n): share if figures.words >= n else None for n, share in enumerate(figures.distinct, 1)},
        "words_measured": figures.words,
    }


def _config(density: float) -> GenerationConfig:
    tokens = max(1, math.ceil(_LENGTH * density))
    return GenerationConfig(temperature=1.0, max_new_tokens=tokens, words="any", max_time=_MAX_SECONDS)
