"""Lanes: over an epoch they are one shuffled stream cut in B pieces, without gap or overlap,
against plain lists.
"""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reviewgen.data.lanes import IGNORED, Lanes
from reviewgen.data.tokens import Tokens
from reviewgen.errors import DataError

BOS = 0
EOS = 1


class MemoryStore(Tokens):
    """A token store in memory, which records what is read of it."""

    def __init__(self, texts):
        self.framed = [np.array([BOS, *text, EOS]) for text in texts]
        self.given = np.zeros(len(self.framed), np.int64)
        self.read = []
        self.releases = 0

    def __len__(self):
        return len(self.framed)

    @property
    def lengths(self):
        return np.array([len(text) for text in self.framed], np.int64)

    def document(self, number):
        self.read.append(number)
        return self.framed[number]

    def release_pages(self):
        self.releases += 1


def marked_texts(lengths):
    """Make texts in which all tokens differ, so that a token identifies its position."""
    counter = itertools.count(2)
    return [list(itertools.islice(counter, length)) for length in lengths]


def cut(texts, *, lanes, bptt, seed=0, **process):
    store = texts if isinstance(texts, MemoryStore) else MemoryStore(texts)
    return Lanes(store, lanes=lanes, bptt=bptt, seed=seed, **process)


def epoch_of(made, number=0):
    return list(itertools.islice(made.start_at(number, 0), made.batches_of(number)))


def rows_of(batches):
    """Join the steps of an epoch: (B, steps·T) inputs and targets."""
    return np.concatenate([b.ids for b in batches], 1), np.concatenate(
        [b.targets for b in batches], 1
    )


SHAPES = st.tuples(
    st.lists(st.integers(0, 9), min_size=1, max_size=25),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(0, 5),
)


def stream_of(texts, lanes, seed):
    """Return the ids and targets of an epoch whose steps are never too short to be read."""
    return rows_of(epoch_of(cut(texts, lanes=lanes, bptt=1, seed=seed)))


@given(SHAPES)
@settings(max_examples=100)
def test_an_epoch_is_a_permuted_stream_without_gap_or_overlap(shape):
    lengths, lanes, _, seed = shape
    texts = marked_texts(lengths)
    tokens = sum(lengths) + 2 * len(lengths)
    ids, targets = stream_of(texts, lanes, seed)
    last = int(targets[-1, -1])
    stream = [*ids.ravel().tolist(), BOS if last == IGNORED else last]
    assert 0 <= tokens - len(stream) < lanes
    starts = [place for place, token in enumerate(stream) if token == BOS]
    *whole, end = [stream[start:stop] for start, stop in itertools.pairwise([*starts, len(stream)])]
    left = [[BOS, *text, EOS] for text in texts]
    for piece in whole:
        left.remove(piece)  # raises where a text comes twice, or in parts
    assert any(text[: len(end)] == end for text in left)
    assert sum(map(len, left)) - len(end) == tokens - len(stream)


@given(SHAPES)
@settings(max_examples=100)
def test_batches_are_the_stream_with_targets_that_follow(shape):
    lengths, lanes, bptt, seed = shape
    texts = marked_texts(lengths)
    ids, _ = stream_of(texts, lanes, seed)
    made = cut(texts, lanes=lanes, bptt=bptt, seed=seed)
    batches = epoch_of(made)
    assert all(
        batch.ids.shape == batch.targets.shape == (made.lanes, made.bptt) for batch in batches
    )
    steps, targets = rows_of(batches)
    assert np.array_equal(steps, ids[:, : steps.shape[1]])  # step s + 1 begins where step s ended
    assert ids.shape[1] - steps.shape[1] < made.bptt
    following = steps[:, 1:]
    assert (
        np.array_equal(targets[:, :-1], np.where(following == BOS, IGNORED, following))
        and not (targets == BOS).any()
    )
    assert [batch.starts_epoch for batch in batches] == [True] + [False] * (len(batches) - 1)


@given(SHAPES)
@settings(max_examples=100)
def test_windows_in_random_order_hold_every_token_of_the_stream(shape):
    lengths, lanes, bptt, seed = shape
    texts = marked_texts(lengths)
    ids, _ = stream_of(texts, lanes, seed)
    made = cut(texts, lanes=lanes, bptt=bptt, seed=seed, is_random=True)
    batches = epoch_of(made)
    steps, targets = rows_of(batches)
    assert np.array_equal(steps, ids)  # also the tokens after the last whole batch
    assert np.array_equal(targets[:, :-1], np.where(ids[:, 1:] == BOS, IGNORED, ids[:, 1:]))
    assert [batch.number for batch in batches] == list(range(made.batches_of(0)))


