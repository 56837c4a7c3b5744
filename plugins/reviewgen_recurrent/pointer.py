"""The pointer of a recurrent model: a distribution over the last tokens of the text, which are
copied with it.

Sources: Merity et al. 2017, "Pointer Sentinel Mixture Models"; See et al. 2017, "Get To The Point"
(copying what a text is given). Must not know any cell. Shapes: B batch, T time (tokens), V
vocabulary, K width of the output layer's input, A width of a key, W tokens that can be copied, N =
1 head.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.protocols import Operation
from reviewgen.protocols.abilities import Copies
from reviewgen_recurrent.config import GATE_BIAS, KEY_SIZE, NORM_EPSILON, RecurrentConfig


class Pointer(nn.Module):
    """Finds tokens that followed outputs like the current one, and mixes them into the prediction.

    x is the input of the output layer; s is the sigmoid. A token's key is made of the output before
    this token was read. For the last W tokens of the same text, the current one included::

        n_t = x_t / rms(x_t) * w                            (B, K)
        q_t, k_{t+1} = P_q n_t, P_k n_t                     (B, A) each
        a_ti = softmax over i of q_t . k_i / sqrt(A),  t - W < i <= t
        g_t = s(w_g n_t + b_g)                              (B), 0 if there is no token to copy
        logits_t = log((1 - g_t) softmax(W_out x_t + b_out) + g_t sum over i of a_ti [ids_i])

    The ids of conditions, the markers of fields and bos are not copied; the tokens of fields are.

    Its state: the keys of the last W tokens and of the next one, oldest first, (B, W + 1, A), and
    the ids of these tokens, (B, W + 1), -1 where there is no token to copy.
    """

    def __init__(self, config: RecurrentConfig, width: int) -> None:
        super().__init__()
        self.window = config.pointer
        self.bos_id = -1 if config.bos_id is None else config.bos_id
        self.first_condition_id = config.vocab_size - config.field_ids - config.condition_ids
        self.norm = nn.RMSNorm(width, NORM_EPSILON)
        self.query = nn.Linear(width, KEY_SIZE, bias=False)
        self.key = nn.Linear(width, KEY_SIZE, bias=False)
        self.gate = nn.Linear(width, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, GATE_BIAS)

    def forward(
        self,
        x: Float[Tensor, "B T K"],
        ids: Int[Tensor, "B T"],
        keys: Float[Tensor, "B W1 A"],
        seen: Int[Tensor, "B W1"],
    ) -> Copies:
        """Return what is copied after each token. ``keys`` and ``seen`` are the state."""
        n = self._normalise(x)
        keys, seen, text = self._extend(n, ids, keys, seen)
        scores = self.query(n) @ keys[:, :-1].to(n.dtype).mT * KEY_SIZE**-0.5  # (B, T, W + T)
        place = torch.arange(seen.size(1), device=x.device)
        oldest = torch.arange(1, ids.size(1) + 1, device=x.device)[:, None]
        is_near = (place >= oldest) & (place < oldest + self.window)
        is_own = text[:, None] == text[:, self.window :, None]
        can_copy = is_near & is_own & (seen >= 0)[:, None]
        lowest = torch.finfo(torch.float32).min
        weights = scores.float().masked_fill(~can_copy, lowest).softmax(-1) * can_copy
        log_odds = self.gate(n).float().masked_fill(~can_copy.any(-1, keepdim=True), -torch.inf)
        return Copies(weights, seen, log_odds)

    def advance(
        self,
        x: Float[Tensor, "B T K"],
        ids: Int[Tensor, "B T"],
        keys: Float[Tensor, "B W1 A"],
        seen: Int[Tensor, "B W1"],
    ) -> tuple[Float[Tensor, "B W1 A"], Int[Tensor, "B W1"]]:
        """Return the state after the tokens."""
        time = ids.size(1)
        keys, seen, text = self._extend(self._normalise(x), ids, keys, seen)
        seen = torch.where(text == text[:, -1:], seen, -1)[:, time:]
        return keys[:, time:], F.pad(seen, (0, 1), value=-1)

    def _normalise(self, x: Float[Tensor, "B T K"]) -> Float[Tensor, "B T K"]:
        """Return n; under autocast, x may have 16 bits."""
        n: Tensor = self.norm(x.to(self.norm.weight.dtype))
        return n

    def _extend(
        self, n: Tensor, ids: Tensor, keys: Tensor, seen: Tensor
    ) -> tuple[Float[Tensor, "B S1 A"], Int[Tensor, "B S"], Int[Tensor, "B S"]]:
        """Return the keys and ids of S = W + T tokens, and the number of the text of each. There is
        a key more, that of the next token.
        """
        keys = torch.cat([keys, self.key(n).to(keys.dtype)], dim=1)
        is_bos = ids == self.bos_id
        copied = torch.where(is_bos | (ids >= self.first_condition_id), -1, ids)
        text = F.pad(is_bos.long().cumsum(1), (self.window, 0))
        return keys, torch.cat([seen[:, :-1], copied], dim=1), text

    def operations(
        self, x: Float[Tensor, "B T K"], ids: Tensor, keys: Tensor, seen: Tensor, scores: Tensor
    ) -> Iterator[Operation]:
        """Yield the operations after the output layer, whose result is ``scores``, (B, T, V)."""
        tokens = ids.numel()

        def make(
            name: str, formula: str, values: Tensor, axes: str, *weights: Tensor, products: int = 0
        ) -> Operation:
            return Operation(
                name=name,
                formula=formula,
                values=values,
                axes=axes,
                parameters=sum(weight.numel() for weight in weights),
                multiplications=products * tokens,
                kind={"B T N W": "attention", "B T N": "gate"}.get(axes, "values"),  # type: ignore[arg-type]  # each is one of the kinds
            )

        copies = self(x, ids, keys, seen)
        n = self._normalise(x)
        width = x.size(-1)
        size = width * KEY_SIZE
        formula = "n_t = x_t / rms(x_t) * w"
        yield make("normalisation", formula, n, "B T K", self.norm.weight, products=3 * width)
        query = self.query(n)
        yield make("query", "q_t = P_q n_t", query, "B T A", self.query.weight, products=size)
        key = self.key(n)
        yield make("key", "k_{t+1} = P_k n_t", key, "B T A", self.key.weight, products=size)
        # the weights of the W tokens that each token may copy, among those of all W + T tokens
        weights = copies.weights.unfold(2, self.window, 1)[:, :, 1:].diagonal(0, 1, 2).mT.clone()
        # where there is no token to copy, the gate is 0, and the token itself gets the weight
        weights[..., -1] += copies.log_odds[..., 0].isinf()
        formula = "a_ti = softmax over i of q_t . k_i / sqrt(A) for t - W < i <= t"
        products = self.window * KEY_SIZE
        yield make("pointer", formula, weights[:, :, None], "B T N W", products=products)
        yield make(
            "copy gate",
            "g_t = s(w_g n_t + b_g)",
            copies.log_odds.sigmoid(),
            "B T N",
            *self.gate.parameters(),
            products=width,
        )
        formula = "logits_t = log((1 - g_t) softmax(u_t) + g_t sum over i of a_ti [ids_i])"
        products = scores.size(-1) + self.window
        yield make("logits", formula, copies.mix(scores), "B T V", products=products)
