"""Helpers of the model laws: create a model, train it by counting, call it, compare results."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reviewgen.config import from_dict, vocabulary_settings
from reviewgen.protocols import CountTrained, LanguageModel
from reviewgen.registry import find_model
from reviewgen.storage import temporary_folder

__all__ = [
    "LOGITS",
    "ROWS",
    "STEPS",
    "TOLERANCE",
    "assert_close",
    "assert_normalised",
    "call",
    "call_twice",
    "can",
    "describe_difference",
    "describe_error",
    "detach",
    "evaluating",
    "make_model",
    "rejects",
    "some_ids",
    "tensors",
    "texts_to_count",
    "through_a_file",
    "train_by_counting",
]

ROWS, STEPS = 3, 12
LOGITS = "row", "token", "id"  # the dimensions B, T, V in words
TOLERANCE = 1e-4
"""Relative and absolute tolerance for float32 logits computed in two ways; the order of sums alone gives 1e-6 per layer."""


def make_model(name: str, vocab_size: int = 11, seed: int = 0, **settings: Any) -> LanguageModel:
    """Create an installed model by name, ready for the laws; the global random state is not changed.

    A config with ``bos_id`` and ``eos_id`` gets 0 and 1.

    Raises:
        UnknownPlugin: No installed plugin has that name.
        ConfigError: A setting is unknown or out of range.
    """
    cls, _ = find_model(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ids = vocabulary_settings(cls.Config, vocab_size, bos_id=0, eos_id=min(1, vocab_size - 1))
        model = cls(from_dict(cls.Config, {**ids, **settings}))
    if isinstance(model, CountTrained):
        train_by_counting(model, vocab_size, seed)
    ready: LanguageModel = evaluating(model)
    return ready


def train_by_counting(model: CountTrained, vocab_size: int, seed: int = 0, texts: int = 20) -> Mapping[str, Any]:
    """Train a count model on a few random texts (0 is bos, 1 is eos), and return the report of ``finish``."""
    for text in texts_to_count(vocab_size, seed, texts):
        model.observe(text)
    return model.finish()


def texts_to_count(vocab_size: int, seed: int = 0, texts: int = 20) -> Iterator[Int64[np.ndarray, " T"]]:
    """Yield random texts of up to 29 tokens between bos, 0, and eos, 1."""
    rng = np.random.default_rng(seed)
    for _ in range(texts):
        tokens = rng.integers(min(2, vocab_size - 1), vocab_size, size=rng.integers(1, 30))
        yield np.concatenate(([0], tokens, [1])).astype(np.int64)


def can(value: Any, protocol: type) -> bool:
    """Return whether a value implements an optional protocol; unlike isinstance, does not narrow its type."""
    return isinstance(value, protocol)


def evaluating(model: Any) -> Any:
    """Put the model into evaluation mode, without dropout, if it is a module, and return it."""
    return model.eval() if isinstance(model, nn.Module) else model


def some_ids(model: Any, batch: int, time: int, seed: int = 0) -> Tensor:
    """Return random ids (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, (batch, time), generator=generator)


def call(model: Any, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """Return the logits and the state after the ids, starting from the initial state by default."""
    with torch.no_grad():
        logits, after = model(ids, model.initial_state(len(ids)) if state is None else state)
    return logits, after


def call_twice(model: Any, ids: Tensor) -> tuple[Tensor, Any]:
    """Return the logits of the ids fed twice in a row, so that they depend on the state."""
    first, state = call(model, ids)
    second, state = call(model, ids, state)
    return torch.cat((first, second), dim=1), state


def tensors(state: Any) -> Iterator[Any]:
    """Yield the leaves of a nested tuple."""
    if isinstance(state, tuple):
        for part in state:
            yield from tensors(part)
    else:
        yield state


def detach(state: Any) -> Any:
    """Return a state without its autograd graph, as training passes it from step to step."""
    return tuple(detach(part) for part in state) if isinstance(state, tuple) else state.detach()


def describe_error(error: BaseException) -> str:
    """Return the kind of an error and the beginning of its message, on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:200]}{'...' if len(message) > 200 else ''}"


def assert_close(actual: Tensor, expected: Tensor, sentence: str, axes: Sequence[str] | None = None) -> None:
    """Raise AssertionError unless two tensors agree, with the sentence, and where and by how much they differ.

    Args:
        actual: The tensor to check; -inf agrees with -inf.
        expected: What it must be.
        sentence: What is required.
        axes: A word for each dimension, as in "row 1, token 7, id 3"; by default those of logits, or none.
    """
    same_shape = actual.shape == expected.shape
    close = same_shape and torch.allclose(actual.double(), expected.double(), rtol=TOLERANCE, atol=TOLERANCE)
    assert close, f"{sentence} {describe_difference(actual, expected, axes)}"


def describe_difference(actual: Tensor, expected: Tensor, axes: Sequence[str] | None = None) -> str:
    """Return where two tensors first differ, both values there, and the largest difference; arguments as ``assert_close``."""
    if actual.shape != expected.shape:
        return f"The shape is {tuple(actual.shape)}, not {tuple(expected.shape)}."
    one, other = actual.detach().double(), expected.detach().double()
    difference = torch.where(one == other, 0.0, (one - other).abs()).nan_to_num(nan=torch.inf)
    wrong = ~torch.isclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)
    if not wrong.any():
        wrong = difference == difference.max()
    first = wrong.nonzero()[0].tolist()
    return (
        f"The first difference is at {_describe_position(first, axes)}: {one[tuple(first)]:.6g} instead of "
        f"{other[tuple(first)]:.6g}. The largest of {wrong.sum()} is {difference.max():.3g}; the tolerance is {TOLERANCE:g}."
    )


def _describe_position(index: Sequence[int], axes: Sequence[str] | None) -> str:
    names = LOGITS if axes is None and len(index) == len(LOGITS) else axes
    if names is None:
        return f"index {list(index)}"
    return ", ".join(f"{name} {place}" for name, place in zip(names, index, strict=True))


def assert_normalised(model: Any) -> None:
    """Raise AssertionError unless the exponentials of a model's logits sum to one."""
    logits, _ = call(model, some_ids(model, ROWS, STEPS))
    total = logits.double().exp().sum(-1)  # (B, T)
    assert (total - 1).abs().max() < TOLERANCE, (
        f"The exponentials of the logits sum to {total.min():.6f} to {total.max():.6f}; they must sum to one."
    )


def through_a_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Save tensors to a safetensors file and return them as loaded from it; tied tensors are saved twice."""
    with temporary_folder() as folder:
        path = folder / "model.safetensors"
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
        return {name: tensor.clone() for name, tensor in load_file(path).items()}


def rejects(model: Any, tensors: dict[str, Tensor]) -> bool:
    """Return whether ``load_state_dict`` raises for these tensors."""
    try:
        model.load_state_dict(tensors)
    except Exception:  # the contract does not say which exception
        return True
    return False
