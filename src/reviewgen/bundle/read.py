"""Reads a saved folder, strictly: names, shapes and dtypes are checked before any memory is allocated for them."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from reviewgen.bundle.earlier import rename_copy_rates
from reviewgen.bundle.layout import (
    CARD,
    CLIENT_FILES,
    CONFIG,
    GENERATION,
    LEXICON,
    NOVELTY,
    OPTIONAL_FILES,
    PARTS,
    SCHEMA,
    TOLERATED,
    TRAINING,
    Bundle,
    files_of,
    fingerprint,
)
from reviewgen.bundle.manifest import compare, digest_files, finish_defaults, read_manifest
from reviewgen.bundle.tensors import SavedTensors
from reviewgen.bundle.weights import Weights
from reviewgen.conditions import Conditions
from reviewgen.config import MAX_RECORD, MAX_SETTINGS, read_json, read_saved_generation, read_text
from reviewgen.errors import BundleError, ConfigError, ReviewgenError, SourceError, StorageError, UnknownPlugin, quoted
from reviewgen.lexicon import read_lexicon
from reviewgen.names import is_plugin_name, parse_preset
from reviewgen.novelty import read_index
from reviewgen.protocols import Tokenizer
from reviewgen.protocols.migration import read_saved_config
from reviewgen.registry import describe_plugin, find_stepper, find_tokenizer, name_of_saved
from reviewgen.storage import recover
from reviewgen.version import __version__

_MAX_MESSAGE = 480  # characters
_TRIES = 10  # of reading a folder that another process replaces meanwhile
_MAX_PRESET = 200  # characters
_MAX_FIGURE = 1_000_000  # of bits per character, and of shares


def read_bundle(folder: Path, weight_bits: int = 32, *, strict: bool = True, accept_changes: bool = False) -> Bundle:
    """Read a saved folder.

    Args:
        folder: The saved folder.
        weight_bits: The precision of the weights in generation: 32, 16 or 8 bits.
        strict: Whether unknown files are an error. False for a folder of the Hub's cache, where other programs may put files.
        accept_changes: Whether to read files that are not as they were saved.

    Raises:
        BundleError: The folder is missing, damaged, truncated, not a saved model or of an unknown schema, or a file has changed
            since it was saved.
        UnknownPlugin: Its model or tokenizer is not installed; the message names the package to install, or what to register.
    """
    try:
        with _reading(folder):
            return _read_unchanged(folder, lambda: _read_checked(folder, weight_bits, strict, accept_changes))
    except (BundleError, UnknownPlugin) as error:
        raise type(error)(_shorten(str(error))) from None
    except (ConfigError, SafetensorError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise BundleError(_shorten(f"{folder} is damaged or not a saved model: {_one_line(error)}")) from None


def read_training(folder: Path) -> dict[str, Any]:
    """Read only the training record of a saved folder.

    Raises:
        BundleError: The folder is missing, damaged or not a saved model, or the record has changed since it was saved.
    """
    with _reading(folder):
        training = _parse_training(folder)
        saved = read_manifest(folder, files_of(_read_json(folder / CONFIG)))
        if saved is not None:  # last, as in ``read_bundle``
            compare(folder, {name: saved[name] for name in saved.keys() & {TRAINING}}, digest_files(folder, [TRAINING]))
    return training


def _parse_training(folder: Path) -> dict[str, Any]:
    training = _read_json(folder / TRAINING, MAX_RECORD)
    if not isinstance(training, dict):
        raise BundleError(f"{folder / TRAINING} is damaged: it should be a JSON object.")
    parts = {name: training.get(name) for name in ("data", "config", "held_out", "novelty", "metrics", "verdict", "parent")}
    if odd := [name for name, part in parts.items() if not isinstance(part, dict | None)]:
        raise BundleError(f"{folder / TRAINING} is damaged: {odd[0]} should be an object.")
    training = rename_copy_rates(training)
    for part, name in (("held_out", "bits_per_character"), ("novelty", "copy_rate"), ("novelty", "token_copy_rate")):
        value = (training.get(part) or {}).get(name)
        if not isinstance(value, int | float | None) or not 0 <= (value or 0) <= _MAX_FIGURE:
            raise BundleError(f"{folder / TRAINING} is damaged: {name} should be a number from 0 to {_MAX_FIGURE:,}.")
    if not all(map(_is_metric, (training.get("metrics") or {}).values())):
        raise BundleError(f"{folder / TRAINING} is damaged: its metrics should have a unit, a direction and two values each.")
    return training


def _is_metric(facts: Any) -> bool:
    """Return whether a JSON value is a metric, as a training records it."""
    return (
        isinstance(facts, dict)
        and isinstance(facts.get("unit"), str)
        and isinstance(facts.get("lower_is_better"), bool | None)
        and facts.keys() >= {"lower_is_better", "generated", "held_out"}
        and all(isinstance(facts[name], int | float | None) for name in ("generated", "held_out"))
    )


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Raise a BundleError of one sentence if there is no saved model, or the operating system refuses to read it."""
    try:
        if not folder.exists():
            recover(folder)
        if not folder.is_dir():
            reason = "it is a file." if folder.exists() else "no such folder."
            raise BundleError(f"There is no saved model at {folder}: {reason}")
        if not (folder / CONFIG).is_file():
            raise BundleError(f"{folder} is not a saved model: it has no {CONFIG}.")
        yield
    except ReviewgenError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # reading needs none, but loops are compiled meanwhile
            raise StorageError(
                f"No room for compiled code: {error.strerror}. Free some space, or name another folder in NUMBA_CACHE_DIR."
            ) from None
        raise BundleError(f"{folder} cannot be read: {error.strerror or error}.") from None


