"""The laws of the model contract in ``reviewgen.protocols``, one function each.

``make`` returns a new model in evaluation mode. Its weights may be random, but a model trained by counting must be trained. B
batch, T time (tokens), V vocabulary.
"""

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reviewgen.config import VOCABULARY_FIELDS, from_dict, to_dict
from reviewgen.protocols import CountTrained, LanguageModel, SupportsScore
from reviewgen.testing.context_laws import CONTEXT_LAWS, aligned, deep_copy, fixed_state, long_text
from reviewgen.testing.counting_laws import COUNTING_LAWS, count_merge, count_ranges
from reviewgen.testing.device_law import devices
from reviewgen.testing.graph_law import described_graph
from reviewgen.testing.implementations_law import implementations
from reviewgen.testing.initial_weights_law import initial_weights
from reviewgen.testing.loss_law import losses
from reviewgen.testing.members import lacking
from reviewgen.testing.migration_law import migration
from reviewgen.testing.models import (
    LOGITS,
    ROWS,
    STEPS,
    assert_close,
    assert_normalised,
    call,
    call_twice,
    can,
    evaluating,
    rejects,
    some_ids,
    tensors,
    through_a_file,
    train_by_counting,
)
from reviewgen.testing.operations_law import operations
from reviewgen.testing.parameter_groups_law import parameter_groups
from reviewgen.testing.step_law import step
from reviewgen.testing.training_laws import TRAINING_LAWS, autocast, carried, causal_in_training, gradients, learns

