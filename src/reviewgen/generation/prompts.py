"""Prompts: which token ids the model is fed, and which end of the text it samples again.

A prompt may end inside what the tokenizer would make one token: "the " before "the movie", whose tokens are "the" and " movie".
Fed as it stands, its last token is one that never occurred there in training. So the last word is removed, and the first sampled
tokens must match it and may run on ("token healing"). A tokenizer of single characters needs none of this.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from reviewgen.config import check_list
from reviewgen.errors import ConfigError, quoted
from reviewgen.protocols import Tokenizer

_MAX_HEALED = 8  # tokens removed from the end of a prompt


@dataclass(frozen=True)
class Prompt:
    """A prompt, split.

    Attributes:
        ids: What the model is fed.
        rest: The end of the text that the next tokens must match.
        length: Characters of both as the tokenizer decodes them.
    """

    ids: list[int]
    rest: str
    length: int


class Pieces:
    """The text of every single token (its *piece*); the empty string for bos, eos and parts of a character."""

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
        while not self.are_characters and keep > max(0, len(ids) - _MAX_HEALED) and (piece := self.texts[ids[keep - 1]]):
            keep -= 1
            if piece[0].isspace():
                break
        rest = "".join(self.texts[token] for token in ids[keep:])
        if not text.endswith(rest):
            keep, rest = len(ids), ""
        return Prompt(ids[:keep], rest, len(self._tokenizer.decode(ids[:keep])) + len(rest))

    def matches(self, rest: str) -> Bool[np.ndarray, " V"]:
        """Return a mask of the tokens that start with ``rest`` or are a prefix of it."""
        return np.array([bool(piece) and (piece.startswith(rest) or rest.startswith(piece)) for piece in self.texts])


def check_prompts(prompt: str | Sequence[str], repeat: int) -> list[str]:
    """Return each prompt ``repeat`` times.

    Raises:
        ConfigError: A prompt is not a string.
    """
    prompts = (
        [prompt] if isinstance(prompt, str) or not isinstance(prompt, Iterable) else check_list("prompt", prompt, "['The ']")
    )
    if not all(isinstance(text, str) for text in prompts):
        raise ConfigError(f"prompt must be a string or a list of strings; got {quoted(prompt)}.")
    return [text for text in prompts for _ in range(repeat)]
