"""The stack of layers of a recurrent model: torch's parameters, run over a sequence in one of several ways.

    fused      torch's own layer
    unrolled   the same on the processor, its gradient written by hand: often faster
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

from reviewgen.errors import ConfigError, did_you_mean
from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.dropout import draw_zones, drop, zone_out
from reviewgen_recurrent.unrolled import can_unroll, unroll

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
        kernel: The cell's number in ``kernels``.
    """

    step: CellStep
    fused: dict[str, Callable[..., Any]]
    kernel: int


class Layers:
    """Runs the parameters of an nn.RNN, nn.GRU or nn.LSTM over a sequence, with the config's dropouts. It holds no tensor.

    Attributes:
        ways: The ways that the config allows, the default first.
    """

    def __init__(self, cell: Cell, config: RecurrentConfig) -> None:
        self.cell, self.config = cell, config
        self.activation = {"tanh": torch.tanh, "relu": torch.relu}[config.activation]
        self.can_fuse = config.activation in cell.fused and config.zoneout == 0
        self.ways: tuple[str, ...] = (config.layer,)
        if config.layer == "auto":
            self.ways = ("fused", "unrolled") if self.can_fuse else ("unrolled", "spelled")
        self._way = self.ways[0]

    def use(self, way: str) -> None:
        """Run in this way from now on.

        Raises:
            ConfigError: The config does not allow it.
        """
        if way not in self.ways:
            raise ConfigError(f"A layer like this has no implementation {way!r}. {did_you_mean(way, self.ways)}")
        self._way = way

    def __call__(self, parameters: nn.RNNBase, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        """Take inputs (T, B, E) and a state whose parts are (L, B, H); return outputs (T, B, H) and the last state."""
        config, training, way = self.config, parameters.training, self._find_way(x, parameters.training)
        weights: list[Weights] = [
            (weight_ih, drop(weight_hh, config.weight_dropout, training), bias_ih, bias_hh)
            for weight_ih, weight_hh, bias_ih, bias_hh in parameters.all_weights
        ]
        if way == "fused" and (config.layers == 1 or not training or config.dropout == 0 or self._torch_drops(x)):
            return self._fused(x, state, weights, training)
        last = []
        for layer, own in enumerate(weights):
            if layer > 0:
                x = drop(x, config.dropout, training, config.locked_dropout)
            x, after = self._run(way, x, tuple(part[layer : layer + 1] for part in state), own, training)
            last.append(after)
        return x, tuple(torch.cat(part) for part in zip(*last, strict=True))  # each (L, B, H)

    def _find_way(self, x: Tensor, training: bool) -> str:
        """Return the way to go: unrolled is for training on the processor, and knows zones but not their expectation."""
        if self._way == "unrolled" and not (can_unroll(x) and (training or self.config.zoneout == 0)):
            return "fused" if self.can_fuse else "spelled"
        return self._way

    def _torch_drops(self, x: Tensor) -> bool:
        """Return whether torch's own dropout between layers serves: on a GPU cuDNN runs the whole stack at once."""
        return x.device.type != "cpu" and not self.config.locked_dropout

    def _run(self, way: str, x: Tensor, state: CellState, weights: Weights, training: bool) -> tuple[Tensor, CellState]:
        """Run one layer; the parts of its state are (1, B, H)."""
        if way == "fused":
            return self._fused(x, state, [weights], training)
        config = self.config
        zones = (len(x), len(state), x.shape[1], config.hidden_size)  # T, P, B, H
        zoned = draw_zones(zones, config.zoneout, training, x.device)
        if way == "unrolled":
            return unroll(x, state, weights, self.cell.kernel, config.activation == "relu", zoned)
        return self._spelled(x, state, weights, zoned)

    def _fused(self, x: Tensor, state: CellState, weights: list[Weights], training: bool) -> tuple[Tensor, CellState]:
        """Run some layers in one call, as torch's layers do; it is given the weights, since they may be dropped ones."""
        flat, memory = [tensor for own in weights for tensor in own], state if len(state) > 1 else state[0]
        dropout = self.config.dropout if len(weights) > 1 else 0.0
        x, *after = self.cell.fused[self.config.activation](
            x, memory, flat, True, len(weights), dropout, training, False, False
        )  # biases, layers, dropout, training, not bidirectional, time first
        return x, tuple(after)

    def _spelled(self, x: Tensor, state: CellState, weights: Weights, zoned: Tensor | None) -> tuple[Tensor, CellState]:
        """Run one layer: the products of all inputs at once, since they need no state, then step by step."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        now, outputs = tuple(part[0] for part in state), []
        for t, inputs in enumerate(F.linear(x, weight_ih, bias_ih)):  # T times (B, G)
            new = self.cell.step(inputs, now, weight_hh, bias_hh, self.activation)
            zones = [None] * len(now) if zoned is None else zoned[t]
            now = tuple(zone_out(*parts, self.config.zoneout, zone) for *parts, zone in zip(now, new, zones, strict=True))
            outputs.append(now[0])
        return torch.stack(outputs), tuple(part[None] for part in now)
