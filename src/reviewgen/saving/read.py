"""Reads a saved folder strictly: the names, shapes and dtypes of its tensors are checked before
memory is allocated for them.
"""

import contextlib
import errno
import json
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from reviewgen.conditions import Conditions
from reviewgen.config.bounded import (
    MAX_RECORD,
    MAX_SETTINGS,
    MAX_VOCABULARY,
    read_json,
    read_text,
)
from reviewgen.config.generation import GenerationConfig, read_saved_generation
from reviewgen.config.records import check_record
from reviewgen.config.settings import fields_of
from reviewgen.errors import (
    BundleError,
    ConfigError,
    ReviewgenError,
    StorageError,
    UnknownPlugin,
    first_line,
    printable,
    quoted,
)
from reviewgen.formats.bigrams import read_bigrams
from reviewgen.lexicon.lexicon import read_lexicon
from reviewgen.novelty import read_index
from reviewgen.protocols.migration import read_saved_config
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import find_stepper, find_tokenizer, list_plugins
from reviewgen.registry.saved import plugin_of_saved
from reviewgen.saving import layout
from reviewgen.saving.arpa import ARPA, read_ngrams
from reviewgen.saving.layout import Bundle
from reviewgen.saving.tensors import SavedTensors
from reviewgen.saving.weights import ModelWeights
from reviewgen.storage import describe_cut_off
from reviewgen.version import __version__

_PLUGIN = {"name": str, "distribution": str, "version": str, "config": dict}
_TOKENIZER = _PLUGIN | {"files": list}
_CONFIG = {
    "schema": int,
    "library": str,
    "library_version": str,
    "preset": str,
    "model": _PLUGIN,
    "tokenizer": _TOKENIZER,
}
_MAX_PRESET = 200  # maximum characters of a preset's name
# the name of a preset, where PACKAGE:NAME stands for a plugin of a package
_PRESET = re.compile(r"([A-Za-z0-9][\w.-]*:)?[a-z][a-z0-9-]*([\w.-]*:[a-z][a-z0-9]*)?", re.ASCII)


def read_bundle(
    folder: Path, weight_bits: int = 32, *, strict: bool = True, accept_changes: bool = False
) -> Bundle:
    """Read a saved folder, or an ARPA file.

    Args:
        folder: The saved folder, or a file whose name ends in .arpa.
        weight_bits: The precision of the weights in generation: 32, 16 or 8 bits.
        strict: Whether unknown files are an error. False for a folder in the Hub's cache, since
            other programs may write there.
        accept_changes: Whether to read the model although files have changed since it was saved.

    Raises:
        BundleError: The folder is missing, damaged, truncated, not a saved model or of an unknown
            schema, or a file has changed since it was saved.
        UnknownPlugin: The model's or the tokenizer's plugin is not installed. The message says
            which package to install, or what to register.
    """
    if folder.suffix == ARPA and folder.is_file():
        return _read_arpa(folder, weight_bits)
    with _reading(folder):
        values = _read_json(folder / layout.CONFIG)
        if isinstance(values, dict) and "architectures" in values:
            bundle = _read_transformers(folder, values, weight_bits)
            bundle.digests = layout.digest_files(folder, layout.files_of(values))
            return bundle
        config = _read_config(folder)
        names = layout.files_of(config)
        _check_files(folder, names, strict)
        present = layout.digest_files(folder, names)
        bundle = _read_checked(folder, config, weight_bits)
        if not accept_changes:  # checked last, because the errors of the readers are more precise
            layout.check_manifest(folder, names, present, is_local=strict)
        bundle.digests = present
        return bundle


