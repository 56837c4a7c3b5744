"""The law of ``SupportsStep``: a stepper gives the logits of its model, and samples each row from its own random numbers only.

B batch, T time (tokens), V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reviewgen.compiled.sampling import NONE, SamplingParams
from reviewgen.protocols import SupportsSample, SupportsStep
from reviewgen.testing.models import LOGITS, ROWS, STEPS, TOLERANCE, assert_close, call, can, some_ids, tensors

__all__ = ["check_logits", "check_samples", "forward", "select_rows", "step"]

LENGTH, NUMBERS = 80, 1000  # tokens that a stepper samples per text, and random numbers per text


def step(make: Callable[[], Any]) -> None:
    """SupportsStep: a stepper gives the logits of the model's call; its greedy samples have the largest logits."""
    model = make()
    if not can(model, SupportsStep):
        return
    stepper = model.stepper()
    check_logits(model, stepper)
    check_samples(model, stepper)


def check_samples(model: Any, stepper: Any) -> None:
    """Check the samples of a stepper that is a ``SupportsSample``."""
    if can(stepper, SupportsSample) and model.config.vocab_size > 2:
        _check_greedy(model, stepper)
        _check_independence(model, stepper)


def check_logits(model: Any, stepper: Any) -> None:
    """Check the logits after chunks of several sizes, for all rows and for each row alone, and that no state is changed."""
    ids = some_ids(model, ROWS, STEPS)
    for sizes in [STEPS], [1] * STEPS, [1, 4, 7]:
        state, end = stepper.initial_state(ROWS), 0
        for size in sizes:
            kept, end = [array.copy() for array in tensors(state)], end + size
            logits, after = forward(stepper, ids[:, end - size : end], state)
            same = all(np.array_equal(a, b) for a, b in zip(kept, tensors(state), strict=True))
            assert same, "forward of the stepper changes the state that it is passed; it must return a new one."
            expected = call(model, ids[:, :end])[0][:, -1]
            sentence = f"The stepper, fed chunks of {sizes} tokens, gives other logits than the model's call after {end} tokens."
            assert_close(logits, expected, sentence, (LOGITS[0], LOGITS[2]))
            state = after
    for row in range(ROWS):
        alone, _ = forward(stepper, ids[row : row + 1], stepper.initial_state(1))
        sentence = f"The stepper gives other logits for row {row} alone than in a batch."
        assert_close(alone[0], expected[row], sentence, LOGITS[2:])


def _check_greedy(model: Any, stepper: Any) -> None:
    """Check that each token of a greedy text has the largest logit of the model's call, within the tolerance."""
    ids = some_ids(model, ROWS, 2)
    for row, tokens in enumerate(_sample_texts(stepper, ids, model.config.vocab_size, NUMBERS // 2, is_greedy=True)):
        sampled = torch.from_numpy(tokens[:STEPS])  # (T,)
        assert (sampled > 1).all(), (
            f"sample returns {tokens}; bos (0) must never be sampled, and eos (1) not within the first {STEPS} tokens."
        )
        logits = call(model, torch.cat((ids[row], sampled))[None])[0][0, 1:-1, 2:].double()  # (T, V-2)
        chosen = logits.gather(-1, sampled[:, None] - 2)[:, 0]
        assert (chosen >= logits.max(-1).values - TOLERANCE).all(), (
            f"sample returns {tokens} for greedy decoding; each token must have the largest logit."
        )


def _check_independence(model: Any, stepper: Any) -> None:
    """Check that a text depends neither on how many random numbers are passed per call nor on the other rows."""
    ids, size = some_ids(model, ROWS, 2), model.config.vocab_size
    whole = _sample_texts(stepper, ids, size, NUMBERS // 2)
    for numbers in 32, 100:
        for expected, actual in zip(whole, _sample_texts(stepper, ids, size, numbers), strict=True):
            same = np.array_equal(actual, expected)
            assert same, (
                f"sample returns {actual} with {numbers} random numbers per call, and {expected} with {NUMBERS // 2}; the text "
                "must not depend on how many are passed."
            )
    alone = _sample_texts(stepper, ids[:1], size, 32)[0]
    assert np.array_equal(alone, whole[0]), (
        f"sample returns {alone} for row 0 alone, and {whole[0]} in a batch; a row must not depend on the others."
    )


def forward(stepper: Any, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Return a stepper's logits as a tensor, and its state."""
    logits, after = stepper.forward(ids.numpy(), state)
    return torch.from_numpy(np.ascontiguousarray(logits)), after


def _sample_texts(stepper: Any, ids: Tensor, size: int, numbers: int, is_greedy: bool = False) -> list[np.ndarray]:
    """Return LENGTH tokens that a stepper samples after each row of prompts (B, T), or fewer if a text ends.

    Id 0 is never sampled, id 1 ends a text of STEPS tokens or more. A row has the same random numbers each time; ``numbers`` of
    them are passed to a call of ``sample``, and those that it does not use are passed to the next call.
    """
    uniform = np.random.default_rng(0).random((len(ids), NUMBERS))
    params = SamplingParams(np.ones(1), 0, 1.0, 0.0, 1.0, 0, STEPS, 1 << 40, is_greedy, 1, 0, size)
    _, state = forward(stepper, ids, stepper.initial_state(len(ids)))
    texts, used, live = [np.empty(0, np.int64)] * len(ids), np.zeros(len(ids), np.int64), np.arange(len(ids))
    while len(live):
        passed = np.stack([uniform[row, min(used[row], NUMBERS - numbers) :][:numbers] for row in live])
        lengths = np.array([len(texts[row]) for row in live])
        tokens, consumed, state = stepper.sample(state, passed, params, ids[live, :0].numpy(), lengths)
        assert (consumed > 0).all(), f"sample uses none of {numbers} random numbers per row; it must sample at least one token."
        used[live] += consumed
        for row, sampled in zip(live, tokens, strict=True):
            texts[row] = np.append(texts[row], sampled[sampled != NONE])
        is_unfinished = np.array([len(texts[row]) < LENGTH and (texts[row] > 1).all() for row in live])
        state, live = select_rows(state, is_unfinished), live[is_unfinished]
    return [text[:LENGTH] for text in texts]


def select_rows(state: Any, rows: np.ndarray) -> Any:
    """Return some rows of a state."""
    return tuple(select_rows(part, rows) for part in state) if isinstance(state, tuple) else state[rows]
