"""Walk: a text that a user extends and undoes step by step. No torch.

A stepper's state is a value, so each step keeps its own, and undoing a step drops it. W ids of the model, V of the tokenizer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from reviewgen.compiled.sampling import sample_from
from reviewgen.config import seed_or_random
from reviewgen.errors import ConfigError, GenerationError, quoted
from reviewgen.generation.hooks import Hooks
from reviewgen.generation.next_tokens import NextTokens, check_choice, distribution, next_tokens
from reviewgen.generation.prompts import Pieces
from reviewgen.protocols import Stepper, StepState, Tokenizer


class _Step(NamedTuple):
    """The ids fed so far, bos first; the model's logits (W,) of the next token; the same after processors; the state."""

    ids: tuple[int, ...]
    logits: Float[np.ndarray, " W"]
    scores: Float[np.ndarray, " W"]
    state: StepState


class Walk:
    """A text that is extended token by token. A step that raises leaves it unchanged.

    Args:
        stepper: Predicts the next token.
        tokenizer, pieces: The tokenizer, and the texts of its single tokens.
        text: The text to begin with; any text works, the empty one is the start of a review.
        conditions: The ids of conditions, which follow bos.
        temperature: Of the probabilities shown, at which tokens are sampled.
        hooks: The logits processors that the probabilities are shown and sampled after.
        seed: Of the sampling; None takes a random one.

    Raises:
        ConfigError: The text is not a string, the temperature not a number above 0, or the seed out of range.
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
        hooks: Hooks | None = None,
        seed: int | None = None,
    ) -> None:
        check_choice(1, temperature)
        self._hooks = hooks
        self._stepper, self._tokenizer, self._pieces, self._temperature = stepper, tokenizer, pieces, temperature
        self._rng = np.random.default_rng(seed_or_random(seed))
        self._prefix = (tokenizer.bos_id, *conditions)
        self._steps = [self._feed((*self._prefix, *tokenizer.encode(_checked(text))))]

    @property
    def text(self) -> str:
        """The text so far, as its tokens decode."""
        return self._tokenizer.decode(self._ids)

    @property
    def has_ended(self) -> bool:
        """Whether the last token is eos; then only ``undo`` is possible."""
        return self._tokenizer.eos_id in self._ids[-1:]

    @property
    def _ids(self) -> list[int]:
        """The token ids of the text."""
        return list(self._steps[-1].ids[len(self._prefix) :])

    def next_tokens(self, k: int = 10) -> NextTokens:
        """Return the k most probable next tokens.

        Raises:
            ConfigError: k is not a whole number of at least 1.
            GenerationError: No token can follow, or the text has ended.
        """
        check_choice(k, self._temperature)
        self._refuse_end()
        last, start = self._steps[-1], len(self._prefix)
        return next_tokens(
            self._stepper,
            self._tokenizer,
            self._pieces,
            last.ids,
            last.logits,
            last.scores,
            start=start,
            k=k,
            temperature=self._temperature,
        )

    def take(self, token: int) -> None:
        """Append a token.

        Raises:
            ConfigError: It is not an id of the tokenizer, or it is bos.
            GenerationError: The text has ended.
        """
        self._refuse_end()
        is_id = isinstance(token, int) and not isinstance(token, bool)
        if not is_id or not 0 <= token < self._tokenizer.vocab_size or token == self._tokenizer.bos_id:
            raise ConfigError(
                f"Token {quoted(token)} cannot be taken: ids are 0 to {self._tokenizer.vocab_size - 1}, without bos."
            )
        self._append((*self._steps[-1].ids, token))

    def write(self, text: str) -> None:
        """Append a text, tokenized together with the text before it as the tokenizer would.

        Raises:
            ConfigError: It is not a string, or the tokenizer has no token for any of it.
            GenerationError: The text has ended.
        """
        self._refuse_end()
        _checked(text)
        before = self._ids
        is_canonical = self._tokenizer.encode(self.text) == before
        after = self._tokenizer.encode(self.text + text) if is_canonical else before + self._tokenizer.encode(text)
        if after == before:
            raise ConfigError(f"The tokenizer has no token for {quoted(text)}, so nothing was added.")
        self._append((*self._prefix, *after))

    def draw(self, number: int = 1) -> None:
        """Append tokens sampled from the probabilities shown, as one step; fewer if the text ends before.

        Raises:
            ConfigError: The number is not a whole number of at least 1.
            GenerationError: No token can follow, or the text has ended.
        """
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ConfigError(f"The number of tokens to sample must be a whole number of at least 1; got {quoted(number)}.")
        self._refuse_end()
        start = len(self._steps)
        try:
            while len(self._steps) < start + number and not self.has_ended:
                probabilities = distribution(self._steps[-1].scores, self._tokenizer, self._temperature)
                self.take(int(sample_from(probabilities, 0, 1.0, 0.0, self._rng.random())))
        finally:
            del self._steps[start:-1]

    def undo(self) -> bool:
        """Undo the last step; return whether there was one."""
        if len(self._steps) == 1:
            return False
        self._steps.pop()
        return True

    def _append(self, ids: tuple[int, ...]) -> None:
        self._steps.append(self._feed(ids, self._steps[-1]))

    def _feed(self, ids: tuple[int, ...], before: _Step | None = None) -> _Step:
        """Feed ids to the stepper, from the step before on where they begin with its ids."""
        if before is None or ids[: len(before.ids)] != before.ids:
            before = _Step((), np.empty(0), np.empty(0), self._stepper.initial_state(1))
        logits, state = self._stepper.forward(np.array([ids[len(before.ids) :]], np.int64), before.state)
        return _Step(ids, logits[0], self._process(ids, logits[0]), state)

    def _process(self, ids: tuple[int, ...], logits: Float[np.ndarray, " W"]) -> Float[np.ndarray, " W"]:
        """Return the logits after the logits processors; after eos no token follows."""
        if self._hooks is None or self._tokenizer.eos_id in ids[len(self._prefix) :][-1:]:
            return logits
        scores = logits.astype(np.float64)
        scores[self._tokenizer.bos_id] = -np.inf
        scores[self._tokenizer.vocab_size :] = -np.inf
        return self._hooks.process(ids, scores)

    def _refuse_end(self) -> None:
        if self.has_ended:
            raise GenerationError("The review has ended, so no token can follow; undo the end first.")


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise ConfigError(f"The text must be a string; got {type(text).__name__}.")
    return text
