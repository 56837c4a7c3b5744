"""What the three recurrent models share beside their layers: embedding, output, initial weights, states.

It must not know any cell, whose equations live in the cell's own file, nor tokenizers, training or text. Shapes: B batch, T time
(tokens), V vocabulary, E embedding, H hidden, L layers. Inside, time comes first, (T, B, H), as in ``layers``.

Sources: Press and Wolf 2017, "Using the Output Embedding to Improve Language Models" (tied embeddings); Saxe et al. 2014
(orthogonal weights).
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.dropout import drop

__all__ = [
    "RELU_RECURRENT_GAIN",
    "Output",
    "arrays",
    "batch_first",
    "embed",
    "initialise_layers",
    "layers_first",
    "make_embedding",
]

RELU_RECURRENT_GAIN = 0.5
"""For relu gru and lstm: at 1, the memory of a fresh relu lstm passes 1e30 within 300 tokens, at 0.5 it stays below 5."""


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


def embed(ids: Int[Tensor, "T B"], embedding: nn.Embedding, config: RecurrentConfig) -> Float[Tensor, "T B E"]:
    """Return the vectors of some ids, with the dropouts of tokens and of embeddings."""
    table, training = embedding.weight, embedding.training
    if training and config.token_dropout > 0:
        table = table * drop(torch.ones_like(table[:, :1]), config.token_dropout, training)  # (V, E) times (V, 1)
    return drop(F.embedding(ids, table), config.embedding_dropout, training, config.locked_dropout)


def initialise_layers(layers: nn.Module, gates: int, recurrent_gain: float = 1.0) -> None:
    """Fill a stack of layers: Glorot inputs, orthogonal recurrence, zero biases, each gate by itself.

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