def _read_unchanged(folder: Path, read: Callable[[], Bundle]) -> Bundle:
    """Read a folder, again if another process has changed or replaced it meanwhile: its parts would not belong together.

    Raises:
        BundleError: It has changed each time.
    """
    for _ in range(_TRIES):
        before = _identify(folder)
        try:
            bundle = read()
        except Exception:  # of any kind; a file may have been cut while it was read
            if _identify(folder) == before:
                raise
            continue
        if _identify(folder) == before:
            return bundle
    raise BundleError(f"{folder} was changed by another process while it was read. Load it again.")


def _identify(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return what changes when a file of a folder is written or replaced."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        stats = {entry.name: entry.stat() for entry in entries if entry.name not in TOLERATED}
        return {name: (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
    return {}


def _read_checked(folder: Path, weight_bits: int, strict: bool, accept_changes: bool) -> Bundle:
    config = _read_json(folder / CONFIG)
    optional = {"conditions", PARTS} & set(config) if isinstance(config, dict) else set()
    _check_keys(config, {"schema", "library", "library_version", "preset", "model", "tokenizer"} | optional, CONFIG)
    if config["schema"] != SCHEMA or config["library"] != "reviewgen":
        raise BundleError(
            f"{folder} has schema {ascii(config['schema'])[:40]} of {ascii(config['library'])[:40]}; "
            f"reviewgen {__version__} reads schema {SCHEMA} of 'reviewgen'."
        )
    _check_keys(config["model"], {"name", "distribution", "version", "config"}, f"model in {CONFIG}")
    _check_keys(config["tokenizer"], {"name", "distribution", "version", "config", "files"}, f"tokenizer in {CONFIG}")
    _check_types(config)
    _check_preset(config["preset"])
    names = files_of(config)
    _check_files(folder, names, strict)
    if strict:
        finish_defaults(folder, names)
    present, manifest = digest_files(folder, names), None if accept_changes else read_manifest(folder, names)
    defaults = _read_json(folder / GENERATION)
    if not isinstance(defaults, dict):
        raise BundleError(f"{folder / GENERATION} is damaged: it should be a JSON object.")
    generation = read_saved_generation(defaults)
    training = _parse_training(folder)
    saved_tokenizer = config["tokenizer"]
    tokenizer_class, tokenizer_plugin = find_tokenizer(name_of_saved("tokenizer", saved_tokenizer))
    tokenizer_config = read_saved_config(tokenizer_class.Config, saved_tokenizer["config"], saved_tokenizer["version"])
    tokenizer = tokenizer_class.load(folder)
    model_name = name_of_saved("model", config["model"])
    saved = SavedTensors.find(folder, config.get(PARTS, {}))
    weights, model_config = _read_weights(saved, model_name, config["model"], weight_bits)
    vocab_size = model_config.vocab_size
    conditions = Conditions(first_id=tokenizer.vocab_size)
    if "conditions" in config:
        conditions = Conditions.from_json(config["conditions"], tokenizer.vocab_size)
    if vocab_size != conditions.vocab_size:
        condition_ids = conditions.vocab_size - tokenizer.vocab_size
        raise BundleError(
            f"The model has {vocab_size} tokens, its tokenizer {tokenizer.vocab_size}"
            + (f" and its conditions {condition_ids}" if condition_ids else "")
            + ": they do not belong together."
        )
    _refuse_other_ids(model_config, tokenizer)
    card = _read_card(folder / CARD)
    index = None
    if (folder / NOVELTY).is_file():
        expected = fingerprint(training, tokenizer_plugin.name, config["tokenizer"]["config"])
        index = read_index(folder / NOVELTY, expected, tokenizer.vocab_size)
    lexicon = read_lexicon(folder / LEXICON) if (folder / LEXICON).is_file() else None
    if manifest is not None:  # last: what a reader finds wrong in a file says more
        compare(folder, manifest, present, is_local=strict)
    return Bundle(
        preset=config["preset"],
        weights=weights,
        tokenizer=tokenizer,
        model_plugin=describe_plugin("model", model_name),
        tokenizer_plugin=tokenizer_plugin,
        tokenizer_config=tokenizer_config,
        generation=generation,
        training=training,
        card=card,
        index=index,
        lexicon=lexicon,
        conditions=conditions or None,
        folder=folder,
        digests={name: file.sha256 for name, file in present.items()},
    )


def _read_weights(saved: SavedTensors, name: str, facts: Mapping[str, Any], weight_bits: int) -> tuple[Weights, Any]:
    """Return a model's weights, after their tensors were compared with its config, and the config.

    A model with a stepper entry point generates without torch; its torch model is built on first use.
    """
    factory = find_stepper(name)
    config = None if factory is None else read_saved_config(factory.Config, facts["config"], facts["version"])
    expected = None if factory is None else factory.expect(config)
    if factory is None or expected is None:
        from reviewgen.bundle.model import read_model

        model = read_model(saved, name, facts["config"], facts["version"])
        return Weights(model, weight_bits=weight_bits), model.config
    arrays = saved.load(expected, load_file)
    tensors = {key: array.astype(expected[key][0], copy=False) for key, array in arrays.items()}

    def load() -> Any:
        from reviewgen.bundle.model import build_model

        return build_model(name, config, tensors)

    return Weights(load=load, stepper=factory(config, tensors, weight_bits), weight_bits=weight_bits), config


def _refuse_other_ids(config: Any, tokenizer: Tokenizer) -> None:
    """Raise if the bos_id or eos_id in the config of a model, or of the parts of a blend, is not the tokenizer's.

    Raises:
        BundleError: They differ.
    """
    for name, expected in (("bos_id", tokenizer.bos_id), ("eos_id", tokenizer.eos_id)):
        if (own := getattr(config, name, None)) not in (None, expected):
            raise BundleError(f"The model has {name} {own}, its tokenizer {expected}: they do not belong together.")


def _check_files(folder: Path, known: set[str], strict: bool) -> None:
    present = {file.name for file in folder.iterdir()} - TOLERATED - CLIENT_FILES
    optional = OPTIONAL_FILES if strict else OPTIONAL_FILES | {CARD}  # a card may be deleted on the Hub
    if missing := sorted(known - optional - present):
        raise BundleError(f"{folder} is incomplete: {', '.join(missing)} is missing.")
    if strict and (foreign := sorted(present - known)):
        raise BundleError(f"{folder} holds files that do not belong to a saved model: {', '.join(foreign)}. Remove them.")
    if odd := sorted(name for name in known & present if not (folder / name).is_file()):
        raise BundleError(f"{folder} is damaged: {', '.join(odd)} is not a file.")


def _check_keys(values: Any, known: set[str], where: str) -> None:
    if not isinstance(values, dict) or set(values) != known:
        got = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise BundleError(f"The keys of {where} should be {sorted(known)}; got {got}.")


def _check_types(config: Mapping[str, Any]) -> None:
    if PARTS in config and not (
        isinstance(config[PARTS], dict) and config[PARTS] and all(isinstance(digest, str) for digest in config[PARTS].values())
    ):
        raise BundleError(f"{PARTS} in {CONFIG} should have the SHA-256 of each part's file; got {ascii(config[PARTS])[:80]}.")
    facts = {"schema": config["schema"], "preset": config["preset"], "library_version": config["library_version"]}
    expected = {"schema": int, "preset": str, "library_version": str}
    for part in ("model", "tokenizer"):
        facts |= {f"{part}.{key}": value for key, value in config[part].items() if key != "files"}
        expected |= {f"{part}.{key}": dict if key == "config" else str for key in config[part] if key != "files"}
    for key, kind in expected.items():
        if type(facts[key]) is not kind:
            raise BundleError(f"{key} in {CONFIG} should be of type {kind.__name__}; got {quoted(facts[key])}.")


def _check_preset(preset: str) -> None:
    """Raise if a folder's preset does not have the form of one: others print it."""
    if is_plugin_name(preset):  # such as "blend", of models that were trained apart
        return
    try:
        parse_preset(preset[:_MAX_PRESET])
    except SourceError as error:
        raise BundleError(f"preset in {CONFIG} cannot be read: {error}") from None


def _read_json(file: Path, max_bytes: int = MAX_SETTINGS) -> Any:
    try:
        return read_json(file, max_bytes)
    except ValueError as error:  # not UTF-8, not JSON, too large, nested too deeply, or with a number that is not plausible
        raise BundleError(f"{file} is damaged: it is not JSON ({error}).") from None


def _shorten(message: str) -> str:
    """Return a message in one line of printable characters, without the middle of a very long one: files say what they like."""
    plain = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in message[: 2 * _MAX_MESSAGE])
    return plain if len(plain) <= _MAX_MESSAGE else f"{plain[: _MAX_MESSAGE - 100]} ... {message[-90:]}"


def _read_card(file: Path) -> str:
    if not file.is_file():
        return ""
    try:
        return read_text(file, encoding="utf-8-sig")
    except ValueError as error:
        raise BundleError(f"{file} is damaged: {error}. Shorten or remove it.") from None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = " ".join(line.strip() for line in lines[:3])
    return f"a key is missing: {text}" if isinstance(error, KeyError) and not isinstance(error, ReviewgenError) else text
