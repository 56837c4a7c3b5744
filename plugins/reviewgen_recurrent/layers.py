"""A stack of recurrent layers. It runs the parameters of torch's layers over a sequence, with one
of three implementations.

    fused      torch's own layer
    compiled   the same on a CPU, in compiled loops with a hand-written gradient: often faster
    reference  the same cell in plain matrix products, step by step, to read and to change

Must not know any cell: a cell is defined in its own file and passed as a ``Cell``. Shapes: B batch,
T time (tokens), E embedding, H hidden, L layers, I inputs of a layer, G rows of a layer's matrices
(number of gates times H). Time comes first, (T, B, H), as in torch's layers.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from reviewgen.compiled.dropout import drop, make_mask
from reviewgen.config import rename_values
from reviewgen.errors import ConfigError, did_you_mean
from reviewgen.protocols import Operation
from reviewgen_recurrent.compiled_layer import can_run_compiled, run_compiled
from reviewgen_recurrent.config import RecurrentConfig

CellState: TypeAlias = tuple[Tensor, ...]
"""The state: ``(h,)``, or ``(h, c)`` for the lstm. Each tensor is (B, H) for a cell, and (L, B, H)
for a stack of layers.
"""

CellStep: TypeAlias = Callable[
    [Tensor, CellState, Tensor, Tensor, Callable[[Tensor], Tensor]], dict[str, Tensor]
]
"""Computes one step of a cell. ``step(inputs (B, G), state, weight_hh (G, H), bias_hh (G),
activation)`` returns the result of each equation by its name.
"""

Weights: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""A layer's weight_ih, weight_hh, bias_ih and bias_hh."""


class Equation(NamedTuple):
    """One equation of a cell.

    Attributes:
        name: What the equation computes, such as "reset gate".
        formula: The equation.
        kind: As in ``reviewgen.protocols.Operation``.
        has_weights: Whether the equation multiplies the input and the last h by a matrix each, and
            adds a bias to both products.
        products: The number of elementwise products.
    """

    name: str
    formula: str
    kind: Literal["values", "gate", "state"] = "values"
    has_weights: bool = False
    products: int = 0


class Cell(NamedTuple):
    """A recurrent cell, as a stack of layers needs it.

    Attributes:
        step: Computes one step in plain operations of torch.
        state: The names of those results that are the next state; ``h`` comes first.
        equations: Maps the name of each result to its equation, in the order of computation.
        fused: Maps an activation to torch's function that runs the cell over a sequence, such as
            ``torch.lstm``, which nn.LSTM calls.
        kernel: The number of the cell in ``kernels``.
    """

    step: CellStep
    state: tuple[str, ...]
    equations: dict[str, Equation]
    fused: dict[str, Callable[..., Any]]
    kernel: int


