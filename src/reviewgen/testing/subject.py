"""What ``check_plugin`` checks: from a name to plugins, a preset and settings that keep a check short."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reviewgen.config import Preset
from reviewgen.errors import UnknownPlugin, did_you_mean
from reviewgen.registry import Plugin, find_preset, list_plugins, preset_names

__all__ = ["Subject", "find_subject"]

TRAINED, IN_USE = ("model", "tokenizer", "preset"), ("weights", "logits processor", "metric", "reader")
_TOKENIZER_PARTNER, _MODEL_PARTNER = "char", "rnn"  # trained with a model or a tokenizer that has no preset


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        name: The name that was given.
        preset_name: The preset to train; empty if there is neither a preset nor a model nor a tokenizer of that name.
        plugins: The plugins to inspect: the model, tokenizer or preset, all presets of its package, and all others of the name.
        model: Whether the laws of the model are checked.
        tokenizer: Whether the laws of the tokenizer are checked.
    """

    name: str
    preset_name: str
    plugins: tuple[Plugin, ...]
    model: bool = False
    tokenizer: bool = False

    def has(self, kind: str) -> bool:
        """Return whether weights, a logits processor, a metric or a reader of the name are checked."""
        return any(plugin.kind == kind for plugin in self.plugins)

    def preset(self) -> Preset:
        """Return the preset to train; its package is imported."""
        return find_preset(self.preset_name)

    def parts(self) -> tuple[str, str]:
        """Return the names of the preset's model and tokenizer; as its name has them if its package cannot be imported."""
        try:
            preset = self.preset()
        except (Exception, SystemExit):  # which the metadata report
            model, tokenizer = self.preset_name.split("-")[:2]
            return model, tokenizer
        return preset.model, preset.tokenizer

    def small_settings(self) -> Mapping[str, Any]:
        """Return the model settings of the preset's smallest size."""
        preset = self.preset()
        return {**preset.model_settings, **(preset.sizes[0] if preset.sizes else {})}

    def own_presets(self) -> list[Plugin]:
        """Return the installed presets among the plugins."""
        return [plugin for plugin in self.plugins if plugin.kind == "preset"]


def find_subject(name: str) -> Subject:
    """Return what a name means: every plugin that has it.

    A preset is checked with its model, and with its tokenizer if both are of one package. A model alone is trained with the
    tokenizer of an installed preset of its package, or with ``char``; a tokenizer alone with the model ``rnn``. Nothing is
    imported.

    Raises:
        UnknownPlugin: No installed plugin has that name.
    """
    trained = _find_trained(name)
    by_kind = {kind: _by_name(kind) for kind in IN_USE}
    others = tuple(plugins[name] for plugins in by_kind.values() if name in plugins)
    if trained is not None:
        return replace(trained, plugins=(*trained.plugins, *others))
    if not others:
        names = {each for kind in (*TRAINED, *IN_USE) for each in _by_name(kind)}
        raise UnknownPlugin(f"No installed package provides a plugin {name!r}. {did_you_mean(name, names)}")
    return Subject(name, "", others)


def _find_trained(name: str) -> Subject | None:
    """Return what a name means as a model, a tokenizer or a preset; None if it is none of them."""
    models, tokenizers, presets = (_by_name(kind) for kind in TRAINED)
    if name in models:
        own = [p.name for p in presets.values() if p.package == models[name].package and p.name.split("-")[0] == name]
        preset = own[0] if own else f"{name}-{_TOKENIZER_PARTNER}"
        return Subject(name, preset, _with_presets(models[name], 0), model=True)
    if name in tokenizers:
        return Subject(name, f"{_MODEL_PARTNER}-{name}", _with_presets(tokenizers[name], 1), tokenizer=True)
    return _preset_subject(name, models, tokenizers, presets) if name in preset_names() else None


def _preset_subject(
    name: str, models: Mapping[str, Plugin], tokenizers: Mapping[str, Plugin], presets: Mapping[str, Plugin]
) -> Subject:
    model, tokenizer = name.split("-")[:2]
    own = [presets[name]] if name in presets else []
    named = [kind[part] for kind, part in ((models, model), (tokenizers, tokenizer)) if part in kind]
    package = named[0].package if named else own[0].package
    is_own_tokenizer = tokenizer in tokenizers and tokenizers[tokenizer].package == package
    others = [
        plugin
        for plugin in presets.values()
        if plugin.package == package and plugin not in own and model == plugin.name.split("-")[0]
    ]
    return Subject(name, name, (*own, *named, *others), model=True, tokenizer=is_own_tokenizer)


def _by_name(kind: str) -> dict[str, Plugin]:
    """Return the plugins of a kind; of several of one name, the usable one."""
    return {plugin.name: plugin for plugin in sorted(list_plugins(kind), key=lambda plugin: plugin.problem is None)}


def _with_presets(plugin: Plugin, part: int) -> tuple[Plugin, ...]:
    """Return a plugin, its stepper, and the presets of its package that have its name as the given part."""
    kinds = ("stepper", "preset") if part == 0 else ("preset",)
    beside = [other for kind in kinds for other in list_plugins(kind) if other.package == plugin.package]
    return plugin, *(other for other in beside if other.name.split("-")[part if other.kind == "preset" else 0] == plugin.name)
