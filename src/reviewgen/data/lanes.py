"""Make training batches for truncated back-propagation through time: B parallel lanes of one long
stream of texts.

A *lane* is a row of the batches: a continuous part of the stream. Each epoch shuffles the texts,
joins them to one stream and cuts this into B lanes of equal length. Step s yields tokens s·T to (s
+ 1)·T of every lane, so a recurrent state that is carried from step to step continues where the
last step ended. T may also be drawn at random for each step (``is_random``). The B lanes start far
apart in the stream, so even if the corpus is sorted by label, the first batch has texts of all
labels.

If P processes train one model, there are P·B lanes, and each process takes its own B of them. So
together they see the corpus once per epoch. Random lengths depend on the seed and the epoch only,
so all processes draw the same lengths, and a resumed run draws them again.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reviewgen.data.tokens import Tokens
from reviewgen.errors import DataError, counted

# the target that cross entropy ignores; used for bos, conditions and fields, which are inputs only
IGNORED = -100
_BLOCK_TOKENS = 1 << 18  # tokens copied from the store at a time, over all lanes
# probability that a random length is drawn with the mean bptt; otherwise the mean is bptt / 2
_FULL = 0.95
_DEVIATION = 5 / 70  # standard deviation of a random length, as a share of bptt
_LIMIT = 2  # max length: this many standard deviations above bptt
_LENGTHS = 1  # added to the seed of the lengths, so that it differs from the seed of the order


@dataclass(frozen=True)
class Batch:
    """The tokens of one batch; ``targets[b, t]`` is the token after ``ids[b, t]``.

    Attributes:
        ids: The input ids, (B, T) int64.
        targets: The next ids, (B, T) int64; ``IGNORED`` if the next token is bos or belongs to a
            condition or a field.
        epoch: The number of the epoch, from 0.
        number: The number of the batch within its epoch, from 0.
        of: The number of batches of that epoch.
    """

    ids: np.ndarray
    targets: np.ndarray
    epoch: int
    number: int
    of: int

    @property
    def starts_epoch(self) -> bool:
        """Whether this is the first batch of an epoch, so that recurrent states start afresh."""
        return self.number == 0


class Lanes:
    """An endless stream of training batches over a token store.

    Args:
        store: The texts.
        lanes: The number of lanes, B; reduced if the store has too few tokens.
        bptt: The number of tokens per batch and lane, T; reduced if the lanes are shorter.
        seed: The seed of the shuffling.
        rank: The rank of this process, from 0.
        world_size: The number of processes, each with B lanes.
        is_random: Whether T is drawn at random for each batch, around ``bptt``. Then the last batch
            of an epoch may be shorter, and no tokens at the end of a lane are left out.

    Attributes:
        lanes: The number of lanes of this process, B.
        length: The number of targets per lane and epoch.
        bptt: The number of tokens per batch and lane, T; with random lengths, their usual mean.

    Raises:
        DataError: The store holds fewer than two tokens, or too few for the number of processes.
    """

    def __init__(
        self,
        store: Tokens,
        *,
        lanes: int,
        bptt: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        is_random: bool = False,
    ) -> None:
        if store.count < 2:
            raise DataError("There are no texts to train on.")
        target_count = store.count - 1
        if target_count < world_size:
            raise DataError(
                f"{world_size} processes cannot share {counted(target_count, 'token')} to train on;"
                " use fewer processes."
            )
        # reduced so that each lane has at least two targets
        self.lanes = max(1, min(lanes, target_count // 2 // world_size))
        self.length = target_count // (self.lanes * world_size)
        # the index of this process's first lane among the lanes of all processes
        self._first_lane = rank * self.lanes
        self.bptt = min(bptt, self.length)
        self._is_random = is_random
        self._longest = self.bptt  # max tokens per batch and lane
        if is_random:
            self._longest = max(1, int(self.bptt * (1 + _LIMIT * _DEVIATION)))
        self._store = store
        self._seed = seed

    def start_at(self, epoch: int = 0, number: int = 0) -> Iterator[Batch]:
        """Yield batches endlessly, from batch ``number`` of an epoch on. Earlier batches are not
        read.
        """
        while True:
            yield from self._batches(epoch, number)
            epoch += 1
            number = 0

    def batches_of(self, epoch: int) -> int:
        """Return the number of batches of an epoch."""
        return len(self._edges(epoch)) - 1

    def batches_in(self, epochs: float) -> int:
        """Return the number of batches in ``epochs`` epochs, rounded up."""
        if not self._is_random:
            return math.ceil(epochs * self.batches_of(0))
        # epochs with random lengths differ in their number of batches
        part, whole = math.modf(epochs)
        return sum(map(self.batches_of, range(int(whole)))) + math.ceil(
            part * self.batches_of(int(whole))
        )

    def locate(self, batch: int) -> tuple[int, int]:
        """Return the epoch of a batch, and the number of the batch within that epoch. ``batch`` is
        the number of the batch in the whole run. All three numbers start at 0.
        """
        epoch = 0
        while batch >= (count := self.batches_of(epoch)):
            batch -= count
            epoch += 1
        return epoch, batch

    def _edges(self, epoch: int) -> Sequence[int]:
        """Return the positions in a lane at which the batches of an epoch begin and end.

        If all batches have the same length, tokens at the end of a lane that do not fill a batch
        are left out.
        """
        length = self.length
        bptt = self.bptt
        if not self._is_random:
            return range(0, length // bptt * bptt + 1, bptt)
        random = np.random.default_rng((self._seed, epoch, _LENGTHS))
        edges = np.zeros(1, np.int64)
        while edges[-1] < length:  # until the lengths drawn fill the lane
            count = 1 + int(length - edges[-1]) // bptt  # lengths that may still be needed, about
            means = np.where(random.random(count) < _FULL, bptt, bptt / 2)
            drawn = np.clip(
                np.rint(random.normal(means, _DEVIATION * bptt)), 1, self._longest
            ).astype(np.int64)
            edges = np.concatenate([edges, edges[-1] + np.cumsum(drawn)])
        return [*edges[edges < length].tolist(), length]

    def _batches(self, epoch: int, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch ``number`` on."""
        stream = _ShuffledStream(self._store, np.random.default_rng((self._seed, epoch)))
        edges = self._edges(epoch)
        steps_per_block = max(1, _BLOCK_TOKENS // (self.lanes * self._longest))
        for first in range(number, len(edges) - 1, steps_per_block):
            block_edges = edges[first : first + steps_per_block + 1]
            block_start = block_edges[0]
            ids, targets = self._fill_block(stream, block_start, block_edges[-1])
            for step, (start, end) in enumerate(itertools.pairwise(block_edges), first):
                columns = slice(start - block_start, end - block_start)
                yield Batch(ids[:, columns], targets[:, columns], epoch, step, len(edges) - 1)

    def _fill_block(
        self, stream: "_ShuffledStream", start: int, end: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs and targets between two positions of the lanes, (B, end - start)
        each.
        """
        # both get the same tokens, one more than is returned, since targets are the next tokens
        ids, targets = np.empty((2, self.lanes, end - start + 1), np.int64)
        # ``lane`` is the index of a row among the lanes of all processes
        for lane, rows in enumerate(zip(ids, targets, strict=True), self._first_lane):
            stream.copy_tokens(lane * self.length + start, *rows)
        self._store.release_pages()
        return ids[:, :-1], targets[:, 1:]


class _ShuffledStream:
    """The texts of a store in random order, as one long array of tokens."""

    def __init__(self, store: Tokens, random: np.random.Generator) -> None:
        self._store = store
        self._order = random.permutation(len(store))
        # (texts,): the index in the stream at which each text ends, in the random order
        self._ends = np.cumsum(store.lengths[self._order])

    def copy_tokens(self, start: int, ids: np.ndarray, targets: np.ndarray) -> None:
        """Fill two arrays of the same length with the tokens of the stream, beginning at index
        ``start``. In ``targets``, tokens that are not predicted (bos, conditions, fields) are
        replaced by ``IGNORED``.
        """
        position = int(np.searchsorted(self._ends, start, side="right"))  # of a text in the order
        done = 0
        while done < len(ids):
            number = int(self._order[position])
            document = self._store.document(number)
            prefix_length = 1 + int(self._store.given[number])  # bos, conditions and fields
            # the number of the text's tokens that are before index ``start + done``
            skipped = len(document) - int(self._ends[position] - (start + done))
            piece = document[skipped : skipped + len(ids) - done]
            ids[done : done + len(piece)] = targets[done : done + len(piece)] = piece
            # the tokens of the prefix that are in this piece
            targets[done : done + min(len(piece), max(0, prefix_length - skipped))] = IGNORED
            done += len(piece)
            position += 1
