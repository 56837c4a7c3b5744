"""A causal transformer as a language model, whose state is a key-value cache of fixed size.

Vaswani et al. 2017, "Attention Is All You Need"; rotary positions of Su et al. 2021; a window as in
Beltagy et al. 2020. Shapes: B batch, T time (tokens), V vocabulary, H hidden, L layers, N heads, D
dimensions of a head, W window.
"""

from typing import ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reviewgen_attention.config import AttentionConfig

__all__ = ["Attention"]

State: TypeAlias = tuple[Tensor, Tensor]
"""The keys and values of the last W tokens, float32 (B, L, 2, N, W, D), and how many of them are
there, int64 (B,).
"""

BASE = 10_000.0  # of the rotary frequencies, Su et al. 2021
EPSILON = 1e-6


class Attention(nn.Module):
    """A language model that attends to the last W tokens in each layer, so that it sees up to L W
    tokens back.

    A token attends to itself and to the W tokens before it. Two rules keep the state's shape
    independent of what was read: the cache always has room for W tokens, those not there being
    masked by their count; and positions are relative. Keys are stored without a rotation, and
    rotated in each call by their distance to the call's first token, so that a text may be of any
    length: a dot product of two rotated vectors depends on the difference of their positions only.

    For each block, with norm the root mean square norm::

        x = x + W_o attend(W_qkv norm(x))
        x = x + W_2 relu(W_1 norm(x)) ** 2

    Returns logits; see ``reviewgen.protocols.LanguageModel``.
    """

    Config: ClassVar[type] = AttentionConfig

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden_size, EPSILON)
        self.output = nn.Linear(config.hidden_size, config.vocab_size)
        nn.init.normal_(self.output.weight, std=config.hidden_size**-0.5)
        nn.init.zeros_(self.output.bias)

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token: an empty cache."""
        config = self.config
        like = self.output.bias
        shape = (
            batch_size,
            config.layers,
            2,
            config.heads,
            config.window,
            config.hidden_size // config.heads,
        )
        return torch.zeros(shape, device=like.device), torch.zeros(
            batch_size, dtype=torch.long, device=like.device
        )

    def forward(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Return logits (B, T, V), where ``logits[b, t]`` are of the token after ``ids[b, t]``, and
        the state after ``ids``.
        """
        cache, count = state
        window = self.config.window
        time = ids.size(1)
        visible = _visible(count, window, time)  # (B, 1, T, W+T)
        rotation = _rotation(window, time, cache.size(-1), cache.device)
        x = self.embedding(ids)
        after = []
        for block, (keys, values) in zip(
            self.blocks, (part.unbind(1) for part in cache.unbind(1)), strict=True
        ):
            x, kept = block(x, keys, values, visible, rotation)
            after.append(kept)
        new_cache = torch.stack(after, dim=1).to(cache.dtype)
        return self.output(self.norm(x)), (new_cache, (count + time).clamp(max=window))


class _Block(nn.Module):
    """Attention, then a feed-forward network, each added to its input."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.heads
        self.dropout = config.dropout
        self.norms = nn.ModuleList(nn.RMSNorm(size, EPSILON) for _ in range(2))
        self.queries_keys_values = nn.Linear(size, 3 * size, bias=False)
        self.mix = nn.Linear(size, size, bias=False)
        self.expand = nn.Linear(size, 4 * size, bias=False)
        self.contract = nn.Linear(4 * size, size, bias=False)
        for layer in self.mix, self.contract:
            nn.init.normal_(layer.weight, std=0.02)

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        visible: Tensor,
        rotation: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return the block's output (B, T, H), and the keys and values of the last W tokens, (B, 2,
        N, W, D).
        """
        batch, time, size = x.shape
        window = keys.size(2)
        split = self.queries_keys_values(self.norms[0](x)).view(
            batch, time, 3, self.heads, size // self.heads
        )
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()  # each (B, N, T, D)
        # (B, N, W+T, D)
        key = torch.cat((keys.to(key.dtype), key), 2)
        value = torch.cat((values.to(value.dtype), value), 2)
        rotated = _rotate(query, rotation, window), _rotate(key, rotation, 0)
        # (B, N, T, D)
        attended = F.scaled_dot_product_attention(*rotated, value, attn_mask=visible)
        x = x + self._drop(self.mix(attended.transpose(1, 2).reshape(batch, time, size)))
        x = x + self._drop(self.contract(F.relu(self.expand(self.norms[1](x))).square()))
        return x, torch.stack((key[:, :, time:], value[:, :, time:]), dim=1)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def _visible(count: Tensor, window: int, time: int) -> Tensor:
    """Return which of W cached and T new tokens each new token attends to, (B, 1, T, W+T)."""
    query = torch.arange(window, window + time, device=count.device)[:, None]
    key = torch.arange(window + time, device=count.device)
    near = (key <= query) & (key >= query - window)  # (T, W+T)
    there = key >= window - count[:, None]  # (B, W+T): the cache is filled from its end
    return (near & there[:, None])[:, None]


def _rotation(
    window: int, time: int, dimensions: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the rotary angles of W cached and T new tokens, each (W+T, D/2);
    the first new one is at 0.
    """
    frequencies = BASE ** (-torch.arange(0, dimensions, 2, device=device) / dimensions)
    angles = torch.arange(-window, time, device=device)[:, None] * frequencies
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor], start: int) -> Tensor:
    """Rotate each pair of dimensions of x, (B, N, T, D), by the angle of its position; its first is
    at index ``start``.
    """
    cosine, sine = (part[start : start + x.size(2)].to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), dim=-1)
