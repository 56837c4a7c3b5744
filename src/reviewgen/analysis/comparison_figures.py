"""Measures one model of a comparison: bits per character with their interval, speed, samples, copy
rate and words.

All models generate with the same settings, which are plain sampling from the whole distribution.
The defaults that were saved with each model are not used, since the comparison is about the models.
The texts have about the same length in characters, however long the tokens of a model are.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import geometric_mean
from typing import Any

import numpy as np
from jaxtyping import Float64

from reviewgen.analysis.comparison_texts import HeldOut
from reviewgen.analysis.graph_picture import draw
from reviewgen.analysis.probing import ATTRACTOR, make_pairs, measure_pairs
from reviewgen.config.generation import GenerationConfig
from reviewgen.data.texts import data_records
from reviewgen.data.tokens import frame_texts
from reviewgen.errors import NotADistribution, ReviewgenError
from reviewgen.evaluation.differences import Interval, find_interval, find_seed_spread
from reviewgen.evaluation.evaluate import evaluate_totals
from reviewgen.evaluation.metrics import measure_texts, take_words
from reviewgen.model.review_model import ReviewModel
from reviewgen.novelty import COPY_CHARACTERS, TextWindows
from reviewgen.protocols.abilities import count_parameters
from reviewgen.rates import find_intervals
from reviewgen.runs.trials import mean
from reviewgen.storage import temporary_folder

TEMPERATURES = (0.5, 0.8, 1.2)
_LENGTH = 300  # approximate length of a generated text, in characters
_BATCH = 32  # texts that a model generates at once
_MAX_TEXTS = 640  # maximum number of generated texts
_MIN_CHARACTERS = 30_000  # no further batch is generated once there are this many characters
# Distinct n-grams are counted in this many words for every model, since their share of all n-grams
# falls as a text grows.
_WORDS = 4500
_MAX_SECONDS = 10.0  # time limit of a batch; after twice this time, no further batch begins
# Only texts of at least this length are looked up in a compact index. It gives upper bounds, and
# may find shorter texts by chance.
_SURE_CHARACTERS = 200
# maximum number of held-out texts that are looked up in the index of a training text
_LOOKED_UP = 200
_INDEX = "novelty.safetensors"  # the file with the index of the training text

MAX_SEEN = 0.02
"""Up to this share of the held-out texts may occur in a training text by chance, since some reviews
quote others.
"""


@dataclass(frozen=True)
class Sample:
    """A generated text.

    Attributes:
        temperature: The temperature that it was sampled at.
        text: The text, including the prompt.
        copied: The start and end of each span of at least 50 characters that also occurs in the
            training text; None if the spans are not known.
    """

    temperature: float
    text: str
    copied: tuple[tuple[int, int], ...] | None


@dataclass(frozen=True)
class CurvePoint:
    """An evaluation on the validation texts during the training.

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
    """The figures of one model: a row of the comparison. A figure is None if it is not known, or if
    the model has failed.

    If the model was trained from several seeds, its bits, perplexity, training time and processor
    share are means over these trainings, and the other figures are those of the first.

    Attributes:
        name: The name of the row; no other row has it.
        source: What was trained or loaded: a preset, a folder, a repository.
        is_trained_here: Whether the model was trained for this comparison.
        settings: The settings that only this row has, as in {"model.hidden_size": 512}.
        seeds: The number of trainings.
        verdict: The verdict on the training, as ``train`` gives it; "unknown" if the training was
            too short for a verdict. None if the model was not trained for this comparison.
        failed: A sentence that says why the model has failed; None if it has not failed.
        notes: Notes for the user, as sentences.
        tokenizer: The name of the tokenizer. It defines the tokens of ``perplexity_per_token``.
        parameters: The number of parameters; for a model that is not a network, how many numbers
            its tables have.
        bytes_on_disk: The size of the saved folder, without the index of the training text.
        training_seconds: Duration of the training, including reading and evaluations.
        seconds_per_epoch: Duration of a pass over the training text.
        processor_share: Share of the time of a training in which its thread had a processor, 0 to
            1. It is known only if a time budget ended the training here, on a CPU.
        bits_per_character: Total bits of the held-out texts divided by their characters; infinite
            if a token has probability zero.
        bits_interval: The 95 % interval of ``bits_per_character`` over the texts.
        spread: The standard deviation of the bits per character over the seeds; None for one
            seed.
        zero_probability_tokens: The number of held-out tokens with probability zero.
        perplexity_per_token: exp of the nats per token; comparable only between models with the
            same tokenizer.
        agreement: Share of correct answers in the probe "agreement past an attractor"; see
            ``reviewgen.probe``.
        copy_rate: Share of generated characters that are in copied spans, as measured in training.
            A copied span has at least 50 characters and also occurs in the training text.
        copy_rate_characters: The number of generated characters that ``copy_rate`` was measured on;
            None for a model that was saved without this number.
        held_out_copy_rate: The copy rate of held-out texts, for comparison.
        membership: How well the bits of a text tell that it was a training text: the area under the
            curve of training against held-out texts, as measured in training; 0.5 is chance.
        characters_per_second: Generated characters per second.
        new_words: Share of generated words that occur at most once in the training text.
        distinct: For each n, the number of different n-grams of words divided by the number of all
            n-grams.
        words_measured: The number of words that ``new_words`` and ``distinct`` are measured on.
        characters_measured: The number of characters of all generated texts. The measured words are
            those of the first texts.
        intervals: The 95 % intervals by name: ``agreement``, ``copy_rate``, ``membership``,
            ``new_words``, ``distinct_1`` and so on.
        samples: Texts that continue the same prompt, one for each temperature.
        curve: The evaluations during the training, in order.
        seen: Share of the held-out texts that occur as a whole in the training text; None if they
            cannot be looked up there.
        is_same_split: Whether the model was trained on the corpus that the held-out texts come
            from. If so, these texts were held out in its training, too.
        picture: An SVG of the computational graph; empty if it could not be drawn.
    """

    name: str
    source: str
    is_trained_here: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    verdict: str | None = None
    failed: str | None = None
    notes: tuple[str, ...] = ()
    tokenizer: str | None = None
    parameters: int | None = None
    bytes_on_disk: int | None = None
    training_seconds: float | None = None
    seconds_per_epoch: float | None = None
    processor_share: float | None = None
    bits_per_character: float | None = None
    bits_interval: Interval | None = None
    spread: float | None = None
    zero_probability_tokens: int = 0
    perplexity_per_token: float | None = None
    agreement: float | None = None
    copy_rate: float | None = None
    copy_rate_characters: int | None = None
    held_out_copy_rate: float | None = None
    membership: float | None = None
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
        """Whether the training text has more of the held-out texts than chance explains. If so, the
        bits per character are too low.
        """
        return self.seen is not None and self.seen > MAX_SEEN

    @property
    def is_ranked(self) -> bool:
        """Whether the bits per character can be compared with those of other models."""
        return not self.has_seen_held_out and self.verdict != "unknown"


