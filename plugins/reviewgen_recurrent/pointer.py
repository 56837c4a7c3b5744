"""The pointer of a recurrent model, which can predict that one of the last tokens of the text is
repeated.

Sources: Merity et al. 2017, "Pointer Sentinel Mixture Models"; See et al. 2017, "Get To The Point"
(copying what a text is given). Must not know any cell. Shapes: B batch, T time (tokens), V
vocabulary, K width of the output layer's input, A width of a key, W tokens that can be copied, W1 =
W + 1, S = W + T, S1 = S + 1, N = 1 head.
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

    x is the input of the output layer, s the sigmoid, and [id] the vector (V) that is 1 at this id
    and 0 elsewhere. The key of a token is computed from the x before this token was read. For the
    last W tokens of the same text, the current one included::

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
        """Return what is copied after each token. ``keys`` and ``seen`` are the state: the keys
        and ids of the tokens before this call.
        """
        n = self._normalise(x)
        keys, seen, text = self._extend(n, ids, keys, seen)
        # The score of each of the S tokens (columns) at each of the T tokens (rows). The last key
        # is left out: it is that of the next token, which is not known yet.
        scores = self.query(n) @ keys[:, :-1].to(n.dtype).mT * KEY_SIZE**-0.5  # (B, T, S)
        column = torch.arange(seen.size(1), device=x.device)
        # row t is the token of column W + t, so it may copy columns t + 1 to t + W
        oldest = torch.arange(1, ids.size(1) + 1, device=x.device)[:, None]
        is_near = (column >= oldest) & (column < oldest + self.window)  # (T, S)
        is_same_text = text[:, None] == text[:, self.window :, None]  # (B, T, S)
        can_copy = is_near & is_same_text & (seen >= 0)[:, None]  # (B, T, S)
        lowest = torch.finfo(torch.float32).min
        # In a row without a token to copy, the softmax is uniform (with -inf it would be NaN), and
        # the product gives zeros.
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
        """Return the state after the tokens: new ``keys`` and ``seen``."""
        time = ids.size(1)
        keys, seen, text = self._extend(self._normalise(x), ids, keys, seen)
        # only tokens of the last text can still be copied
        seen = torch.where(text == text[:, -1:], seen, -1)[:, time:]  # (B, W)
        # the last key is that of the next token, whose id is not known yet
        return keys[:, time:], F.pad(seen, (0, 1), value=-1)

    def _normalise(self, x: Float[Tensor, "B T K"]) -> Float[Tensor, "B T K"]:
        """Return n, in the precision of the weights; under autocast, x may have only 16 bits."""
        n: Tensor = self.norm(x.to(self.norm.weight.dtype))
        return n

    def _extend(
        self, n: Tensor, ids: Tensor, keys: Tensor, seen: Tensor
    ) -> tuple[Float[Tensor, "B S1 A"], Int[Tensor, "B S"], Int[Tensor, "B S"]]:
        """Append T tokens to the W tokens of the state. For all S = W + T tokens, return three
        tensors: the keys (and, after these, the key of the next token); the ids (-1 for a token
        that is not copied); and the number of the text that each token belongs to, which is 0 for
        the text of the state, 1 for the next one, and so on.
        """
        keys = torch.cat([keys, self.key(n).to(keys.dtype)], dim=1)
        is_bos = ids == self.bos_id
        copied = torch.where(is_bos | (ids >= self.first_condition_id), -1, ids)
        text = F.pad(is_bos.long().cumsum(1), (self.window, 0))  # each bos begins a text
        # the last id of the state was that of the next token, still unknown
        return keys, torch.cat([seen[:, :-1], copied], dim=1), text

    def operations(
        self, x: Float[Tensor, "B T K"], ids: Tensor, keys: Tensor, seen: Tensor, scores: Tensor
    ) -> Iterator[Operation]:
        """Yield the operations after the output layer, whose result is ``scores``, (B, T, V)."""
        tokens = ids.numel()

        def make(
            name: str, formula: str, values: Tensor, axes: str, *weights: Tensor, products: int = 0
        ) -> Operation:
            """Return an operation. ``weights`` are its parameters, and ``products`` its number of
            multiplications for one token.
            """
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
        # Row t of the weights, (B, T, S), is zero except in columns t + 1 to t + W (see
        # ``forward``). Without column 0, these are the window of W columns that begins at t.
        windows = copies.weights[..., 1:].unfold(2, self.window, 1)  # (B, T, T, W)
        weights = windows.diagonal(0, 1, 2).mT.clone()  # window t of each row t: (B, T, W)
        # Where there is no token to copy, the gate is 0. The weights must still add up to 1, so the
        # token itself, the last of its window, gets all the weight.
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
