"""The size of a model for a time budget, chosen by timing a few steps.

If the user has set no size, the largest of the preset's sizes is chosen that still sees twenty
tokens for each of its parameters within the budget, or a small corpus more than once: a larger
model learns more from each token but sees fewer of them (Hoffmann et al. 2022, "Training
Compute-Optimal Large Language Models"). A model that sees its corpus several times gets the dropout
that the preset names for that number of epochs.
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
from reviewgen.training.optimizing import make_optimizers, sparse_tables

# With fewer tokens than this for each parameter, and fewer epochs than this, a smaller model is
# better (Hoffmann et al. 2022; tests/benchmarks/SPEEDRUN.md).
_TOKENS_PER_PARAMETER = 20.0
_ENOUGH_EPOCHS = 1.5
_MIN_TOKENS_PER_PARAMETER = 2.0  # of any run, however often it sees its corpus
_MAX_PARAMETERS_PER_TOKEN = 10.0  # of the corpus; with more, a model memorises it
# A model with fewer parameters than the corpus has characters memorises it more slowly, so its
# number of epochs is scaled down, at most to this share, when the dropout is chosen. On 2,000
# captions, lstm-word of 128 units, 0.4 parameters per character, takes 0.947 bits per character
# after 24 epochs with the dropout of 24 epochs, and 0.909 with about that of 10.
_MIN_DROPOUT_SHARE = 0.4

_STEP_SHARE = 0.9  # of the time goes into steps; the rest into evaluations and samples
_AUTOTUNE_SECONDS = 0.3  # for each size
# after the first size, no larger one is timed once this time is over, or this share of the run
_SIZING_SECONDS = 2.0
_SIZING_SHARE = 0.01
_SHORT_LENGTH = 16  # time steps of a timed batch

_MIN_BATCH_GAIN = 1.1  # in tokens per second, that doubling a batch must bring
_MIN_STEPS = 1_000  # a run of fewer, larger steps learns less
_MAX_LENGTH = 128  # time steps of a grown batch
_MAX_LANES = 64  # lanes of a grown batch


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
        parameters = _count_parameters(model)
        in_bags = _count_weights(model, nn.EmbeddingBag)
        # a token uses few rows of a table
        multiplied = parameters - in_bags - _count_weights(model, nn.Embedding)
        throughput_of = _measure_throughput(model, config)
        deadline = min(deadline, clock() + max(_SIZING_SECONDS, _SIZING_SHARE * seconds))
        batch = config.batch_size, config.bptt
        if may_grow:
            batch = _grow_batch(config, throughput_of, seconds)
        throughput = throughput_of(math.prod(batch) * config.gradient_accumulation_steps)
        tokens = throughput * max(0.0, seconds - (clock() - start)) * _STEP_SHARE
        if chosen is not None and not _fits(multiplied, tokens, corpus_tokens):
            break
        training = {"batch_size": batch[0], "bptt": batch[1]} if may_grow else {}
        epochs = tokens / corpus_tokens
        parameters_per_character = (parameters - in_bags) / corpus_characters
        memorising = epochs * min(1.0, max(_MIN_DROPOUT_SHARE, parameters_per_character))
        training |= _of_epochs(preset.training_by_epochs, preset.training_settings, memorising)
        by_epochs = _of_epochs(preset.by_epochs, preset.model_settings, memorising)
        chosen = Sizing({**settings, **by_epochs}, training, parameters, throughput, epochs)
    if chosen is None or chosen.model.keys() == preset.sizes[0].keys():
        return chosen
    return replace(chosen, parameters=_count_parameters(build(chosen.model)))


def _fits(parameters: int, tokens: float, corpus_tokens: int) -> bool:
    """Return whether a model sees enough tokens in a run, of a corpus that is large enough."""
    enough = max(
        _MIN_TOKENS_PER_PARAMETER * parameters,
        min(_TOKENS_PER_PARAMETER * parameters, _ENOUGH_EPOCHS * corpus_tokens),
    )
    return tokens >= enough and parameters <= _MAX_PARAMETERS_PER_TOKEN * corpus_tokens


def _count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _count_weights(model: nn.Module, kind: type[nn.Embedding | nn.EmbeddingBag]) -> int:
    """Return the number of weights in a model's tables of a kind."""
    tables = {module.weight for module in model.modules() if isinstance(module, kind)}
    return sum(table.numel() for table in tables)


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
    """Return a function from the tokens of a step to the tokens per second of whole steps."""
    best = autotune(model, config, _AUTOTUNE_SECONDS)[0]
    if not best.tokens_per_second:  # there was no choice
        with IsolatedRng(0):
            batch = config.batch_size, min(config.bptt, _SHORT_LENGTH)
            best = time_steps(model, best, batch, config.sampled_softmax)
    optimizers = make_optimizers(model, config)
    seconds = list[float]()
    # a step updates a few rows of a table with sparse gradients
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
    epochs, so that nothing changes at once where an estimate of the epochs is a little off. A
    number that this row does not name is that of ``base``, or 0.
    """
    reached = [row for row in by_epochs if epochs >= row[0]]
    if not reached:
        return {}
    start, settings = reached[-1]
    if len(reached) == len(by_epochs):
        return settings
    end, following = by_epochs[len(reached)]
    share = math.log(epochs / start) / math.log(end / start)
    numbers = {name: value for name, value in following.items() if isinstance(value, float)}
    between = {
        name: (1 - share) * settings.get(name, base.get(name, 0.0)) + share * value
        for name, value in numbers.items()
    }
    return {**settings, **{name: round(value, 3) for name, value in between.items()}}
