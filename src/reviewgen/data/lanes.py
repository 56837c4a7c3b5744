"""Batches for truncated back-propagation through time: B parallel lanes of one long stream of texts.

Each epoch puts the texts in a new random order, joins them to one stream and cuts it into B lanes of equal length. Step s
gives tokens s·T to (s + 1)·T of every lane, so a recurrent state carried from step to step reads on where it stopped, and
every batch holds B far-apart places of the corpus: one that is sorted by label is still seen whole from the first step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reviewgen.data.store import TokenStore
from reviewgen.errors import DataError

__all__ = ["IGNORED", "Batch", "Lanes"]

IGNORED = -100  # the target that cross entropy skips: bos and conditions, which no model needs to predict
_BLOCK_TOKENS = 1 << 18  # read from the store at a time, over all lanes


@dataclass(frozen=True)
class Batch:
    """One step's tokens: ``targets[b, t]`` comes after ``ids[b, t]``; ``starts_epoch`` says that the lanes begin anew."""

    ids: np.ndarray  # (B, T) int64
    targets: np.ndarray  # (B, T) int64, IGNORED where the next token is bos or a condition
    epoch: int
    starts_epoch: bool


class Lanes:
    """An endless stream of batches over a token store.

    Args:
        store: The texts.
        bos_id: The id that starts a text.
        vocab_size: The tokenizer's; ids from there on stand for conditions.
        lanes: How many lanes there are, B.
        bptt: Tokens a step and lane, T.
        seed: Of the order of the texts.

    Raises:
        DataError: The store holds fewer than two tokens.
    """

    def __init__(self, store: TokenStore, *, bos_id: int, vocab_size: int, lanes: int, bptt: int, seed: int) -> None:
        if store.tokens < 2:
            raise DataError("There are no texts to train on.")
        self.lanes = max(1, min(lanes, (store.tokens - 1) // 2))
        self.length = (store.tokens - 1) // self.lanes  # targets a lane and epoch
        self.bptt = min(bptt, self.length)
        self.steps_per_epoch = self.length // self.bptt
        self._store, self._bos_id, self._vocab_size, self._seed = store, bos_id, vocab_size, seed

    def __iter__(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self._epoch(epoch)
            epoch += 1

    def _epoch(self, epoch: int) -> Iterator[Batch]:
        stream = _ShuffledStream(self._store, np.random.default_rng((self._seed, epoch)))
        steps_a_block = max(1, _BLOCK_TOKENS // (self.lanes * self.bptt))
        for first in range(0, self.steps_per_epoch, steps_a_block):
            steps = min(steps_a_block, self.steps_per_epoch - first)
            ids, targets = self._block(stream, first, steps)
            for step in range(steps):
                cut = slice(step * self.bptt, (step + 1) * self.bptt)
                yield Batch(ids[:, cut], targets[:, cut], epoch, first + step == 0)

    def _block(self, stream: "_ShuffledStream", first: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and targets of several steps of all lanes, (B, steps·T) each."""
        size = steps * self.bptt
        block = np.empty((self.lanes, size + 1), np.int64)
        for lane, row in enumerate(block):
            stream.read(lane * self.length + first * self.bptt, row)
        self._store.forget()
        following = block[:, 1:]
        targets = np.where((following == self._bos_id) | (following >= self._vocab_size), IGNORED, following)
        return block[:, :-1], targets


class _ShuffledStream:
    """The store's texts in a random order, read as if they were one array."""

    def __init__(self, store: TokenStore, random: np.random.Generator) -> None:
        self._store = store
        self._order = random.permutation(len(store))
        self._ends = np.cumsum(store.lengths[self._order])  # (texts,) where each text ends in the stream

    def read(self, start: int, out: np.ndarray) -> None:
        """Fill ``out`` with the stream's tokens from ``start`` on."""
        place = int(np.searchsorted(self._ends, start, side="right"))
        done = 0
        while done < len(out):
            document = self._store.document(int(self._order[place]))
            skip = len(document) - int(self._ends[place] - (start + done))
            piece = document[skip : skip + len(out) - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
            place += 1
