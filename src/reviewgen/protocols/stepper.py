"""Stepper, the contract of inference: predicts one token after another, with NumPy arrays and
without torch.

Shapes by letter: B batch, T time (tokens), V vocabulary, N random numbers of a row, K trailing
tokens of a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped

from reviewgen.compiled.sampling import DEAD_END as DEAD_END
from reviewgen.compiled.sampling import NONE as NONE
from reviewgen.compiled.sampling import NOT_A_NUMBER as NOT_A_NUMBER
from reviewgen.compiled.sampling import NOTHING_LEFT as NOTHING_LEFT
from reviewgen.compiled.sampling import Constraints as Constraints
from reviewgen.compiled.sampling import SamplingParams
from reviewgen.compiled.steps import CompiledStep

StepState: TypeAlias = Any
"""A stepper's recurrent state; see Stepper for its rules."""

TensorSpec: TypeAlias = tuple[str, tuple[int | None, ...]]
"""Dtype and shape of a saved tensor; see StepperFactory."""


class StatePart(NamedTuple):
    """A tensor of the state of a model, and of its stepper. A state is a tuple of such parts, in
    which parts that the config switches off are None; ``join_state`` leaves them out.

    Attributes:
        name: What the tensor is, for messages, as in "The state h".
        sizes: The size of each axis after B, by its letter.
        value: The value of all elements before the first token; int64 if it is an int, else
            floating-point numbers.
    """

    name: str
    sizes: Mapping[str, int]
    value: float = 0.0

    @property
    def is_integer(self) -> bool:
        """Whether the tensor holds integers."""
        return isinstance(self.value, int)


def ids_part(config: Any, ngrams: int) -> StatePart | None:
    """Return the part of a state that holds the last ids, for n-grams of up to ``ngrams`` tokens:
    (B, K), with the id V before the beginning; None if there are no n-grams.
    """
    if ngrams < 2:
        return None
    return StatePart("The last ids of the state", {"K": ngrams - 1}, config.vocab_size)


def sums_part(config: Any, width: int) -> StatePart | None:
    """Return the part of a state that holds the sums of conditions and fields, (B, E + 2); see
    ``reviewgen.protocols.inputs.hold_given``. None if the model does not use them.

    Args:
        config: The model's config, a ``ConditionedConfig``.
        width: The width of an embedding, E.
    """
    return StatePart("What the state holds", {"G": width + 2}) if config.holds else None


def initial_arrays(
    parts: Sequence[StatePart | None], batch_size: int
) -> tuple[Shaped[np.ndarray, "B ..."], ...]:
    """Return the parts of a stepper's state before the first token of B texts, without None."""
    return tuple(
        np.full(
            (batch_size, *part.sizes.values()),
            part.value,
            np.int64 if part.is_integer else np.float32,
        )
        for part in parts
        if part is not None
    )


def split_state(parts: Sequence[StatePart | None], state: StepState) -> list[Any]:
    """Return the parts of a state, with None for those that the config switches off."""
    items = iter(state if isinstance(state, tuple) else (state,))
    return [None if part is None else next(items) for part in parts]


def join_state(*items: Any) -> Any:
    """Return a state of the parts that are not None. A single part stands without a tuple."""
    state = tuple(item for item in items if item is not None)
    return state if len(state) > 1 else state[0]


