"""The simple recurrent network (Elman 1990, "Finding Structure in Time") as a language model
(Mikolov et al. 2010).

Must not know tokenizers, training, text or the other cells. The embedding and the output layer are
in ``network``.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reviewgen_recurrent.config import RnnConfig
from reviewgen_recurrent.kernels import RNN
from reviewgen_recurrent.layers import Cell, Equation
from reviewgen_recurrent.network import Recurrent
from reviewgen_recurrent.stepping import RnnStepper

# just below one: with relu, past inputs then fade instead of adding up without bound
RELU_RECURRENT_SCALE = 0.9


def rnn_step(
    inputs: Float[Tensor, "B H"],
    state: tuple[Float[Tensor, "B H"]],
    weight_hh: Float[Tensor, "H H"],
    bias_hh: Float[Tensor, " H"],
    activation: Callable[[Tensor], Tensor],
) -> dict[str, Float[Tensor, "B H"]]:
    """Compute one step: ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or relu instead of tanh.

    ``inputs`` is ``W_ih x + b_ih``.
    """
    (h,) = state
    return {"h": activation(inputs + F.linear(h, weight_hh, bias_hh))}


EQUATIONS = {
    "h": Equation(
        "hidden state",
        "h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)",
        "state",
        has_weights=True,
    )
}


class Rnn(Recurrent):
    """A recurrent language model whose whole state is the hidden vector, recomputed at every token.

    Elman 1990, "Finding Structure in Time"; as a language model Mikolov et al. 2010, "Recurrent
    neural network based language model". For each token, where e is the embedding table (V, E) and
    h the hidden vector (B, H)::

        x_t = e[ids_t]                                          (B, E)
        h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)       (B, H), the x_t of the next layer
        logits_t = W_out h_t + b_out                            (B, V)

    With relu, the recurrent matrix starts as a scaled identity (Le, Jaitly and Hinton 2015, "A
    Simple Way to Initialize Recurrent Networks of Rectified Linear Units"): each unit starts as a
    slowly fading sum of its inputs.

    The state is one tensor, (B, L, H). With ``ngrams`` N above 1, x_t is the sum of e[ids_t] and
    the embeddings of the n-grams that end at position t (``NgramEmbedding``). The state is then a
    pair: the tensor and the last N-1 ids.
    """

    Config: ClassVar[type] = RnnConfig
    cell = Cell(rnn_step, ("h",), EQUATIONS, {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}, RNN)
    Torch = nn.RNN
    Stepper = RnnStepper

    def initialise(self) -> None:
        """Set the initial weights of the layers."""
        super().initialise()
        if self.config.activation != "relu":
            return
        for name, weights in self.recurrent.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.eye_(weights).detach().mul_(RELU_RECURRENT_SCALE)
            elif name.startswith("weight_ih"):
                # keeps the fading sum about as large as one input
                weights.detach().mul_(1 - RELU_RECURRENT_SCALE)
