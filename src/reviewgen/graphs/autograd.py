"""PyTorch's graph of the backward pass, drawn by torchviz and graphviz's dot."""

import shutil
from typing import Any

import torch
from torch import nn

from reviewgen.errors import BrokenPlugin, ConfigError


def draw_autograd(model: Any, tokens: int) -> str:
    """Return the graph of a text of a number of tokens as an SVG.

    Raises:
        ConfigError: torchviz or dot is not installed, or the model is not trained by gradient.
        BrokenPlugin: The forward pass raises.
    """
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        raise ConfigError(f"{type(model).__name__} has no parameters that PyTorch trains, so it has no graph of autograd.")
    try:
        from torchviz import make_dot
    except ImportError:
        raise ConfigError("The graph of autograd needs torchviz: pip install 'reviewgen[graph]'.") from None
    if shutil.which("dot") is None:
        raise ConfigError("The graph of autograd needs graphviz's program dot on the PATH: apt install graphviz, or brew.")
    try:
        with torch.enable_grad():
            logits = _call(model, tokens)
    except Exception as error:  # a plugin may raise anything
        raise BrokenPlugin(f"A forward pass of {type(model).__name__} raises {type(error).__name__}: {error!s:.250}") from error
    if logits.grad_fn is None:
        raise ConfigError(f"The logits of {type(model).__name__} do not depend on parameters that PyTorch trains.")
    svg: str = make_dot(logits, params=dict(model.named_parameters())).pipe(format="svg", encoding="utf-8")
    return svg


def _call(model: Any, tokens: int) -> torch.Tensor:
    """Return the logits of one text of zeros."""
    logits: torch.Tensor = model(torch.zeros(1, tokens, dtype=torch.long), model.initial_state(1))[0]
    return logits