@dataclass(frozen=True)
class Measured:
    """A finished row, and the nats of each held-out text for each seed, from which differences
    between models are computed. ``nats`` is None if the model is not a probability distribution.
    """

    row: ComparisonRow
    nats: Float64[np.ndarray, "S N"] | None


def average_seeds(trainings: Sequence[Measured], held_out: HeldOut) -> Measured:
    """Return one row for trainings that differ only in their seed. If the scores of a model are not
    probabilities, this is the row of the first seed.
    """
    first = trainings[0].row
    known = [training.nats for training in trainings if training.nats is not None]
    if len(trainings) == 1 or len(known) < len(trainings):
        return trainings[0]
    rows = [training.row for training in trainings]
    nats = np.concatenate(known)
    spread = find_seed_spread(nats, held_out.characters)
    row = replace(
        first,
        seeds=len(rows),
        bits_per_character=mean(row.bits_per_character for row in rows),
        bits_interval=find_interval(nats.mean(axis=0), held_out.characters),
        spread=None if spread is None else spread.deviation,
        perplexity_per_token=geometric_mean(row.perplexity_per_token or 0.0 for row in rows),
        training_seconds=mean(row.training_seconds for row in rows),
        processor_share=mean(row.processor_share for row in rows),
    )
    return Measured(row, nats)


def measure_repeat(model: ReviewModel, row: ComparisonRow, held_out: HeldOut) -> Measured:
    """Measure a model that was trained from a further seed. Only the figures that are averaged over
    the seeds are measured.
    """
    try:
        nats, figures = _measure_bits(model, held_out)
    # the row of the first seed already says that the scores are not probabilities
    except NotADistribution:
        return Measured(row, None)
    figures["training_seconds"] = model.training.get("seconds")
    return Measured(replace(row, **figures), nats)


