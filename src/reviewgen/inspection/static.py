"""The checks of one plugin that need neither a text nor a training.

Each raises a BrokenPlugin that names the plugin, its package and the cause. The plugin is imported, and nothing else of it runs.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from reviewgen.config import (
    MAX_RECORD,
    GenerationConfig,
    Preset,
    TrainingConfig,
    fields_of,
    from_dict,
    generation_config,
    read_text,
)
from reviewgen.errors import BrokenPlugin, ConfigError, did_you_mean, quoted
from reviewgen.registry import (
    Plugin,
    describe_weights,
    find_logits_processor,
    find_metric,
    find_model,
    find_preset,
    find_reader,
    find_stepper,
    find_tokenizer,
    find_web_stepper,
    find_web_tokenizer,
    find_weights,
    list_plugins,
)

_MODEL = ("initial_state", "__call__", "state_dict", "load_state_dict")
_TOKENIZER = ("train", "encode", "decode", "save", "load")  # vocab_size and others may be attributes of the object
_METRIC = ("__call__", "unit", "lower_is_better")
_VOCAB_SIZE = 1_000  # of the config with which a preset's settings are checked


def inspect_plugin(plugin: Plugin) -> None:
    """Import a plugin and check what its entry point leads to.

    Raises:
        PluginError: It cannot be imported, or is not what its group asks for; says which package and why.
    """
    found = _find(plugin)
    check = _CHECKS.get(plugin.kind)
    try:
        if check is not None:
            check(plugin, found)
    except (TypeError, ValueError, AssertionError) as problem:  # ConfigError is a ValueError
        raise BrokenPlugin(f"The {plugin.kind} {quoted(plugin.name)} of {plugin.package} {plugin.version} {problem}") from problem


def model_config(name: str) -> Any:
    """Return the config class of a model, without importing torch where the model has a stepper factory."""
    factory = find_stepper(name)
    return (find_model(name)[0] if factory is None else factory).Config


def _find(plugin: Plugin) -> Any:
    """Return the object behind an entry point."""
    if plugin.kind == "weights":
        return None
    found = _FIND[plugin.kind](plugin)
    return found[0] if isinstance(found, tuple) else found


def _check_model(plugin: Plugin, found: Any) -> None:
    _check_class(found, _MODEL, "a model, see reviewgen.protocols.LanguageModel")
    _check_config(found)
    _check_vocab_size(found.Config)


def _check_tokenizer(plugin: Plugin, found: Any) -> None:
    _check_class(found, _TOKENIZER, "a tokenizer, see reviewgen.protocols.Tokenizer")
    _check_config(found)


def _check_stepper(plugin: Plugin, found: Any) -> None:
    if not callable(found) or not callable(getattr(found, "expect", None)):
        raise TypeError(f"is {_describe(found)}, which is not a reviewgen.protocols.StepperFactory: a call, expect and Config.")
    _check_config(found)
    names = {model.name for model in list_plugins("model")}
    if plugin.name not in names:
        raise ValueError(f"is for a model that no installed package provides. {did_you_mean(plugin.name, names)}")


def _check_preset(plugin: Plugin, preset: Preset) -> None:
    for kind, name in ("model", preset.model), ("tokenizer", preset.tokenizer):
        names = {each.name for each in list_plugins(kind)}
        if name not in names:
            raise ValueError(f"names the {kind} {quoted(name)}, which no installed package provides. {did_you_mean(name, names)}")
    for part in preset.parts:
        find_preset(part)
    choices = [*preset.sizes, *(settings for _, settings in preset.by_epochs)]
    if not preset.parts:
        config = model_config(preset.model)
        given = {"vocab_size": _VOCAB_SIZE, **preset.model_settings}
        for settings in ({}, *choices):
            _check_settings("model", config, {**given, **settings})
    _check_settings("tokenizer", find_tokenizer(preset.tokenizer)[0].Config, preset.tokenizer_settings)
    for settings in ({}, *(settings for _, settings in preset.training_by_epochs)):
        _check_settings("training", TrainingConfig, {**preset.training_settings, **settings})
    try:
        generation_config(GenerationConfig(), preset.generation_settings)
    except ConfigError as problem:
        raise ValueError(f"has a generation setting that cannot be used: {problem}") from problem


def _check_settings(group: str, config: Any, settings: Mapping[str, Any]) -> None:
    try:
        from_dict(config, settings)
    except ConfigError as problem:
        raise ValueError(f"has a {group} setting that cannot be used: {problem}") from problem


def _check_weights(plugin: Plugin, found: None) -> None:
    find_weights(plugin)  # raises if there is no folder
    known = describe_weights(plugin)
    if known is not None and known.problem:
        raise ValueError(f"cannot be used: {known.problem}")


def _check_processor(plugin: Plugin, found: Any) -> None:
    if not callable(found):
        raise TypeError(f"is {_describe(found)}; it must be a function or a class that takes a tokenizer.")


def _check_metric(plugin: Plugin, found: Any) -> None:
    if isinstance(found, type):
        raise TypeError(
            f"is the class {found.__name__}; the entry point must name an object of it, as in METRIC = {found.__name__}()."
        )
    _check_members(found, _METRIC, "a metric, see reviewgen.protocols.Metric")


def _check_reader(plugin: Plugin, found: Any) -> None:
    if not callable(found):
        raise TypeError(f"is {_describe(found)}; it must be a function that takes a path or a URL.")


def _check_script(plugin: Plugin, found: Any) -> None:
    if "export default" not in read_text(found, MAX_RECORD):
        raise TypeError(f"is {found.name}, which must be an ES module with an export default function.")


_FIND: dict[str, Callable[[Plugin], Any]] = {
    "model": find_model,
    "tokenizer": find_tokenizer,
    "stepper": find_stepper,
    "preset": find_preset,
    "logits processor": find_logits_processor,
    "metric": find_metric,
    "reader": find_reader,
    "web stepper": find_web_stepper,
    "web tokenizer": find_web_tokenizer,
}
_CHECKS: dict[str, Callable[[Plugin, Any], None]] = {
    "model": _check_model,
    "tokenizer": _check_tokenizer,
    "stepper": _check_stepper,
    "preset": _check_preset,
    "weights": _check_weights,
    "logits processor": _check_processor,
    "metric": _check_metric,
    "reader": _check_reader,
    "web stepper": _check_script,
    "web tokenizer": _check_script,
}


def _check_class(found: Any, members: Iterable[str], what: str) -> None:
    if not isinstance(found, type):
        raise TypeError(f"is {_describe(found)}; its entry point must name the class of {what}.")
    _check_members(found, (*members, "Config"), what)


def _check_members(found: Any, members: Iterable[str], what: str) -> None:
    missing = [name for name in members if getattr(found, name, None) is None and name != "lower_is_better"]
    if missing:
        owner = found.__name__ if isinstance(found, type) else type(found).__name__
        raise TypeError(f"is {owner}, which lacks {', '.join(missing)} of {what}.")


def _check_config(found: Any) -> None:
    config = found.Config if hasattr(found, "Config") else None
    if not isinstance(config, type) or not dataclasses.is_dataclass(config):
        raise TypeError(f"has the Config {_describe(config)}; it must be a class with @dataclass(frozen=True, kw_only=True).")
    parameters = config.__dataclass_params__  # type: ignore[attr-defined]  # which typeshed leaves out
    if not parameters.frozen or not all(field.kw_only for field in dataclasses.fields(config)):
        raise TypeError(
            f"has the Config {config.__name__}, which must be frozen and keyword-only: @dataclass(frozen=True, kw_only=True)."
        )
    try:
        fields_of(config)
    except Exception as error:  # evaluating a third party's annotations may raise anything
        raise TypeError(f"has the Config {config.__name__}, whose types cannot be read: {error}") from error


def _check_vocab_size(config: Any) -> None:
    names = [field.name for field in dataclasses.fields(config)]
    if names[:1] != ["vocab_size"]:
        raise TypeError(
            f"has the Config {config.__name__}, whose first field must be vocab_size; got {names[0] if names else 'none'}."
        )


def _describe(value: Any) -> str:
    """Return what a value is, for a sentence: its class, or its repr if that is short."""
    text = f"the {type(value).__name__} {value!r}" if not callable(value) else f"{getattr(value, '__name__', value)!r}"
    return text if len(text) <= 80 else f"an object of type {type(value).__name__}"
