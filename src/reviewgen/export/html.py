"""``export_html``: trained models in one HTML page that generates in the browser, without a server or a network."""

import os
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_RECORD, check_flags, check_list, check_text, read_text, to_dict
from reviewgen.errors import ConfigError, UnknownPlugin
from reviewgen.export.packing import pack
from reviewgen.model import Bundle, ReviewModel
from reviewgen.registry import Plugin, find_web_stepper, find_web_tokenizer, plugin_of_saved
from reviewgen.storage import to_path
from reviewgen.web import compose
from reviewgen.web.rendering import refuse_file, save_text

_GROUPS = {"model": "steppers", "tokenizer": "tokenizers"}  # reviewgen.web_...: the entry points of their JavaScript


def export_html(
    model: ReviewModel | Sequence[ReviewModel],
    path: str | os.PathLike[str],
    *,
    bits: int | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a page with models inside: one HTML file that works without a network, from ``file://`` too.

    Args:
        model: A model, or several, to write with side by side.
        path: The file; its suffix must be .html.
        bits: Of each weight: 5, 6 or 8 (with a scale for each row of a matrix), 16 or 32. By default 8, in networks of more than
            4 million weights 6, and of more than 5 million 5, which hardly makes them worse.
        title: The title of the page; the names of the models if not given.
        overwrite: Whether to replace an existing file.

    Returns:
        The file.

    Raises:
        ConfigError: A setting is out of range, or the suffix is another one.
        UnknownPlugin: The package of a model or tokenizer ships no JavaScript for it.
        OutputExists: The file exists, and ``overwrite`` is false.
        StorageError: The disk is full, or the folder is not writable; nothing is left behind.
    """
    check_flags(overwrite=overwrite)
    file = to_path("path", path)
    refuse_file(file, overwrite=overwrite)
    check_text("title", title, optional=True)
    models = [model] if isinstance(model, ReviewModel) else check_list("model", model, "[ngram, lstm]")
    if not models or not all(isinstance(each, ReviewModel) for each in models):
        raise ConfigError("export_html takes a ReviewModel, as reviewgen.load returns it, or a list of them.")
    bundles = [each.bundle for each in models]
    steppers, tokenizers = _scripts(bundles)
    names = _names(bundles)
    packed = [pack(bundle, name, bits) for bundle, name in zip(bundles, names, strict=True)]
    save_text(compose(packed, steppers, tokenizers, title or " · ".join(names)), file)
    return file


def _names(bundles: Sequence[Bundle]) -> list[str]:
    """Return the name of each model in the page: its preset, with a number where another has that name."""
    names: list[str] = []
    for preset in (bundle.preset for bundle in bundles):
        numbered = (f"{preset}-{number}" for number in count(2))
        names.append(next(name for name in chain([preset], numbered) if name not in names))
    return names


def _scripts(bundles: Sequence[Bundle]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the sources of the steppers and of the tokenizers that some models need, by name.

    Raises:
        UnknownPlugin: A model or a tokenizer has no JavaScript.
    """
    steppers: dict[str, str] = {}
    tokenizers: dict[str, str] = {}
    for bundle in bundles:
        for model in _models_of(bundle.model_plugin, to_dict(bundle.model.config)):
            steppers[model.name] = _source("model", model.name, find_web_stepper(model))
        tokenizer = bundle.tokenizer_plugin
        tokenizers[tokenizer.name] = _source("tokenizer", tokenizer.name, find_web_tokenizer(tokenizer))
    return steppers, tokenizers


def _models_of(model: Plugin, config: Mapping[str, Any]) -> list[Plugin]:
    """Return the plugins of a model and of its parts."""
    parts = config.get("models", ()) if model.name == "blend" else ()
    return [model, *(each for part in parts for each in _models_of(plugin_of_saved("model", part), part["config"]))]


def _source(kind: str, name: str, script: Path | None) -> str:
    if script is None:
        raise UnknownPlugin(
            f"The {kind} {name!r} has no JavaScript (an entry point in the group reviewgen.web_{_GROUPS[kind]}), so no page can "
            "run it. Use `reviewgen serve` or `reviewgen demo`, which show the same page, or `reviewgen export --onnx`."
        )
    return read_text(script, MAX_RECORD)
