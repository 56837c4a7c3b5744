"""minGRU and minLSTM as language models. Feng et al. 2024, "Were RNNs All We Needed?".

Shapes: B batch, T time (tokens), V vocabulary, H hidden, L layers, K tokens of the window. Inside,
time comes first, (T, B, H).
"""

from typing import ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reviewgen_mingru.config import MinGruConfig, MinLstmConfig, MinRnnConfig
from reviewgen_mingru.scan import scan
from reviewgen_mingru.stepping import EPSILON, MinGruStepper, MinLstmStepper, MinRnnStepper

__all__ = ["MinGru", "MinLstm", "MinRnn"]

State: TypeAlias = tuple[Tensor, Tensor]
"""h of each layer, float32 (B, L, H), and the last K ids, int64 (B, K), V before the beginning; the
logits follow from it.
"""


class MinRnn(nn.Module):
    """Base class of the two models; a subclass turns the gates of a layer into the factors and
    terms of its recurrence.

    With e_0 to e_{K-1} embeddings, one for each position of the window, for each token and each
    layer::

        x_t = e_0[ids_t] + e_1[ids_{t-1}] + ... + e_{K-1}[ids_{t-K+1}]      (B, H)
        gates_t = W_gates norm(x_t) + b_gates                               (B, 2 H), or (B, 3 H)
        h_t = a_t * h_{t-1} + (1 - a_t) * c_t                               (B, H), a_t, c_t: gates
        x_t = x_t + W_mix h_t                                               (B, H), next layer's x_t
        logits_t = W_out norm(x_t) + b_out                                  (B, V)

    norm divides a vector by its root mean square and multiplies it by learned scales (Zhang &
    Sennrich 2019). No gate depends on h_{t-1}, so that the h of all tokens are computed at once, by
    ``scan``.

    Returns logits; see ``reviewgen.protocols.LanguageModel``.
    """

    gates: ClassVar[int]
    Stepper: ClassVar[type[MinRnnStepper]]

    def __init__(self, config: MinRnnConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.embedding = nn.Embedding(
            config.window * (config.vocab_size + 1), size
        )  # e_0, e_1, ..., each with a row for no token
        self.layers = nn.ModuleList(_Layer(size, self.gates) for _ in range(config.layers))
        self.norm = nn.RMSNorm(size, EPSILON)
        self.output = nn.Linear(size, config.vocab_size)
        nn.init.normal_(self.embedding.weight, std=config.window**-0.5)
        nn.init.normal_(self.output.weight, std=size**-0.5)
        nn.init.zeros_(self.output.bias)

    def factors_and_candidates(self, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a_t, 1 - a_t and c_t, each (T, B, H), of a layer's gates, (T, B, 2 H or 3 H)."""
        raise NotImplementedError(
            f"{type(self).__name__} must define the factors and candidates of its gates."
        )

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token: zeros, and no tokens."""
        config = self.config
        like = self.output.bias
        h = torch.zeros(batch_size, config.layers, config.hidden_size, device=like.device)
        past = torch.full((batch_size, config.window), config.vocab_size, device=like.device)
        return h, past

    def forward(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Return logits (B, T, V), where ``logits[b, t]`` are of the token after ``ids[b, t]``, and
        the state after ``ids``.
        """
        h, past = state
        seen = torch.cat((past, ids), dim=1)  # (B, K+T)
        x = self._embed(seen, ids.size(1))  # (T, B, H)
        after = []
        for layer, start in zip(self.layers, h.unbind(1), strict=True):
            a, rest, c = self.factors_and_candidates(layer.gates(layer.norm(x)).float())
            states = scan(a, rest * c, start.to(a.dtype))  # (T, B, H)
            x = x + F.dropout(layer.mix(states), self.config.dropout, self.training)
            after.append(states[-1])
        # (T, B, V)
        logits = self.output(F.dropout(self.norm(x), self.config.dropout, self.training))
        return logits.transpose(0, 1), (
            torch.stack(after, dim=1).to(h.dtype),
            seen[:, ids.size(1) :],
        )

    def _embed(self, seen: Tensor, time: int) -> Tensor:
        """Return the sums of the embeddings of each window, (T, B, H)."""
        window = self.config.window
        rows = self.config.vocab_size + 1
        # K of (B, T)
        positions = [seen[:, window - k :][:, :time] + k * rows for k in range(window)]
        return F.embedding(torch.stack(positions).transpose(1, 2), self.embedding.weight).sum(0)

    def stepper(self, weight_bits: Literal[32, 16, 8] = 32) -> MinRnnStepper:
        """Return a stepper made from a copy of the current weights, rounded to ``weight_bits``.

        Raises:
            BundleError: A weight is NaN or infinite.
        """
        arrays = {
            name: tensor.detach().float().cpu().numpy()
            for name, tensor in self.state_dict().items()
        }
        return self.Stepper(self.config, arrays, weight_bits)


class _Layer(nn.Module):
    """The weights of one layer."""

    def __init__(self, size: int, gates: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(size, EPSILON)
        self.gates = nn.Linear(size, gates * size)
        self.mix = nn.Linear(size, size, bias=False)
        for matrix in (*self.gates.weight.detach().chunk(gates), self.mix.weight):
            nn.init.xavier_uniform_(matrix)
        nn.init.zeros_(self.gates.bias)


class MinGru(MinRnn):
    """A GRU whose gates and candidate depend on the input only, without a reset gate and without
    tanh.

    The equations of ``MinRnn`` with, s the sigmoid::

        z_t, c_t = the two gates
        a_t = 1 - s(z_t)
    """

    Config: ClassVar[type] = MinGruConfig
    gates = 2
    Stepper = MinGruStepper

    def factors_and_candidates(self, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return 1 - z_t, z_t and c_t; 1 - s(z) is s(-z)."""
        z, c = gates.chunk(2, dim=-1)
        return torch.sigmoid(-z), torch.sigmoid(z), c


class MinLstm(MinRnn):
    """An LSTM whose gates and candidate depend on the input only, without an output gate; forget
    and input gate sum to one.

    The equations of ``MinRnn`` with, s the sigmoid::

        f_t, i_t, c_t = the three gates
        a_t = s(f_t) / (s(f_t) + s(i_t))
    """

    Config: ClassVar[type] = MinLstmConfig
    gates = 3
    Stepper = MinLstmStepper

    def factors_and_candidates(self, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the normalised forget and input gates and c_t: the sigmoid of a difference of
        logs, which never is 0 / 0.
        """
        f, i, c = gates.chunk(3, dim=-1)
        difference = F.logsigmoid(f) - F.logsigmoid(i)
        return torch.sigmoid(difference), torch.sigmoid(-difference), c
