"""The figures of a model in a comparison, and how each is measured: bits with their interval,
speed, samples, copies and words.

All models generate with the same settings, plain sampling from the whole distribution, instead of
the defaults that were saved with each: it is the models that are compared. Texts have about the
same length in characters, whatever a token is.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from reviewgen.analysis.comparison_texts import Bootstrap, HeldOut, Interval
from reviewgen.analysis.graph_picture import draw
from reviewgen.analysis.probing import ATTRACTOR, make_pairs, measure_pairs
from reviewgen.config.generation import GenerationConfig
from reviewgen.config.settings import from_dict
from reviewgen.data.pipeline import data_records
from reviewgen.data.store import frame_texts
from reviewgen.errors import NotADistribution, ReviewgenError
from reviewgen.evaluation.evaluate import evaluate_totals
from reviewgen.evaluation.metrics import measure_texts, take_words
from reviewgen.model.review_model import ReviewModel
from reviewgen.novelty import COPY_CHARACTERS, TextWindows
from reviewgen.protocols.abilities import count_parameters
from reviewgen.rates import find_intervals
from reviewgen.storage import temporary_folder

TEMPERATURES = (0.5, 0.8, 1.2)
_LENGTH = 300  # characters of a generated text, about
_BATCH = 32  # texts that are generated at once
_MAX_TEXTS = 640  # texts that are generated in all, at most
_MIN_CHARACTERS = 30_000  # of generated text
_WORDS = 4500  # words that distinct n-grams are counted on: their share falls as the text grows
_MAX_SECONDS = 10.0  # of a batch of texts, for a model that is very slow
# the length of a text that a compact index, which gives upper bounds, does not find by chance
_SURE_CHARACTERS = 200
_LOOKED_UP = 200  # texts that are looked up in a model's training text
_INDEX = "novelty.safetensors"

MAX_SEEN = 0.02
"""Share of held-out texts that may occur in a training text by chance, as in reviews that quote one
another.
"""


@dataclass(frozen=True)
class Sample:
    """A generated text.

    Attributes:
        temperature: The temperature that it was sampled at.
        text: The text, the prompt included.
        copied: Start and end of each span of 50 characters or more that occurs in the training
            text; None if that is not known.
    """

    temperature: float
    text: str
    copied: tuple[tuple[int, int], ...] | None


@dataclass(frozen=True)
class CurvePoint:
    """An evaluation during the training, on validation texts.

    Attributes:
        seconds: Seconds of training.
        tokens: Tokens trained on.
        bits_per_character: Bits per character; None if they are infinite.
    """

    seconds: float
    tokens: int
    bits_per_character: float | None


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One model. A value is None if it is not known, or if the model has failed.

    Attributes:
        name: The name of the row, different from all others.
        source: What was trained or loaded: a preset, a folder, a repository.
        is_trained_here: Whether it was trained for this comparison.
        verdict: The verdict on its training, as in ``train``, "unknown" if that was too short for
            one; None if it was not trained for this comparison.
        failed: The sentence that says why the model has failed; None if it has not.
        notes: Sentences for the user.
        tokenizer: The name of the tokenizer, which says what a token of ``perplexity_per_token``
            is.
        parameters: The number of parameters; for a model that is not a network, of the numbers in
            its tables.
        bytes_on_disk: The size of the saved folder, without the index of the training text.
        training_seconds: Duration of the training, with reading and evaluations.
        seconds_per_epoch: Duration of a pass over the training text.
        bits_per_character: Total bits of the held-out texts divided by their characters; infinite
            if a probability is zero.
        bits_interval: Its 95 % interval, from a bootstrap over the texts.
        zero_probability_tokens: The number of held-out tokens with probability zero.
        perplexity_per_token: exp of the nats per token; comparable only between models with the
            same tokenizer.
        agreement: Share of minimal pairs of agreement past an attractor that it gets right; see
            ``reviewgen.probe``.
        copy_rate: Share of generated characters in spans of 50 or more that occur in its training
            text, as measured in training.
        copy_rate_characters: The number of generated characters that it rests on; None for a model
            that was saved without this number.
        held_out_copy_rate: The same share for held-out texts.
        characters_per_second: Generated characters a second.
        new_words: Share of generated words that occur in its training text at most once.
        distinct: By n, the share of different n-grams of words among all.
        words_measured: The number of words that ``new_words`` and ``distinct`` are measured on.
        characters_measured: The number of characters of the texts that these words begin.
        intervals: The 95 % intervals of ``agreement``, ``copy_rate``, ``new_words``, ``distinct_1``
            and so on, by name.
        samples: Texts from one prompt.
        curve: The evaluations during the training.
        seen: Share of the held-out texts that occur as a whole in its training text; None if it has
            no index of that.
        is_same_split: Whether it was trained on the same corpus, so that the held-out texts were
            held out there, too.
        picture: An SVG of its computational graph; empty for none.
    """

    name: str
    source: str
    is_trained_here: bool = False
    verdict: str | None = None
    failed: str | None = None
    notes: tuple[str, ...] = ()
    tokenizer: str | None = None
    parameters: int | None = None
    bytes_on_disk: int | None = None
    training_seconds: float | None = None
    seconds_per_epoch: float | None = None
    bits_per_character: float | None = None
    bits_interval: Interval | None = None
    zero_probability_tokens: int = 0
    perplexity_per_token: float | None = None
    agreement: float | None = None
    copy_rate: float | None = None
    copy_rate_characters: int | None = None
    held_out_copy_rate: float | None = None
    characters_per_second: float | None = None
    new_words: float | None = None
    distinct: Mapping[str, float | None] = field(default_factory=dict)
    words_measured: int = 0
    characters_measured: int = 0
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    seen: float | None = None
    is_same_split: bool = False
    picture: str = ""

    @property
    def has_seen_held_out(self) -> bool:
        """Whether the model was trained on held-out texts, so that its bits per character are too
        low.
        """
        return self.seen is not None and self.seen > MAX_SEEN

    @property
    def is_ranked(self) -> bool:
        """Whether its bits per character can be compared with those of other models."""
        return not self.has_seen_held_out and self.verdict != "unknown"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ComparisonRow":
        """Return a row from its JSON values, as ``to_json`` makes them.

        Raises:
            ConfigError, LookupError, TypeError, AttributeError: The values are not those of a row.
        """
        intervals = {
            name: None if limits is None else (limits[0], limits[1])
            for name, limits in values["intervals"].items()
        }
        row = from_dict(cls, {**values, "intervals": intervals})
        is_infinite = row.bits_per_character is None and row.zero_probability_tokens
        if is_infinite:
            row = replace(row, bits_per_character=math.inf, perplexity_per_token=math.inf)
        return row


