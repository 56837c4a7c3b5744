"""SupportsOperations, the optional ability of a model to show what it computes, one operation after the other. Needs torch.

Shapes by letter: B batch, T time (tokens), V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from reviewgen.protocols.model import State


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of a model on a batch, and its result.

    Attributes:
        name: What it is, as in "input gate"; in a stack of layers, it includes the layer, so that names are distinct.
        formula: Its equation, as in the model's docstring.
        values: The result.
        axes: A word for each dimension of the result, as in "B T H". A word of several letters is the product of their sizes:
            "B T KE".
        parameters: The number of parameters that it uses and no operation before it has used.
        multiplications: The number of multiplications of two numbers: those of matrix products and of elementwise products.
            Activation functions, sums and look-ups have none.
        kind: "gate" for values between 0 and 1 that others are multiplied by, "state" for the hidden units that are carried from
            token to token, "window" for the ids that each prediction is made from; otherwise "values".
    """

    name: str
    formula: str
    values: Tensor
    axes: str
    parameters: int = 0
    multiplications: int = 0
    kind: Literal["values", "gate", "state", "window"] = "values"


@runtime_checkable
class SupportsOperations(Protocol):
    """A model that shows what it computes; ``reviewgen.explain`` prints it, and follows its gates and hidden units.

    Other models are shown by the calls of their modules.
    """

    def operations(self, ids: Int[Tensor, "B T"], state: State) -> Iterator[Operation]:
        """Yield the operations of a call in evaluation mode, in order; the last one yields the logits, (B, T, V)."""
        ...
