"""What the three recurrent models share beside their layers: embedding, output, initial weights, states, the call.

It must not know any cell, whose equations live in the cell's own file, nor tokenizers, training or text. Shapes: B batch, T time
(tokens), V vocabulary, E embedding, H hidden, L layers. Inside, time comes first, (T, B, H), as in ``layers``.

Sources: Press and Wolf 2017, "Using the Output Embedding to Improve Language Models" (tied embeddings); Saxe et al. 2014
(orthogonal weights).
"""

from typing import ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.compiled.linear import Bits
from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.dropout import drop
from reviewgen_recurrent.layers import Cell, Layers
from reviewgen_recurrent.ngrams import NgramEmbedding
from reviewgen_recurrent.stepping import RecurrentStepper

__all__ = ["RELU_RECURRENT_GAIN", "Output", "Recurrent", "State", "initialise_layers"]

State: TypeAlias = Tensor | tuple[Tensor, ...]
"""A cell's memory, (B, L, H), once or, for the lstm, twice; with n-grams also the last N-1 ids, (B, N-1)."""

RELU_RECURRENT_GAIN = 0.5
"""For relu gru and lstm: at 1, the memory of a fresh relu lstm passes 1e30 within 300 tokens, at 0.5 it stays below 5."""


def _make_embedding(config: RecurrentConfig) -> nn.Embedding:
    """Return a (V, E) table of normal numbers; small where it is the output layer too, so that logits start near zero."""
    embedding = nn.Embedding(config.vocab_size, config.embedding_size)
    nn.init.normal_(embedding.weight, std=config.embedding_size**-0.5 if config.tied else 1.0)
    return embedding


def _embed(ids: Int[Tensor, "T B"], embedding: nn.Embedding, config: RecurrentConfig) -> Float[Tensor, "T B E"]:
    """Return the vectors of some ids, with the dropout of tokens."""
    table, training = embedding.weight, embedding.training
    if training and config.token_dropout > 0:
        table = table * drop(torch.ones_like(table[:, :1]), config.token_dropout, training)  # (V, E) times (V, 1)
    return F.embedding(ids, table)


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


class Recurrent(nn.Module):
    """A recurrent language model but for its cell, which adds its equations, torch's layer and the weights that it begins with.

    The call returns logits, not probabilities. Cross entropy of logits z and a target k is ``-z_k + log sum_j exp z_j``; the
    log-softmax is ``z_k - log sum_j exp z_j``, and its negative log likelihood is minus that: the same number, so the loss
    does both at once and never takes the logarithm of a rounded-off probability.
    """

    cell: ClassVar[Cell]
    Torch: ClassVar[type[nn.RNNBase]]
    Stepper: ClassVar[type[RecurrentStepper]]

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = _make_embedding(config)
        self.ngrams = NgramEmbedding(config) if config.ngrams > 1 else None
        self.recurrent = self.Torch(config.embedding_size, config.hidden_size, config.layers)
        self.layers = Layers(self.cell, config)
        self.output = Output(config)
        self.initialise()

    def initialise(self) -> None:
        """Give the layers the weights that they begin with."""
        raise NotImplementedError

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token: zeros, and V for each token that has not been."""
        config, like = self.config, self.embedding.weight
        memory = tuple(like.new_zeros(batch_size, config.layers, config.hidden_size) for _ in range(self.Stepper.parts))
        if self.ngrams is not None:
            memory += (like.new_full((batch_size, config.ngrams - 1), config.vocab_size, dtype=torch.long),)
        return memory if len(memory) > 1 else memory[0]

    def forward(self, ids: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        """Return logits for the token after each of ``ids``, and the state after the last."""
        config, table = self.config, self.embedding.weight
        memory = state if isinstance(state, tuple) else (state,)
        x = _embed(ids.T, self.embedding, config)  # (T, B, E)
        last: tuple[Tensor, ...] = ()
        if self.ngrams is not None:
            *memory, past = memory
            x = x + self.ngrams(ids.T, past.T)
            last = (torch.cat([past, ids], dim=1)[:, -past.size(1) :],)
        x = drop(x, config.embedding_dropout, self.training, config.locked_dropout)
        first = tuple(part.transpose(0, 1).to(x.dtype).contiguous() for part in memory)  # each (L, B, H); no copy of our own
        x, after = self.layers(self.recurrent, x, first)  # (T, B, H)
        x = drop(x, config.output_dropout, self.training, config.locked_dropout)
        logits = self.output(x, table)  # (T, B, V)
        after = (*(part.to(table.dtype).transpose(0, 1) for part in after), *last)  # B in front, so that rows can be picked
        return logits.transpose(0, 1), after if len(after) > 1 else after[0]

    def implementations(self) -> tuple[str, ...]:
        """Return the ways in which the layers can be computed, the default first."""
        return self.layers.ways

    def use_implementation(self, name: str) -> None:
        """Compute the layers in this way from now on.

        Raises:
            ConfigError: It is none of the implementations.
        """
        self.layers.use(name)

    def stepper(self, bits: Bits = 32) -> RecurrentStepper:
        """Return a stepper made from the weights as they are now, rounded to so many bits.

        Raises:
            BundleError: A weight is NaN or infinite.
        """
        arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in self.state_dict().items()}
        return self.Stepper(self.config, arrays, bits)
