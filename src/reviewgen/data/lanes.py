"""Batches for truncated back-propagation through time: B parallel lanes of one long stream of texts.

Each epoch puts the texts in a new random order, joins them to one stream and cuts it into B lanes of equal length. Step s
gives tokens s·T to (s + 1)·T of every lane, so a recurrent state carried from step to step reads on where it stopped, and
every batch holds B far-apart places of the corpus: one that is sorted by label is still seen whole from the first step.

Of P processes that train one model each takes its own B of P·B lanes, so together they read the corpus once an epoch.
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
    """One step's tokens: ``targets[b, t]`` comes after ``ids[b, t]``."""

    ids: np.ndarray  # (B, T) int64
    targets: np.ndarray  # (B, T) int64, IGNORED where the next token is bos or a condition
    epoch: int  # from 0
    number: int  # in its epoch, from 0

    @property
    def starts_epoch(self) -> bool:
        """Whether the lanes begin anew."""
        return self.number == 0


class Lanes:
    """An endless stream of batches over a token store.

    Args:
        store: The texts.
        bos_id: The id that starts a text.
        vocab_size: The tokenizer's; ids from there on stand for conditions.
        lanes: How many lanes there are, B; fewer where the texts are short.
        bptt: Tokens a step and lane, T.
        seed: Of the order of the texts.
        rank: Which of the processes this one is, from 0.
        world_size: How many processes there are, each with B lanes.

    Raises:
        DataError: The store holds fewer than two tokens, or fewer than the processes can share.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        bos_id: int,
        vocab_size: int,
        lanes: int,
        bptt: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if store.tokens < 2:
            raise DataError("There are no texts to train on.")
        targets = store.tokens - 1
        if targets < world_size:
            raise DataError(f"{world_size} processes cannot share {targets} tokens to train on; use fewer of them.")
        self.lanes = max(1, min(lanes, targets // 2 // world_size))
        self.length = targets // (self.lanes * world_size)  # targets a lane and epoch
        self._first = rank * self.lanes  # of all lanes
        self.bptt = min(bptt, self.length)
        self.steps_per_epoch = self.length // self.bptt
        self._store, self._bos_id, self._vocab_size, self._seed = store, bos_id, vocab_size, seed

    def __iter__(self) -> Iterator[Batch]:
        return self.start_at(0, 0)

    def start_at(self, epoch: int, number: int) -> Iterator[Batch]:
        """Yield the batches from one on, given by its epoch and its number there; none before it is read."""
        while True:
            yield from self._epoch(epoch, number)
            epoch, number = epoch + 1, 0

    def _epoch(self, epoch: int, number: int) -> Iterator[Batch]:
        stream = _ShuffledStream(self._store, np.random.default_rng((self._seed, epoch)))
        steps_a_block = max(1, _BLOCK_TOKENS // (self.lanes * self.bptt))
        for first in range(number, self.steps_per_epoch, steps_a_block):
            steps = min(steps_a_block, self.steps_per_epoch - first)
            ids, targets = self._block(stream, first, steps)
            for step in range(steps):
                cut = slice(step * self.bptt, (step + 1) * self.bptt)
                yield Batch(ids[:, cut], targets[:, cut], epoch, first + step)

    def _block(self, stream: "_ShuffledStream", first: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and targets of several steps of all lanes, (B, steps·T) each."""
        size = steps * self.bptt
        block = np.empty((self.lanes, size + 1), np.int64)
        for lane, row in enumerate(block, self._first):
            stream.read(lane * self.length + first * self.bptt, row)
        self._store.release_pages()
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
