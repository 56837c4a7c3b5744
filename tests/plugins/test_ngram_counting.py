"""Counting n-grams in several processes (threads here), with little memory: always the model of
one, bit for bit.
"""

import os
from typing import Any

import numpy as np
import pytest
import torch

from reviewgen.errors import StorageError, TrainingError
from reviewgen.registry.plugins import find_model
from reviewgen.testing.abilities import ThreadGroup, run_ranks
from tests.support.brute_ngram import BruteNgram
from tests.support.fakes import raising
from tests.support.plugin_models import BOS, EOS, count_ngram, ids_of

Ngram: Any = find_model("ngram")[0]
SMOOTHINGS = ("kneser-ney", "absolute", "witten-bell", "stupid-backoff", "none")


def skewed(vocab_size: int, texts: int = 150) -> list[np.ndarray]:
    """Return texts whose tokens are as skewed as those of a language; bos is the id 13, which some
    process in the middle has.
    """
    rng = np.random.default_rng(0)
    rows = [2 + (rng.zipf(1.5, rng.integers(0, 50)) - 1) % (vocab_size - 2) for _ in range(texts)]
    return [(np.concatenate([[BOS], row, [EOS]]) + 13) % vocab_size for row in rows]


def in_ranks(texts: list[np.ndarray], processes: int, **settings: Any) -> tuple[Any, Any]:
    """Train in several processes, each with every P-th text."""
    models = [Ngram(Ngram.Config(**settings)) for _ in range(processes)]

    def work(group: ThreadGroup) -> Any:
        for text in texts[group.rank :: processes]:
            models[group.rank].observe(text)
        return models[group.rank].finish_ranges(group)

    return models[0], run_ranks(processes, work)[0]


