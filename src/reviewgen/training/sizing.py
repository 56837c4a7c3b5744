"""How large a model, and how large a batch, a budget is spent on best, where nobody has said.

The sizes stand in the preset, small to large. A larger model learns more from each token and sees fewer of them; the largest
is taken that still sees some tokens for each of its parameters in the time there is (the trade of Hoffmann et al. 2022,
"Training Compute-Optimal Large Language Models", at another price: these models are small, and repeat their corpus). What it
costs is timed, not guessed: one short step of each size on this machine. A model that sees its corpus several times is given
the dropout that the preset names for so many epochs.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from reviewgen.config import Preset
from reviewgen.training.config import TrainingConfig
from reviewgen.training.device import OwnRandom, find_precision, using_threads
from reviewgen.training.optimizing import make_optimizers
from reviewgen.training.probe import Timing, autotune, default_execution, measure_throughput

__all__ = ["Sizing", "choose_size"]

TOKENS_A_PARAMETER = 3.0
"""Fewer, and a smaller model is ahead: measured with lstm-char, 15 to 100 s (tests/benchmarks/SPEEDRUN.md)."""

PARAMETERS_A_TOKEN = 4.0
"""Of the corpus; with more, a model learns it by heart."""

_SHARE = 0.9  # of the time goes into steps; evaluations and samples take the rest
_SECONDS = 0.3  # of timing a size
_LOOKING = 2.0  # seconds after which no larger size is timed
_SHORT = 16  # time steps

_GAIN = 1.1  # in tokens a second, that a batch of twice the length must bring
_FEWEST_STEPS = 1_000  # a model that takes fewer, larger steps learns less
_LONGEST, _WIDEST = 128, 64  # time steps, lanes


@dataclass(frozen=True)
class Sizing:
    """What was chosen, and what it rests on."""

    model: Mapping[str, Any]  # settings
    training: Mapping[str, Any]  # the same
    parameters: int
    tokens_per_second: float
    epochs: float  # that the time is enough for
    expected: tuple[float, float] | None  # bits per character held out, low and high

    def words(self, seconds: float) -> str:
        """Return what was chosen, in a sentence."""
        chosen = ", ".join(f"{name}={value}" for name, value in {**self.model, **self.training}.items())
        expects = ""
        if self.expected is not None:
            low, high = self.expected
            expects = f" Expected on held-out reviews: {low:.2f} to {high:.2f} bits per character."
        epochs = f"{self.epochs:,.0f}" if self.epochs >= 100 else f"{self.epochs:.1f}"
        return (
            f"Chosen for the {seconds:.0f} s that are left: {chosen} ({self.parameters:,} parameters), about "
            f"{epochs} epochs at {self.tokens_per_second:,.0f} tokens a second.{expects}"
        )


@dataclass(frozen=True)
class _Cost:
    """What a model's steps take."""

    tokens_per_second: float  # forward and backward
    optimizer_seconds: float  # a step

    def rate(self, tokens: int) -> float:
        """Return tokens a second of whole steps of so many tokens."""
        return tokens / (tokens / self.tokens_per_second + self.optimizer_seconds)


def choose_size(
    preset: Preset,
    build: Callable[[Mapping[str, Any]], Any],
    config: TrainingConfig,
    seconds: float,
    corpus_tokens: int,
    *,
    may_grow: bool = True,
) -> Sizing | None:
    """Return the size of a preset that a time on this machine is enough for; None where the preset has no sizes.

    Args:
        preset: Names the sizes, small to large, and the dropout for so many epochs.
        build: Makes a model with such settings.
        config: Says the batch of a step, at least.
        seconds: The time for steps and evaluations.
        corpus_tokens: Of an epoch.
        may_grow: Whether the batch may be made longer for a model whose optimizer takes long.
    """
    chosen, start = None, time.monotonic()
    for settings in preset.sizes:
        if chosen is not None and time.monotonic() - start > _LOOKING:
            break
        model = build(settings)
        parameters, tables = _count(model)
        cost = _time_steps(model, config)
        batch = _grow(config, cost, seconds) if may_grow else (config.batch_size, config.bptt)
        rate = cost.rate(math.prod(batch) * config.gradient_accumulation_steps)
        tokens = rate * max(0.0, seconds - (time.monotonic() - start)) * _SHARE
        multiplied = parameters - tables
        is_too_large = tokens < TOKENS_A_PARAMETER * multiplied or multiplied > PARAMETERS_A_TOKEN * corpus_tokens
        if chosen is not None and is_too_large:
            break
        epochs = tokens / corpus_tokens
        training = {"batch_size": batch[0], "bptt": batch[1]} if may_grow else {}
        model_settings = {**settings, **_dropout(preset, epochs)}
        chosen = Sizing(model_settings, training, parameters, rate, epochs, _expect(preset, tokens))
    return chosen


def _count(model: nn.Module) -> tuple[int, int]:
    """Return how many parameters a model has, and how many of them in tables of n-grams, of which a token takes a few rows."""
    tables = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.EmbeddingBag))
    return sum(parameter.numel() for parameter in model.parameters()), tables


def _grow(config: TrainingConfig, cost: _Cost, seconds: float) -> tuple[int, int]:
    """Return B and T of a step: longer, then wider, while the optimizer takes much of it and many steps are left."""
    rows, length = config.batch_size, config.bptt
    while True:
        tokens = rows * length * config.gradient_accumulation_steps
        wider = (rows, 2 * length) if length < _LONGEST else (2 * rows, length)
        steps = cost.rate(2 * tokens) * seconds * _SHARE / (2 * tokens)
        gain = cost.rate(2 * tokens) / cost.rate(tokens)
        if gain < _GAIN or steps < _FEWEST_STEPS or wider[0] > _WIDEST:
            return rows, length
        rows, length = wider


def _time_steps(model: nn.Module, config: TrainingConfig) -> _Cost:
    """Time the parts of a model's step: forward and backward, and the optimizer."""
    form = default_execution(model, config, find_precision(config.precision, "cpu"))
    timings = autotune(model, form, config, _SECONDS)
    with OwnRandom(0):
        best = (
            timings[0]
            if timings
            else Timing(form, measure_throughput(model, form, (config.batch_size, min(config.bptt, _SHORT))))
        )
    optimizers, seconds = make_optimizers(model, config), []
    with using_threads(best.form.threads):
        for _ in range(2):  # the first makes room for the optimizers' memory
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 1e-3)
            start = time.perf_counter()
            for optimizer in optimizers:
                optimizer.step()
            seconds.append(time.perf_counter() - start)
    return _Cost(best.tokens_per_second, min(seconds))


def _dropout(preset: Preset, epochs: float) -> Mapping[str, Any]:
    """Return the settings that a preset names for a model that sees its corpus so often."""
    return next((settings for least, settings in reversed(preset.by_epochs) if epochs >= least), {})


def _expect(preset: Preset, tokens: float) -> tuple[float, float] | None:
    """Return the bits per character to expect after so many tokens: between measured points, on a line over their logarithm."""
    if not preset.expected:
        return None
    counts, lows, highs = zip(*preset.expected, strict=True)
    at = math.log(max(tokens, 1.0))
    places = [math.log(count) for count in counts]
    return float(np.interp(at, places, lows)), float(np.interp(at, places, highs))
