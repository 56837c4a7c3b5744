"""The settings of nnlm and its presets. Training and inference share them, so this file must not
import torch.

The presets are for a corpus of 1 to 50 MB and a few minutes of training on two cores. The char
preset has the model's default shape. With words, the output layer (V x H) does most of the work, so
the hidden layer is narrow. Batches are small, for more steps in the same time.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from reviewgen.config import (
    CHAR_GENERATION,
    WORD_GENERATION,
    Bound,
    ConditionedConfig,
    PositiveInt,
    Preset,
    Probability,
    Technique,
)

TECHNIQUES = (
    Technique(
        "dropout",
        "hidden units are zeroed in training, more of them with more epochs (Srivastava et al."
        " 2014)",
        {"dropout": 0.0},
    ),
    Technique(
        "relu",
        "relu in the hidden layer (Nair & Hinton 2010), in place of tanh",
        {"activation": "tanh"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class NnlmConfig(ConditionedConfig):
    """The settings of ``nnlm``.

    Attributes:
        order: Length of an n-gram, n: a token is predicted from the n-1 before it.
        embedding_size: Width of a token's embedding, E.
        hidden_size: Width of the hidden layer, H.
        dropout: Share of the hidden layer's outputs that is zeroed in training.
        activation: Activation function of the hidden layer.
    """

    order: Annotated[int, Bound(at_least=2)] = 12
    embedding_size: PositiveInt = 32
    hidden_size: PositiveInt = 768
    dropout: Probability = 0.0
    activation: Literal["tanh", "relu"] = "relu"

    techniques: ClassVar[tuple[Technique, ...]] = TECHNIQUES


# each pair: a number of epochs, and the settings for runs of at least that many
BY_EPOCHS = ((3.0, {"dropout": 0.1}), (6.0, {"dropout": 0.2}), (12.0, {"dropout": 0.3}))

NNLM_CHAR = Preset(
    model="nnlm",
    tokenizer="char",
    model_settings={"order": 12, "embedding_size": 32, "hidden_size": 768},
    training_settings={
        "batch_size": 32,
        "bptt": 64,
        "learning_rate": 0.01,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
    },
    generation_settings=CHAR_GENERATION,
    # after a minute of training, wider hidden layers were worse
    sizes=tuple({"hidden_size": size} for size in (256, 512, 768)),
    by_epochs=BY_EPOCHS,
)

NNLM_WORD = Preset(
    model="nnlm",
    tokenizer="word",
    model_settings={"order": 5, "embedding_size": 64, "hidden_size": 128},
    tokenizer_settings={"vocab_size": 8000, "min_frequency": 20},
    training_settings={
        "batch_size": 16,
        "bptt": 32,
        "learning_rate": 0.008,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "sampled_softmax": 500,
    },
    generation_settings=WORD_GENERATION
    | {"likeness": {"temperature": 0.9, "repetition_penalty": 1.0}},
    sizes=tuple({"hidden_size": size, "embedding_size": size // 2} for size in (64, 128, 256)),
    by_epochs=BY_EPOCHS,
)
