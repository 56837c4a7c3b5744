"""What is chosen by timing a few steps of a model: how steps are computed, and the size of the model for a time budget.

On a CPU, autotuning selects the number of threads, the precision and the implementation: small matrices gain little from a second
thread, 16-bit products are faster only if the processor has instructions for them, and torch's recurrent layers are not the
fastest at every shape. The steps are run on a copy of the model, so the model and the global random state do not change. After
half a second, or a hundredth of a longer run, compiling not counted, no further configuration is timed.

If the user has set no size, the largest of the preset's sizes is chosen that still sees several tokens for each of its parameters
within the budget: a larger model learns more from each token but sees fewer of them (the trade-off of Hoffmann et al. 2022,
"Training Compute-Optimal Large Language Models", with another ratio: these models are small, and repeat their corpus). A model
that sees its corpus several times gets the dropout that the preset names for that number of epochs.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from reviewgen.config import Preset, TrainingConfig
from reviewgen.generation import using_threads
from reviewgen.protocols import SupportsImplementations
from reviewgen.training.device import IsolatedRng, autocast, choose_precision
from reviewgen.training.loss import add_own_losses, cross_entropy, own_losses
from reviewgen.training.optimizing import make_optimizers

SECONDS = 0.5
_LONG_RUN_SHARE = 100  # of a longer run, autotuning may take 1/100: a large model's first configuration alone can take a second
_STEP_SECONDS = 0.03  # of one timed step: longer batches are shortened
_STEPS = 3  # timed, of each configuration
_MIN_LENGTH = 8  # time steps of a shortened batch
_ALL_THREADS = 1 << 16
_SHARE = 20  # of any run, autotuning may take 1/20
_MIN_GAIN = 1.05  # a configuration must be this much faster than the best one so far to replace it

MIN_TOKENS_PER_PARAMETER = 2.0
"""With fewer, a smaller model is better: 3 with lstm-char, 15 to 100 s (tests/benchmarks/SPEEDRUN.md), less with lstm-word."""

MAX_PARAMETERS_PER_TOKEN = 10.0
"""Of the corpus; with more, a model memorises it."""

_MIN_DROPOUT_SHARE = 0.4
"""A model with fewer parameters than the corpus has characters learns it by heart more slowly: its epochs count for so much less
in choosing the dropout, down to this share. On 2,000 captions, lstm-word of 128 units, 0.4 parameters per character, takes 0.947
bits per character after 24 epochs with the dropout of 24 epochs, and 0.909 with about that of 10."""

_STEP_SHARE = 0.9  # of the time goes into steps; the rest into evaluations and samples
_AUTOTUNE_SECONDS = 0.3  # for each size
_SIZING_SECONDS, _SIZING_SHARE = 2.0, 0.01  # of the time; after the larger of the two no larger size is timed
_SHORT_LENGTH = 16  # time steps of a timed batch

_MIN_BATCH_GAIN = 1.1  # in tokens per second, that doubling a batch must bring
_MIN_STEPS = 1_000  # a run of fewer, larger steps learns less
_MAX_LENGTH, _MAX_LANES = 128, 64  # of a grown batch


@dataclass(frozen=True)
class ExecutionConfig:
    """How training steps are computed. Saved in checkpoints.

    Attributes:
        threads: CPU threads.
        precision: Mixed precision, "bf16" or "fp16"; "no" computes in 32 bits throughout.
        implementation: Implementation of the layers, for a model that has several.
    """

    threads: int
    precision: str
    implementation: str | None = None


@dataclass(frozen=True)
class Timing:
    """The measured throughput of one configuration.

    Attributes:
        execution: The configuration.
        tokens_per_second: Throughput of forward and backward passes, without the optimizer.
    """

    execution: ExecutionConfig
    tokens_per_second: float


def autotune_seconds(run_seconds: float | None) -> float:
    """Return how long autotuning may take for a run of some seconds; half a second if that is not known."""
    return SECONDS if run_seconds is None else min(max(SECONDS, run_seconds / _LONG_RUN_SHARE), run_seconds / _SHARE)


def default_execution(model: nn.Module, config: TrainingConfig, precision: str) -> ExecutionConfig:
    """Return the configuration to use without autotuning: all threads, the given precision, the model's first implementation."""
    implementations = model.implementations() if isinstance(model, SupportsImplementations) else (None,)
    return ExecutionConfig(min(config.threads or _ALL_THREADS, torch.get_num_threads()), precision, implementations[0])


def keep_threads(config: TrainingConfig, world_size: int) -> TrainingConfig:
    """Return settings that keep the number of threads set by the launcher, if there are several processes."""
    return config if world_size == 1 or config.threads else replace(config, threads=torch.get_num_threads())


