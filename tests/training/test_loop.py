"""The training loop: its numbers beside a plain loop of torch, where it ends, and which weights are
kept.
"""

import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numba.core import event
from torch import Tensor, nn
from torch.nn import functional as F

import reviewgen
from reviewgen import TrainingRun
from reviewgen.config.training import TrainingConfig
from reviewgen.data.lanes import IGNORED, Lanes
from reviewgen.errors import BrokenPlugin, ConfigError, TrainingError
from reviewgen.evaluation.metrics import TextMetrics
from reviewgen.novelty import ExactIndex
from reviewgen.processes import all_processes
from reviewgen.training import device
from reviewgen.training.loop import fit
from reviewgen.training.report import Budget
from tests.support.fakes import TEXTS, TableModel
from tests.support.trainings import (
    MODEL,
    TRAINING,
    Clock,
    Planted,
    fitted,
    plain_store,
    prepared,
    trained,
    weights_of,
)

WIDE = {"batch_size": 8, "bptt": 96, "evaluations": 1, "warmup": 0.5}


def lanes_of(run: TrainingRun, **changes: Any) -> Lanes:
    config = run.record.training
    settings = {
        "lanes": config.batch_size,
        "bptt": config.bptt,
        "is_random": config.bptt_random,
        "seed": 0,
    } | changes
    return Lanes(run.corpus.stores["train"], **settings)


def detached(state: Any) -> Any:
    return tuple(map(detached, state)) if isinstance(state, tuple) else state.detach()


def train_plainly(run: TrainingRun, steps: int) -> tuple[list[float], list[int], Any]:
    """Each step reads n consecutive batches of the lanes and minimises the mean over all their
    targets but bos.
    """
    model = type(run.model)(run.model.config)
    config = run.record.training
    model.load_state_dict(weights_of(run.model))
    inner = {
        name: torch.tensor(0.0)
        for name in model.state_dict()
        if config.optimizer == "muon" and "weight_" in name
    }
    others = [
        p for name, p in model.named_parameters() if name not in inner and "table" not in name
    ]
    # which decays at every sixteenth step
    (table,) = [p for name, p in model.named_parameters() if "table" in name]
    adam = torch.optim.AdamW(others, betas=(0.9, 0.99))
    squares = torch.zeros(len(table), 1)
    lanes = lanes_of(run)
    losses = []
    lengths = []
    state = None
    batches = lanes.start_at()
    for step in range(steps):
        rate = config.learning_rate * (
            0.04 + 0.96 * step / 2 if step < steps / 2 else (steps - step) / 2
        )
        taken = list(itertools.islice(batches, config.gradient_accumulation_steps))
        nats = []
        lengths.append([batch.ids.shape[1] for batch in taken])
        if config.bptt_random:
            rate *= np.mean(lengths[-1]) / config.bptt
        adam.param_groups[0] |= {"lr": rate, "weight_decay": config.weight_decay}
        for batch in taken:
            state = model.initial_state(lanes.lanes) if batch.number == 0 else detached(state)
            logits, state = model(torch.from_numpy(batch.ids), state)
            targets = torch.from_numpy(batch.targets)
            nats.append(
                F.cross_entropy(
                    logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED
                )
            )
            nats[-1] = nats[-1][targets.flatten() != IGNORED]
        loss = torch.cat(nats).mean()
        model.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            parameter.grad = None if parameter.grad is None else parameter.grad.to_dense()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        adam.step()
        squares = 0.99 * squares + 0.01 * table.grad.square().mean(dim=1, keepdim=True)
        table.data -= rate * table.grad / ((squares / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8)
        for name in inner:
            weights = model.get_parameter(name)
            inner[name] = 0.95 * inner[name] + 0.05 * weights.grad
            move = (
                0.2
                * max(weights.shape) ** 0.5
                * orthogonal(0.95 * inner[name] + 0.05 * weights.grad)
            )
            weights.data = weights.data * (1 - rate * config.weight_decay) - rate * move
        losses.append(loss.item())
    return losses, lengths, model


def orthogonal(momentum: Tensor) -> Tensor:
    """Return the matrix with singular values near one, by five steps of Newton and Schulz's
    iteration on them, in 64 bits.
    """
    left, values, right = torch.linalg.svd(momentum.double(), full_matrices=False)
    values = values / values.square().sum().sqrt()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values @ right).float()


