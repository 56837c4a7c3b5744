"""The settings of the recurrent models and their presets. Training and inference share them, so
this file must not import torch.

The presets are for a corpus of 1 to 50 MB and a few minutes of training on two cores. A char preset
has its model's default shape, and n-gram embeddings. If the user gives a time budget, one of
``sizes`` is chosen. With words, the output layer (V x E) does most of the work, so the embeddings
are narrow and tied. Batches are small, for more steps in the same time.

Dropout grows with the number of epochs, since in the first epochs it is only a cost. With more
epochs, n-grams become shorter, since they learn fastest and are the first to overfit.

Shapes: V vocabulary, E embedding, H hidden, L layers.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from reviewgen.config import (
    CHAR_GENERATION,
    WORD_GENERATION,
    Bound,
    ConditionedConfig,
    PositiveInt,
    Preset,
    Probability,
    RenamedValues,
    Technique,
    check,
)
from reviewgen.errors import ConfigError

KEY_SIZE = 64  # width of the keys of the pointer, A
# initial bias of the pointer's gate: at first, sigmoid(-3), about 5 %, of the probability goes to
# copied tokens
GATE_BIAS = -3.0
# added to the mean square in the pointer's normalisation, whose root is divided by, so that it is
# never zero
NORM_EPSILON = 1e-6
DROPOUTS = (
    "dropout",
    "embedding_dropout",
    "output_dropout",
    "token_dropout",
    "weight_dropout",
    "zoneout",
    "ngram_dropout",
)
TECHNIQUES = (
    Technique(
        "n-gram vectors",
        "vectors of the last 2 to n tokens are added to the embedding (Bojanowski et al. 2017)",
        {"ngrams": 1},
    ),
    Technique(
        "dropout",
        "some outputs are zeroed in training, more of them with more epochs (Srivastava et al."
        " 2014)",
        {**dict.fromkeys(DROPOUTS, 0.0), "locked_dropout": False},
    ),
    Technique(
        "tied embeddings",
        "the embedding is also the matrix of the output layer (Press & Wolf 2017)",
        {"tied": False},
    ),
    Technique(
        "pointer",
        "the last tokens of the text, those of its fields included, can be copied (Merity et al."
        " 2017)",
        {"pointer": 0},
    ),
    Technique(
        "compiled layers",
        "compiled loops, where they are faster than PyTorch's own layer",
        {"layer": "fused"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(ConditionedConfig):
    """The settings of a recurrent model; each model has its own defaults.

    Attributes:
        embedding_size: Width of a token's embedding, E.
        hidden_size: Width of each layer, H.
        layers: Number of stacked recurrent layers, L.
        dropout: Dropout between layers: the share of each layer's outputs that is zeroed in
            training.
        embedding_dropout: Dropout on the embeddings.
        output_dropout: Dropout on the input of the output layer.
        locked_dropout: Use one mask for all time steps of a call in these three dropouts (Gal &
            Ghahramani 2016).
        token_dropout: Share of the vocabulary whose embeddings are zeroed for a whole call in
            training.
        weight_dropout: Share of each recurrent matrix that is zeroed for a call in training (Merity
            et al. 2017).
        zoneout: Share of the state's units that keep their previous value at a step in training
            (Krueger et al. 2017).
        ngrams: Longest n-gram of the last tokens that has an embedding, added to the token's; 1
            turns n-grams off.
        ngram_buckets: Number of embeddings for n-grams of each length; n-grams share them by a
            hash.
        ngram_dropout: Share of the n-gram embeddings that is left out in training, each position
            independently.
        tied: Use the embedding as the output layer's weights; if H differs from E, a projection H
            -> E comes first.
        pointer: Number of the last tokens that the model can copy, W: a distribution over them is
            mixed into that of the output layer (Merity et al. 2017); 0 turns this off.
        layer: Implementation of the layers: "fused" is torch's; "compiled" computes the same in
            compiled loops, and trains a gru or rnn faster on a CPU; "reference" writes the cell out
            in plain matrix products: slower, but easy to read and to change; "auto" takes the first
            of these that supports the other settings, and lets training try the next one.
        activation: Activation function of the cell; its gates always use the sigmoid.
    """

    embedding_size: PositiveInt = 64
    hidden_size: PositiveInt = 256
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
    pointer: Annotated[int, Bound(at_least=0, at_most=1 << 12)] = 0
    layer: Annotated[
        Literal["auto", "fused", "compiled", "reference"],
        RenamedValues({"unrolled": "compiled", "spelled": "reference"}),
    ] = "auto"
    activation: Literal["tanh", "relu"] = "tanh"

    # torch's layer that layer="fused" runs; only torch's RNN supports relu
    torch_layer: ClassVar[str] = "RNN"
    # newer settings, which are saved only if they differ from their defaults
    added_settings: ClassVar[tuple[str, ...]] = ("pointer",)
    techniques: ClassVar[tuple[Technique, ...]] = TECHNIQUES

    def __post_init__(self) -> None:
        check(self)
        # the settings that torch's own layer does not support
        unsupported = [f"zoneout={self.zoneout:g}"] if self.zoneout > 0 else []
        if self.activation == "relu" and self.torch_layer != "RNN":
            unsupported.append('activation="relu"')
        if self.layer == "fused" and unsupported:
            raise ConfigError(
                f'{" and ".join(unsupported)} cannot be combined with layer="fused": torch\'s'
                f' {self.torch_layer} does not have it, but layer="compiled" and layer="reference"'
                ' do. Set layer to "auto", or leave it out.'
            )


@dataclass(frozen=True, kw_only=True)
class RnnConfig(RecurrentConfig):
    """The settings of ``rnn``; every implementation supports tanh and relu."""

    hidden_size: PositiveInt = 512


@dataclass(frozen=True, kw_only=True)
class GruConfig(RecurrentConfig):
    """The settings of ``gru``; torch's GRU, the fused layer, has no relu."""

    hidden_size: PositiveInt = 320
    torch_layer: ClassVar[str] = "GRU"


