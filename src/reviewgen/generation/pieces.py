"""The text of each token, how a prompt is split, and which words the tokens of a text may spell.

A prompt may end in the middle of a token. For example, the tokens of "the movie" are "the" and
" movie", but the prompt may be "the ". If this prompt were fed as it is, its last token would be
" ", which never precedes "movie" in the training data. So the last word is removed from the prompt,
together with the space before it; here, this is only the space. The first sampled tokens must spell
the removed end again; they may go beyond it ("token healing"). If all tokens are single characters,
prompts are fed as they are.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from reviewgen.compiled.spelling import Spelling
from reviewgen.config.generation import GRAMMARS, GenerationConfig
from reviewgen.errors import ConfigError, DataError, quoted
from reviewgen.formats.bigrams import Bigrams, ask_model
from reviewgen.formats.cursor import Formats
from reviewgen.lexicon.lexicon import Lexicon, add_signs, add_words, make_spelling
from reviewgen.lexicon.token_bytes import Symbols, token_symbols
from reviewgen.lexicon.words import words_of
from reviewgen.protocols.extensions import TokenAutomaton
from reviewgen.protocols.stepper import Stepper
from reviewgen.protocols.tokenizer import Tokenizer

_MAX_WORD = 100  # max characters of a word that a format adds to the known words
_MAX_HEALED = 8  # max tokens that are removed from the end of a prompt


class Prompt(NamedTuple):
    """A prompt that was split before its last word.

    Attributes:
        ids: The ids that the model is fed.
        rest: The removed end of the prompt, which the next tokens must match.
        length: The number of characters of the decoded ids and of ``rest`` together.
    """

    ids: list[int]
    rest: str
    length: int


class TokenTexts:
    """The text of each token of a tokenizer, and the words that tokens may spell together.

    Args:
        tokenizer: The tokenizer.
        lexicon: The known words; None if the model has no lexicon.
        bigrams: The bigrams of the training text; None if the model was saved without them.

    Attributes:
        texts: For each token its text, also called its *piece*. It is empty for bos, eos, and a
            token that is only a part of a character.
        are_characters: Whether no token has more than one character.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        lexicon: Lexicon | None = None,
        bigrams: Bigrams | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._bigrams = bigrams
        self._formats: dict[GenerationConfig, Formats] = {}  # those of the last call
        self.bos_id = tokenizer.bos_id
        self._lexicon = lexicon
        pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        self.texts = ["" if "\ufffd" in piece else piece for piece in pieces]
        self.are_characters = max(map(len, self.texts)) <= 1
        self._are_whole = pieces == self.texts  # no token is a part of a character
        # the last spelling with more than the lexicon, by its further words and if it has signs
        self._extended: dict[tuple[frozenset[str], bool], Spelling] = {}

    def split(self, text: str) -> Prompt:
        """Split a prompt before its last word, or before its last ``_MAX_HEALED`` tokens if this
        word has more.

        Nothing is removed from the prompt if all tokens are characters, or if the tokens that would
        be removed decode to something other than the end of the prompt.
        """
        ids = self.tokenizer.encode(text)
        keep = len(ids)
        removable = [] if self.are_characters else ids[-_MAX_HEALED:]
        # go back to the token that begins the last word
        for token in reversed(removable):
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
        """Return a mask of the tokens that match the rest of a prompt: the token begins with the
        rest, or the rest begins with the token.
        """
        return np.array(
            [
                bool(piece) and (piece.startswith(rest) or rest.startswith(piece))
                for piece in self.texts
            ]
        )

    def unknown(self, prefix: Sequence[int]) -> frozenset[str]:
        """Return the words of a text's fields that are not in the lexicon.

        Args:
            prefix: The ids of the text's conditions.
        """
        lexicon = self._lexicon
        if lexicon is None:
            return frozenset()
        words = list[str]()
        size = self.tokenizer.vocab_size
        # the value of a field is a run of the tokenizer's ids; larger ids come before and after it
        for is_value, tokens in groupby(prefix, key=lambda token: token < size):
            if is_value:
                words += words_of(self.tokenizer.decode(list(tokens)))
        return frozenset(word for word in words if not lexicon.spells(word))

    def spelling(
        self, config: GenerationConfig, others: frozenset[str] = frozenset()
    ) -> Spelling | None:
        """Return the spelling automaton for the setting ``words``; None if every sequence of tokens
        is allowed.

        Args:
            config: The settings of the call. With words="any", a text must only be valid UTF-8.
                With "known", the words of a format are known, too, and so are its signs.
            others: Known words in addition to those of the lexicon.

        Raises:
            ConfigError: ``words`` is "known", and a word of ``include`` is unknown.
            DataError: ``words`` is "known", and there is no lexicon, or the tokenizer does not say
                which bytes its tokens are.
        """
        if config.words == "any":
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
        for word in words_of(" ".join(config.include)):
            if word not in self._lexicon:
                raise ConfigError(
                    f"include has {quoted(word)}, which is not a known word of this model: leave it"
                    " out, or set words=any."
                )
        rules = [getattr(config, name) for name in (*GRAMMARS, "choices")]
        # texts may contain any word that is written in the formats
        rules_text = json.dumps([rule for rule in rules if rule], ensure_ascii=False)
        others |= {
            word
            for word in words_of(rules_text)
            if len(word) <= _MAX_WORD and not self._lexicon.spells(word)
        }
        has_signs = any(rules)
        if not others and not has_signs:
            return self._known
        key = others, has_signs
        spelling = self._extended.get(key)
        if spelling is None:
            spelling = add_words(self._known, others)
            if has_signs:
                spelling = add_signs(spelling)
        # keep only the last one: texts with the same fields come one after another
        self._extended = {key: spelling}
        return spelling

    def with_rules(self, spelling: Spelling | None, formats: Formats | None) -> Spelling | None:
        """Return ``spelling`` with the formats as further rules, for the compiled loop. If there
        are no formats, or the loop cannot follow them, return ``spelling`` as it is.
        """
        if formats is None or formats.spelled is None:
            return spelling
        assert self._symbols is not None  # else there are no formats
        return (spelling or make_spelling(self._symbols))._replace(
            rules=formats.spelled.next, needed=formats.spelled.distance
        )

    def formats(
        self, config: GenerationConfig, stepper: Stepper, plugins: Mapping[str, TokenAutomaton]
    ) -> Formats | None:
        """Return the rules of a call; None if it has none.

        Args:
            config: The settings of the call.
            stepper: The model, for rules that need its predictions.
            plugins: The automata of plugins, by name.

        Raises:
            ConfigError: A rule is invalid, two contradict each other, or no text can fit one; or
                the tokenizer does not say which bytes its tokens are.
        """
        if not config.has_format and not config.exact and not plugins:
            return None
        symbols = self._symbols
        if symbols is None:
            raise ConfigError(
                "A format needs a tokenizer that says which bytes its tokens are"
                " (reviewgen.protocols.SupportsTokenBytes)."
            )

        needs_bigrams = (config.include or config.exclude or plugins) and not config.exact
        if needs_bigrams and self._bigrams is None:
            self._bigrams = ask_model(stepper, self.tokenizer.vocab_size, self.bos_id)
        formats = self._formats.get(config)
        if formats is None or formats.plugins != plugins:
            eos = self.tokenizer.eos_id
            formats = Formats(config, symbols, self.bos_id, eos, stepper, self._bigrams, plugins)
            self._formats = {config: formats}  # keep only the last one
        return formats

    @cached_property
    def _symbols(self) -> Symbols | None:
        """The bytes of each token; None if the tokenizer does not say which they are."""
        return token_symbols(self.tokenizer)

    @cached_property
    def _known(self) -> Spelling | None:
        """The spelling automaton of the lexicon; None if the bytes of the tokens are not known."""
        return None if self._symbols is None else make_spelling(self._symbols, self._lexicon)

    @cached_property
    def _valid(self) -> Spelling | None:
        """The spelling automaton of valid UTF-8; None if every token consists of whole characters,
        or if the bytes of the tokens are not known.
        """
        if self._symbols is None or self._are_whole:
            return None
        return make_spelling(self._symbols)
