"""N-grams that several processes finish together, with threads in their place: the model of one process, bit for bit."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from reviewgen_ngram.counts import NgramCounter, Rows
from reviewgen_ngram.memory import Arena
from reviewgen_ngram.model import Ngram, NgramConfig
from reviewgen_ngram.ranges import Alone, exchange

from reviewgen.errors import StorageError, TrainingError
from reviewgen.testing import MODEL_LAWS
from reviewgen.testing.counting_laws import ThreadGroup, run_ranks

BOS, EOS = 0, 1
SMOOTHINGS = ("kneser-ney", "absolute", "witten-bell", "stupid-backoff", "none")


def corpus(vocab_size: int, texts: int = 150, seed: int = 0) -> list[np.ndarray]:
    """Return texts whose tokens are as skewed as those of a language."""
    rng = np.random.default_rng(seed)
    return [np.concatenate([[BOS], 2 + (rng.zipf(1.5, rng.integers(0, 50)) - 1) % (vocab_size - 2), [EOS]]) for _ in range(texts)]


def one_process(config: NgramConfig, texts: list[np.ndarray]) -> tuple[Ngram, Any]:
    model = Ngram(config)
    for text in texts:
        model.observe(text)
    return model, model.finish()


def in_ranks(config: NgramConfig, texts: list[np.ndarray], processes: int) -> tuple[Ngram, Any]:
    """Train in several processes, each with every P-th text."""
    models = [Ngram(config) for _ in range(processes)]

    def work(group: ThreadGroup) -> Any:
        for text in texts[group.rank :: processes]:
            models[group.rank].observe(text)
        return models[group.rank].finish_ranges(group)

    return models[0], run_ranks(processes, work)[0]


def assert_same(found: tuple[Ngram, Any], expected: tuple[Ngram, Any]) -> None:
    tensors = expected[0].state_dict()
    assert found[1] == expected[1]
    for name, tensor in found[0].state_dict().items():
        assert torch.equal(tensor, tensors.pop(name)), name
    assert not tensors


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_ranks_make_the_model_of_one_process(smoothing: str) -> None:
    texts = corpus(30)
    for order in (1, 2, 5):
        config = NgramConfig(vocab_size=30, order=order, smoothing=smoothing)
        expected = one_process(config, texts)
        for processes in (2, 4):
            assert_same(in_ranks(config, texts, processes), expected)


@pytest.mark.parametrize("more", [{"min_count": 2}, {"min_count": 2, "prune_entropy": 1e-5}, {"memory_mb": 1}], ids=str)
@pytest.mark.parametrize("smoothing", ["kneser-ney", "witten-bell"])
def test_ranks_prune_and_bound_memory_as_one_process_does(
    smoothing: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reviewgen_ngram.nodes.PIECE_ROWS", 11)
    texts = corpus(30)
    for order in (1, 2, 5):
        config = NgramConfig(vocab_size=30, order=order, smoothing=smoothing, **more)
        assert_same(in_ranks(config, texts, 3), one_process(config, texts))


@pytest.mark.parametrize(("vocab_size", "order"), [(127, 9), (1000, 20), (70_000, 4)])
def test_any_width_of_a_packed_ngram_gives_the_same(vocab_size: int, order: int) -> None:
    config = NgramConfig(vocab_size=vocab_size, order=order, quantized=True, prune_entropy=1e-6)
    texts = corpus(vocab_size, 40)
    assert_same(in_ranks(config, texts, 3), one_process(config, texts))


def test_there_may_be_more_processes_than_texts_and_first_tokens() -> None:
    texts = [np.array([BOS, 2, 2, EOS]), np.array([BOS, 2, EOS])]
    for order in (1, 2, 4):
        config = NgramConfig(vocab_size=4, order=order)
        assert_same(in_ranks(config, texts, 7), one_process(config, texts))


def taken(order: int, processes: int, piece_bytes: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[np.ndarray], list[Rows]]:
    """Return a corpus, and the rows of each process's range; each n-gram takes a file, and pieces are of a few rows."""
    monkeypatch.setattr("reviewgen_ngram.ranges.PIECE_BYTES", piece_bytes)
    monkeypatch.setattr("reviewgen_ngram.counts.MERGED_ROWS", 7)
    texts = corpus(300, 80)

    def work(group: ThreadGroup) -> Rows:
        arena = Arena(64)
        counter = NgramCounter(300, order, arena, block_bytes=400)
        for text in texts[group.rank :: processes]:
            counter.add(text)
        return exchange(counter, 300, arena, group)

    return texts, run_ranks(processes, work)


