"""A model in use: threads that share it, a cache or clock that misbehaves, and models that break the contract."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reviewgen
from reviewgen import ReviewModel, TrainingRun
from reviewgen.errors import BrokenPlugin, StorageError
from reviewgen.registry import register_model, register_tokenizer, unregister_all
from tests.support.fakes import LETTERS, TEXTS, FakeConfig, TableModel, review_model, table

THREADS = 64
# Without autotuning, which selects by how busy the machine is; other threads and precisions add up in another order.
OPTIONS: dict[str, Any] = {
    "steps": 4,
    "seed": 3,
    "model": {"hidden_size": 8, "embedding_size": 4, "layer": "fused"},
    "training": {"threads": 1, "precision": "no", "copy_tokens": 0, "evaluations": 1, "batch_size": 4},
}


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


def test_a_cache_that_cannot_be_used_is_one_sentence(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TrainingRun("ngram-char", TEXTS, steps=1)
    run.read()
    shutil.rmtree(own_cache)
    with pytest.raises(StorageError, match="cache"):
        run.tokenize()

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("REVIEWGEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(StorageError, match="Set REVIEWGEN_CACHE"):
        reviewgen.train("ngram-char", TEXTS, steps=1)


class Growing(nn.Module):
    """The mean of the embeddings of all tokens, which it keeps: its state grows."""

    Config = FakeConfig

    def __init__(self, config: FakeConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, 4)
        self.output = nn.Linear(4, config.vocab_size)

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 0, 4)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat([state, self.embedding(ids)], dim=1)
        means = seen.cumsum(1) / torch.arange(1, seen.shape[1] + 1)[:, None]
        return self.output(means[:, -ids.shape[1] :]), seen


def test_a_state_that_grows_is_a_sentence_and_one_of_fixed_size_is_joined() -> None:
    model = review_model(Growing(FakeConfig(vocab_size=LETTERS.vocab_size)), LETTERS)
    for texts in (["a", "abc abc"], ["abc", "a"]):
        with pytest.raises(BrokenPlugin, match=r"states have different shapes, \(\d+, \d+, 4\) and \(\d+, \d+, 4\)"):
            model.generate(texts, max_new_tokens=3)
    assert model.generate_one("a", max_new_tokens=3, seed=1) is not None
    register_model("growing", Growing)
    with pytest.raises(BrokenPlugin, match="states have different shapes"):
        reviewgen.train("growing-char", TEXTS, steps=3, training=OPTIONS["training"])
    fixed = review_model(TableModel(table(LETTERS.vocab_size, eos=-9.0)), LETTERS)
    assert len(fixed.generate(["a", "abc abc"], max_new_tokens=5, seed=3)) == 2


@dataclass(frozen=True, kw_only=True)
class NoVocabulary:
    """The settings of nothing."""

    width: int = 3


def test_a_class_without_settings_is_refused_before_the_corpus_is_read() -> None:
    for register, plugin, preset, word in (
        (register_model, 3, "mine-char", "must be a class; got 3"),
        (register_model, nn.Module, "mine-char", r"Module\.Config must be a frozen keyword-only dataclass"),
        (register_model, type("Mine", (nn.Module,), {"Config": int}), "mine-char", r"Mine\.Config must be a frozen"),
        (register_model, type("Mine", (nn.Module,), {"Config": NoVocabulary}), "mine-char", "must have the field vocab_size"),
        (register_tokenizer, str, "ngram-mine", r"The tokenizer 'mine' .* str\.Config must be a frozen"),
    ):
        register("mine", plugin)
        with pytest.raises(BrokenPlugin, match=word):
            reviewgen.train(preset, "there-is-no-such-corpus.csv", steps=1)
