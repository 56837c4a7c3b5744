"""Prompts: which ids a model reads, and which end of the text it spells again itself.

A prompt may stop inside what the tokenizer would make one token: "the " before "the movie", whose tokens are "the" and
" movie". Read as it stands, its last token is one that training never showed there. So the last word is taken back, and the
first tokens drawn must spell it and may run on ("token healing"). A tokenizer of single characters needs none of this.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from reviewgen.errors import ConfigError
from reviewgen.protocols import Tokenizer

__all__ = ["Pieces", "Prompt", "check_prompts", "check_seed"]

_TAKEN_BACK = 8  # tokens at most


@dataclass(frozen=True)
class Prompt:
    """What the model reads, the text that it then has to spell, and the length of both as the tokenizer spells them."""

    ids: list[int]
    rest: str
    length: int


class Pieces:
    """The text of every single token; the empty string where it has none of its own (bos, eos, part of a character)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.bos_id = tokenizer.bos_id
        pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        self.texts = ["" if "\ufffd" in piece else piece for piece in pieces]
        self.are_characters = max(map(len, self.texts)) <= 1

    def split(self, text: str) -> Prompt:
        """Return a prompt's ids without its last word, and that word."""
        ids = self._tokenizer.encode(text)
        keep = len(ids)
        while not self.are_characters and keep > max(0, len(ids) - _TAKEN_BACK) and (piece := self.texts[ids[keep - 1]]):
            keep -= 1
            if piece[0].isspace():
                break
        rest = "".join(self.texts[token] for token in ids[keep:])
        if not text.endswith(rest):
            keep, rest = len(ids), ""
        return Prompt(ids[:keep], rest, len(self._tokenizer.decode(ids[:keep])) + len(rest))

    def spelling(self, rest: str) -> Bool[np.ndarray, " V"]:
        """Return which tokens spell the rest, begin it, or run on from it."""
        return np.array([bool(piece) and (piece.startswith(rest) or rest.startswith(piece)) for piece in self.texts])


def check_prompts(prompt: str | Sequence[str], repeat: int) -> list[str]:
    """Return each prompt as often as it is to be continued.

    Raises:
        ConfigError: They are no strings.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt) if isinstance(prompt, Iterable) else [prompt]
    if not all(isinstance(text, str) for text in prompts):
        raise ConfigError("prompt must be a string or a list of strings.")
    return [text for text in prompts for _ in range(repeat)]


def check_seed(seed: int | None) -> int:
    """Return the seed, a fresh one for None.

    Raises:
        ConfigError: It is no whole number from 0 to 2**64 - 1.
    """
    if seed is None:
        return secrets.randbits(63)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 64:
        raise ConfigError(f"seed must be a whole number of at least 0 and below 2**64; got {seed!r}.")
    return seed
