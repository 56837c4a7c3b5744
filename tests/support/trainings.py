"""Trainings that tests watch step by step: of small networks, and of a model whose scores and speed
are planted.
"""

import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from reviewgen import ReviewModel, TrainingRun
from reviewgen.config.training import TrainingConfig
from reviewgen.training.loop import fit
from reviewgen.training.report import Budget, Report
from tests.support.fakes import TEXTS

__all__ = [
    "MODEL",
    "TRAINING",
    "Clock",
    "Planted",
    "fitted",
    "plain_store",
    "prepared",
    "ready",
    "texts_of",
    "trained",
    "weights_of",
]

MODEL = {"hidden_size": 8, "embedding_size": 4, "layer": "fused"}
TRAINING: dict[str, Any] = {
    "batch_size": 4,
    "bptt": 8,
    "threads": 1,
    "precision": "no",
    "evaluations": 2,
} | {"evaluation_tokens": 500, "copy_tokens": 0, "metrics": [], "calibration": False}
"""Settings under which two runs of one seed are equal, and an evaluation takes milliseconds."""


def ready(*arguments: Any, **options: Any) -> TrainingRun:
    """Return a run that has read its texts and tokenized them."""
    run = TrainingRun(*arguments, **options)
    run.read()
    run.tokenize()
    return run


def prepared(start: Any = "gru-char", source: Any = TEXTS, **options: Any) -> TrainingRun:
    """Return a run that is ready to train: ten steps of a small network unless the options say
    otherwise.
    """
    if isinstance(start, str) and start.startswith(("rnn", "gru", "lstm")):
        options["model"] = MODEL | options.get("model", {})
    options["training"] = TRAINING | options.get("training", {})
    length = {} if options.keys() & {"steps", "epochs", "budget"} else {"steps": 10}
    return ready(start, source, **length, **options)


def trained(
    start: Any = "gru-char", source: Any = TEXTS, **options: Any
) -> tuple[TrainingRun, list[Report], ReviewModel]:
    """Return a finished run, its reports and its model."""
    run = prepared(start, source, **options)
    reports = list(run)
    return run, reports, run.finish()


def weights_of(model: Any) -> dict[str, Tensor]:
    """Return a copy of a model's weights."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def texts_of(run: TrainingRun, split: str) -> list[str]:
    """Return the texts of a split of a prepared run without conditions."""
    store = run.corpus.stores[split]
    return [
        run.corpus.tokenizer.decode(store.document(number)[1:-1].tolist())
        for number in range(len(store))
    ]


class Clock:
    """A clock that stands still unless it is moved; for ``time.monotonic`` and
    ``time.perf_counter``.
    """

    def __init__(self, monkeypatch: Any) -> None:
        self.now = 1000.0
        for name in ("monotonic", "perf_counter"):
            monkeypatch.setattr(f"time.{name}", lambda: self.now)

    def __deepcopy__(self, memo: Any) -> "Clock":
        return self


class Planted(nn.Module):
    """A model that has learned nothing, whose held-out score depends on the steps taken, as a test
    has planted it.

    Args:
        nats: Excess of the held-out score after some steps: the logit of a token that never occurs.
        passed: Called with each batch of a training; may sleep, move a clock, or raise.
    """

    Config: ClassVar[type] = SimpleNamespace

    def __init__(
        self,
        nats: Callable[[int], float] = lambda steps: 0.0,
        passed: Callable[..., None] = lambda *_: None,
    ) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=plain_store().corpus.tokenizer.vocab_size)
        self.logits = nn.Parameter(torch.zeros(self.config.vocab_size))
        self.nats = nats
        self.passed = passed
        self.steps = 0

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 1)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.passed(self, ids)
        self.steps += self.training
        if self.training:
            return self.logits.expand(*ids.shape, -1), state
        logits = torch.zeros(len(self.logits))
        logits[plain_store().corpus.tokenizer.bos_id] = self.nats(self.steps)
        return logits.expand(*ids.shape, -1), state


@functools.cache
def plain_store() -> TrainingRun:
    """A prepared corpus of one-letter words: its tokens and tokenizer."""
    return prepared(
        "ngram-char",
        [" ".join(np.random.default_rng(n).choice(list("abcdefgh"), 20)) for n in range(200)],
    )


def fitted(
    model: Any, *, seed: int = 0, metrics: Any = None, budget: Budget | None = None, **training: Any
) -> Iterator[Report]:
    """Train a model on the plain corpus; ``steps`` stands for a budget of that many steps."""
    run = plain_store()
    budget = budget or Budget(steps=training.pop("steps", 10))
    config = TrainingConfig(**TRAINING | {"metrics": ()} | training)
    return fit(
        model,
        run.corpus.tokenizer,
        run.corpus.stores["train"],
        run.corpus.stores["validation"],
        config,
        budget,
        seed,
        metrics=metrics,
    )
