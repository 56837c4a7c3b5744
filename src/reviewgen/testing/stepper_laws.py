"""The laws of the stepper contract in ``reviewgen.protocols``, one function each.

``make`` returns a new model in evaluation mode, with whose plain call the stepper is compared. ``factory`` is the
``StepperFactory`` that builds the stepper from the model's tensors; without one, the model's own ``stepper()`` is checked.
B batch, T time (tokens), V vocabulary.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reviewgen.protocols import CountTrained, Stepper, SupportsStep
from reviewgen.testing.context_laws import assert_same_state, describe_state
from reviewgen.testing.members import lacking
from reviewgen.testing.models import LOGITS, ROWS, assert_close, call, can, describe_error, some_ids, tensors
from reviewgen.testing.step_law import check_logits, check_samples, forward, select_rows

__all__ = [
    "STEPPER_LAWS",
    "batch_first",
    "check_stepper",
    "drift",
    "expected_tensors",
    "fixed_step_state",
    "own_weights",
    "samples",
    "stacked",
    "step_logits",
    "stepper_protocol",
    "without_torch",
]

Make = Callable[[], Any]
Law = Callable[[Make, Any], None]

CALLS = 500  # of one token each, for which a stepper must stay equal to its model
PROMPTS = 1, 3, 7  # tokens of the prompts whose states are stacked
_IMPORT = """
import importlib, sys, traceback
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            lines = [f for f in traceback.extract_stack()[:-1] if "importlib" not in f.filename and f.filename != "<string>"]
            print(f"{lines[-1].filename}, line {lines[-1].lineno}: {lines[-1].line}" if lines else "its own code")
            raise SystemExit(3)
sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
"""


def check_stepper(make: Make, factory: Any = None) -> None:
    """Check all laws in order, and stop at the first that the stepper breaks.

    Args:
        make: Returns a new model in evaluation mode; a count model must be trained.
        factory: The ``StepperFactory`` of the model's plugin; None checks the stepper that the model itself returns.

    Raises:
        AssertionError: A law is broken, or there is no stepper.
    """
    assert factory is not None or can(make(), SupportsStep), "The model has no method stepper; pass the factory of its stepper."
    for law in STEPPER_LAWS:
        law(make, factory)


def stepper_protocol(make: Make, factory: Any) -> None:
    """The stepper can be built, and has the methods of Stepper."""
    try:
        _, stepper = _build(make, factory)
    except Exception as error:
        raise AssertionError(f"The stepper cannot be built from the tensors of its model: {describe_error(error)}") from error
    assert stepper is None or isinstance(stepper, Stepper), (
        f"{type(stepper).__name__} lacks {lacking(stepper, Stepper)} of reviewgen.protocols.Stepper."
    )


def expected_tensors(make: Make, factory: Any) -> None:
    """``expect`` of a factory gives the name, dtype and shape of every tensor of ``state_dict``."""
    if factory is None:
        return
    model = make()
    expected = factory.expect(model.config)
    if expected is None:
        return
    actual = {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in model.state_dict().items()
    }
    missing, unknown = sorted(actual.keys() - expected.keys()), sorted(expected.keys() - actual.keys())
    assert not missing, f"expect does not name {', '.join(missing[:5])}, which state_dict of the model contains."
    assert not unknown, f"expect names {', '.join(unknown[:5])}, which state_dict of the model does not contain."
    for name, (dtype, shape) in expected.items():
        assert dtype == actual[name][0], f"expect gives {name} the dtype {dtype}; in state_dict it is {actual[name][0]}."
        fits = len(shape) == len(actual[name][1]) and all(a in (b, None) for a, b in zip(shape, actual[name][1], strict=True))
        assert fits, f"expect gives {name} the shape {tuple(shape)}; in state_dict it is {actual[name][1]}."


def batch_first(make: Make, factory: Any) -> None:
    """The state is a NumPy array or a nested tuple of arrays, with B first in each; logits have the shape (B, V)."""
    model, stepper = _build(make, factory)
    for batch in (1, ROWS) if stepper else ():
        start = stepper.initial_state(batch)
        logits, after = stepper.forward(some_ids(model, batch, 2).numpy(), start)
        for when, state in ("initial_state", start), ("the state after a call", after):
            for array in tensors(state):
                assert isinstance(array, np.ndarray), f"{when} must contain only arrays and tuples; got a {type(array).__name__}."
                assert array.shape[:1] == (batch,), (
                    f"{when} has an array of the shape {array.shape}; its first dimension must be B = {batch}."
                )
        expected = batch, model.config.vocab_size
        assert np.shape(logits) == expected, f"forward must return logits of the shape {expected}; got {np.shape(logits)}."


def fixed_step_state(make: Make, factory: Any) -> None:
    """Shapes and dtypes of the state depend on the batch size only: after any tokens they are those of ``initial_state``."""
    model, stepper = _build(make, factory)
    for batch in (1, ROWS) if stepper else ():
        expected = describe_state(stepper.initial_state(batch))
        for time in 1, 5, 40:
            _, after = stepper.forward(some_ids(model, batch, time).numpy(), stepper.initial_state(batch))
            assert_same_state(describe_state(after), expected, f"of the stepper after {time} tokens")


def step_logits(make: Make, factory: Any) -> None:
    """The stepper gives the logits of the model's call, in chunks of any sizes, row by row, and changes no state."""
    model, stepper = _build(make, factory)
    if stepper:
        check_logits(model, stepper)


