"""What a run chooses by itself: threads, precision and implementation by timing, a size for its
time, and a device.
"""

import itertools
import operator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import PartialState
from torch import Tensor, nn

from reviewgen.config import Preset
from reviewgen.config.training import TrainingConfig
from reviewgen.errors import TrainingError
from reviewgen.registry.plugins import find_model
from reviewgen.training.autotuning import Execution, autotune, relative_error
from reviewgen.training.device import IsolatedRng, choose_device
from reviewgen.training.report import Budget, Report
from reviewgen.training.sizing import Sizing, choose_size
from tests.support.fakes import TEXTS, FakeConfig
from tests.support.trainings import Clock, Planted, fitted, prepared, ready


class TwoWays(Planted):
    """A model with two implementations, whose steps take the planted seconds of a clock."""

    def __init__(self, clock: Clock, seconds: Any) -> None:
        super().__init__(passed=self.work)
        self.clock = clock
        self.seconds = seconds
        self.way = "plain"
        self.is_copy = False

    def __deepcopy__(self, memo: Any) -> "TwoWays":
        """Return the copy whose steps are timed."""
        copied = TwoWays(self.clock, self.seconds)
        copied.is_copy = True
        return copied

    def implementations(self) -> tuple[str, ...]:
        return ("plain", "other")

    def use_implementation(self, name: str) -> None:
        self.way = name

    @staticmethod
    def work(model: Any, ids: Tensor) -> None:
        if model.training:
            precision = "bf16" if torch.is_autocast_enabled("cpu") else "32 bits"
            model.clock.now += model.seconds(model, torch.get_num_threads(), precision, model.way)


@pytest.fixture
def autotuned(monkeypatch) -> Any:
    """Return a function that trains such a model, by default with everything to choose; it returns
    model, reports and note.
    """
    clock = Clock(monkeypatch)
    before = torch.get_num_threads()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    torch.set_num_threads(2)

    def train(
        seconds: Any, budget: float | None = None, count: int = 2, **settings: Any
    ) -> tuple[TwoWays, list[Report], str]:
        model = TwoWays(clock, seconds)
        length = {"budget": Budget(seconds=budget)} if budget else {"steps": 10_000}
        settings = (
            {"threads": 0, "precision": "auto", "batch_size": 2, "evaluations": 1}
            | length
            | settings
        )
        reports = list(itertools.islice(fitted(model, **settings), count))
        assert torch.get_num_threads() == 2
        return (
            model,
            reports,
            next((note for note in reports[0].notes if note.startswith("Fastest")), ""),
        )

    yield train
    torch.set_num_threads(before)


def test_the_fastest_configuration_is_used(autotuned):
    for best in (
        (1, "32 bits", "plain"),
        (2, "bf16", "plain"),
        (1, "bf16", "other"),
        (2, "32 bits", "other"),
    ):
        threads, precision, way = best

        def seconds(_: object, *chosen: object, best: tuple[object, ...] = best) -> float:
            return 0.001 * (1 + sum(map(operator.ne, chosen, best)))

        model, reports, note = autotuned(seconds)
        assert note.startswith(
            "Fastest of 4 configurations, in tokens per second forward and backward: "
        )
        assert f"{threads} thread{'s' * (threads > 1)}, {precision}, {way}: 16,000 (" in note
        assert model.way == way and {report.threads for report in reports} == {threads}
        assert (
            reports[0].device
            == f"cpu, {'no' if precision == '32 bits' else precision} mixed precision, {way}"
        )
        assert sum(bool(report.notes) for report in reports) == 1


def test_a_run_falls_back_to_one_thread_when_several_turn_slow(autotuned):
    """A step of three batches took 60 ms with one thread: 90 ms are bearable, and five steps in a
    row of 180 ms are not.
    """

    slow = [0.01] * 9 + [0.03] * 18 + [0.06] * 12 + [0.03] * 3 + [0.06] * 99

    def seconds(model: TwoWays, threads: int, precision: str, way: str) -> float:
        if threads == 1:
            return 0.02
        return 0.01 if model.is_copy else slow[model.steps]

    _, reports, _ = autotuned(seconds, count=22, gradient_accumulation_steps=3, precision="no")
    assert [report.threads for report in reports] == [2] * 18 + [1] * 4


