"""Laws of a model about its context: the size of the state, the length of a text, which token a position scores, copies.

B batch, T time (tokens), V vocabulary. All laws call the model in evaluation mode.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reviewgen.protocols import CountTrained
from reviewgen.testing.models import ROWS, STEPS, assert_close, call, can, describe_error, evaluating, some_ids

__all__ = ["CONTEXT_LAWS", "aligned", "deep_copy", "fixed_state", "long_text"]

Make = Callable[[], Any]

CHUNK, LONG = 512, 2_000  # tokens: of a call, of the long text


def fixed_state(make: Make) -> None:
    """Shapes and dtypes of the state depend on the batch size only: after any tokens they are those of ``initial_state``."""
    model = make()
    for batch in 1, ROWS:
        expected = describe_state(model.initial_state(batch))
        for time in 1, 5, 40:
            _, after = call(model, some_ids(model, batch, time))
            assert_same_state(describe_state(after), expected, f"after {time} tokens")
        _, after = call(model, some_ids(model, batch, 5), after)
        assert_same_state(describe_state(after), expected, "after a second call")
    one, several = (describe_state(model.initial_state(batch)) for batch in (1, ROWS))
    rest = {place: (tensor[0][1:], tensor[1]) for place, tensor in several.items()}
    assert rest == {place: (tensor[0][1:], tensor[1]) for place, tensor in one.items()}, (
        f"initial_state({ROWS}) and initial_state(1) differ in more than the first dimension: {several} and {one}."
    )


def long_text(make: Make) -> None:
    """There is no limit on the length of a text: 2,000 tokens in chunks of 512 give finite logits."""
    model = make()
    ids, state = some_ids(model, 1, LONG), model.initial_state(1)
    for start in range(0, LONG, CHUNK):
        chunk = ids[:, start : start + CHUNK]
        where = f"tokens {start} to {start + chunk.size(1) - 1} of a text of {LONG:,}, fed in chunks of {CHUNK}"
        try:
            logits, state = call(model, chunk, state)
        except Exception as error:
            raise AssertionError(
                f"The model fails at {where}: {describe_error(error)}. Texts have no maximum length: positions must wrap or be "
                "relative."
            ) from error
        wrong = ~logits.isfinite() if not isinstance(model, CountTrained) else logits.isnan() | logits.isposinf()
        if wrong.any():
            _, token, index = wrong.nonzero()[0].tolist()
            raise AssertionError(
                f"At {where}, the logit of id {index} after token {start + token} is {logits[0, token, index]:.4g}; it must be "
                "finite."
            )


def aligned(make: Make) -> None:
    """``logits[b, t]`` scores the token after ``ids[b, t]``: if later logits depend on ``ids[b, t]``, so do those at t."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    before, _ = call(model, ids)
    changes = torch.stack([_changes(model, ids, before, t) for t in range(STEPS)])  # (t changed, T)
    own, later = changes.diagonal(), changes.triu(1)
    if own.max() > 0 or later.max() == 0:
        return
    t, at = later.nonzero()[0].tolist()
    raise AssertionError(
        f"The logits are shifted: changing token {t} first changes the logits at token {at}, by {later[t, at]:.3g}, and those at "
        f"token {t} not at all. logits[b, t] must score the token after ids[b, t], so it must depend on ids[b, t]."
    )


def deep_copy(make: Make) -> None:
    """``copy.deepcopy`` gives a model with equal logits and with its own tensors, which weight averaging changes."""
    model = make()
    ids = some_ids(model, ROWS, STEPS)
    expected, _ = call(model, ids)
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise AssertionError(
            f"copy.deepcopy of the model fails: {describe_error(error)}. Averaging of weights and search copy models."
        ) from error
    assert_close(call(twin, ids)[0], expected, "A deep copy of the model gives other logits.")
    if not isinstance(model, nn.Module) or can(model, CountTrained):
        return
    with torch.no_grad():
        for tensor in twin.parameters():
            tensor.mul_(1.5).add_(0.01)
    assert_close(call(model, ids)[0], expected, "Changing the weights of a deep copy changes the model that was copied.")
    other = evaluating(type(model)(model.config))
    other.load_state_dict({name: tensor.clone() for name, tensor in twin.state_dict().items()})
    sentence = "A deep copy of the model does not compute with its own weights; a closure or attribute holds the original's."
    assert_close(call(twin, ids)[0], call(other, ids)[0], sentence)


def describe_state(state: Any, place: str = "state") -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return shape and dtype of each tensor or array of a state by its place, as in ``state[0][1]``."""
    if not isinstance(state, tuple):
        return {place: (tuple(state.shape), state.dtype)}
    return {key: value for n, part in enumerate(state) for key, value in describe_state(part, f"{place}[{n}]").items()}


def assert_same_state(actual: dict[str, Any], expected: dict[str, Any], when: str) -> None:
    """Raise AssertionError unless two descriptions of states agree."""
    assert actual.keys() == expected.keys(), (
        f"The state {when} has the tensors {', '.join(actual) or 'none'}; from initial_state it has "
        f"{', '.join(expected) or 'none'}."
    )
    for place, (shape, dtype) in actual.items():
        assert (shape, dtype) == expected[place], (
            f"{place} {when} has shape {shape} and dtype {dtype}; from initial_state it has {expected[place][0]} and "
            f"{expected[place][1]}. Both may depend on the batch size only, because rows of texts of any length are stacked: "
            "keep a window of fixed size."
        )


def _changes(model: Any, ids: Tensor, before: Tensor, t: int) -> Tensor:
    """Return by how much another token at t changes the logits at each position, (T,); differences below 1e-6 are 0."""
    changed = ids.clone()
    changed[:, t] = (changed[:, t] + 1) % model.config.vocab_size
    after, _ = call(model, changed)
    difference = torch.where(after == before, 0.0, (after.double() - before.double()).abs()).nan_to_num(nan=1.0)
    largest = difference.amax(dim=(0, 2))
    return torch.where(largest > 1e-6, largest, 0.0)


CONTEXT_LAWS: tuple[Callable[[Make], None], ...] = (fixed_state, long_text, aligned, deep_copy)
