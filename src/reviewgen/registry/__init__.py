"""Finds installed plugins, presets and trained weights. Standard library only.

metadata  what the metadata of installed packages says: names, versions, and what is wrong
plugins   finds, lists and registers plugins: models, steppers, tokenizers, presets, weights
saved     the package of the plugin that a model was saved with; the size and bits per character
          of a preset's trained weights
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