def measure_model(
    model: ReviewModel,
    row: ComparisonRow,
    held_out: HeldOut,
    prompt: str,
    seed: int,
    training: Callable[[], Iterable[str]] | None = None,
) -> Measured:
    """Measure a model; return its row and the nats of each held-out text.

    Args:
        model: The model.
        row: The row so far, with the name and source.
        held_out: The texts that the model is evaluated on.
        prompt: The beginning of the samples.
        seed: The seed of the generated texts.
        training: A function that returns the training texts; None if they are not available.

    Raises:
        ReviewgenError: The model cannot generate, or its weights are damaged.
    """
    nats = None
    figures = dict[str, Any]()  # values of the row's fields, by name
    notes = list[str]()
    try:
        nats, figures = _measure_bits(model, held_out)
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
        # the parts of one corpus share no text, so its training texts are not searched
        seen=_find_seen(model, held_out, None if is_same_split else training),
        is_same_split=is_same_split,
        **figures,
    )
    row = replace(row, notes=(*notes, *_notes(model, row)))
    return Measured(row, nats)


def _notes(model: ReviewModel, row: ComparisonRow) -> Iterator[str]:
    """Yield notes for the user on the figures of a row."""
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
        reason = (
            "no index of it"
            if model.bundle.index is None
            else "an index that finds only longer texts"
        )
        yield (
            "Whether it was trained on the held-out texts is not known: it has other data, and"
            f" {reason}."
        )


def _plain_sampling(model: ReviewModel, held_out: HeldOut) -> GenerationConfig:
    """Return the settings with which a model generates. They are the same for all models, except
    for the number of tokens that ``_LENGTH`` characters have.
    """
    sample = held_out.texts[:200]
    token_count = sum(len(model.tokenizer.encode(text)) for text in sample)
    tokens_per_character = token_count / sum(map(len, sample))
    return GenerationConfig(
        temperature=1.0,
        max_new_tokens=max(1, math.ceil(_LENGTH * tokens_per_character)),
        words="any",
        max_time=_MAX_SECONDS,
        conditions=model.conditions.unspecified,
    )


def _measure_bits(
    model: ReviewModel, held_out: HeldOut
) -> tuple[Float64[np.ndarray, "1 N"], dict[str, Any]]:
    """Evaluate a model on the held-out texts. Return the nats of each text, including its end
    token, and the figures of the row that are computed from them.

    Raises:
        NotADistribution: The model's scores do not sum to one.
    """
    conditions = model.conditions
    tokenizer = model.tokenizer
    cells = ([values.get(name) for name in conditions.names] for values in held_out.values)
    prefixes = map(conditions.encode_values, cells)
    documents = frame_texts(zip(held_out.texts, prefixes, strict=True), tokenizer)
    by_text = list[float]()  # appended by ``evaluate_totals``
    totals = evaluate_totals(model.bundle.model, documents, tokenizer.vocab_size, nats=by_text)
    evaluation = totals.evaluation()
    nats = np.array(by_text)
    return nats[None], {
        "bits_per_character": evaluation.bits_per_character,
        "bits_interval": find_interval(nats, held_out.characters),
        "perplexity_per_token": evaluation.perplexity_per_token,
        "zero_probability_tokens": evaluation.zero_probability_tokens,
    }


