"""Finds installed plugins, presets and trained weights. Standard library only.

plugins    models, tokenizers, presets, steppers, weights, logits processors and metrics, by entry point
installed  the size and bits per character of a preset's trained weights
"""

from reviewgen.registry.installed import InstalledWeights, describe_weights
from reviewgen.registry.plugins import (
    Plugin,
    describe_plugin,
    find_logits_processor,
    find_metric,
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
    "find_logits_processor",
    "find_metric",
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