__all__ = [
    "MODEL_LAWS",
    "aligned",
    "autocast",
    "carried",
    "causal",
    "causal_in_training",
    "check_model",
    "chunks",
    "config",
    "count_merge",
    "count_ranges",
    "deep_copy",
    "described_graph",
    "devices",
    "explicit",
    "fixed_state",
    "gradients",
    "implementations",
    "initial_weights",
    "learns",
    "long_text",
    "losses",
    "meta",
    "migration",
    "no_mutation",
    "normal",
    "operations",
    "parameter_groups",
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
    """Check all laws in order, and stop at the first that the model breaks.

    Raises:
        AssertionError: A law is broken.
    """
    for law in MODEL_LAWS:
        law(make)


def protocol(make: Make) -> None:
    """The model has the attributes and methods of LanguageModel."""
    model = make()
    assert isinstance(model, LanguageModel), (
        f"{type(model).__name__} lacks {lacking(model, LanguageModel)} of reviewgen.protocols.LanguageModel."
    )


def explicit(make: Make) -> None:
    """The constructor takes the config as its only argument, since only the config is saved."""
    model = make()
    parameters = list(inspect.signature(type(model)).parameters.values())
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    assert len(parameters) == len(plain) == 1, (
        f"The constructor takes ({', '.join(map(str, parameters))}); it must take one argument, the config, without a default."
    )
    assert isinstance(model.config, type(model).Config), (
        f"The attribute config must be a {type(model).Config.__name__}, the class's Config; got a {type(model.config).__name__}."
    )


def config(make: Make) -> None:
    """The config is a frozen, keyword-only dataclass of JSON values; vocab_size is first, and all other fields have defaults."""
    cls, settings = type(make()).Config, make().config
    is_dataclass = dataclasses.is_dataclass(cls)
    assert is_dataclass, f"{cls} must be a dataclass."
    assert cls.__dataclass_params__.frozen, f"{cls.__name__} must be frozen: @dataclass(frozen=True, kw_only=True)."
    fields = dataclasses.fields(cls)
    assert all(field.kw_only for field in fields), f"{cls.__name__} must be keyword-only: @dataclass(frozen=True, kw_only=True)."
    assert fields[0].name == "vocab_size", f"The first field of the config must be vocab_size; got {fields[0].name!r}."
    values = json.loads(json.dumps(to_dict(settings)))
    assert from_dict(cls, values) == settings, f"The config must be equal after a round trip through JSON; its JSON is {values}."
    own = [field for field in fields if field.name not in VOCABULARY_FIELDS]
    required = [f.name for f in own if f.default is f.default_factory is dataclasses.MISSING]
    assert not required, f"The settings {required} need defaults: a model can be used without a preset."


def shape(make: Make) -> None:
    """Logits are floating-point and have the shape (B, T, V), for one or more rows and one or more tokens."""
    model = make()
    for batch, time in (1, 1), (1, STEPS), (ROWS, 1), (ROWS, STEPS):
        logits, _ = call(model, some_ids(model, batch, time))
        expected = batch, time, model.config.vocab_size
        assert logits.shape == expected, (
            f"For ids of the shape {batch, time} the logits must have the shape {expected}; got {tuple(logits.shape)}."
        )
        assert logits.is_floating_point(), f"Logits must have a floating-point dtype; got {logits.dtype}."


def state(make: Make) -> None:
    """The state, from ``initial_state`` and from a call, is a tensor or a nested tuple of tensors whose first dimension is B."""
    model = make()
    for batch in 1, ROWS:
        _, after = call(model, some_ids(model, batch, 2))
        for when, value in ("initial_state", model.initial_state(batch)), ("the state after a call", after):
            for tensor in tensors(value):
                assert isinstance(tensor, Tensor), f"{when} must contain only tensors and tuples; got a {type(tensor).__name__}."
                assert tensor.shape[:1] == (batch,), (
                    f"{when} has a tensor of the shape {tuple(tensor.shape)}; its first dimension must be B = {batch}."
                )


def chunks(make: Make) -> None:
    """A text fed in chunks, with the state passed on, gives the same logits as the whole text in one call."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    whole, _ = call(model, ids)
    for sizes in [1] * STEPS, [1, 4, 7], [5, 7]:
        parts, carried = [], model.initial_state(ROWS)
        for chunk in torch.split(ids, sizes, dim=1):
            logits, carried = call(model, chunk, carried)
            parts.append(logits)
        assert_close(
            torch.cat(parts, dim=1),
            whole,
            f"Chunks of {sizes} tokens give other logits than one call; the state must carry all context.",
        )


def causal(make: Make) -> None:
    """Changing ``ids[:, t]`` does not change the logits before position t."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    before, _ = call(model, ids)
    for t in range(1, STEPS):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % model.config.vocab_size
        after, _ = call(model, changed)
        assert_close(
            after[:, :t], before[:, :t], f"Changing token {t} changes logits before it; the model must not use future tokens."
        )


def rows(make: Make) -> None:
    """The logits and the state of a row do not depend on the other rows of the batch."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    together, _ = call_twice(model, ids)
    for row in range(ROWS):
        alone, _ = call_twice(model, ids[row : row + 1])
        sentence = f"Row {row} alone gives other logits than in a batch; rows must be independent."
        assert_close(alone[0], together[row], sentence, LOGITS[1:])


def no_mutation(make: Make) -> None:
    """A call does not modify the ids and the state that it is passed."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    _, later = call(model, ids)
    for passed in model.initial_state(ROWS), later:
        kept_ids, kept = ids.clone(), [t.clone() for t in tensors(passed)]
        call(model, ids, passed)
        same = all(torch.equal(a, b) for a, b in zip(kept, tensors(passed), strict=True))
        assert same, "A call modifies the state that it is passed; it must return a new one."
        assert torch.equal(ids, kept_ids), "A call modifies the ids that it is passed; it must leave them unchanged."


def normal(make: Make) -> None:
    """Logits are finite; a model trained by counting may return -inf for probability zero, but not NaN or +inf."""
    model = make()
    logits, _ = call(model, some_ids(model, ROWS, STEPS))
    is_counted = isinstance(model, CountTrained)
    wrong = (~(logits < torch.inf) if is_counted else ~logits.isfinite()).nonzero()
    if len(wrong):
        row, token, number = wrong[0].tolist()
        raise AssertionError(
            f"The logit of id {number} at row {row}, token {token} is {float(logits[row, token, number])}, and {len(wrong)} of "
            f"{logits.numel()} logits are NaN or infinite; they must be finite{', or -inf' if is_counted else ''}."
        )
    if not is_counted:
        assert logits.log_softmax(-1).isfinite().all(), "The log-softmax of the logits is not finite; they are too far apart."


def same_again(make: Make) -> None:
    """The same call gives exactly the same logits and state: evaluation is deterministic, and calls share no hidden state."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    (first, first_state), (second, second_state) = call(model, ids), call(model, ids)
    assert torch.equal(first, second), "The same call gives other logits the second time; evaluation must be deterministic."
    same = all(torch.equal(a, b) for a, b in zip(tensors(first_state), tensors(second_state), strict=True))
    assert same, "The same call gives another state the second time; evaluation must be deterministic."


def round_trip(make: Make) -> None:
    """A model restored from its config (through JSON) and its tensors (through safetensors) gives exactly the same logits."""
    model = make()
    settings = from_dict(type(model).Config, json.loads(json.dumps(to_dict(model.config))))
    twin = type(model)(settings)
    twin.load_state_dict(through_a_file(model.state_dict()))
    ids = some_ids(model, ROWS, STEPS)
    (expected, _), (logits, _) = call(model, ids), call(evaluating(twin), ids)
    assert torch.equal(logits, expected), (
        "A saved and loaded model gives other logits; state_dict and the config must contain everything that they depend on."
    )


def strict(make: Make) -> None:
    """``load_state_dict`` raises for an extra tensor, a missing one and one of another shape."""
    model = make()
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    invalid = [("an extra tensor", {**tensors, "unknown": torch.zeros(1)})]
    for name, tensor in tensors.items():
        invalid.append((f"tensors without {name}", {key: value for key, value in tensors.items() if key != name}))
        invalid.append((f"{name} with an extra dimension", {**tensors, name: tensor[None]}))
    for what, wrong in invalid:
        assert rejects(type(model)(model.config), wrong), f"load_state_dict accepts {what}; it must raise."


def meta(make: Make) -> None:
    """An ``nn.Module`` can be created on the meta device, where tensors take no memory, with the same names and shapes."""
    model = make()
    if not isinstance(model, nn.Module):
        return
    try:
        with torch.device("meta"):
            on_meta = type(model)(model.config)
    except Exception as error:
        raise AssertionError(f"The model cannot be created under torch.device('meta'), as loading does: {error}") from error
    if not isinstance(model, CountTrained):  # sizes of count arrays depend on the text, not on the config
        expected, actual = ({n: t.shape for n, t in m.state_dict().items()} for m in (model, on_meta))
        assert actual == expected, f"On the meta device the model has the tensors {actual}; they must be {expected}."


def score(make: Make) -> None:
    """SupportsScore: ``score`` returns the log-softmax of the model's logits at the targets, and the same state as a call."""
    model = make()
    if not can(model, SupportsScore):
        return
    ids, targets = some_ids(model, ROWS, STEPS, seed=0), some_ids(model, ROWS, STEPS, seed=1)
    for passed in model.initial_state(ROWS), call(model, ids)[1]:
        logits, after = call(model, ids, passed)
        expected = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]  # (B, T)
        with torch.no_grad():
            scores, after_score = model.score(ids, targets, passed)
        assert_close(scores, expected, "score gives other log-probabilities than the model's call.", LOGITS[:2])
        for a, b in zip(tensors(after_score), tensors(after), strict=True):
            assert_close(a, b, "score returns another state than the model's call.")


def sums_to_one(make: Make) -> None:
    """CountTrained: logits are log-probabilities: their exponentials sum to one at every position."""
    model = make()
    if can(model, CountTrained):
        assert_normalised(model)


def reports(make: Make) -> None:
    """CountTrained: a new model can be trained by ``observe`` and ``finish``, which returns JSON values."""
    model = make()
    if not can(model, CountTrained):
        return
    new = type(model)(model.config)
    facts = train_by_counting(new, model.config.vocab_size, seed=1, texts=3)
    try:
        json.dumps(dict(facts))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"finish must return a mapping of JSON values: {error}") from error
    assert_normalised(new)


MODEL_LAWS: tuple[Callable[[Make], None], ...] = (
    protocol,
    explicit,
    config,
    shape,
    state,
    same_again,
    causal,
    chunks,
    rows,
    no_mutation,
    normal,
    round_trip,
    strict,
    meta,
    *CONTEXT_LAWS,
    *TRAINING_LAWS,
    score,
    step,
    implementations,
    sums_to_one,
    reports,
    *COUNTING_LAWS,
    devices,
    losses,
    parameter_groups,
    initial_weights,
    migration,
    described_graph,
    operations,
)
"""All laws of a model, in the order in which to fix broken ones."""