class Layers:
    """Runs the parameters of an nn.RNN, nn.GRU or nn.LSTM over a sequence, with the dropouts of the
    config. It owns no tensors.

    Attributes:
        implementations: The implementations that the config allows; the first one is the default.
    """

    def __init__(self, cell: Cell, config: RecurrentConfig) -> None:
        self.cell = cell
        self.config = config
        self.can_fuse = config.activation in cell.fused and config.zoneout == 0
        self.implementations: tuple[str, ...] = (config.layer,)
        if config.layer == "auto" and self.can_fuse:
            self.implementations = ("fused", "compiled")
        elif config.layer == "auto":
            self.implementations = ("compiled", "reference")
        self._implementation = self.implementations[0]

    def use(self, implementation: str) -> None:
        """Use an implementation from now on. Its name may be an old one, since a checkpoint of an
        earlier version may contain it.

        Raises:
            ConfigError: The config does not allow this implementation.
        """
        name = rename_values(type(self.config), {"layer": implementation})["layer"]
        if name not in self.implementations:
            raise ConfigError(
                f"These layers have no implementation {implementation!r}."
                f" {did_you_mean(implementation, self.implementations)}"
            )
        self._implementation = name

    def __call__(
        self, parameters: nn.RNNBase, x: Tensor, state: CellState
    ) -> tuple[Tensor, CellState]:
        """Return the outputs, (T, B, H), and the last state, each (L, B, H).

        Args:
            parameters: torch's layers, whose parameters are used.
            x: The inputs, (T, B, E).
            state: The state before the first step, each (L, B, H).
        """
        config = self.config
        training = parameters.training
        implementation = self._choose_implementation(x, training)
        weights: list[Weights] = [
            (weight_ih, drop(weight_hh, config.weight_dropout, training), bias_ih, bias_hh)
            for weight_ih, weight_hh, bias_ih, bias_hh in parameters.all_weights
        ]
        # torch can apply the dropout between layers itself, so that one call of cuDNN runs all of
        # them. But torch has no locked dropout, and on a CPU our dropout is faster than torch's.
        uses_torch_dropout = x.device.type != "cpu" and not config.locked_dropout
        has_dropout_between = training and config.layers > 1 and config.dropout > 0
        fits_one_call = uses_torch_dropout or not has_dropout_between
        if implementation == "fused" and fits_one_call:
            return self._run_fused(x, state, weights, training)
        last = []  # the last state of each layer
        for layer, layer_weights in enumerate(weights):
            if layer > 0:
                x = drop(x, config.dropout, training, config.locked_dropout)
            layer_state = tuple(vectors[layer : layer + 1] for vectors in state)
            x, after = self._run_layer(implementation, x, layer_state, layer_weights, training)
            last.append(after)
        # concatenate the layers' (1, B, H) to (L, B, H), for each vector of the state
        return x, tuple(torch.cat(vectors) for vectors in zip(*last, strict=True))

    def _choose_implementation(self, x: Tensor, training: bool) -> str:
        """Return the implementation for this call. "compiled" needs a CPU and gradients (see
        ``can_run_compiled``); in evaluation mode, it also needs a zoneout of 0.
        """
        if self._implementation != "compiled":
            return self._implementation
        if can_run_compiled(x) and (training or self.config.zoneout == 0):
            return "compiled"
        return "fused" if self.can_fuse else "reference"

    def _run_layer(
        self, implementation: str, x: Tensor, state: CellState, weights: Weights, training: bool
    ) -> tuple[Tensor, CellState]:
        """Run one layer. Return its outputs, (T, B, H), and its last state. Each tensor of a state
        is (1, B, H).
        """
        if implementation == "fused":
            return self._run_fused(x, state, [weights], training)
        config = self.config
        zoned = None  # True for each unit of the state that keeps its old value at a step
        if training and config.zoneout > 0:
            # (T, S, B, H), where S is the number of vectors in the state: h, or h and c
            shape = (len(x), len(state), x.shape[1], config.hidden_size)
            zoned = make_mask(shape, config.zoneout, x.device)
        if implementation == "compiled":
            return run_compiled(
                x, state, weights, self.cell.kernel, config.activation == "relu", zoned
            )
        return self._run_reference(x, state, weights, zoned)

    def _run_fused(
        self, x: Tensor, state: CellState, weights: list[Weights], training: bool
    ) -> tuple[Tensor, CellState]:
        """Run layers in one call of torch's function. Its arguments are the weights, since dropout
        may have changed them, so that torch's layer itself cannot be called.
        """
        if _autocasts_in_vain(x):
            with torch.autocast(x.device.type, enabled=False):
                return self._run_fused(
                    x.float(), tuple(map(Tensor.float, state)), weights, training
                )
        flat = list(chain.from_iterable(weights))
        memory = state if len(state) > 1 else state[0]  # torch takes (h, c), or h without a tuple
        dropout = self.config.dropout if len(weights) > 1 else 0.0
        run = self.cell.fused[self.config.activation]
        # after the weights: has_biases, num_layers, dropout, train, bidirectional, batch_first
        x, *after = run(x, memory, flat, True, len(weights), dropout, training, False, False)
        return x, tuple(after)

    def _run_reference(
        self, x: Tensor, state: CellState, weights: Weights, zoned: Tensor | None
    ) -> tuple[Tensor, CellState]:
        """Run one layer step by step. Return its outputs, (T, B, H), and its last state. Each
        tensor of a state is (1, B, H) here, and (B, H) inside ``run_steps``.
        """
        first = tuple(vectors[0] for vectors in state)
        # the state after each step; its first vector is h, the output
        states = [after for _, after in run_steps(self.cell, self.config, weights, x, first, zoned)]
        return torch.stack([h for h, *_ in states]), tuple(vectors[None] for vectors in states[-1])


