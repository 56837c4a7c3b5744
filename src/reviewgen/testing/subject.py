"""What ``check_plugin`` checks: from a name to plugins, a preset and settings that keep a check short."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reviewgen.config import Preset
from reviewgen.errors import UnknownPlugin, did_you_mean
from reviewgen.registry import Plugin, find_preset, list_plugins, preset_names
from reviewgen.registry.installed_points import GROUPS

__all__ = ["Subject", "find_subject"]

_TOKENIZER_PARTNER, _MODEL_PARTNER = "char", "rnn"  # trained with a model or a tokenizer that has no preset


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        name: The name that was given.
        preset_name: The preset to train.
        plugins: The plugins to inspect: the model, tokenizer or preset, and all presets of its package.
        model: Whether the laws of the model are checked.
        tokenizer: Whether the laws of the tokenizer are checked.
    """

    name: str
    preset_name: str
    plugins: tuple[Plugin, ...]
    model: bool
    tokenizer: bool

    def preset(self) -> Preset:
        """Return the preset to train; its package is imported."""
        return find_preset(self.preset_name)

    def small_settings(self) -> Mapping[str, Any]:
        """Return the model settings of the preset's smallest size."""
        preset = self.preset()
        return {**preset.model_settings, **(preset.sizes[0] if preset.sizes else {})}

    def own_presets(self) -> list[Plugin]:
        """Return the installed presets among the plugins."""
        return [plugin for plugin in self.plugins if plugin.kind == "preset"]


def find_subject(name: str) -> Subject:
    """Return what a name means: a preset is checked with its model, and with its tokenizer if both are of one package.

    A model alone is trained with the tokenizer of an installed preset of its package, or with ``char``; a tokenizer alone with
    the model ``rnn``. Nothing is imported.

    Raises:
        UnknownPlugin: No installed preset, model or tokenizer has that name.
    """
    models, tokenizers, presets = ({p.name: p for p in list_plugins(kind)} for kind in ("model", "tokenizer", "preset"))
    if name in models:
        own = [p.name for p in presets.values() if p.package == models[name].package and p.name.split("-")[0] == name]
        preset = own[0] if own else f"{name}-{_TOKENIZER_PARTNER}"
        return Subject(name, preset, _with_presets(models[name], name, 0), True, False)
    if name in tokenizers:
        return Subject(name, f"{_MODEL_PARTNER}-{name}", _with_presets(tokenizers[name], name, 1), False, True)
    if name not in preset_names():
        raise UnknownPlugin(
            f"There is no preset, model or tokenizer {name!r}. {did_you_mean(name, {*models, *tokenizers, *presets})}"
        )
    return _preset_subject(name, models, tokenizers, presets)


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
    return Subject(name, name, (*own, *named, *others), True, is_own_tokenizer)


def _with_presets(plugin: Plugin, name: str, part: int) -> tuple[Plugin, ...]:
    """Return a plugin, its stepper, and the presets of its package that have its name as the given part."""
    kinds = ("stepper", "preset") if part == 0 else ("preset",)
    beside = [other for kind in kinds if kind in GROUPS for other in list_plugins(kind) if other.package == plugin.package]
    return plugin, *(other for other in beside if other.name.split("-")[part if other.kind == "preset" else 0] == name)
