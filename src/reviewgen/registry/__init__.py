"""Finds installed plugins, presets and trained weights. Standard library only.

metadata  what the metadata of installed packages says: names, versions, and what is wrong
plugins   finds, lists and registers plugins: models, steppers, tokenizers, presets, weights
saved     finds the plugin that a model was saved with; describes the trained weights of a
          preset: size, bits per character
"""

from reviewgen.registry.plugins import (
    find_logits_processor,
    find_metric,
    find_model,
    find_preset,
    find_tokenizer,
    list_models,
    list_plugins,
    list_presets,
    list_tokenizers,
)
from reviewgen.registry.saved import describe_weights

__all__ = [
    "describe_weights",
    "find_logits_processor",
    "find_metric",
    "find_model",
    "find_preset",
    "find_tokenizer",
    "list_models",
    "list_plugins",
    "list_presets",
    "list_tokenizers",
]
