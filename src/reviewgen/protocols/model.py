"""What is trained: the LanguageModel and its companions. Shapes are spelled by letter: B batch, T time (tokens), V vocabulary."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from reviewgen.protocols.stepper import Stepper

__all__ = [
    "CountTrained",
    "LanguageModel",
    "State",
    "SupportsCountMerge",
    "SupportsDevices",
    "SupportsImplementations",
    "SupportsScore",
    "SupportsStep",
]

State: TypeAlias = Any
"""What a model remembers between calls: a tensor or a nested tuple of tensors (it may be empty), each with B first."""


@runtime_checkable
class LanguageModel(Protocol):
    """Predicts the next token, a distribution at every position.

    A call returns *logits*, scores before normalisation, because that is what every consumer wants: cross entropy of logits,
    ``F.cross_entropy(logits, targets)``, is by definition the negative log likelihood of their log-softmax,
    ``F.nll_loss(F.log_softmax(logits), targets)``, computed in one numerically safe step; sampling divides logits by a
    temperature; and log probabilities are themselves logits (log-softmax leaves them as they are), so a count model
    returns those. A neural model's logits are finite; a count model may return -inf, which is probability zero.

    A table that is looked up by token is an ``nn.Embedding``, one of n-grams an ``nn.EmbeddingBag``: so training can tell them
    from the matrices that a token is multiplied with.
    """

    Config: ClassVar[type]  # a frozen keyword-only dataclass of JSON values; its first field is vocab_size: int
    config: Any  # the only constructor argument, and what is saved

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token of B independent texts."""
        ...

    def __call__(self, ids: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        """Return ``logits[b, t]``, which score the token after ``ids[b, t]``, and the state after the last token."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return every tensor that the trained model consists of, by name."""
        ...

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> Any:
        """Take such tensors over; strict: a missing, extra or misshapen tensor raises."""
        ...


@runtime_checkable
class CountTrained(Protocol):
    """A model that is trained by counting, in one pass, not by gradient."""

    def observe(self, ids: Int[np.ndarray, " T"]) -> None:
        """Count one text: its beginning-of-text id, its tokens, its end-of-text id."""
        ...

    def finish(self) -> Mapping[str, Any]:
        """Turn the counts into probabilities, once; return facts worth reporting, as JSON values.

        The key ``notes``, where there is one, holds sentences for the person who trains.
        """
        ...


@runtime_checkable
class SupportsCountMerge(Protocol):
    """A counting model of which several count a part of the texts each, as the processes of ``accelerate launch`` do."""

    def take_counts(self) -> dict[str, Tensor]:
        """Hand over all that was counted, and forget it."""
        ...

    def add_counts(self, counts: Mapping[str, Tensor]) -> None:
        """Count what another model with the same settings has counted; the order of the parts must not matter."""
        ...


@runtime_checkable
class SupportsDevices(Protocol):
    """A model that knows devices on which it is computed wrongly or slowly; it is trained there only if somebody asks for it."""

    unsuited_devices: ClassVar[frozenset[str]]  # torch's types of devices, as in frozenset({"mps"})


@runtime_checkable
class SupportsScore(Protocol):
    """A model that scores given tokens without computing the whole (B, T, V)."""

    def score(self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T"], State]:
        """Return the log probability (nats) of ``targets[b, t]`` after ``ids[b, :t + 1]``, and the state after the last token."""
        ...


@runtime_checkable
class SupportsStep(Protocol):
    """A model that hands out a stepper, which writes faster than the plain call, and equals it within 1e-4 in logits.

    A model without one is written with through its plain call.
    """

    def stepper(self, bits: int = 32) -> Stepper:
        """Return a stepper made from the weights as they are now; what becomes of the model later does not change it.

        Args:
            bits: 16 and 8 round the weights to so many bits, for speed, and no longer equal the plain call; a model that
                multiplies no weights does without.
        """
        ...


@runtime_checkable
class SupportsImplementations(Protocol):
    """A model that can compute the same function in several ways, of which the fastest depends on shape and machine."""

    def implementations(self) -> tuple[str, ...]:
        """Return the ways that the config allows, the default first: one where the config names one."""
        ...

    def use_implementation(self, name: str) -> None:
        """Compute in one of these ways from now on; logits and gradients stay within 1e-4, tensors stay as they are."""
        ...
