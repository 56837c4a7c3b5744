"""Reads a saved folder, strictly: names, shapes and dtypes are checked before anything is allocated."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.numpy import load_file

from reviewgen.bundle.layout import (
    CARD,
    CONFIG,
    GENERATION,
    NOVELTY,
    OPTIONAL_FILES,
    SCHEMA,
    TOLERATED,
    TRAINING,
    WEIGHTS,
    Bundle,
    files_of,
    fingerprint,
)
from reviewgen.bundle.tensors import check_tensors
from reviewgen.bundle.weights import Weights
from reviewgen.conditions import Conditions
from reviewgen.config import GenerationConfig, from_dict
from reviewgen.errors import BundleError, ConfigError, ReviewgenError, UnknownPlugin
from reviewgen.novelty import read_index
from reviewgen.registry import describe_plugin, find_stepper, find_tokenizer
from reviewgen.version import __version__

__all__ = ["read_bundle", "read_training"]

FoundT = TypeVar("FoundT")


def read_bundle(folder: Path, weight_bits: int = 32, *, strict: bool = True) -> Bundle:
    """Read a saved folder.

    Args:
        folder: It.
        weight_bits: Of a weight while the model writes: 32, 16 or 8.
        strict: Whether files that do not belong to a saved model are an error; what others fetched from the Hub is none of ours.

    Raises:
        BundleError: The folder is missing, damaged, truncated, foreign or of an unknown schema.
        UnknownPlugin: Its model or tokenizer is not installed; says what to install.
    """
    try:
        with _readable(folder):
            return _read(folder, weight_bits, strict)
    except (BundleError, UnknownPlugin):
        raise
    except (ConfigError, SafetensorError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder} is damaged or foreign: {_one_line(error)}") from None


def read_training(folder: Path) -> dict[str, Any]:
    """Read what a saved folder tells of its training, and nothing else of it.

    Raises:
        BundleError: The folder is missing, no saved model or damaged.
    """
    with _readable(folder):
        training = _read_json(folder / TRAINING)
    if not isinstance(training, dict):
        raise BundleError(f"{folder / TRAINING} is damaged: it should be a JSON object.")
    parts = {name: training.get(name) for name in ("data", "config", "held_out", "novelty", "verdict", "parent")}
    if odd := [name for name, part in parts.items() if not isinstance(part, dict | None)]:
        raise BundleError(f"{folder / TRAINING} is damaged: {odd[0]} should be an object.")
    for part, name in (("held_out", "bits_per_character"), ("novelty", "copy_rate")):
        if not isinstance((parts[part] or {}).get(name), int | float | None):
            raise BundleError(f"{folder / TRAINING} is damaged: {name} should be a number.")
    return training


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Say in one sentence where there is no saved model, or the operating system does not let it be read."""
    try:
        if not folder.is_dir():
            what = "it is a file." if folder.exists() else "no such folder."
            raise BundleError(f"There is no saved model at {folder}: {what}")
        if not (folder / CONFIG).is_file():
            raise BundleError(f"{folder} is no saved model: it has no {CONFIG}.")
        yield
    except ReviewgenError:
        raise
    except OSError as error:
        raise BundleError(f"{folder} cannot be read: {error.strerror or error}.") from None


def _read(folder: Path, weight_bits: int, strict: bool) -> Bundle:
    config = _read_json(folder / CONFIG)
    optional = {"conditions"} & set(config) if isinstance(config, dict) else set()
    _check_keys(config, {"schema", "library", "library_version", "preset", "model", "tokenizer"} | optional, CONFIG)
    if config["schema"] != SCHEMA or config["library"] != "reviewgen":
        raise BundleError(
            f"{folder} is of schema {ascii(config['schema'])[:40]} ({ascii(config['library'])[:40]}); "
            f"this reviewgen {__version__} reads schema {SCHEMA}."
        )
    _check_keys(config["model"], {"name", "distribution", "version", "config"}, f"model in {CONFIG}")
    _check_keys(config["tokenizer"], {"name", "distribution", "version", "config", "files"}, f"tokenizer in {CONFIG}")
    _check_types(config)
    _check_files(folder, files_of(config), strict)
    defaults = _read_json(folder / GENERATION)
    if not isinstance(defaults, dict):
        raise BundleError(f"{folder / GENERATION} is damaged: it should be a JSON object.")
    generation = from_dict(GenerationConfig, defaults)
    training = read_training(folder)
    kind, tokenizer_plugin = _find(find_tokenizer, config["tokenizer"])
    tokenizer_config = from_dict(kind.Config, config["tokenizer"]["config"])
    tokenizer = kind.load(folder)
    model_plugin = _find(lambda name: describe_plugin("model", name), config["model"])
    weights, vocab_size = _read_weights(folder, config["model"], weight_bits)
    conditions = Conditions(first_id=tokenizer.vocab_size)
    if "conditions" in config:
        conditions = Conditions.from_json(config["conditions"], tokenizer.vocab_size)
    if vocab_size != conditions.vocab_size:
        own = conditions.vocab_size - tokenizer.vocab_size
        raise BundleError(
            f"The model has {vocab_size} tokens, its tokenizer {tokenizer.vocab_size}"
            + (f" and its conditions {own}" if own else "")
            + ": they do not belong together."
        )
    card = (folder / CARD).read_text(encoding="utf-8-sig") if (folder / CARD).is_file() else ""
    index = None
    if (folder / NOVELTY).is_file():
        belongs = fingerprint(training, tokenizer_plugin.name, tokenizer_config)
        index = read_index(folder / NOVELTY, belongs, tokenizer.vocab_size)
    return Bundle(
        preset=config["preset"],
        weights=weights,
        tokenizer=tokenizer,
        model_plugin=model_plugin,
        tokenizer_plugin=tokenizer_plugin,
        tokenizer_config=tokenizer_config,
        generation=generation,
        training=training,
        card=card,
        index=index,
        conditions=conditions or None,
        folder=folder,
    )