@pytest.mark.parametrize(
    "preset, settings",
    [
        ("gru-char", {"optimizer": "adamw"}),
        ("lstm-char", {"optimizer": "adamw", "gradient_accumulation_steps": 3, "clip_norm": 0.05}),
        (
            "gru-char",
            {
                "optimizer": "adamw",
                "gradient_accumulation_steps": 2,
                "bptt_random": True,
                "clip_norm": 0.05,
            },
        ),
        ("gru-char", {"gradient_accumulation_steps": 3}),
        ("rnn-char", {"bptt_random": True}),
    ],
    ids=str,
)
def test_losses_and_weights_are_those_of_a_plain_loop(preset, settings):
    """Four steps, over the ends of epochs, where the carried state starts anew."""
    run = prepared(preset, steps=4, model={"hidden_size": 24}, training=WIDE | settings)
    expected, lengths, model = train_plainly(run, 4)
    reports = list(run)
    near = 1e-5 if settings.get("optimizer") else 1e-3  # torch's Muon rounds to bfloat16
    assert [report.nats_per_token for report in reports] == pytest.approx(expected, abs=near)
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=0, atol=100 * near)
    tokens = lanes_of(run).lanes * np.cumsum([sum(each) for each in lengths])
    assert [report.tokens for report in reports] == tokens.tolist()
    assert [report.bptt for report in reports] == [
        each[-1] if run.record.training.bptt_random else None for each in lengths
    ]
    assert [report.progress for report in reports] == [0.25, 0.5, 0.75, 1]
    rates = [report.learning_rate for report in reports]
    assert rates == pytest.approx(
        [run.record.training.learning_rate * share for share in (0.04, 0.52, 1, 0.5)]
    )
    assert reports[-1].epoch > 0 and reports[-1].stopped == "all steps taken"


