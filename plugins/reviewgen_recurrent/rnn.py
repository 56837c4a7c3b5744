"""The simple recurrent network (Elman 1990, "Finding Structure in Time") as a language model (Mikolov et al. 2010).

It must not know tokenizers, training, text or the other cells; embedding and output are in ``network``.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.compiled.linear import Bits
from reviewgen_recurrent.config import RnnConfig
from reviewgen_recurrent.dropout import drop
from reviewgen_recurrent.kernels import RNN
from reviewgen_recurrent.layers import Cell, Layers
from reviewgen_recurrent.network import (
    Output,
    arrays,
    batch_first,
    embed,
    initialise_layers,
    layers_first,
    make_embedding,
)
from reviewgen_recurrent.stepping import RnnStepper

__all__ = ["Rnn", "RnnConfig"]

GATES = 1
RELU_RECURRENCE = 0.9  # just below one: what relu lets in fades instead of piling up for ever


def rnn_step(
    inputs: Float[Tensor, "B H"],
    state: tuple[Float[Tensor, "B H"]],
    weight_hh: Float[Tensor, "H H"],
    bias_hh: Float[Tensor, " H"],
    activation: Callable[[Tensor], Tensor],
) -> tuple[Float[Tensor, "B H"]]:
    """Return ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or relu of it; ``inputs`` is ``W_ih x + b_ih``."""
    (h,) = state
    return (activation(inputs + F.linear(h, weight_hh, bias_hh)),)


CELL = Cell(rnn_step, {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}, RNN)


class Rnn(nn.Module):
    """A recurrent language model: the hidden vector is the whole memory, rewritten at every token.

    Elman 1990, "Finding Structure in Time"; as a language model Mikolov et al. 2010, "Recurrent neural network based
    language model". For each token, with e the embedding (V, E) and h the hidden vector (B, H)::

        x_t = e[ids_t]                                          (B, E)
        h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)       (B, H), a layer above takes this h_t as its x_t
        logits_t = W_out h_t + b_out                            (B, V)

    The call returns logits, not probabilities. Cross entropy of logits z and a target k is ``-z_k + log sum_j exp z_j``; the
    log-softmax is ``z_k - log sum_j exp z_j``, and its negative log likelihood is minus that: the same number, so the loss
    does both at once and never takes the logarithm of a rounded-off probability.

    With relu, the recurrent matrix starts as a scaled identity (Le, Jaitly and Hinton 2015, "A Simple Way to Initialize
    Recurrent Networks of Rectified Linear Units"): each unit starts out as a slowly fading sum of its inputs.

    The state is one tensor, (B, L, H).
    """

    Config: ClassVar[type] = RnnConfig

    def __init__(self, config: RnnConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = make_embedding(config)
        self.recurrent = nn.RNN(config.embedding_size, config.hidden_size, config.layers)
        self.layers = Layers(CELL, config)
        self.output = Output(config)
        initialise_layers(self.recurrent, GATES)
        if config.activation == "relu":
            _start_as_identity(self.recurrent)

    def initial_state(self, batch_size: int) -> Float[Tensor, "B L H"]:
        """Return the state before the first token: zeros."""
        return self.embedding.weight.new_zeros(batch_size, self.config.layers, self.config.hidden_size)

    def forward(
        self, ids: Int[Tensor, "B T"], state: Float[Tensor, "B L H"]
    ) -> tuple[Float[Tensor, "B T V"], Float[Tensor, "B L H"]]:
        """Return logits for the token after each of ``ids``, and the state after the last."""
        config = self.config
        x = embed(ids.T, self.embedding, config)  # (T, B, E)
        x, (h,) = self.layers(self.recurrent, x, (layers_first(state, like=x),))  # (T, B, H), (L, B, H)
        x = drop(x, config.output_dropout, self.training, config.locked_dropout)
        logits = self.output(x, self.embedding.weight)  # (T, B, V)
        return logits.transpose(0, 1), batch_first(h, like=self.embedding.weight)

    def implementations(self) -> tuple[str, ...]:
        """Return the ways in which the layers can be computed, the default first."""
        return self.layers.ways

    def use_implementation(self, name: str) -> None:
        """Compute the layers in this way from now on.

        Raises:
            ConfigError: It is none of the implementations.
        """
        self.layers.use(name)

    def stepper(self, bits: Bits = 32) -> RnnStepper:
        """Return a stepper made from the weights as they are now, rounded to so many bits.

        Raises:
            BundleError: A weight is NaN or infinite.
        """
        return RnnStepper(self.config, arrays(self), bits)


def _start_as_identity(layers: nn.Module) -> None:
    with torch.no_grad():
        for name, weights in layers.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.eye_(weights).mul_(RELU_RECURRENCE)
            elif name.startswith("weight_ih"):
                weights.mul_(1 - RELU_RECURRENCE)  # the sum of the fading past stays about as large as one input