def _read_weights(folder: Path, facts: Mapping[str, Any], weight_bits: int) -> tuple[Weights, int]:
    """Return a model's weights, once they were found to fit its config, and the size of its vocabulary.

    A model that has a stepper of its own is ready to write without torch; torch's form is made when it is asked for.
    """
    kind = find_stepper(facts["name"])
    config = None if kind is None else from_dict(kind.Config, facts["config"])
    expected = None if kind is None else kind.expect(config)
    if kind is None or expected is None:
        from reviewgen.bundle.model import read_model

        model = read_model(folder, facts["name"], facts["config"])
        return Weights(model, weight_bits=weight_bits), model.config.vocab_size
    check_tensors(folder, expected)
    tensors = {name: array.astype(expected[name][0], copy=False) for name, array in load_file(folder / WEIGHTS).items()}

    def load() -> Any:
        from reviewgen.bundle.model import build_model

        return build_model(facts["name"], config, tensors)

    return Weights(load=load, stepper=kind(config, tensors, weight_bits), weight_bits=weight_bits), facts["config"]["vocab_size"]


def _find(find: Callable[[str], FoundT], facts: Mapping[str, Any]) -> FoundT:
    try:
        return find(facts["name"])
    except UnknownPlugin:
        package, version = facts["distribution"], facts["version"]
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", package, re.ASCII) or not re.fullmatch(
            r"[\w.+!-]{0,50}", version, re.ASCII
        ):
            raise BundleError(f"This model needs {ascii(facts['name'])[:60]} of a package that is none by its name.") from None
        raise UnknownPlugin(
            f"This model needs {facts['name']!r} of the package {package} {version}, which is not installed. "
            f"Install it: pip install {package}"
        ) from None


def _check_files(folder: Path, known: set[str], strict: bool) -> None:
    there = {file.name for file in folder.iterdir()} - TOLERATED
    may_lack = OPTIONAL_FILES if strict else OPTIONAL_FILES | {CARD}  # a card may be deleted on the Hub
    if missing := sorted(known - may_lack - there):
        raise BundleError(f"{folder} is incomplete: {', '.join(missing)} is missing.")
    if strict and (foreign := sorted(there - known)):
        raise BundleError(f"{folder} holds files that do not belong to a saved model: {', '.join(foreign)}. Remove them.")
    if odd := sorted(name for name in known & there if not (folder / name).is_file()):
        raise BundleError(f"{folder} is damaged: {', '.join(odd)} is no file.")


def _check_keys(values: Any, known: set[str], where: str) -> None:
    if not isinstance(values, dict) or set(values) != known:
        got = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise BundleError(f"The keys of {where} should be {sorted(known)}; found {got}.")


def _check_types(config: Mapping[str, Any]) -> None:
    facts = {"schema": config["schema"], "preset": config["preset"], "library_version": config["library_version"]}
    wanted = {"schema": int, "preset": str, "library_version": str}
    for part in ("model", "tokenizer"):
        facts |= {f"{part}.{key}": value for key, value in config[part].items() if key != "files"}
        wanted |= {f"{part}.{key}": dict if key == "config" else str for key in config[part] if key != "files"}
    for key, kind in wanted.items():
        if type(facts[key]) is not kind:
            raise BundleError(f"{key} in {CONFIG} should be of type {kind.__name__}; found {facts[key]!r}.")


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, an endless number, nested beyond reason
        raise BundleError(f"{file} is damaged: it is no JSON ({error}).") from None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = " ".join(line.strip() for line in lines[:3])
    return f"a key is missing: {text}" if isinstance(error, KeyError) and not isinstance(error, ReviewgenError) else text