def test_autotuning_leaves_the_model_and_the_random_state_as_they_are():
    before = torch.get_rng_state()
    options = {"steps": 3, "model": {"output_dropout": 0.5}}
    runs = [prepared(training={"threads": threads}, **options) for threads in (0, 1)]
    # of the same weights and the same drawn dropout
    losses = [[report.nats_per_token for report in run] for run in runs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert torch.equal(before, torch.get_rng_state())


class WrongInBf16(nn.Module):
    """A model whose implementation "fast" has half the gradient in bf16."""

    Config = FakeConfig

    def __init__(self) -> None:
        super().__init__()
        self.config = FakeConfig(vocab_size=20)
        self.table = nn.Embedding(20, 16)
        self.inner = nn.Linear(16, 16)
        self.output = nn.Linear(16, 20)
        self.way = "fast"

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 1)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.inner(self.table(ids))
        if self.way == "fast" and torch.is_autocast_enabled("cpu"):
            hidden = (hidden + hidden.detach()) / 2
        return self.output(hidden), state

    def implementations(self) -> tuple[str, ...]:
        return ("fast", "slow")

    def use_implementation(self, name: str) -> None:
        self.way = name


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_an_implementation_with_wrong_gradients_is_not_chosen(precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    config = TrainingConfig(precision=precision, threads=1, batch_size=4, bptt=8)
    model = WrongInBf16()
    timed = autotune(model, config, 10.0)
    assert ("bf16", "fast") not in [(each.precision, each.implementation) for each in timed]
    assert ("bf16", "slow") in [(each.precision, each.implementation) for each in timed]
    assert relative_error(model, Execution(1, "bf16", "fast"), (4, 8)) == pytest.approx(0.5, 0.05)
    assert relative_error(model, Execution(1, "bf16", "slow"), (4, 8)) < 0.02

    monkeypatch.setattr(model, "implementations", lambda: ("fast",))
    assert {each.precision for each in autotune(model, config, 10.0)} == {"no"}


def test_an_lstm_of_1024_units_trains_with_right_gradients():
    """In torch 2.13, the gradients of its layer in bf16 are wrong on some processors."""
    torch.manual_seed(0)
    network, _ = find_model("lstm")
    size = {"vocab_size": 20, "hidden_size": 1024, "embedding_size": 16}
    model = network(network.Config(**size))
    plain = network(network.Config(**size, layer="reference"))
    plain.load_state_dict(model.state_dict())
    config = TrainingConfig(threads=1, precision="bf16", batch_size=16, bptt=8)
    chosen = autotune(model, config, 1.0)[0]
    if chosen.implementation is not None:
        model.use_implementation(chosen.implementation)
    ids = torch.randint(20, (16, 9))

    def gradient(model: Any, precision: str) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits, _ = model(ids[:, :-1], model.initial_state(16))
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        return torch.autograd.grad(loss, model.recurrent.weight_hh_l0)[0]

    found = gradient(model, chosen.precision)
    exact = gradient(plain, "no")
    assert (found - exact).norm() < 0.05 * exact.norm()


# Sizes.

PRESET = Preset(
    model="any",
    tokenizer="any",
    sizes=({"width": 10}, {"width": 100}, {"width": 1000}),
    by_epochs=((2.0, {"dropout": 0.1}), (8.0, {"dropout": 0.4})),
)


class Sized(nn.Module):
    """A model of some parameters, and a table of n-grams; a step of it takes the planted seconds of
    a clock.
    """

    def __init__(self, width: int, clock: Clock, speed: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=5)
        self.weights = nn.Parameter(torch.zeros(width))
        self.table = nn.EmbeddingBag(10**4, 1)
        self.clock = clock
        self.speed = speed(width)

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 1)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.clock.now += ids.numel() / self.speed
        return self.weights[:5].expand(*ids.shape, 5), state


