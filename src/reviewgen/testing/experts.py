"""The laws of a model that can mix the distribution of another model, the expert, into its own; see
``reviewgen.protocols.SupportsExpert``.

A law is called with a trained model without an expert, and fits it to one. B batch, T time
(tokens), V vocabulary.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reviewgen.compiled.decoding import feed, sample
from reviewgen.compiled.sampling import SamplingParams
from reviewgen.protocols.checks import (
    ROWS,
    STEPS,
    TOLERANCE,
    assert_close,
    asserting,
    seeded,
    some_ids,
)
from reviewgen.protocols.model import SupportsExpert
from reviewgen.protocols.stepper import SupportsCompiledStep, SupportsExpertForward
from reviewgen.testing.laws import assert_same, assert_unchanged, json_round_trip
from reviewgen.testing.models import MODEL_LAWS as MODEL_LAWS  # the laws below are added to it
from reviewgen.testing.models import copies, law, texts_to_count


@law(SupportsExpert)
def fitted_expert(model: Any) -> None:
    """SupportsExpert: ``fit_expert`` returns a model with ``expert=True`` whose config and tensors
    hold all that it depends on, and does not change this model.
    """
    with assert_unchanged(tuple(model.state_dict().values())):
        fitted = _fit_expert(model)
    assert fitted.config.expert is True and not model.config.expert, (
        f"The configs are {fitted.config} and, of this model, {model.config}."
    )
    twin = type(fitted)(json_round_trip(fitted.config))
    twin.load_state_dict(copies(fitted))
    ids = some_ids(model, ROWS, STEPS)
    for expert in _experts(model).values():
        logits, _ = _call_with_expert(fitted, ids, expert)
        assert_close(_call_with_expert(twin, ids, expert)[0], logits, tolerance=0)


@law(SupportsExpert)
def expert_logits(model: Any) -> None:
    """SupportsExpert: with a uniform, a random and a one-hot expert, the probabilities sum to one;
    ``score_with_expert`` returns the logs of those of the targets, and the same state.
    """
    fitted = _fit_expert(model)
    ids = some_ids(model, ROWS, STEPS)
    targets = some_ids(model, ROWS, STEPS, seed=1)
    for name, expert in _experts(model).items():
        with asserting(f"With a {name} expert:"):
            logits, after = _call_with_expert(fitted, ids, expert)
            totals = logits.double().exp().sum(-1)  # (B, T)
            assert_close(totals, torch.ones_like(totals))
            expected = logits.gather(-1, targets[..., None])[..., 0]  # (B, T)
            with torch.no_grad():
                scores = fitted.score_with_expert(ids, targets, expert, fitted.initial_state(ROWS))
            assert_same(scores, (expected, after), TOLERANCE)


@law(SupportsExpert)
def expert_causal(model: Any) -> None:
    """SupportsExpert: an expert's distribution at t does not change the logits before position t;
    chunks give the same as the whole, and no argument is modified.
    """
    fitted = _fit_expert(model)
    ids = some_ids(model, ROWS, STEPS)
    expert = _experts(model)["random"]
    whole, _ = _call_with_expert(fitted, ids, expert)
    for t in range(STEPS):
        changed = expert.clone()
        changed[:, t] = expert[:, t].roll(1, dims=-1)
        logits, _ = _call_with_expert(fitted, ids, changed)
        assert_close(logits[:, :t], whole[:, :t], f"The expert at {t} changes logits before it.")
    state = fitted.initial_state(ROWS)
    end = 0
    for chunk in torch.split(ids, [1, 4, 7], dim=1):
        start = end
        end += chunk.shape[1]
        with assert_unchanged(chunk, expert, state):
            logits, next_state = _call_with_expert(fitted, chunk, expert[:, start:end], state)
        assert_close(logits, whole[:, start:end], f"In chunks, logits differ from {start} on.")
        state = next_state


@law(SupportsExpert)
def expert_steps(model: Any) -> None:
    """SupportsExpert: ``forward_with_expert`` of the stepper, and its compiled step if it has one,
    give the logits of the model. Without ids, the compiled step does not change the state.
    """
    fitted = _fit_expert(model)
    stepper: Any = fitted.stepper()
    has_forward = isinstance(stepper, SupportsExpertForward)
    assert has_forward, "The stepper has no forward_with_expert."
    size = model.config.vocab_size
    initial_state = stepper.initial_state(ROWS)
    forwards: dict[str, Any] = {"forward_with_expert": stepper.forward_with_expert}
    if isinstance(stepper, SupportsCompiledStep):
        forwards["its compiled step"] = lambda ids, expert, state: feed(
            stepper, size, ids, state, expert
        )
    ids = some_ids(model, ROWS, STEPS)
    for (kind, expert), (name, forward) in product(_experts(model).items(), forwards.items()):
        whole, _ = _call_with_expert(fitted, ids, expert)
        state = initial_state
        end = 0
        for chunk in torch.split(ids, [1, 4, 7], dim=1):
            start = end
            end += chunk.shape[1]
            with assert_unchanged(state):
                logits, after = forward(chunk.numpy(), expert[:, start:end].numpy(), state)
            sentence = f"With a {kind} expert, {name} gives other logits after {end} tokens."
            assert_close(logits, whole[:, end - 1], sentence)
            state = after
    if isinstance(stepper, SupportsCompiledStep) and size > 1:
        # Sampling calls the compiled step without ids before it takes the first token. The logits
        # of the expert are then zeros, so the expert must be uniform.
        expert = _experts(model)["uniform"]
        _, state = feed(stepper, size, ids.numpy(), initial_state, expert.numpy())
        # temperature 1, no filters, at most 1 new token, greedy, eos 1 and bos 0
        params = SamplingParams(np.ones(1), 0, 1.0, 0.0, 1.0, 0, 0, 1, True, 1, 0, size)
        numbers = np.zeros((ROWS, 1))
        texts = ids[:, :0].numpy()
        zeros = np.zeros(ROWS, int)
        tokens, _, after = sample(stepper, size, state, numbers, params, texts, zeros)
        with asserting("Without ids, the compiled step changes the state:"):
            assert_same(after, state, TOLERANCE)
        logits = _call_with_expert(fitted, ids, expert)[0][:, -1]  # (B, V)
        taken = logits.gather(-1, torch.from_numpy(tokens))[:, 0]
        sentence = "Without ids, the compiled step does not give the logits after the last token."
        assert (taken >= logits[:, 1:].amax(-1) - TOLERANCE).all(), sentence


def _fit_expert(model: Any) -> Any:
    """Return the model that ``fit_expert`` makes from random texts and an expert for each."""
    size = model.config.vocab_size
    rng = np.random.default_rng(0)

    def texts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the ids (T,) of each text, and the log probabilities (T, V) of an expert that often
        gives the next token a high probability.
        """
        for ids in texts_to_count(size, seed=1):
            logits = torch.from_numpy(rng.normal(size=(len(ids), size)).astype(np.float32))
            logits[range(len(ids) - 1), ids[1:]] += 2
            yield ids, logits.log_softmax(-1).numpy()

    return model.fit_expert(texts())


def _experts(model: Any) -> dict[str, Tensor]:
    """Return the log probabilities (B, T, V) of a uniform, a random and a one-hot expert."""
    shape = (ROWS, STEPS, model.config.vocab_size)
    with seeded():
        random = 2 * torch.randn(shape)
    is_largest = random == random.amax(-1, keepdim=True)  # True for one token at each position
    return {
        "uniform": torch.zeros(shape).log_softmax(-1),
        "random": random.log_softmax(-1),
        "one-hot": is_largest.float().log(),
    }


def _call_with_expert(
    model: Any, ids: Tensor, expert: Tensor, state: Any = None
) -> tuple[Tensor, Any]:
    """Call a model with an expert, without gradients. Return the logits and the state after the
    ids. ``state`` is the initial state by default.
    """
    with torch.no_grad():
        if state is None:
            state = model.initial_state(len(ids))
        logits, after = model.call_with_expert(ids, expert, state)
    return logits, after
