"""Abilities of a model that is trained by gradient: ids of bos and eos in its config, its own loss,
and its parameter groups.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reviewgen
from reviewgen import TrainingRun
from reviewgen.data.lanes import IGNORED
from reviewgen.errors import BrokenPlugin, BundleError, ConfigError
from tests.support.fakes import TEXTS
from tests.support.faults.models import FAULTS, Twin
from tests.support.trainings import ready

QUICK = {
    "batch_size": 4,
    "bptt": 16,
    "threads": 1,
    "precision": "no",
    "copy_tokens": 0,
    "evaluation_tokens": 300,
}
PLAIN = QUICK | {
    "evaluations": 1,
    "clip_norm": 1e9,
    "weight_decay": 0.1,
    "batch_size": 3,
    "bptt": 5,
}
PLAIN |= {"averaging": 0.0, "optimizer": "adamw"}


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The settings of ``Gate``."""

    vocab_size: int
    bos_id: int
    eos_id: int = 1
    hidden_size: int = 4


class Gate(Twin):
    """``Twin`` with h zero before a bos; keeps what it was trained on."""

    Config = GateConfig

    def __init__(self, config: GateConfig) -> None:
        super().__init__(config)
        self.seen: list[tuple[Tensor, Tensor]] = []  # ids and targets

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, self.config.hidden_size)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        self.ids = ids
        for column in ids.unbind(1):
            state = torch.where((column == self.config.bos_id)[:, None], 0.0, state)
            state = torch.tanh(self.recurrent(state) + self.embedding(column))
            outputs.append(state)
        return self.output(torch.stack(outputs, dim=1)), state


class ZLoss(Gate):
    """With a penalty on the logits: the mean of the squared log-sum-exp over the targets (as in
    PaLM).
    """

    def losses(self, logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        if self.training:
            self.seen.append((self.ids, targets))
        return {"z": logits.logsumexp(-1)[targets != IGNORED].square().mean()}


class Smoothed(Gate):
    """With label smoothing in place of cross entropy."""

    smoothing = 0.1

    def losses(self, logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        if self.training:
            self.seen.append((self.ids, targets))
        return {
            "cross_entropy": F.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), label_smoothing=self.smoothing
            )
        }


class Both(ZLoss):
    """With both."""

    def losses(self, logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        smoothed = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.1)
        return {"cross_entropy": smoothed, **super().losses(logits, targets)}


class Grouped(Smoothed):
    """The embedding is frozen, and no bias decays."""

    smoothing = 0.0

    def parameter_groups(self) -> list[dict[str, Any]]:
        biases = [self.recurrent.bias, self.output.bias]
        return [
            {"params": [self.embedding.weight], "learning_rate_scale": 0.0},
            {"params": biases, "weight_decay": 0.0, "learning_rate_scale": 2.0},
        ]


class TimeFirst(Gate):
    """With torch's layer, which expects (T, B, H)."""

    def __init__(self, config: GateConfig) -> None:
        super().__init__(config)
        self.gru = nn.GRU(config.hidden_size, config.hidden_size)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden, after = self.gru(self.embedding(ids), state[None])
        return self.output(hidden), after[0]


@pytest.fixture(autouse=True)
def registered(untouched_registry: None) -> None:
    for name, kind in {
        "gate": Gate,
        "zloss": ZLoss,
        "smoothed": Smoothed,
        "grouped": Grouped,
    }.items():
        reviewgen.register_model(name, kind)


def started(kind: type, **options: Any) -> TrainingRun:
    reviewgen.register_model("tested", kind)
    return ready("tested-char", TEXTS, **({"steps": 6, "training": PLAIN} | options))


def twin_of(model: Any) -> Any:
    """Return another model with the same weights."""
    twin = type(model)(model.config)
    twin.load_state_dict(model.state_dict())
    return twin.train()


