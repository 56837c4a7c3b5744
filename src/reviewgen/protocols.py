"""The contracts between the core and its plugins: LanguageModel, Tokenizer and their small optional companions.

Shapes are spelled by letter: B batch, T time (tokens), V vocabulary. Nothing but contracts lives here; the laws that an
implementation must keep are checked by ``reviewgen.testing``.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from reviewgen.compiled.windows import WindowSet
from reviewgen.config import GenerationConfig

__all__ = [
    "DEAD_END",
    "CountTrained",
    "LanguageModel",
    "State",
    "SupportsCountMerge",
    "SupportsEncodeBatch",
    "SupportsSample",
    "SupportsScore",
    "Tokenizer",
]

DEAD_END = -2
"""In place of a token that ``SupportsSample`` could not draw: each was forbidden or impossible, but for the end."""

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
class SupportsSample(Protocol):
    """A model that draws whole texts in a loop of its own, at compiled speed.

    What a temperature, the filters and a forbidden token mean is said once, in ``reviewgen.compiled``.
    """

    def sample(
        self,
        state: State,
        uniform: Float64[np.ndarray, "B N"],
        eos_id: int,
        config: GenerationConfig,
        guard: tuple[WindowSet, int] | None = None,
        tails: Int64[np.ndarray, "B K"] | None = None,
    ) -> tuple[Int64[np.ndarray, "B N"], State]:
        """Return up to N tokens a row, drawn after the state, and the state after them.

        A row depends on its own numbers only. It may take several numbers a token, N >= 32 of them yield at least one. A row
        ends after the end token, or with DEAD_END; -1 fills it up.

        Args:
            state: After the last token of each row.
            uniform: Numbers in [0, 1).
            eos_id: The id that ends a text.
            config: How to draw.
            guard: A set of windows and a run: a token but the end that makes ``copies(windows, text, end, run)`` true is drawn
                again from those that do not. None forbids nothing.
            tails: The last K tokens of each row, for the guard.
        """
        ...


@runtime_checkable
class SupportsScore(Protocol):
    """A model that scores given tokens without computing the whole (B, T, V)."""

    def score(self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T"], State]:
        """Return the log probability (nats) of ``targets[b, t]`` after ``ids[b, :t + 1]``, and the state after the last token."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into ids and back. ``bos_id`` and ``eos_id`` frame a text; ``encode`` never emits them."""

    Config: ClassVar[type]  # a frozen keyword-only dataclass of JSON values

    @property
    def vocab_size(self) -> int:
        """The number of ids, bos and eos among them."""
        ...

    @property
    def bos_id(self) -> int:
        """The id before a text's first token."""
        ...

    @property
    def eos_id(self) -> int:
        """The id after a text's last token."""
        ...

    @classmethod
    def train(cls, texts: Iterable[str], config: Any) -> "Tokenizer":
        """Learn a vocabulary from texts, read once."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of any text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of any ids; bos and eos spell nothing."""
        ...

    def save(self, folder: Path) -> None:
        """Write plain data files (text or JSON) into an existing folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read what ``save`` wrote."""
        ...


@runtime_checkable
class SupportsEncodeBatch(Protocol):
    """A tokenizer that encodes many texts faster than one by one."""

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Sequence[int] | np.ndarray]:
        """Return what ``encode`` would for each text, as lists or as arrays."""
        ...
