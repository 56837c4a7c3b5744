"""The settings of nnlm, shared by training and inference. Must not import torch."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from reviewgen.config import Bound, Technique, check

TECHNIQUES = (
    Technique(
        "dropout", "hidden units are zeroed in training, more of them with more epochs (Srivastava et al. 2014)", {"dropout": 0.0}
    ),
    Technique("relu", "relu in the hidden layer (Nair & Hinton 2010), in place of tanh", {"activation": "tanh"}),
)


@dataclass(frozen=True, kw_only=True)
class NnlmConfig:
    """The settings of ``nnlm``.

    Attributes:
        vocab_size: Number of token ids, V; taken from the tokenizer.
        bos_id: The id that begins a text; taken from the tokenizer. None in models saved by older versions.
        condition_ids: Number of ids of conditions, which follow the tokenizer's; taken from the conditions. If it is above 0, the
            model uses the conditions at every step.
        field_ids: Number of ids of fields, the last ones; taken from the fields.
        order: Length of an n-gram, n: a token is predicted from the n-1 before it.
        embedding_size: Width of a token's embedding, E.
        hidden_size: Width of the hidden layer, H.
        dropout: Share of the hidden layer's outputs that is zeroed in training.
        activation: Activation function of the hidden layer.
    """

    vocab_size: Annotated[int, Bound(at_least=1)]
    bos_id: int | None = None
    condition_ids: Annotated[int, Bound(at_least=0)] = 0
    field_ids: Annotated[int, Bound(at_least=0)] = 0
    order: Annotated[int, Bound(at_least=2)] = 12
    embedding_size: Annotated[int, Bound(at_least=1)] = 32
    hidden_size: Annotated[int, Bound(at_least=1)] = 768
    dropout: Annotated[float, Bound(at_least=0, below=1)] = 0.0
    activation: Literal["tanh", "relu"] = "relu"

    techniques: ClassVar[tuple[Technique, ...]] = TECHNIQUES

    @property
    def holds(self) -> bool:
        """Whether the model uses the conditions at every step."""
        return self.condition_ids + self.field_ids > 0

    def __post_init__(self) -> None:
        check(self)