@given(SHAPES, st.integers(1, 5))
@settings(max_examples=60)
def test_the_lanes_of_all_processes_are_those_of_one(shape, world_size):
    lengths, lanes, bptt, seed = shape
    texts = marked_texts(lengths)
    targets = sum(lengths) + 2 * len(lengths) - 1
    # between them lanes of one target, which one process avoids
    assume(targets < world_size or targets >= 2 * world_size)
    if targets < world_size:
        with pytest.raises(DataError, match=f"{world_size} processes cannot share"):
            cut(texts, lanes=lanes, bptt=bptt, world_size=world_size)
        return
    parts = [
        cut(texts, lanes=lanes, bptt=bptt, seed=seed, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    one = cut(texts, lanes=world_size * parts[0].lanes, bptt=bptt, seed=seed)
    assert [part.lanes * world_size for part in parts] == [one.lanes] * world_size
    for whole, *pieces in zip(epoch_of(one), *map(epoch_of, parts), strict=True):
        assert np.array_equal(whole.ids, np.concatenate([piece.ids for piece in pieces]))
        assert np.array_equal(whole.targets, np.concatenate([piece.targets for piece in pieces]))


@given(SHAPES, st.integers(0, 60), st.booleans())
@settings(max_examples=60)
def test_a_start_in_the_middle_continues_from_there(shape, step, is_random):
    lengths, lanes, bptt, seed = shape
    made = cut(marked_texts(lengths), lanes=lanes, bptt=bptt, seed=seed, is_random=is_random)
    epoch, number = made.locate(step)
    expected = itertools.islice(made.start_at(), step, step + 5)
    for found, batch in zip(
        itertools.islice(made.start_at(epoch, number), 5), expected, strict=True
    ):
        assert (found.epoch, found.number, found.starts_epoch) == (
            batch.epoch,
            batch.number,
            batch.starts_epoch,
        )
        assert np.array_equal(found.ids, batch.ids) and np.array_equal(found.targets, batch.targets)
    # the end of an epoch is the beginning of the next
    after = next(made.start_at(epoch, made.batches_of(epoch)))
    assert (after.epoch, after.number) == (epoch + 1, 0)


@pytest.mark.parametrize("is_random", [False, True])
def test_a_large_corpus_is_copied_in_blocks(is_random):
    """A block has 262,144 tokens; what is read of the store, and released, follows from that."""
    texts = np.arange(2, 2 + 18 * 40_000).reshape(-1, 18)
    store = MemoryStore(texts)
    made = cut(store, lanes=1, bptt=1_000, is_random=is_random)
    ids, _ = rows_of(epoch_of(made))
    stream = ids[0][: len(ids[0]) // 20 * 20].reshape(-1, 20)
    assert (stream[:, 0] == BOS).all() and (stream[:, -1] == EOS).all()
    assert len(stream) >= 39_900 and len(np.unique(stream[:, 1])) == len(stream)
    assert (stream[:, 1:-1] == texts[(stream[:, 1] - 2) // 18]).all()
    assert 2 < store.releases < 10
    store.read.clear()
    made = cut(store, lanes=5, bptt=7, is_random=is_random)
    next(made.start_at(3, made.batches_of(3) // 2))
    assert 5 <= len(store.read) <= (1 << 18) / 20 + 10  # nothing before the start


# Batches of random length, as in AWD-LSTM.


def drawn(tokens, bptt, seed=3):
    """Return the lengths of the batches of an epoch of a number of tokens."""
    return np.array(
        [
            b.ids.shape[1]
            for b in epoch_of(
                cut([range(2, tokens)], lanes=1, bptt=bptt, seed=seed, is_random=True)
            )
        ]
    )


def test_random_lengths_have_the_distribution_of_the_paper():
    lengths = drawn(3_500_000, 70)[:-1]
    upper = np.arange(1.5, 80)  # of the rounded lengths 1 to 79; 80 is the longest
    below = 0.95 * scipy.stats.norm(70, 5).cdf(upper) + 0.05 * scipy.stats.norm(35, 5).cdf(upper)
    expected = np.diff([0.0, *below, 1.0]) * len(lengths)
    counts = np.bincount(lengths, minlength=81)[1:]
    often = expected >= 5
    binned = [np.append(each[often], each[~often].sum()) for each in (counts, expected)]
    assert len(counts) == 80 and often.sum() > 45
    assert scipy.stats.chisquare(*binned).pvalue > 0.001


def test_random_lengths_are_bounded_equal_in_all_processes_and_differ_by_epoch_and_seed():
    for bptt, longest in ((1, 1), (2, 2), (8, 9), (64, 73)):
        lengths = drawn(500 * bptt, bptt)
        assert lengths.min() >= 1 and lengths.max() == longest
        assert lengths.sum() == 500 * bptt - 1 and (len(set(lengths.tolist())) > 1) == (bptt > 1)
    made = [
        cut(marked_texts([9] * 200), lanes=2, bptt=7, is_random=True, rank=rank, world_size=2)
        for rank in range(2)
    ]
    first, second, other = (
        [b.ids.shape[1] for b in epoch_of(each, n)]
        for each, n in ((made[0], 0), (made[1], 0), (made[0], 1))
    )
    assert first == second != other
    assert drawn(500, 7, seed=1).tolist() != drawn(500, 7, seed=2).tolist()
