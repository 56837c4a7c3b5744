"""Chooses the size of the model, and of its batches, for a time budget, if the user has set neither.

The preset lists the sizes, small to large. A larger model learns more from each token but sees fewer of them; the largest size is
chosen that still sees several tokens for each of its parameters within the budget (the trade-off of Hoffmann et al. 2022,
"Training Compute-Optimal Large Language Models", with another ratio: these models are small, and repeat their corpus). The cost
of each size is measured on this machine with short steps. A model that sees its corpus several times gets the dropout that the
preset names for that number of epochs.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from reviewgen.config import Preset, TrainingConfig
from reviewgen.generation.model_stepper import using_threads
from reviewgen.training.autotune import Timing, autotune, default_execution, measure_throughput
from reviewgen.training.device import IsolatedRng, choose_precision
from reviewgen.training.optimizing import make_optimizers

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
_MAX_SECONDS, _MAX_SHARE = 2.0, 0.01  # of the time; after the larger of the two no larger size is timed
_SHORT_LENGTH = 16  # time steps of a timed batch

_MIN_GAIN = 1.1  # in tokens per second, that doubling a batch must bring
_MIN_STEPS = 1_000  # a run of fewer, larger steps learns less
_MAX_LENGTH, _MAX_LANES = 128, 64  # of a grown batch


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
        deadline = min(deadline, time.monotonic() + max(_MAX_SECONDS, _MAX_SHARE * seconds))  # the first may have compiled
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
        if gain < _MIN_GAIN or steps < _MIN_STEPS or larger[0] > _MAX_LANES:
            return lanes, length
        lanes, length = larger


def _time_steps(model: nn.Module, config: TrainingConfig) -> _StepCost:
    """Measure forward and backward passes, and the optimizer's step."""
    default = default_execution(model, config, choose_precision(config.precision, "cpu"))
    timings = autotune(model, default, config, _AUTOTUNE_SECONDS)
    with IsolatedRng(0):
        best = (
            timings[0]
            if timings
            else Timing(default, measure_throughput(model, default, (config.batch_size, min(config.bptt, _SHORT_LENGTH))))
        )
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