def test_the_ids_come_from_the_tokenizer_and_are_checked_when_loaded(tmp_path):
    model = reviewgen.train("gate-char", TEXTS, steps=2, training=QUICK, out=tmp_path / "a")
    config = model.bundle.model.config
    tokenizer = model.tokenizer
    assert (config.bos_id, config.eos_id) == (tokenizer.bos_id, tokenizer.eos_id)
    further = reviewgen.train(reviewgen.load(tmp_path / "a"), TEXTS, steps=1, training=QUICK)
    assert further.bundle.model.config == config
    for name in ("bos_id", "eos_id"):
        with pytest.raises(ConfigError, match=f"model.{name} is the tokenizer's"):
            reviewgen.train("gate-char", TEXTS, steps=1, model={name: 3})
    config_file = tmp_path / "a" / "config.json"
    original = config_file.read_text(encoding="utf-8")
    config_file.write_text(
        original.replace(f'"bos_id": {tokenizer.bos_id}', '"bos_id": 5'), encoding="utf-8"
    )
    with pytest.raises(BundleError, match=r"bos_id 5, its tokenizer \d+"):
        reviewgen.load(tmp_path / "a")


@pytest.mark.parametrize("kind", [ZLoss, Smoothed, Both])
def test_own_terms_are_minimised_and_reported_as_means_over_the_targets_of_a_step(kind):
    """Of two batches with different numbers of targets: as torch computes it over all of them."""
    run = started(kind, training=PLAIN | {"gradient_accumulation_steps": 2})
    twin = twin_of(run.model)
    report = next(iter(run))
    state = twin.initial_state(3)
    logits = []
    targets = []
    for ids, its_targets in run.model.seen[-2:]:
        out, state = twin(ids, state.detach())
        logits.append(out)
        targets.append(its_targets)
    every_logit = torch.cat(logits, dim=1)
    every_target = torch.cat(targets, dim=1)
    entropy = F.cross_entropy(
        every_logit.flatten(0, 1), every_target.flatten(), ignore_index=IGNORED
    )
    terms = twin.losses(every_logit, every_target)
    sum(terms.values(), 0 if "cross_entropy" in terms else entropy).backward()
    assert report.nats_per_token == pytest.approx(float(entropy.detach()), rel=1e-5)
    assert {key: float(value) for key, value in report.losses.items()} == pytest.approx(
        {key: float(term.detach()) for key, term in terms.items()}, rel=1e-5
    )
    for mine, theirs in zip(run.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


BROKEN = {law: FAULTS[law][0] for law in ("causal", "rows")}
BROKEN["shape"] = TimeFirst, "The state is (B, H) = (3, 4), but your layer read T = 12 as B"


@pytest.mark.parametrize("law", BROKEN)
def test_a_model_that_breaks_the_contract_is_not_trained(law):
    kind, words = BROKEN[law]
    reviewgen.register_model("tested", kind)
    with pytest.raises(BrokenPlugin, match=f"breaks the law '{law}'.*{re.escape(words)}"):
        reviewgen.train("tested-char", TEXTS, steps=1, training=QUICK)


def test_parameter_groups_train_as_torchs_own_optimizer_with_such_groups():
    run = started(Grouped)
    twin = twin_of(run.model)
    settings = [
        ([twin.embedding.weight], 0.0, 0.1),
        ([twin.recurrent.bias, twin.output.bias], 2.0, 0.0),
    ]
    settings.append(([twin.recurrent.weight, twin.output.weight], 1.0, 0.1))
    adamw = torch.optim.AdamW(
        [{"params": each, "weight_decay": decay} for each, _, decay in settings], betas=(0.9, 0.99)
    )
    state = twin.initial_state(3)
    for report in itertools.islice(run, 4):
        ids, targets = run.model.seen[-1]
        logits, state = twin(ids, state.detach())
        adamw.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED).backward()
        for group, (_, scale, _) in zip(adamw.param_groups, settings, strict=True):
            group["lr"] = report.learning_rate * scale
        adamw.step()
        for mine, theirs in zip(run.model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
