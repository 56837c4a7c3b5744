"""One text in the making: its tokens, its random stream, and what it reads like so far."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from reviewgen.protocols import Tokenizer
from reviewgen.sampling.prompt import Pieces

__all__ = ["Row", "make_row", "start_rows", "text_so_far", "whole_text"]

_NUMBERS = 64  # random numbers drawn at a time, at least


@dataclass
class Row:
    """One text in the making.

    Attributes:
        prompt: What it begins with.
        start: What the model reads before the text: bos, then the ids of conditions.
        ids: The tokens of the text so far, those of the prompt among them.
        rest: The end of the prompt that is still to be spelled.
        prompt_length: Characters of the decoded prompt; not len(prompt) where the tokenizer loses characters.
        random: The row's own random stream.
        forced: Tokens to come whatever is drawn.
        spelled: How many of ``ids`` belong to the prompt.
        new_tokens: How many do not.
        tries: How often it went back from a dead end.
        exceeds_limit: Whether a forbidden token was taken, for want of another.
        finish_reason: "end" (of the review), "length", "stop" (a stop string), "time", "criteria" or "stuck" (no token was left);
            None while it is being written.
        text: Complete once there is a finish_reason.
        seconds: From the start of the call until it was complete.
    """

    prompt: str
    start: list[int]
    ids: list[int]
    rest: str
    prompt_length: int
    random: np.random.Generator
    forced: list[int] = field(default_factory=list)
    spelled: int = 0
    new_tokens: int = 0
    tries: int = 0
    exceeds_limit: bool = False
    finish_reason: str | None = None
    text: str = ""
    seconds: float = 0.0
    _numbers: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def is_spelled(self) -> bool:
        """Whether all of the prompt stands in ``ids``."""
        return not self.rest and not self.forced

    def look_at_numbers(self, count: int) -> Float64[np.ndarray, " N"]:
        """Return the next numbers of the random stream, in [0, 1), without using them up."""
        lacking = count - len(self._numbers)
        if lacking > 0:
            self._numbers = np.concatenate((self._numbers, self.random.random(max(_NUMBERS, lacking))))
        return self._numbers[:count]

    def use_numbers(self, count: int) -> None:
        """Use up numbers of the random stream."""
        self._numbers = self._numbers[count:]

    def tail(self, size: int) -> list[int]:
        """Return the last tokens of what the model reads, bos before the first."""
        if size == 0:
            return []
        read = self.start + self.ids
        return [self.start[0]] * (size - len(read)) + read[max(0, len(read) - size) :]


def start_rows(prompts: Sequence[str], pieces: Pieces, seed: int, conditions: Sequence[int] = ()) -> Iterator[Row]:
    """Yield a row for each prompt; row i draws from the random stream of (seed, i).

    Args:
        prompts: What the texts begin with.
        pieces: Of the tokenizer.
        seed: Of all random streams.
        conditions: The ids of conditions, which the model reads after bos.
    """
    for number, prompt in enumerate(prompts):
        yield make_row(prompt, pieces, np.random.default_rng((seed, number)), conditions)


def make_row(prompt: str, pieces: Pieces, random: np.random.Generator, conditions: Sequence[int] = ()) -> Row:
    """Return the row of one prompt."""
    split = pieces.split(prompt)
    start = [pieces.bos_id, *conditions]
    return Row(prompt, start, list(split.ids), split.rest, split.length, random, spelled=len(split.ids))


def text_so_far(row: Row, tokenizer: Tokenizer) -> str:
    """Return a row's text without a last character that is still incomplete, which may be spelled by several U+FFFD."""
    return row.text if row.finish_reason is not None else row.prompt + _continuation(row, tokenizer).rstrip("\ufffd")


def whole_text(row: Row, tokenizer: Tokenizer) -> str:
    """Return the prompt as it was given, also where the tokenizer cannot spell all of it, and what follows it."""
    return row.prompt + _continuation(row, tokenizer)


def _continuation(row: Row, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(row.ids)[row.prompt_length :]
