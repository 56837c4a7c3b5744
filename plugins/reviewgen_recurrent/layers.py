"""The stack of layers of a recurrent model: torch's parameters, run over a sequence in one of several ways.

    fused      torch's own layer, fast
    spelled    the same cell from plain matrix products, step by step, to read and to change

It must not know any cell: what a cell is made of stands in the cell's own file, and is handed in as a ``Cell``. Shapes: B batch,
T time (tokens), E embedding, H hidden, L layers, G rows of a layer's matrices, as many times H as the cell has gates. Time
comes first, (T, B, H), which is the order torch's layers compute in.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.dropout import drop, drop_sequence

__all__ = ["Cell", "CellState", "CellStep", "Layers"]

CellState: TypeAlias = tuple[Tensor, ...]
"""A memory, ``(h,)`` or, for the lstm, ``(h, c)``: each part (B, H) in a cell, (L, B, H) in a stack."""

CellStep: TypeAlias = Callable[[Tensor, CellState, Tensor, Tensor, Callable[[Tensor], Tensor]], CellState]
"""One step: ``step(inputs (B, G), state, weight_hh (G, H), bias_hh (G), activation) -> state``; ``h`` is the first part."""

Weights: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""A layer's weight_ih, weight_hh, bias_ih and bias_hh."""


class Cell(NamedTuple):
    """What a stack must know of its cell.

    Attributes:
        step: One step, from plain operations.
        fused: torch's function over a sequence, by the name of the activation; nn.LSTM calls ``torch.lstm``, and so on.
    """

    step: CellStep
    fused: dict[str, Callable[..., Any]]


class Layers:
    """Runs the parameters of an nn.RNN, nn.GRU or nn.LSTM over a sequence, with the config's dropouts. It holds no tensor."""

    def __init__(self, cell: Cell, config: RecurrentConfig) -> None:
        self.cell, self.config = cell, config
        self.activation = {"tanh": torch.tanh, "relu": torch.relu}[config.activation]

    def __call__(self, parameters: nn.RNNBase, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        """Take inputs (T, B, E) and a state whose parts are (L, B, H); return outputs (T, B, H) and the last state."""
        config, training = self.config, parameters.training
        weights: list[Weights] = [
            (weight_ih, drop(weight_hh, config.weight_dropout, training), bias_ih, bias_hh)
            for weight_ih, weight_hh, bias_ih, bias_hh in parameters.all_weights
        ]
        if config.layer == "fused" and (config.layers == 1 or not training or config.dropout == 0 or self._torch_drops(x)):
            return self._fused(x, state, weights, training)
        last = []
        for layer, own in enumerate(weights):
            if layer > 0:
                x = drop_sequence(x, config.dropout, training, config.locked_dropout)
            x, after = self._run(x, tuple(part[layer : layer + 1] for part in state), own, training)
            last.append(after)
        return x, tuple(torch.cat(part) for part in zip(*last, strict=True))  # each (L, B, H)

    def _torch_drops(self, x: Tensor) -> bool:
        """Return whether torch's own dropout between layers serves: on a GPU cuDNN runs the whole stack at once."""
        return x.device.type != "cpu" and not self.config.locked_dropout

    def _run(self, x: Tensor, state: CellState, weights: Weights, training: bool) -> tuple[Tensor, CellState]:
        """Run one layer; the parts of its state are (1, B, H)."""
        if self.config.layer == "fused":
            return self._fused(x, state, [weights], training)
        return self._spelled(x, state, weights)

    def _fused(self, x: Tensor, state: CellState, weights: list[Weights], training: bool) -> tuple[Tensor, CellState]:
        """Run some layers in one call, as torch's layers do; it is given the weights, since they may be dropped ones."""
        flat, memory = [tensor for own in weights for tensor in own], state if len(state) > 1 else state[0]
        dropout = self.config.dropout if len(weights) > 1 else 0.0
        x, *after = self.cell.fused[self.config.activation](
            x, memory, flat, True, len(weights), dropout, training, False, False
        )  # biases, layers, dropout, training, not bidirectional, time first
        return x, tuple(after)

    def _spelled(self, x: Tensor, state: CellState, weights: Weights) -> tuple[Tensor, CellState]:
        """Run one layer: the products of all inputs at once, since they need no state, then step by step."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        now, outputs = tuple(part[0] for part in state), []
        for inputs in F.linear(x, weight_ih, bias_ih):  # T times (B, G)
            now = self.cell.step(inputs, now, weight_hh, bias_hh, self.activation)
            outputs.append(now[0])
        return torch.stack(outputs), tuple(part[None] for part in now)
