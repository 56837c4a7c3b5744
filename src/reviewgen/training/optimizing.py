"""Optimizers (Muon for the matrices inside a model, AdamW for the rest), and weight averaging.

Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") updates a matrix by its gradient's momentum
with all singular values set to about one. It is meant for matrices between hidden vectors: embeddings, output layers and vectors
stay with AdamW (Loshchilov & Hutter 2019). Muon's update of a matrix is scaled to the size that AdamW's would have (Liu et al.
2025, "Muon is Scalable for LLM Training"), so that both use one learning rate. Both optimizers are torch's. A model may decide
otherwise for some of its parameters (``SupportsParameterGroups``).
"""

from typing import Any

import torch
from torch import nn
from torch.optim import Muon, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reviewgen.config import TrainingConfig
from reviewgen.protocols.parameter_groups import SCALE, read_parameter_groups

_BETAS = (0.9, 0.99)  # the second moment averages over about 100 steps: runs are short


def make_optimizers(model: nn.Module, config: TrainingConfig) -> list[Optimizer]:
    """Return the optimizers of a model; together they have each of its parameters once.

    Raises:
        BrokenPlugin: The parameter groups of the model itself are not as ``SupportsParameterGroups`` says.
    """
    matrices = {id(parameter) for parameter in split_parameters(model)[0]}
    groups: dict[str, list[dict[str, Any]]] = {"adamw": [], "muon": []}
    own = read_parameter_groups(model)
    grouped = {id(parameter) for group in own for parameter in group["params"]}
    others = [parameter for parameter in model.parameters() if id(parameter) not in grouped]
    for group in [*own, {"params": others}]:
        by_optimizer: dict[str, list[nn.Parameter]] = {"adamw": [], "muon": []}
        for parameter in group["params"]:
            usual = "muon" if id(parameter) in matrices else "adamw"
            by_optimizer["adamw" if config.optimizer == "adamw" else group.get("optimizer", usual)].append(parameter)
        settings = {name: group[name] for name in (SCALE, "weight_decay") if name in group}
        for name, parameters in by_optimizer.items():
            if parameters:
                groups[name].append({**settings, "params": parameters})
    optimizers: list[Optimizer] = []
    if groups["adamw"]:
        optimizers.append(
            torch.optim.AdamW(
                groups["adamw"], lr=config.learning_rate, weight_decay=config.weight_decay, betas=_BETAS, fused=True
            )
        )
    if groups["muon"]:
        optimizers.append(
            Muon(groups["muon"], lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    return optimizers


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices between hidden vectors, and all other parameters: embeddings, output layers, vectors."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}
    vocab_size = getattr(getattr(model, "config", None), "vocab_size", None)
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        is_inner = parameter.ndim == 2 and id(parameter) not in embeddings and vocab_size not in parameter.shape
        (matrices if is_inner else others).append(parameter)
    return matrices, others


def make_averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return an exponential moving average of a model's weights (Polyak & Juditsky 1992); None if the decay is 0."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None


def set_learning_rate(optimizers: list[Optimizer], learning_rate: float) -> None:
    """Set the learning rate of all optimizers, scaled where a group has a scale."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get(SCALE, 1.0)
