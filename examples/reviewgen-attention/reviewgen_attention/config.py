"""The settings of ``attention``. Must not import torch."""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from reviewgen.config import Bound, check
from reviewgen.errors import ConfigError

__all__ = ["AttentionConfig"]

Size: TypeAlias = Annotated[int, Bound(at_least=1)]


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The settings of ``attention``.

    Attributes:
        vocab_size: Number of token ids, V; taken from the tokenizer.
        hidden_size: Width of the embeddings and of the residual stream, H.
        layers: Number of blocks, L.
        heads: Number of attention heads, N; each has H / N dimensions, D, an even number.
        window: Number of earlier tokens that a layer attends to, beside the token itself, W.
        dropout: Share of each block's outputs that is zeroed in training.
    """

    vocab_size: Size
    hidden_size: Size = 128
    layers: Annotated[int, Bound(at_least=1, at_most=64)] = 3
    heads: Size = 4
    window: Size = 64
    dropout: Annotated[float, Bound(at_least=0, below=1)] = 0.0

    def __post_init__(self) -> None:
        check(self)
        if self.hidden_size % (2 * self.heads):
            raise ConfigError(
                f"hidden_size={self.hidden_size} cannot be divided among heads={self.heads}: each"
                " head needs an even number of dimensions. Set hidden_size to a multiple of"
                f" {2 * self.heads}."
            )