@pytest.fixture
def chosen(monkeypatch) -> Any:
    """Return a function that chooses a size where the steps, and the optimizer's, take planted
    seconds.
    """
    clock = Clock(monkeypatch)
    config = TrainingConfig(batch_size=4, bptt=16, threads=1, precision="no")
    step = torch.optim.AdamW.step
    cost = [0.0]

    def timed(self: Any, *arguments: Any) -> Any:
        clock.now += cost[0]
        return step(self, *arguments)

    def choose(
        seconds: float,
        tokens: int = 1000,
        characters: int = 1,
        speed: Any = lambda width: 1e6,
        optimizer: float = 0.0,
        **options: Any,
    ) -> Sizing:
        cost[0] = optimizer

        def make(size: Any) -> Sized:
            return Sized(size["width"], clock, speed)

        sizing = choose_size(PRESET, make, config, seconds, tokens, characters, **options)
        assert sizing is not None
        return sizing

    monkeypatch.setattr(torch.optim.AdamW, "step", timed)
    return choose


def test_the_largest_size_that_sees_enough_tokens_for_each_parameter_is_chosen(chosen):
    """Twenty for each, in 0.9 of the time; what measuring took is gone."""
    assert [
        chosen(seconds, tokens=10**6).model["width"] for seconds in (0.00001, 0.002, 0.01, 1e4)
    ] == [10, 10, 100, 1000]
    sizing = chosen(1e4)
    # the table, of which a token uses a few rows, does not count for the choice
    assert sizing.parameters == 1000 + 10**4
    assert sizing.epochs == pytest.approx(0.9 * 1e4 * 1e6 / 1000, rel=1e-3)
    assert (
        chosen(1.0, tokens=10**6, speed=lambda width: 1e6 if width < 1000 else 100.0).model["width"]
        == 100
    )


def test_a_small_corpus_that_is_seen_more_than_once_is_enough_too(chosen):
    # 1.5 epochs of 8,300, and less
    assert [chosen(0.01, tokens=tokens).model["width"] for tokens in (5500, 5600)] == [1000, 100]
    # 1,000 would see less than two tokens for each
    assert chosen(0.0025, tokens=300).model["width"] == 100


def test_dropout_follows_from_the_epochs_and_those_of_a_small_model_count_less(chosen):
    found = [
        chosen(1.0, tokens=round(0.9 * 1e6 / epochs)).model.get("dropout")
        for epochs in (1, 1.9, 2.01, 4, 7.99, 8.5, 90)
    ]
    assert found[:2] == [None, None] and found[2:] == pytest.approx(
        [0.1, 0.25, 0.4, 0.4, 0.4], abs=0.003
    )
    # 18 epochs
    shares = [
        chosen(1.0, tokens=50_000, characters=size).model.get("dropout")
        for size in (1000, 2500, 10**6)
    ]
    assert shares == pytest.approx([0.4, 0.377, 0.377], abs=0.003)  # of which at least 0.4 count


def test_a_budget_without_a_size_gets_one_and_what_was_set_stays():
    def choose(**options: Any) -> tuple[Any, Any, list[str]]:
        run = ready("lstm-char", TEXTS, **options)
        return (
            run.model.config,
            run.record.training,
            [note for note in run.record.notes if note.startswith("Chosen for")],
        )

    model, config, (note,) = choose(budget="20s", training={"batch_size": 5})
    assert f"hidden_size={model.hidden_size}" in note and "batch_size" not in note
    assert model.hidden_size in {128, 192, 256, 384, 512, 768, 1024} and (
        config.batch_size,
        config.bptt,
    ) == (5, 64)
    for options in ({"budget": "3s", "model": {"hidden_size": 20}}, {"steps": 2}):
        model, config, notes = choose(**options)
        assert not notes and model.hidden_size == options.get("model", {}).get("hidden_size", 320)
        assert (config.batch_size, config.bptt) == (32, 64)