def test_terms_must_keep_their_names():
    class Changing(Planted):
        def losses(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
            return {f"term{self.steps}": self.logits.sum()}

    with pytest.raises(BrokenPlugin, match="same names"):
        list(fitted(Changing()))


class ScalingAccelerator(Accelerator):
    """Scales the loss on a CPU, where accelerate has no fp16."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scaler = torch.amp.GradScaler("cpu")

    def prepare_optimizer(self, optimizer: Any, device_placement: bool | None = None) -> Any:
        self.prepared = super().prepare_optimizer(optimizer, device_placement)
        return self.prepared

    def unscale_gradients(self, optimizer: Any = None) -> None:
        self.scaler.unscale_(self.prepared.optimizer)


@pytest.mark.parametrize("spoilt", [None, 3])
def test_fp16_s_scaler_leaves_the_numbers_alone_and_an_infinite_gradient_out(spoilt, monkeypatch):
    """The scaler is switched on on the CPU, without the narrow numbers that it is for."""
    _, plain, _ = trained(steps=5, training={"evaluations": 1})
    monkeypatch.setattr(device, "Accelerator", ScalingAccelerator)
    run = prepared(steps=5, training={"evaluations": 1})
    before = {}
    forward = type(run.model).forward
    calls = itertools.count(1)

    def spoiling(self: Any, ids: Tensor, state: Any) -> Any:
        logits, state = forward(self, ids, state)
        if self.training and next(calls) == spoilt:
            logits.register_hook(lambda gradient: gradient * math.inf)
        return logits, state

    monkeypatch.setattr(type(run.model), "forward", spoiling)
    reports = []
    for report in run:
        reports.append(report.nats_per_token)
        before[report.step] = weights_of(run.model)
    if spoilt is None:
        assert reports == pytest.approx([report.nats_per_token for report in plain], abs=1e-5)
    else:  # the step is left out, and the run goes on
        assert all(torch.equal(before[3][name], tensor) for name, tensor in before[2].items())
        assert not all(torch.equal(before[4][name], tensor) for name, tensor in before[3].items())
        assert len(reports) == 5


# Which weights are kept.


def test_averaged_weights_are_those_that_are_kept():
    run = prepared(steps=6, training={"averaging": 0.8, "evaluations": 1})
    weights = [weights_of(run.model) for _ in run]
    average = weights[0]
    for later in weights[1:-1]:
        average = {name: 0.8 * average[name] + 0.2 * later[name] for name in average}
    kept = run.model.state_dict()
    assert any(not torch.allclose(kept[name], weights[-2][name]) for name in kept)
    # the weights after the last step
    last = {name: (kept[name] - 0.8 * average[name]) / 0.2 for name in kept}
    assert all((last[name] - weights[-2][name]).abs().max() < 0.05 for name in kept)


def test_the_best_weights_are_kept_even_if_later_ones_are_worse():
    scores = {1: 5.0, 4: 3.0, 9: 2.0, 16: 2.0, 25: 4.0}  # equal is not better
    model = Planted(lambda step: scores[step])
    weights = {}
    judged = {}
    for report in fitted(model, steps=25, evaluations=5, patience=9):
        weights[report.step] = model.logits.detach().clone()
        judged |= {report.step: report} if report.evaluation else {}
    assert [step for step, report in judged.items() if report.is_best] == [1, 4, 9]
    assert list(judged) == list(scores) and all(
        report.sample is not None for report in judged.values()
    )
    assert torch.equal(model.logits, weights[9]) and not torch.equal(model.logits, weights[16])
    assert not model.training


def test_without_a_finite_score_the_last_weights_are_kept():
    model = Planted(lambda steps: math.inf)
    reports = list(fitted(model, steps=12, evaluations=10, patience=1))
    assert len(reports) == 12 and reports[-1].stopped == "all steps taken"
    assert not any(report.notes for report in reports)
    assert not any(parameter.eq(0).all() for parameter in model.parameters())


def test_equal_seeds_give_equal_weights_and_leave_global_state_alone():
    options = {"steps": 5, "model": {"output_dropout": 0.5}}
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads()
    weights = [
        trained("lstm-char", seed=seed, **options)[2].model.state_dict()
        for seed in (1, 1, 2**64 - 1)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not any(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert (
        torch.equal(torch.get_rng_state(), before[0])
        and np.random.get_state()[1].tolist() == before[1]
    )
    assert torch.get_num_threads() == before[2]
    with pytest.raises(ConfigError, match="below 2"):
        TrainingRun("gru-char", TEXTS, seed=2**64)


@pytest.mark.parametrize("limit, best", [(0.2, 9), (0.05, 16)])
def test_the_best_weights_within_the_copy_limit_are_kept(limit, best):
    """Beyond it, those with the lowest rate: and a note says so, once."""

    class Rates(ExactIndex):
        """Measures the planted rates."""

        form = "exact"
        stride = 1
        rates = iter([0.9, 0.4, 0.2, 0.1])

        def __init__(self) -> None:
            """Hold no text."""

        def token_copy_rate(self, texts: Any) -> float:
            assert len(texts) == 4
            return next(self.rates)

    scores = {1: 1.0, 4: 0.0, 9: 2.0, 16: 3.0}
    model = Planted(lambda step: scores[step])
    plain = plain_store().corpus
    weights = {}
    changes = {
        "keep": "best-under-copy",
        "copy_limit": limit,
        "copy_tokens": 1600,
        "evaluations": 4,
        "patience": 9,
        "metrics": (),
    }
    config = TrainingConfig(**TRAINING | changes)
    stores = plain.stores
    reports = []
    for report in fit(
        model,
        plain.tokenizer,
        stores["train"],
        stores["validation"],
        config,
        Budget(steps=16),
        0,
        index=Rates(),
    ):
        reports.append(report)
        weights[report.step] = model.logits.detach().clone()
    assert [report.token_copy_rate for report in reports if report.evaluation] == [
        0.9,
        0.4,
        0.2,
        0.1,
    ]
    assert torch.equal(model.logits, weights[best])
    notes = list(itertools.chain.from_iterable(report.notes for report in reports))
    if best == 9:
        assert notes == []
    else:
        [note] = notes
        assert "training.copy_limit=0.05" in note and "0.100" in note


# Budgets.


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("epochs", [2, 0.5])
def test_epochs_are_passes_over_the_lanes(epochs, accumulated):
    run = prepared(epochs=epochs, training={"gradient_accumulation_steps": accumulated})
    batches = round(
        epochs
        * sum(
            1 for _ in itertools.takewhile(lambda batch: batch.epoch == 0, lanes_of(run).start_at())
        )
    )
    reports = list(run)
    steps = math.ceil(batches / accumulated)
    assert [report.progress for report in reports] == [step / steps for step in range(1, steps + 1)]
    assert {report.epoch for report in reports} >= set(range(math.ceil(epochs)))
    assert len(list(fitted(Planted(), steps=1))) == 1
    assert reports[-1].tokens == steps * accumulated * 4 * 8


class SlowMetrics(TextMetrics):
    """Measuring takes two seconds of a clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def __bool__(self) -> bool:
        return True

    def measure(self, texts: Any) -> dict[str, float | None]:
        self.clock.now += 2.0
        return {}


def timed(
    monkeypatch: Any,
    length: float | Budget,
    metrics: Callable[[Clock], TextMetrics] = lambda _: TextMetrics(),
    nats: Callable[[int], float] = lambda steps: 0.0,
    **training: Any,
) -> Any:
    """Return the reports of a run of some seconds, whose first step takes a minute, as if it
    compiled, and others a second.
    """
    clock = Clock(monkeypatch)

    def passed(model: Planted, ids: Tensor) -> None:
        clock.now += model.training and (60 if model.steps == 0 else 1)

    training = {
        "budget": length if isinstance(length, Budget) else Budget(seconds=length),
        "patience": 99,
    } | training
    return list(fitted(Planted(nats, passed), metrics=metrics(clock), warmup=0.0, **training))


def test_a_time_budget_is_used_up_to_the_second(monkeypatch):
    reports = timed(monkeypatch, 20.0)
    assert [report.progress for report in reports] == pytest.approx(
        [step / 20 for step in range(21)]
    )
    assert [report.seconds for report in reports] == pytest.approx(range(21))
    assert [report.learning_rate for report in reports] == pytest.approx(
        [0.01, *(0.01 * (1 - step / 20) for step in range(20))]
    )
    assert reports[-1].stopped == "budget spent" and reports[-1].evaluation is not None


def test_evaluations_take_their_share_of_a_time_budget_and_the_last_one_is_reserved(monkeypatch):
    """Of 2 s each, they may take 6 %: the first after 34 s or more, each next one as much later,
    and the last at the end.
    """
    reports = timed(monkeypatch, 200.0, SlowMetrics, evaluations=100)
    evaluated = [report for report in reports if report.evaluation]
    assert [report.evaluation_seconds for report in evaluated] == pytest.approx(
        [2 * n for n in range(1, len(evaluated) + 1)]
    )
    assert [report.seconds for report in evaluated] == pytest.approx(
        [2, 66, 99, 132, 165, 198], abs=2
    )


class CompilingMetrics(SlowMetrics):
    """All the time that measuring takes is spent compiling, as far as numba says."""

    def measure(self, texts: Any) -> dict[str, float | None]:
        with event.trigger_event("numba:compile", {"dispatcher": self}):
            return super().measure(texts)


def test_compiling_in_an_evaluation_takes_no_time_of_the_budget(monkeypatch):
    reports = timed(monkeypatch, 20.0, CompilingMetrics, evaluations=20)
    assert sum(report.evaluation is not None for report in reports) > 5
    assert reports[-1].evaluation_seconds == 0
    assert [report.seconds for report in reports] == pytest.approx(range(21))


@pytest.mark.slow
def test_an_empty_compilation_cache_takes_no_time_of_the_budget(tmp_path):
    data = tmp_path / "reviews.txt"
    out = tmp_path / "model"
    data.write_text("\n".join(TEXTS))
    command = [
        sys.executable,
        "-m",
        "reviewgen",
        "train",
        "gru-char",
        "--data",
        str(data),
        "--out",
        str(out),
        "--budget",
        "2s",
    ]
    subprocess.run(
        command,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        check=True,
        capture_output=True,
    )
    training = json.loads((out / "training.json").read_text())
    assert training["evaluations"][-1]["seconds"] < 8  # compiling takes 15 s or more


@pytest.mark.parametrize("length", [Budget(seconds=400), Budget(steps=300), Budget(epochs=2.5)])
@pytest.mark.parametrize("patience", [99, 2])
def test_the_time_of_an_epoch_and_the_time_left(length, patience, monkeypatch):
    """A step takes a second, the first a minute, an evaluation two. From step 100 on held-out text
    gets worse.
    """
    worse = {"nats": lambda step: 1 + abs(step - 100) / 200}
    reports = timed(
        monkeypatch, length, SlowMetrics, evaluations=9, patience=patience, batch_size=8, **worse
    )
    batches = Lanes(plain_store().corpus.stores["train"], lanes=8, bptt=8, seed=0).batches_of(0)
    assert [report.epochs for report in reports] == pytest.approx(
        [step / batches for step in range(1, len(reports) + 1)]
    )
    assert reports[0].seconds_per_epoch is reports[0].seconds_left is None
    assert [report.seconds_per_epoch for report in reports[1:]] == pytest.approx(
        [batches] * (len(reports) - 1)
    )
    measured = [report.step for report in reports if report.evaluation]
    turns = [
        report.step
        for report in reports
        if report.notes and "its weights are restored" in report.notes[0]
    ]
    assert bool(turns) == (patience == 2)
    known = [
        report
        for report in reports
        if report.step > max(measured[:1] + turns) and report.step not in measured
    ]
    # the last evaluation follows
    real = [reports[-1].seconds + 2 - report.seconds for report in known]
    assert len(real) > 10 and [report.seconds_left for report in known] == pytest.approx(
        real, abs=2.1
    )


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def test_the_line_of_a_training_fits_a_terminal_of_80_columns(monkeypatch):
    for name, value in {"COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    reviewgen.train("gru-char", TEXTS, budget="2s", model=MODEL, training=TRAINING)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()))
    assert max(map(len, lines)) <= 80
    wanted = r"━ +\d+% 0:\d\d:\d\d epoch \d+\.\d, [\d.]+ s an epoch, [\d.]+ s left, \d\.\d{3} nats"
    assert any(re.search(wanted, line) for line in lines)


def test_a_budget_shorter_than_a_step_takes_one_more_after_the_first():
    _, reports, model = trained(budget=0.0001)
    assert len(reports) == 2 and reports[-1].evaluation is not None
    assert model.training["budget_seconds"] == 0.0001


@pytest.mark.parametrize("speed, texts", [(10.0, 1), (1000.0, 4), (1e9, 20)])
def test_a_slow_model_is_evaluated_on_fewer_texts_of_a_time_budget(speed, texts, monkeypatch):
    """Of 100 s, 0.3 s for each of ten evaluations are for scoring: 3, 300 or any number of
    tokens.
    """
    clock = Clock(monkeypatch)

    def passed(model: Planted, ids: Tensor) -> None:
        clock.now += 1.0 if model.training else ids.numel() / speed

    run = fitted(
        Planted(passed=passed),
        budget=Budget(seconds=100),
        evaluations=10,
        evaluation_tokens=50_000,
        warmup=0.0,
    )
    report = next(report for report in run if report.evaluation)
    assert report.evaluation is not None
    held_out = len(plain_store().corpus.stores["validation"])
    tokens = plain_store().corpus.stores["validation"].count / held_out
    assert report.evaluation.reviews == max(1, min(held_out, round(0.3 * speed / tokens))), texts


@pytest.mark.parametrize("steps, accumulated", [(10, 1), (400, 1), (200, 2), (10_000, 1)])
def test_a_short_run_of_steps_is_evaluated_on_fewer_tokens(steps, accumulated):
    """At most 3 x 3 % of the tokens of the run for each evaluation, as scoring costs a third of
    training; at least 2,000.
    """
    store = prepared("ngram-char", TEXTS * 8, clean=False, validation=["abc def gh" * 8] * 100)
    run = prepared(
        source=TEXTS * 8,
        clean=False,
        validation=["abc def gh" * 8] * 100,
        steps=steps,
        seed=0,
        training={"batch_size": 64, "bptt": 16, "evaluations": 10, "evaluation_tokens": 10**6}
        | {"gradient_accumulation_steps": accumulated},
    )
    report = next(report for report in run if report.evaluation)
    lanes = lanes_of(run)
    tokens = max(2_000, 3 * 0.06 * steps * accumulated * lanes.lanes * lanes.bptt / 10 / 2)
    share = min(1.0, tokens / store.corpus.stores["validation"].count)
    assert report.evaluation is not None and report.evaluation.reviews == round(share * 100)


@pytest.mark.parametrize(
    "steps, wanted, evaluations", [(12, {}, 2), (12, {"evaluations": 20}, 12), (80, {}, 10)]
)
def test_a_run_of_a_few_steps_has_few_evaluations_unless_their_number_is_set(
    steps, wanted, evaluations
):
    """In all they take 6 % of the tokens of 2,048 a step, and each at least 1,067; the last one
    comes on top.
    """
    training = {
        "batch_size": 64,
        "bptt": 32,
        "threads": 1,
        "precision": "no",
        "patience": 99,
    } | wanted
    model = reviewgen.train(
        "gru-char", TEXTS, steps=steps, model=MODEL, training=training, progress=False
    )
    assert len(model.training["evaluations"]) == evaluations


def test_what_cannot_be_trained_is_refused_and_what_needs_no_training_is_evaluated():
    plain = plain_store().corpus
    with pytest.raises(TrainingError, match="TableModel is neither"):
        next(
            fitted(TableModel(torch.zeros(plain.tokenizer.vocab_size, plain.tokenizer.vocab_size)))
        )
    fixed = Planted()
    del fixed.logits
    fixed.logits = torch.zeros(fixed.config.vocab_size)
    (report,) = fitted(fixed)
    assert report.stopped == "nothing to train" and report.evaluation is not None and report.is_best


@pytest.mark.slow
def test_counting_says_why_it_ended_and_heeds_the_budget():
    assert reviewgen.train("ngram-char", TEXTS).training["stopped"] == "all texts counted"
    late = reviewgen.train("ngram-char", TEXTS, budget=0.0001).training
    assert late["stopped"] == "budget spent" and 0 < late["steps"] < len(TEXTS) / 2


def test_each_process_has_its_own_dropout(monkeypatch):
    def drawn(rank: int, seed: int) -> list[float]:
        numbers: list[float] = []
        model = Planted(passed=lambda *_: numbers.append(float(torch.rand(1))))
        with all_processes() as alone, pytest.MonkeyPatch.context() as patch:
            # After the lanes are made: there is no second process to share them with.
            patch.setattr(
                type(alone),
                "broadcast",
                lambda self, value: (setattr(self, "rank", rank), value)[1],
            )
            list(itertools.islice(fitted(model, seed=seed, steps=9, evaluations=1), 2))
        return numbers

    assert drawn(1, seed=5) == drawn(0, seed=6) != drawn(0, seed=5)
    assert drawn(1, seed=2**64 - 1) == drawn(0, seed=0)
