"""Training batches for truncated back-propagation through time: B parallel lanes of one long stream of texts.

Each epoch shuffles the texts, joins them to one stream and cuts it into B lanes of equal length. Step s yields tokens s·T to
(s + 1)·T of every lane, so a recurrent state carried from step to step continues where the last step ended. The B lanes start
far apart in the stream, so even if the corpus is sorted by label, the first batch has texts of all labels.

Each of P processes that train one model takes its own B of P·B lanes, so together they see the corpus once per epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reviewgen.data.store import TokenStore
from reviewgen.errors import DataError

__all__ = ["IGNORED", "Batch", "Lanes"]

IGNORED = -100  # the target that cross entropy ignores: bos and conditions are given, not predicted
_BLOCK_TOKENS = 1 << 18  # copied from the store at a time, over all lanes


@dataclass(frozen=True)
class Batch:
    """The tokens of one batch; ``targets[b, t]`` is the token after ``ids[b, t]``.

    Attributes:
        ids: The input ids, (B, T) int64.
        targets: The next ids, (B, T) int64; ``IGNORED`` where the next token is bos or a condition.
        epoch: The number of the epoch, from 0.
        number: The number of the batch within its epoch, from 0.
    """

    ids: np.ndarray
    targets: np.ndarray
    epoch: int
    number: int

    @property
    def starts_epoch(self) -> bool:
        """Whether this is the first batch of an epoch, so that recurrent states start afresh."""
        return self.number == 0


class Lanes:
    """An endless stream of training batches over a token store.

    Args:
        store: The texts.
        bos_id: The id that starts a text.
        vocab_size: The tokenizer's; ids from there on are conditions.
        lanes: The number of lanes, B; reduced if the store has too few tokens.
        bptt: The number of tokens per batch and lane, T; reduced if the lanes are shorter.
        seed: The seed of the shuffling.
        rank: The rank of this process, from 0.
        world_size: The number of processes, each with B lanes.

    Attributes:
        lanes: The number of lanes of this process, B.
        length: The number of targets per lane and epoch.
        bptt: The number of tokens per batch and lane, T.
        batches_per_epoch: The number of batches per epoch.

    Raises:
        DataError: The store holds fewer than two tokens, or too few for the number of processes.
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
            raise DataError(f"{world_size} processes cannot share {targets} tokens to train on; use fewer processes.")
        self.lanes = max(1, min(lanes, targets // 2 // world_size))
        self.length = targets // (self.lanes * world_size)
        self._first_lane = rank * self.lanes  # among the lanes of all processes
        self.bptt = min(bptt, self.length)
        self.batches_per_epoch = self.length // self.bptt
        self._store, self._bos_id, self._vocab_size, self._seed = store, bos_id, vocab_size, seed

    def __iter__(self) -> Iterator[Batch]:
        return self.start_at(0, 0)

    def start_at(self, epoch: int, number: int) -> Iterator[Batch]:
        """Yield the batches from a given one on, without reading those before it."""
        while True:
            yield from self._batches(epoch, number)
            epoch, number = epoch + 1, 0

    def _batches(self, epoch: int, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, from a number on."""
        stream = _ShuffledStream(self._store, np.random.default_rng((self._seed, epoch)))
        steps_per_block = max(1, _BLOCK_TOKENS // (self.lanes * self.bptt))
        for first in range(number, self.batches_per_epoch, steps_per_block):
            steps = min(steps_per_block, self.batches_per_epoch - first)
            ids, targets = self._fill_block(stream, first, steps)
            for step in range(steps):
                cut = slice(step * self.bptt, (step + 1) * self.bptt)
                yield Batch(ids[:, cut], targets[:, cut], epoch, first + step)

    def _fill_block(self, stream: "_ShuffledStream", first: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs and targets of several steps, (B, steps·T) each."""
        size = steps * self.bptt
        block = np.empty((self.lanes, size + 1), np.int64)
        for lane, row in enumerate(block, self._first_lane):
            stream.copy_tokens(lane * self.length + first * self.bptt, row)
        self._store.release_pages()
        following = block[:, 1:]
        targets = np.where((following == self._bos_id) | (following >= self._vocab_size), IGNORED, following)
        return block[:, :-1], targets


class _ShuffledStream:
    """The texts of a store in random order, as one long array of tokens."""

    def __init__(self, store: TokenStore, random: np.random.Generator) -> None:
        self._store = store
        self._order = random.permutation(len(store))
        self._ends = np.cumsum(store.lengths[self._order])  # (texts,) the index in the stream after each text

    def copy_tokens(self, start: int, out: np.ndarray) -> None:
        """Fill ``out`` with the tokens from index ``start`` on."""
        position = int(np.searchsorted(self._ends, start, side="right"))
        done = 0
        while done < len(out):
            document = self._store.document(int(self._order[position]))
            skip = len(document) - int(self._ends[position] - (start + done))
            piece = document[skip : skip + len(out) - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
            position += 1
