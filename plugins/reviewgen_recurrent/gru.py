"""The gated recurrent unit (Cho et al. 2014) as a language model, in the variant that torch and cuDNN compute.

It must not know tokenizers, training, text or the other cells; embedding and output are in ``network``.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.compiled.linear import Bits
from reviewgen_recurrent.config import GruConfig
from reviewgen_recurrent.dropout import drop
from reviewgen_recurrent.kernels import GRU
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
from reviewgen_recurrent.stepping import GruStepper

__all__ = ["Gru", "GruConfig"]

GATES = 3  # reset, update, candidate: torch's order


def gru_step(
    inputs: Float[Tensor, "B G"],
    state: tuple[Float[Tensor, "B H"]],
    weight_hh: Float[Tensor, "G H"],
    bias_hh: Float[Tensor, " G"],
    activation: Callable[[Tensor], Tensor],
) -> tuple[Float[Tensor, "B H"]]:
    """Return the next h, by the equations of ``Gru``; ``inputs`` is ``W_ih x + b_ih``, all three gates side by side."""
    (h,) = state
    input_reset, input_update, input_candidate = inputs.chunk(3, dim=-1)  # each (B, H)
    hidden_reset, hidden_update, hidden_candidate = F.linear(h, weight_hh, bias_hh).chunk(3, dim=-1)
    reset = torch.sigmoid(input_reset + hidden_reset)
    update = torch.sigmoid(input_update + hidden_update)
    candidate = activation(input_candidate + reset * hidden_candidate)
    return ((1 - update) * candidate + update * h,)


CELL = Cell(gru_step, {"tanh": torch.gru}, GRU)


class Gru(nn.Module):
    """A recurrent language model whose gates decide, unit by unit, how much of the memory to keep and how much to rewrite.

    Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder"; the reset gate stands after the recurrent
    product, as in torch. For each token, with e the embedding (V, E), s the sigmoid, * elementwise, h the memory (B, H)::

        x_t = e[ids_t]                                                            (B, E)
        r_t = s(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)                            (B, H), reset
        z_t = s(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)                            (B, H), update
        n_t = tanh(W_in x_t + b_in + r_t * (W_hn h_{t-1} + b_hn))                 (B, H), candidate
        h_t = (1 - z_t) * n_t + z_t * h_{t-1}                                     (B, H), the x_t of a layer above
        logits_t = W_out h_t + b_out                                              (B, V)

    With ``activation="relu"`` relu stands for tanh, and the recurrent matrices start smaller: relu has no ceiling.

    The call returns logits, not probabilities. Cross entropy of logits z and a target k is ``-z_k + log sum_j exp z_j``; the
    log-softmax is ``z_k - log sum_j exp z_j``, and its negative log likelihood is minus that: the same number, so the loss
    does both at once and never takes the logarithm of a rounded-off probability.

    The state is one tensor, (B, L, H).

    On Apple's mps torch's GRU has returned NaN (pytorch issue 94691) and been seven times slower than on the CPU (123148).
    """

    Config: ClassVar[type] = GruConfig
    unsuited_devices: ClassVar[frozenset[str]] = frozenset({"mps"})

    def __init__(self, config: GruConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = make_embedding(config)
        self.recurrent = nn.GRU(config.embedding_size, config.hidden_size, config.layers)
        self.layers = Layers(CELL, config)
        self.output = Output(config)
        gain = RELU_RECURRENT_GAIN if config.activation == "relu" else 1.0
        initialise_layers(self.recurrent, GATES, gain)

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

    def stepper(self, bits: Bits = 32) -> GruStepper:
        """Return a stepper made from the weights as they are now, rounded to so many bits.

        Raises:
            BundleError: A weight is NaN or infinite.
        """
        return GruStepper(self.config, arrays(self), bits)
