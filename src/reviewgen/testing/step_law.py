"""The law of a stepper: it predicts what its model's plain call predicts, and what it writes depends on its numbers only.

It knows the contract in ``reviewgen.protocols`` and no model. B batch, T time (tokens), V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reviewgen.compiled.sampling import NONE, SamplingParams
from reviewgen.protocols import SupportsSample, SupportsStep
from reviewgen.testing.models import ROWS, STEPS, TOLERANCE, assert_close, call, can, some_ids, tensors

__all__ = ["step"]

LENGTH, NUMBERS = 80, 1000  # tokens that a stepper writes, and random numbers a text


def step(make: Callable[[], Any]) -> None:
    """SupportsStep: the stepper's logits are the plain call's; where it draws, the greedy text is that of the largest logits."""
    model = make()
    if not can(model, SupportsStep):
        return
    stepper = model.stepper()
    _reads_as_the_plain_call(model, stepper)
    if can(stepper, SupportsSample) and model.config.vocab_size > 2:
        _writes_the_likeliest(model, stepper)
        _writes_by_its_own_numbers(model, stepper)


def _reads_as_the_plain_call(model: Any, stepper: Any) -> None:
    """Check the logits after pieces of several sizes, of rows together and alone, and that no state is changed."""
    ids = some_ids(model, ROWS, STEPS)
    for sizes in [STEPS], [1] * STEPS, [1, 4, 7]:
        memory, end = stepper.initial_state(ROWS), 0
        for size in sizes:
            kept, end = [array.copy() for array in tensors(memory)], end + size
            logits, after = _read(stepper, ids[:, end - size : end], memory)
            same = all(np.array_equal(a, b) for a, b in zip(kept, tensors(memory), strict=True))
            assert same, "The stepper changes the state that it is given: it must return a new one."
            expected = call(model, ids[:, :end])[0][:, -1]
            assert_close(logits, expected, f"The stepper, read in pieces of {sizes}, gives other logits than the plain call.")
            memory = after
    for row in range(ROWS):
        alone, _ = _read(stepper, ids[row : row + 1], stepper.initial_state(1))
        assert_close(alone, expected[row : row + 1], f"The stepper gives row {row} alone other logits than in a batch.")


def _writes_the_likeliest(model: Any, stepper: Any) -> None:
    """Check that each token of a greedy text has the largest logit of the plain call, or one within the tolerance of it."""
    ids = some_ids(model, ROWS, 2)
    for row, tokens in enumerate(_write(stepper, ids, model.config.vocab_size, NUMBERS // 2, is_greedy=True)):
        drawn = torch.from_numpy(tokens[:STEPS])  # (T,)
        assert (drawn > 1).all(), f"sample draws {tokens}, where neither the beginning 0 nor, so soon, the end 1 may be drawn."
        logits = call(model, torch.cat((ids[row], drawn))[None])[0][0, 1:-1, 2:].double()  # (T, V-2)
        found = logits.gather(-1, drawn[:, None] - 2)[:, 0]
        assert (found >= logits.max(-1).values - TOLERANCE).all(), f"sample's greedy text {tokens} is not the likeliest one."


def _writes_by_its_own_numbers(model: Any, stepper: Any) -> None:
    """Check that a text depends neither on how many numbers are given at a time nor on the texts beside it."""
    ids, size = some_ids(model, ROWS, 2), model.config.vocab_size
    whole = _write(stepper, ids, size, NUMBERS // 2)
    for numbers in 32, 100:
        for expected, found in zip(whole, _write(stepper, ids, size, numbers), strict=True):
            same = np.array_equal(found, expected)
            assert same, f"From {numbers} numbers at a time sample draws {found}, from {NUMBERS // 2} {expected}."
    alone = _write(stepper, ids[:1], size, 32)[0]
    assert np.array_equal(alone, whole[0]), f"sample draws {alone} for a row alone, but {whole[0]} among others."


def _read(stepper: Any, ids: Tensor, memory: Any) -> tuple[Tensor, Any]:
    """Return a stepper's logits as a tensor, and its state."""
    logits, after = stepper.forward(ids.numpy(), memory)
    return torch.from_numpy(np.ascontiguousarray(logits)), after


def _write(stepper: Any, ids: Tensor, size: int, numbers: int, is_greedy: bool = False) -> list[np.ndarray]:
    """Return LENGTH tokens that a stepper draws after each beginning, (B, T), or fewer where a text ends.

    Id 0 is never drawn, id 1 ends a text of STEPS tokens or more. Each row has the same random numbers at every call, of which
    the stepper gets so many at a time, what it leaves over again.
    """
    uniform = np.random.default_rng(0).random((len(ids), NUMBERS))
    params = SamplingParams(np.ones(1), 0, 1.0, 0.0, 1.0, 0, STEPS, 1 << 40, is_greedy, 1, 0, size)
    _, memory = _read(stepper, ids, stepper.initial_state(len(ids)))
    texts, used, live = [np.empty(0, np.int64)] * len(ids), np.zeros(len(ids), np.int64), np.arange(len(ids))
    while len(live):
        given = np.stack([uniform[row, min(used[row], NUMBERS - numbers) :][:numbers] for row in live])
        written = np.array([len(texts[row]) for row in live])
        tokens, took, memory = stepper.sample(memory, given, params, ids[live, :0].numpy(), written)
        assert (took > 0).all(), f"sample draws nothing from {numbers} numbers a row."
        used[live] += took
        for row, drawn in zip(live, tokens, strict=True):
            texts[row] = np.append(texts[row], drawn[drawn != NONE])
        goes_on = np.array([len(texts[row]) < LENGTH and (texts[row] > 1).all() for row in live])
        memory, live = _pick(memory, goes_on), live[goes_on]  # the state after a text's end is of no use
    return [text[:LENGTH] for text in texts]


def _pick(memory: Any, rows: np.ndarray) -> Any:
    """Return some rows of a state."""
    return tuple(_pick(part, rows) for part in memory) if isinstance(memory, tuple) else memory[rows]
