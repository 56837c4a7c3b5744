"""The bytes of each token of a tokenizer. With them, many texts are decoded at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from jaxtyping import Int32, Int64, UInt16

from reviewgen.compiled.spelling import HALF
from reviewgen.errors import BrokenPlugin
from reviewgen.lexicon.automata import common_length
from reviewgen.protocols.tokenizer import SupportsTokenBytes, Tokenizer

_TOKENS_AT_A_TIME = 1 << 16  # number of tokens that are decoded at a time; sometimes a few more
_TEXT_END = b"\xff"  # a byte that never occurs in UTF-8


@dataclass(frozen=True)
class Symbols:
    """The UTF-8 bytes of all tokens, one token after another. A value of 256 + n is the half n of a
    byte, with n from 0 to 15; two such values make a byte.

    Attributes:
        values: The bytes and half bytes, (S,).
        offsets: The index in ``values`` at which those of each token begin, and at the end S,
            (V + 1,).
    """

    values: UInt16[np.ndarray, " S"]
    offsets: Int64[np.ndarray, " V1"]

    def tokens(self) -> list[tuple[int, ...]]:
        """Return the bytes of each token."""
        values = self.values.tolist()
        return [tuple(values[start:end]) for start, end in pairwise(self.offsets.tolist())]

    def sorted_tokens(self) -> tuple[Int32[np.ndarray, " V"], Int32[np.ndarray, " V"], int]:
        """Return the token ids sorted by their bytes; for each of them, how many of its first bytes
        are also those of the token before it; and the number of bytes of the longest token.
        """
        tokens = self.tokens()
        order = sorted(range(len(tokens)), key=tokens.__getitem__)
        pairs = pairwise(tokens[token_id] for token_id in order)
        common = [0, *(common_length(*pair) for pair in pairs)]
        return np.array(order, np.int32), np.array(common, np.int32), max(map(len, tokens))


def token_symbols(tokenizer: Tokenizer) -> Symbols | None:
    """Return the bytes of each token; None if they are unknown.

    They are unknown if the tokenizer does not have ``token_bytes``, and some of its tokens are a
    part of a character.

    Raises:
        BrokenPlugin: The result of ``token_bytes`` breaks the contract.
    """
    if isinstance(tokenizer, SupportsTokenBytes):
        symbols = tokenizer.token_bytes()
        is_valid = len(symbols) == tokenizer.vocab_size and all(
            0 <= value < HALF + 16 for value in chain.from_iterable(symbols)
        )
        if not is_valid or len(symbols[tokenizer.bos_id]) or len(symbols[tokenizer.eos_id]):
            raise BrokenPlugin(
                f"{type(tokenizer).__name__}.token_bytes must return numbers below 272 for each of"
                f" {tokenizer.vocab_size} tokens, and none for bos and eos."
            )
    else:
        pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        if any("\ufffd" in piece for piece in pieces):
            return None
        symbols = [piece.encode("utf-8", "replace") for piece in pieces]
    offsets = np.cumsum([0, *map(len, symbols)])
    return Symbols(np.fromiter(chain.from_iterable(symbols), np.uint16, int(offsets[-1])), offsets)


def alphabet_of(tokenizer: Tokenizer) -> str:
    """Return a string with one character for each token: the token itself, or NUL for a token that
    is not a single character. Return an empty string if the bytes of the tokens are unknown.

    Raises:
        BrokenPlugin: The result of ``token_bytes`` breaks the contract.
    """
    symbols = token_symbols(tokenizer)
    if symbols is None:
        return ""
    texts = [
        bytes(token).decode(errors="ignore") if token and max(token) < HALF else ""
        for token in symbols.tokens()
    ]
    return "".join(text if len(text) == 1 else "\0" for text in texts)


def decode_texts(blocks: Iterable[np.ndarray], tokenizer: Tokenizer) -> Iterator[str]:
    """Decode texts, and yield them in order. Empty strings may come between them.

    Args:
        blocks: The token ids of the texts, one after another, each between bos and eos. A block
            consists of whole texts.
        tokenizer: The tokenizer that encoded the texts. If it does not have ``token_bytes``, it
            decodes text by text.
    """
    symbols = token_symbols(tokenizer) if isinstance(tokenizer, SupportsTokenBytes) else None
    if symbols is None:
        for block in blocks:
            for ids in np.split(block, np.flatnonzero(block == tokenizer.bos_id)):
                yield tokenizer.decode(ids.tolist())
        return
    unfinished: list[bytes] = []  # the parts of the text whose end has not been read yet
    for ids in _in_parts(blocks, symbols):
        continuation, *new_texts = _decode_bytes(ids, symbols).split(_TEXT_END)
        unfinished.append(continuation)
        for new_text in new_texts:
            yield b"".join(unfinished).decode("utf-8", "replace")
            unfinished = [new_text]
    yield b"".join(unfinished).decode("utf-8", "replace")


def _in_parts(blocks: Iterable[np.ndarray], symbols: Symbols) -> Iterator[np.ndarray]:
    """Split blocks of ids into parts that are small enough for ``_decode_bytes``. No part begins
    with half a byte, so that both halves of a byte are in the same part.
    """
    is_half = [bool(token) and token[0] >= HALF for token in symbols.tokens()]
    for block in blocks:
        start = 0
        while start < len(block):
            end = start + _TOKENS_AT_A_TIME
            while end < len(block) and is_half[block[end]]:
                end += 1
            yield block[start:end]
            start = end


def _decode_bytes(ids: np.ndarray, symbols: Symbols) -> bytes:
    """Return the bytes of one or more token ids. bos and eos, which have no bytes, become
    ``_TEXT_END``.
    """
    # the value added at the end is that of bos and eos
    values = np.append(symbols.values, ord(_TEXT_END)).astype(np.uint16)
    token_lengths = np.diff(symbols.offsets)  # of each token of the vocabulary
    is_frame = token_lengths == 0  # bos and eos
    # for each of ``ids``: where its values start, and how many values it has
    starts = np.where(is_frame, len(symbols.values), symbols.offsets[:-1])[ids]
    lengths = np.where(is_frame, 1, token_lengths)[ids]
    ends = np.cumsum(lengths)  # where the values of each id end in ``decoded``
    # An id has its values at starts, starts + 1, ... of ``values``, and puts them at
    # ends - lengths, ends - lengths + 1, ... of ``decoded``. So the two indexes differ by
    # starts - (ends - lengths).
    decoded = values[np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)]
    # join each pair of halves into a byte; a last half without a partner is dropped
    halves = np.flatnonzero(decoded >= HALF)
    unpaired = halves[len(halves) // 2 * 2 :]
    second = halves[1::2]
    first = halves[::2][: len(second)]
    decoded[first] = 16 * (decoded[first] - HALF) + decoded[second] - HALF
    encoded: bytes = np.delete(decoded, np.append(second, unpaired)).astype(np.uint8).tobytes()
    return encoded
