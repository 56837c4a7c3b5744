"""The operations of a recurrent layer one by one, for ``reviewgen.protocols.SupportsOperations``: the equations of its cell.

Must not know any cell. Shapes: B batch, T time (tokens), H hidden, G rows of a layer's matrices.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from reviewgen.protocols import Operation
from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.dropout import zone_out
from reviewgen_recurrent.layers import Cell, CellState, Equation, Weights


def layer_operations(
    cell: Cell, config: RecurrentConfig, weights: Weights, x: Float[Tensor, "T B I"], state: CellState, place: str
) -> Iterator[Operation]:
    """Yield the operations of one layer in evaluation mode; the last one yields h.

    Args:
        cell: The cell.
        config: The settings of the model.
        weights: The layer's.
        x: Its inputs.
        state: Its state before the first token, each part (B, H).
        place: What is added to the names, as in ", layer 2".
    """
    results = _run(cell, config, weights, x, state)
    for name, equation in cell.equations.items():
        values = results[name].transpose(0, 1)  # (B, T, H)
        yield Operation(
            name=equation.name + place,
            formula=equation.formula if config.activation == "tanh" else equation.formula.replace("tanh", "relu"),
            values=values,
            axes="B T H",
            parameters=_count_parameters(equation, x.size(-1), config.hidden_size),
            multiplications=_count_multiplications(equation, x.size(-1), config.hidden_size) * values[..., 0].numel(),
            kind=equation.kind,
        )
    for name in cell.state[::-1] if config.zoneout > 0 else ():
        values = results[f"zoned {name}"].transpose(0, 1)
        yield Operation(
            name=f"zoneout of the {cell.equations[name].name}{place}",
            formula=f"{name}_t = {config.zoneout:g} {name}_{{t-1}} + {1 - config.zoneout:g} {name}_t",
            values=values,
            axes="B T H",
            multiplications=2 * values.numel(),
            kind="state",
        )


def _run(cell: Cell, config: RecurrentConfig, weights: Weights, x: Tensor, state: CellState) -> dict[str, Tensor]:
    """Return the results of each equation, (T, B, H), and those of zoneout, if there is any."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    activation = torch.tanh if config.activation == "tanh" else torch.relu
    steps = []
    for inputs in F.linear(x, weight_ih, bias_ih):  # T times (B, G)
        results = cell.step(inputs, state, weight_hh, bias_hh, activation)
        pairs = zip(state, cell.state, strict=True)
        state = tuple(zone_out(old, results[name], config.zoneout, None) for old, name in pairs)
        steps.append(results | {f"zoned {name}": part for name, part in zip(cell.state, state, strict=True)})
    return {name: torch.stack([step[name] for step in steps]) for name in steps[0]}


def _count_parameters(equation: Equation, inputs: int, hidden: int) -> int:
    return (inputs + hidden + 2) * hidden if equation.has_weights else 0


def _count_multiplications(equation: Equation, inputs: int, hidden: int) -> int:
    """Return the multiplications of one token."""
    return (inputs + hidden) * hidden * equation.has_weights + equation.products * hidden
