"""The laws of the exercises on networks and their training. B batch, T time (tokens), V vocabulary,
H hidden, E embedding.

Networks satisfy laws of the model contract, and agree with torch's own layers. A reference also
computes what known mistakes give, so that the message can name the mistake.
"""

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from reviewgen.protocols.checks import (
    ROWS,
    STEPS,
    TOLERANCE,
    asserting,
    call,
    lettered,
    seeded,
    some_ids,
)
from reviewgen.testing.laws import Laws, assert_result, is_close
from reviewgen.testing.models import MODEL_LAWS

# Sizes that differ from each other and from B and T, so that a size shows which axis it is.
V = 11
E = 10
H = 7
HEADS = 2
ORDER = 5  # the order n of the neural n-gram

# Exercises 4, 5, 7 and 8: the learner writes a network, whose ``forward(ids, state)`` returns
# logits and the state after the ids.

NETWORK_LAWS = Laws(lambda make: [(make(),)])


@NETWORK_LAWS.law()
def logits(model: Any) -> None:
    """Logits are (B, T, V), for one or more rows and one or more tokens."""
    for batch, time in (ROWS, STEPS), (1, 1), (ROWS, 1), (1, STEPS):
        sizes = {"V": V, "E": E, "H": H, "T": time, "B": batch}
        named = ", ".join(f"{letter} = {size}" for letter, size in reversed(sizes.items()))
        with asserting(f"With {named}:"):
            values, _ = call(model, some_ids(model, batch, time))
            shape = tuple(values.shape)
            assert shape == (batch, time, V), f"They are {lettered(shape, sizes)}."


_LAW_OF = {law.__name__: law for law in MODEL_LAWS}
_SHARED = ("state", "causal", "aligned", "rows", "chunks", "no_mutation")
NETWORK_LAWS += [_LAW_OF[name] for name in _SHARED]


