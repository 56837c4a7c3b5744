"""Threads that share a model, and classes that are refused before the corpus is read."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from torch import nn

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import BrokenPlugin
from reviewgen.registry import register_model, register_tokenizer, unregister_all

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


@dataclass(frozen=True, kw_only=True)
class NoVocabulary:
    """The settings of nothing."""

    width: int = 3


def test_a_class_without_settings_is_refused_before_the_corpus_is_read() -> None:
    for register, plugin, preset, word in (
        (register_model, 3, "mine-char", "must be a class; got 3"),
        (register_model, nn.Module, "mine-char", r"Module\.Config must be a frozen keyword-only dataclass"),
        (register_model, type("Mine", (nn.Module,), {"Config": NoVocabulary}), "mine-char", "must have the field vocab_size"),
        (register_tokenizer, str, "ngram-mine", r"The tokenizer 'mine' .* str\.Config must be a frozen"),
    ):
        register("mine", plugin)
        with pytest.raises(BrokenPlugin, match=word):
            reviewgen.train(preset, "there-is-no-such-corpus.csv", steps=1)
