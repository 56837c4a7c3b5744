"""The copy rate in characters: the share of the characters of texts that lie in copied spans. It
needs no tokenizer.

A copied span is at least ``length`` characters of a text that also occur in one training text. It
is found in three steps:

1. All windows of ``length`` characters of the texts are hashed. So are all *anchors*: windows of
   half that length.
2. The training text is read once, block by block. Its anchors are looked up only at every n-th
   character, where n is so small that each window contains one of these anchors.
3. If an anchor may occur in the texts, all windows around it are looked up.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int64, UInt32, UInt64

from reviewgen.compiled.windows import MULTIPLIER, WindowSet, empty_set, insert
from reviewgen.novelty.matching import find_windows

COPY_CHARACTERS = 50
"""The minimum length of a copied span in characters. People, too, repeat shorter ones, such as set
phrases.
"""

_BLOCK = 1 << 16  # characters of the training text that are searched at a time
_FILTER_BITS = 8.0  # bits per window of a set of windows


def count_copied(
    texts: Sequence[str], training: Iterable[str], length: int = COPY_CHARACTERS
) -> list[int]:
    """Return how many characters of each text lie in copied spans.

    The result is exact, unless two 64-bit hashes collide. A text shorter than ``length`` has no
    copied span.

    Args:
        texts: The texts.
        training: The training texts; iterated over once.
        length: The minimum length of a copied span, in characters.

    >>> count_copied(["so good, so bad", ""], ["it was so good", "so very bad"], length=6)
    [7, 0]
    """
    all_spans = TextWindows(texts, length).spans(training)
    return [sum(end - start for start, end in spans) for spans in all_spans]


class TextWindows:
    """The hashed windows of some texts, which can be searched for in several training texts.

    Args:
        texts: The texts.
        length: The length of a window in characters, the minimum length of a copied span.
    """

    def __init__(self, texts: Sequence[str], length: int = COPY_CHARACTERS) -> None:
        codes, ends = _join(texts)
        self._length = length
        self._anchor = (length + 1) // 2
        self._bounds = [0, *ends.tolist()]
        # where all windows start, and of these the ones that lie within one text
        starts = np.arange(max(0, len(codes) - length + 1))
        ends_of_texts = ends[np.searchsorted(ends, starts, "right")]
        self._starts = np.flatnonzero(starts + length <= ends_of_texts)
        # the distinct hashes, and for each window the index of its hash
        hashes = _hash_windows(codes, length)[self._starts]
        self._hashes, self._hash_indexes = np.unique(hashes, return_inverse=True)
        # sets of the anchors and of the windows
        self._filters = _set_of(_hash_windows(codes, self._anchor)), _set_of(self._hashes)

    def are_shared(self, training: Iterable[str]) -> Bool[np.ndarray, " T"]:
        """Return for each text whether it has a copied span.

        Args:
            training: The training texts; iterated over once.
        """
        return np.array([bool(spans) for spans in self.spans(training)], np.bool_)

    def spans(self, training: Iterable[str]) -> list[list[tuple[int, int]]]:
        """Return where the copied spans of each text start and end. Spans that overlap or touch are
        merged.

        >>> TextWindows(["so good, so bad"], length=6).spans(["it was so good", "so very bad"])
        [[(0, 7)]]
        """
        is_window_found = self._are_in_training(training)[self._hash_indexes]
        starts = self._starts[is_window_found]
        # +1 where a copied window starts, -1 where one ends; the cumulative sum is above 0 in spans
        steps = np.zeros(self._bounds[-1] + 1, np.int64)
        steps[starts] += 1
        steps[starts + self._length] -= 1
        is_copied = (steps.cumsum() > 0).astype(np.int8)
        spans = []
        for start, end in pairwise(self._bounds):
            # spans start and end where the value changes
            changes = np.flatnonzero(np.diff(is_copied[start:end], prepend=0, append=0)).tolist()
            spans.append(list(zip(changes[::2], changes[1::2], strict=True)))
        return spans

    def _are_in_training(self, training: Iterable[str]) -> Bool[np.ndarray, " H"]:
        """Return for each hash whether it is the hash of a window of the training text."""
        is_found = np.zeros(len(self._hashes), np.bool_)
        if not len(is_found):
            return is_found
        anchors, windows = self._filters
        for texts in _batches(training, self._length):
            find_windows(
                *_join(texts), self._length, self._anchor, anchors, self._hashes, windows, is_found
            )
        return is_found


def _batches(texts: Iterable[str], length: int) -> Iterator[list[str]]:
    """Yield texts in batches of about ``_BLOCK`` characters.

    A longer text is cut into pieces that overlap, so that each window lies in one of them. A text
    shorter than a window is left out.
    """
    batch = []
    characters = 0
    for text in texts:
        for start in range(0, len(text) - length + 1, _BLOCK):
            piece = text[start : start + _BLOCK + length - 1]
            batch.append(piece)
            characters += len(piece)
            if characters >= _BLOCK:
                yield batch
                batch = []
                characters = 0
    yield batch


def _join(texts: Sequence[str]) -> tuple[UInt32[np.ndarray, " N"], Int64[np.ndarray, " _"]]:
    """Return the code points of all texts in one array, and the index where each text ends."""
    encoded = "".join(texts).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(encoded, "<u4").astype(np.uint32, copy=False)
    return codes, np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))


def _hash_windows(codes: UInt32[np.ndarray, " N"], length: int) -> UInt64[np.ndarray, " W"]:
    """Return the hashes of all windows of a sequence, even of windows that span several texts."""
    hashes = np.zeros(max(0, len(codes) - length + 1), np.uint64)
    for offset in range(length):  # adds the next character to all windows at once
        hashes = hashes * MULTIPLIER + codes[offset : offset + len(hashes)]
    return hashes


def _set_of(hashes: UInt64[np.ndarray, " H"]) -> WindowSet:
    """Return a Bloom filter of the windows with these hashes. It has a few false positives."""
    windows = empty_set(len(hashes), 1, _FILTER_BITS)
    insert(windows, hashes)
    return windows
