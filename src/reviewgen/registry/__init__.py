"""Finds installed plugins, presets and trained weights. Standard library only.

installed_points  what the metadata of installed packages says: names, versions, and what is wrong with them
plugins           finds, lists and registers plugins
saved             the plugin that a model was saved with
installed         the size and bits per character of a preset's trained weights
"""

from reviewgen.registry.installed import InstalledWeights, describe_weights
from reviewgen.registry.installed_points import Plugin
from reviewgen.registry.plugins import (
    THIS_PROCESS,
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
    list_models,
    list_plugins,
    list_presets,
    list_tokenizers,
    load_plugin,
    preset_names,
    register_model,
    register_tokenizer,
    unregister_all,
)
from reviewgen.registry.saved import plugin_of_saved

__all__ = [
    "THIS_PROCESS",
    "InstalledWeights",
    "Plugin",
    "describe_weights",
    "find_logits_processor",
    "find_metric",
    "find_model",
    "find_preset",
    "find_reader",
    "find_stepper",
    "find_tokenizer",
    "find_web_stepper",
    "find_web_tokenizer",
    "find_weights",
    "list_models",
    "list_plugins",
    "list_presets",
    "list_tokenizers",
    "load_plugin",
    "plugin_of_saved",
    "preset_names",
    "register_model",
    "register_tokenizer",
    "unregister_all",
]