def stacked(make: Make, factory: Any) -> None:
    """States of prompts of unequal lengths can be stacked into a batch, and rows selected and repeated, as when a beam splits."""
    model, stepper = _build(make, factory)
    if not stepper:
        return
    texts = [some_ids(model, 1, length + 1, seed=length) for length in PROMPTS]
    states = [forward(stepper, text[:, :-1], stepper.initial_state(1))[1] for text in texts]
    try:
        together = _stack(states)
    except ValueError as error:
        raise AssertionError(f"States after {PROMPTS} tokens cannot be stacked: {describe_error(error)}") from error
    for rows in [0, 1, 2], [2, 0, 0]:
        ids = torch.cat([texts[row][:, -1:] for row in rows])
        logits, _ = forward(stepper, ids, select_rows(together, np.array(rows)))
        expected = torch.cat([call(model, texts[row])[0][:, -1] for row in rows])
        sentence = (
            f"Stepped as one batch, texts of {[PROMPTS[row] for row in rows]} tokens get other logits than each alone; rows may "
            "share nothing, such as a position."
        )
        assert_close(logits, expected, sentence, (LOGITS[0], LOGITS[2]))


def drift(make: Make, factory: Any) -> None:
    """After 500 calls of one token, the stepper still gives the logits of the model's call."""
    model, stepper = _build(make, factory)
    if not stepper:
        return
    ids, state, steps = some_ids(model, 2, CALLS), stepper.initial_state(2), []
    for t in range(CALLS):
        try:
            logits, state = forward(stepper, ids[:, t : t + 1], state)
        except Exception as error:
            raise AssertionError(f"The stepper fails at call {t} of {CALLS}: {describe_error(error)}") from error
        steps.append(logits)
    sentence = f"Within {CALLS} calls of one token, the stepper drifts away from the model's call."
    assert_close(torch.stack(steps, dim=1), call(model, ids)[0], sentence)


def own_weights(make: Make, factory: Any) -> None:
    """Later changes to a model do not change the stepper that it returned."""
    model = make()
    if factory is not None or not isinstance(model, nn.Module) or isinstance(model, CountTrained):
        return
    stepper, ids = model.stepper(), some_ids(model, ROWS, 3)  # type: ignore[operator]  # a method of SupportsStep, not of nn.Module
    before, _ = forward(stepper, ids, stepper.initial_state(ROWS))
    before = before.clone()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.mul_(1.5).add_(0.01)
    after, _ = forward(stepper, ids, stepper.initial_state(ROWS))
    sentence = "Changing the model's weights changes a stepper made before; it must have a copy of them."
    assert_close(after, before, sentence, (LOGITS[0], LOGITS[2]))


def samples(make: Make, factory: Any) -> None:
    """SupportsSample: greedy samples have the largest logits, and a row depends on its own random numbers only."""
    model, stepper = _build(make, factory)
    if stepper:
        check_samples(model, stepper)


def without_torch(make: Make, factory: Any) -> None:
    """The module of a factory can be imported without torch, in a new process."""
    name = getattr(factory, "__module__", None)
    if factory is None or name is None or name == "__main__":
        return  # another process cannot import what a notebook defines
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    command = [sys.executable, "-P", "-c", _IMPORT, name]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode != 3, (
        f"The stepper's module {name} imports torch, in {done.stdout.strip()[-200:]}. Generation loads no torch: move what the "
        "model and its stepper share into a module without it."
    )
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    assert done.returncode == 0, f"The stepper's module {name} cannot be imported in a new process: {last[:200]}"


STEPPER_LAWS: tuple[Law, ...] = (
    stepper_protocol,
    expected_tensors,
    batch_first,
    fixed_step_state,
    step_logits,
    stacked,
    drift,
    own_weights,
    samples,
    without_torch,
)
"""All laws of a stepper, in the order in which to fix broken ones; each takes ``make`` and ``factory``."""


def _build(make: Make, factory: Any) -> tuple[Any, Any]:
    """Return a model and its stepper, which is None if generation with this config needs torch."""
    model = make()
    if factory is None:
        return model, model.stepper()
    if factory.expect(model.config) is None:
        return model, None
    return model, factory(model.config, {name: _array(tensor) for name, tensor in model.state_dict().items()})


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().contiguous().numpy().copy()
    return array


def _stack(states: list[Any]) -> Any:
    """Return the states of several texts as the state of one batch."""
    if isinstance(states[0], tuple):
        return tuple(_stack(list(parts)) for parts in zip(*states, strict=True))
    return np.concatenate(states)