@dataclass(frozen=True)
class Measured:
    """A row, and the bits of each held-out text that differences are computed from; None for a
    model without them.
    """

    row: ComparisonRow
    bits: tuple[float, ...] | None


def measure_model(
    model: ReviewModel,
    row: ComparisonRow,
    held_out: HeldOut,
    prompt: str,
    seed: int,
    training: Callable[[], Iterable[str]] | None = None,
) -> Measured:
    """Measure a model.

    Args:
        model: The model.
        row: The beginning of its row: its name and source.
        held_out: The texts that it is evaluated on.
        prompt: The beginning of its samples.
        seed: The seed of its texts and intervals.
        training: Returns its training texts; None if they are not at hand.

    Raises:
        ReviewgenError: The model cannot generate, or its weights are damaged.
    """
    bits = None
    figures = dict[str, Any]()
    notes = list[str]()
    try:
        bits, figures = _measure_bits(model, held_out, seed)
    except NotADistribution as error:
        notes.append(f"It has no bits per character: {error}")
    config = _plain_sampling(model, held_out)
    figures |= _generation_facts(model, config, seed) | _training_facts(model.training)
    (probed,) = measure_pairs(row.name, model, make_pairs(model, [ATTRACTOR]))
    figures["intervals"]["agreement"] = probed.interval
    fingerprints = {data.get("fingerprint") for data in data_records(model.training)}
    is_same_split = held_out.corpus is not None and fingerprints == {held_out.corpus}
    try:
        figures["picture"] = draw(model)
    except ReviewgenError as error:  # a plugin's description of its graph may be damaged
        notes.append(f"Its graph cannot be drawn: {error}")
    row = replace(
        row,
        verdict=model.training["verdict"]["name"] if row.is_trained_here else None,
        tokenizer=model.tokenizer_name,
        parameters=sum(count_parameters(model.bundle.model).values()),
        bytes_on_disk=_saved_bytes(model),
        agreement=probed.share,
        samples=_draw_samples(model, prompt, config, seed, training),
        # the training part and the held-out part of one corpus share no text
        seen=_find_seen(model, held_out, None if is_same_split else training),
        is_same_split=is_same_split,
        **figures,
    )
    notes += _notes(model, row)
    return Measured(
        replace(row, notes=tuple(notes)), None if bits is None else tuple(bits.tolist())
    )


