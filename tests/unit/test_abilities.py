"""Abilities of a model that is trained by gradient: ids of bos and eos in its config, its own loss, and its parameter groups."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reviewgen
from reviewgen.data import IGNORED, Batch, Lanes
from reviewgen.errors import BrokenPlugin, BundleError, ConfigError
from reviewgen.registry import plugins
from reviewgen.testing import MODEL_LAWS, make_model
from reviewgen.training import Budget, TrainingConfig
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.loop import Loop
from reviewgen.training.packing import pack, unpack
from tests.support.fakes import LETTERS, TEXTS

V, H = 11, 4
PLAIN = {"clip_norm": 1e9, "precision": "no", "threads": 1, "weight_decay": 0.1, "batch_size": 3, "bptt": 5}
QUICK = {"batch_size": 4, "bptt": 16, "threads": 1, "precision": "no", "copy_tokens": 0, "evaluation_tokens": 300}


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The settings of ``Gate``."""

    vocab_size: int
    bos_id: int
    eos_id: int = 1
    hidden_size: int = H


class Gate(nn.Module):
    """``h <- tanh(W h + embedding)``, where h is zero before a bos."""

    Config = GateConfig

    def __init__(self, config: GateConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.inner = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.vocab_size)

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, self.config.hidden_size)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for column in ids.unbind(1):
            state = torch.where((column == self.config.bos_id)[:, None], 0.0, state)
            state = torch.tanh(self.inner(state) + self.embedding(column))
            outputs.append(state)
        return self.output(torch.stack(outputs, dim=1)), state


