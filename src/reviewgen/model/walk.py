"""A text that is taken forward and back one step at a time, by a person or by the draw. No torch.

The stepper's state is a value, so each place on the way keeps its own, and a step back is a place taken off.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from reviewgen.compiled.draw import draw
from reviewgen.errors import ConfigError, GenerationError
from reviewgen.model.next_tokens import NextTokens, check_choice, distribution, next_tokens
from reviewgen.protocols import Stepper, StepState, Tokenizer
from reviewgen.sampling import Pieces, check_seed

__all__ = ["Walk"]


class _Place(NamedTuple):
    """What was read, bos first; the logits (W,) of what follows; the state after it."""

    ids: tuple[int, ...]
    logits: Float[np.ndarray, " W"]
    state: StepState


class Walk:
    """A text in the making. Every step that fails leaves it as it was.

    Args:
        stepper: Predicts.
        tokenizer, pieces: The tokenizer, and the texts of its tokens.
        text: What it begins with; any text works, the empty one is the start of a review.
        conditions: The ids of conditions, which the model reads after bos.
        temperature: At which tokens are drawn, and their probabilities shown.
        seed: Of the draws; None draws a fresh one.

    Raises:
        ConfigError: The text is no string, the temperature no number above 0, the seed no seed.
    """

    def __init__(
        self,
        stepper: Stepper,
        tokenizer: Tokenizer,
        pieces: Pieces,
        text: str = "",
        conditions: Sequence[int] = (),
        *,
        temperature: float = 1.0,
        seed: int | None = None,
    ) -> None:
        check_choice(1, temperature)
        self._stepper, self._tokenizer, self._pieces, self._temperature = stepper, tokenizer, pieces, temperature
        self._random = np.random.default_rng(check_seed(seed))
        self._start = (tokenizer.bos_id, *conditions)
        self._places = [self._read((*self._start, *tokenizer.encode(_checked(text))))]

    @property
    def text(self) -> str:
        """The text so far, as its tokens spell it."""
        return self._tokenizer.decode(self._ids)

    @property
    def has_ended(self) -> bool:
        """Whether the end of the text was taken; the only step left is back."""
        return self._tokenizer.eos_id in self._ids[-1:]

    @property
    def _ids(self) -> list[int]:
        """The tokens of the text."""
        return list(self._places[-1].ids[len(self._start) :])

    def next_tokens(self, k: int = 10) -> NextTokens:
        """Return what the model expects now.

        Raises:
            ConfigError: k is no whole number of at least 1.
            GenerationError: Nothing can follow, or the text has ended.
        """
        check_choice(k, self._temperature)
        self._refuse_end()
        place = self._places[-1]
        tokenizer, pieces, temperature = self._tokenizer, self._pieces, self._temperature
        start = len(self._start)
        return next_tokens(self._stepper, tokenizer, pieces, place.ids, place.logits, start=start, k=k, temperature=temperature)

    def take(self, token: int) -> None:
        """Add a token.

        Raises:
            ConfigError: It is no id of the tokenizer, or the beginning of a text.
            GenerationError: The text has ended.
        """
        self._refuse_end()
        if not 0 <= token < self._tokenizer.vocab_size or token == self._tokenizer.bos_id:
            raise ConfigError(f"Token {token!r} cannot be taken: ids are 0 to {self._tokenizer.vocab_size - 1}, without bos.")
        self._append((*self._places[-1].ids, token))

    def write(self, text: str) -> None:
        """Add a text, spelled together with what stands before it as the tokenizer would.

        Raises:
            ConfigError: It is no string, or spells nothing in this tokenizer.
            GenerationError: The text has ended.
        """
        self._refuse_end()
        before = self._ids
        is_usual = self._tokenizer.encode(self.text) == before
        after = self._tokenizer.encode(self.text + _checked(text)) if is_usual else before + self._tokenizer.encode(text)
        if after == before:
            raise ConfigError(f"The tokenizer knows nothing of {text!r}, so nothing was added.")
        self._append((*self._start, *after))

    def draw(self, number: int = 1) -> None:
        """Add tokens, drawn by the probabilities shown, as one step; fewer where the text ends before.

        Raises:
            ConfigError: The number is no whole number of at least 1.
            GenerationError: Nothing can follow, or the text has ended.
        """
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ConfigError(f"The number of tokens to draw must be a whole number of at least 1; got {number!r}.")
        self._refuse_end()
        start = len(self._places)
        try:
            while len(self._places) < start + number and not self.has_ended:
                weights = distribution(self._places[-1].logits, self._tokenizer, self._temperature)
                self.take(int(draw(weights, 0, 1.0, 0.0, self._random.random())))
        finally:
            del self._places[start:-1]

    def undo(self) -> bool:
        """Take the last step back; return whether there was one."""
        if len(self._places) == 1:
            return False
        self._places.pop()
        return True

    def _append(self, ids: tuple[int, ...]) -> None:
        self._places.append(self._read(ids, self._places[-1]))

    def _read(self, ids: tuple[int, ...], before: _Place | None = None) -> _Place:
        """Read a text, on from the place before where that is how it begins."""
        if before is None or ids[: len(before.ids)] != before.ids:
            before = _Place((), np.empty(0), self._stepper.initial_state(1))
        logits, state = self._stepper.read(np.array([ids[len(before.ids) :]], np.int64), before.state)
        return _Place(ids, logits[0], state)

    def _refuse_end(self) -> None:
        if self.has_ended:
            raise GenerationError("The review has ended here, so nothing can follow; take the end back first.")


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise ConfigError(f"The text must be a string; got {type(text).__name__}.")
    return text