def zone_out(old: Tensor, new: Tensor, p: float, zoned: Bool[Tensor, "B H"] | None) -> Tensor:
    """Return the new h or c after zoneout (Krueger et al. 2017, "Zoneout: Regularizing RNNs by
    Randomly Preserving Hidden Activations").

    ``p`` is the probability that a unit keeps its old value. ``zoned`` masks the units that keep it
    at this step of the training; without a mask, each unit gets its expected value.
    """
    if zoned is not None:
        return torch.where(zoned, old, new)
    return p * old + (1 - p) * new if p > 0 else new


def _autocasts_in_vain(x: Tensor) -> bool:
    """Return whether autocast is on although the processor has no 16-bit instructions. torch's LSTM
    would then raise an error.
    """
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return not any(capabilities[name] for name in capabilities if "bf16" in name)


def run_steps(
    cell: Cell,
    config: RecurrentConfig,
    weights: Weights,
    x: Tensor,
    state: CellState,
    zoned: Tensor | None = None,
) -> Iterator[tuple[dict[str, Tensor], CellState]]:
    """Run a cell over a sequence. For each step, yield the results of the equations by name, and
    the state after the step. All are (B, H).

    The products of the inputs do not depend on the state, so they are computed for all steps at
    once.

    Args:
        cell: The cell.
        config: The settings of the model.
        weights: The weights of the layer.
        x: The inputs, (T, B, I).
        state: The state before the first step, each (B, H).
        zoned: The zoneout mask, bool (T, S, B, H), where S is the number of vectors in the state;
            None for no mask.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    activation = torch.tanh if config.activation == "tanh" else torch.relu
    for t, inputs in enumerate(F.linear(x, weight_ih, bias_ih)):  # T times (B, G)
        results = cell.step(inputs, state, weight_hh, bias_hh, activation)
        # for each vector of the state, (B, H) or None
        masks = [None] * len(state) if zoned is None else zoned[t]
        state = tuple(
            zone_out(old, results[name], config.zoneout, mask)
            for old, name, mask in zip(state, cell.state, masks, strict=True)
        )
        yield results, state


def layer_operations(
    cell: Cell,
    config: RecurrentConfig,
    weights: Weights,
    x: Float[Tensor, "T B I"],
    state: CellState,
    suffix: str,
) -> Iterator[Operation]:
    """Yield the operations of one layer in evaluation mode. The last operation computes h.

    Args:
        cell: The cell.
        config: The settings of the model.
        weights: The weights of the layer.
        x: The inputs of the layer.
        state: The state of the layer before the first token, each (B, H).
        suffix: The end of each operation's name, such as ", layer 2".
    """
    steps = list(run_steps(cell, config, weights, x, state))
    tokens = x[..., 0].numel()
    size = config.hidden_size
    for name, equation in cell.equations.items():
        weights_per_unit = 0
        parameters = 0
        if equation.has_weights:
            weights_per_unit = x.size(-1) + size
            parameters = (weights_per_unit + 2) * size  # a unit has two biases
        yield Operation(
            name=equation.name + suffix,
            formula=equation.formula.replace("tanh", config.activation),
            values=torch.stack([results[name] for results, _ in steps], dim=1),  # (B, T, H)
            axes="B T H",
            parameters=parameters,
            multiplications=(weights_per_unit + equation.products) * size * tokens,
            kind=equation.kind,
        )
    if config.zoneout == 0:
        return
    # h is the first vector of the state; reversed, so that its operation is the last one
    for index, name in reversed(list(enumerate(cell.state))):
        yield Operation(
            name=f"zoneout of the {cell.equations[name].name}{suffix}",
            formula=(
                f"{name}_t = {config.zoneout:g} {name}_{{t-1}} + {1 - config.zoneout:g} {name}_t"
            ),
            values=torch.stack([after[index] for _, after in steps], dim=1),
            axes="B T H",
            multiplications=2 * size * tokens,
            kind="state",
        )
