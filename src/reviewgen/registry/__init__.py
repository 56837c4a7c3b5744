"""Finds plugins, presets and trained weights among the installed packages. Standard library only.

plugins    models, tokenizers, presets and steppers by entry point
installed  which presets have trained weights, how large and how good
"""

from reviewgen.registry.installed import InstalledWeights, describe_weights
from reviewgen.registry.plugins import (
    Plugin,
    describe_plugin,
    find_model,
    find_preset,
    find_stepper,
    find_tokenizer,
    find_weights,
    list_models,
    list_plugins,
    list_presets,
    list_tokenizers,
    preset_names,
    register_model,
    register_tokenizer,
)

__all__ = [
    "InstalledWeights",
    "Plugin",
    "describe_plugin",
    "describe_weights",
    "find_model",
    "find_preset",
    "find_stepper",
    "find_tokenizer",
    "find_weights",
    "list_models",
    "list_plugins",
    "list_presets",
    "list_tokenizers",
    "preset_names",
    "register_model",
    "register_tokenizer",
]
