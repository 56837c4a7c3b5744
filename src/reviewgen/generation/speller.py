"""The words that the texts of a model are made of, as compiled code takes them: made when first needed."""

from functools import cached_property
from itertools import pairwise

from reviewgen.compiled.spelling import HALF, Spelling
from reviewgen.errors import DataError
from reviewgen.lexicon import Lexicon, Symbols, make_spelling, token_symbols
from reviewgen.protocols import Tokenizer


class Speller:
    """The spelling of a tokenizer's texts.

    Args:
        tokenizer: The tokenizer.
        lexicon: The known words; None if the model has none.
    """

    def __init__(self, tokenizer: Tokenizer, lexicon: Lexicon | None = None) -> None:
        self._tokenizer, self._lexicon = tokenizer, lexicon

    def spelling(self, words: str) -> Spelling | None:
        """Return the spelling for a setting of ``words``; None if no sequence of tokens can be misspelled.

        Raises:
            DataError: With ``words="known"``, if there is no lexicon or the bytes of the tokens are not known.
        """
        if words == "any":
            return self._valid
        if self._lexicon is None:
            raise DataError(
                "This model has no lexicon, which words=known needs: lexicon.safetensors is missing, few words of its training "
                "text occur twice, as in a language without spaces, or it was trained by an earlier version. Set words=any."
            )
        if self._known is None:
            raise DataError(
                "words=known needs a tokenizer that says which bytes its tokens are (reviewgen.protocols.SupportsTokenBytes). "
                "Set words=any."
            )
        return self._known

    @cached_property
    def _symbols(self) -> Symbols | None:
        return token_symbols(self._tokenizer)

    @cached_property
    def _known(self) -> Spelling | None:
        return None if self._symbols is None else make_spelling(self._symbols, self._lexicon)

    @cached_property
    def _valid(self) -> Spelling | None:
        """The spelling of valid UTF-8; None if every token is whole characters, or if that is not known."""
        if self._symbols is None or _are_whole(self._symbols):
            return None
        return make_spelling(self._symbols)


def _are_whole(symbols: Symbols) -> bool:
    """Return whether every token is whole characters."""
    if (symbols.values >= HALF).any():
        return False
    values, offsets = symbols.values.astype("uint8").tobytes(), symbols.offsets.tolist()
    try:
        for start, end in pairwise(offsets):
            values[start:end].decode()
    except UnicodeDecodeError:
        return False
    return True
