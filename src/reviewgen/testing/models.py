"""Models to check, and what the laws do with them: build, train by counting, call, compare."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reviewgen.config import from_dict
from reviewgen.protocols import CountTrained, LanguageModel
from reviewgen.registry import find_model

__all__ = [
    "ROWS",
    "STEPS",
    "TOLERANCE",
    "assert_close",
    "assert_normalised",
    "call",
    "call_twice",
    "can",
    "evaluating",
    "make_model",
    "refuses",
    "some_ids",
    "tensors",
    "through_a_file",
    "train_by_counting",
]

ROWS, STEPS = 3, 12
TOLERANCE = 1e-4
"""How far two ways to the same float32 logits may lie apart: sums in another order differ by about 1e-6 a layer."""


def make_model(name: str, vocab_size: int = 11, seed: int = 0, **settings: Any) -> LanguageModel:
    """Build an installed model by name, ready to be checked; global random state is left as it was.

    Raises:
        UnknownPlugin: Nothing of that name is installed.
        ConfigError: A setting is unknown or out of range.
    """
    cls, _ = find_model(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cls(from_dict(cls.Config, {"vocab_size": vocab_size, **settings}))
    if isinstance(model, CountTrained):
        train_by_counting(model, vocab_size, seed)
    ready: LanguageModel = evaluating(model)
    return ready


def train_by_counting(model: CountTrained, vocab_size: int, seed: int = 0, texts: int = 20) -> Mapping[str, Any]:
    """Let a count model observe a few random texts (0 begins, 1 ends a text), finish, and return what it reports."""
    rng = np.random.default_rng(seed)
    for _ in range(texts):
        tokens = rng.integers(min(2, vocab_size - 1), vocab_size, size=rng.integers(1, 30))
        model.observe(np.concatenate(([0], tokens, [1])).astype(np.int64))
    return model.finish()


def can(thing: Any, ability: type) -> bool:
    """Return whether a thing has an optional ability; keeps the type checker from forgetting what else it is."""
    return isinstance(thing, ability)


def evaluating(model: Any) -> Any:
    """Return the model in evaluation mode, without dropout, where it has modes."""
    return model.eval() if isinstance(model, nn.Module) else model


def some_ids(model: Any, batch: int, time: int, seed: int = 0) -> Tensor:
    """Return random ids (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, (batch, time), generator=generator)


def call(model: Any, ids: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Return logits and state, from the initial state if none is given."""
    with torch.no_grad():
        logits, after = model(ids, model.initial_state(len(ids)) if memory is None else memory)
    return logits, after


def call_twice(model: Any, ids: Tensor) -> tuple[Tensor, Any]:
    """Return the logits of the ids read twice in a row, so that the state counts."""
    first, memory = call(model, ids)
    second, memory = call(model, ids, memory)
    return torch.cat((first, second), dim=1), memory


def tensors(memory: Any) -> Iterator[Any]:
    """Yield the leaves of a nested tuple."""
    if isinstance(memory, tuple):
        for part in memory:
            yield from tensors(part)
    else:
        yield memory


def assert_close(found: Tensor, expected: Tensor, sentence: str) -> None:
    """Raise AssertionError unless two tensors agree; -inf agrees with -inf."""
    same_shape = found.shape == expected.shape
    close = same_shape and torch.allclose(found.double(), expected.double(), rtol=TOLERANCE, atol=TOLERANCE)
    assert close, sentence


def assert_normalised(model: Any) -> None:
    logits, _ = call(model, some_ids(model, ROWS, STEPS))
    total = logits.double().exp().sum(-1)  # (B, T)
    assert (total - 1).abs().max() < TOLERANCE, f"Probabilities sum to {total.min():.6f} to {total.max():.6f}, not to one."


def through_a_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as a safetensors file gives them back; tied ones are written twice."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
        return {name: tensor.clone() for name, tensor in load_file(path).items()}


def refuses(model: Any, tensors: dict[str, Tensor]) -> bool:
    try:
        model.load_state_dict(tensors)
    except Exception:  # which one is the model's business
        return True
    return False