@dataclass(frozen=True, kw_only=True)
class LstmConfig(RecurrentConfig):
    """The settings of ``lstm``; torch's LSTM, the fused layer, has no relu."""

    hidden_size: PositiveInt = 320
    torch_layer: ClassVar[str] = "LSTM"


CHAR_SIZES = tuple({"hidden_size": size} for size in (128, 192, 256, 384, 512, 768, 1024))
WORD_SIZES = tuple(
    {"hidden_size": size, "embedding_size": size // 2} for size in (128, 256, 384, 512)
)


def _char_dropouts(output: float, ngram: float) -> dict[str, Any]:
    """Return model settings: these dropouts of the output layer's input and of the n-grams, and
    n-grams of at most 3 tokens.
    """
    return {
        "output_dropout": output,
        "locked_dropout": True,
        "ngrams": 3,
        "ngram_dropout": ngram,
    }


def _word_dropouts(output: float, embedding: float) -> dict[str, Any]:
    """Return model settings: these dropouts of the output layer's input and of the embeddings."""
    return {"output_dropout": output, "locked_dropout": True, "embedding_dropout": embedding}


# each pair: a number of epochs, and the settings for runs of at least that many
CHAR_BY_EPOCHS = (
    (1.5, {"output_dropout": 0.2, "locked_dropout": True}),
    (3.0, _char_dropouts(0.3, 0.1)),
    (6.0, _char_dropouts(0.5, 0.2)),
    (12.0, _char_dropouts(0.55, 0.25)),
    (24.0, _char_dropouts(0.65, 0.35)),
)
WORD_BY_EPOCHS = (
    (1.5, {"output_dropout": 0.1}),
    (3.0, {"output_dropout": 0.2}),
    (6.0, _word_dropouts(0.4, 0.1)),
    (12.0, _word_dropouts(0.5, 0.2)),
    (24.0, _word_dropouts(0.5, 0.2) | {"weight_dropout": 0.3}),
    (48.0, _word_dropouts(0.55, 0.3) | {"weight_dropout": 0.4}),
    (96.0, _word_dropouts(0.6, 0.3) | {"weight_dropout": 0.5}),
)


def _char(model: str, hidden_size: int, learning_rate: float) -> Preset:
    """Return the preset of a model for characters."""
    return Preset(
        model=model,
        tokenizer="char",
        model_settings={"embedding_size": 64, "hidden_size": hidden_size, "layers": 1, "ngrams": 5},
        training_settings={
            "batch_size": 32,
            "bptt": 64,
            "learning_rate": learning_rate,
            "weight_decay": 0.15,
            "clip_norm": 1.0,
        },
        generation_settings=CHAR_GENERATION,
        sizes=CHAR_SIZES,
        by_epochs=CHAR_BY_EPOCHS,
    )


def _word(model: str, learning_rate: float) -> Preset:
    """Return the preset of a model for words."""
    return Preset(
        model=model,
        tokenizer="word",
        model_settings={"embedding_size": 128, "hidden_size": 256, "layers": 1, "tied": True},
        tokenizer_settings={"vocab_size": 8000, "min_frequency": 20},
        training_settings={
            "batch_size": 16,
            "bptt": 32,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
            "sampled_softmax": 500,
            "learning_rate": learning_rate,
        },
        generation_settings=WORD_GENERATION,
        sizes=WORD_SIZES,
        by_epochs=WORD_BY_EPOCHS,
        training_by_epochs=((6.0, {"weight_decay": 0.1}),),
    )


# The rnn has a lower learning rate than the others: with 0.01, its recurrent matrix grows, and
# after about 1,500 steps the model stops learning.
RNN_CHAR = _char("rnn", 512, 0.004)
GRU_CHAR = _char("gru", 320, 0.015)
LSTM_CHAR = _char("lstm", 320, 0.016)
RNN_WORD = _word("rnn", 0.003)
GRU_WORD = _word("gru", 0.012)
LSTM_WORD = _word("lstm", 0.015)