def autotune(
    model: nn.Module,
    default: ExecutionConfig,
    config: TrainingConfig,
    seconds: float = SECONDS,
    run_tokens: float = math.inf,
) -> list[Timing]:
    """Time configurations of a model on the CPU; return their timings, the selected one first.

    The list is empty if the settings leave only one configuration. The plainest is timed first, one thread in 32 bits, and the
    fastest so far wins when the time is over. Threads come last: if other programs occupy a core, several threads that wait for
    one another can be fifty times slower.

    Args:
        model: The model. It is copied, not changed.
        default: The configuration to start from.
        config: Gives the batch shape, and whether threads and precision are fixed.
        seconds: Time limit. Configurations not yet timed by then are skipped.
        run_tokens: The tokens of the run, if it has a number of steps: the time limit then follows from its estimated length.
    """
    choices: dict[str, Sequence[Any]] = {
        "precision": ("no", default.precision) if config.precision == "auto" else (),
        "implementation": model.implementations() if isinstance(model, SupportsImplementations) else (),
        "threads": () if config.threads else (1, torch.get_num_threads()),
    }
    start = replace(default, **{setting: values[0] for setting, values in choices.items() if values})
    if all(len(set(values)) < 2 for values in choices.values()):
        return []
    batch = config.batch_size, config.bptt
    trial = copy.deepcopy(model).train()
    with IsolatedRng(0):
        batch = _shorten_batch(trial, start, batch)
        started = time.monotonic()  # the first call may have compiled
        best = Timing(start, measure_throughput(trial, start, batch))
        if math.isfinite(run_tokens):
            seconds = autotune_seconds(run_tokens / best.tokens_per_second)
        deadline = started + seconds
        timings = [best]
        for setting, values in choices.items():
            for value in values:
                if value == getattr(best.execution, setting):
                    continue
                if time.monotonic() > deadline:
                    break
                began, execution = time.monotonic(), replace(best.execution, **{setting: value})
                timings.append(Timing(execution, measure_throughput(trial, execution, batch)))
                steps = (_STEPS + 1) * math.prod(batch) / timings[-1].tokens_per_second
                deadline += max(0.0, time.monotonic() - began - steps)  # what it took longer was compiling
            best = max(timings, key=lambda timing: timing.tokens_per_second * (_MIN_GAIN if timing is best else 1))
    return [best, *(timing for timing in timings if timing is not best)]


def describe_timings(timings: list[Timing]) -> str:
    """Return a sentence that names the selected configuration and lists the throughput of all of them."""
    best, *others = [f"{_describe(timing.execution)}: {timing.tokens_per_second:,.0f}" for timing in timings]
    return f"Fastest of {len(timings)} configurations, in tokens per second forward and backward: {best} ({'; '.join(others)})."


def _describe(execution: ExecutionConfig) -> str:
    threads = f"{execution.threads} thread{'s' if execution.threads > 1 else ''}"
    precision = "32 bits" if execution.precision == "no" else execution.precision
    return ", ".join(filter(None, (threads, precision, execution.implementation)))


def _shorten_batch(model: nn.Module, execution: ExecutionConfig, batch: tuple[int, int]) -> tuple[int, int]:
    """Return B and T of the timed batches, with T short enough that a step takes about ``_STEP_SECONDS``."""
    lanes, length = batch
    short = min(length, _MIN_LENGTH)
    seconds = lanes * short / measure_throughput(model, execution, (lanes, short), steps=1)
    return lanes, max(short, min(length, int(short * _STEP_SECONDS / seconds)))


def measure_throughput(model: Any, execution: ExecutionConfig, batch: tuple[int, int], steps: int = _STEPS) -> float:
    """Return tokens per second, forward and backward, of the fastest of some timed steps, after a warm-up step."""
    if isinstance(model, SupportsImplementations) and execution.implementation is not None:
        model.use_implementation(execution.implementation)
    ids = torch.randint(0, model.config.vocab_size, (batch[0], batch[1] + 1))
    best = 0.0
    with using_threads(execution.threads):
        for number in range(steps + 1):
            start = time.perf_counter()
            with autocast("cpu", execution.precision):
                logits, _ = model(ids[:, :-1], model.initial_state(batch[0]))
                terms = own_losses(model, logits, ids[:, 1:])
            loss, _ = add_own_losses(cross_entropy(logits, ids[:, 1:], batch[0] * batch[1]), terms, 1.0)
            torch.autograd.backward(loss)
            if number:
                best = max(best, batch[0] * batch[1] / (time.perf_counter() - start))
    return best


# The size for a time budget.


@dataclass(frozen=True)
class Sizing:
    """A chosen size, and the estimates behind it.

    Attributes:
        model: Model settings.
        training: Training settings.
        parameters: Number of parameters of the model.
        tokens_per_second: Estimated throughput of whole training steps.
        epochs: Estimated epochs within the time.
    """

    model: Mapping[str, Any]
    training: Mapping[str, Any]
    parameters: int
    tokens_per_second: float
    epochs: float

    def describe(self, seconds: float) -> str:
        """Return the choice for some seconds of training, as a sentence."""
        settings = ", ".join(f"{name}={value}" for name, value in {**self.model, **self.training}.items())
        epochs = f"{self.epochs:,.0f}" if self.epochs >= 100 else f"{self.epochs:.1f}"
        return (
            f"Chosen for {seconds:.0f} s of training: {settings} ({self.parameters:,} parameters), about "
            f"{epochs} epochs at {self.tokens_per_second:,.0f} tokens per second."
        )


