"""The settings of nnlm, shared by training and inference. Must not import torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

from reviewgen.config import Bound, check


@dataclass(frozen=True, kw_only=True)
class NnlmConfig:
    """The settings of ``nnlm``.

    Attributes:
        vocab_size: Number of token ids, V; taken from the tokenizer.
        order: Length of an n-gram, n: a token is predicted from the n-1 before it.
        embedding_size: Width of a token's embedding, E.
        hidden_size: Width of the hidden layer, H.
        dropout: Share of the hidden layer's outputs that is zeroed in training.
        activation: Activation function of the hidden layer.
    """

    vocab_size: Annotated[int, Bound(at_least=1)]
    order: Annotated[int, Bound(at_least=2)] = 12
    embedding_size: Annotated[int, Bound(at_least=1)] = 32
    hidden_size: Annotated[int, Bound(at_least=1)] = 768
    dropout: Annotated[float, Bound(at_least=0, below=1)] = 0.0
    activation: Literal["tanh", "relu"] = "relu"

    def __post_init__(self) -> None:
        check(self)