def _notes(model: ReviewModel, row: ComparisonRow) -> Iterator[str]:
    """Yield what the user should know of the figures of a row."""
    if row.zero_probability_tokens:
        yield (
            f"{row.zero_probability_tokens:,} held-out tokens have probability zero, so its bits"
            " are infinite."
        )
    if row.verdict == "unknown":
        yield model.training["verdict"]["words"]
    if row.has_seen_held_out:
        yield (
            f"It was trained on {row.seen:.0%} of the held-out texts, so its bits per character are"
            " too low."
        )
    if row.seen is None and not row.is_same_split:
        index = (
            "no index of it"
            if model.bundle.index is None
            else "an index that finds only longer texts"
        )
        yield (
            "Whether it was trained on the held-out texts is not known: it has other data, and"
            f" {index}."
        )


def _plain_sampling(model: ReviewModel, held_out: HeldOut) -> GenerationConfig:
    """Return the settings that all models generate with; ``_LENGTH`` characters are a number of
    tokens that differs from model to model.
    """
    sample = held_out.texts[:200]
    tokens = sum(len(model.tokenizer.encode(text)) for text in sample)
    characters = sum(map(len, sample))
    return GenerationConfig(
        temperature=1.0,
        max_new_tokens=max(1, math.ceil(_LENGTH * (tokens / characters))),
        words="any",
        max_time=_MAX_SECONDS,
        conditions=model.conditions.unspecified,
    )


def _measure_bits(
    model: ReviewModel, held_out: HeldOut, seed: int
) -> tuple[Float64[np.ndarray, " N"], dict[str, Any]]:
    """Return a model's bits of each held-out text, end tokens included, and the figures of its row
    that follow from them.

    Raises:
        NotADistribution: The model's scores do not sum to one.
    """
    conditions = model.conditions
    tokenizer = model.tokenizer
    nats = list[float]()
    names = conditions.names
    cells = ([values.get(name) for name in names] for values in held_out.values)
    prefixes = map(conditions.encode_values, cells)
    documents = frame_texts(zip(held_out.texts, prefixes, strict=True), tokenizer)
    evaluation = evaluate_totals(
        model.bundle.model, documents, tokenizer.vocab_size, nats=nats
    ).evaluation()
    bits = np.array(nats) / math.log(2)
    return bits, {
        "bits_per_character": evaluation.bits_per_character,
        "bits_interval": Bootstrap(held_out.characters, seed).interval(bits),
        "perplexity_per_token": evaluation.perplexity_per_token,
        "zero_probability_tokens": evaluation.zero_probability_tokens,
    }


