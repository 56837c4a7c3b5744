"""The laws of a language model, one small function each. They know the contract in ``reviewgen.protocols`` and no model.

``make`` returns a model ready to predict: in evaluation mode, and trained where it is trained by counting. Its weights may be
random. B batch, T time (tokens), V vocabulary.
"""

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reviewgen.config import from_dict, to_dict
from reviewgen.protocols import CountTrained, LanguageModel, SupportsScore
from reviewgen.testing.device_law import devices
from reviewgen.testing.implementations_law import implementations
from reviewgen.testing.models import (
    ROWS,
    STEPS,
    assert_close,
    assert_normalised,
    call,
    call_twice,
    can,
    evaluating,
    refuses,
    some_ids,
    tensors,
    through_a_file,
    train_by_counting,
)
from reviewgen.testing.step_law import step

__all__ = [
    "MODEL_LAWS",
    "causal",
    "check_model",
    "chunks",
    "config",
    "devices",
    "explicit",
    "implementations",
    "meta",
    "no_mutation",
    "normal",
    "protocol",
    "reports",
    "round_trip",
    "rows",
    "same_again",
    "score",
    "shape",
    "state",
    "step",
    "strict",
    "sums_to_one",
]

Make = Callable[[], Any]


def check_model(make: Make) -> None:
    """Check every law.

    Raises:
        AssertionError: One is broken.
    """
    for law in MODEL_LAWS:
        law(make)


def protocol(make: Make) -> None:
    """The model has the attributes and methods of LanguageModel."""
    model = make()
    assert isinstance(model, LanguageModel), f"{type(model).__name__} lacks a part of reviewgen.protocols.LanguageModel."


def explicit(make: Make) -> None:
    """The constructor takes the config and nothing else: what is saved is what builds the model."""
    model = make()
    parameters = list(inspect.signature(type(model)).parameters.values())
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    assert len(parameters) == len(plain) == 1, f"The constructor takes {parameters}; it must take one config, without a default."
    assert isinstance(model.config, type(model).Config), f"config is a {type(model.config).__name__}, no {type(model).Config}."


def config(make: Make) -> None:
    """The config is a frozen keyword-only dataclass of JSON values, vocab_size first, and every other field has a default."""
    cls, settings = type(make()).Config, make().config
    is_dataclass = dataclasses.is_dataclass(cls)
    assert is_dataclass, f"{cls} is no dataclass."
    assert cls.__dataclass_params__.frozen, f"{cls.__name__} is not frozen."
    fields = dataclasses.fields(cls)
    assert all(field.kw_only for field in fields), f"{cls.__name__} is not keyword-only."
    assert fields[0].name == "vocab_size", f"The first field is {fields[0].name!r}; it must be vocab_size."
    values = json.loads(json.dumps(to_dict(settings)))
    assert from_dict(cls, values) == settings, f"The config comes back from JSON as another one: {values}."
    required = [f.name for f in fields[1:] if f.default is f.default_factory is dataclasses.MISSING]
    assert not required, f"The settings {required} need defaults: a model is used without a preset, too."


def shape(make: Make) -> None:
    """Logits are floating-point and (B, T, V), for one row and several, one token and several."""
    model = make()
    for batch, time in (1, 1), (1, STEPS), (ROWS, 1), (ROWS, STEPS):
        logits, _ = call(model, some_ids(model, batch, time))
        expected = batch, time, model.config.vocab_size
        assert logits.shape == expected, f"Logits of ids {batch, time} have the shape {tuple(logits.shape)}, not {expected}."
        assert logits.is_floating_point(), f"Logits are {logits.dtype}."


def state(make: Make) -> None:
    """The state is a tensor or a nested tuple of tensors, each with B first: at the beginning and after a call."""
    model = make()
    for batch in 1, ROWS:
        _, after = call(model, some_ids(model, batch, 2))
        for when, value in ("initial_state", model.initial_state(batch)), ("the state after a call", after):
            for tensor in tensors(value):
                assert isinstance(tensor, Tensor), (
                    f"{when} holds a {type(tensor).__name__}: only tuples and tensors may be in it."
                )
                assert tensor.shape[:1] == (batch,), (
                    f"{when} of {batch} rows has a tensor of shape {tuple(tensor.shape)}: B first."
                )


def chunks(make: Make) -> None:
    """A text in pieces, the state passed along, gives the logits of the whole."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    whole, _ = call(model, ids)
    for sizes in [1] * STEPS, [1, 4, 7], [5, 7]:
        pieces, memory = [], model.initial_state(ROWS)
        for piece in torch.split(ids, sizes, dim=1):
            logits, memory = call(model, piece, memory)
            pieces.append(logits)
        assert_close(torch.cat(pieces, dim=1), whole, f"Pieces of {sizes} tokens give other logits than the whole.")


def causal(make: Make) -> None:
    """Changing ``ids[:, t]`` changes no logits before t."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    before, _ = call(model, ids)
    for t in range(1, STEPS):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % model.config.vocab_size
        after, _ = call(model, changed)
        assert_close(after[:, :t], before[:, :t], f"Changing token {t} changes logits before it: the model sees the future.")


