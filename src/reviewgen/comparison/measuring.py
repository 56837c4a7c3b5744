"""From a trained model to its row: everything that is measured of a single model."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from reviewgen.comparison.entries import Entry
from reviewgen.comparison.held_out import HeldOut, TextBits, find_seen, is_same_corpus, measure_bits
from reviewgen.comparison.intervals import bits_interval
from reviewgen.comparison.rows import CurvePoint, OrderPoint, Row
from reviewgen.comparison.sampling import draw_samples, measure_written
from reviewgen.errors import NotADistribution, ReviewgenError
from reviewgen.graphs import draw
from reviewgen.model import ReviewModel
from reviewgen.protocols import CountTrained
from reviewgen.storage import temporary_folder

_INDEX = "novelty.safetensors"


@dataclass(frozen=True)
class Measured:
    """A row, and the bits of each held-out text that differences are computed from; None for a model without them."""

    row: Row
    bits: tuple[float, ...] | None


def measure_model(
    model: ReviewModel,
    entry: Entry,
    held_out: HeldOut,
    prompt: str,
    seed: int,
    orders: tuple[OrderPoint, ...] = (),
    training: Callable[[], Iterable[str]] | None = None,
) -> Measured:
    """Return the row of a model; ``training`` returns its training text, if that is at hand.

    Raises:
        ReviewgenError: The model cannot generate, or its weights are damaged.
    """
    texts, notes = _try_bits(model, held_out)
    ids = sum(len(model.tokenizer.encode(text)) for text in held_out.texts[:200])
    density = ids / sum(len(text) for text in held_out.texts[:200])
    samples = draw_samples(model, prompt, density, seed, None if training is None else training())
    written = measure_written(model, density, seed)
    picture, undrawn = _try_picture(model)
    is_same = is_same_corpus(model, held_out)
    looked_up = None if training is None or is_same else training()  # the parts of one corpus have no text in common
    seen = find_seen(model, held_out, looked_up)
    row = Row(
        name=entry.name,
        source=entry.label,
        is_trained_here=entry.is_preset,
        tokenizer=model.tokenizer_name,
        parameters=count_parameters(model.bundle.model),
        bytes_on_disk=_saved_bytes(model),
        characters_per_second=written.characters_per_second,
        new_words=written.new_words,
        distinct=written.distinct,
        words_measured=written.words,
        samples=samples,
        orders=orders,
        seen=seen,
        is_same_split=is_same,
        picture=picture,
        **_training_facts(model.training),
        **({} if texts is None else _bits_facts(texts, held_out, seed)),
    )
    notes += undrawn + _describe_steps(model) + _describe_seen(row, model.bundle.index is not None)
    return Measured(replace(row, notes=tuple(notes)), None if texts is None else tuple(texts.bits.tolist()))


def _try_bits(model: ReviewModel, held_out: HeldOut) -> tuple[TextBits | None, list[str]]:
    try:
        texts = measure_bits(model, held_out)
    except NotADistribution as error:
        return None, [f"It has no bits per character: {error}"]
    zeros = texts.zero_probability_tokens
    return texts, [f"{zeros:,} held-out tokens have probability zero, so its bits are infinite."] if zeros else []


def _try_picture(model: ReviewModel) -> tuple[str, list[str]]:
    try:
        return draw(model), []
    except ReviewgenError as error:  # a plugin's description of its graph may be damaged
        return "", [f"Its graph cannot be drawn: {error}"]


def _bits_facts(texts: TextBits, held_out: HeldOut, seed: int) -> dict[str, Any]:
    characters, total = held_out.characters, float(texts.bits.sum())
    return {
        "bits_per_character": total / int(characters.sum()),
        "bits_interval": bits_interval(texts.bits, characters, seed),
        "perplexity_per_token": _power_of_two(total / texts.tokens),
        "zero_probability_tokens": texts.zero_probability_tokens,
    }


def _power_of_two(bits: float) -> float:
    return 2.0**bits if bits < 1000 else math.inf


def _training_facts(training: dict[str, Any]) -> dict[str, Any]:
    """Return what training.json says; a model of an older version, or a blend, may lack some of it."""
    novelty, data = training.get("novelty") or {}, training.get("data") or {}
    evaluations = [each for each in training.get("evaluations") or () if each.get("tokens_seen") and "seconds" in each]
    curve = tuple(CurvePoint(each["seconds"], each["tokens_seen"], each.get("bits_per_character")) for each in evaluations)
    epoch, per_epoch = (data.get("tokens") or {}).get("train"), None
    if curve and epoch:
        per_epoch = curve[-1].seconds * epoch / curve[-1].tokens
    return {
        "training_seconds": training.get("seconds"),
        "seconds_per_epoch": per_epoch,
        "copy_rate": novelty.get("copy_rate"),
        "held_out_copy_rate": novelty.get("held_out_copy_rate"),
        "curve": curve,
    }


def count_parameters(model: Any) -> int:
    """Return the number of parameters; of a model that is not a network, of the numbers in its tables."""
    if isinstance(model, torch.nn.Module) and (parameters := list(model.parameters())):
        return sum(parameter.numel() for parameter in parameters)
    return sum(tensor.numel() for tensor in model.state_dict().values())


def _saved_bytes(model: ReviewModel) -> int:
    """Return the size of the saved folder, without the index of the training text, which is that of the text."""
    with temporary_folder() as parent:
        folder = parent / "model"
        model.save_pretrained(folder)
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != _INDEX)


def _describe_steps(model: ReviewModel) -> list[str]:
    """Return a sentence if a model that learns step by step has taken a single one."""
    is_single = model.training.get("steps") == 1 and not isinstance(model.bundle.model, CountTrained)
    return ["It was trained for one step only, so it has learned next to nothing: give it more time."] if is_single else []


def _describe_seen(row: Row, has_index: bool) -> list[str]:
    """Return a sentence if the model was trained on the held-out texts, or that cannot be known."""
    if row.has_seen_held_out:
        return [f"It was trained on {row.seen:.0%} of the held-out texts, so its bits per character are too low."]
    if row.seen is None and not row.is_same_split:
        index = "an index that finds only longer texts" if has_index else "no index of it"
        return [f"Whether it was trained on the held-out texts is not known: it has other data, and {index}."]
    return []