def _network_laws(reference: Callable[[Any, Tensor], dict[str, Tensor]]) -> Laws:
    """Return the laws of a network.

    Args:
        reference: Returns logits (B, T, V), computed with the weights of the model: the right ones
            first, whose key says how to compute them, and those of mistakes.
    """
    laws = Laws(lambda make: [(make(),)])
    laws += NETWORK_LAWS

    def compute(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss (B, T) of the model, and the losses of the reference by its keys: the
        right one first, then those of mistakes.
        """
        ids = some_ids(model, ROWS, STEPS)
        targets = some_ids(model, ROWS, STEPS, seed=1)
        values, _ = model(ids, model.initial_state(ROWS))
        results = reference(model, ids)
        right, *_ = results.values()
        results["These are probabilities: return the scores before softmax."] = right.softmax(-1)
        losses = {sentence: _loss(each, targets) for sentence, each in results.items()}
        return _loss(values, targets), losses

    @laws.law()
    def loss(model: Any) -> None:
        """The loss equals that of the reference, which computes with the same weights."""
        assert_result(*compute(model), "loss (B, T)")

    @laws.law()
    def gradients(model: Any) -> None:
        """The gradient of each weight equals that of the reference: detach nothing in a call."""
        actual, losses = compute(model)
        expected, *_ = losses.values()
        for name, weight in model.named_parameters():
            # ``grad`` returns a tuple of one gradient
            (grad,), (expected_grad,) = (
                torch.autograd.grad(each.mean(), weight, retain_graph=True, materialize_grads=True)
                for each in (actual, expected)
            )
            assert is_close(grad, expected_grad), f"That of {name} differs."

    return laws


def _loss(values: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy (B, T) of logits (B, T, V)."""
    return F.cross_entropy(values.transpose(1, 2), targets, reduction="none")


def _neural_ngram(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """Return the logits of a neural n-gram (Bengio et al. 2003), and those of mistakes."""
    # the last n-1 tokens at each position, with token 0 before the text
    windows = F.pad(ids, (ORDER - 2, 0)).unfold(1, ORDER - 1, 1)  # (B, T, n-1)
    vectors = model.embedding(windows)  # (B, T, n-1, E)
    hidden = model.hidden(vectors.flatten(2))  # (B, T, H)
    return {
        "output(tanh(hidden(x))), where x (B, T, (n-1) E) are the embeddings of the last n - 1"
        " tokens, the oldest first": model.output(hidden.tanh()),
        "The window is in reverse: the oldest token is first, ids[:, t] last.": model.output(
            model.hidden(vectors.flip(2).flatten(2)).tanh()
        ),
        "The axes n - 1 and E are exchanged: flatten (B, T, n-1, E), not (B, T, E, n-1).": (
            model.output(model.hidden(vectors.transpose(2, 3).flatten(2)).tanh())
        ),
        "The tanh between the layers is missing.": model.output(hidden),
    }


def _rnn(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """Return the logits of a recurrent network (Elman 1990), computed by torch, and those of
    mistakes.
    """

    def run(recurrent: Tensor, nonlinearity: str = "tanh") -> Tensor:
        """Return the logits of torch's layer with the weights of the model, except for the matrix
        (H, H) of the state, which is ``recurrent``.
        """
        weights = {
            "weight_ih_l0": model.input.weight,
            "bias_ih_l0": model.input.bias,
            "weight_hh_l0": recurrent,
            "bias_hh_l0": torch.zeros(H),
        }
        layer = nn.RNN(E, H, batch_first=True, nonlinearity=nonlinearity)
        hidden, _ = functional_call(layer, weights, model.embedding(ids))
        logits: Tensor = model.output(hidden)
        return logits

    weight = model.recurrent.weight
    return {
        "h = tanh(input(x) + recurrent(h)), logits = output(h)": run(weight),
        "The state h of the token before is not used.": run(torch.zeros(H, H)),
        "The matrix (H, H) of the state is transposed.": run(weight.T),
        "The function is relu, not tanh.": run(weight, "relu"),
    }


def _lstm(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """Return the logits of an LSTM (Hochreiter & Schmidhuber 1997), computed by torch. The first
    are right: the model's gates are in the order of torch. The others are those of a model whose
    gates are in another order.
    """
    results: dict[str, Tensor] = {}
    for order in itertools.permutations("ifgo"):  # this order comes first
        rows = [order.index(gate) for gate in "ifgo"]  # where the model has each gate of torch

        def arrange(tensor: Tensor, rows: list[int] = rows) -> Tensor:
            """Return a tensor (4H, ...) of the model with its gates in the order of torch."""
            return tensor.view(4, H, -1)[rows].view(tensor.shape)

        weights = {
            "weight_ih_l0": arrange(model.input.weight),
            "bias_ih_l0": arrange(model.input.bias),
            "weight_hh_l0": arrange(model.recurrent.weight),
            "bias_hh_l0": torch.zeros(4 * H),
        }
        layer = nn.LSTM(E, H, batch_first=True)
        hidden, _ = functional_call(layer, weights, model.embedding(ids))
        sentence = f"The gates of 4H are in the order {', '.join(order)}, not i, f, g, o."
        if not results:
            sentence = "c = f c + i g and h = o tanh(c), where i, f, o are sigmoids and g is a tanh"
        results[sentence] = model.output(hidden)
    return results


def _attention(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """Return the logits of causal attention (Vaswani et al. 2017), computed by torch, and those of
    mistakes.
    """
    x = model.embedding(ids)

    def read(heads: int = HEADS, scale: float | None = None, is_swapped: bool = False) -> Tensor:
        """Return the logits: the right ones by default; else with another number of heads, another
        scale of the scores, or queries and keys exchanged.
        """
        query, key, value = [
            layer(x).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, T, E / heads)
            for layer in (model.query, model.key, model.value)
        ]
        if is_swapped:
            query, key = key, query
        values = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
        logits: Tensor = model.output(values.transpose(1, 2).flatten(2))
        return logits

    return {
        "output(softmax(q k / sqrt(E / heads)) v), head by head, over the tokens up to t": read(),
        "The scores are not divided by sqrt(E / heads).": read(scale=1.0),
        "The scores are divided by sqrt(E), not by that of a head, sqrt(E / heads).": read(
            scale=E**-0.5
        ),
        "Queries and keys are exchanged.": read(is_swapped=True),
        "There is one head: split E into (heads, E / heads).": read(heads=1),
    }


NNLM_LAWS = _network_laws(_neural_ngram)
RNN_LAWS = _network_laws(_rnn)
LSTM_LAWS = _network_laws(_lstm)
ATTENTION_LAWS = _network_laws(_attention)


# Exercise 6: the learner writes the functions ``clip(parameters, max_norm)`` and ``train(model,
# optimizer, ids, targets, bptt, max_norm)``.

BPTT_LAWS = Laws(lambda written: [(written.clip, written.train)])
_BPTT = 5  # tokens of a chunk; T is not a multiple, so the last chunk is shorter
_MAX_NORM = 0.25


class _Watched(nn.Module):
    """A small GRU that keeps the ids and the states that it is called with."""

    def __init__(self) -> None:
        super().__init__()
        with seeded():
            self.embedding = nn.Embedding(V, E)
            self.gru = nn.GRU(E, H, batch_first=True)
            self.output = nn.Linear(H, V)
        self.config = SimpleNamespace(vocab_size=V)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def initial_state(self, batch_size: int) -> Tensor:
        """Return the state (B, H) before the first token."""
        return torch.zeros(batch_size, H)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, T, V) and the state (B, H) after the last token."""
        self.seen.append((ids, state))
        hidden, last = self.gru(self.embedding(ids), state[None])
        return self.output(hidden), last[0]


@BPTT_LAWS.law()
def clipping(clip: Callable[..., float], train: Callable[..., list[float]]) -> None:
    """``clip`` scales all gradients by one factor, so that the norm of all together is at most
    max_norm; it returns the norm before.
    """
    for max_norm in (1.0, 100.0):
        weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1, 2))]
        unused = nn.Parameter(torch.zeros(3))  # has no gradient
        grads = [torch.tensor([3.0, 0.0]), torch.tensor([[0.5, 12.0]])]
        for weight, grad in zip(weights, grads, strict=True):
            weight.grad = grad.clone()
        norm = float(clip(iter([*weights, unused]), max_norm))
        actual = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
        before = torch.cat([grad.flatten() for grad in grads])
        # each gradient clipped by itself, by its own norm, which is a mistake
        alone = torch.cat([grad.flatten() * min(1, max_norm / grad.norm()) for grad in grads])
        results = {
            "grad *= min(1, max_norm / norm)": before * min(1, max_norm / before.norm()),
            "Gradients below max_norm are enlarged: the factor is at most 1.": before
            * (max_norm / before.norm()),
            "Each weight has a norm of its own: the norm is that of all gradients together.": alone,
            "The values are clipped one by one, which changes the direction.": before.clamp(
                -max_norm, max_norm
            ),
            "They have not changed; `parameters` may be a generator, which is read once.": before,
        }
        assert_result(actual, results, "gradient")
        expected = before.norm().item()
        assert math.isclose(norm, expected, rel_tol=TOLERANCE), (
            f"It returned {norm:.4f}, not the norm before, {expected:.4f}."
        )


@BPTT_LAWS.law()
def chunks(clip: Callable[..., float], train: Callable[..., list[float]]) -> None:
    """The model is called with chunks (B, bptt) of the ids (B, T), along T; the last may be
    shorter.
    """
    model, _ = _train_watched(train)
    sizes = {"V": V, "H": H, "T": STEPS, "B": ROWS, "bptt": _BPTT}
    for ids, _ in model.seen:
        shape = tuple(ids.shape)
        is_chunk = ids.ndim == 2 and shape[0] == ROWS and shape[1] <= _BPTT
        assert is_chunk, f"A chunk is {lettered(shape, sizes)}, with B = {ROWS}, bptt = {_BPTT}."


@BPTT_LAWS.law()
def detached(clip: Callable[..., float], train: Callable[..., list[float]]) -> None:
    """The state (B, H) is passed on detached: gradients end at the beginning of a chunk."""
    model, error = _train_watched(train)
    has_graph = any(state.requires_grad for _, state in model.seen)
    assert not has_graph, "A state still has the graph of the chunk before: state.detach()."
    if error is not None:
        raise error


@BPTT_LAWS.law()
def loss(clip: Callable[..., float], train: Callable[..., list[float]]) -> None:
    """``train`` returns the loss of each chunk, as the reference does: for each chunk, a forward
    pass, zero_grad, backward, clipping and a step.
    """
    model = _Watched()
    actual = train(model, _optimizer(model), *_batch(model), _BPTT, _MAX_NORM)
    results = {
        "the mean cross entropy of each chunk, before its step": _losses(),
        "The state is new for each chunk: pass on the state after the chunk before.": _losses(
            carries=False
        ),
        "Gradients of the chunk before are added: call optimizer.zero_grad().": _losses(
            clears=False
        ),
        "Gradients are not clipped between backward and step.": _losses(clips=False),
        "The weights do not change: call optimizer.step().": _losses(steps=False),
    }
    assert_result(actual, results, "loss of a chunk")


def _train_watched(train: Callable[..., Any]) -> tuple[_Watched, Exception | None]:
    """Return a model that the learner's function has trained, and the error if it failed."""
    model = _Watched()
    try:
        train(model, _optimizer(model), *_batch(model), _BPTT, _MAX_NORM)
    except Exception as error:
        return model, error
    return model, None


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1.0)


def _batch(model: Any) -> tuple[Tensor, Tensor]:
    return some_ids(model, ROWS, STEPS), some_ids(model, ROWS, STEPS, seed=1)


def _losses(
    carries: bool = True, clears: bool = True, clips: bool = True, steps: bool = True
) -> list[float]:
    """Return the loss of each chunk of a training by truncated BPTT (Williams & Peng 1990). An
    argument that is False leaves out a part of the training, which is a known mistake: to pass on
    the state, to clear the gradients, to clip them, or to make a step.
    """
    model = _Watched()
    optimizer = _optimizer(model)
    ids, targets = _batch(model)
    state = model.initial_state(ROWS)
    losses = []
    for chunk, target in zip(
        torch.split(ids, _BPTT, 1), torch.split(targets, _BPTT, 1), strict=True
    ):
        values, after = model(chunk, state)
        loss = F.cross_entropy(values.transpose(1, 2), target)
        if clears:
            optimizer.zero_grad()
        torch.autograd.backward(loss)
        if clips:
            nn.utils.clip_grad_norm_(model.parameters(), _MAX_NORM)
        if steps:
            optimizer.step()
        if carries:
            state = after.detach()
        losses.append(loss.item())
    return losses
