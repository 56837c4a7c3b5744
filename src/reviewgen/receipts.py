"""Receipts: what is needed to write a text again, and whether it comes out the same.

A receipt is one JSON object::

    synthetic   true: a model wrote the text
    text        it
    prompt, number, seed
    settings    of generation, every one; novelty, max_copy, conditions and must_include where given
    model       the preset, the digest of its folder, the bits of a weight, and where it was loaded from
    versions    of what the arithmetic depends on

A file of receipts has one a line.
"""

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reviewgen import __version__
from reviewgen.config import GenerationConfig, from_dict, to_dict
from reviewgen.errors import ConfigError, DataError
from reviewgen.model import Generation, ReviewModel

__all__ = ["Replay", "make_receipt", "read_receipts", "replay"]

_KEYS = {"synthetic", "text", "prompt", "number", "seed", "settings", "model", "versions"}
_SHOWN = 40  # characters around the first difference


@dataclass(frozen=True)
class Replay:
    """A text written again.

    Attributes:
        text: It.
        is_equal: Whether it is that of the receipt.
        differences: What is not as it was, in sentences: the model, versions, the text.
    """

    text: str
    is_equal: bool
    differences: tuple[str, ...]


def make_receipt(model: ReviewModel, generation: Generation, source: str | Path | None = None) -> dict[str, Any]:
    """Return the receipt of a text that a model has just written, as JSON values.

    Args:
        model: The model.
        generation: The text, from ``generate(..., return_dict_in_generate=True)`` or ``generate_each``.
        source: Where ``replay`` finds the model again, as ``load`` takes it.

    Raises:
        ConfigError: The call had logits processors or stopping criteria, which no receipt can hold.
    """
    request = generation.request
    if request.hooks is not None and (request.hooks.processors or request.hooks.criteria):
        raise ConfigError("A text written with logits_processor or stopping_criteria has no receipt: it cannot hold functions.")
    settings: dict[str, Any] = {"generation_config": to_dict(request.config)}
    for name in ("novelty", "max_copy", "conditions", "must_include"):
        if value := getattr(request, name):
            settings[name] = dict(value) if isinstance(value, Mapping) else value
    return {
        "synthetic": True,
        "text": generation.text,
        "prompt": generation.prompt,
        "number": generation.number,
        "seed": generation.seed,
        "settings": settings,
        "model": {
            "source": None if source is None else str(source),
            "preset": model.preset,
            "digest": model.digest,
            "bits": model.bits,
        },
        "versions": _versions(),
    }


def read_receipts(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the receipts of a file: one JSON object, or one a line.

    Raises:
        DataError: The file cannot be read, or holds something else.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}.") from None
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        found = [json.loads(line) for line in lines]
    except ValueError:
        found = _whole(text)
    for number, receipt in enumerate(found, 1):
        if not isinstance(receipt, dict) or set(receipt) != _KEYS:
            raise DataError(f"Receipt {number} of {file} is none: it should be a JSON object with {', '.join(sorted(_KEYS))}.")
        yield receipt
    if not found:
        raise DataError(f"{file} holds no receipt.")


def replay(receipt: Mapping[str, Any], model: ReviewModel) -> Replay:
    """Write a receipt's text again, and say what differs.

    Raises:
        DataError: The receipt is damaged.
        ConfigError: The model cannot do what the receipt asks for.
    """
    try:
        config = from_dict(GenerationConfig, receipt["settings"]["generation_config"])
        options = {name: value for name, value in receipt["settings"].items() if name != "generation_config"}
        number, seed, prompt = receipt["number"], receipt["seed"], receipt["prompt"]
        known_digest, known_bits = receipt["model"]["digest"], receipt["model"]["bits"]
        known_versions = dict(receipt["versions"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"The receipt is damaged: {error}") from None
    if config.num_beams > 1:
        number %= config.num_return_sequences
    elif config.do_sample is False:
        number = 0
    else:
        config = dataclasses.replace(config, num_return_sequences=number + 1)
    text = next(model.generate_each(prompt, first=number, generation_config=config, seed=seed, **options)).text
    differences = []
    if model.digest != known_digest:
        differences.append(f"The model is another: its digest is {model.digest}, that of the receipt {known_digest}.")
    if model.bits != known_bits:
        differences.append(f"The model writes in {model.bits} bits; the text was written in {known_bits}.")
    for name, value in _versions().items():
        if known_versions.get(name) != value:
            differences.append(f"{name} is {value}; the text was written with {known_versions.get(name)}.")
    if text != receipt["text"]:
        differences.append(_describe(receipt["text"], text))
    return Replay(text, text == receipt["text"], tuple(differences))


def _describe(before: str, after: str) -> str:
    """Say where two texts part."""
    place = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
    start = max(0, place - _SHOWN // 2)
    found, wanted = (repr(text[start : place + _SHOWN // 2]) for text in (after, before))
    return f"The text differs from character {place} on: {found} instead of {wanted}."


def _versions() -> dict[str, str]:
    names = ("numpy", "numba", "tokenizers")
    found = {"reviewgen": __version__, "python": platform.python_version(), "machine": platform.machine()}
    return found | {name: version(name) for name in names}


def _whole(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        return [None]
