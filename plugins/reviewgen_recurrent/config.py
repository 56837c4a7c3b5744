"""The recurrent models' settings, which what trains and what writes share. It must not import torch.

Shapes: V vocabulary, E embedding, H hidden, L layers.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from reviewgen.config import Bound, check
from reviewgen.errors import ConfigError

__all__ = ["GruConfig", "LstmConfig", "RecurrentConfig", "RnnConfig", "Size"]

Size: TypeAlias = Annotated[int, Bound(at_least=1)]
Probability: TypeAlias = Annotated[float, Bound(at_least=0, below=1)]


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """The settings of a recurrent model; each model has its own defaults.

    Attributes:
        vocab_size: The number of token ids, V.
        embedding_size: The width of a token's vector, E.
        hidden_size: The width of each layer, H.
        layers: How many layers stand on one another, L.
        dropout: The share of each layer's output that is hidden from the layer above it, in training.
        embedding_dropout: The same for the embeddings.
        output_dropout: The same for what the output layer sees.
        locked_dropout: Whether these three hide the same units at every token of a call (Gal & Ghahramani 2016).
        token_dropout: The share of tokens that have no embedding, wherever in a call they stand, in training.
        weight_dropout: The share of each recurrent matrix that is zero for a call, in training (Merity et al. 2017).
        tied: Whether the output layer uses the embedding's weights; where H is not E, a projection H -> E comes first.
        layer: "fused" is torch's layer, fast; "spelled" is the same cell from plain matrix products, slower, to read and change.
        activation: The cell's squashing function; gates are sigmoid whatever it is.
    """

    vocab_size: Size
    embedding_size: Size = 64
    hidden_size: Size = 256
    layers: Annotated[int, Bound(at_least=1, at_most=64)] = 1
    dropout: Probability = 0.0
    embedding_dropout: Probability = 0.0
    output_dropout: Probability = 0.0
    locked_dropout: bool = False
    token_dropout: Probability = 0.0
    weight_dropout: Probability = 0.0
    tied: bool = False
    layer: Literal["fused", "spelled"] = "fused"
    activation: Literal["tanh", "relu"] = "tanh"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class RnnConfig(RecurrentConfig):
    """The settings of ``rnn``; both layers take tanh and relu."""

    hidden_size: Size = 512


@dataclass(frozen=True, kw_only=True)
class GruConfig(RecurrentConfig):
    """The settings of ``gru``; relu needs the spelled layer, since torch's GRU has none."""

    hidden_size: Size = 320

    def __post_init__(self) -> None:
        check(self)
        _refuse_fused_relu(self, "GRU")


@dataclass(frozen=True, kw_only=True)
class LstmConfig(RecurrentConfig):
    """The settings of ``lstm``; relu needs the spelled layer, since torch's LSTM has none."""

    hidden_size: Size = 320

    def __post_init__(self) -> None:
        check(self)
        _refuse_fused_relu(self, "LSTM")


def _refuse_fused_relu(config: RecurrentConfig, cell: str) -> None:
    """Raise if the config asks torch's GRU or LSTM for a relu.

    Raises:
        ConfigError: ``layer`` is "fused" and ``activation`` is "relu".
    """
    if config.layer == "fused" and config.activation == "relu":
        raise ConfigError(
            f'activation="relu" does not go with layer="fused" here: torch\'s {cell} has no relu, but layer="spelled" has. '
            f'Set layer to "spelled", or activation to "tanh".'
        )
