"""The laws of the exercises on counts, bits and mixing. T time (tokens, or bits), V vocabulary.

A law that compares with a reference also computes what known mistakes give, so that its message can
name the mistake.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reviewgen.protocols.checks import TOLERANCE, lettered
from reviewgen.testing.laws import Laws, assert_result

V = 11

# Exercise 1, count and smooth: the learner writes the class ``Ngram(order, vocab_size)`` with the
# methods ``count(ids)`` and ``probs(context)``.

COUNT_LAWS = Laws(lambda make: [(make,)])
COUNT_ORDER = 3
_COUNTED = torch.randint(5, (4, 30), generator=torch.Generator().manual_seed(0)).tolist()
_HELD_OUT = torch.randint(6, (20,), generator=torch.Generator().manual_seed(1)).tolist()
_CONTEXTS = [_HELD_OUT[:t] for t in range(len(_HELD_OUT))]


@COUNT_LAWS.law()
def shape(make: Callable[[], Any]) -> None:
    """``probs`` returns V probabilities, one for each token, all above 0."""
    model = _count(make())
    for context in _CONTEXTS:
        probs = np.asarray(model.probs(context), dtype=float)
        assert probs.shape == (V,), f"Its shape is {lettered(probs.shape, {'V': V})}; V is {V}."
        is_valid = probs > 0
        # argmin: the first token that is not valid
        assert is_valid.all(), (
            f"After {context[-2:]}, P of token {is_valid.argmin()} is {probs[~is_valid][0]:.4g}."
        )


@COUNT_LAWS.law()
def sums_to_one(make: Callable[[], Any]) -> None:
    """The probabilities of the V tokens sum to one, also before anything was counted."""
    for model in (_count(make()), make()):
        for context in _CONTEXTS:
            total = float(np.sum(model.probs(context)))
            assert math.isclose(total, 1, abs_tol=1e-6), f"After {context[-2:]}: {total:.4f}."


@COUNT_LAWS.law()
def window(make: Callable[[], Any]) -> None:
    """Only the last order - 1 tokens of the context count."""
    model = _count(make())
    for context in _CONTEXTS[3:]:  # those with more than order - 1 tokens
        short = context[1 - COUNT_ORDER :]  # the last order - 1 tokens
        sentence = f"After {context} and after {short}, the probabilities differ."
        assert np.allclose(model.probs(context), model.probs(short)), sentence


@COUNT_LAWS.law()
def texts(make: Callable[[], Any]) -> None:
    """The order of the texts does not matter: no n-gram reaches from one text into the next."""
    model = _count(make())
    other = _count(make(), _COUNTED[::-1])
    for context in _CONTEXTS:
        sentence = f"After {context[-2:]}, the probabilities differ if the texts are reversed."
        assert np.allclose(model.probs(context), other.probs(context)), sentence


@COUNT_LAWS.law()
def same_again(make: Callable[[], Any]) -> None:
    """``probs`` changes nothing: asked again, it returns the same, and another model is not
    changed either.
    """
    model = _count(make())
    first = [np.array(model.probs(context)) for context in _CONTEXTS]
    _count(make())
    again = [model.probs(context) for context in _CONTEXTS]
    assert np.allclose(first, again), "The probabilities have changed."


@COUNT_LAWS.law()
def loss(make: Callable[[], Any]) -> None:
    """The loss of a held-out text equals that of the reference, which counts in another way."""
    model = _count(make())
    probs = [float(model.probs(_HELD_OUT[:t])[_HELD_OUT[t]]) for t in range(len(_HELD_OUT))]
    # how d is computed from the positive counts; the first is right, the others are mistakes
    rules = {
        "P = (c(h, w) + d(h) P') / (c(h) + d(h)); P' is after a shorter h, and first 1 / V": len,
        "d(h) is the number of different tokens that followed h, not 1.": lambda _: 1,
        "d(h) is the number of different tokens that followed h, not V.": lambda _: V,
    }
    results = {}
    for sentence, rule in rules.items():
        values = [_witten_bell(_HELD_OUT[:t], rule)[_HELD_OUT[t]] for t in range(len(_HELD_OUT))]
        results[sentence] = -np.log(values)
    assert_result(-torch.tensor(probs).log(), results, "loss (T,)")


def _count(model: Any, counted: Iterable[list[int]] = _COUNTED) -> Any:
    """Return a model that has counted texts."""
    for text in counted:
        model.count(text)
    return model


def _witten_bell(context: list[int], weight_of: Callable[[Any], int]) -> Any:
    """Return the probabilities (V,) after a context (Witten & Bell 1991).

    Args:
        context: The tokens before.
        weight_of: Returns d, the weight of the probabilities after the next shorter context, from
            the positive counts of the tokens that followed a context.
    """
    probs = np.full(V, 1 / V)
    for k in range(min(COUNT_ORDER, len(context) + 1)):
        suffix = context[len(context) - k :]
        counts = np.zeros(V)
        for text in _COUNTED:
            for t in range(k, len(text)):
                if text[t - k : t] == suffix:
                    counts[text[t]] += 1
        if counts.any():
            d = weight_of(counts[counts > 0])
            probs = (counts + d * probs) / (counts.sum() + d)
    return probs


# Exercise 2: the learner writes the function ``bits_per_character(logits, targets, texts)``.

BITS_LAWS = Laws(lambda written: [(written.bits_per_character,)])
PADDING = -1  # the target at a position after the end of a text
_TEXTS = ["It was good.", "Never again!", "The soup, the bread and the company were good."]
_LENGTHS = [4, 3, 9]  # number of tokens of each text, the end token included


@BITS_LAWS.law()
def bits(measure: Callable[..., float]) -> None:
    """The value equals the reference: the bits of all tokens of all rows, per character."""
    logits, targets = _scores()
    is_token = targets != PADDING  # (B, T)
    characters = torch.tensor(list(map(len, _TEXTS)))  # (B,)

    def chosen(scores: Tensor) -> Tensor:
        """Return the scores (B, T) of the targets, with the opposite sign."""
        return -scores.gather(2, targets.clamp(min=0)[..., None])[..., 0]

    def per_character(nats: Tensor) -> Tensor:
        """Return the bits per character, for nats (B, T)."""
        return nats.sum() / math.log(2) / characters.sum()

    padded = chosen(logits.log_softmax(-1))  # the nats of all targets, the padding included, (B, T)
    nats = padded * is_token
    is_followed = F.pad(is_token[:, 1:], (0, 1))  # False for the end token of each row, (B, T)
    # the first value is right, the others come from mistakes
    results = {
        "the sum of -log2 p over B and T, divided by the characters of all texts": (
            per_character(nats)
        ),
        "These are nats: divide by ln 2.": nats.sum() / characters.sum(),
        "These are bits per token: divide by the characters of the texts,"
        " not by B and T.": nats.sum() / math.log(2) / is_token.sum(),
        "The end tokens are left out, which have bits too.": per_character(nats * is_followed),
        "It is the mean of the rows: sum over B before you divide.": (
            (nats.sum(1) / characters).mean() / math.log(2)
        ),
        "Padding is counted: where a target is -1, there are no bits.": per_character(padded),
        "The softmax is over T: it is over the last axis, V.": per_character(
            chosen(logits.log_softmax(1)) * is_token
        ),
        "The logits are not normalised: use their log-softmax over V.": per_character(
            chosen(logits) * is_token
        ),
    }
    assert_result(measure(logits, targets, _TEXTS), results, "value")


@BITS_LAWS.law()
def nothing_skipped(measure: Callable[..., float]) -> None:
    """A token of probability zero has infinite bits: nothing is skipped, clipped or rounded."""
    logits, targets = _scores()
    logits[0, 0, targets[0, 0]] = -torch.inf
    value = float(measure(logits, targets, _TEXTS))
    assert value == math.inf, f"It returned {value:.4f}."


@BITS_LAWS.law()
def normal(measure: Callable[..., float]) -> None:
    """Large logits give finite bits: their exponential overflows, their log-softmax does not."""
    logits, targets = _scores()
    values = [float(measure(logits + shift, targets, _TEXTS)) for shift in (0, 500)]
    assert math.isclose(*values, rel_tol=1e-3), f"With 500 added to all logits: {values[1]:.4f}."


def _scores() -> tuple[Tensor, Tensor]:
    """Return logits (B, T, V) and targets (B, T) for the texts."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(len(_TEXTS), max(_LENGTHS), V, generator=generator)
    targets = torch.randint(V, logits.shape[:2], generator=generator)
    for row, length in zip(targets, _LENGTHS, strict=True):
        row[length:] = PADDING
    return logits, targets


