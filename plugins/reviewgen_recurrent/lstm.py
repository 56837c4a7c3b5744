"""Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000) as a
language model.

Must not know tokenizers, training, text or the other cells. The embedding and the output layer are
in ``network``.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reviewgen_recurrent.config import LstmConfig
from reviewgen_recurrent.kernels import GATES, LSTM
from reviewgen_recurrent.layers import Cell, Equation
from reviewgen_recurrent.network import Recurrent
from reviewgen_recurrent.stepping import LstmStepper

# initial bias of the forget gates: Jozefowicz et al. 2015, "An Empirical Exploration of Recurrent
# Network Architectures"
FORGET_BIAS = 1.0


def lstm_step(
    inputs: Float[Tensor, "B G"],
    state: tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]],
    weight_hh: Float[Tensor, "G H"],
    bias_hh: Float[Tensor, " G"],
    activation: Callable[[Tensor], Tensor],
) -> dict[str, Float[Tensor, "B H"]]:
    """Compute one step by the equations of ``Lstm``. Return the result of each equation.

    ``inputs`` is ``W_ih x + b_ih``, with the gates i, f, g, o side by side.
    """
    h, c = state
    sums = inputs + F.linear(h, weight_hh, bias_hh)  # (B, G)
    i, f, g, o = sums.chunk(GATES[LSTM], dim=-1)  # each (B, H)
    i = torch.sigmoid(i)
    f = torch.sigmoid(f)
    g = activation(g)
    o = torch.sigmoid(o)
    c = f * c + i * g
    return {"i": i, "f": f, "g": g, "o": o, "c": c, "h": o * activation(c)}


EQUATIONS = {
    "i": Equation(
        "input gate", "i_t = s(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)", "gate", has_weights=True
    ),
    "f": Equation(
        "forget gate", "f_t = s(W_if x_t + b_if + W_hf h_{t-1} + b_hf)", "gate", has_weights=True
    ),
    "g": Equation(
        "candidate", "g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)", has_weights=True
    ),
    "o": Equation(
        "output gate", "o_t = s(W_io x_t + b_io + W_ho h_{t-1} + b_ho)", "gate", has_weights=True
    ),
    "c": Equation("cell state", "c_t = f_t * c_{t-1} + i_t * g_t", "state", products=2),
    "h": Equation("hidden state", "h_t = o_t * tanh(c_t)", "state", products=1),
}


class Lstm(Recurrent):
    """A recurrent language model with a cell state c that is only scaled and added to, so that it
    keeps information for long.

    Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", with the forget gate of Gers,
    Schmidhuber and Cummins 2000. For each token, where e is the embedding table (V, E), s the
    sigmoid, * the elementwise product, h the hidden state and c the cell state (B, H)::

        x_t = e[ids_t]                                        (B, E)
        i_t = s(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)        (B, H), input gate
        f_t = s(W_if x_t + b_if + W_hf h_{t-1} + b_hf)        (B, H), forget gate
        g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)     (B, H), candidate
        o_t = s(W_io x_t + b_io + W_ho h_{t-1} + b_ho)        (B, H), output gate
        c_t = f_t * c_{t-1} + i_t * g_t                       (B, H)
        h_t = o_t * tanh(c_t)                                 (B, H), the x_t of the next layer
        logits_t = W_out h_t + b_out                          (B, V)

    With ``activation="relu"``, relu replaces both tanh, and the recurrent matrices start smaller,
    since relu is unbounded. The forget gates start with a bias of one (Jozefowicz et al. 2015), so
    that an untrained model keeps its cell state.

    The state is a pair (h, c) of tensors (B, L, H). With ``ngrams`` N above 1, x_t is the sum of
    e[ids_t] and the embeddings of the n-grams that end at position t (``NgramEmbedding``). The
    state then also has the last N-1 ids.
    """

    Config: ClassVar[type] = LstmConfig
    cell = Cell(lstm_step, ("h", "c"), EQUATIONS, {"tanh": torch.lstm}, LSTM)
    Torch = nn.LSTM
    Stepper = LstmStepper

    def initialise(self) -> None:
        """Set the initial weights of the layers."""
        super().initialise()
        for name, bias in self.recurrent.named_parameters():
            if name.startswith("bias_ih"):
                _, f, _, _ = bias.detach().chunk(GATES[LSTM])  # each (H)
                nn.init.constant_(f, FORGET_BIAS)
