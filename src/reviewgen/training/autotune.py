"""Autotuning: times a few steps of a model on the CPU to select the number of threads, the precision and the implementation.

Small matrices gain little from a second thread, 16-bit products are faster only if the processor has instructions for them, and
torch's recurrent layers are not the fastest at every shape. The steps are run on a copy of the model, so the model and the global
random state do not change. After half a second, or a hundredth of a longer run, compiling not counted, no further configuration
is timed.
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from reviewgen.config import TrainingConfig
from reviewgen.generation.model_stepper import using_threads
from reviewgen.protocols import SupportsImplementations
from reviewgen.training.device import IsolatedRng, autocast
from reviewgen.training.loss import add_own_losses, cross_entropy, own_losses

SECONDS = 0.5
_LONG_RUN_SHARE = 100  # of a longer run, autotuning may take 1/100: a large model's first configuration alone can take a second
_STEP_SECONDS = 0.03  # of one timed step: longer batches are shortened
_STEPS = 3  # timed, of each configuration
_MIN_LENGTH = 8  # time steps of a shortened batch
_ALL_THREADS = 1 << 16
_SHARE = 20  # of any run, autotuning may take 1/20
_MIN_GAIN = 1.05  # a configuration must be this much faster than the best one so far to replace it


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
    is_fixed = {"precision": config.precision != "auto", "implementation": False, "threads": config.threads > 0}
    tunable = [setting for setting, fixed in is_fixed.items() if not fixed]
    start = replace(
        default,
        precision="no" if "precision" in tunable else default.precision,
        threads=1 if "threads" in tunable else default.threads,
    )
    if not any(list(_alternatives(model, start, default, setting)) for setting in tunable):
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
        for setting in tunable:
            for execution in _alternatives(model, best.execution, default, setting):
                if time.monotonic() > deadline:
                    break
                began = time.monotonic()
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


def _alternatives(
    model: nn.Module, execution: ExecutionConfig, default: ExecutionConfig, setting: str
) -> Iterator[ExecutionConfig]:
    """Yield the configurations to compare with a given one that differ from it in one setting."""
    if setting == "threads" and torch.get_num_threads() > 1:
        yield replace(execution, threads=torch.get_num_threads())
    elif setting == "implementation" and isinstance(model, SupportsImplementations):
        others = (name for name in model.implementations() if name != execution.implementation)
        yield from (replace(execution, implementation=name) for name in others)
    elif setting == "precision" and execution.precision != default.precision:
        yield replace(execution, precision=default.precision)


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
