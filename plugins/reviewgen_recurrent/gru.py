"""The gated recurrent unit (Cho et al. 2014) as a language model, in the variant of torch and
cuDNN.

Must not know tokenizers, training, text or the other cells. The embedding and the output layer are
in ``network``.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reviewgen_recurrent.config import GruConfig
from reviewgen_recurrent.kernels import GATES, GRU
from reviewgen_recurrent.layers import Cell, Equation
from reviewgen_recurrent.network import Recurrent
from reviewgen_recurrent.stepping import GruStepper


def gru_step(
    inputs: Float[Tensor, "B G"],
    state: tuple[Float[Tensor, "B H"]],
    weight_hh: Float[Tensor, "G H"],
    bias_hh: Float[Tensor, " G"],
    activation: Callable[[Tensor], Tensor],
) -> dict[str, Float[Tensor, "B H"]]:
    """Compute one step by the equations of ``Gru``. Return the result of each equation.

    ``inputs`` is ``W_ih x + b_ih``, with the gates r, z, n side by side.
    """
    (h,) = state
    hidden = F.linear(h, weight_hh, bias_hh)  # (B, G)
    input_r, input_z, input_n = inputs.chunk(GATES[GRU], dim=-1)  # each (B, H)
    hidden_r, hidden_z, hidden_n = hidden.chunk(GATES[GRU], dim=-1)  # each (B, H)
    r = torch.sigmoid(input_r + hidden_r)
    z = torch.sigmoid(input_z + hidden_z)
    n = activation(input_n + r * hidden_n)
    return {"r": r, "z": z, "n": n, "h": (1 - z) * n + z * h}


EQUATIONS = {
    "r": Equation(
        "reset gate", "r_t = s(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)", "gate", has_weights=True
    ),
    "z": Equation(
        "update gate", "z_t = s(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)", "gate", has_weights=True
    ),
    "n": Equation(
        "candidate",
        "n_t = tanh(W_in x_t + b_in + r_t * (W_hn h_{t-1} + b_hn))",
        has_weights=True,
        products=1,
    ),
    "h": Equation("hidden state", "h_t = (1 - z_t) * n_t + z_t * h_{t-1}", "state", products=2),
}


class Gru(Recurrent):
    """A recurrent language model whose gates decide, unit by unit, how much of the state to keep
    and how much to replace.

    Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder". As in torch, the
    reset gate is applied after the recurrent product. For each token, where e is the embedding
    table (V, E), s the sigmoid, * the elementwise product, and h the state (B, H)::

        x_t = e[ids_t]                                                   (B, E)
        r_t = s(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)                   (B, H), reset gate
        z_t = s(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)                   (B, H), update gate
        n_t = tanh(W_in x_t + b_in + r_t * (W_hn h_{t-1} + b_hn))        (B, H), candidate
        h_t = (1 - z_t) * n_t + z_t * h_{t-1}                            (B, H), next layer's x_t
        logits_t = W_out h_t + b_out                                     (B, V)

    With ``activation="relu"``, relu replaces tanh, and the recurrent matrices start smaller, since
    relu is unbounded.

    The state is one tensor, (B, L, H). With ``ngrams`` N above 1, x_t is the sum of e[ids_t] and
    the embeddings of the n-grams that end at position t (``NgramEmbedding``). The state is then a
    pair: the tensor and the last N-1 ids.

    On Apple's mps, torch's GRU has returned NaN (pytorch issue 94691) and been seven times slower
    than on the CPU (123148).
    """

    Config: ClassVar[type] = GruConfig
    unsuited_devices: ClassVar[frozenset[str]] = frozenset({"mps"})
    cell = Cell(gru_step, ("h",), EQUATIONS, {"tanh": torch.gru}, GRU)
    Torch = nn.GRU
    Stepper = GruStepper
