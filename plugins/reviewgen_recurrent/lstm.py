"""Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000) as a language model.

It must not know tokenizers, training, text or the other cells; embedding and output are in ``network``.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.compiled.linear import Bits
from reviewgen_recurrent.config import LstmConfig
from reviewgen_recurrent.dropout import drop
from reviewgen_recurrent.kernels import LSTM
from reviewgen_recurrent.layers import Cell, Layers
from reviewgen_recurrent.network import (
    RELU_RECURRENT_GAIN,
    Output,
    arrays,
    batch_first,
    embed,
    initialise_layers,
    layers_first,
    make_embedding,
)
from reviewgen_recurrent.stepping import LstmStepper

__all__ = ["Lstm", "LstmConfig"]

GATES = 4  # input, forget, candidate, output: torch's order
FORGET_BIAS = 1.0  # Jozefowicz et al. 2015, "An Empirical Exploration of Recurrent Network Architectures"


def lstm_step(
    inputs: Float[Tensor, "B G"],
    state: tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]],
    weight_hh: Float[Tensor, "G H"],
    bias_hh: Float[Tensor, " G"],
    activation: Callable[[Tensor], Tensor],
) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]:
    """Return the next (h, c), by the equations of ``Lstm``; ``inputs`` is ``W_ih x + b_ih``, all four gates side by side."""
    h, c = state
    input_gate, forget_gate, candidate, output_gate = (inputs + F.linear(h, weight_hh, bias_hh)).chunk(4, dim=-1)  # each (B, H)
    c = torch.sigmoid(forget_gate) * c + torch.sigmoid(input_gate) * activation(candidate)
    return torch.sigmoid(output_gate) * activation(c), c


CELL = Cell(lstm_step, {"tanh": torch.lstm}, LSTM)


class Lstm(nn.Module):
    """A recurrent language model with a memory c that is only ever scaled and added to, so that it lasts.

    Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", with the forget gate of Gers, Schmidhuber and Cummins 2000. For
    each token, with e the embedding (V, E), s the sigmoid, * elementwise, h what is shown (B, H), c the memory (B, H)::

        x_t = e[ids_t]                                        (B, E)
        i_t = s(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)        (B, H), input
        f_t = s(W_if x_t + b_if + W_hf h_{t-1} + b_hf)        (B, H), forget
        g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)     (B, H), candidate
        o_t = s(W_io x_t + b_io + W_ho h_{t-1} + b_ho)        (B, H), output
        c_t = f_t * c_{t-1} + i_t * g_t                       (B, H)
        h_t = o_t * tanh(c_t)                                 (B, H), the x_t of a layer above
        logits_t = W_out h_t + b_out                          (B, V)

    With ``activation="relu"`` relu stands for both tanh, and the recurrent matrices start smaller: relu has no ceiling.
    The forget gates start with a bias of one (Jozefowicz et al. 2015): a fresh model remembers.

    The call returns logits, not probabilities. Cross entropy of logits z and a target k is ``-z_k + log sum_j exp z_j``; the
    log-softmax is ``z_k - log sum_j exp z_j``, and its negative log likelihood is minus that: the same number, so the loss
    does both at once and never takes the logarithm of a rounded-off probability.

    The state is a pair (h, c) of tensors (B, L, H).
    """

    Config: ClassVar[type] = LstmConfig

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = make_embedding(config)
        self.recurrent = nn.LSTM(config.embedding_size, config.hidden_size, config.layers)
        self.layers = Layers(CELL, config)
        self.output = Output(config)
        gain = RELU_RECURRENT_GAIN if config.activation == "relu" else 1.0
        initialise_layers(self.recurrent, GATES, gain)
        _start_remembering(self.recurrent)

    def initial_state(self, batch_size: int) -> tuple[Float[Tensor, "B L H"], Float[Tensor, "B L H"]]:
        """Return the state before the first token: zeros."""
        shape = (batch_size, self.config.layers, self.config.hidden_size)
        return self.embedding.weight.new_zeros(shape), self.embedding.weight.new_zeros(shape)

    def forward(
        self, ids: Int[Tensor, "B T"], state: tuple[Float[Tensor, "B L H"], Float[Tensor, "B L H"]]
    ) -> tuple[Float[Tensor, "B T V"], tuple[Float[Tensor, "B L H"], Float[Tensor, "B L H"]]]:
        """Return logits for the token after each of ``ids``, and the state after the last."""
        config = self.config
        x = embed(ids.T, self.embedding, config)  # (T, B, E)
        h, c = state
        x, (h, c) = self.layers(
            self.recurrent, x, (layers_first(h, like=x), layers_first(c, like=x))
        )  # (T, B, H), (L, B, H), (L, B, H)
        x = drop(x, config.output_dropout, self.training, config.locked_dropout)
        logits = self.output(x, self.embedding.weight)  # (T, B, V)
        return logits.transpose(0, 1), (batch_first(h, like=self.embedding.weight), batch_first(c, like=self.embedding.weight))

    def implementations(self) -> tuple[str, ...]:
        """Return the ways in which the layers can be computed, the default first."""
        return self.layers.ways

    def use_implementation(self, name: str) -> None:
        """Compute the layers in this way from now on.

        Raises:
            ConfigError: It is none of the implementations.
        """
        self.layers.use(name)

    def stepper(self, bits: Bits = 32) -> LstmStepper:
        """Return a stepper made from the weights as they are now, rounded to so many bits.

        Raises:
            BundleError: A weight is NaN or infinite.
        """
        return LstmStepper(self.config, arrays(self), bits)


def _start_remembering(layers: nn.Module) -> None:
    for name, bias in layers.named_parameters():
        if name.startswith("bias_ih"):
            _, forget_gate, _, _ = bias.detach().chunk(GATES)  # each (H)
            nn.init.constant_(forget_gate, FORGET_BIAS)