# Exercise 3, mixing: the learner writes the class ``Mixer(inputs, learning_rate)`` with the methods
# ``predict(probs)`` and ``update(bit)``, and the function ``cost(mixer, probs, bits)``.

MIXING_LAWS = Laws(lambda written: [(lambda: written.Mixer(3, _RATE), written.cost)])
_RATE = 0.3
_PROBS = (0.05 + 0.9 * torch.rand(40, 3, generator=torch.Generator().manual_seed(0))).tolist()
_BITS = torch.randint(2, (40,), generator=torch.Generator().manual_seed(1)).tolist()


@MIXING_LAWS.law()
def probability(make: Callable[[], Any], cost: Callable[..., float]) -> None:
    """``predict`` returns P(1), above 0 and below 1; P(1) and P(0) sum to one."""
    for row in _PROBS:
        ones = float(make().predict(row))
        zeros = float(make().predict([1 - p for p in row]))
        assert 0 < ones < 1, f"For {row[0]:.2f}, {row[1]:.2f}, {row[2]:.2f} it is {ones:.4f}."
        assert math.isclose(ones + zeros, 1, abs_tol=1e-6), (
            f"For the inputs p it is {ones:.4f}, for 1 - p {zeros:.4f}: sum {ones + zeros:.4f}."
        )