# Devices, precision, random streams.


def test_the_device_is_accelerate_s_or_refused(monkeypatch):
    for here, wanted, model, found in (
        ("mps", "auto", "gru", "cpu"),  # unsuited, so only if it is asked for
        ("mps", "mps", "gru", "mps"),
        ("mps", "auto", "lstm", "mps"),
        ("cuda:1", "auto", "gru", "cuda:1"),
        ("cpu", "auto", "gru", "cpu"),
        ("cpu", "mps", "gru", None),
    ):
        monkeypatch.setattr(PartialState(cpu=True), "device", torch.device(here))
        kind, _ = find_model(model)
        network = kind(kind.Config(vocab_size=9, hidden_size=8, embedding_size=4))
        if found is None:
            with pytest.raises(
                TrainingError, match=f"training.device={wanted} is not available here"
            ):
                choose_device(wanted, network)
            continue
        place, notes = choose_device(wanted, network)
        assert str(place) == found and bool(notes) == (wanted == "auto" and here != found)
        assert (
            not notes
            or "Gru is unsuited for mps, so it is trained on the CPU; set training.device=mps"
            in notes[0]
        )


def test_the_precision_is_the_launcher_s_or_the_processor_s(autotuned, monkeypatch):
    def device_of(**settings: Any) -> str:
        """Return what a model is trained with for which 16 bits are faster, if they are tried."""
        _, reports, _ = autotuned(
            lambda *chosen: 0.001 if chosen[2] == "bf16" else 0.002, threads=1, **settings
        )
        return reports[0].device[:9]

    assert device_of() == "cpu, bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert device_of() == "cpu, no m"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert device_of() == "cpu, bf16" and device_of(precision="no") == "cpu, no m"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    for wanted in ("auto", "fp16"):
        with pytest.raises(TrainingError, match="fp16 is not available on cpu"):
            device_of(precision=wanted)
    assert device_of(precision="bf16") == "cpu, bf16"


def test_accelerate_s_accumulation_is_the_default_and_what_it_does_to_a_model_is_refused(
    monkeypatch,
):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    given: Any = ({}, {"gradient_accumulation_steps": 2})
    assert [
        prepared(steps=1, training=each).record.training.gradient_accumulation_steps
        for each in given
    ] == [4, 2]
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with pytest.raises(TrainingError, match=r"compile models \(dynamo_backend: inductor\)"):
        prepared(steps=1)
    for name in ("DeepSpeed", "FSDP"):  # the first that is asked about
        monkeypatch.setenv(f"ACCELERATE_USE_{name.upper()}", "true")
        with pytest.raises(TrainingError, match=f"configured for {name}"):
            prepared(steps=1)


def test_a_device_has_a_random_stream_of_the_run_s_own(monkeypatch):
    """The stand-in of a GPU's generator is one on the CPU."""
    outside = torch.Generator().manual_seed(7)
    plain = torch.Generator
    fake = SimpleNamespace(get_rng_state=outside.get_state, set_rng_state=outside.set_state)
    monkeypatch.setattr(torch, "get_device_module", lambda name: fake)
    monkeypatch.setattr(torch, "Generator", lambda name: plain())
    before = outside.get_state()

    def drawn(own: IsolatedRng) -> list[float]:
        with own:
            return [float(torch.rand(1, generator=outside)), float(torch.rand(1))]

    first = IsolatedRng(1, "cuda")
    same = IsolatedRng(1, "cuda")
    other = IsolatedRng(2, "cuda")
    numbers = drawn(first)
    assert (
        numbers == drawn(same) and numbers[0] != drawn(other)[0] and drawn(first)[0] != numbers[0]
    )
    assert torch.equal(outside.get_state(), before)
