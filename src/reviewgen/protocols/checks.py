"""The laws that are checked before each training of a third party's model, and the functions that
they share with the other laws, in ``reviewgen.testing``. Needs torch.

A law is a function that checks one requirement. It takes a model in evaluation mode, and raises an
AssertionError that says what is required and what was returned. The laws here are about shapes,
causality, independence of rows and the output layer. B batch, T time (tokens), V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reviewgen.errors import BrokenPlugin, ReviewgenError, first_line, quoted
from reviewgen.protocols.abilities import SupportsOutputLayer, SupportsPointer
from reviewgen.protocols.model import flatten_state

ROWS = 3  # B; it differs from T and most sizes, so that a size shows which axis it is
STEPS = 12  # T; it differs from B and most sizes for the same reason
TOLERANCE = 1e-4
"""Relative and absolute tolerance for float32 logits computed in two ways; the order of sums alone
gives 1e-6 per layer.
"""


def check_contract(model: nn.Module, name: str, package: str, *, is_sampled: bool = False) -> None:
    """Check the laws before a third party's model is trained, in about 7 ms for a small one.

    Args:
        model: The model.
        name: The name of its plugin.
        package: The distribution that provides it.
        is_sampled: Whether training uses the methods of ``SupportsOutputLayer``, if the model has
            them: then their law is checked, too.

    Raises:
        BrokenPlugin: The model breaks one of the laws. A model that sees the future, for example,
            would only learn to copy the tokens that it should predict.
    """
    laws: list[Callable[[Any], None]] = [shape, causal, rows]
    if is_sampled and isinstance(model, SupportsOutputLayer):
        laws.append(output_layer)
    is_training = model.training
    try:
        for law in laws:
            law(model.eval())
    except AssertionError as problem:
        raise BrokenPlugin(
            f"The model {quoted(name)} of {package} breaks the law {law.__name__!r} of its"
            f" contract, so it is not trained. {first_line(problem)}."
            " reviewgen.testing.check_model says more."
        ) from None
    finally:
        model.train(is_training)


def shape(model: Any) -> None:
    """Logits are floating-point and have the shape (B, T, V), for one or more rows and one or more
    tokens.
    """
    for batch, time in (ROWS, STEPS), (1, 1), (1, STEPS), (ROWS, 1):
        sizes = {"B": batch, "T": time, "V": model.config.vocab_size}
        state = model.initial_state(batch)
        try:
            logits, _ = call(model, some_ids(model, batch, time), state)
        except Exception as error:
            problem = _describe_confusion(model, state, sizes)
            if problem is None:
                problem = f"The call fails for ids (B, T) = ({batch}, {time}):"
            raise AssertionError(f"{problem} {describe_error(error)}") from error
        actual = tuple(logits.shape)
        assert actual == tuple(sizes.values()), (
            f"Logits must be (B, T, V) = {tuple(sizes.values())}; got {lettered(actual, sizes)}."
        )
        assert logits.is_floating_point(), (
            f"Logits must have a floating-point dtype; got {logits.dtype}."
        )


def causal(model: Any, read: Callable[[Any, Tensor], Tensor] | None = None) -> None:
    """Changing ``ids[:, t]`` does not change the logits before position t."""
    changes = influence(model, read or logits_of).tril(-1)
    wrong = (changes > TOLERANCE).nonzero().tolist()
    if wrong:
        changed, earlier = wrong[0]
        raise AssertionError(
            f"Changing token {changed} changes logits before it, those at token {earlier} by"
            f" {changes[changed, earlier]:.3g}: the model sees the future, and learns to copy it."
        )


def rows(model: Any) -> None:
    """The logits and the state of a row do not depend on the other rows of the batch."""
    ids = some_ids(model, ROWS, STEPS)
    together = call_twice(model, ids)
    for row in range(ROWS):
        alone = call_twice(model, ids[row : row + 1])
        assert_close(
            alone[0],
            together[row],
            f"Row {row} alone gives different logits than in a batch: rows must not interact.",
        )


def output_layer(model: Any) -> None:
    """Applied to the features, the output layer gives the logits, in training and in evaluation
    mode. The features and the weight of the layer have gradients.
    """
    ids = some_ids(model, ROWS, STEPS)
    for is_training in (False, True):
        state = model.train(is_training).initial_state(ROWS)
        with seeded():
            logits, after = model(ids, state)
        with seeded():  # the same dropout
            features, feature_state = model.features(ids, state)
        weight, bias = model.output_layer()
        computed = nn.functional.linear(features, weight, bias)
        copies = model.copies(features, ids, state) if isinstance(model, SupportsPointer) else None
        if copies is not None:
            computed = copies.mix(computed)
        sentence = "The output layer of the features does not give the logits."
        assert_close(computed, logits, sentence)
        for part, expected in zip(flatten_state(feature_state), flatten_state(after), strict=True):
            assert_close(part, expected, "features() returns a different state.")
    # ``features`` and ``weight`` are those of training mode, which is last in the loop
    assert features.requires_grad and weight.requires_grad, (
        "The features or the output layer have no gradient."
    )


def influence(model: Any, read: Callable[[Any, Tensor], Tensor]) -> Tensor:
    """Return how much another token at position t (row) changes the logits at each position
    (column), (T, T). Changes of large logits are measured relative to the logits.

    Args:
        model: The model.
        read: Returns the logits of a model for ids, as ``logits_of`` does.
    """
    ids = some_ids(model, ROWS, STEPS)
    changes = []
    before = read(model, ids).double()
    for t in range(STEPS):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % model.config.vocab_size
        after = read(model, changed).double()
        # equal infinities do not differ; NaN counts as a difference of 1
        difference = torch.where(after == before, 0.0, (after - before).abs()) / (1 + before.abs())
        # (T,), the largest change at each position, over all rows and the vocabulary
        changes.append(difference.nan_to_num(nan=1.0).amax((0, 2)))
    return torch.stack(changes)


def some_ids(model: Any, batch: int, time: int, seed: int = 0) -> Tensor:
    """Return random ids (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.config.vocab_size, (batch, time), generator=generator)


