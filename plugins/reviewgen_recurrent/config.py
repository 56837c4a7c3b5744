"""The settings of the recurrent models, shared by training and inference. Must not import torch.

Shapes: V vocabulary, E embedding, H hidden, L layers.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from reviewgen.config import Bound, RenamedValues, Technique, check
from reviewgen.errors import ConfigError

Size: TypeAlias = Annotated[int, Bound(at_least=1)]
Probability: TypeAlias = Annotated[float, Bound(at_least=0, below=1)]

DROPOUTS = ("dropout", "embedding_dropout", "output_dropout", "token_dropout", "weight_dropout", "zoneout", "ngram_dropout")
TECHNIQUES = (
    Technique(
        "n-gram vectors", "vectors of the last 2 to n tokens are added to the embedding (Bojanowski et al. 2017)", {"ngrams": 1}
    ),
    Technique(
        "dropout",
        "some outputs are zeroed in training, more of them with more epochs (Srivastava et al. 2014)",
        {**dict.fromkeys(DROPOUTS, 0.0), "locked_dropout": False},
    ),
    Technique("tied embeddings", "the embedding is also the matrix of the output layer (Press & Wolf 2017)", {"tied": False}),
    Technique("compiled layers", "compiled loops, where they are faster than PyTorch's own layer", {"layer": "fused"}),
)


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """The settings of a recurrent model; each model has its own defaults.

    Attributes:
        vocab_size: Number of token ids, V; taken from the tokenizer.
        bos_id: The id that begins a text; taken from the tokenizer. None in models saved by older versions.
        condition_ids: Number of ids of conditions, which follow the tokenizer's; taken from the conditions. If it is above 0, the
            model uses the conditions at every step.
        field_ids: Number of ids of fields, the last ones; taken from the fields.
        embedding_size: Width of a token's embedding, E.
        hidden_size: Width of each layer, H.
        layers: Number of stacked recurrent layers, L.
        dropout: Dropout between layers: the share of each layer's outputs that is zeroed in training.
        embedding_dropout: The same, on the embeddings.
        output_dropout: The same, on the input of the output layer.
        locked_dropout: Use one mask for all time steps of a call in these three dropouts (Gal & Ghahramani 2016).
        token_dropout: Share of the vocabulary whose embeddings are zeroed for a whole call in training.
        weight_dropout: Share of each recurrent matrix that is zeroed for a call in training (Merity et al. 2017).
        zoneout: Share of the state's units that keep their previous value at a step in training (Krueger et al. 2017).
        ngrams: Longest n-gram of the last tokens that has an embedding, added to the token's; 1 turns n-grams off.
        ngram_buckets: Number of embeddings for n-grams of each length; n-grams share them by a hash.
        ngram_dropout: Share of the n-gram embeddings that is left out in training, each position independently.
        tied: Use the embedding as the output layer's weights; if H differs from E, a projection H -> E comes first.
        layer: Implementation of the layers: "fused" is torch's; "compiled" computes the same in compiled loops, and trains a gru
            or rnn faster on a CPU; "reference" writes the cell out in plain matrix products: slower, but easy to read and to
            change; "auto" takes the first of these that supports the other settings, and lets training try the next one.
        activation: Activation function of the cell; its gates always use the sigmoid.
    """

    vocab_size: Size
    bos_id: int | None = None
    condition_ids: Annotated[int, Bound(at_least=0)] = 0
    field_ids: Annotated[int, Bound(at_least=0)] = 0
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
    layer: Annotated[
        Literal["auto", "fused", "compiled", "reference"], RenamedValues({"unrolled": "compiled", "spelled": "reference"})
    ] = "auto"
    activation: Literal["tanh", "relu"] = "tanh"

    torch_layer: ClassVar[str] = "RNN"  # of the fused implementation; only torch's RNN has relu
    techniques: ClassVar[tuple[Technique, ...]] = TECHNIQUES

    @property
    def holds(self) -> bool:
        """Whether the model uses the conditions at every step."""
        return self.condition_ids + self.field_ids > 0

    def __post_init__(self) -> None:
        check(self)
        refused = [f"zoneout={self.zoneout:g}"] if self.zoneout > 0 else []
        if self.activation == "relu" and self.torch_layer != "RNN":
            refused.append('activation="relu"')
        if self.layer == "fused" and refused:
            raise ConfigError(
                f'{" and ".join(refused)} cannot be combined with layer="fused": torch\'s {self.torch_layer} does not have it, '
                'but layer="compiled" and layer="reference" do. Set layer to "auto", or leave it out.'
            )


@dataclass(frozen=True, kw_only=True)
class RnnConfig(RecurrentConfig):
    """The settings of ``rnn``; every implementation supports tanh and relu."""

    hidden_size: Size = 512


@dataclass(frozen=True, kw_only=True)
class GruConfig(RecurrentConfig):
    """The settings of ``gru``; torch's GRU, the fused layer, has no relu."""

    hidden_size: Size = 320
    torch_layer: ClassVar[str] = "GRU"


@dataclass(frozen=True, kw_only=True)
class LstmConfig(RecurrentConfig):
    """The settings of ``lstm``; torch's LSTM, the fused layer, has no relu."""

    hidden_size: Size = 320
    torch_layer: ClassVar[str] = "LSTM"
