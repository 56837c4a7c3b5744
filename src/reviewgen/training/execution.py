"""How steps are computed: device, precision, threads, memory and random numbers; and what is chosen
by timing a few steps.

The device and the precision are those of accelerate: of its ``PartialState`` and its configuration.
An ``Accelerator`` itself fixes the precision of a process at its first use, but a process may train
several models, each in its own; its optimizers share one loss scaler, which unscales twice where
there are two; and it saves pickles. So autocast and the scaler are torch's.

On a CPU, autotuning selects the number of threads, the precision and the implementation: small
matrices gain little from a second thread, 16-bit products are faster only if the processor has
instructions for them, and torch's recurrent layers are not the fastest at every shape. The steps
change neither the model nor the global random state. After half a second, or a hundredth of a
longer run, excluding compilation, no further configuration is timed.

If the user has set no size, the largest of the preset's sizes is chosen that still sees twenty
tokens for each of its parameters within the budget, or a small corpus more than once: a larger
model learns more from each token but sees fewer of them (Hoffmann et al. 2022, "Training
Compute-Optimal Large Language Models"). A model that sees its corpus several times gets the dropout
that the preset names for that number of epochs.
"""

import copy
import ctypes
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from reviewgen.compiled.jit import clock
from reviewgen.config.generation import Preset
from reviewgen.config.training import TrainingConfig
from reviewgen.devices import using_threads
from reviewgen.errors import TrainingError, counted
from reviewgen.processes import Processes, process_state
from reviewgen.protocols.model import SupportsDevices, SupportsImplementations
from reviewgen.training.optimizing import (
    add_own_losses,
    cross_entropy,
    make_optimizers,
    own_losses,
    sparse_tables,
)
from reviewgen.training.softmax import compute_logits, sampled_softmax

_MAX_SLOW_STEPS = 5  # in a row, before a run falls back to one thread
# large pages for large tensors; torch reads it at its first tensor
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# The parameters of mallopt:
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_THRESHOLD = -3
_MMAP_MAX = -4
_REUSE = {_MMAP_MAX: 0, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 1 << 26}
_DEFAULTS = {
    _MMAP_MAX: 1 << 16,
    _TRIM_THRESHOLD: 1 << 17,
    _TOP_PAD: 1 << 17,
    _MMAP_THRESHOLD: 1 << 25,
}

_SECONDS = 0.5
# of a longer run, autotuning may take 1/100: a large model's first configuration alone can take a
# second
_LONG_RUN_SHARE = 100
_STEP_SECONDS = 0.03  # of one timed step: longer batches are shortened
_STEPS = 3  # timed, of each configuration
_MIN_LENGTH = 8  # time steps of a shortened batch
_ALL_THREADS = 1 << 16
_SHARE = 20  # of any run, autotuning may take 1/20
_MIN_GAIN = 1.05  # a configuration must be this much faster than the best one so far to replace it

TOKENS_PER_PARAMETER = 20.0
ENOUGH_EPOCHS = 1.5
"""Of a run: with fewer of both, a smaller model is better (Hoffmann et al. 2022;
tests/benchmarks/SPEEDRUN.md).
"""

MIN_TOKENS_PER_PARAMETER = 2.0
"""Of any run, however often it sees its corpus."""

MAX_PARAMETERS_PER_TOKEN = 10.0
"""Of the corpus; with more, a model memorises it."""

_MIN_DROPOUT_SHARE = 0.4
"""A model with fewer parameters than the corpus has characters memorises it more slowly, so its
number of epochs is scaled down, at most to this share, when the dropout is chosen. On 2,000
captions, lstm-word of 128 units, 0.4 parameters per character, takes 0.947 bits per character after
24 epochs with the dropout of 24 epochs, and 0.909 with about that of 10.
"""

_STEP_SHARE = 0.9  # of the time goes into steps; the rest into evaluations and samples
_AUTOTUNE_SECONDS = 0.3  # for each size
_SIZING_SECONDS = 2.0  # after them, or the next share if it is longer, no larger size is timed
_SIZING_SHARE = 0.01  # of the time of a run
_SHORT_LENGTH = 16  # time steps of a timed batch

_MIN_BATCH_GAIN = 1.1  # in tokens per second, that doubling a batch must bring
_MIN_STEPS = 1_000  # a run of fewer, larger steps learns less
_MAX_LENGTH = 128  # time steps of a grown batch
_MAX_LANES = 64  # lanes of a grown batch