def rows(make: Make) -> None:
    """A row does not depend on the other rows of the batch, nor does its state."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    together, _ = call_twice(model, ids)
    for row in range(ROWS):
        alone, _ = call_twice(model, ids[row : row + 1])
        assert_close(alone, together[row : row + 1], f"Row {row} alone gives other logits than in a batch.")


def no_mutation(make: Make) -> None:
    """A call leaves the ids and the state that it is given as they were."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    _, later = call(model, ids)
    for memory in model.initial_state(ROWS), later:
        kept_ids, kept = ids.clone(), [t.clone() for t in tensors(memory)]
        call(model, ids, memory)
        same = all(torch.equal(a, b) for a, b in zip(kept, tensors(memory), strict=True))
        assert same, "A call changes the state that it is given: it must return a new one."
        assert torch.equal(ids, kept_ids), "A call changes the ids that it is given."


def normal(make: Make) -> None:
    """Logits are finite; a count model, which may say probability zero, may return -inf, but neither nan nor +inf."""
    model = make()
    logits, _ = call(model, some_ids(model, ROWS, STEPS))
    assert not logits.isnan().any(), "Logits contain nan."
    assert not logits.isposinf().any(), "Logits contain +inf."
    if not isinstance(model, CountTrained):
        assert logits.isfinite().all(), "Logits contain -inf."
        assert logits.log_softmax(-1).isfinite().all(), "Logits lie so far apart that their log-softmax is not finite."


def same_again(make: Make) -> None:
    """The same call gives exactly the same logits and state: nothing is drawn, nothing is kept between calls."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    (first, memory), (second, again) = call(model, ids), call(model, ids)
    assert torch.equal(first, second), "The same call gives other logits the second time."
    same = all(torch.equal(a, b) for a, b in zip(tensors(memory), tensors(again), strict=True))
    assert same, "The same call gives another state the second time."


def round_trip(make: Make) -> None:
    """Config and tensors, through JSON and a safetensors file, give a model with exactly the same logits."""
    model = make()
    settings = from_dict(type(model).Config, json.loads(json.dumps(to_dict(model.config))))
    twin = type(model)(settings)
    twin.load_state_dict(through_a_file(model.state_dict()))
    ids = some_ids(model, ROWS, STEPS)
    (expected, _), (logits, _) = call(model, ids), call(evaluating(twin), ids)
    assert torch.equal(logits, expected), (
        "The model gives other logits after it was saved and loaded: state_dict lacks something."
    )


def strict(make: Make) -> None:
    """``load_state_dict`` refuses an extra, a missing and a misshapen tensor."""
    model = make()
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bad = [("an extra tensor", {**tensors, "stranger": torch.zeros(1)})]
    for name, tensor in tensors.items():
        bad.append((f"tensors without {name}", {key: value for key, value in tensors.items() if key != name}))
        bad.append((f"{name} with an axis too many", {**tensors, name: tensor[None]}))
    for what, wrong in bad:
        assert refuses(type(model)(model.config), wrong), f"load_state_dict accepts {what}; it must raise."


def meta(make: Make) -> None:
    """An ``nn.Module`` can be built on the meta device, where tensors take no memory, with the tensors of the real one."""
    model = make()
    if not isinstance(model, nn.Module):
        return
    try:
        with torch.device("meta"):
            hollow = type(model)(model.config)
    except Exception as error:
        raise AssertionError(f"The model cannot be built under torch.device('meta'): {error}") from error
    if not isinstance(model, CountTrained):  # the sizes of count arrays come from the text, not from the config
        expected, found = ({n: t.shape for n, t in m.state_dict().items()} for m in (model, hollow))
        assert found == expected, f"Built on the meta device, the model has other tensors: {found} instead of {expected}."


def score(make: Make) -> None:
    """SupportsScore: the score is the log-softmax of the plain call's logits at the targets, and the state is the plain one."""
    model = make()
    if not can(model, SupportsScore):
        return
    ids, targets = some_ids(model, ROWS, STEPS, seed=0), some_ids(model, ROWS, STEPS, seed=1)
    for memory in model.initial_state(ROWS), call(model, ids)[1]:
        logits, after = call(model, ids, memory)
        expected = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]  # (B, T)
        with torch.no_grad():
            scores, after_score = model.score(ids, targets, memory)
        assert_close(scores, expected, "score gives other log probabilities than the plain call.")
        for a, b in zip(tensors(after_score), tensors(after), strict=True):
            assert_close(a, b, "score returns another state than the plain call.")


def sums_to_one(make: Make) -> None:
    """CountTrained: logits are log probabilities, so their exponentials sum to one at every position."""
    model = make()
    if can(model, CountTrained):
        assert_normalised(model)


def reports(make: Make) -> None:
    """CountTrained: a fresh model of the kind counts texts and reports facts that JSON can hold."""
    model = make()
    if not can(model, CountTrained):
        return
    fresh = type(model)(model.config)
    facts = train_by_counting(fresh, model.config.vocab_size, seed=1, texts=3)
    try:
        json.dumps(dict(facts))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"finish reports what JSON cannot hold: {error}") from error
    assert_normalised(fresh)


MODEL_LAWS: tuple[Callable[[Make], None], ...] = (
    protocol,
    explicit,
    config,
    shape,
    state,
    chunks,
    causal,
    rows,
    no_mutation,
    normal,
    same_again,
    round_trip,
    strict,
    meta,
    score,
    step,
    implementations,
    sums_to_one,
    reports,
    devices,
)
"""Every law of a model, in the order in which a broken one is best mended."""
