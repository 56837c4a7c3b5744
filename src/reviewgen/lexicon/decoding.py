"""From the token ids of a corpus back to its texts, many at a time."""

from collections.abc import Iterable, Iterator

import numpy as np

from reviewgen.compiled.spelling import HALF
from reviewgen.lexicon.symbols import Symbols, token_symbols
from reviewgen.protocols import SupportsTokenBytes, Tokenizer

_PART_TOKENS = 1 << 16  # about, at a time
_END = b"\xff"  # occurs in no UTF-8


def decode_texts(blocks: Iterable[np.ndarray], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield encoded texts; between two of them, empty strings may come.

    Args:
        blocks: The token ids of the texts, one after another, each between bos and eos; in blocks of whole texts.
        tokenizer: The tokenizer that encoded them. One that does not say which bytes its tokens are decodes text by text.
    """
    if not isinstance(tokenizer, SupportsTokenBytes) or (symbols := token_symbols(tokenizer)) is None:
        for block in blocks:
            for ids in np.split(block, np.flatnonzero(block == tokenizer.bos_id)):
                yield tokenizer.decode(ids.tolist())
        return
    rest: list[bytes] = []  # of a text that continues in the next part
    for ids in in_parts(blocks, symbols):
        first, *others = decode_bytes(ids, symbols, _END).split(_END)
        rest.append(first)
        for other in others:
            yield b"".join(rest).decode("utf-8", "replace")
            rest = [other]
    yield b"".join(rest).decode("utf-8", "replace")


def in_parts(blocks: Iterable[np.ndarray], symbols: Symbols) -> Iterator[np.ndarray]:
    """Yield blocks of ids in parts small enough for ``decode_bytes``; none begins with half a byte."""
    is_half = (np.append(symbols.values, 0)[symbols.offsets[:-1]] >= HALF) & (np.diff(symbols.offsets) > 0)  # by token
    for block in blocks:
        start = 0
        while start < len(block):
            end = start + _PART_TOKENS
            while end < len(block) and is_half[block[end]]:
                end += 1
            yield block[start:end]
            start = end


def decode_bytes(ids: np.ndarray, symbols: Symbols, end: bytes) -> bytes:
    """Return the bytes of token ids, with the byte ``end`` for each token that has none: bos and eos."""
    lengths = np.diff(symbols.offsets)
    is_frame = lengths == 0
    lengths = np.where(is_frame, 1, lengths)[ids]
    starts = np.where(is_frame, len(symbols.values), symbols.offsets[:-1])[ids]
    values = np.append(symbols.values, ord(end)).astype(np.uint16)
    ends = np.cumsum(lengths)
    decoded = values[np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)]
    halves = np.flatnonzero(decoded >= HALF)
    if len(halves):
        first, second = halves[::2], halves[1::2]
        decoded[first[: len(second)]] = 16 * (decoded[first[: len(second)]] - HALF) + decoded[second] - HALF
        decoded = np.delete(decoded, np.concatenate((second, first[len(second) :])))
    encoded: bytes = decoded.astype(np.uint8).tobytes()
    return encoded
