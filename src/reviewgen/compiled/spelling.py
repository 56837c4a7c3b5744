"""Whether a token may follow a text: it must keep the text valid UTF-8, made of known words and
known characters only.

An automaton over bytes. Each text has a *place* in it, three numbers:

    word        the node of the word that the text ends in, or of the beginning of one
    separator   the node inside a character between words, if the text ends with only the first
                bytes of one; otherwise 0
    half        the higher half of a byte, if the text ends with only that half; otherwise -1

Words and separators are followed side by side, since the first byte of a character does not say yet
which of the two it is. In an unknown word, which a prompt may contain, the word node is one that
any valid UTF-8 can follow, up to the next separator.

V vocabulary, N nodes and their edges, S bytes of all tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt16, UInt32

from reviewgen.compiled.jit import compiled, inner

HALF = 256  # symbols from here on are halves of a byte
ANY_WORD = -1  # the word node of a text that any token may follow


class Spelling(NamedTuple):
    """An automaton, and the bytes of each token. Compiled functions take it as it is.

    Node 0 is where no text can be. ``nodes[n]`` of node n is twice the number of bytes that may
    follow, plus one if a word or separator may end there; behind it, for each of these bytes, is
    256 times the node that it leads to, plus the byte.
    """

    nodes: UInt32[np.ndarray, " N"]
    anything: int  # the node from which any valid UTF-8 follows
    # the nodes below are those of any valid UTF-8, the others those of words and separators
    known: int
    words: int  # the beginning of a word
    separators: int  # the beginning of a separator; 0 if no word is unknown
    # the node after each byte from ``anything``, ``words`` and ``separators``, which have many
    first: Int32[np.ndarray, "3 256"]
    # the bytes of the tokens, one after another; HALF + n is n, half a byte
    symbols: UInt16[np.ndarray, " S"]
    # where the bytes of each token begin, and where the last ones end
    offsets: Int64[np.ndarray, " V+1"]
    order: Int32[np.ndarray, " V"]  # the tokens, sorted by their bytes
    # how many bytes each of these has in common with the one before
    common: Int32[np.ndarray, " V"]
    longest: int  # bytes of the longest token


def start_of_text(spelling: Spelling) -> Int64[np.ndarray, "3"]:
    """Return the place of an empty text."""
    return np.array([spelling.words, 0, -1], np.int64)


def no_places(count: int) -> Int64[np.ndarray, "B 3"]:
    """Return places of texts that any token may follow."""
    return np.full((count, 3), ANY_WORD, np.int64)


def follow_all(spelling: Spelling, place: Int64[np.ndarray, "3"], tokens: Sequence[int]) -> None:
    """Move a place behind the tokens of a text, known or not; in Python, since compiling takes
    longer than following a prompt.
    """
    for token in tokens:
        after = _follow(spelling, place, token)
        if after[0] == 0 and after[1] == 0:
            after = _follow_unknown(spelling, place, token)
        place[:] = after


@inner
def follows(spelling, place, token, eos):
    """Return whether a token may follow, and the place after it."""
    if place[0] == ANY_WORD:
        return True, (place[0], place[1], place[2])
    if token == eos:
        return _is_end(spelling, place[0]) and place[2] < 0, (place[0], place[1], place[2])
    after = _follow(spelling, place, token)
    return after[0] != 0 or after[1] != 0, after


def mark_spelled(
    spelling: Spelling, place: Int64[np.ndarray, "3"], eos: int
) -> Bool[np.ndarray, " V"]:
    """Return whether each token may follow."""
    scores = np.zeros(len(spelling.offsets) - 1)
    rule_out_misspelled(spelling, place, eos, scores, -np.inf)
    is_spelled: np.ndarray = scores == 0
    return is_spelled


@compiled
def rule_out_misspelled(spelling, place, eos, scores, lowest):
    """Set the score, (V,), of every token that may not follow to the lowest one.

    The tokens are taken in the order of their bytes, so that each beginning that several have in
    common is followed once.
    """
    if place[0] == ANY_WORD:
        return
    stack = np.empty((spelling.longest + 1, 3), np.int64)  # the place after each byte of the token
    stack[0, 0] = place[0]
    stack[0, 1] = place[1]
    stack[0, 2] = place[2]
    depth = np.int64(0)  # how many bytes of the last token that was followed may follow
    for number in range(len(spelling.order)):
        token = np.int64(spelling.order[number])
        start = spelling.offsets[token]
        length = spelling.offsets[token + 1] - spelling.offsets[token]
        if spelling.common[number] <= depth:
            depth = np.int64(spelling.common[number])
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
        if depth < length:
            scores[token] = lowest
    if not _is_end(spelling, place[0]) or place[2] >= 0:
        scores[eos] = lowest


@inner
def _follow(spelling, place, token):
    """Return the place after a token; its word and separator are 0 if the token may not follow."""
    word = place[0]
    separator = place[1]
    half = place[2]
    for position in range(spelling.offsets[token], spelling.offsets[token + 1]):
        word, separator, half = _follow_symbol(
            spelling, word, separator, half, np.int64(spelling.symbols[position])
        )
        if word == 0 and separator == 0:
            break
    return word, separator, half


@inner
def _follow_symbol(spelling, word, separator, half, symbol):
    """Return the place after a byte or half a byte."""
    if symbol < HALF:
        if half >= 0:
            return np.int64(0), np.int64(0), np.int64(-1)
        word, separator = _follow_byte(spelling, word, separator, symbol)
        return word, separator, half
    if half >= 0:
        word, separator = _follow_byte(spelling, word, separator, symbol + 16 * half - HALF)
        return word, separator, np.int64(-1)
    if not _has_byte(spelling, word, separator, symbol - HALF):
        return np.int64(0), np.int64(0), np.int64(-1)
    return word, separator, symbol - HALF


@inner
def _follow_unknown(spelling, place, token):
    """Return the place after a token as ``_follow`` does, where a word that is not known may be
    anything.
    """
    word = place[0]
    separator = place[1]
    half = place[2]
    for position in range(spelling.offsets[token], spelling.offsets[token + 1]):
        symbol = np.int64(spelling.symbols[position])
        if symbol >= HALF and half < 0:
            half = symbol - HALF
            continue
        if symbol >= HALF:
            symbol += 16 * half - HALF
        half = np.int64(-1)
        before = word
        word, separator = _follow_byte(spelling, word, separator, symbol)
        if word == 0 and separator == 0:
            word = _child(
                spelling, before if before < spelling.known else np.int64(spelling.anything), symbol
            )
            word = word if word != 0 else np.int64(spelling.anything)
    return word, separator, half


@inner
def _follow_byte(spelling, word, separator, byte):
    """Return the nodes after a byte; a separator that is complete begins a new word."""
    next_word = _child(spelling, word, byte)
    next_separator = np.int64(0)
    if separator != 0:
        next_separator = _child(spelling, separator, byte)
    elif _is_end(spelling, word):
        next_separator = np.int64(spelling.first[2, byte])
    if next_separator != 0 and _is_end(spelling, next_separator):
        next_separator = np.int64(0)
        if next_word < spelling.known:  # none, or any text
            next_word = np.int64(spelling.words)
    return next_word, next_separator


@inner
def _child(spelling, node, byte):
    """Return the node after a byte; 0 if the byte may not follow."""
    if node == spelling.words:
        return np.int64(spelling.first[1, byte])
    if node == spelling.anything:
        return np.int64(spelling.first[0, byte])
    for edge in range(node + 1, node + 1 + (np.int64(spelling.nodes[node]) >> 1)):
        word = np.int64(spelling.nodes[edge])
        if word & 255 == byte:
            return word >> 8
    return np.int64(0)


@inner
def _is_end(spelling, node):
    """Return whether a word or separator may end at a node."""
    return spelling.nodes[node] & 1 != 0


@inner
def _has_byte(spelling, word, separator, half):
    """Return whether a byte with this first half may follow."""
    for byte in range(16 * half, 16 * half + 16):
        next_word, next_separator = _follow_byte(spelling, word, separator, np.int64(byte))
        if next_word != 0 or next_separator != 0:
            return True
    return False