def choose_device(wanted: str, model: Any) -> tuple[torch.device, tuple[str, ...]]:
    """Return the device to train a model on, and notes for the user.

    "auto" is the device accelerate selects, or the CPU if the model is unsuited for that device.

    Raises:
        TrainingError: The wanted device is not available.
    """
    available: torch.device = process_state().device
    unsuited = model.unsuited_devices if isinstance(model, SupportsDevices) else frozenset()
    if wanted == "auto" and available.type in unsuited:
        note = (
            f"{type(model).__name__} is unsuited for {available.type}, so it is trained on the CPU;"
            f" set training.device={available.type} to train it there anyway."
        )
        return torch.device("cpu"), (note,)
    if wanted not in ("auto", "cpu", available.type):
        raise TrainingError(
            f"training.device={wanted} is not available here: this process computes on"
            f" {available.type}. Set training.device=auto to use that device."
        )
    return torch.device("cpu") if wanted == "cpu" else available, ()


def choose_precision(wanted: str, device: str) -> str:
    """Return the mixed precision to train in on a device type. "auto" is the launcher's setting,
    else the device's native one.

    Raises:
        TrainingError: The device does not support it.
    """
    if wanted == "auto":
        wanted = os.environ.get("ACCELERATE_MIXED_PRECISION") or native_precision(device)
    if wanted == "fp8" or (wanted == "fp16" and device in ("cpu", "mps")):
        raise TrainingError(
            f"The mixed precision {wanted} is not available on {device}: use bf16 or no."
        )
    return wanted


def native_precision(device: str) -> str:
    """Return the mixed precision that a device type has instructions for."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "cpu":
        return (
            "bf16"
            if any("bf16" in name and has for name, has in torch.cpu.get_capabilities().items())
            else "no"
        )
    return "no"


class IsolatedRng:
    """Context manager that gives torch a separate random number stream; the global one is restored
    on exit.

    For an accelerator it covers both the CPU's generator and the device's, which dropout uses
    there.

    Attributes:
        states: The state of each generator as of the last exit, by device type. Save and restore
            them to resume the stream.
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.states: dict[str, Tensor] = {
            name: torch.Generator(name).manual_seed(seed).get_state()
            for name in dict.fromkeys(("cpu", device))
        }
        self._modules: dict[str, Any] = {
            name: torch if name == "cpu" else torch.get_device_module(name) for name in self.states
        }

    def resume(self, states: Mapping[str, Tensor]) -> None:
        """Continue the stream of a checkpoint; of one that was saved on another device, that of the
        CPU's generator.
        """
        self.states |= {device: state for device, state in states.items() if device in self.states}

    def __enter__(self) -> None:
        self._global_states = self._get()
        self._set(self.states)

    def __exit__(self, *error: object) -> None:
        self.states = self._get()
        self._set(self._global_states)

    def _get(self) -> dict[str, Tensor]:
        return {device: module.get_rng_state() for device, module in self._modules.items()}

    def _set(self, states: Mapping[str, Tensor]) -> None:
        for device, module in self._modules.items():
            module.set_rng_state(states[device])


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Return a reusable autocast context for a device type and a precision; "no" leaves computation
    in 32 bits.
    """
    if precision == "no":
        return nullcontext()  # a device type without autocast refuses even one that is not enabled
    return torch.autocast(device, torch.float16 if precision == "fp16" else torch.bfloat16)


class Threads:
    """The number of CPU threads of a run, which falls back to one thread if several turn slow.

    If other programs occupy a core, threads that wait for one another at every time step of a
    recurrent layer can be fifty times slower than one thread.

    Attributes:
        count: The number of threads in use.
        one_thread_seconds: Duration of a step with one thread; None if it was not measured, and
            then there is no fallback.
    """

    def __init__(self, count: int, one_thread_seconds: float | None) -> None:
        self.count = min(count, torch.get_num_threads())
        self.one_thread_seconds = one_thread_seconds
        self._slow_steps = 0  # in a row

    def record(self, seconds: float) -> None:
        """Record the duration of a step; after five slow steps in a row, switch to one thread."""
        if self.count > 1 and self.one_thread_seconds is not None:
            self._slow_steps = self._slow_steps + 1 if seconds > 2 * self.one_thread_seconds else 0
            if self._slow_steps == _MAX_SLOW_STEPS:
                self.count = 1
                torch.set_num_threads(1)


@contextmanager
def reused_memory() -> Iterator[None]:
    """Let the process keep freed memory inside the block, in large pages, and return it to the
    system at the end.

    By default, malloc returns a large block to the system as soon as it is freed, and the next step
    takes it back, page by page, each of which the system fills with zeros first. With a vocabulary
    of 8,000 tokens, that is a quarter of the time of a step. Only glibc can do this; see
    ``mallopt(3)``, and "Performance Tuning Guide" of the PyTorch tutorials for large pages.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    try:
        for parameter, value in _REUSE.items():
            libc.mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