def _training_facts(training: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that are stored in training.json. In the file of an older version or of a
    blend, some may be missing; these are None.
    """
    novelty = training.get("novelty") or {}
    data = training.get("data") or {}
    curve = tuple(
        CurvePoint(entry["seconds"], entry["tokens_seen"], entry.get("bits_per_character"))
        for entry in training.get("evaluations") or ()
        if entry.get("tokens_seen") and entry.get("seconds") is not None
    )
    tokens_per_epoch = (data.get("tokens") or {}).get("train")
    seconds_per_epoch = None
    if curve and tokens_per_epoch:
        seconds_per_epoch = curve[-1].seconds * tokens_per_epoch / curve[-1].tokens
    return {
        "training_seconds": training.get("seconds"),
        "seconds_per_epoch": seconds_per_epoch,
        "curve": curve,
        "copy_rate": novelty.get("copy_rate"),
        "copy_rate_characters": novelty.get("copy_rate_characters"),
        "held_out_copy_rate": novelty.get("held_out_copy_rate"),
        "membership": novelty.get("membership"),
    }


def _saved_bytes(model: ReviewModel) -> int:
    """Return the size of the saved model in bytes. The index of the training text is left out,
    since its size depends on the text and not on the model.
    """
    with temporary_folder() as parent:
        model.save_pretrained(parent / "model")
        files = [file for file in parent.rglob("*") if file.is_file() and file.name != _INDEX]
        return sum(file.stat().st_size for file in files)


def _find_seen(
    model: ReviewModel, held_out: HeldOut, training: Callable[[], Iterable[str]] | None
) -> float | None:
    """Return the share of the held-out texts that occur as a whole in a model's training text; None
    if it cannot be found.

    The texts are looked up in the training texts if these are given, otherwise in the model's
    index. Texts of fewer than 50 characters are left out, since people repeat such texts; in a
    compact index, only texts of at least 200 characters are looked up. If all texts are too
    short, they are looked up in the training texts nevertheless, but not in an index. The share is
    None if no text can be looked up.
    """
    index = model.bundle.index
    is_sure = training is not None or (index is not None and index.form == "exact")
    min_characters = COPY_CHARACTERS if is_sure else _SURE_CHARACTERS
    texts = [text for text in held_out.texts if len(text) >= min_characters]
    if training is not None:
        texts = texts or list(held_out.texts)
        seen = set(texts).intersection(training())
        return sum(text in seen for text in texts) / len(texts)
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
    """Generate a text from the prompt at each of ``TEMPERATURES``, and find its copied spans. This
    needs the training text or an exact index, since a compact index gives only upper bounds;
    otherwise the spans are None.
    """
    index = model.bundle.index
    texts = list[str]()
    for temperature in TEMPERATURES:
        settings = replace(config, temperature=temperature)
        texts.append(model.generate_one(prompt, generation_config=settings, seed=seed))
    copied: Sequence[Any] = [None] * len(texts)
    if training is not None:
        copied = [tuple(spans) for spans in TextWindows(texts).spans(training())]
    elif index is not None and index.form == "exact":
        copied = [_copied_spans(model, text) for text in texts]
    return tuple(map(Sample, TEMPERATURES, texts, copied))


def _copied_spans(model: ReviewModel, text: str) -> tuple[tuple[int, int], ...]:
    """Return the start and end of each copied span of at least 50 characters, in order. Overlapping
    spans are joined.
    """
    is_copied = np.zeros(len(text), bool)
    for span in model.novelty(text).spans:
        if span.end - span.start >= COPY_CHARACTERS:
            is_copied[span.start : span.end] = True
    # in turn: where copied characters begin, and where they end
    edges = np.flatnonzero(np.diff(is_copied, prepend=False, append=False)).tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def _generation_facts(model: ReviewModel, config: GenerationConfig, seed: int) -> dict[str, Any]:
    """Generate texts with ``config``, and measure speed, new words and distinct n-grams. The
    interval of the copy rate was measured in training.
    """
    texts, seconds = _generate_texts(model, config, seed)
    characters = sum(map(len, texts))
    lexicon = model.bundle.lexicon
    is_known = None if lexicon is None else lexicon.__contains__

    def measure(resample: Sequence[str]) -> list[float]:
        """Return the share of new words and the shares of distinct n-grams of some texts."""
        resample_figures = measure_texts(resample, is_known)
        new_words = resample_figures.unknown_words
        return [math.nan if new_words is None else new_words, *resample_figures.distinct]

    first_texts = take_words(texts, _WORDS)
    figures = measure_texts(first_texts, is_known)
    # the names of the numbers that ``measure`` returns
    names = ("new_words", "distinct_1", "distinct_2", "distinct_3", "distinct_4")
    intervals = dict(zip(names, find_intervals(measure, first_texts), strict=True))
    novelty = model.training.get("novelty") or {}
    intervals["copy_rate"] = novelty.get("copy_rate_interval")
    intervals["membership"] = novelty.get("membership_interval")
    return {
        "characters_per_second": characters / max(seconds, 1e-9),
        "characters_measured": characters,
        "intervals": {
            name: None if limits is None else tuple(limits) for name, limits in intervals.items()
        },
        "new_words": figures.unknown_words if figures.words else None,
        "distinct": {
            str(n): share if figures.words >= n else None
            for n, share in enumerate(figures.distinct, 1)
        },
        "words_measured": figures.words,
    }


def _generate_texts(
    model: ReviewModel, config: GenerationConfig, seed: int
) -> tuple[list[str], float]:
    """Generate texts in batches, until the characters, the texts or the seconds reach their limit.
    Return the texts, and how many seconds this took.
    """
    config = replace(config, num_return_sequences=_BATCH)
    # compiles the loops before the time is measured
    model.generate(generation_config=replace(config, max_new_tokens=1), seed=seed)
    start = time.perf_counter()
    seconds = 0.0
    texts = list[str]()
    # no batch begins after twice the time that one may take
    while len(texts) < _MAX_TEXTS and seconds < 2 * _MAX_SECONDS:
        texts += model.generate(generation_config=config, seed=seed + len(texts) // _BATCH)
        seconds = time.perf_counter() - start
        if sum(map(len, texts)) >= _MIN_CHARACTERS:
            break
    return texts, seconds