def _training_facts(training: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that training.json has; that of an older version, or of a blend, may lack
    some.
    """
    novelty = training.get("novelty") or {}
    data = training.get("data") or {}
    curve = tuple(
        CurvePoint(entry["seconds"], entry["tokens_seen"], entry.get("bits_per_character"))
        for entry in training.get("evaluations") or ()
        if entry.get("tokens_seen") and entry.get("seconds") is not None
    )
    tokens = (data.get("tokens") or {}).get("train")
    epoch = curve[-1].seconds * tokens / curve[-1].tokens if curve and tokens else None
    return {
        "training_seconds": training.get("seconds"),
        "seconds_per_epoch": epoch,
        "curve": curve,
        "copy_rate": novelty.get("copy_rate"),
        "copy_rate_characters": novelty.get("copy_rate_characters"),
        "held_out_copy_rate": novelty.get("held_out_copy_rate"),
    }


def _saved_bytes(model: ReviewModel) -> int:
    """Return the size of the saved folder, without the index of the training text, which is that of
    the text.
    """
    with temporary_folder() as parent:
        model.save_pretrained(parent / "model")
        files = [file for file in parent.rglob("*") if file.is_file() and file.name != _INDEX]
        return sum(file.stat().st_size for file in files)


def _find_seen(
    model: ReviewModel, held_out: HeldOut, training: Callable[[], Iterable[str]] | None
) -> float | None:
    """Return the share of the held-out texts that occur as a whole in a model's training text.

    Texts of fewer than 50 characters are left out, since people repeat those; for a compact index,
    those of fewer than 200. None if the model has no index of its training text, or all texts are
    that short. With the training text at hand, no index is needed, and if all texts are short, none
    is left out.
    """
    index = model.bundle.index
    is_sure = training is not None or (index is not None and index.form == "exact")
    shortest = COPY_CHARACTERS if is_sure else _SURE_CHARACTERS
    texts = [text for text in held_out.texts if len(text) >= shortest]
    if training is not None:
        texts = texts or list(held_out.texts)
        known = set(texts).intersection(training())
        return sum(text in known for text in texts) / len(texts)
    if index is None or not texts:
        return None
    looked_up = texts[:: math.ceil(len(texts) / _LOOKED_UP)]
    return index.share_trained_on(map(model.tokenizer.encode, looked_up))


def _draw_samples(
    model: ReviewModel,
    prompt: str,
    config: GenerationConfig,
    seed: int,
    training: Callable[[], Iterable[str]] | None,
) -> tuple[Sample, ...]:
    """Return a text for each of ``TEMPERATURES``, from one prompt, with its copied spans if the
    training text or an exact index says which they are; a compact index gives upper bounds."""
    index = model.bundle.index
    texts = list[str]()
    for temperature in TEMPERATURES:
        setting = replace(config, temperature=temperature)
        texts.append(model.generate_one(prompt, generation_config=setting, seed=seed))
    copied: Sequence[Any] = [None] * len(texts)
    if training is not None:
        copied = [tuple(spans) for spans in TextWindows(texts).spans(training())]
    elif index is not None and index.form == "exact":
        copied = [_spans(model, text) for text in texts]
    return tuple(Sample(*fields) for fields in zip(TEMPERATURES, texts, copied, strict=True))


def _spans(model: ReviewModel, text: str) -> tuple[tuple[int, int], ...]:
    """Return the copied spans of at least 50 characters, in order, joined where they overlap."""
    is_copied = np.zeros(len(text), bool)
    for span in model.novelty(text).spans:
        is_copied[span.start : span.end] |= span.end - span.start >= COPY_CHARACTERS
    edges = np.flatnonzero(np.diff(is_copied, prepend=False, append=False)).tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def _generation_facts(model: ReviewModel, config: GenerationConfig, seed: int) -> dict[str, Any]:
    """Generate texts at temperature 1, and return speed, novelty and diversity of the words."""
    one_token = replace(config, max_new_tokens=1)
    model.generate(
        "", num_return_sequences=_BATCH, generation_config=one_token, seed=seed
    )  # compiles
    start = time.perf_counter()
    seconds = 0.0
    characters = 0
    texts = list[str]()
    while len(texts) < _MAX_TEXTS and characters < _MIN_CHARACTERS and seconds < 2 * _MAX_SECONDS:
        batch_seed = seed + len(texts) // _BATCH
        texts += model.generate(
            "", num_return_sequences=_BATCH, generation_config=config, seed=batch_seed
        )
        characters = sum(map(len, texts))
        seconds = time.perf_counter() - start
    lexicon = model.bundle.lexicon
    is_known = None if lexicon is None else lexicon.__contains__

    def measure(some: Sequence[str]) -> list[float]:
        figures = measure_texts(some, is_known)
        unknown = math.nan if figures.unknown_words is None else figures.unknown_words
        return [unknown, *figures.distinct]

    first_texts = take_words(texts, _WORDS)
    figures = measure_texts(first_texts, is_known)
    names = ("new_words", "distinct_1", "distinct_2", "distinct_3", "distinct_4")
    intervals = dict(zip(names, find_intervals(measure, first_texts), strict=True))
    intervals["copy_rate"] = (model.training.get("novelty") or {}).get("copy_rate_interval")
    return {
        "characters_per_second": characters / max(seconds, 1e-9),
        "characters_measured": characters,
        "intervals": {name: limits and tuple(limits) for name, limits in intervals.items()},
        "new_words": figures.unknown_words if figures.words else None,
        "distinct": {
            str(n): share if figures.words >= n else None
            for n, share in enumerate(figures.distinct, 1)
        },
        "words_measured": figures.words,
    }