@runtime_checkable
class Stepper(Protocol):
    """Predicts the next token of each text of a batch, step by step.

    ``StepState`` is any NumPy array or nested tuple of arrays, possibly empty, with the batch
    dimension B first in each. Its shapes and dtypes depend on the batch size only, never on the
    tokens, so that the core can select and repeat rows, for example where a text ends or a beam
    splits. A call changes neither the stepper nor the state that it is passed, and a row does not
    depend on the other rows.
    """

    def initial_state(self, batch_size: int) -> StepState:
        """Return the state before the first token of B independent texts."""
        ...

    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: StepState
    ) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Read T >= 1 tokens. Return the logits of the token that follows, and the state after the
        last token. A prompt is read in one call.
        """
        ...


@runtime_checkable
class SupportsSample(Protocol):
    """A stepper that samples many tokens in one call, in a compiled loop.

    ``reviewgen.compiled.sampling`` defines temperature, filters, penalties and ``Constraints``, and
    has the functions for them. If a sampled token is forbidden, another one is sampled in its
    place. A token is forbidden in two cases:

    - The token is not the end token, and ``copies(windows, text, end, run)`` of
      ``reviewgen.compiled.windows`` would be true with the token at index ``end`` of the text.
    - ``follows(spelling, place, token, eos)`` of ``reviewgen.compiled.spelling`` is false.
    """

    def sample(
        self,
        state: StepState,
        uniform: Float64[np.ndarray, "B N"],
        params: SamplingParams,
        texts: Int64[np.ndarray, "B K"],
        new_tokens: Int64[np.ndarray, " B"],
        constraints: Constraints | None = None,
    ) -> tuple[Int64[np.ndarray, "B N"], Int64[np.ndarray, " B"], StepState]:
        """Sample up to N tokens for each row.

        The tokens of a row depend on its own sequence of random numbers only, not on how many of
        them one call gets: unused numbers are passed again in the next call. A token may use
        several numbers; 32 numbers are enough for at least one token.

        A row ends after the end token, after its ``params.max_new_tokens``-th token, or with a code
        in place of a token: DEAD_END (the constraints forbid every token that is left),
        NOTHING_LEFT (every token has probability zero) or NOT_A_NUMBER (NaN or infinite logits).
        The rest of an ended row is NONE, and its state is undefined.

        Args:
            state: The state after the last token of each row.
            uniform: Random numbers in [0, 1).
            params: The sampling settings.
            texts: The last K tokens of each row. K is how far back the params and the constraints
                look.
            new_tokens: How many tokens of each row do not belong to the prompt.
            constraints: What the texts must not contain; None forbids nothing. The call updates
                ``constraints.places`` in place.

        Returns:
            The sampled tokens, how many random numbers each row used, and the state after the
            tokens.
        """
        ...


@runtime_checkable
class SupportsCompiledStep(Protocol):
    """A stepper whose step is a compiled function. So a compiled loop, such as that of a blend, can
    call the steps of several steppers.

    ``reviewgen.compiled.steps`` describes such functions. To be a ``SupportsSample``, such a
    stepper needs only a method ``sample`` that calls ``reviewgen.compiled.decoding.sample``.
    """

    @property
    def compiled_step(self) -> CompiledStep:
        """The step, which several loops may run at once. Create it once and keep it: this takes as
        long as sampling many tokens.
        """
        ...

    def state_arrays(
        self, state: StepState
    ) -> tuple[Float32[np.ndarray, "S B W"], Int64[np.ndarray, "K B"]]:
        """Return a copy of a state, as the two arrays that the step takes."""
        ...

    def state_of(
        self, floats: Float32[np.ndarray, "S B W"], ints: Int64[np.ndarray, "K B"]
    ) -> StepState:
        """Convert two such arrays back to a state."""
        ...


@runtime_checkable
class SupportsExpertForward(Protocol):
    """A stepper of a model whose config has ``expert=True``; see ``SupportsExpert``.

    If it has a compiled step (see ``reviewgen.compiled.steps``), a blend generates in one compiled
    loop. For every token, the step gets the expert's logits (R, V64) in the argument ``logits``,
    and overwrites them with its own log probabilities. If it is called with empty ``ids``, it gets
    the expert's logits once more, and computes its log probabilities from them and from its state,
    which must not change.
    """

    def forward_with_expert(
        self,
        ids: Int64[np.ndarray, "B T"],
        expert: Float[np.ndarray, "B T V"],
        state: StepState,
    ) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Read T >= 1 tokens. Return the log probability of each token that may follow, and the
        state after the last token. ``expert`` has the expert's logits after each of ``ids``.
        """
        ...


