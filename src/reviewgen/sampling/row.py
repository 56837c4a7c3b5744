"""One text in the making: its tokens, its random stream, and what it reads like so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from reviewgen.protocols import Tokenizer
from reviewgen.sampling.prompt import Pieces

__all__ = ["Row", "start_rows", "text_so_far", "whole_text"]


@dataclass
class Row:
    """One text in the making."""

    prompt: str
    ids: list[int]
    rest: str  # the end of the prompt that is still to be spelled
    prompt_length: int  # of the decoded prompt; another than len(prompt) where the tokenizer loses characters
    random: np.random.Generator
    forced: list[int] = field(default_factory=list)  # tokens to come whatever is drawn
    spelled: int = 0  # ids that belong to the prompt
    new_tokens: int = 0
    tries: int = 0  # times that it went back
    exceeds_limit: bool = False  # whether a forbidden token was taken, for want of another
    finish_reason: str | None = None  # "end" (of the review), "length" or "stop"
    text: str = ""  # complete once finish_reason is set


def start_rows(prompts: Sequence[str], pieces: Pieces, seed: int) -> list[Row]:
    """Return a row for each prompt; row i draws from the random stream of (seed, i)."""
    rows = []
    for number, prompt in enumerate(prompts):
        split = pieces.split(prompt)
        random = np.random.default_rng((seed, number))
        rows.append(Row(prompt, list(split.ids), split.rest, split.length, random, spelled=len(split.ids)))
    return rows


def text_so_far(row: Row, tokenizer: Tokenizer) -> str:
    """Return a row's text without a last character that is still incomplete, which may be spelled by several U+FFFD."""
    return row.text if row.finish_reason is not None else row.prompt + _continuation(row, tokenizer).rstrip("\ufffd")


def whole_text(row: Row, tokenizer: Tokenizer) -> str:
    """Return the prompt as it was given, also where the tokenizer cannot spell all of it, and what follows it."""
    return row.prompt + _continuation(row, tokenizer)


def _continuation(row: Row, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(row.ids)[row.prompt_length :]
