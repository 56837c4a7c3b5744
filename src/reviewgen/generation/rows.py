"""The rows of a batch: each holds one text that is being generated. Also selects and stacks their states."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64

from reviewgen.errors import growing_state
from reviewgen.generation.prompts import Pieces
from reviewgen.protocols import StepState, Tokenizer

_RANDOM_BLOCK = 64  # random numbers generated at a time, at least


@dataclass
class Row:
    """One text that is being generated.

    Attributes:
        prompt: The prompt.
        prefix: The ids before the text: bos, then those of the conditions.
        ids: The token ids of the text so far, those of the prompt included.
        rest: The end of the prompt that is not in ``ids`` yet: the next tokens must match it, and may run on.
        prompt_length: Characters of the decoded prompt; differs from len(prompt) where the tokenizer loses characters.
        rng: The row's own random stream.
        forced: Token ids to append next, whatever the model predicts.
        prompt_tokens: How many of ``ids`` belong to the prompt.
        new_tokens: How many do not.
        retries: How often it went back from a dead end.
        exceeds_limit: Whether it contains a copied span longer than allowed, because no other token was left.
        finish_reason: "end" (eos), "length", "stop" (a stop string), "time", "criteria" or "stuck" (no token was left);
            None while it is being generated.
        text: The text, once there is a finish_reason.
        seconds: From the start of the batch until the text was complete.
        place: Its place among the known words, as in ``reviewgen.compiled.spelling``; None if it is not known yet.
    """

    prompt: str
    prefix: list[int]
    ids: list[int]
    rest: str
    prompt_length: int
    rng: np.random.Generator
    forced: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    new_tokens: int = 0
    retries: int = 0
    exceeds_limit: bool = False
    finish_reason: str | None = None
    text: str = ""
    seconds: float = 0.0
    place: Int64[np.ndarray, "3"] | None = None
    _random: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def is_past_prompt(self) -> bool:
        """Whether the whole prompt is in ``ids``."""
        return not self.rest and not self.forced

    def peek_random(self, count: int) -> Float64[np.ndarray, " N"]:
        """Return the next random numbers in [0, 1) of the row's stream without using them up."""
        lacking = count - len(self._random)
        if lacking > 0:
            self._random = np.concatenate((self._random, self.rng.random(max(_RANDOM_BLOCK, lacking))))
        return self._random[:count]

    def use_random(self, count: int) -> None:
        """Drop random numbers that were used."""
        self._random = self._random[count:]

    def tail(self, size: int) -> list[int]:
        """Return the last ids, prefix included, padded with bos in front."""
        if size == 0:
            return []
        ids = self.prefix + self.ids
        return [self.prefix[0]] * (size - len(ids)) + ids[max(0, len(ids) - size) :]


def make_row(prompt: str, pieces: Pieces, rng: np.random.Generator, conditions: Sequence[int] = ()) -> Row:
    """Return the row of one prompt; ``conditions`` are the ids after bos."""
    split = pieces.split(prompt)
    prefix = [pieces.bos_id, *conditions]
    return Row(prompt, prefix, list(split.ids), split.rest, split.length, rng, prompt_tokens=len(split.ids))


def row_of_ids(ids: Sequence[int], tokenizer: Tokenizer, rng: np.random.Generator, conditions: Sequence[int] = ()) -> Row:
    """Return the row of a prompt that is given as token ids, which are fed as they are."""
    prompt = tokenizer.decode(ids).rstrip("\ufffd")  # an incomplete last character belongs to the continuation
    return Row(prompt, [tokenizer.bos_id, *conditions], list(ids), "", len(prompt), rng, prompt_tokens=len(ids))


def text_so_far(row: Row, tokenizer: Tokenizer) -> str:
    """Return a row's text without an incomplete last character, which decodes to one or more U+FFFD."""
    return row.text if row.finish_reason is not None else row.prompt + _continuation(row, tokenizer).rstrip("\ufffd")


def full_text(row: Row, tokenizer: Tokenizer) -> str:
    """Return the prompt as given, even if the tokenizer cannot represent all of it, and its continuation."""
    return row.prompt + _continuation(row, tokenizer)


def _continuation(row: Row, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(row.ids)[row.prompt_length :]


def select_rows(state: StepState, rows: Sequence[int]) -> StepState:
    """Return the state of some rows; a state is an array or a nested tuple of arrays, each with B first."""
    return tuple(select_rows(part, rows) for part in state) if isinstance(state, tuple) else state[np.asarray(rows, np.int64)]


def split_rows(state: StepState, count: int) -> list[StepState]:
    """Return the state of each of ``count`` rows, as a copy."""
    if isinstance(state, tuple):
        parts = [split_rows(part, count) for part in state]
        return [tuple(part[number] for part in parts) for number in range(count)]
    return [state[number : number + 1].copy() for number in range(count)]


def stack_rows(states: Sequence[StepState]) -> StepState:
    """Return the states of several batches as the state of one."""
    if isinstance(states[0], tuple):
        return tuple(stack_rows(parts) for parts in zip(*states, strict=True))
    if other := [state.shape for state in states if state.shape[1:] != states[0].shape[1:]]:
        raise growing_state(other[0], states[0].shape)
    return np.concatenate(states)
