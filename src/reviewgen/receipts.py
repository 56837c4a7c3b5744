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

from reviewgen.config import GenerationConfig, from_dict, to_dict
from reviewgen.errors import ConfigError, DataError
from reviewgen.model import Generation, ReviewModel
from reviewgen.version import __version__

__all__ = ["Replay", "make_receipt", "read_receipts", "replay"]

_KEYS = {
    "synthetic": bool,
    "text": str,
    "prompt": str,
    "number": int,
    "seed": int,
    "settings": dict,
    "model": dict,
    "versions": dict,
}
_WISHES = ("novelty", "max_copy", "conditions", "must_include")
_MOST = 10_000_000  # texts of a call
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
    settings |= {name: value for name in _WISHES if (value := getattr(request, name))}
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
            "bits": model.weight_bits,
        },
        "versions": _versions(model),
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
    lines = [line for line in text.split("\n") if line.strip()]  # a text may hold other line breaks
    found = [_parse(line) for line in lines]
    if None in found and (whole := _parse(text)) is not None:
        found = [whole]
    if not found:
        raise DataError(f"{file} holds no receipt.")
    for number, receipt in enumerate(found, 1):
        if wrong := _find_fault(receipt):
            raise DataError(f"Receipt {number} of {file} is none: {wrong}.")
        yield dict(receipt)


def replay(receipt: Mapping[str, Any], model: ReviewModel) -> Replay:
    """Write a receipt's text again, and say what differs.

    Raises:
        DataError: The receipt is damaged.
        ConfigError: The model cannot do what the receipt asks for.
    """
    if wrong := _find_fault(receipt):
        raise DataError(f"The receipt is damaged: {wrong}.")
    options, number = dict(receipt["settings"]), receipt["number"]
    try:
        config = from_dict(GenerationConfig, options.pop("generation_config"))
    except ConfigError as error:
        raise DataError(f"The receipt is damaged: {error}") from None
    if config.num_beams > 1:
        number %= config.num_return_sequences
    elif config.do_sample is False:
        number = 0
    else:
        config = dataclasses.replace(config, num_return_sequences=number + 1)
    asked = options | {"generation_config": config, "seed": receipt["seed"]}
    text = next(model.generate_each(receipt["prompt"], first=number, **asked)).text
    differences = []
    if model.digest != receipt["model"]["digest"]:
        differences.append(f"The model is another: its digest is {model.digest}, not {receipt['model']['digest']}.")
    if model.weight_bits != receipt["model"]["bits"]:
        differences.append(f"The model writes in {model.weight_bits} bits; the text was written in {receipt['model']['bits']}.")
    for name, value in _versions(model).items():
        if receipt["versions"].get(name) != value:
            differences.append(f"{name} is {value}; the text was written with {receipt['versions'].get(name)}.")
    if text != receipt["text"]:
        differences.append(_describe(receipt["text"], text))
    return Replay(text, text == receipt["text"], tuple(differences))


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _find_fault(receipt: Any) -> str | None:
    """Return what keeps a JSON value from being a receipt, if anything does."""
    if not isinstance(receipt, Mapping) or set(receipt) != _KEYS.keys():
        return f"it should be a JSON object with {', '.join(_KEYS)}"
    for name, kind in _KEYS.items():
        if type(receipt[name]) is not kind:
            return f"{name} should be of the type {kind.__name__}"
    model, settings = receipt["model"], receipt["settings"]
    if set(model) != {"source", "preset", "digest", "bits"} or not isinstance(model["source"], str | None):
        return "model should have a source, a preset, a digest and bits"
    if not {"generation_config"} <= set(settings) <= {"generation_config", *_WISHES}:
        return f"settings should have a generation_config, and nothing but {', '.join(_WISHES)} beside it"
    if type(settings["generation_config"]) is not dict or not 0 <= receipt["number"] < _MOST:
        return "its generation_config should be a JSON object, and its number not negative"
    return None


def _describe(before: str, after: str) -> str:
    """Say where two texts part."""
    place = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
    start = max(0, place - _SHOWN // 2)
    found, wanted = (repr(text[start : place + _SHOWN // 2]) for text in (after, before))
    return f"The text differs from character {place} on: {found} instead of {wanted}."


def _versions(model: ReviewModel) -> dict[str, str]:
    """Return the versions of all that a text depends on."""
    names = ("numpy", "numba", "llvmlite", "tokenizers", "torch")
    found = {"reviewgen": __version__, "python": platform.python_version(), "machine": platform.machine()}
    plugins = {plugin.package: plugin.version for plugin in (model.bundle.model_plugin, model.bundle.tokenizer_plugin)}
    return found | {name: version(name) for name in names} | plugins