@MIXING_LAWS.law()
def rows(make: Callable[[], Any], cost: Callable[..., float]) -> None:
    """Mixers are independent: one that is new predicts the same whatever another one has learned,
    and asking twice changes nothing.
    """
    mixer = make()
    before = mixer.predict(_PROBS[0])
    assert math.isclose(mixer.predict(_PROBS[0]), before), "Asked twice, it predicts two values."
    cost(make(), _PROBS, _BITS)
    assert math.isclose(mixer.predict(_PROBS[0]), before), "The weights belong to the class."


@MIXING_LAWS.law()
def no_look_ahead(make: Callable[[], Any], cost: Callable[..., float]) -> None:
    """Each bit is predicted before the mixer is updated with it: over all sequences of T bits,
    2 ** -cost sums to one.
    """
    length = 4
    costs = [
        float(cost(make(), _PROBS[:length], list(sequence)))
        for sequence in itertools.product((0, 1), repeat=length)
    ]
    total = sum(2**-each for each in costs)
    in_nats = sum(math.exp(-each) for each in costs)
    assert not math.isclose(in_nats, 1, abs_tol=1e-6), "The cost is in nats: use log2."
    assert math.isclose(total, 1, abs_tol=1e-6), f"For T = {length} it sums to {total:.4f}."


@MIXING_LAWS.law()
def step_equals_whole(make: Callable[[], Any], cost: Callable[..., float]) -> None:
    """``cost`` of all T bits equals the sum over ``predict`` and ``update``, bit by bit."""
    mixer = make()
    total = 0.0
    for row, bit in zip(_PROBS, _BITS, strict=True):
        p = float(mixer.predict(row))
        total -= math.log2(p if bit else 1 - p)
        mixer.update(bit)
    whole = float(cost(make(), _PROBS, _BITS))
    assert math.isclose(total, whole, abs_tol=TOLERANCE), f"{whole:.4f} is not {total:.4f}."


@MIXING_LAWS.law()
def learning(make: Callable[[], Any], cost: Callable[..., float]) -> None:
    """The cost equals that of the reference."""
    # the learning rate for a prediction p = P(1); the first is right, the others are mistakes
    rules = {
        "z = ln(p / (1 - p)), P(1) = 1 / (1 + exp(-sum(w z))),"
        " w += learning_rate (bit - P(1)) z": lambda p: _RATE,
        "The weights do not change: update them with each bit.": lambda p: 0.0,
        "The weights move the wrong way: add learning_rate * (bit - P(1)) * z.": lambda p: -_RATE,
        "The step has a factor P(1) (1 - P(1)), which is the gradient of the squared error, not of"
        " the cost.": lambda p: _RATE * p * (1 - p),
    }
    results = {sentence: _mixing_cost(rule) for sentence, rule in rules.items()}
    assert_result(float(cost(make(), _PROBS, _BITS)), results, "cost")


def _mixing_cost(rate_of: Callable[[float], float]) -> float:
    """Return the cost in bits of logistic mixing (Mahoney 2005). ``rate_of`` returns the learning
    rate for a prediction P(1).
    """
    inputs = torch.tensor(_PROBS).double().logit()
    weights = torch.full((3,), 1 / 3).double()
    total = 0.0
    for z, bit in zip(inputs, _BITS, strict=True):
        p = (weights @ z).sigmoid().item()
        total -= math.log2(p if bit else 1 - p)
        weights += rate_of(p) * (bit - p) * z
    return total