@pytest.mark.parametrize("order", [2, 5, 9])
def test_the_ranges_are_the_counts_of_the_texts_in_order_and_none_has_all(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, ranges = taken(order, 3, 500, monkeypatch)
    reference = Counter(tuple(text[i : i + order].tolist()) for text in texts for i in range(len(text)))
    found: dict[tuple[int, ...], int] = {}
    for rows in ranges:
        assert isinstance(rows.packed, np.memmap) and 0 < len(rows.counts) < 0.6 * len(reference)
        width, per_word, in_first = rows.packing.bits, rows.packing.per_word, rows.packing.in_first
        for packed, count in zip(rows.packed.tolist(), rows.counts.tolist(), strict=True):
            digits = []
            for number, word in enumerate(packed):
                size = per_word if number else in_first
                digits += [word >> width * place & (1 << width) - 1 for place in reversed(range(size))]
            ngram = tuple(digit - 1 for digit in digits if digit)
            assert ngram not in found
            found[ngram] = count
    assert found == reference
    assert [*found] == sorted(found)  # the ranges follow one another, so they are the sorted rows of one process
    firsts = [{ngram[0] for ngram in list(found)[start:stop]} for start, stop in edges(ranges)]
    assert not firsts[0] & firsts[1] and not firsts[1] & firsts[2]


def edges(ranges: list[Rows]) -> list[tuple[int, int]]:
    ends = np.cumsum([0, *(len(rows.counts) for rows in ranges)]).tolist()
    return list(pairwise(ends))


def test_texts_that_begin_otherwise_and_no_text_at_all_are_errors_everywhere() -> None:
    config = NgramConfig(vocab_size=5, order=3)
    errors: list[str] = []

    def work(group: ThreadGroup, texts: list[np.ndarray]) -> None:
        model = Ngram(config)
        for text in texts[group.rank :: 2]:
            model.observe(text)
        try:
            model.finish_ranges(group)
        except TrainingError as error:
            errors.append(str(error))

    run_ranks(2, lambda group: work(group, [np.array([0, 2, 1]), np.array([3, 2, 1])]))
    assert len(errors) == 2 and all("begin with the ids 0 and 3" in error for error in errors)
    errors.clear()
    run_ranks(2, lambda group: work(group, []))
    assert len(errors) == 2 and all("No text was observed" in error for error in errors)
    errors.clear()
    run_ranks(2, lambda group: work(group, [np.array([0])]))
    assert len(errors) == 2 and all("nothing to predict" in error for error in errors)


def test_a_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reviewgen_ngram.memory.os.posix_fallocate", full)
    model = Ngram(NgramConfig(vocab_size=3000, order=9, memory_mb=1))
    with pytest.raises(StorageError, match=r"No room to write .*: No space left on device"):
        for text in corpus(3000, 3000):
            model.observe(text)
        model.finish()


@pytest.mark.parametrize("law", [law for law in MODEL_LAWS if law.__name__.startswith("count_")], ids=lambda law: law.__name__)
def test_a_model_that_ignores_the_counts_of_others_breaks_the_law(law: Any) -> None:
    class Selfish(Ngram):
        def finish_ranges(self, group: Any) -> Any:
            return super().finish_ranges(Alone()) if self._counter is not None else {}

        def add_counts(self, counts: Any) -> None:
            if self._counter is None:
                super().add_counts(counts)

    law(lambda: Ngram(NgramConfig(vocab_size=11)))
    with pytest.raises(AssertionError, match=r"another tensor|makes the tensors"):
        law(lambda: Selfish(NgramConfig(vocab_size=11)))
