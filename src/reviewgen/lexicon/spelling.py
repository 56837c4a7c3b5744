"""A lexicon and a tokenizer as compiled code takes them."""

import numpy as np

from reviewgen.compiled.spelling import Spelling
from reviewgen.lexicon.automaton import Automaton, join, utf8_automaton
from reviewgen.lexicon.lexicon import Lexicon
from reviewgen.lexicon.symbols import Symbols


def make_spelling(symbols: Symbols, lexicon: Lexicon | None = None) -> Spelling:
    """Return the automaton that lets a token only continue or end a known word; without a lexicon, any valid UTF-8."""
    valid = utf8_automaton()
    nodes, roots = join([valid] if lexicon is None else [valid, lexicon.words, lexicon.separators])
    anything, words, separators = (roots[0], roots[0], 0) if lexicon is None else roots
    first = np.zeros((3, 256), np.int32)
    for row, root in zip(first, (anything, words, separators), strict=True):
        for byte, target in Automaton(nodes, root).edges(root):
            row[byte] = target
    pieces = (symbols.values, symbols.offsets, *symbols.sorted_tokens())
    return Spelling(nodes, anything, len(valid.nodes), words, separators, first, *pieces)
