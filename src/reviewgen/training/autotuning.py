"""Choose how training steps are computed on a CPU, by timing a few steps: the number of threads,
the precision and the implementation of the layers.

Small matrices gain little from a second thread, 16-bit products are faster only if the processor
has instructions for them, and torch's recurrent layers are not the fastest at every shape. The
timed steps change neither the model nor the global random state. Autotuning stops after half a
second, or after a hundredth of a longer run; time for compilation does not count.

Mixed precision is chosen only with an implementation whose gradients are about those in 32 bits.
The bf16 gradients of torch 2.13's ``nn.LSTM`` are wrong on processors with AVX-512 if it has 1,024
units, or more units whose number is a multiple of 32: their relative error is 0.2 to 0.7. With
1,023 units, it is 0.005.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from reviewgen.config.training import TrainingConfig
from reviewgen.devices import using_threads
from reviewgen.errors import counted
from reviewgen.processes import Processes, process_state
from reviewgen.protocols.model import SupportsImplementations
from reviewgen.training.device import (
    IsolatedRng,
    autocast,
    choose_precision,
    make_accelerator,
)
from reviewgen.training.losses import add_own_losses, cross_entropy, own_losses
from reviewgen.training.optimizers import inner_matrices, sparse_tables
from reviewgen.training.softmax import compute_logits, sampled_softmax

_MAX_SLOW_STEPS = 5  # after this many slow steps in a row, a run falls back to one thread
_SECONDS = 0.5  # time limit of autotuning
_LONG_RUN_DIVISOR = 100  # a long run may spend 1/100 of its time, if that is more than _SECONDS
_DIVISOR = 20  # no run may spend more than 1/20 of its time
_STEP_SECONDS = 0.03  # the intended duration of a timed step: longer batches are shortened
_STEPS = 3  # timed steps of each configuration
_MIN_LENGTH = 8  # time steps of a shortened batch
# if twice the time steps raise the throughput by more than this factor, batches are not shortened
_FIXED_COST_GAIN = 1.5
# larger errors of gradients in mixed precision are faults; the rounding of bf16 makes at most 0.02
_MAX_RELATIVE_ERROR = 0.1
_MIN_GAIN = 1.05  # a configuration must be this much faster than the best one so far to replace it


class Threads:
    """The number of CPU threads of a run. It falls back to one thread if steps with several become
    slow.

    If other programs occupy a core, threads that wait for one another at every time step of a
    recurrent layer can be fifty times slower than one thread.

    Attributes:
        count: The number of threads in use.
        one_thread_seconds: Duration of a step with one thread. None if it was not measured; then
            there is no fallback.
    """

    def __init__(self, count: int, one_thread_seconds: float | None) -> None:
        self.count = min(count, torch.get_num_threads())
        self.one_thread_seconds = one_thread_seconds
        self._slow_steps = 0  # in a row

    def record(self, seconds: float) -> None:
        """Record the duration of a step; after five slow steps in a row, switch to one thread."""
        if self.count == 1 or self.one_thread_seconds is None:
            return
        is_slow = seconds > 2 * self.one_thread_seconds
        self._slow_steps = self._slow_steps + 1 if is_slow else 0
        if self._slow_steps == _MAX_SLOW_STEPS:
            self.count = 1
            torch.set_num_threads(1)


@dataclass(frozen=True)
class Execution:
    """How training steps are computed. Saved in checkpoints.

    Attributes:
        threads: CPU threads.
        precision: Mixed precision, "bf16" or "fp16"; "no" computes everything in 32 bits.
        implementation: Implementation of the layers; None if the model has only one.
        tokens_per_second: Measured throughput of forward and backward passes, without the
            optimizer; 0 if it was not measured.
    """

    threads: int
    precision: str
    implementation: str | None = None
    tokens_per_second: float = 0.0

    def describe(self) -> str:
        """Return the configuration and its throughput."""
        precision = "32 bits" if self.precision == "no" else self.precision
        settings = counted(self.threads, "thread"), precision, self.implementation
        return f"{', '.join(filter(None, settings))}: {self.tokens_per_second:,.0f}"


def choose_execution(
    model: nn.Module,
    config: TrainingConfig,
    device: str,
    seconds: float | None,
    run_tokens: float,
    processes: Processes,
) -> list[Execution]:
    """Choose how to compute the steps of a run. Configurations are timed only on a CPU, and only
    if there are several to choose from.

    Args:
        model: The model.
        config: Training settings.
        device: The type of the device.
        seconds: The time budget of the run, or None.
        run_tokens: The tokens of the run, or infinity if unknown.
        processes: The processes; the first chooses for all.

    Returns:
        The chosen configuration, followed by the others that were timed.
    """
    executions = [_default_execution(model, config, device)]
    if device == "cpu" and processes.rank == 0:  # the others wait for its result
        executions = autotune(model, config, _autotune_seconds(seconds), run_tokens)
    chosen: list[Execution] = processes.broadcast(executions)
    return chosen


def _autotune_seconds(run_seconds: float | None) -> float:
    """Return how many seconds autotuning may take in a run of ``run_seconds``, or in a run whose
    duration is unknown (None).
    """
    if run_seconds is None:
        return _SECONDS
    # at least _SECONDS, but never more than a small share of the run
    return min(max(_SECONDS, run_seconds / _LONG_RUN_DIVISOR), run_seconds / _DIVISOR)


def _default_execution(model: nn.Module, config: TrainingConfig, device: str) -> Execution:
    """Return the configuration to use without autotuning: all threads, and the model's first
    implementation.
    """
    available = torch.get_num_threads()
    threads = min(config.threads or available, available)
    precision = choose_precision(config.precision, device)
    return Execution(threads, precision, next(iter(_implementations(model)), None))


def _implementations(model: nn.Module) -> Sequence[str]:
    """Return the names of the implementations of a model; empty if it has only one."""
    return model.implementations() if isinstance(model, SupportsImplementations) else ()


def _list_choices(
    model: nn.Module, config: TrainingConfig, default: Execution
) -> dict[str, Sequence[Any]]:
    """Return the possible values of each setting that has several, the plainest value first.

    Threads are the last setting, so that one thread is timed first: if other programs occupy a
    core, several threads that wait for one another can be fifty times slower.
    """
    # a launcher has set the number of threads of each process
    are_threads_fixed = config.threads or process_state().num_processes > 1
    choices: dict[str, Sequence[Any]] = {
        "precision": ("no", default.precision) if config.precision == "auto" else (),
        "implementation": _implementations(model),
        "threads": () if are_threads_fixed else (1, torch.get_num_threads()),
    }
    return {setting: values for setting, values in choices.items() if len(set(values)) > 1}


def autotune(
    model: nn.Module, config: TrainingConfig, seconds: float, run_tokens: float = math.inf
) -> list[Execution]:
    """Time configurations of a model on the CPU; return those that were timed, the selected one
    first.

    If the settings leave only one configuration, it is returned without being timed. Otherwise, the
    plainest configuration is timed first: one thread in 32 bits. Then one setting after the other
    is varied, from the best configuration so far. When the time is over, the fastest so far is
    selected. Instead of a configuration with wrong gradients, another one is timed.

    Args:
        model: The model. It is not changed: a copy is timed, which shares only tables with sparse
            gradients.
        config: Gives the batch shape, and whether threads and precision are fixed.
        seconds: Time limit. Configurations not yet timed by then are skipped.
        run_tokens: The number of tokens of a run of steps or epochs. If given, the time limit is
            computed from the estimated duration of the run, instead of ``seconds``.
    """
    default = _default_execution(model, config, "cpu")
    choices = _list_choices(model, config, default)
    if not choices and default.precision == "no":
        return [default]
    plainest = replace(default, **{setting: values[0] for setting, values in choices.items()})
    # the copy shares tables with sparse gradients, which are large
    trial = copy.deepcopy(model, {id(table): table for table in sparse_tables(model)}).train()
    with IsolatedRng(0):
        batch_shape = _shorten_batch(trial, plainest, config)
        plainest = _correct(trial, plainest, batch_shape)
        autotune_start = time.monotonic()  # not earlier, since the first call may have compiled
        best = time_steps(trial, plainest, batch_shape, config.sampled_softmax)
        if math.isfinite(run_tokens):
            seconds = _autotune_seconds(run_tokens / best.tokens_per_second)
        deadline = autotune_start + seconds
        timed = [best]
        for setting, values in choices.items():
            for value in values:
                if time.monotonic() > deadline:
                    break
                start = time.monotonic()
                execution = replace(best, **{setting: value}, tokens_per_second=0.0)
                execution = _correct(trial, execution, batch_shape)
                if any(replace(other, tokens_per_second=0.0) == execution for other in timed):
                    continue  # this configuration was timed before
                execution = time_steps(trial, execution, batch_shape, config.sampled_softmax)
                timed.append(execution)
                step_seconds = math.prod(batch_shape) / execution.tokens_per_second
                # the time beyond that of the steps was compilation, which does not count
                deadline += max(0.0, time.monotonic() - start - (_STEPS + 1) * step_seconds)
            fastest = max(timed, key=lambda execution: execution.tokens_per_second)
            if fastest.tokens_per_second > _MIN_GAIN * best.tokens_per_second:
                best = fastest
    return [best, *(execution for execution in timed if execution is not best)]


def _correct(model: Any, execution: Execution, batch_shape: tuple[int, int]) -> Execution:
    """Return a configuration with right gradients: the given one, or the one with the next
    implementation, or with 32 bits if the gradients of all implementations are wrong.
    """
    for implementation in dict.fromkeys((execution.implementation, *_implementations(model))):
        candidate = replace(execution, implementation=implementation)
        if relative_error(model, candidate, batch_shape) < _MAX_RELATIVE_ERROR:
            return candidate
    return replace(execution, precision="no")


def relative_error(model: Any, execution: Execution, batch_shape: tuple[int, int]) -> float:
    """Return by how much the gradients of a batch differ from those in 32 bits: the norm of the
    difference, as a share of their norm. Only the matrices between hidden vectors count, and
    dropout is turned off.

    Args:
        model: The model.
        execution: The configuration.
        batch_shape: B and T of the batch.
    """
    matrices = inner_matrices(model)
    if execution.precision == "no" or not matrices:
        return 0.0
    model.eval()
    gradients = []
    for precision in ("no", execution.precision):
        with IsolatedRng(0), using_threads(execution.threads):
            step = _make_step(model, replace(execution, precision=precision), batch_shape, 0)
            step()
        flattened = [matrix.grad.flatten() for matrix in matrices if matrix.grad is not None]
        gradients.append(torch.cat(flattened))
        model.zero_grad()
    model.train()
    exact, rounded = gradients
    return float((rounded - exact).norm() / exact.norm())


def _shorten_batch(
    model: nn.Module, execution: Execution, config: TrainingConfig
) -> tuple[int, int]:
    """Return B and T of the timed batches; T is small enough that a step takes about
    ``_STEP_SECONDS``. If most of a step does not depend on T, as in a model that reads a cache of
    earlier tokens, T is not shortened, since the step would not be typical.
    """
    lanes = config.batch_size
    length = config.bptt
    short = min(length, _MIN_LENGTH)
    rates = []  # tokens per second
    for tried_length in (short, 2 * short):
        shape = lanes, tried_length
        timed = time_steps(model, execution, shape, config.sampled_softmax, steps=1)
        rates.append(timed.tokens_per_second)
    short_rate, double_rate = rates
    if double_rate > _FIXED_COST_GAIN * short_rate:
        return lanes, length
    short_seconds = lanes * short / short_rate  # duration of a step with short batches
    return lanes, max(short, min(length, int(short * _STEP_SECONDS / short_seconds)))


def time_steps(
    model: Any,
    execution: Execution,
    batch_shape: tuple[int, int],
    softmax_size: int,
    steps: int = _STEPS,
) -> Execution:
    """Time steps of a model with a configuration; return the configuration with the throughput of
    the fastest step.

    A warm-up step comes first and does not count.

    Args:
        model: The model.
        execution: The configuration.
        batch_shape: B and T of the batches.
        softmax_size: The size of a sampled softmax; 0 for the full softmax.
        steps: The number of steps that count.
    """
    step = _make_step(model, execution, batch_shape, softmax_size)
    highest_rate = 0.0  # tokens per second
    with using_threads(execution.threads):
        step()
        for _ in range(steps):
            start = time.perf_counter()
            step()
            rate = math.prod(batch_shape) / (time.perf_counter() - start)
            highest_rate = max(highest_rate, rate)
    model.zero_grad()
    return replace(execution, tokens_per_second=highest_rate)


def _make_step(
    model: Any, execution: Execution, batch_shape: tuple[int, int], softmax_size: int
) -> Callable[[], None]:
    """Return a function that adds the gradients of a random batch; the arguments are those of
    ``time_steps``.
    """
    if execution.implementation is not None:
        model.use_implementation(execution.implementation)
    vocab_size = model.config.vocab_size
    sampled = sampled_softmax(model, softmax_size, "cpu")
    accelerator = make_accelerator(execution.precision)
    lanes, length = batch_shape
    uniform = torch.rand(lanes, length + 1)
    # a sampled softmax takes less time if tokens repeat, so its ids follow Zipf's law
    ids = vocab_size * uniform if sampled is None else vocab_size**uniform - 1
    ids = ids.long()

    def step() -> None:
        """Compute the loss of the batch, and add its gradients to those of the model."""
        with autocast(accelerator, execution.precision):
            state = model.initial_state(lanes)
            logits, targets, _ = compute_logits(sampled, model, ids[:, :-1], state, ids[:, 1:])
            terms = own_losses(model, logits, targets)
        entropy = cross_entropy(logits, targets, lanes * length)
        loss, _ = add_own_losses(entropy, terms, 1.0)
        torch.autograd.backward(loss)

    return step