@dataclass(frozen=True)
class Execution:
    """How training steps are computed. Saved in checkpoints.

    Attributes:
        threads: CPU threads.
        precision: Mixed precision, "bf16" or "fp16"; "no" computes in 32 bits throughout.
        implementation: Implementation of the layers, for a model that has several.
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
        parts = counted(self.threads, "thread"), precision, self.implementation
        return f"{', '.join(filter(None, parts))}: {self.tokens_per_second:,.0f}"


def choose_execution(
    model: nn.Module,
    config: TrainingConfig,
    device: str,
    seconds: float | None,
    run_tokens: float,
    processes: Processes,
) -> list[Execution]:
    """Return how to compute the steps of a run, then the slower configurations that were timed, on
    a CPU if there is a choice.

    Args:
        model: The model.
        config: Training settings.
        device: The type of the device.
        seconds: The time of the run, or None.
        run_tokens: The tokens of the run, or infinity.
        processes: The processes, of which the first chooses for all.
    """
    executions = [_default_execution(model, config, device)]
    if device == "cpu" and processes.rank == 0:  # the others wait for its result
        executions = autotune(model, config, _autotune_seconds(seconds), run_tokens)
    chosen: list[Execution] = processes.broadcast(executions)
    return chosen


def _autotune_seconds(run_seconds: float | None) -> float:
    """Return how long autotuning may take for a run of some seconds; half a second if that is not
    known.
    """
    return (
        _SECONDS
        if run_seconds is None
        else min(max(_SECONDS, run_seconds / _LONG_RUN_SHARE), run_seconds / _SHARE)
    )


def _default_execution(model: nn.Module, config: TrainingConfig, device: str) -> Execution:
    """Return the configuration to use without autotuning: all threads, and the model's first
    implementation.
    """
    implementations = (
        model.implementations() if isinstance(model, SupportsImplementations) else (None,)
    )
    threads = min(config.threads or _ALL_THREADS, torch.get_num_threads())
    return Execution(threads, choose_precision(config.precision, device), implementations[0])


def autotune(
    model: nn.Module, config: TrainingConfig, seconds: float, run_tokens: float = math.inf
) -> list[Execution]:
    """Time configurations of a model on the CPU; return those that were timed, the selected one
    first.

    If the settings leave only one configuration, it is not timed. The plainest is timed first, one
    thread in 32 bits, and the fastest so far wins when the time is over. Threads come last: if
    other programs occupy a core, several threads that wait for one another can be fifty times
    slower.

    Args:
        model: The model. It is copied, but for tables with sparse gradients, and not changed.
        config: Gives the batch shape, and whether threads and precision are fixed; a launcher has
            set the number of threads.
        seconds: Time limit. Configurations not yet timed by then are skipped.
        run_tokens: The tokens of the run, if it has a number of steps: the time limit then follows
            from its estimated length.
    """
    default = _default_execution(model, config, "cpu")
    choices: dict[str, Sequence[Any]] = {
        "precision": ("no", default.precision) if config.precision == "auto" else (),
        "implementation": (
            model.implementations() if isinstance(model, SupportsImplementations) else ()
        ),
        "threads": (
            ()
            if config.threads or process_state().num_processes > 1
            else (1, torch.get_num_threads())
        ),
    }
    if all(len(set(values)) < 2 for values in choices.values()):
        return [default]
    start = replace(
        default, **{setting: values[0] for setting, values in choices.items() if values}
    )
    # shares those, which are large
    trial = copy.deepcopy(model, {id(table): table for table in sparse_tables(model)}).train()
    with IsolatedRng(0):
        batch = _shorten_batch(trial, start, config)
        started = time.monotonic()  # the first call may have compiled
        best = time_steps(trial, start, batch, config.sampled_softmax)
        if math.isfinite(run_tokens):
            seconds = _autotune_seconds(run_tokens / best.tokens_per_second)
        deadline = started + seconds
        timed = [best]
        for setting, values in choices.items():
            for value in values:
                if value == getattr(best, setting):
                    continue
                if time.monotonic() > deadline:
                    break
                began = time.monotonic()
                timed.append(
                    time_steps(
                        trial, replace(best, **{setting: value}), batch, config.sampled_softmax
                    )
                )
                steps = (_STEPS + 1) * math.prod(batch) / timed[-1].tokens_per_second
                # what it took longer was compiling
                deadline += max(0.0, time.monotonic() - began - steps)
            best = max(
                timed,
                key=lambda execution: (
                    execution.tokens_per_second * (_MIN_GAIN if execution is best else 1)
                ),
            )
    return [best, *(execution for execution in timed if execution is not best)]


def _shorten_batch(
    model: nn.Module, execution: Execution, config: TrainingConfig
) -> tuple[int, int]:
    """Return B and T of the timed batches, with T short enough that a step takes about
    ``_STEP_SECONDS``.
    """
    lanes = config.batch_size
    length = config.bptt
    short = min(length, _MIN_LENGTH)
    timed = time_steps(model, execution, (lanes, short), config.sampled_softmax, steps=1)
    seconds = lanes * short / timed.tokens_per_second
    return lanes, max(short, min(length, int(short * _STEP_SECONDS / seconds)))


def time_steps(
    model: Any, execution: Execution, batch: tuple[int, int], drawn: int, steps: int = _STEPS
) -> Execution:
    """Return a configuration with the throughput of the fastest of some timed steps, after a
    warm-up step.

    With a sampled softmax of the size ``drawn``, the tokens follow Zipf's law, the first the most
    frequent.
    """
    if isinstance(model, SupportsImplementations) and execution.implementation is not None:
        model.use_implementation(execution.implementation)
    vocab_size = model.config.vocab_size
    sampled = sampled_softmax(model, drawn, "cpu")
    chances = torch.rand(batch[0], batch[1] + 1)
    ids = ((vocab_size * chances) if sampled is None else vocab_size**chances - 1).long()
    best = 0.0
    with using_threads(execution.threads):
        for number in range(steps + 1):
            start = time.perf_counter()
            with autocast("cpu", execution.precision):
                state = model.initial_state(batch[0])
                logits, targets, _ = compute_logits(sampled, model, ids[:, :-1], state, ids[:, 1:])
                terms = own_losses(model, logits, targets)
            loss, _ = add_own_losses(
                cross_entropy(logits, targets, batch[0] * batch[1]), terms, 1.0
            )
            torch.autograd.backward(loss)
            if number:
                best = max(best, batch[0] * batch[1] / (time.perf_counter() - start))
    model.zero_grad()
    return replace(execution, tokens_per_second=best)


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
        settings = ", ".join(
            f"{name}={value}" for name, value in {**self.model, **self.training}.items()
        )
        epochs = f"{self.epochs:,.0f}" if self.epochs >= 100 else f"{self.epochs:.1f}"
        return (
            f"Chosen for {seconds:.0f} s of training: {settings} ({self.parameters:,} parameters),"
            f" about {epochs} epochs at {self.tokens_per_second:,.0f} tokens per second."
        )


@reused_memory()
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
    """Return the largest size of a preset that can be trained well in a given time on this machine;
    None if it lists no sizes.

    Args:
        preset: Lists the sizes, small to large, and the dropout by number of epochs.
        build: Makes a model with given settings.
        config: Training settings; its batch shape is the smallest one.
        seconds: The time for steps and evaluations.
        corpus_tokens: Tokens of an epoch.
        corpus_characters: Characters of an epoch.
        may_grow: Whether the batch may be made larger for a model whose optimizer is slow.
    """
    chosen = None
    start = clock()
    deadline = math.inf
    for settings in preset.sizes:
        if clock() > deadline:
            break
        model = build(settings)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        in_bags = _count_weights(model, nn.EmbeddingBag)
        # most rows of which a token does not use
        multiplied = parameters - in_bags - _count_weights(model, nn.Embedding)
        throughput_of = _measure_throughput(model, config)
        deadline = min(deadline, clock() + max(_SIZING_SECONDS, _SIZING_SHARE * seconds))
        batch = (
            _grow_batch(config, throughput_of, seconds)
            if may_grow
            else (config.batch_size, config.bptt)
        )
        throughput = throughput_of(math.prod(batch) * config.gradient_accumulation_steps)
        tokens = throughput * max(0.0, seconds - (clock() - start)) * _STEP_SHARE
        enough = max(
            MIN_TOKENS_PER_PARAMETER * multiplied,
            min(TOKENS_PER_PARAMETER * multiplied, ENOUGH_EPOCHS * corpus_tokens),
        )
        if chosen is not None and (
            tokens < enough or multiplied > MAX_PARAMETERS_PER_TOKEN * corpus_tokens
        ):
            break
        training = {"batch_size": batch[0], "bptt": batch[1]} if may_grow else {}
        epochs = (
            tokens
            / corpus_tokens
            * min(1.0, max(_MIN_DROPOUT_SHARE, (parameters - in_bags) / corpus_characters))
        )
        training |= _of_epochs(preset.training_by_epochs, preset.training_settings, epochs)
        model_settings = {**settings, **_of_epochs(preset.by_epochs, preset.model_settings, epochs)}
        chosen = Sizing(model_settings, training, parameters, throughput, tokens / corpus_tokens)
    if chosen is None or chosen.model.keys() == preset.sizes[0].keys():
        return chosen
    return replace(
        chosen, parameters=sum(parameter.numel() for parameter in build(chosen.model).parameters())
    )


def _count_weights(model: nn.Module, kind: type[nn.Embedding | nn.EmbeddingBag]) -> int:
    """Return the number of weights in a model's tables of a kind."""
    return sum(
        table.numel()
        for table in {module.weight for module in model.modules() if isinstance(module, kind)}
    )


