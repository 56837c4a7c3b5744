"""LanguageModel, the contract of a model that is trained, and its optional companions. Needs torch.

Shapes by letter: B batch, T time (tokens), V vocabulary.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from reviewgen.protocols.stepper import Stepper

State: TypeAlias = Any
"""A model's recurrent state; see LanguageModel for its rules."""


def flatten_state(state: Any) -> list[Any]:
    """Return the tensors or arrays of a state, in order."""
    if not isinstance(state, tuple):
        return [state]
    return list(chain.from_iterable(map(flatten_state, state)))


@runtime_checkable
class LanguageModel(Protocol):
    """A model that predicts the next token at every position of a batch of texts.

    **Logits.** A call returns logits: scores before normalisation, whose softmax over the
    vocabulary is the probability of the next token. Training minimises their cross entropy with the
    tokens that follow, ``F.cross_entropy(logits, targets)``, which is log-softmax and negative log
    likelihood in one numerically safe step. Sampling divides them by a temperature. Log
    probabilities are logits too, because log-softmax does not change them; that is what a count
    model returns. A neural model's logits are finite; a count model may return -inf, which is
    probability zero.

    **State.** ``State`` is any tensor or nested tuple of tensors, possibly empty, with the batch
    dimension B first in each. Its shapes and dtypes depend on the batch size only, never on the
    tokens, so that rows can be stacked and selected. A call returns a new state and does not change
    the one it is given. A row's logits do not depend on the other rows. Training reads B lanes of
    one long stream, in which texts follow one another: it carries the state across the end of a
    text into the next, and detaches it between steps. To start each text afresh, a model resets its
    state where an id is ``config.bos_id``.

    **Embeddings.** A table that is looked up by token is an ``nn.Embedding``, a table of n-grams an
    ``nn.EmbeddingBag``, so that the optimizer can tell them from weight matrices. With
    ``sparse=True``, only the rows that a batch used are updated.

    Attributes:
        Config: A frozen keyword-only dataclass of JSON values; its first field is ``vocab_size:
            int``, which is the tokenizer's. It may have the fields ``bos_id: int`` and ``eos_id:
            int``, which are the tokenizer's too, and, for a model that uses the conditions at every
            step (see ``hold_given``), ``condition_ids: int = 0`` and ``field_ids: int = 0``, the
            numbers of such ids; a model without these fields reads them only in front of the text.
            All others have defaults.
        config: The only constructor argument; it is saved with the model.
    """

    Config: ClassVar[type]
    config: Any

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token of B independent texts."""
        ...

    def __call__(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return ``logits[b, t]``, the scores of the token after ``ids[b, t]``, and the state after
        the last token.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors of the trained model, by name."""
        ...

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> Any:
        """Copy tensors into the model; strict: a missing or unknown name, or a wrong shape,
        raises.
        """
        ...


@runtime_checkable
class CountTrained(Protocol):
    """A model that is trained by counting, in one pass over the texts, instead of by gradient."""

    def observe(self, ids: Int[np.ndarray, " T"]) -> None:
        """Count one text: its beginning-of-text id, its tokens, its end-of-text id."""
        ...

    def finish(self) -> Mapping[str, Any]:
        """Turn the counts into probabilities; called once. Return facts for the training record, as
        JSON values.

        The optional key ``notes`` holds sentences that are shown to the user; a
        ``reviewgen.errors.Detail`` with ``--verbose``.
        """
        ...


@runtime_checkable
class SupportsCountMerge(Protocol):
    """A count model that can be trained by several processes, each of which counts a share of the
    texts (``accelerate launch``).
    """

    def take_counts(self) -> dict[str, Tensor]:
        """Return all counts and clear them."""
        ...

    def add_counts(self, counts: Mapping[str, Tensor]) -> None:
        """Add the counts of another model with the same settings; the order of the models must not
        matter.
        """
        ...


@runtime_checkable
class SupportsDevices(Protocol):
    """A model that is wrong or slow on some devices; it is trained on those only if the user sets
    ``device``.

    Attributes:
        unsuited_devices: Device types of torch, as in ``frozenset({"mps"})``.
    """

    unsuited_devices: ClassVar[frozenset[str]]


@runtime_checkable
class SupportsScore(Protocol):
    """A model that scores given tokens without computing logits of the whole vocabulary, (B, T,
    V).
    """

    def score(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T"], State]:
        """Return the log probability (nats) of ``targets[b, t]`` after ``ids[b, :t + 1]``, and the
        state after the last token.
        """
        ...


@runtime_checkable
class SupportsStep(Protocol):
    """A model that creates its own stepper for generation, faster than the plain call and equal to
    it within 1e-4 in logits.

    A model without this ability generates through its plain call.
    """

    def stepper(self, weight_bits: int = 32) -> Stepper:
        """Return a stepper of the current weights; later changes to the model do not affect it.

        Args:
            weight_bits: The precision of the weights: 32; or 16 or 8, which round the weights for
                speed, so that the logits no longer equal those of the plain call. A model without
                weight matrices ignores it.
        """
        ...


@runtime_checkable
class SupportsImplementations(Protocol):
    """A model with several implementations of the same function; which is fastest depends on shapes
    and machine.
    """

    def implementations(self) -> tuple[str, ...]:
        """Return the implementations that the config allows, the default first; only one if the
        config names it.
        """
        ...

    def use_implementation(self, name: str) -> None:
        """Switch to an implementation; logits and gradients stay equal within 1e-4, and the tensors
        do not change.
        """
        ...
