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
        zoneout: The share of each memory's units that keep their old value at a step, in training (Krueger et al. 2017).
        ngrams: How many of the last tokens, at most, have a vector together, which is added to the embedding; with 1, none have.
        ngram_buckets: How many vectors there are for each length; n-grams share them by a hash.
        ngram_dropout: The share of these that are left out, wherever they stand, in training.
        tied: Whether the output layer uses the embedding's weights; where H is not E, a projection H -> E comes first.
        layer: "fused" is torch's layer; "unrolled" computes the same and trains a gru or rnn faster on a processor; "spelled" is
            the cell from plain matrix products, slower, to read and change; "auto" is the first of these that has what is asked
            for, and leaves it to the training to try another.
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
    zoneout: Probability = 0.0
    ngrams: Annotated[int, Bound(at_least=1, at_most=16)] = 1
    ngram_buckets: Annotated[int, Bound(at_least=1, at_most=1 << 24)] = 1 << 14
    ngram_dropout: Probability = 0.0
    tied: bool = False
    layer: Literal["auto", "fused", "unrolled", "spelled"] = "auto"
    activation: Literal["tanh", "relu"] = "tanh"

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class RnnConfig(RecurrentConfig):
    """The settings of ``rnn``; every layer takes tanh and relu."""

    hidden_size: Size = 512

    def __post_init__(self) -> None:
        check(self)
        _refuse_fused_zoneout(self)


@dataclass(frozen=True, kw_only=True)
class GruConfig(RecurrentConfig):
    """The settings of ``gru``; torch's GRU, the fused layer, has no relu."""

    hidden_size: Size = 320

    def __post_init__(self) -> None:
        check(self)
        _refuse_fused_relu(self, "GRU")
        _refuse_fused_zoneout(self)


@dataclass(frozen=True, kw_only=True)
class LstmConfig(RecurrentConfig):
    """The settings of ``lstm``; torch's LSTM, the fused layer, has no relu."""

    hidden_size: Size = 320

    def __post_init__(self) -> None:
        check(self)
        _refuse_fused_relu(self, "LSTM")
        _refuse_fused_zoneout(self)


def _refuse_fused_relu(config: RecurrentConfig, cell: str) -> None:
    """Raise if the config asks torch's GRU or LSTM for a relu.

    Raises:
        ConfigError: ``layer`` is "fused" and ``activation`` is "relu".
    """
    if config.layer == "fused" and config.activation == "relu":
        raise ConfigError(
            f'activation="relu" does not go with layer="fused" here: torch\'s {cell} has no relu, but layer="unrolled" and '
            f'layer="spelled" have. Set layer to "auto", or activation to "tanh".'
        )


def _refuse_fused_zoneout(config: RecurrentConfig) -> None:
    """Raise if the config asks a layer of torch's for zoneout.

    Raises:
        ConfigError: ``layer`` is "fused" and ``zoneout`` above 0.
    """
    if config.layer == "fused" and config.zoneout > 0:
        raise ConfigError(
            f'zoneout={config.zoneout:g} does not go with layer="fused": torch\'s layers have no zoneout, but '
            f'layer="unrolled" and layer="spelled" have. Set layer to "auto", or zoneout to 0.'
        )