def call(model: Any, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """Return the logits and the state after the ids, starting from the initial state by default."""
    with torch.no_grad():
        if state is None:
            state = model.initial_state(len(ids))
        logits, after = model(ids, state)
    return logits, after


def logits_of(model: Any, ids: Tensor) -> Tensor:
    """Return the logits of ids from the initial state, (B, T, V)."""
    return call(model, ids)[0]


def call_twice(model: Any, ids: Tensor) -> Tensor:
    """Return the logits of the ids fed twice in a row, so that they depend on the state."""
    first, state = call(model, ids)
    return torch.cat((first, call(model, ids, state)[0]), dim=1)


def assert_close(
    actual: Any, expected: Any, sentence: str = "", tolerance: float = TOLERANCE
) -> None:
    """Raise AssertionError unless two tensors or arrays agree; -inf agrees with -inf. The message
    is a sentence, followed by numpy's comparison.

    Args:
        actual: The tensor or array to check.
        expected: What it must be.
        sentence: What is wrong if they differ.
        tolerance: The relative and absolute tolerance; 0 requires equal numbers.
    """
    with asserting(sentence):
        np.testing.assert_allclose(_array(actual), _array(expected), rtol=tolerance, atol=tolerance)


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Seed torch's random numbers (those of dropout, for example) in the block, and restore them
    afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def asserting(sentence: str) -> Iterator[None]:
    """Turn any error of the block into an AssertionError whose message begins with a sentence."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{sentence} {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """Return the kind of an error and the beginning of its message. For reviewgen's own errors and
    assertions, return the whole message only.
    """
    message = str(error).strip()
    if isinstance(error, AssertionError | ReviewgenError):
        return message
    return f"{type(error).__name__}: {' '.join(message.split()):.200}"


def lettered(shape: tuple[int, ...], sizes: Mapping[str, int]) -> str:
    """Return a shape with the letters of its axes; H stands for a size that has no letter.

    >>> lettered((12, 3, 64), {"B": 3, "T": 12, "V": 11})
    '(T, B, H) = (12, 3, 64)'
    """
    # reversed, so that the first of several letters of one size overwrites the others
    letter_of = {size: letter for letter, size in reversed([*sizes.items()])}
    letters = ", ".join(letter_of.get(size, "H") for size in shape)
    return f"({letters}) = {shape}"


def _describe_confusion(model: Any, state: Any, sizes: Mapping[str, int]) -> str | None:
    """If a call with B = T succeeds, return a sentence which says that a layer reads T as B;
    otherwise None.
    """
    try:
        call(model, some_ids(model, STEPS, STEPS))
    except Exception:
        return None
    shapes = ", ".join(lettered(tuple(tensor.shape), sizes) for tensor in flatten_state(state))
    return f"The state is {shapes or 'empty'}, but your layer read T = {sizes['T']} as B:"


def _array(value: Any) -> Any:
    """Convert a tensor to an array; return anything else as it is."""
    return value.detach().double().cpu().numpy() if isinstance(value, Tensor) else value