def _grow_batch(
    config: TrainingConfig, throughput_of: Callable[[int], float], seconds: float
) -> tuple[int, int]:
    """Return B and T of a step: longer, then more lanes, while that raises the throughput and
    leaves enough steps.
    """
    lanes = config.batch_size
    length = config.bptt
    while True:
        tokens = lanes * length * config.gradient_accumulation_steps
        larger = (lanes, 2 * length) if length < _MAX_LENGTH else (2 * lanes, length)
        steps = throughput_of(2 * tokens) * seconds * _STEP_SHARE / (2 * tokens)
        if (
            throughput_of(2 * tokens) < _MIN_BATCH_GAIN * throughput_of(tokens)
            or steps < _MIN_STEPS
            or larger[0] > _MAX_LANES
        ):
            return lanes, length
        lanes, length = larger


def _measure_throughput(model: nn.Module, config: TrainingConfig) -> Callable[[int], float]:
    """Return a function that gives the tokens per second of whole steps, of a number of tokens
    each.
    """
    best = autotune(model, config, _AUTOTUNE_SECONDS)[0]
    if not best.tokens_per_second:  # there was no choice
        with IsolatedRng(0):
            best = time_steps(
                model,
                best,
                (config.batch_size, min(config.bptt, _SHORT_LENGTH)),
                config.sampled_softmax,
            )
    optimizers = make_optimizers(model, config)
    seconds = list[float]()
    # of which a step updates a few rows only
    dense = set(model.parameters()) - set(sparse_tables(model))
    with using_threads(best.threads):
        for _ in range(2):  # the first step allocates the optimizers' state
            for parameter in dense:
                parameter.grad = torch.full_like(parameter, 1e-3)
            start = time.perf_counter()
            for optimizer in optimizers:
                optimizer.step()
            seconds.append(time.perf_counter() - start)
    return lambda tokens: tokens / (tokens / best.tokens_per_second + min(seconds))


def _of_epochs(
    by_epochs: Sequence[tuple[float, Mapping[str, Any]]], base: Mapping[str, Any], epochs: float
) -> Mapping[str, Any]:
    """Return the settings that a preset names for a number of epochs: those of the last row that it
    reaches.

    Numbers with a fraction lie between those of this row and the next, by the logarithm of the
    epochs, so that nothing changes at once where an estimate of the epochs is a little off; one
    that this row does not name is that of ``base``, or 0.
    """
    reached = [row for row in by_epochs if epochs >= row[0]]
    if len(reached) in (0, len(by_epochs)):
        return reached[-1][1] if reached else {}
    (start, settings), (end, following) = reached[-1], by_epochs[len(reached)]
    share = math.log(epochs / start) / math.log(end / start)
    numbers = {name: value for name, value in following.items() if isinstance(value, float)}
    between = {
        name: (1 - share) * settings.get(name, base.get(name, 0.0)) + share * value
        for name, value in numbers.items()
    }
    return {**settings, **{name: round(value, 3) for name, value in between.items()}}
