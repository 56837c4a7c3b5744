"""The settings of nnlm, which what trains and what writes share. It must not import torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

from reviewgen.config import Bound, check

__all__ = ["NnlmConfig"]


@dataclass(frozen=True, kw_only=True)
class NnlmConfig:
    """The settings of ``nnlm``.

    Attributes:
        vocab_size: The number of token ids, V.
        order: n: a token is predicted from the n-1 before it.
        embedding_size: The width of a token's vector, E.
        hidden_size: The width of the hidden layer, H.
        dropout: The share of the hidden layer that is hidden from the output layer, in training.
        activation: The hidden layer's squashing function.
    """

    vocab_size: Annotated[int, Bound(at_least=1)]
    order: Annotated[int, Bound(at_least=2)] = 12
    embedding_size: Annotated[int, Bound(at_least=1)] = 32
    hidden_size: Annotated[int, Bound(at_least=1)] = 768
    dropout: Annotated[float, Bound(at_least=0, below=1)] = 0.0
    activation: Literal["tanh", "relu"] = "relu"

    def __post_init__(self) -> None:
        check(self)