def assert_same(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    tensors = expected[0].state_dict()
    assert found[1] == expected[1] and found[0].state_dict().keys() == tensors.keys()
    assert [
        name
        for name, tensor in found[0].state_dict().items()
        if not torch.equal(tensor, tensors[name])
    ] == []


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_ranks_make_the_model_of_one_process(smoothing):
    texts = skewed(30)
    for order in (1, 2, 5):
        settings = {"vocab_size": 30, "order": order, "smoothing": smoothing}
        expected = count_ngram(texts, **settings)
        for processes in (2, 4):
            assert_same(in_ranks(texts, processes, **settings), expected)


@pytest.mark.parametrize(
    "more",
    [
        {"min_count": 2, "smoothing": "witten-bell"},
        {"min_count": 2, "prune_entropy": 1e-5},
        {"memory_mb": 1},
        {"min_texts": 2},
        {"min_texts": 3, "vocab_size": 1000, "order": 20, "min_count": 4},
        {"min_texts": 2, "field_ids": 12, "prune_entropy": 1e-6, "memory_mb": 1},
        {"field_ids": 12},
        {"vocab_size": 127, "order": 9, "quantized": True, "prune_entropy": 1e-6},
        {"vocab_size": 1000, "order": 20, "quantized": True},
        {"vocab_size": 70_000, "order": 4, "quantized": True},
    ],
    ids=str,
)
def test_ranks_prune_round_and_bound_memory_as_one_process_does(more):
    settings = {"vocab_size": 30, "order": 5} | more
    texts = skewed(settings["vocab_size"], 60)
    assert_same(in_ranks(texts, 3, **settings), count_ngram(texts, **settings))


@pytest.mark.parametrize("vocab_size, order", [(30, 5), (1000, 9)])
def test_texts_that_are_split_into_blocks_are_still_one_text(vocab_size, order, monkeypatch):
    texts = skewed(vocab_size, 60)
    settings = {"vocab_size": vocab_size, "order": order, "min_texts": 3}
    expected = count_ngram(texts, **settings)
    monkeypatch.setattr("reviewgen_ngram.counts.BLOCK_BYTES", 500)
    assert_same(count_ngram(texts, **settings), expected)
    assert_same(in_ranks(texts, 3, **settings), expected)


def test_there_may_be_more_processes_than_texts_and_first_tokens():
    texts = [np.array([BOS, 2, 2, EOS]), np.array([BOS, 2, EOS])]
    for order in (1, 2, 4):
        assert_same(in_ranks(texts, 7, vocab_size=4, order=order), count_ngram(texts, 4, order))


def test_no_process_gets_most_of_the_ngrams():
    received = [0] * 3
    texts = skewed(300, 80)

    def work(group: ThreadGroup) -> None:
        exchange = group.all_to_all

        def counted(parts: Any) -> Any:
            got = exchange(parts)
            received[group.rank] += sum(part.nbytes for part in got)
            return got

        group.all_to_all = counted  # type: ignore[method-assign]
        model = Ngram(Ngram.Config(vocab_size=300, order=5))
        for text in texts[group.rank :: 3]:
            model.observe(text)
        model.finish_ranges(group)

    run_ranks(3, work)
    assert 0 < max(received) < 0.6 * sum(received)


@pytest.mark.parametrize(
    "texts, word",
    [
        ([np.array([0, 2, 1]), np.array([3, 2, 1])], "begin with the ids 0 and 3"),
        ([], "No text"),
        ([np.array([0])], "nothing to predict"),
    ],
)
def test_texts_that_cannot_be_counted_are_an_error_in_every_process(texts, word):
    errors: list[str] = []

    def work(group: ThreadGroup) -> None:
        model = Ngram(Ngram.Config(vocab_size=5, order=3))
        for text in texts[group.rank :: 2]:
            model.observe(text)
        try:
            model.finish_ranges(group)
        except TrainingError as error:
            errors.append(str(error))

    run_ranks(2, work)
    assert len(errors) == 2 and all(word in error for error in errors)


@pytest.mark.parametrize(
    "vocab_size, order",
    [(1000, 3), (1000, 7), (1000, 8), (1000, 16), (1000, 40), (127, 9), (70_000, 4), (5, 22)],
)
def test_ngrams_of_any_length_and_vocabulary_are_counted(vocab_size, order):
    """Packed in words of 63 bits, of which one holds six ids of 1,000: one word, two, many; and
    many rows with one first word.
    """
    rng = np.random.default_rng(1)
    texts = [
        [BOS, *(vocab_size - rng.integers(1, 4, rng.integers(0, 30))).tolist(), EOS]
        for _ in range(30)
    ]
    model, facts = count_ngram(texts, vocab_size, order)
    brute = BruteNgram(texts, vocab_size, order, "kneser-ney")
    assert facts["ngrams"] == [len(counts) for counts in brute.counts[1:]]
    for text in texts[:4]:
        scores, _ = model.score(ids_of(text[:-1]), ids_of(text[1:]), model.initial_state(1))
        expected = [brute.log_probability(text[t + 1], text[: t + 1]) for t in range(len(text) - 1)]
        np.testing.assert_allclose(scores[0].numpy(), expected, atol=1e-5)


@pytest.mark.linux
def test_a_memory_limit_changes_no_bit_and_uses_files(monkeypatch):
    rng = np.random.default_rng(2)
    texts = [[BOS, *rng.integers(2, 30, 60).tolist(), EOS] for _ in range(400)]
    mapped = []

    class Recorded(np.memmap):
        def __new__(cls, *arguments: Any, **options: Any) -> "Recorded":
            mapped.append(arguments)
            return super().__new__(cls, *arguments, **options)

    free = count_ngram(texts, 30, 9)
    assert not mapped
    monkeypatch.setattr(np, "memmap", Recorded)
    assert_same(count_ngram(texts, 30, 9, memory_mb=1), free)
    assert mapped
    monkeypatch.setattr(os, "posix_fallocate", raising(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match="No space left"):
        count_ngram(texts, 30, 9, memory_mb=1)
