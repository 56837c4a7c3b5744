"""The texts of a tokenizer's tokens, how a prompt is split, and the words that tokens may spell.

A prompt may end inside what the tokenizer would make one token: "the " before "the movie", whose
tokens are "the" and " movie". Fed as it stands, its last token is one that never occurred there in
training. So the last word is removed, and the first sampled tokens must match it and may run on
("token healing"). A tokenizer of single characters needs none of this.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from reviewgen.compiled.spelling import Spelling
from reviewgen.errors import DataError
from reviewgen.lexicon.lexicon import Lexicon, add_words, make_spelling
from reviewgen.lexicon.token_bytes import Symbols, token_symbols
from reviewgen.lexicon.words import words_of
from reviewgen.protocols.tokenizer import Tokenizer

_MAX_HEALED = 8  # tokens removed from the end of a prompt


class Prompt(NamedTuple):
    """A prompt, split.

    Attributes:
        ids: What the model is fed.
        rest: The end of the text that the next tokens must match.
        length: Characters of both as the tokenizer decodes them.
    """

    ids: list[int]
    rest: str
    length: int


class TokenTexts:
    """What the tokens of a tokenizer spell, alone and one after another.

    Args:
        tokenizer: The tokenizer.
        lexicon: The known words; None if the model has none.

    Attributes:
        texts: The text of every single token (its *piece*); the empty string for bos, eos and parts
            of a character.
        are_characters: Whether no token has several characters.
    """

    def __init__(self, tokenizer: Tokenizer, lexicon: Lexicon | None = None) -> None:
        self.tokenizer = tokenizer
        self.bos_id = tokenizer.bos_id
        self._lexicon = lexicon
        pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        self.texts = ["" if "\ufffd" in piece else piece for piece in pieces]
        self.are_characters = max(map(len, self.texts)) <= 1
        self._are_whole = pieces == self.texts
        self._extended: dict[frozenset[str], Spelling] = {}

    def split(self, text: str) -> Prompt:
        """Return a prompt's ids without its last word, and that word."""
        ids = self.tokenizer.encode(text)
        keep = len(ids)
        for token in [] if self.are_characters else reversed(ids[-_MAX_HEALED:]):
            piece = self.texts[token]
            if not piece:
                break
            keep -= 1
            if piece[0].isspace():
                break
        rest = "".join(self.texts[token] for token in ids[keep:])
        if not text.endswith(rest):
            keep = len(ids)
            rest = ""
        return Prompt(list(ids[:keep]), rest, len(self.tokenizer.decode(ids[:keep])) + len(rest))

    def matches(self, rest: str) -> Bool[np.ndarray, " V"]:
        """Return a mask of the tokens that start with ``rest`` or are a prefix of it."""
        return np.array(
            [
                bool(piece) and (piece.startswith(rest) or rest.startswith(piece))
                for piece in self.texts
            ]
        )

    def unknown(self, prefix: Sequence[int]) -> frozenset[str]:
        """Return the words of the fields before a text that are not in the lexicon."""
        lexicon = self._lexicon
        if lexicon is None:
            return frozenset()
        words = list[str]()
        size = self.tokenizer.vocab_size
        for is_value, tokens in groupby(prefix, key=lambda token: token < size):
            if is_value:
                words += words_of(self.tokenizer.decode(list(tokens)))
        return frozenset(word for word in words if not lexicon.spells(word))

    def spelling(self, words: str, others: frozenset[str] = frozenset()) -> Spelling | None:
        """Return the spelling for a setting of ``words``; None if no sequence of tokens can be
        misspelled.

        Args:
            words: The setting.
            others: Words that are known besides those of the lexicon.

        Raises:
            DataError: With ``words="known"``, if there is no lexicon or the bytes of the tokens are
                not known.
        """
        if words == "any":
            return self._valid
        if self._lexicon is None:
            raise DataError(
                "This model has no lexicon, which words=known needs: lexicon.safetensors is"
                " missing, few words occur in several training texts, as in a language without"
                " spaces, or it was trained by an earlier version. Set words=any."
            )
        if self._known is None:
            raise DataError(
                "words=known needs a tokenizer that says which bytes its tokens are"
                " (reviewgen.protocols.SupportsTokenBytes). Set words=any."
            )
        if not others:
            return self._known
        spelling = self._extended.get(others) or add_words(self._known, others)
        # the last one: texts about the same come one after another
        self._extended = {others: spelling}
        return spelling

    @cached_property
    def _symbols(self) -> Symbols | None:
        return token_symbols(self.tokenizer)

    @cached_property
    def _known(self) -> Spelling | None:
        return None if self._symbols is None else make_spelling(self._symbols, self._lexicon)

    @cached_property
    def _valid(self) -> Spelling | None:
        """The spelling of valid UTF-8; None if every token is whole characters, or if that is not
        known.
        """
        return None if self._symbols is None or self._are_whole else make_spelling(self._symbols)