@dataclass(frozen=True)
class _StepCost:
    """The measured cost of a model's training step."""

    tokens_per_second: float  # forward and backward
    optimizer_seconds: float  # per step

    def throughput(self, tokens: int) -> float:
        """Return the tokens per second of whole steps, of a given number of tokens each."""
        return tokens / (tokens / self.tokens_per_second + self.optimizer_seconds)


def choose_size(
    preset: Preset,
    build: Callable[[Mapping[str, Any]], Any],
    config: TrainingConfig,
    seconds: float,
    corpus_tokens: int,
    corpus_characters: int,
    *,
    may_grow: bool = True,
) -> Sizing | None:
    """Return the largest size of a preset that can be trained well in a given time on this machine; None if it lists no sizes.

    Args:
        preset: Lists the sizes, small to large, and the dropout by number of epochs.
        build: Makes a model with given settings.
        config: Training settings; its batch shape is the smallest one.
        seconds: The time for steps and evaluations.
        corpus_tokens: Tokens of an epoch.
        corpus_characters: Characters of an epoch.
        may_grow: Whether the batch may be made larger for a model whose optimizer is slow.
    """
    chosen, start = None, time.monotonic()
    deadline = math.inf
    for settings in preset.sizes:
        if time.monotonic() > deadline:
            break
        model = build(settings)
        parameters, in_tables = _count_parameters(model)
        cost = _time_steps(model, config)
        deadline = min(deadline, time.monotonic() + max(_SIZING_SECONDS, _SIZING_SHARE * seconds))  # the first may have compiled
        batch = _grow_batch(config, cost, seconds) if may_grow else (config.batch_size, config.bptt)
        throughput = cost.throughput(math.prod(batch) * config.gradient_accumulation_steps)
        tokens = throughput * max(0.0, seconds - (time.monotonic() - start)) * _STEP_SHARE
        multiplied = parameters - in_tables  # parameters that every token uses
        is_too_large = tokens < MIN_TOKENS_PER_PARAMETER * multiplied or multiplied > MAX_PARAMETERS_PER_TOKEN * corpus_tokens
        if chosen is not None and is_too_large:
            break
        epochs = tokens / corpus_tokens
        training = {"batch_size": batch[0], "bptt": batch[1]} if may_grow else {}
        counted = epochs * min(1.0, max(_MIN_DROPOUT_SHARE, multiplied / corpus_characters))
        training |= _of_epochs(preset.training_by_epochs, counted)
        model_settings = {**settings, **_of_epochs(preset.by_epochs, counted)}
        chosen = Sizing(model_settings, training, parameters, throughput, epochs)
    return chosen


def _count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return the number of parameters, and how many of them are in tables of n-grams, of which a token uses a few rows only."""
    in_tables = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.EmbeddingBag))
    return sum(parameter.numel() for parameter in model.parameters()), in_tables


def _grow_batch(config: TrainingConfig, cost: _StepCost, seconds: float) -> tuple[int, int]:
    """Return B and T of a step: longer, then more lanes, while that raises the throughput and leaves enough steps."""
    lanes, length = config.batch_size, config.bptt
    while True:
        tokens = lanes * length * config.gradient_accumulation_steps
        larger = (lanes, 2 * length) if length < _MAX_LENGTH else (2 * lanes, length)
        steps = cost.throughput(2 * tokens) * seconds * _STEP_SHARE / (2 * tokens)
        gain = cost.throughput(2 * tokens) / cost.throughput(tokens)
        if gain < _MIN_BATCH_GAIN or steps < _MIN_STEPS or larger[0] > _MAX_LANES:
            return lanes, length
        lanes, length = larger


def _time_steps(model: nn.Module, config: TrainingConfig) -> _StepCost:
    """Measure forward and backward passes, and the optimizer's step."""
    default = default_execution(model, config, choose_precision(config.precision, "cpu"))
    timings = autotune(model, default, config, _AUTOTUNE_SECONDS)
    if not timings:
        with IsolatedRng(0):
            batch = config.batch_size, min(config.bptt, _SHORT_LENGTH)
            timings = [Timing(default, measure_throughput(model, default, batch))]
    best = timings[0]
    optimizers, seconds = make_optimizers(model, config), []
    with using_threads(best.execution.threads):
        for _ in range(2):  # the first step allocates the optimizers' state
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 1e-3)
            start = time.perf_counter()
            for optimizer in optimizers:
                optimizer.step()
            seconds.append(time.perf_counter() - start)
    return _StepCost(best.tokens_per_second, min(seconds))


def _of_epochs(by_epochs: Sequence[tuple[float, Mapping[str, Any]]], epochs: float) -> Mapping[str, Any]:
    """Return the settings that a preset names for a number of epochs."""
    return next((settings for min_epochs, settings in reversed(by_epochs) if epochs >= min_epochs), {})
