"""Models that break the contract in use: one sentence, where torch or Python would say something else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reviewgen
from reviewgen.errors import BrokenPlugin
from reviewgen.registry import plugins
from tests.support.fakes import LETTERS, TEXTS, FakeConfig, TableModel, review_model, table

QUICK = {"batch_size": 4, "bptt": 16, "threads": 1, "precision": "no", "copy_tokens": 0, "evaluation_tokens": 300}


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {})


class Growing(nn.Module):
    """The mean of the embeddings of all tokens, which it keeps."""

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


SENTENCE = r"^The model's states have different shapes, \(\d+, \d+, 4\) and \(\d+, \d+, 4\): those of a state may depend on the"


@pytest.mark.parametrize("texts", [["a", "abc abc"], ["abc", "a"]])
def test_a_state_that_grows_is_a_sentence_for_unequal_prompts(texts: list[str]) -> None:
    model = review_model(Growing(FakeConfig(vocab_size=LETTERS.vocab_size)), LETTERS)
    with pytest.raises(BrokenPlugin, match=SENTENCE) as caught:
        model.generate(texts, max_new_tokens=3)
    assert len(str(caught.value)) < 500
    assert model.generate_one("a", max_new_tokens=3, seed=1) is not None


def test_a_state_that_grows_is_a_sentence_in_training() -> None:
    reviewgen.register_model("growing", Growing)
    with pytest.raises(BrokenPlugin, match=SENTENCE):
        reviewgen.train("growing-char", TEXTS, steps=3, training=QUICK)


def test_a_state_of_fixed_size_is_joined() -> None:
    model = review_model(TableModel(table(LETTERS.vocab_size, eos=-9.0)), LETTERS)
    both = model.generate(["a", "abc abc"], max_new_tokens=5, seed=3)
    assert len(both) == 2 and all(np.isfinite(len(text)) for text in both)


@dataclass(frozen=True, kw_only=True)
class NoVocabulary:
    """The settings of nothing."""

    width: int = 3


@pytest.mark.parametrize(
    ("register", "preset", "said"),
    [
        (lambda: reviewgen.register_model("my", 3), "my-char", "The model 'my' of (this process) .*: it must be a class; got 3"),
        (lambda: reviewgen.register_model("my", nn.Module), "my-char", "Module.Config must be a frozen keyword-only dataclass"),
        (
            lambda: reviewgen.register_model("mine", type("Mine", (nn.Module,), {"Config": int})),
            "mine-char",
            "Mine.Config must be a frozen keyword-only dataclass",
        ),
        (
            lambda: reviewgen.register_model("mine", type("Mine", (nn.Module,), {"Config": NoVocabulary})),
            "mine-char",
            "Mine.Config must have the field vocab_size: int",
        ),
        (lambda: reviewgen.register_tokenizer("mine", str), "ngram-mine", "The tokenizer 'mine' .* str.Config must be a frozen"),
    ],
)
def test_a_class_without_settings_is_refused_before_the_corpus_is_read(
    register: Callable[[], Any], preset: str, said: str
) -> None:
    register()
    with pytest.raises(BrokenPlugin, match=said.replace("(this process)", r"\(this process\)")):
        reviewgen.train(preset, "there-is-no-such-corpus.csv", steps=1)