@dataclass(frozen=True)
class CountedContext:
    """The counts of a count model after one context, which is the last tokens of a text.

    Attributes:
        tokens: The length of the context, the beginning-of-text token included; 0 is the empty
            context.
        seen: Whether each token of the vocabulary was seen after the context.
        counts: The count of each token after the context, 0 for tokens that were not seen; None if
            the model does not store exact counts.
        unit: What is counted for each token: "occurrences" after the context, or "predecessors",
            the number of different tokens seen before the context and this token (the continuation
            counts of Kneser & Ney 1995).
        parts: The part of each token's probability that comes from these counts; None if the model
            cannot tell.
        discounts: What is subtracted from a count of 1, of 2, and of 3 or more; None if nothing is.
        divisor: What a count is divided by after the discount: the sum of the counts, plus anything
            that the smoothing adds to it; None if unknown.
        backoff: The weight of the next shorter context's probability.
        probabilities: The probability of each token that was seen after the context, including the
            contributions of shorter contexts; 0 for all other tokens.
    """

    tokens: int
    seen: Bool[np.ndarray, " V"]
    counts: Int64[np.ndarray, " V"] | None
    unit: Literal["occurrences", "predecessors"]
    parts: Float64[np.ndarray, " V"] | None
    discounts: tuple[float, float, float] | None = None
    divisor: float | None = None
    backoff: float | None = None
    probabilities: Float64[np.ndarray, " V"] | None = None


@runtime_checkable
class SupportsExplain(Protocol):
    """A stepper that returns the counts behind its prediction."""

    def explain(self, ids: Int64[np.ndarray, " T"]) -> Sequence[CountedContext]:
        """Return the contexts that determine the prediction after T >= 1 tokens, from the longest
        context that was seen to the empty one. The first of the tokens is bos.

        The sum of a token's parts over all contexts is its probability, except for a share that
        comes from no count: every smoothing ends with the uniform distribution.
        """
        ...


@runtime_checkable
class SupportsContributions(Protocol):
    """A stepper of a model that mixes the predictions of several contexts, and returns what each of
    them contributes.
    """

    def contributions(
        self, ids: Int64[np.ndarray, " T"], expert: Float[np.ndarray, "N V"] | None = None
    ) -> Mapping[str, Float64[np.ndarray, " N"]]:
        """Return the contribution of each context to each of the tokens after the first, N = T - 1,
        by the name of the context. The first of the tokens is bos.

        A token is predicted as one or more binary decisions. The model computes the log odds of
        each as a sum over its contexts. The contribution of a context is the sum of its terms over
        all decisions of the token, with a positive sign where it speaks for the decision that was
        taken; NaN if the context was not seen. So the contributions of all contexts sum to the log
        odds of the decisions, in nats. These are not yet the model's log probabilities: the model
        may limit and correct them afterwards.

        ``expert`` has the expert's logits after each of the tokens but the last; see
        ``SupportsExpertForward``.
        """
        ...


class StepperFactory(Protocol):
    """Builds a stepper from a saved model, without torch. Its entry point in the group
    ``reviewgen.steppers`` has the model's name.

    The factory's module must not import torch. ``TensorSpec`` is a pair ``(dtype, shape)``. The
    dtype is a NumPy name, as in "float32". In the shape, None stands for a size that depends on the
    training text.

    Attributes:
        Config: The model's own ``Config``.
    """

    Config: ClassVar[type]

    def expect(self, config: Any) -> Mapping[str, TensorSpec] | None:
        """Return dtype and shape of every tensor of a model with this config; None if such a model
        needs torch to generate.
        """
        ...

    def __call__(
        self, config: Any, tensors: Mapping[str, np.ndarray], weight_bits: int = 32
    ) -> Stepper:
        """Return a stepper from tensors with the expected dtypes and shapes; ``weight_bits`` as in
        ``SupportsStep``.

        Raises:
            BundleError: The tensors hold values that no trained model has.
        """
        ...
