"""Reads a saved folder, strictly: names, shapes and dtypes are checked before anything is allocated."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from reviewgen import __version__
from reviewgen.bundle.layout import (
    CARD,
    CONFIG,
    GENERATION,
    NOVELTY,
    OPTIONAL_FILES,
    OWN_FILES,
    SCHEMA,
    TOLERATED,
    TRAINING,
    WEIGHTS,
    Bundle,
    fingerprint,
)
from reviewgen.conditions import Conditions
from reviewgen.config import GenerationConfig, from_dict
from reviewgen.errors import BundleError, ConfigError, ReviewgenError, UnknownPlugin
from reviewgen.novelty import read_index
from reviewgen.protocols import LanguageModel
from reviewgen.registry import Plugin, find_model, find_tokenizer

__all__ = ["read_bundle"]


def read_bundle(folder: Path) -> Bundle:
    """Read a saved folder.

    Raises:
        BundleError: The folder is missing, damaged, truncated, foreign or of an unknown schema.
        UnknownPlugin: Its model or tokenizer is not installed; says what to install.
    """
    try:
        if not folder.is_dir():
            what = "it is a file." if folder.exists() else "no such folder."
            raise BundleError(f"There is no saved model at {folder}: {what}")
        if not (folder / CONFIG).is_file():
            raise BundleError(f"{folder} is no saved model: it has no {CONFIG}.")
        return _read(folder)
    except (BundleError, UnknownPlugin):
        raise
    except OSError as error:
        raise BundleError(f"{folder} cannot be read: {error.strerror or error}.") from None
    except (ConfigError, SafetensorError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder} is damaged or foreign: {_one_line(error)}") from None


def _read(folder: Path) -> Bundle:
    config = _read_json(folder / CONFIG)
    optional = {"conditions"} & set(config) if isinstance(config, dict) else set()
    _check_keys(config, {"schema", "library", "library_version", "preset", "model", "tokenizer"} | optional, CONFIG)
    if config["schema"] != SCHEMA or config["library"] != "reviewgen":
        raise BundleError(
            f"{folder} is of schema {config['schema']!r} ({config['library']} {config['library_version']}); "
            f"this reviewgen {__version__} reads schema {SCHEMA}."
        )
    _check_keys(config["model"], {"name", "distribution", "version", "config"}, f"model in {CONFIG}")
    _check_keys(config["tokenizer"], {"name", "distribution", "version", "config", "files"}, f"tokenizer in {CONFIG}")
    _check_types(config)
    _check_files(folder, config["tokenizer"]["files"])
    generation = from_dict(GenerationConfig, _read_json(folder / GENERATION))
    training = _read_json(folder / TRAINING)
    if not isinstance(training, dict):
        raise BundleError(f"{folder / TRAINING} is damaged: it should be a JSON object.")
    kind, tokenizer_plugin = _find(find_tokenizer, config["tokenizer"])
    tokenizer_config = from_dict(kind.Config, config["tokenizer"]["config"])
    tokenizer = kind.load(folder)
    model, model_plugin = _read_model(folder, config["model"])
    conditions = Conditions(first_id=tokenizer.vocab_size)
    if "conditions" in config:
        conditions = Conditions.from_json(config["conditions"], tokenizer.vocab_size)
    if model.config.vocab_size != conditions.vocab_size:
        own = conditions.vocab_size - tokenizer.vocab_size
        raise BundleError(
            f"The model has {model.config.vocab_size} tokens, its tokenizer {tokenizer.vocab_size}"
            + (f" and its conditions {own}" if own else "")
            + ": they do not belong together."
        )
    card = (folder / CARD).read_text(encoding="utf-8")
    index = None
    if (folder / NOVELTY).is_file():
        belongs = fingerprint(training, tokenizer_plugin.name, tokenizer_config)
        index = read_index(folder / NOVELTY, belongs, tokenizer.vocab_size)
    return Bundle(
        config["preset"],
        model,
        tokenizer,
        model_plugin,
        tokenizer_plugin,
        tokenizer_config,
        generation,
        training,
        card,
        index,
        conditions or None,
    )


def _read_model(folder: Path, facts: Mapping[str, Any]) -> tuple[LanguageModel, Plugin]:
    """Build the model only after its tensors were found to fit its config."""
    kind, plugin = _find(find_model, facts)
    config = from_dict(kind.Config, facts["config"])
    expected = _expect_tensors(kind, config)
    _check_tensors(folder / WEIGHTS, expected, exact=issubclass(kind, nn.Module))
    model = kind(config)
    tensors = load_file(folder / WEIGHTS)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:  # torch's word on tensors that do not fit
        raise BundleError(f"{WEIGHTS} does not fit the model: {_one_line(error)}") from None
    if isinstance(model, nn.Module):
        model.eval()
    return model, plugin


def _expect_tensors(kind: Any, config: Any) -> dict[str, Tensor]:
    """Return the names, shapes and dtypes of a model's tensors, without the memory for them."""
    try:
        with torch.device("meta"):
            expected: dict[str, Tensor] = kind(config).state_dict()
    except (RuntimeError, OverflowError) as error:  # torch's word on sizes that no machine can count
        raise BundleError(f"No model can be built from the config in {CONFIG}: {_one_line(error)}") from None
    return expected


def _find(find: Any, facts: Mapping[str, Any]) -> tuple[Any, Plugin]:
    try:
        found: tuple[Any, Plugin] = find(facts["name"])
    except UnknownPlugin:
        package = facts["distribution"]
        raise UnknownPlugin(
            f"This model needs {facts['name']!r} of the package {package} {facts['version']}, which is not installed. "
            f"Install it: pip install {package}"
        ) from None
    return found


def _check_tensors(file: Path, expected: Mapping[str, Tensor], *, exact: bool) -> None:
    """Compare the header of a safetensors file with what the model expects; the sizes of counts are only known after counting."""
    with safe_open(file, framework="pt") as tensors:
        names = set(tensors.keys())
        if names != set(expected):
            missing, extra = sorted(set(expected) - names), sorted(names - set(expected))
            raise BundleError(f"{WEIGHTS} does not fit its config: missing {_few(missing)}, unknown {_few(extra)}.")
        for name, tensor in expected.items():
            part = tensors.get_slice(name)
            shape, dtype = tuple(part.get_shape()), _DTYPES.get(part.get_dtype())
            if dtype != tensor.dtype or (shape != tuple(tensor.shape) if exact else len(shape) != tensor.dim()):
                found, wanted = f"{part.get_dtype()} {list(shape)}", f"{tensor.dtype} {list(tensor.shape)}"
                raise BundleError(f"{name} in {WEIGHTS} is {found}; its config asks for {wanted}.")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "none"


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
}


def _check_files(folder: Path, tokenizer_files: Any) -> None:
    if not isinstance(tokenizer_files, list) or not all(isinstance(n, str) and Path(n).name == n for n in tokenizer_files):
        raise BundleError(f"{CONFIG} names tokenizer files outside its folder: {tokenizer_files}.")
    belong = OWN_FILES | set(tokenizer_files)
    there = {file.name for file in folder.iterdir()} - TOLERATED
    if missing := sorted(belong - there):
        raise BundleError(f"{folder} is incomplete: {', '.join(missing)} is missing.")
    if foreign := sorted(there - belong - OPTIONAL_FILES):
        raise BundleError(f"{folder} holds files that do not belong to a saved model: {', '.join(foreign)}. Remove them.")
    if odd := sorted(name for name in belong | (OPTIONAL_FILES & there) if not (folder / name).is_file()):
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