def z_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of the squared log-sum-exp over the targets (as in PaLM)."""
    return logits.logsumexp(-1)[targets != IGNORED].square().mean()


class ZLoss(Gate):
    """With a penalty on the logits."""

    def losses(self, logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {"z": z_loss(logits, targets)}


class Smoothed(Gate):
    """With label smoothing in place of cross entropy."""

    def losses(self, logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {"cross_entropy": F.cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=0.1)}


class Grouped(Gate):
    """The embedding is frozen, and no bias decays."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        biases = [self.inner.bias, self.output.bias]
        return [
            {"params": [self.embedding.weight], "learning_rate_scale": 0.0},
            {"params": biases, "weight_decay": 0.0, "learning_rate_scale": 2.0},
        ]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of this file, registered while a test runs."""
    kinds = {"gate": Gate, "zloss": ZLoss, "smoothed": Smoothed, "grouped": Grouped}
    monkeypatch.setattr(plugins, "_registered", {})
    for name, kind in kinds.items():
        reviewgen.register_model(name, kind)


class SomeLanes(Lanes):
    """What a Loop asks of lanes."""

    batches_per_epoch = 1000

    def __init__(self) -> None:
        self.lanes, self.bptt = 3, 5

    def batches_of(self, epoch: int) -> int:
        return 1000


def make_batches(several: int = 2) -> Iterator[list[Batch]]:
    """Yield the batches of steps, which differ in their number of targets."""
    rng = np.random.default_rng(0)
    for step in itertools.count():
        batches = []
        for part in range(several):
            ids, targets = rng.integers(V, size=(2, 3, 5))
            targets[:, : step % 3 + 2 * part] = IGNORED
            batches.append(Batch(ids, targets, 0, step * several + part))
        yield batches


def make_loop(kind: type, resume: Any = None, **training: Any) -> Loop:
    torch.manual_seed(0)
    model = kind(GateConfig(vocab_size=V, bos_id=0))
    config = TrainingConfig(**{**PLAIN, "gradient_accumulation_steps": 2, **training})
    return Loop(model, config, SomeLanes(), Budget(steps=100), 0, Evaluator(LETTERS, [], config), resume)


@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", ["gate", "zloss", "smoothed", "grouped"])
def test_the_models_of_this_file_keep_the_contract(name: str, law: Any) -> None:
    law(lambda: make_model(name))


def test_a_model_that_resets_at_bos_predicts_joined_texts_as_separate_ones() -> None:
    model = make_model("gate")
    rng = np.random.default_rng(1)
    texts = [torch.tensor([[0, *rng.integers(2, V, size=length), 1]]) for length in (3, 1, 7, 5)]
    with torch.no_grad():
        separate = torch.cat([model(ids, model.initial_state(1))[0] for ids in texts], dim=1)
        joined, _ = model(torch.cat(texts, dim=1), model.initial_state(1))
        other = Gate(GateConfig(vocab_size=V, bos_id=2))  # resets elsewhere
        other.load_state_dict(model.state_dict())
        carried, _ = other(torch.cat(texts, dim=1), other.initial_state(1))
    torch.testing.assert_close(joined, separate)
    assert (carried - separate).abs().max() > 1e-3  # the state matters


def test_the_ids_come_from_the_tokenizer_and_are_checked_when_loaded(tmp_path: Path) -> None:
    model = reviewgen.train("gate-char", TEXTS, steps=2, training=QUICK, out=tmp_path / "a")
    config, tokenizer = model.bundle.model.config, model.tokenizer
    assert (config.bos_id, config.eos_id) == (tokenizer.bos_id, tokenizer.eos_id)
    again = reviewgen.load(tmp_path / "a")
    tuned = reviewgen.train(again, TEXTS, steps=1, training=QUICK)
    assert tuned.bundle.model.config == config
    for name in ("bos_id", "eos_id"):
        with pytest.raises(ConfigError, match=f"model.{name} is the tokenizer's"):
            reviewgen.train("gate-char", TEXTS, steps=1, model={name: 3})
    file = tmp_path / "a" / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["config"]["eos_id"] = 5
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match=r"eos_id 5, its tokenizer \d+: they do not belong together"):
        reviewgen.load(tmp_path / "a")


def test_the_ids_of_the_parts_of_a_blend_are_checked_when_it_is_loaded(tmp_path: Path) -> None:
    model = reviewgen.train("gate-char", TEXTS, steps=1, training=QUICK)
    reviewgen.blend([model, model]).save_pretrained(tmp_path / "a")
    assert reviewgen.load(tmp_path / "a").bundle.model.config.eos_id == model.tokenizer.eos_id
    file = tmp_path / "a" / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    parts = content["model"]["config"]["models"]
    for part, message in zip(parts, ("eos_ids 5 and", "model has eos_id 5, its tokenizer"), strict=True):
        part["config"]["eos_id"] = 5
        file.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(BundleError, match=message):
            reviewgen.load(tmp_path / "a")
    parts[0]["config"]["eos_id"] = parts[1]["config"]["eos_id"] = [5]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError):
        reviewgen.load(tmp_path / "a")


@pytest.mark.parametrize(("kind", "name"), [(ZLoss, "z"), (Smoothed, "cross_entropy")])
def test_own_terms_are_minimised_and_reported_as_means_over_the_targets_of_a_step(kind: type, name: str) -> None:
    """Of two batches with different numbers of targets, and of one process: as torch computes it over all of them."""
    loop, batches = make_loop(kind, averaging=0.0), next(make_batches())
    twin = kind(loop.model.config)
    twin.load_state_dict(loop.model.state_dict())
    state, logits = twin.initial_state(3), []
    for batch in batches:
        out, state = twin(torch.from_numpy(batch.ids), state.detach())
        logits.append(out)
    targets = torch.cat([torch.from_numpy(batch.targets) for batch in batches], dim=1)
    entropy = F.cross_entropy(torch.cat(logits, dim=1).flatten(0, 1), targets.flatten())
    term = twin.losses(torch.cat(logits, dim=1), targets)[name]
    (term if name == "cross_entropy" else entropy + term).backward()
    loss = loop.train_step(batches)
    report = loop.make_report(batches[-1], loss, ())
    assert report.nats_per_token == pytest.approx(float(entropy), rel=1e-5)
    assert {key: float(value) for key, value in report.losses.items()} == {name: pytest.approx(float(term), rel=1e-5)}
    for mine, theirs in zip(loop.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_a_batch_without_targets_adds_nothing() -> None:
    """A mean of no targets is NaN, and must not reach the weights."""
    loop, batches = make_loop(ZLoss), next(make_batches())
    batches[1].targets[:] = IGNORED
    assert float(loop.train_step(batches)) > 0
    assert loop.losses["z"].isfinite() and not loop.has_diverged(wait=True)
    assert all(parameter.isfinite().all() for parameter in loop.parameters)


def test_own_terms_are_in_the_record_by_name(tmp_path: Path) -> None:
    reviewgen.train("zloss-char", TEXTS, steps=4, training=QUICK, out=tmp_path / "a")
    record = json.loads((tmp_path / "a" / "training.json").read_text(encoding="utf-8"))
    assert all(value > 0 for value in record["curve"]["loss.z"])
    assert len(record["curve"]["loss.z"]) == len(record["curve"]["train_nats_per_token"])
    assert record["evaluations"][-1]["loss.z"] > 0
    entropy, term = record["curve"]["train_nats_per_token"][0], record["curve"]["loss.z"][0]
    assert entropy == pytest.approx(term**0.5, abs=1.5)  # both are about the log of the vocabulary size


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({}, "at least one term"),
        (torch.zeros(()), "at least one term by name"),
        ({"z": 1.0}, "z must be a tensor without dimensions; got a float"),
        ({"z": torch.zeros(3)}, r"z must be a floating-point tensor without dimensions; got float32 of the shape \(3,\)"),
        ({"z": torch.tensor(3)}, r"z must be a floating-point tensor without dimensions; got int64 of the shape \(\)"),
        ({3: torch.zeros(())}, "a term's name must have letters, digits, .* got 3"),
        ({"a\nb": torch.zeros(())}, r"a term's name must have .* got 'a\\nb'"),
        ({"cross_entropy": torch.zeros(())}, "cross_entropy replaces the cross entropy and has no gradient"),
    ],
)
def test_wrong_terms_are_refused(returned: Any, message: str) -> None:
    class Wrong(Gate):
        def losses(self, logits: Tensor, targets: Tensor) -> Any:
            return returned

    with pytest.raises(BrokenPlugin, match=message):
        make_loop(Wrong, threads=1).train_step(next(make_batches()))


def test_a_term_that_is_nan_is_named() -> None:
    class Nan(Gate):
        def losses(self, logits: Tensor, targets: Tensor) -> Any:
            return {"odd": (logits * torch.nan).sum()}

    loop, batches = make_loop(Nan), next(make_batches())
    report = loop.make_report(batches[-1], loop.train_step(batches), ())
    assert loop.has_diverged(wait=False)
    with pytest.raises(reviewgen.ReviewgenError, match="The loss term 'odd' is nan at step 1"):
        loop.end_diverged(report)


def test_parameter_groups_train_as_torchs_own_optimizer_with_such_groups() -> None:
    loop = make_loop(Grouped, optimizer="adamw", gradient_accumulation_steps=1)
    twin = Grouped(loop.model.config)
    twin.load_state_dict(loop.model.state_dict())
    matrices = [twin.inner.weight, twin.output.weight]
    settings = [([twin.embedding.weight], 0.0, 0.1), ([twin.inner.bias, twin.output.bias], 2.0, 0.0), (matrices, 1.0, 0.1)]
    other = torch.optim.AdamW([{"params": each, "weight_decay": decay} for each, _, decay in settings], betas=(0.9, 0.99))
    state = twin.initial_state(3)
    for batches in itertools.islice(make_batches(several=1), 4):
        loop.train_step(batches)
        logits, state = twin(torch.from_numpy(batches[0].ids), state.detach())
        other.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batches[0].targets).flatten()).backward()
        for group, (_, scale, _) in zip(other.param_groups, settings, strict=True):
            group["lr"] = loop.learning_rate * scale
        other.step()
    for mine, theirs in zip(loop.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_matrices_of_a_group_follow_the_default_rule_and_may_be_moved() -> None:
    class Moved(Gate):
        def parameter_groups(self) -> Any:
            inner = [self.inner.weight, self.inner.bias]
            return [{"params": inner, "weight_decay": 0.5}, {"params": [self.output.weight], "optimizer": "muon"}]

    def names(loop: Loop) -> dict[str, list[list[str]]]:
        by_id = {id(parameter): name for name, parameter in loop.model.named_parameters()}
        return {
            type(optimizer).__name__: [[by_id[id(each)] for each in group["params"]] for group in optimizer.param_groups]
            for optimizer in loop.optimizers
        }

    expected = {"AdamW": [["inner.bias"], ["embedding.weight", "output.bias"]], "Muon": [["inner.weight"], ["output.weight"]]}
    assert names(make_loop(Moved)) == expected
    assert names(make_loop(Moved, optimizer="adamw")).keys() == {"AdamW"}


def test_a_run_with_groups_resumes_exactly() -> None:
    whole, batches = make_loop(Grouped), list(itertools.islice(make_batches(), 6))
    for step in batches[:3]:
        whole.train_step(step)
    state = unpack(*pack(whole.state()))
    resumed = make_loop(Grouped, resume=state)
    for step in batches[3:]:
        assert float(whole.train_step(step)) == float(resumed.train_step(step))
    for one, other in zip(whole.parameters, resumed.parameters, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (lambda m: [{"params": [m.inner.bias]}, {"params": [m.inner.bias]}], "group 1 has inner.bias, which is in a group"),
        (lambda m: [{"params": [m.inner.bias, m.inner.bias]}], "group 0 has inner.bias, which is in a group already"),
        (lambda m: [{"params": [m.inner.bias], "lr": 1}], "group 0 has the key 'lr'; a group has params, optimizer"),
        (lambda m: [{"params": [torch.zeros(2)]}], "place 0 of params something that is not a parameter"),
        (lambda m: [{"params": [m.inner.bias], "optimizer": "sgd"}], "has the optimizer 'sgd'"),
        (lambda m: [{"params": [m.inner.bias], "optimizer": "muon"}], "inner.bias to muon, which is for matrices"),
        (lambda m: [{"params": [m.inner.bias], "weight_decay": -1}], "weight_decay=-1; it must be a number of at least 0"),
        (lambda m: [{"params": [m.inner.bias], "learning_rate_scale": "2"}], "learning_rate_scale='2'"),
    ],
)
def test_wrong_groups_are_refused(groups: Any, message: str) -> None:
    class Wrong(Gate):
        def parameter_groups(self) -> Any:
            return groups(self)

    with pytest.raises(BrokenPlugin, match=message):
        make_loop(Wrong)


class Summed(Gate):
    """A sum where a mean is due."""

    def losses(self, logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {"z": logits.square().sum()}


class Detached(Gate):
    """Nothing to minimise."""

    def losses(self, logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {"z": logits.detach().mean()}


class Undefined(Gate):
    """The cross entropy of targets that are to be ignored."""

    def losses(self, logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        return {"z": logits.mean() / (targets >= 0).all()}


class Changing(Gate):
    """Another name at each call."""

    calls = 0

    def losses(self, logits: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        self.calls += 1
        return {f"z{self.calls}": logits.mean()}


class Twice(Gate):
    """One parameter in two groups."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.inner.bias]}, {"params": [self.inner.bias]}]


class Shuffled(Gate):
    """Other groups at each call."""

    calls = 0

    def parameter_groups(self) -> list[dict[str, Any]]:
        self.calls += 1
        return [{"params": [self.inner.bias if self.calls % 2 else self.output.bias]}]


@pytest.mark.parametrize(
    ("law", "kind", "message"),
    [
        ("losses", Summed, r"losses\(\)\['z'\] changes if each row is there twice"),
        ("losses", Detached, "require no gradient"),
        ("losses", Undefined, r"losses\(\)\['z'\] is -?inf"),
        ("losses", Changing, r"returns \['z2'\] after \['z1'\]"),
        ("parameter_groups", Twice, "inner.bias, which is in a group already"),
        ("parameter_groups", Shuffled, "must return the same groups at each call"),
    ],
)
def test_the_laws_find_planted_faults(law: str, kind: type, message: str) -> None:
    check = {each.__name__: each for each in MODEL_LAWS}[law]
    with pytest.raises(AssertionError, match=message):
        check(lambda: kind(GateConfig(vocab_size=V, bos_id=0)).eval())
