"""What the three recurrent models share: embedding, output, and a layer stack written out from matrix products.

It must not know any cell: the equations of a cell live in the cell's own file, and reach the stack as a function. Nor does it
know tokenizers, training or text. Shapes: B batch, T time (tokens), V vocabulary, E embedding, H hidden, L layers, G gates of
a cell (rnn 1, gru 3, lstm 4). Inside, time comes first, (T, B, H), which is the order torch's layers compute in.

Sources: Elman 1990 and the papers named in the cells' files; Press and Wolf 2017, "Using the Output Embedding to Improve
Language Models" (tied embeddings); Zaremba et al. 2014, "Recurrent Neural Network Regularization" (dropout on embeddings,
between layers and on the output, never from step to step); Saxe et al. 2014 (orthogonal weights).
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reviewgen_recurrent.config import RecurrentConfig

__all__ = [
    "RELU_RECURRENT_GAIN",
    "Output",
    "SpelledLayers",
    "activation_of",
    "arrays",
    "batch_first",
    "initialise_layers",
    "layers_first",
    "make_embedding",
]

CellState: TypeAlias = tuple[Tensor, ...]
"""A cell's memory, each part (B, H): ``(h,)`` or, for the lstm, ``(h, c)``."""

CellStep: TypeAlias = Callable[[Tensor, CellState, Tensor, Tensor], CellState]
"""One step of a cell: ``step(inputs (B, G*H), state, weight_hh (G*H, H), bias_hh (G*H)) -> state``; ``h`` is the first part."""

RELU_RECURRENT_GAIN = 0.5
"""For relu gru and lstm: at 1, the memory of a fresh relu lstm passes 1e30 within 300 tokens, at 0.5 it stays below 5."""


def activation_of(config: RecurrentConfig) -> Callable[[Tensor], Tensor]:
    """Return the function that the config's ``activation`` names."""
    return {"tanh": torch.tanh, "relu": torch.relu}[config.activation]


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """Return a model's tensors as float32 arrays, which may share its memory."""
    return {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}


def layers_first(state: Float[Tensor, "B L H"], like: Tensor) -> Float[Tensor, "L B H"]:
    """Return a state as torch's layers want it, in the dtype of ``like``; no copy where ``batch_first`` made it."""
    return state.transpose(0, 1).to(like.dtype).contiguous()


def batch_first(state: Float[Tensor, "L B H"], like: Tensor) -> Float[Tensor, "B L H"]:
    """Return a layers' state with B in front, in the dtype of ``like``, so that its rows can be picked."""
    return state.to(like.dtype).transpose(0, 1)


def make_embedding(config: RecurrentConfig) -> nn.Embedding:
    """Return a (V, E) table of normal numbers; small where it is the output layer too, so that logits start near zero."""
    embedding = nn.Embedding(config.vocab_size, config.embedding_size)
    nn.init.normal_(embedding.weight, std=config.embedding_size**-0.5 if config.tied else 1.0)
    return embedding


def initialise_layers(layers: nn.Module, gates: int, recurrent_gain: float = 1.0) -> None:
    """Fill torch's or the spelled layers: Glorot inputs, orthogonal recurrence, zero biases, each gate by itself.

    An orthogonal matrix keeps the length of what it multiplies, so signals and gradients neither fade nor grow over time.
    """
    for name, weights in layers.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(weights)
            continue
        for gate in weights.detach().chunk(gates):  # each (H, in)
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(gate, recurrent_gain)
            else:
                nn.init.xavier_uniform_(gate)


class Output(nn.Module):
    """Hidden vectors to logits: ``x W' + b``, where W is its own (V, H) or, tied, the embedding's (V, E).

    Tied, it owns no W and is handed the embedding's at each call, so that a saved model holds the table once.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        projected = config.tied and config.hidden_size != config.embedding_size
        self.projection = nn.Linear(config.hidden_size, config.embedding_size, bias=False) if projected else nn.Identity()
        self.weight = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        if self.weight is not None:
            nn.init.normal_(self.weight, std=config.hidden_size**-0.5)

    def forward(self, hidden: Float[Tensor, "T B H"], embedding: Float[Tensor, "V E"]) -> Float[Tensor, "T B V"]:
        """Return a score for every token at every position."""
        weight = embedding if self.weight is None else self.weight
        return F.linear(self.projection(hidden), weight, self.bias)


class SpelledLayers(nn.Module):
    """A stack of one cell, called like torch's nn.RNN, nn.GRU and nn.LSTM, with their parameters' names and shapes.

    The products of the inputs need no state, so each layer makes those of the whole sequence in one matrix product; what is
    left for the loop over time is the cell's step.
    """

    def __init__(self, step: CellStep, gates: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.step, self.layers, self.dropout = step, config.layers, config.dropout
        rows = gates * config.hidden_size
        for layer in range(config.layers):
            width = config.hidden_size if layer else config.embedding_size
            shapes = {"weight_ih": (rows, width), "weight_hh": (rows, config.hidden_size), "bias_ih": (rows,), "bias_hh": (rows,)}
            for name, shape in shapes.items():
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(torch.empty(shape)))

    def forward(self, x: Tensor, state: Tensor | CellState) -> tuple[Tensor, Tensor | CellState]:
        """Take inputs (T, B, E) and a state whose parts are (L, B, H); return outputs (T, B, H) and the last state."""
        parts = state if isinstance(state, tuple) else (state,)
        last = []
        for layer in range(self.layers):
            x = F.dropout(x, self.dropout if layer else 0.0, self.training)
            x, after = self._run(layer, x, tuple(part[layer] for part in parts))
            last.append(after)
        stacked = tuple(torch.stack(part) for part in zip(*last, strict=True))  # each (L, B, H)
        return x, stacked if isinstance(state, tuple) else stacked[0]

    def _run(self, layer: int, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        """Run one layer over the sequence."""
        weight_ih, weight_hh, bias_ih, bias_hh = (
            self.get_parameter(f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        outputs = []
        for inputs in F.linear(x, weight_ih, bias_ih):  # T times (B, G*H)
            state = self.step(inputs, state, weight_hh, bias_hh)
            outputs.append(state[0])
        return torch.stack(outputs), state
