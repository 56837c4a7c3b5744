"""Choose the size of a model for a time budget, by timing a few steps.

This is done if the user has not set a size. A larger model learns more from each token, but sees
fewer tokens in the time. So the largest of the preset's sizes is chosen that sees enough tokens
within the budget: twenty for each of its parameters or, with a small corpus, 1.5 epochs (Hoffmann
et al. 2022, "Training Compute-Optimal Large Language Models"). A model that sees its corpus several
times gets the dropout that the preset has for this number of epochs.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from reviewgen.compiled.jit import clock
from reviewgen.config.generation import Preset
from reviewgen.config.training import TrainingConfig
from reviewgen.devices import using_threads
from reviewgen.training.autotuning import autotune, time_steps
from reviewgen.training.device import IsolatedRng
from reviewgen.training.memory import reused_memory
from reviewgen.training.optimizers import make_optimizer, sparse_tables

# A smaller model is better if a run has both fewer than _TOKENS_PER_PARAMETER tokens for each
# parameter and fewer than _ENOUGH_EPOCHS epochs (Hoffmann et al. 2022;
# tests/benchmarks/SPEEDRUN.md).
_TOKENS_PER_PARAMETER = 20.0
_ENOUGH_EPOCHS = 1.5
_MIN_TOKENS_PER_PARAMETER = 2.0  # every run needs this many, however many epochs it has
_MAX_PARAMETERS_PER_TOKEN = 10.0  # with more for each token of the corpus, a model memorises it
# A model with fewer parameters than the corpus has characters memorises it more slowly. So, to
# choose the dropout, its number of epochs is multiplied by parameters per character, but by no less
# than this. Measured on 2,000 captions with lstm-word of 128 units (0.4 parameters per character),
# trained for 24 epochs: the dropout for 24 epochs gave 0.947 bits per character, the dropout for
# about 10 epochs gave 0.909.
_MIN_DROPOUT_SHARE = 0.4

_STEP_SHARE = 0.9  # share of the time for steps; the rest is for evaluations and samples
_AUTOTUNE_SECONDS = 0.3  # time of autotuning for each size
# After the first size, larger sizes are timed only within this time, or within this share of the
# run if that is more.
_SIZING_SECONDS = 2.0
_SIZING_SHARE = 0.01
_SHORT_LENGTH = 16  # time steps of a timed batch

_MIN_BATCH_GAIN = 1.1  # doubling a batch must raise the tokens per second by this factor
# a batch does not grow if the run would then have fewer steps than this, and so learn less
_MIN_STEPS = 1_000
_MAX_LENGTH = 128  # max time steps of a grown batch
_MAX_LANES = 64  # max lanes of a grown batch


@dataclass(frozen=True)
class Sizing:
    """The chosen size of a model, and the estimates that the choice is based on.

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
        """Return a sentence on the choice; ``seconds`` is the time budget."""
        chosen = {**self.model, **self.training}
        settings = ", ".join(f"{name}={value}" for name, value in chosen.items())
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
    None if the preset lists no sizes.

    Args:
        preset: Lists the sizes, small to large, and the dropout by number of epochs.
        build: A function that makes a model with given settings.
        config: Training settings; its batch shape is the smallest one.
        seconds: The time for steps and evaluations.
        corpus_tokens: Number of tokens in an epoch.
        corpus_characters: Number of characters in an epoch.
        may_grow: Whether the batch may be made larger if that raises the throughput, as for a model
            whose optimizer step is slow.
    """
    chosen = None
    start = clock()
    deadline = math.inf  # no size is timed after this; set once the first size is timed
    for settings in preset.sizes:
        if clock() > deadline:
            break
        model = build(settings)
        parameters = _count_parameters(model)
        bag_weights = _count_weights(model, nn.EmbeddingBag)
        # without embedding tables, of which a token uses few rows
        dense_parameters = parameters - bag_weights - _count_weights(model, nn.Embedding)
        throughput_of = _measure_throughput(model, config)
        deadline = min(deadline, clock() + max(_SIZING_SECONDS, _SIZING_SHARE * seconds))
        lanes = config.batch_size
        length = config.bptt
        if may_grow:
            lanes, length = _grow_batch(config, throughput_of, seconds)
        throughput = throughput_of(lanes * length * config.gradient_accumulation_steps)
        time_left = max(0.0, seconds - (clock() - start))
        tokens = throughput * time_left * _STEP_SHARE
        # the smallest size is chosen in any case
        if chosen is not None and not _fits(dense_parameters, tokens, corpus_tokens):
            break
        epochs = tokens / corpus_tokens
        parameters_per_character = (parameters - bag_weights) / corpus_characters
        # the number of epochs that the dropout is chosen for
        dropout_epochs = epochs * min(1.0, max(_MIN_DROPOUT_SHARE, parameters_per_character))
        by_epochs = _interpolate(preset.by_epochs, preset.model_settings, dropout_epochs)
        training = {"batch_size": lanes, "bptt": length} if may_grow else {}
        training |= _interpolate(
            preset.training_by_epochs, preset.training_settings, dropout_epochs
        )
        chosen = Sizing({**settings, **by_epochs}, training, parameters, throughput, epochs)
    if chosen is None or chosen.model.keys() == preset.sizes[0].keys():
        return chosen
    # the settings that were added for the number of epochs may change the number of parameters
    return replace(chosen, parameters=_count_parameters(build(chosen.model)))


def _fits(parameters: int, tokens: float, corpus_tokens: int) -> bool:
    """Return whether a run has enough tokens for a model of this size, and its corpus is large
    enough not to be memorised.
    """
    # 20 for each parameter, or 1.5 epochs if that is less; but at least 2 for each parameter
    enough = max(
        _MIN_TOKENS_PER_PARAMETER * parameters,
        min(_TOKENS_PER_PARAMETER * parameters, _ENOUGH_EPOCHS * corpus_tokens),
    )
    return tokens >= enough and parameters <= _MAX_PARAMETERS_PER_TOKEN * corpus_tokens


def _count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _count_weights(model: nn.Module, kind: type[nn.Embedding | nn.EmbeddingBag]) -> int:
    """Return the number of weights in all modules of a kind."""
    tables = {module.weight for module in model.modules() if isinstance(module, kind)}
    return sum(table.numel() for table in tables)


def _grow_batch(
    config: TrainingConfig, throughput_of: Callable[[int], float], seconds: float
) -> tuple[int, int]:
    """Return B and T of a grown batch.

    T is doubled up to its max, then B, while that raises the throughput and leaves enough steps.
    """
    lanes = config.batch_size
    length = config.bptt
    while True:
        step_tokens = lanes * length * config.gradient_accumulation_steps
        throughput = throughput_of(2 * step_tokens)
        is_faster = throughput >= _MIN_BATCH_GAIN * throughput_of(step_tokens)
        steps = throughput * seconds * _STEP_SHARE / (2 * step_tokens)
        larger = (lanes, 2 * length) if length < _MAX_LENGTH else (2 * lanes, length)
        if not is_faster or steps < _MIN_STEPS or larger[0] > _MAX_LANES:
            return lanes, length
        lanes, length = larger


def _measure_throughput(model: nn.Module, config: TrainingConfig) -> Callable[[int], float]:
    """Measure the speed of a model; return a function from the number of tokens in a step to the
    throughput of whole steps, in tokens per second.
    """
    best = autotune(model, config, _AUTOTUNE_SECONDS)[0]
    if not best.tokens_per_second:  # autotuning had no choice, so it has measured nothing
        with IsolatedRng(0):
            batch = config.batch_size, min(config.bptt, _SHORT_LENGTH)
            best = time_steps(model, best, batch, config.sampled_softmax)
    optimizer = make_optimizer(model, config)
    optimizer_seconds = math.inf
    # leave out tables with sparse gradients, of which a step updates few rows
    dense = set(model.parameters()) - set(sparse_tables(model))
    with using_threads(best.threads):
        for _ in range(2):  # the first step allocates the optimizer's state
            for parameter in dense:
                parameter.grad = torch.full_like(parameter, 1e-3)
            start = time.perf_counter()
            optimizer.step()
            optimizer_seconds = min(optimizer_seconds, time.perf_counter() - start)
    return lambda tokens: tokens / (tokens / best.tokens_per_second + optimizer_seconds)


def _interpolate(
    by_epochs: Sequence[tuple[float, Mapping[str, Any]]], base: Mapping[str, Any], epochs: float
) -> Mapping[str, Any]:
    """Return the settings that a preset has for a number of epochs; none if it is less than the
    first number in ``by_epochs``.

    The settings are those of the last row that ``epochs`` reaches. Settings that are floats are
    interpolated between this row and the next one, by the logarithm of the epochs, so that a small
    error in the estimate of the epochs has a small effect.

    Args:
        by_epochs: Rows of a min number of epochs and settings, in order.
        base: The preset's other settings. They give the value, at the reached row, of each float
            that only the next row has; without such a setting it is 0.
        epochs: The number of epochs.
    """
    reached = [row for row in by_epochs if epochs >= row[0]]
    if not reached:
        return {}
    start, settings = reached[-1]
    if len(reached) == len(by_epochs):
        return settings
    end, next_settings = by_epochs[len(reached)]
    share = math.log(epochs / start) / math.log(end / start)
    interpolated = dict(settings)
    for name, value in next_settings.items():
        if isinstance(value, float):
            before = settings.get(name, base.get(name, 0.0))
            interpolated[name] = round((1 - share) * before + share * value, 3)
    return interpolated