def read_training(folder: Path) -> dict[str, Any]:
    """Read only the training record of a saved folder.

    Raises:
        BundleError: The folder is missing, damaged or not a saved model, or the record has changed
            since it was saved.
    """
    with _reading(folder):
        training = _parse_training(folder)
        names = [layout.TRAINING]
        layout.check_manifest(folder, names, layout.digest_files(folder, names))
        return training


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Raise an error with a short message if a folder is not a saved model, or if the block cannot
    read the folder.
    """
    try:
        if not folder.is_dir():
            reason = describe_cut_off(folder) or (
                "it is a file." if folder.exists() else "no such folder."
            )
            raise BundleError(f"There is no saved model at {folder}: {reason}")
        if not (folder / layout.CONFIG).is_file():
            raise BundleError(f"{folder} is not a saved model: it has no {layout.CONFIG}.")
        yield
    except (BundleError, UnknownPlugin) as error:
        raise type(error)(printable(str(error))) from None
    except (ConfigError, SafetensorError, KeyError, TypeError, UnicodeDecodeError) as error:
        reason = f"a key is missing: {error}" if type(error) is KeyError else first_line(error)
        raise BundleError(
            printable(f"{folder} is damaged or not a saved model: {reason}")
        ) from None
    except OSError as error:
        if isinstance(error, ReviewgenError):
            raise
        # Reading needs no disk space, but numba may write compiled loops to its cache at this time.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "Free some space, or name another folder in NUMBA_CACHE_DIR."
            raise StorageError(f"No room for compiled code: {error.strerror}. {advice}") from None
        raise BundleError(
            printable(f"{folder} cannot be read: {error.strerror or error}.")
        ) from None


def _read_config(folder: Path) -> dict[str, Any]:
    """Read config.json and check it. The configs of the plugins and the list of the tokenizer's
    files are not checked here.
    """
    config: Any = _read_json(folder / layout.CONFIG)
    if isinstance(config, dict) and config.keys() >= {"schema", "library"}:
        schema = config["schema"]
        library = config["library"]
        if (schema, library) != (layout.SCHEMA, "reviewgen"):
            raise BundleError(
                f"{folder} has schema {ascii(schema)[:40]} of {ascii(library)[:40]}; "
                f"reviewgen {__version__} reads schema {layout.SCHEMA} of 'reviewgen'."
            )
    _check_object(config, _CONFIG, layout.CONFIG, optional={"conditions", layout.SHARED_WEIGHTS})
    if layout.SHARED_WEIGHTS in config:
        shared = config[layout.SHARED_WEIGHTS]
        digests = shared.values() if isinstance(shared, dict) else ()
        if not digests or not all(isinstance(digest, str) for digest in digests):
            raise BundleError(
                f"{layout.SHARED_WEIGHTS} in {layout.CONFIG} should have the SHA-256 of each part's"
                f" file; got {quoted(shared)}."
            )
    if len(config["preset"]) > _MAX_PRESET or not _PRESET.fullmatch(config["preset"]):
        raise BundleError(
            f"preset in {layout.CONFIG} cannot be read: {quoted(config['preset'])} is not a preset"
            " name."
        )
    return dict(config)


def _check_object(
    values: Any, kinds: Mapping[str, Any], where: str, optional: Set[str] = frozenset()
) -> None:
    """Raise unless a JSON value is an object with the keys of ``kinds`` and no others, and each
    value has the type that ``kinds`` gives for its key. The keys in ``optional`` may be missing,
    and may have any value. ``where`` names the object in the message.
    """
    if not isinstance(values, dict) or values.keys() - optional != kinds.keys():
        got = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise BundleError(f"The keys of {where} should be {sorted(kinds)}; got {got}.")
    for key, kind in kinds.items():
        if isinstance(kind, dict):
            _check_object(values[key], kind, f"{key} in {layout.CONFIG}")
        elif type(values[key]) is not kind:
            raise BundleError(
                f"{key} of {where} should be of type {kind.__name__}; got {quoted(values[key])}."
            )


def _check_files(folder: Path, known: set[str], strict: bool) -> None:
    """Raise if a folder lacks a file of a saved model or, with ``strict``, has files that are not
    in ``known``.
    """
    present = {file.name for file in folder.iterdir()} - layout.TOLERATED - layout.CLIENT_FILES
    # users may delete the card on the Hub
    optional = layout.OPTIONAL_FILES if strict else layout.OPTIONAL_FILES | {layout.CARD}
    if missing := sorted(known - optional - present):
        raise BundleError(f"{folder} is incomplete: {', '.join(missing)} is missing.")
    if strict and (foreign := sorted(present - known)):
        raise BundleError(
            f"{folder} holds files that do not belong to a saved model: {', '.join(foreign)}."
            " Remove them."
        )
    if odd := sorted(name for name in known & present if not (folder / name).is_file()):
        raise BundleError(f"{folder} is damaged: {', '.join(odd)} is not a file.")


def _read_defaults(folder: Path) -> dict[str, Any]:
    """Read generation_config.json."""
    defaults = _read_json(folder / layout.GENERATION)
    if not isinstance(defaults, dict):
        raise BundleError(f"{folder / layout.GENERATION} is damaged: it should be a JSON object.")
    return defaults


def _parse_training(folder: Path) -> dict[str, Any]:
    """Read training.json and check it."""
    training = _read_json(folder / layout.TRAINING, MAX_RECORD)
    check_record(training)
    return dict(training)


def _read_checked(folder: Path, config: Mapping[str, Any], weight_bits: int) -> Bundle:
    """Return the content of a saved folder whose files and config.json the caller has checked."""
    generation = read_saved_generation(_read_defaults(folder))
    training = _parse_training(folder)
    facts = config["tokenizer"]
    tokenizer_class, tokenizer_plugin = find_tokenizer(plugin_of_saved("tokenizer", facts))
    tokenizer_config = read_saved_config(tokenizer_class.Config, facts["config"], facts["version"])
    tokenizer = tokenizer_class.load(folder)
    model_plugin = plugin_of_saved("model", config["model"])
    weights, model_config = _read_weights(folder, config, model_plugin, weight_bits)
    conditions = Conditions.from_json(config.get("conditions", [])).with_ids_from(
        tokenizer.vocab_size, tokenizer.encode
    )
    _check_vocabulary(model_config, tokenizer, conditions)
    index = None
    if (folder / layout.NOVELTY).is_file():
        fingerprint = layout.fingerprint(training, tokenizer_plugin.name, facts["config"])
        index = read_index(folder / layout.NOVELTY, fingerprint, tokenizer.vocab_size)
    lexicon_file = folder / layout.LEXICON
    bigrams = None
    if (folder / layout.BIGRAMS).is_file():
        bigrams = read_bigrams(folder / layout.BIGRAMS, tokenizer.vocab_size)
    return Bundle(
        preset=config["preset"],
        weights=weights,
        tokenizer=tokenizer,
        model_plugin=model_plugin,
        tokenizer_plugin=tokenizer_plugin,
        tokenizer_config=tokenizer_config,
        generation=generation,
        training=training,
        card=_read_card(folder / layout.CARD),
        index=index,
        lexicon=read_lexicon(lexicon_file) if lexicon_file.is_file() else None,
        bigrams=bigrams,
        conditions=conditions,
        folder=folder,
    )


def _check_vocabulary(model_config: Any, tokenizer: Tokenizer, conditions: Conditions) -> None:
    """Raise if the token ids of a model do not match its tokenizer and its conditions."""
    if model_config.vocab_size != conditions.vocab_size:
        condition_ids = conditions.vocab_size - tokenizer.vocab_size
        also = f" and its conditions {condition_ids}" if condition_ids else ""
        raise BundleError(
            f"The model has {model_config.vocab_size} tokens, its tokenizer {tokenizer.vocab_size}"
            f"{also}: they do not belong together."
        )
    ids = {
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "field_ids": conditions.field_ids,
    }
    for name, expected in ids.items():
        value = getattr(model_config, name, None)
        if value not in (None, expected):
            raise BundleError(
                f"The model has {name} {value}, its tokenizer {expected}: they do not belong"
                " together."
            )


def _read_weights(
    folder: Path, config: Mapping[str, Any], plugin: Plugin, weight_bits: int
) -> tuple[ModelWeights, Any]:
    """Check the tensors of a model against its config, and return the weights and the config.

    If the plugin has a stepper that works without torch, the torch model is built only on first
    use.
    """
    saved = SavedTensors.find(folder, config.get(layout.SHARED_WEIGHTS, {}))
    facts = config["model"]
    values = facts["config"]
    version = facts["version"]
    factory = find_stepper(plugin)
    expected = None  # None if the model needs torch to generate
    if factory is not None:
        model_config = read_saved_config(factory.Config, values, version)
        expected = factory.expect(model_config)
    if factory is None or expected is None:
        from reviewgen.saving.torch_model import read_model

        model = read_model(saved, plugin, values, version)
        return ModelWeights(model, weight_bits=weight_bits), model.config
    return _load_weights(saved, plugin, factory, model_config, weight_bits), model_config


def _load_weights(
    saved: SavedTensors, plugin: Plugin, factory: Any, model_config: Any, weight_bits: int
) -> ModelWeights:
    """Return the weights of a model whose stepper works without torch."""
    expected = factory.expect(model_config)
    arrays = saved.load(expected, load_file)
    tensors = {key: array.astype(expected[key][0], copy=False) for key, array in arrays.items()}
    return _torchless(plugin, factory, model_config, tensors, weight_bits)


def _torchless(
    plugin: Plugin,
    factory: Any,
    model_config: Any,
    tensors: Mapping[str, np.ndarray],
    weight_bits: int,
) -> ModelWeights:
    """Return the weights of a model whose stepper, made by ``factory``, works without torch."""

    def load() -> Any:
        """Build the torch model, on its first use."""
        from reviewgen.saving.torch_model import build_model

        return build_model(plugin, model_config, tensors)

    stepper = factory(model_config, tensors, weight_bits)
    return ModelWeights(load=load, stepper=stepper, weight_bits=weight_bits)


def _read_transformers(folder: Path, values: dict[str, Any], weight_bits: int) -> Bundle:
    """Return the model of a folder of the library transformers. Sizes are checked against the
    header of the tensors before memory is allocated for them.
    """
    plugin = next(plugin for plugin in list_plugins("model") if plugin.name == "transformer")
    factory: Any = find_stepper(plugin)
    try:
        model_config = factory.Config.from_transformers(values)
    except ConfigError as error:
        reason = first_line(error)
        raise BundleError(f"{folder} is of transformers and cannot be read: {reason}.") from None
    file = folder / layout.WEIGHTS
    if not file.is_file():
        raise BundleError(
            f"{folder} has no {layout.WEIGHTS}: pickled or sharded weights are not read. Save the"
            " model again with save_pretrained of transformers."
        )
    if not (folder / layout.TOKENIZER).is_file():
        raise BundleError(
            f"{folder} has no {layout.TOKENIZER}: copy it from an export of the tokenizer, which"
            " reviewgen export --tokenizer writes."
        )
    names = {factory.Config.transformers_name(name): name for name in factory.expect(model_config)}
    saved = SavedTensors({"": file}, names)
    tokenizer, tokenizer_plugin = _read_tokenizer_json(folder / layout.TOKENIZER)
    conditions = Conditions.from_json([]).with_ids_from(tokenizer.vocab_size, tokenizer.encode)
    _check_vocabulary(model_config, tokenizer, conditions)
    defaults = {}
    if (folder / layout.GENERATION).is_file():
        defaults = _read_defaults(folder)
    known = fields_of(GenerationConfig).keys() & defaults.keys()
    return Bundle(
        preset=f"{plugin.name}-{tokenizer_plugin.name}",
        weights=_load_weights(saved, plugin, factory, model_config, weight_bits),
        tokenizer=tokenizer,
        model_plugin=plugin,
        tokenizer_plugin=tokenizer_plugin,
        tokenizer_config=type(tokenizer).Config(),
        generation=read_saved_generation(
            {name: defaults[name] for name in known if defaults[name] is not None}
        ),
        card=_read_card(folder / layout.CARD),
        conditions=conditions,
    )


def _read_arpa(file: Path, weight_bits: int) -> Bundle:
    """Return the n-gram model of an ARPA file, with the tokenizer ``whitespace``."""
    plugin = next(plugin for plugin in list_plugins("model") if plugin.name == "ngram")
    factory: Any = find_stepper(plugin)
    tokenizer_class, tokenizer_plugin = find_tokenizer("whitespace")
    try:
        words, ngrams = read_ngrams(file)
        tokenizer = tokenizer_class(words)
        config, tensors = factory.from_arpa(ngrams, len(words), tokenizer.bos_id)
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror or error}.") from None
    except BundleError as error:
        raise BundleError(
            printable(
                f"{file} cannot be read as an ARPA file: {error}. Write it again, as with KenLM's"
                " lmplz or reviewgen export --arpa."
            )
        ) from None
    return Bundle(
        preset=f"{plugin.name}-{tokenizer_plugin.name}",
        weights=_torchless(plugin, factory, config, tensors, weight_bits),
        tokenizer=tokenizer,
        model_plugin=plugin,
        tokenizer_plugin=tokenizer_plugin,
        tokenizer_config=tokenizer_class.Config(),
        conditions=Conditions.from_json([]).with_ids_from(tokenizer.vocab_size, tokenizer.encode),
        digests=layout.digest_files(file.parent, [file.name]),
    )


def _read_tokenizer_json(file: Path) -> tuple[Any, Plugin]:
    """Return the tokenizer that has written a ``tokenizer.json``."""
    text = read_text(file, MAX_VOCABULARY)
    for name in ("word", "char"):
        cls, plugin = find_tokenizer(name)
        # raised for the file of another tokenizer; the library ``tokenizers`` raises a bare
        # Exception
        with contextlib.suppress(Exception):
            tokenizer = cls.from_tokenizer_json(text)
            if _encoding_parts(tokenizer.tokenizer_json()) == _encoding_parts(text):
                return tokenizer, plugin
    raise BundleError(
        f"{file} is of another tokenizer: only those that reviewgen exports, word and char, are"
        " read."
    )


def _encoding_parts(text: str) -> dict[str, Any]:
    """Return the parts of a ``tokenizer.json`` that decide the ids of a text."""
    from tokenizers import Tokenizer as Parsed  # slow to import

    content = json.loads(Parsed.from_str(text).to_str())
    return {key: content[key] for key in ("normalizer", "pre_tokenizer", "model", "decoder")}


def _read_json(file: Path, max_bytes: int = MAX_SETTINGS) -> Any:
    """Return the content of a JSON file of a saved folder."""
    try:
        return read_json(file, max_bytes)
    # raised if the file is not UTF-8 or not JSON, is too large, is nested too deeply, or has a
    # number that is not plausible
    except ValueError as error:
        raise BundleError(f"{file} is damaged: it is not JSON ({error}).") from None


def _read_card(file: Path) -> str:
    """Return the text of a card; "" if there is none."""
    try:
        return read_text(file, encoding="utf-8-sig") if file.is_file() else ""
    except ValueError as error:
        raise BundleError(f"{file} is damaged: {error}. Shorten or remove it.") from None
