"""From a trained model to its row: everything that is measured of a single model.

All models generate with the same settings, plain sampling from the whole distribution, instead of the defaults that were saved
with each: it is the models that are compared. Texts have about the same length in characters, whatever a token is.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reviewgen.config import GenerationConfig
from reviewgen.data import trained_on
from reviewgen.errors import NotADistribution, ReviewgenError
from reviewgen.evaluation import measure_texts, take_words
from reviewgen.look.held_out import Bootstrap, HeldOut, TextBits, measure_bits
from reviewgen.look.picture import draw
from reviewgen.look.rows import CurvePoint, Row, Sample
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


@dataclass(frozen=True)
class Measured:
    """A row, and the bits of each held-out text that differences are computed from; None for a model without them."""

    row: Row
    bits: tuple[float, ...] | None


def measure_model(
    model: ReviewModel,
    row: Row,
    held_out: HeldOut,
    prompt: str,
    seed: int,
    training: Callable[[], Iterable[str]] | None = None,
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
        **_written_facts(model, density, seed),
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
    return {
        "bits_per_character": total / int(characters.sum()),
        "bits_interval": Bootstrap(characters, seed).interval(texts.bits),
        "perplexity_per_token": 2.0**bits_per_token if bits_per_token < 1000 else math.inf,
        "zero_probability_tokens": texts.zero_probability_tokens,
    }


def _training_facts(training: dict[str, Any]) -> dict[str, Any]:
    """Return what training.json says; a model of an older version, or a blend, may lack some of it."""
    novelty, data = training.get("novelty") or {}, training.get("data") or {}
    evaluations = [each for each in training.get("evaluations") or () if each.get("tokens_seen") and "seconds" in each]
    curve = tuple(CurvePoint(each["seconds"], each["tokens_seen"], each.get("bits_per_character")) for each in evaluations)
    epoch = (data.get("tokens") or {}).get("train")
    return {
        "training_seconds": training.get("seconds"),
        "seconds_per_epoch": curve[-1].seconds * epoch / curve[-1].tokens if curve and epoch else None,
        "copy_rate": novelty.get("copy_rate"),
        "copy_rate_characters": novelty.get("copy_rate_characters"),
        "held_out_copy_rate": novelty.get("held_out_copy_rate"),
        "curve": curve,
    }


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


def _written_facts(model: ReviewModel, density: float, seed: int) -> dict[str, Any]:
    """Generate texts at temperature 1, and return how fast, and how new and various their words are."""
    config = _config(density)
    model.generate("", num_return_sequences=_TEXTS, generation_config=replace(config, max_new_tokens=1), seed=seed)  # compiles
    start, texts = time.perf_counter(), list[str]()
    while len(texts) < _MAX_TEXTS and sum(map(len, texts)) < _CHARACTERS:
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
    intervals["copy_rate"] = (model.training.get("novelty") or {}).get("copy_rate_interval")
    return {
        "characters_per_second": sum(map(len, texts)) / seconds,
        "characters_measured": sum(map(len, taken)),
        "intervals": {name: limits and (limits[0], limits[1]) for name, limits in intervals.items()},
        "new_words": figures.unknown_words if figures.words else None,
        "distinct": {str(n): share if figures.words >= n else None for n, share in enumerate(figures.distinct, 1)},
        "words_measured": figures.words,
    }


def _config(density: float) -> GenerationConfig:
    tokens = max(1, math.ceil(_LENGTH * density))
    return GenerationConfig(temperature=1.0, max_new_tokens=tokens, words="any", max_time=_MAX_SECONDS)
