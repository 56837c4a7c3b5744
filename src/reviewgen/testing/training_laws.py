"""Laws of a model that is trained by gradient: what it must do in training mode, under autocast, and in a few steps of training.

A model without trainable parameters, and one that is trained by counting, passes. B batch, T time (tokens), V vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewgen.protocols import CountTrained
from reviewgen.testing.models import ROWS, STEPS, assert_close, call, describe_error, detach, some_ids, tensors

__all__ = ["TRAINING_LAWS", "autocast", "carried", "causal_in_training", "gradients", "learns"]

Make = Callable[[], Any]

LANES, LENGTH, TRAINING_STEPS = 4, 12, 200  # of the training of ``learns``
LEARNING_RATES = 0.01, 0.001, 0.1  # a model must learn with one of them
SHARE = 0.8  # of the unigram's entropy: the loss that a model must reach
BF16_TOLERANCE = 0.1  # of the largest logit: bfloat16 rounds to 8 bits, once per layer


def causal_in_training(make: Make) -> None:
    """Causal in training mode too: changing ``ids[:, t]`` does not change the logits before position t."""
    model = _trainable(make)
    if model is None:
        return
    ids = some_ids(model, ROWS, STEPS)
    before = _seeded_call(model, ids)
    if not torch.equal(_seeded_call(model, ids), before):
        return  # its random numbers are not torch's, so a change of the logits proves nothing
    for t in range(1, STEPS):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % model.config.vocab_size
        assert_close(
            _seeded_call(model, changed)[:, :t],
            before[:, :t],
            f"In training mode, changing token {t} changes logits before it; a model that sees the future learns to copy it.",
        )


def gradients(make: Make) -> None:
    """Every parameter gets a finite gradient from the loss of two chunks; one that is frozen has ``requires_grad=False``."""
    model = _trainable(make)
    if model is None:
        return
    with _seed():
        _, state = _loss(model, 0, model.initial_state(ROWS))
        loss, _ = _loss(model, 1, state)
        torch.autograd.backward(loss)
    without = [name for name, tensor in model.named_parameters() if tensor.requires_grad and tensor.grad is None]
    assert not without, (
        f"The loss gives no gradient to {', '.join(without[:5])}: unused or detached. Remove it, or use requires_grad=False."
    )
    for name, tensor in model.named_parameters():
        if tensor.grad is not None and not tensor.grad.isfinite().all():
            place = (~tensor.grad.isfinite()).nonzero()[0].tolist()
            raise AssertionError(f"The gradient of {name} is {tensor.grad[tuple(place)]} at index {place}; it must be finite.")


def carried(make: Make) -> None:
    """Two chunks in training mode, with a step of the weights between them and the state passed on detached."""
    model = _trainable(make)
    if model is None:
        return
    state = model.initial_state(ROWS)
    with _seed():
        for number in range(2):
            kept = [tensor.clone() for tensor in tensors(state)]
            with _explained(f"chunk {number + 1} of a text whose state was carried over and detached"):
                loss, after = _loss(model, number, state)
                torch.autograd.backward(loss)
            same = all(torch.equal(a, b) for a, b in zip(kept, tensors(state), strict=True))
            assert same, "In training mode, a call modifies the state that it is passed; it must return a new one."
            with torch.no_grad():
                for tensor in model.parameters():
                    if tensor.grad is not None:
                        tensor.sub_(1e-3 * tensor.grad)
            model.zero_grad()
            state = detach(after)


def autocast(make: Make) -> None:
    """Under autocast to bfloat16, loss and gradients of two chunks are finite, and logits are close to those in 32 bits."""
    model = _trainable(make)
    if model is None:
        return
    state = model.initial_state(ROWS)
    with _seed():
        for number in range(2):
            with _explained(f"chunk {number + 1} under torch.autocast('cpu', torch.bfloat16)"):
                loss, after = _loss(model, number, state, "bf16")
                torch.autograd.backward(loss)
            assert loss.isfinite(), f"Under autocast to bfloat16 the loss of chunk {number + 1} is {loss.item()}, not finite."
            state = detach(after)
    wrong = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not wrong, f"Under autocast to bfloat16 the gradient of {', '.join(wrong[:5])} is not finite."
    model.eval()
    ids = some_ids(model, ROWS, STEPS)
    exact, _ = call(model, ids)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = call(model, ids)
    _assert_close_in_bf16(rounded.float(), exact.float())


def learns(make: Make) -> None:
    """Within 200 steps on a text in which each token decides the next, the loss falls clearly below the unigram's."""
    from reviewgen.training import TrainingConfig  # loads the training rooms
    from reviewgen.training.loss import cross_entropy
    from reviewgen.training.optimizing import make_optimizers

    if (model := _trainable(make)) is None or model.config.vocab_size < 2:
        return
    ids = _repetitions(model.config.vocab_size)  # (B, T+1)
    unigram = math.log(len(set(ids.flatten().tolist())))
    losses = []
    for learning_rate in LEARNING_RATES:
        with _seed():
            model = type(model)(model.config).train()
            optimizers = make_optimizers(model, TrainingConfig(learning_rate=learning_rate, weight_decay=0.0))
            for step in range(1, TRAINING_STEPS + 1):
                model.zero_grad()
                logits, _ = model(ids[:, :-1], model.initial_state(LANES))
                torch.autograd.backward(cross_entropy(logits, ids[:, 1:], ids[:, 1:].numel()))
                for optimizer in optimizers:
                    optimizer.step()
                if step % 25 == 0 and _evaluate(model, ids)[0] < SHARE * unigram:
                    return
        loss, logits = _evaluate(model, ids)
        if not _depends_on_ids(model):
            return  # a model of how often each token occurs, or of less; it has nothing to learn here
        losses.append(loss)
    raise AssertionError(
        f"After {TRAINING_STEPS} steps on a text in which each token decides the next, the loss is {min(losses):.3g} nats per "
        f"token; it must fall below {SHARE * unigram:.3g}, four fifths of what a unigram reaches, {unigram:.3g}. "
        f"{_describe_logits(logits)}"
    )


