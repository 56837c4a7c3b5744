"""Decides which tokens may follow a text, so that it is valid UTF-8 and has known words only.

The known words, and the characters that may separate them, form one automaton over bytes. The state
of the automaton after a text is called the *place* of the text. It consists of five numbers:

    word        the node reached by the bytes of the text's last word so far; if no word has begun
                yet, the node where words begin
    separator   the node reached by the first bytes of a separator, if the text ends inside one;
                otherwise 0
    half        the higher four bits of a byte, if the text ends after half a byte; otherwise -1
    rule        the state of a second automaton, that of a format, which the text must fit, too; -1
                if there is none
    left        the number of tokens in which the text must fit the format

The first bytes of a character may be those of a letter or of a separator, so both nodes are
followed at the same time. A prompt may contain an unknown word. Inside such a word, ``word`` is a
node that accepts any valid UTF-8, until the next separator.

Shapes: V ids of the vocabulary, N nodes and their edges, S symbols of all tokens (bytes and halves
of bytes), R states of the automaton of a format.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt16, UInt32

from reviewgen.compiled.jit import compiled, inner

HALF = 256  # a symbol below is a byte; HALF + n is half a byte, the four bits n
ANY_WORD = -1  # ``word`` in the place of a text that any token may follow
WORD, SEPARATOR, HALF_BYTE, RULE, LEFT = range(5)  # where a place has each of its five numbers


class Spelling(NamedTuple):
    """The automaton, and the bytes of each token; compiled functions accept it.

    Node 0 means that a text is not allowed. Node n is stored in ``nodes`` from index n on: a
    number, and then the edges of the node. The number is twice the count of edges, plus one if a
    word or a separator may end at the node. An edge is 256 times the node that it leads to, plus
    its byte.
    """

    nodes: UInt32[np.ndarray, " N"]
    anything: int  # the root of the nodes that accept any valid UTF-8
    # nodes below this number accept any valid UTF-8; the others spell known words and separators
    known: int
    words: int  # the root of the known words
    separators: int  # the root of the separators; 0 if any valid UTF-8 is allowed
    # the three roots have many edges, so each has a table, in the order anything, words and
    # separators: the node after each byte, 0 if the byte is not allowed
    first: Int32[np.ndarray, "3 256"]
    # the symbols of all tokens, one token after another: bytes, or HALF + n for half a byte
    symbols: UInt16[np.ndarray, " S"]
    # where the symbols of each token begin, and where those of the last token end
    offsets: Int64[np.ndarray, " V+1"]
    order: Int32[np.ndarray, " V"]  # the token ids, sorted by their symbols
    # number of first symbols that each token of ``order`` shares with the token before it
    common: Int32[np.ndarray, " V"]
    longest: int  # number of symbols of the longest token
    # the automaton of a format: the state after each token in each state, 0 if it may not follow
    rules: Int32[np.ndarray, "R V"]
    # the min number of tokens from each of these states to one in which a text may end
    needed: Int64[np.ndarray, " R"]


def start_of_text(spelling: Spelling) -> Int64[np.ndarray, "5"]:
    """Return the place of an empty text: the beginning of a word."""
    return np.array([spelling.words, 0, -1, -1, 0], np.int64)


def no_places(count: int) -> Int64[np.ndarray, "B 5"]:
    """Return places for ``count`` texts that are not checked: any token may follow each of them."""
    return np.full((count, 5), ANY_WORD, np.int64)


def follow_all(spelling: Spelling, place: Int64[np.ndarray, "5"], tokens: Sequence[int]) -> None:
    """Update a place with the tokens of a prompt, whose words may be unknown.

    The loop is not compiled: compiling takes longer than following a prompt in Python.
    """
    for token in tokens:
        after = _follow(spelling, place, token)
        if after[WORD] == 0 and after[SEPARATOR] == 0:
            after = _follow_unknown(spelling, place, token)
        place[:] = after


@inner
def follows(spelling, place, token, eos):
    """Return whether a token may follow the text at ``place``, and the place after the token.

    The end token may follow a complete word; the place then stays as it is.
    """
    unchanged = place[0], place[1], place[2], place[3], place[4]
    if place[WORD] == ANY_WORD:
        return True, unchanged
    if token == eos:
        return _may_end(spelling, place, eos), unchanged
    after = _follow(spelling, place, token)
    return after[WORD] != 0 or after[SEPARATOR] != 0, after


def mark_spelled(
    spelling: Spelling, place: Int64[np.ndarray, "5"], eos: int
) -> Bool[np.ndarray, " V"]:
    """Return for each token of the vocabulary whether it may follow the text at ``place``."""
    scores = np.zeros(len(spelling.offsets) - 1)
    rule_out_misspelled(spelling, place, eos, scores, -np.inf)
    is_spelled: np.ndarray = scores == 0
    return is_spelled


@compiled
def rule_out_misspelled(spelling, place, eos, scores, lowest):
    """Set the score of every token that may not follow the text at ``place`` to ``lowest``.

    ``scores`` (V,) is updated. The tokens are visited in the order of their bytes, so that a prefix
    that several tokens share is followed only once.
    """
    if place[WORD] == ANY_WORD:
        return
    # word, separator and half in the place before a token, and after each of its symbols
    stack = np.empty((spelling.longest + 1, 3), np.int64)
    stack[0, :] = place[:3]
    # of the token visited last, the number of symbols before the first one that is not allowed
    depth = np.int64(0)
    for rank in range(len(spelling.order)):
        token = np.int64(spelling.order[rank])
        start = spelling.offsets[token]
        length = spelling.offsets[token + 1] - start
        # if a token has more than ``depth`` first symbols in common with the token before, it fails
        # at the same symbol, and need not be followed
        if spelling.common[rank] <= depth:
            depth = np.int64(spelling.common[rank])
            while depth < length:
                word = stack[depth, 0]
                separator = stack[depth, 1]
                half = stack[depth, 2]
                symbol = np.int64(spelling.symbols[start + depth])
                word, separator, half = _follow_symbol(spelling, word, separator, half, symbol)
                if word == 0 and separator == 0:
                    break
                depth += 1
                stack[depth, 0] = word
                stack[depth, 1] = separator
                stack[depth, 2] = half
        if depth < length or _follow_rule(spelling, place, token) == 0:
            scores[token] = lowest
    if not _may_end(spelling, place, eos):
        scores[eos] = lowest


@inner
def _follow(spelling, place, token):
    """Return the place after a token. If the token may not follow, word and separator are 0."""
    word = place[WORD]
    separator = place[SEPARATOR]
    half = place[HALF_BYTE]
    left = np.int64(place[LEFT]) - 1
    rule = _follow_rule(spelling, place, token)
    if rule == 0:
        return np.int64(0), np.int64(0), half, rule, left
    for position in range(spelling.offsets[token], spelling.offsets[token + 1]):
        word, separator, half = _follow_symbol(
            spelling, word, separator, half, np.int64(spelling.symbols[position])
        )
        if word == 0 and separator == 0:
            break
    return word, separator, half, rule, left


@inner
def _follow_rule(spelling, place, token):
    """Return the state of the format after a token: 0 if the token may not follow, or if the text
    could then not fit the format in the tokens that are left; -1 without a format.
    """
    if place[RULE] < 0:
        return np.int64(place[RULE])
    after = np.int64(spelling.rules[place[RULE], token])
    return after if spelling.needed[after] < place[LEFT] else np.int64(0)


@inner
def _may_end(spelling, place, eos):
    """Return whether the text at a place may end there."""
    is_whole = _is_end(spelling, place[WORD]) and place[HALF_BYTE] < 0
    return is_whole and _follow_rule(spelling, place, eos) != 0


@inner
def _follow_symbol(spelling, word, separator, half, symbol):
    """Return word, separator and half after a symbol, which is a byte or half a byte; 0, 0, -1 if
    it may not follow.
    """
    if symbol < HALF:
        if half >= 0:
            return np.int64(0), np.int64(0), np.int64(-1)
        word, separator = _follow_byte(spelling, word, separator, symbol)
        return word, separator, half
    if half >= 0:  # the symbol is the second half of a byte
        word, separator = _follow_byte(spelling, word, separator, symbol + 16 * half - HALF)
        return word, separator, np.int64(-1)
    if not _has_byte(spelling, word, separator, symbol - HALF):
        return np.int64(0), np.int64(0), np.int64(-1)
    return word, separator, symbol - HALF


@inner
def _follow_unknown(spelling, place, token):
    """Return the place after a token, like ``_follow``, but let unknown words be any valid
    UTF-8.
    """
    word = place[WORD]
    separator = place[SEPARATOR]
    half = place[HALF_BYTE]
    for position in range(spelling.offsets[token], spelling.offsets[token + 1]):
        symbol = np.int64(spelling.symbols[position])
        if symbol >= HALF and half < 0:  # the first half of a byte
            half = symbol - HALF
            continue
        if symbol >= HALF:
            symbol += 16 * half - HALF
        half = np.int64(-1)
        before = word
        word, separator = _follow_byte(spelling, word, separator, symbol)
        if word == 0 and separator == 0:  # the word is unknown from here on
            # Follow any valid UTF-8. If the word was unknown before, it may be inside a character,
            # so it goes on from its node.
            start = before if before < spelling.known else np.int64(spelling.anything)
            word = _child(spelling, start, symbol)
            if word == 0:
                word = np.int64(spelling.anything)
    return word, separator, half, place[RULE], place[LEFT]


@inner
def _follow_byte(spelling, word, separator, byte):
    """Return the word node and the separator node after a byte.

    After a complete separator, the word node is the one where words begin.
    """
    next_word = _child(spelling, word, byte)
    next_separator = np.int64(0)
    if separator != 0:
        next_separator = _child(spelling, separator, byte)
    elif _is_end(spelling, word):
        next_separator = np.int64(spelling.first[2, byte])  # from the root of the separators
    if next_separator != 0 and _is_end(spelling, next_separator):
        next_separator = np.int64(0)
        if next_word < spelling.known:  # no word goes on, or it accepts any valid UTF-8
            next_word = np.int64(spelling.words)
    return next_word, next_separator


@inner
def _child(spelling, node, byte):
    """Return the node that a byte leads to from a node; 0 if the byte may not follow."""
    # the roots have tables, see ``Spelling.first``
    if node == spelling.words:
        return np.int64(spelling.first[1, byte])
    if node == spelling.anything:
        return np.int64(spelling.first[0, byte])
    for edge in range(node + 1, node + 1 + (np.int64(spelling.nodes[node]) >> 1)):
        packed = np.int64(spelling.nodes[edge])  # 256 * node + byte
        if packed & 255 == byte:
            return packed >> 8
    return np.int64(0)


@inner
def _is_end(spelling, node):
    """Return whether a word or separator may end at a node."""
    return spelling.nodes[node] & 1 != 0


@inner
def _has_byte(spelling, word, separator, half):
    """Return whether a byte may follow whose higher four bits are ``half``."""
    for byte in range(16 * half, 16 * half + 16):
        next_word, next_separator = _follow_byte(spelling, word, separator, np.int64(byte))
        if next_word != 0 or next_separator != 0:
            return True
    return False
