"""How weights follow their gradients: Muon for the matrices inside a model, AdamW for the rest, and the learning rate over a run.

Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") moves a matrix by its gradient's momentum
with all singular values made one. It is for matrices between hidden vectors: tables of tokens, output layers and vectors stay
with AdamW (Loshchilov & Hutter 2019). The step of a matrix is scaled to the size that AdamW's would have (Liu et al. 2025, "Muon
is Scalable for LLM Training"), so that one learning rate serves both. Both are torch's.
"""

import torch
from torch import nn
from torch.optim import Muon, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reviewgen.training.config import TrainingConfig

__all__ = ["average_of", "linear_decay", "make_optimizers", "set_learning_rate", "split_parameters"]

_BETAS = (0.9, 0.99)  # a second moment of a hundred steps: runs are short
_START = 0.04  # of the peak: where the warm-up begins


def make_optimizers(model: nn.Module, config: TrainingConfig) -> list[Optimizer]:
    """Return the optimizers that together move every parameter of a model once."""
    matrices, others = split_parameters(model) if config.optimizer == "muon" else ([], list(model.parameters()))
    found: list[Optimizer] = []
    if others:
        found.append(
            torch.optim.AdamW(others, lr=config.learning_rate, weight_decay=config.weight_decay, betas=_BETAS, fused=True)
        )
    if matrices:
        found.append(Muon(matrices, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"))
    return found


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices between hidden vectors, and all other parameters: tables, output layers, vectors."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        is_inner = parameter.ndim == 2 and id(parameter) not in tables and vocabulary not in parameter.shape
        (matrices if is_inner else others).append(parameter)
    return matrices, others


def average_of(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return the exponential average of a model's weights over its steps (Polyak & Juditsky 1992); None without a decay."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None


def set_learning_rate(optimizers: list[Optimizer], learning_rate: float) -> None:
    """Set what all of them go by at the next step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate


def linear_decay(progress: float, warmup: float) -> float:
    """Return the learning rate as a share of its peak: a linear rise, then a line to zero.

    Bergsma et al. 2025, "Straight to Zero: Why Linearly Decaying the Learning Rate to Zero Works Best for LLMs".
    """
    if progress < warmup:
        return _START + (1 - _START) * progress / warmup
    return max(0.0, (1 - progress) / (1 - warmup))
