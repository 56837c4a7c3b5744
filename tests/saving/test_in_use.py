"""Threads that share a model."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from reviewgen import ReviewModel
from reviewgen.registry import unregister_all

THREADS = 32


@pytest.fixture(autouse=True)
def nothing_registered() -> None:
    unregister_all()


@pytest.mark.parametrize("name", ["ngram-char", "gru-word"])
def test_threads_that_share_a_model_get_what_one_thread_gets(micro: Callable[[str], ReviewModel], name: str) -> None:
    model, starts = micro(name), threading.Barrier(THREADS)

    def work(seed: int) -> tuple[str, float]:
        return model.generate("a", seed=seed, max_new_tokens=40)[0], model.score("a good band").bits

    def work_together(seed: int) -> tuple[str, float]:
        starts.wait()  # so that all are inside at the same time
        return work(seed)

    alone = [work(seed) for seed in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(work_together, range(THREADS))) == alone
    assert len({text for text, _ in alone}) > 10
