"""The number of parameters of a preset's model, built on the meta device, where weights take no memory."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from reviewgen.config import Preset, from_dict
from reviewgen.registry import find_model, find_tokenizer

__all__ = ["count_parameters"]

_VOCAB_SIZE = 256  # of a tokenizer without the setting vocab_size, as of one that has a token for each character


def count_parameters(preset: Preset, settings: Mapping[str, Any]) -> int:
    """Return the number of parameters of a model; 0 for one that is not an ``nn.Module``, whose size depends on the texts.

    Args:
        preset: The preset, whose tokenizer has the vocabulary size.
        settings: The model's settings.
    """
    model_class, _ = find_model(preset.model)
    tokenizer = from_dict(find_tokenizer(preset.tokenizer)[0].Config, preset.tokenizer_settings)
    size = getattr(tokenizer, "vocab_size", None) or _VOCAB_SIZE
    if not issubclass(model_class, nn.Module):
        return 0
    with torch.device("meta"):
        model: nn.Module = model_class(from_dict(model_class.Config, {"vocab_size": size, **settings}))
    return sum(parameter.numel() for parameter in model.parameters())