TRAINING_LAWS: tuple[Callable[[Make], None], ...] = (causal_in_training, carried, gradients, autocast, learns)


def _trainable(make: Make) -> Any:
    """Return a new model in training mode; None if it is not trained by gradient."""
    model = make()
    if not isinstance(model, nn.Module) or isinstance(model, CountTrained):
        return None
    return model.train() if any(parameter.requires_grad for parameter in model.parameters()) else None


@contextmanager
def _seed() -> Iterator[None]:
    """Seed torch's random numbers, as for dropout, and restore them afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _seeded_call(model: Any, ids: Tensor) -> Tensor:
    """Return the logits of a call in training mode, with the same random numbers each time."""
    with _seed():
        logits, _ = call(model, ids)
    return logits


def _loss(model: Any, seed: int, state: Any, precision: str = "no") -> tuple[Tensor, Any]:
    """Return the cross entropy of random ids, and the state after them."""
    ids, targets = some_ids(model, ROWS, STEPS, seed=seed), some_ids(model, ROWS, STEPS, seed=seed + 10)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits, after = model(ids, state)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten()), after


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn an error of torch into an AssertionError with what usually causes it."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        cause = ""
        if "inplace" in text:
            cause = " The model changes in place a tensor that the gradient needs."
        elif "second time" in text or "freed" in text:
            cause = " The model keeps a tensor with its graph from an earlier call, outside the state."
        elif "does not require grad" in text:
            cause = " The logits do not depend on the parameters: a part is detached or computed under no_grad."
        elif "dtype" in text or "BFloat16" in text:
            cause = " The model mixes dtypes: convert the state or buffer, or leave the operation to autocast."
        raise AssertionError(f"Training fails in {where}.{cause} {describe_error(error)}") from error


def _assert_close_in_bf16(rounded: Tensor, exact: Tensor) -> None:
    assert rounded.isfinite().all(), "Under autocast to bfloat16 the logits are not finite."
    difference = (rounded - exact).abs()
    limit = BF16_TOLERANCE * max(1.0, exact.abs().max().item())
    row, token, index = (difference == difference.max()).nonzero()[0].tolist()
    assert difference.max() <= limit, (
        f"Under autocast to bfloat16 the logits differ by {difference.max():.3g} at row {row}, token {token}, id {index}: "
        f"{rounded[row, token, index]:.4g} instead of {exact[row, token, index]:.4g}; at most {limit:.3g} is due to rounding. "
        "Compute sums over many tokens, exponentials and logarithms in 32 bits."
    )


def _repetitions(vocab_size: int) -> Tensor:
    """Return ids (LANES, LENGTH + 1): each lane repeats one token, which the simplest model of a context can learn.

    The tokens are so few that probabilities in place of logits, whose cross entropy is at least ln(1 + (V - 1) / e), cannot pass.
    """
    bound = math.log(1 + (vocab_size - 1) / math.e)
    tokens = max([2, *(k for k in (3, 4) if SHARE * math.log(k) < 0.8 * bound and k <= vocab_size)])
    lanes = vocab_size - 1 - torch.arange(LANES) % tokens
    return lanes[:, None].repeat(1, LENGTH + 1)


def _evaluate(model: Any, ids: Tensor) -> tuple[float, Tensor]:
    """Return the loss in evaluation mode, nats per token, and the logits; the model is in training mode again."""
    logits, _ = call(model.eval(), ids[:, :-1])
    model.train()
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten()).item(), logits


def _depends_on_ids(model: Any) -> bool:
    """Return whether the logits depend on the ids at all."""
    one, other = (call(model.eval(), some_ids(model, 1, STEPS, seed=seed))[0] for seed in (0, 1))
    return not torch.allclose(one, other, atol=1e-6)


def _describe_logits(logits: Tensor) -> str:
    """Return what the logits look like, where that explains why a model does not learn."""
    lowest, highest = logits.min().item(), logits.max().item()
    sums = logits.double().sum(-1)
    if lowest >= 0 and ((sums - 1).abs() < 1e-3).all():
        return "The logits are probabilities, which sum to one: return them before the softmax."
    is_normal = (logits.double().logsumexp(-1).abs() < 1e-3).all()
    if is_normal and highest - lowest < 1.001:
        return "The logits are log-probabilities of probabilities: two softmaxes in a row. Return the input of the first."
    if highest - lowest < 5:
        return f"The logits lie between {lowest:.3g} and {highest:.3g}: do not squash them, as by a softmax, sigmoid or tanh."
    return "Check that no part is detached from the gradient, and that the logits are scores before the softmax."
