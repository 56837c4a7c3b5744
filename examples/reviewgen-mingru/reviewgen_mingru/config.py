"""The settings of minGRU and minLSTM, shared by training and generation. Must not import torch."""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from reviewgen.config import Bound, check

__all__ = ["MinGruConfig", "MinLstmConfig", "MinRnnConfig"]

Size: TypeAlias = Annotated[int, Bound(at_least=1)]


@dataclass(frozen=True, kw_only=True)
class MinRnnConfig:
    """The settings that the two models share.

    Attributes:
        vocab_size: Number of token ids, V; taken from the tokenizer.
        hidden_size: Width of the embeddings, of the residual stream and of each layer's state, H.
        layers: Number of recurrent layers, L.
        window: Number of last tokens whose embeddings are added up as the input of the first layer,
            K.
        dropout: Share of each layer's output, and of the output layer's input, that is zeroed in
            training.
    """

    vocab_size: Size
    hidden_size: Size = 256
    layers: Annotated[int, Bound(at_least=1, at_most=64)] = 2
    window: Annotated[int, Bound(at_least=1, at_most=64)] = 4
    dropout: Annotated[float, Bound(at_least=0, below=1)] = 0.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class MinGruConfig(MinRnnConfig):
    """The settings of ``mingru``."""


@dataclass(frozen=True, kw_only=True)
class MinLstmConfig(MinRnnConfig):
    """The settings of ``minlstm``."""
