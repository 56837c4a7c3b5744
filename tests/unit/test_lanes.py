"""Lanes: over an epoch they are one shuffled stream cut in B pieces, without gap or overlap, against plain lists."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reviewgen.data import IGNORED, Lanes, TokenStore
from reviewgen.data import lanes as lanes_module
from reviewgen.data.lengths import draw_edges, longest
from reviewgen.errors import DataError

BOS, EOS = 0, 1


class MemoryStore(TokenStore):
    """A token store in memory, without files."""

    def __init__(self, texts):
        framed = [[BOS, *text, EOS] for text in texts]
        self.offsets = np.cumsum([0, *map(len, framed)])
        self._shards = [np.array([i for text in framed for i in text], np.uint16)]
        self.conditions, self.releases = None, 0

    def release_pages(self):
        self.releases += 1


def marked_texts(lengths):
    """Make texts in which all tokens differ, so that a token identifies its position."""
    counter = itertools.count(2)
    return [list(itertools.islice(counter, length)) for length in lengths]


def cut(texts, *, lanes, bptt, seed=0, **process):
    return Lanes(MemoryStore(texts), bos_id=BOS, vocab_size=1 << 16, lanes=lanes, bptt=bptt, seed=seed, **process)


def epoch_of(made, number=0):
    return list(itertools.islice(made, number * made.batches_of(0), (number + 1) * made.batches_of(0)))


def rows_of(batches):
    """Join the steps of an epoch: (B, steps·T) inputs and targets."""
    return np.concatenate([b.ids for b in batches], 1), np.concatenate([b.targets for b in batches], 1)


def pieces_of(stream):
    """Cut a stream before every bos."""
    starts = [place for place, token in enumerate(stream) if token == BOS]
    return [stream[start:stop] for start, stop in itertools.pairwise([*starts, len(stream)])]


SHAPES = st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=25), st.integers(1, 12), st.integers(1, 9), st.integers(0, 5))


@given(SHAPES)
@settings(max_examples=200, deadline=None)
def test_an_epoch_is_a_permuted_stream_without_gap_or_overlap(shape):
    lengths, lanes, _, seed = shape
    texts = marked_texts(lengths)
    tokens = sum(lengths) + 2 * len(lengths)
    made = cut(texts, lanes=lanes, bptt=1, seed=seed)  # no step is too short to be read
    ids, targets = rows_of(epoch_of(made))
    last = int(targets[-1, -1])
    stream = [*ids.ravel().tolist(), BOS if last == IGNORED else last]
    assert 0 <= tokens - len(stream) < lanes
    *whole, end = pieces_of(stream)
    left = [[BOS, *text, EOS] for text in texts]
    for piece in whole:
        left.remove(piece)  # raises where a text comes twice, or in parts
    assert any(text[: len(end)] == end for text in left)
    assert sum(map(len, left)) - len(end) == tokens - len(stream)


@given(SHAPES)
@settings(max_examples=200, deadline=None)
def test_steps_cut_the_lanes_and_targets_are_the_next_ids(shape):
    lengths, lanes, bptt, seed = shape
    texts = marked_texts(lengths)
    whole, _ = rows_of(epoch_of(cut(texts, lanes=lanes, bptt=1, seed=seed)))
    made = cut(texts, lanes=lanes, bptt=bptt, seed=seed)
    batches = epoch_of(made)
    ids, targets = rows_of(batches)
    assert all(batch.ids.shape == batch.targets.shape == (made.lanes, made.bptt) for batch in batches)
    assert np.array_equal(ids, whole[:, : ids.shape[1]])  # step s + 1 begins where step s ended
    assert whole.shape[1] - ids.shape[1] < made.bptt
    following = np.concatenate([ids[:, 1:], np.full((made.lanes, 1), -1)], 1)
    inner = following[:, :-1]
    assert np.array_equal(targets[:, :-1], np.where(inner == BOS, IGNORED, inner))
    assert not (targets == BOS).any()
    assert [batch.starts_epoch for batch in batches] == [True] + [False] * (len(batches) - 1)


@given(SHAPES, st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_the_lanes_of_all_processes_are_those_of_one(shape, world_size):
    lengths, lanes, bptt, seed = shape
    texts = marked_texts(lengths)
    targets = sum(lengths) + 2 * len(lengths) - 1
    assume(targets < world_size or targets >= 2 * world_size)  # between them lanes of one target, which one process avoids
    if targets < world_size:
        with pytest.raises(DataError, match=f"{world_size} processes cannot share"):
            cut(texts, lanes=lanes, bptt=bptt, world_size=world_size)
        return
    parts = [cut(texts, lanes=lanes, bptt=bptt, seed=seed, rank=rank, world_size=world_size) for rank in range(world_size)]
    one = cut(texts, lanes=world_size * parts[0].lanes, bptt=bptt, seed=seed)
    assert [part.lanes * world_size for part in parts] == [one.lanes] * world_size
    for whole, *pieces in zip(epoch_of(one), *map(epoch_of, parts), strict=True):
        assert np.array_equal(whole.ids, np.concatenate([piece.ids for piece in pieces]))
        assert np.array_equal(whole.targets, np.concatenate([piece.targets for piece in pieces]))


@pytest.mark.parametrize("world_size", [2, 5])
def test_a_process_reads_the_texts_of_its_lanes_only(world_size, monkeypatch):
    """A text that two lanes share is read by both of their processes; no other is read twice in an epoch."""
    texts, read, document = marked_texts([7] * 300), [], TokenStore.document
    monkeypatch.setattr(TokenStore, "document", lambda store, number: read.append(number) or document(store, number))
    every = []
    for rank in range(world_size):
        read.clear()
        epoch_of(cut(texts, lanes=3, bptt=1000, rank=rank, world_size=world_size))
        every.append(set(read))
    assert len(set().union(*every)) >= 298  # what is left over of the division into lanes is read in another epoch
    assert sum(map(len, every)) <= 300 + 2 * 3 * world_size
    assert max(map(len, every)) <= 300 / world_size + 2 * 3


def test_the_last_target_of_a_step_is_the_first_id_of_the_next():
    made = cut(marked_texts([7, 0, 12, 30, 3] * 9), lanes=4, bptt=5)
    for step, following in itertools.pairwise(epoch_of(made)):
        expected = np.where(following.ids[:, 0] == BOS, IGNORED, following.ids[:, 0])
        assert step.targets[:, -1].tolist() == expected.tolist()


@pytest.mark.parametrize("is_random", [False, True])
def test_blocks_of_many_steps_change_nothing(monkeypatch, is_random):
    texts = marked_texts([number % 17 for number in range(200)])

    def batches():
        return [(b.ids.tolist(), b.targets.tolist()) for b in epoch_of(cut(texts, lanes=5, bptt=7, is_random=is_random))]

    big = batches()
    for tokens in (1, 100, 36):
        monkeypatch.setattr(lanes_module, "_BLOCK_TOKENS", tokens)
        assert batches() == big


def test_pages_are_released_after_every_block(monkeypatch):
    monkeypatch.setattr(lanes_module, "_BLOCK_TOKENS", 70)
    store = MemoryStore(marked_texts([18] * 100))
    made = Lanes(store, bos_id=BOS, vocab_size=1 << 16, lanes=5, bptt=7, seed=0)
    epoch_of(made)
    assert store.releases == -(-made.batches_of(0) // 2)  # after every block of two steps


def test_a_corpus_sorted_by_label_is_seen_whole_in_the_first_batch():
    labels = range(2, 12)
    texts = [[label] * 20 for label in labels for _ in range(100)]
    first = next(iter(cut(texts, lanes=64, bptt=32)))
    assert set(labels) <= set(first.ids.ravel().tolist())


def test_epochs_differ_and_a_seed_repeats():
    texts = marked_texts([3] * 40)

    def streams(seed, epochs=3):
        made = cut(texts, lanes=3, bptt=4, seed=seed)
        return [rows_of(epoch_of(made, epoch))[0].tolist() for epoch in range(epochs)]

    first = streams(7)
    assert first == streams(7)
    assert first[0] != first[1] != first[2] != first[0]
    assert streams(8)[0] not in first
    made = cut(texts, lanes=3, bptt=4)
    assert [batch.epoch for batch in itertools.islice(made, 3 * made.batches_of(0))] == [
        epoch for epoch in range(3) for _ in range(made.batches_of(0))
    ]


def test_global_random_state_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    epoch_of(cut(marked_texts([3] * 40), lanes=3, bptt=4))
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize(
    ("lengths", "lanes", "bptt", "shape"),
    [
        ([1], 64, 100, (1, 2)),  # bos x eos: two targets
        ([0], 64, 100, (1, 1)),
        ([0, 0], 64, 100, (1, 3)),
        ([5], 64, 100, (3, 2)),
        ([5], 1, 4, (1, 4)),
        ([1] * 30, 64, 100, (44, 2)),
    ],
)
def test_tiny_corpora_have_fewer_and_shorter_lanes(lengths, lanes, bptt, shape):
    made = cut(marked_texts(lengths), lanes=lanes, bptt=bptt)
    assert made.batches_of(0) >= 1
    for batch in itertools.islice(made, 5):
        assert batch.ids.shape == batch.targets.shape == shape
        assert batch.ids.dtype == batch.targets.dtype == np.int64


@given(SHAPES, st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_batches_of_random_length_read_every_token_of_the_lanes_once(shape, epoch):
    lengths, lanes, bptt, seed = shape
    texts = marked_texts(lengths)
    whole, _ = rows_of(epoch_of(cut(texts, lanes=lanes, bptt=1, seed=seed), epoch))
    made = cut(texts, lanes=lanes, bptt=bptt, seed=seed, is_random=True)
    batches = list(itertools.takewhile(lambda batch: batch.epoch == epoch, made.start_at(epoch, 0)))
    ids, targets = rows_of(batches)
    assert np.array_equal(ids, whole)  # also the tokens after the last whole batch
    following = ids[:, 1:]
    assert np.array_equal(targets[:, :-1], np.where(following == BOS, IGNORED, following))
    assert [batch.number for batch in batches] == list(range(made.batches_of(epoch)))


def test_random_lengths_have_the_distribution_of_the_paper():
    drawn = np.diff(draw_edges(7_000_000, 70, np.random.default_rng(3)))[:-1]
    upper = np.arange(1.5, 80)  # of the rounded lengths 1 to 79; 80 is the longest
    below = 0.95 * scipy.stats.norm(70, 5).cdf(upper) + 0.05 * scipy.stats.norm(35, 5).cdf(upper)
    expected = np.diff([0.0, *below, 1.0]) * len(drawn)
    counts, often = np.bincount(drawn, minlength=81)[1:], expected >= 5
    binned = [np.append(each[often], each[~often].sum()) for each in (counts, expected)]
    assert len(counts) == 80 and often.sum() > 50
    assert scipy.stats.chisquare(*binned).pvalue > 0.001


@pytest.mark.parametrize("bptt", [1, 2, 8, 64])
def test_random_lengths_are_within_their_limits(bptt):
    edges = draw_edges(2000 * bptt, bptt, np.random.default_rng(0))
    drawn = np.diff(edges)
    assert (edges[0], edges[-1]) == (0, 2000 * bptt)
    assert drawn.min() >= 1 and drawn.max() <= longest(bptt)
    assert (len(set(drawn.tolist())) > 1) == (bptt > 1)


def test_random_lengths_are_equal_in_all_processes_and_differ_by_epoch_and_seed():
    texts = marked_texts([9] * 200)

    def lengths(epoch, **process):
        made = cut(texts, lanes=2, bptt=7, is_random=True, **process)
        return [b.ids.shape[1] for b in itertools.takewhile(lambda b: b.epoch == epoch, made.start_at(epoch, 0))]

    first, second = (lengths(0, rank=rank, world_size=2) for rank in range(2))
    assert first == second and len(set(first)) > 1
    assert lengths(0) != lengths(1) and lengths(0) != lengths(0, seed=1)


@pytest.mark.parametrize("is_random", [False, True])
def test_batches_are_counted_and_located(is_random):
    made = cut(marked_texts([9] * 50), lanes=2, bptt=7, is_random=is_random)
    batches = list(itertools.takewhile(lambda batch: batch.epoch < 3, made))
    counts = [sum(batch.epoch == epoch for batch in batches) for epoch in range(3)]
    assert [made.batches_of(epoch) for epoch in range(3)] == counts
    assert made.batches_in(3) == len(batches) and made.batches_in(0) == 0
    assert made.batches_in(1.5) == counts[0] + math.ceil(counts[1] / 2)
    assert [made.locate(index) for index in range(len(batches))] == [(batch.epoch, batch.number) for batch in batches]


def test_no_texts():
    with pytest.raises(DataError, match="There are no texts to train on"):
        cut([], lanes=1, bptt=1)


@given(SHAPES, st.integers(0, 60), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_start_in_the_middle_continues_from_there(shape, step, is_random):
    lengths, lanes, bptt, seed = shape
    made = cut(marked_texts(lengths), lanes=lanes, bptt=bptt, seed=seed, is_random=is_random)
    epoch, number = made.locate(step)
    expected = itertools.islice(made, step, step + 5)
    for found, batch in zip(itertools.islice(made.start_at(epoch, number), 5), expected, strict=True):
        assert (found.epoch, found.number, found.starts_epoch) == (batch.epoch, batch.number, batch.starts_epoch)
        assert np.array_equal(found.ids, batch.ids) and np.array_equal(found.targets, batch.targets)
    after = next(made.start_at(epoch, made.batches_of(epoch)))  # the end of an epoch is the beginning of the next
    assert (after.epoch, after.number) == (epoch + 1, 0)


def test_a_start_in_the_middle_reads_nothing_before_it(monkeypatch):
    monkeypatch.setattr(lanes_module, "_BLOCK_TOKENS", 70)
    read = []

    class Watched(MemoryStore):
        """Records which texts are read."""

        def document(self, number):
            read.append(number)
            return super().document(number)

    made = Lanes(Watched(marked_texts([18] * 1000)), bos_id=BOS, vocab_size=1 << 16, lanes=5, bptt=7, seed=0)
    next(made.start_at(3, made.batches_of(0) // 2))
    assert 5 <= len(read) <= 10  # two steps of five lanes
