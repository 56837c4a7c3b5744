"""What writes: the Stepper, a model made ready to predict one token after another, from arrays and without torch.

Shapes are spelled by letter: B batch, T time (tokens), V vocabulary, N numbers, K tokens looked back at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from reviewgen.compiled.sampling import DEAD_END, NONE, NOT_A_NUMBER, NOTHING_LEFT, SamplingParams
from reviewgen.compiled.windows import WindowSet

__all__ = [
    "DEAD_END",
    "NONE",
    "NOTHING_LEFT",
    "NOT_A_NUMBER",
    "CopyGuard",
    "CountedContext",
    "StepState",
    "Stepper",
    "StepperFactory",
    "SupportsExplain",
    "SupportsSample",
    "TensorSpec",
]

StepState: TypeAlias = Any
"""What a stepper remembers between calls: an array or a nested tuple of arrays (it may be empty), each with B first."""

CopyGuard: TypeAlias = tuple[WindowSet, int]
"""Windows that must not be completed, and how many in a row; see ``reviewgen.compiled.windows.copies``."""

TensorSpec: TypeAlias = tuple[str, tuple[int | None, ...]]
"""The dtype of a tensor, as numpy names it ("float32"), and its sizes; None where the training text decides."""


@runtime_checkable
class Stepper(Protocol):
    """Predicts the next token, one call after another. It changes neither itself nor the state that it is given."""

    def initial_state(self, batch_size: int) -> StepState:
        """Return the state before the first token of B independent texts."""
        ...

    def forward(self, ids: Int64[np.ndarray, "B T"], state: StepState) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Return the logits of what follows the last of T >= 1 tokens, and the state after it; a prompt is read in one call."""
        ...


@runtime_checkable
class SupportsSample(Protocol):
    """A stepper that draws many tokens in a loop of its own, at compiled speed.

    What a temperature, the filters, the penalties and a forbidden token mean is said once, in ``reviewgen.compiled.sampling``.
    """

    def sample(
        self,
        state: StepState,
        uniform: Float64[np.ndarray, "B N"],
        params: SamplingParams,
        texts: Int64[np.ndarray, "B K"],
        written: Int64[np.ndarray, " B"],
        guard: CopyGuard | None = None,
    ) -> tuple[Int64[np.ndarray, "B N"], Int64[np.ndarray, " B"], StepState]:
        """Return up to N tokens a row, drawn after the state; how many numbers each row used up; and the state after them.

        A row depends on its own numbers only, not on N: what it leaves over is given again. It may take several numbers a
        token, N >= 32 of them yield at least one. A row ends after the end token, with the last of ``params.max_new_tokens``, or
        with DEAD_END (each token but the end was forbidden by the guard), NOTHING_LEFT (none could be drawn at all) or
        NOT_A_NUMBER; NONE fills it up, and its state is then of no use.

        Args:
            state: After the last token of each row.
            uniform: Numbers in [0, 1).
            params: How to draw.
            texts: The last K tokens of each row, as many as the params and the guard look back at.
            written: How many new tokens each row has, prompts not counted.
            guard: A token but the end that makes ``copies(windows, text, end, run)`` true is drawn again from those that do
                not. None forbids nothing.
        """
        ...


@dataclass(frozen=True)
class CountedContext:
    """The end of a text that a count model looks at, and what it has counted after it.

    Attributes:
        tokens: How many tokens of the text it is, the beginning-of-text token included; 0 is the empty context.
        seen: Which tokens were seen after it.
        counts: How often each was, 0 where it was not; None where the model does not know exactly.
        unit: What is counted: "occurrences", or "predecessors", the different tokens seen before context and token together
            (the continuation counts of Kneser & Ney 1995).
        parts: The part of each token's probability that these counts make up; None where the model does not know.
    """

    tokens: int
    seen: Bool[np.ndarray, " V"]
    counts: Int64[np.ndarray, " V"] | None
    unit: Literal["occurrences", "predecessors"]
    parts: Float64[np.ndarray, " V"] | None


@runtime_checkable
class SupportsExplain(Protocol):
    """A stepper that can say which counts its prediction rests on."""

    def explain(self, ids: Int64[np.ndarray, " T"]) -> Sequence[CountedContext]:
        """Return the contexts behind what follows T >= 1 tokens, bos first: from the longest that was seen to the empty one.

        Over all contexts the parts of a token add up to its probability, but for what comes from no count (the uniform
        distribution that every smoothing ends in).
        """
        ...


class StepperFactory(Protocol):
    """What an entry point of ``reviewgen.steppers`` names: builds a stepper from a saved model, without torch.

    The entry point bears the model's name, and its module imports no torch. ``Config`` is the model's own.
    """

    Config: ClassVar[type]

    def expect(self, config: Any) -> Mapping[str, TensorSpec] | None:
        """Return the name and form of every tensor of a model with this config; None where only torch can write with it."""
        ...

    def __call__(self, config: Any, tensors: Mapping[str, np.ndarray], bits: int = 32) -> Stepper:
        """Return a stepper from tensors that have the expected form; ``bits`` as in ``SupportsStep``.

        Raises:
            BundleError: The tensors hold what no trained model holds.
        """
        ...
