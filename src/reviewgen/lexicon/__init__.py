"""The lexicon: the words of the training text, so that generated texts contain no others.

    words       which words and characters a training text has
    symbols     the bytes of each token of a tokenizer
    decoding    from the token ids of a corpus back to its texts
    automaton   sets of strings as automata over bytes
    lexicon     Lexicon: the known words and separators of a model
    files       a lexicon on disk
    spelling    a lexicon and a tokenizer as compiled code takes them

Must not know models. No torch.
"""

from reviewgen.lexicon.automaton import Automaton, minimal_automaton, utf8_automaton
from reviewgen.lexicon.decoding import decode_texts
from reviewgen.lexicon.files import read_lexicon, write_lexicon
from reviewgen.lexicon.lexicon import Lexicon, build_lexicon
from reviewgen.lexicon.spelling import make_spelling
from reviewgen.lexicon.symbols import Symbols, token_symbols
from reviewgen.lexicon.words import WordCounts, count_runs, words_of

__all__ = [
    "Automaton",
    "Lexicon",
    "Symbols",
    "WordCounts",
    "build_lexicon",
    "count_runs",
    "decode_texts",
    "make_spelling",
    "minimal_automaton",
    "read_lexicon",
    "token_symbols",
    "utf8_automaton",
    "words_of",
    "write_lexicon",
]
