"""LanguageModel, the contract of a model that is trained, and its optional companions. Needs torch.

Shapes by letter: B batch, T time (tokens), V vocabulary.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, Int64
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
    likelihood in one numerically safe step. Sampling divides the logits by a temperature. A count
    model returns log probabilities. These are valid logits, because log-softmax does not change
    them. A neural model's logits are finite; a count model may return -inf, which is probability
    zero.

    **State.** ``State`` is any tensor or nested tuple of tensors, possibly empty, with the batch
    dimension B first in each. Its shapes and dtypes depend on the batch size only, never on the
    tokens, so that rows can be stacked and selected. A call returns a new state and does not change
    the state that it is passed. A row's logits do not depend on the other rows. In training, the
    texts follow one another in B long streams, one for each row. Each batch continues the streams
    where the batch before has ended, from a detached copy of its state. The state is also carried
    from the end of a text into the next text. A model that should start each text afresh resets its
    state where an id is ``config.bos_id``.

    **Embeddings.** A table that is looked up by token is an ``nn.Embedding``, a table of n-grams an
    ``nn.EmbeddingBag``, so that the optimizer can tell them from weight matrices. With
    ``sparse=True``, only the rows that a batch used are updated.

    Attributes:
        Config: A frozen keyword-only dataclass of JSON values. Its first field is ``vocab_size:
            int``, the number of ids. It may have the fields ``bos_id: int`` and ``eos_id: int``,
            the tokenizer's special ids. A model that uses conditions at every step (see
            ``hold_given``) also has ``condition_ids: int = 0`` and ``field_ids: int = 0``, the
            numbers of ids that stand for conditions and for fields. A model without these two
            fields sees conditions only as ids in front of the text. All other fields have defaults.
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
        """Copy tensors into the model. A missing or unknown name, or a wrong shape, is an error."""
        ...


@runtime_checkable
class CountTrained(Protocol):
    """A model that is trained by counting, in one pass over the texts, instead of by gradient."""

    def observe(self, ids: Int[np.ndarray, " T"]) -> None:
        """Count one text; ``ids`` are bos, the tokens of the text, and eos."""
        ...

    def finish(self) -> Mapping[str, Any]:
        """Turn the counts into probabilities, and return facts for the training record, as JSON
        values. Called once.

        The optional key ``notes`` holds sentences that are shown to the user. A sentence of the
        type ``reviewgen.errors.Detail`` is shown only with ``--verbose``.
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
    """A model that is slow on some devices, or computes wrong results there. It is trained on such
    a device only if the user sets ``device``.

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
    """A model that creates its own stepper for generation. The stepper is faster than calls of the
    model, and its logits equal those of the model within 1e-4.

    A model without this ability is itself called for each token that it generates.
    """

    def stepper(self, weight_bits: int = 32) -> Stepper:
        """Return a stepper of the current weights; later changes to the model do not affect it.

        Args:
            weight_bits: The bits of each weight. With 32, the logits equal those of a call of the
                model. With 16 or 8, the weights are rounded for speed, so the logits differ. A
                model without weight matrices ignores this argument.
        """
        ...


@runtime_checkable
class SupportsExpert(Protocol):
    """A model that can mix the next-token distribution of another model, the *expert*, into its
    own, as another input. In a blend, this may be better than a weighted average.

    ``fit_expert`` returns such a model. Its config has ``expert=True``, and it is only used as the
    last component of a blend, whose other components are the expert. It has a ``stepper()`` that
    is a ``SupportsExpertForward``. Its state may depend on the expert: for example, the weights of
    the expert may adapt to how well it predicts the text.
    """

    def fit_expert(
        self, texts: Iterable[tuple[Int64[np.ndarray, " T"], Float32[np.ndarray, "T V"]]]
    ) -> LanguageModel:
        """Return a model that mixes an expert in, with weights that are fitted on held-out texts.
        It may share tensors with this model, which does not change.

        Args:
            texts: Iterated over once. Each text has its ids (bos, conditions, tokens and eos, or
                the first of these), and the expert's log probabilities (nats) after each id.
        """
        ...

    def call_with_expert(
        self, ids: Int[Tensor, "B T"], expert: Float[Tensor, "B T V"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return the log probability (nats) of every token after each of ``ids``, and the state
        after the last.

        Args:
            ids, state: As in a call of the model.
            expert: The expert's log probabilities after each of ``ids``; -inf is probability zero.
        """
        ...

    def score_with_expert(
        self,
        ids: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"],
        expert: Float[Tensor, "B T V"],
        state: State,
    ) -> tuple[Float[Tensor, "B T"], State]:
        """Return the log probability (nats) of ``targets[b, t]`` after ``ids[b, :t + 1]``, and the
        state after the last token. ``expert`` is that of ``call_with_expert``.
        """
        ...


@runtime_checkable
class SupportsImplementations(Protocol):
    """A model with several implementations of the same function. The shapes and the machine decide
    which of them is the fastest.
    """

    def implementations(self) -> tuple[str, ...]:
        """Return the names of the implementations that the config allows, the default first. If the
        config names an implementation, return only its name.
        """
        ...

    def use_implementation(self, name: str) -> None:
        """Switch to an implementation. Logits and gradients stay equal within 1e-4, and the tensors
        of the model do not change.
        """
        ...
