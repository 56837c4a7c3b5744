"""The laws of the stepper contract in ``reviewgen.protocols``, one function each.

A law is called with ``make`` and ``factory``. ``make`` returns a new model in evaluation mode; the
stepper must agree with a call of this model. ``factory`` is the ``StepperFactory`` that builds the
stepper from the model's tensors. If it is None, the model's own ``stepper()`` is checked. Below,
each law is written as a function of the stepper, the model and the factory. B batch, T time
(tokens), V vocabulary.
"""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reviewgen.compiled.sampling import NONE, SamplingParams
from reviewgen.generation.states import select_rows, stack_rows
from reviewgen.protocols.checks import (
    ROWS,
    STEPS,
    TOLERANCE,
    assert_close,
    asserting,
    call,
    logits_of,
    some_ids,
)
from reviewgen.protocols.model import SupportsStep, flatten_state
from reviewgen.protocols.stepper import Stepper, SupportsSample
from reviewgen.testing.installed import assert_members
from reviewgen.testing.laws import Laws, assert_unchanged, run_python
from reviewgen.testing.models import (
    assert_fixed_state,
    assert_no_trace,
    change_weights,
    copies,
    is_trained_by_gradient,
)

CALLS = 500  # calls of one token each, after which a stepper must still agree with its model
PROMPTS = (1, 3, 7)  # lengths in tokens of the prompts whose states are stacked
LENGTH = 80  # max number of tokens that are sampled for a text
NUMBERS = 1000  # number of random numbers for a text
# imports the module named by the argument, and fails if the module imports torch
_IMPORT = "import importlib, sys; sys.modules['torch'] = None; importlib.import_module(sys.argv[1])"


def _law_arguments(make: Callable[[], Any], factory: Any = None) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the arguments of the laws below, once: the stepper, the model and the factory. Yield
    nothing if a model with this config can generate only with torch.
    """
    model = make()
    if factory is None:
        yield model.stepper(), model, None
    elif factory.expect(model.config) is not None:
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in copies(model).items()}
        yield factory(model.config, tensors), model, factory


STEPPER_LAWS = Laws(_law_arguments)
"""All laws of a stepper, in the order in which to fix broken ones; each takes ``make`` and
``factory``.
"""
law = STEPPER_LAWS.law


def check_stepper(make: Callable[[], Any], factory: Any = None) -> None:
    """Check all laws in order, and stop at the first that the stepper breaks.

    Args:
        make: Returns a new model in evaluation mode; a count model must be trained.
        factory: The ``StepperFactory`` of the model's plugin; None checks the stepper that the
            model itself returns.

    Raises:
        AssertionError: A law is broken, or there is no stepper.
    """
    assert factory is not None or isinstance(make(), SupportsStep), (
        "The model has no method stepper; pass the factory of its stepper."
    )
    STEPPER_LAWS.check(make, factory)


@law()
def stepper_protocol(stepper: Any, model: Any, factory: Any) -> None:
    """The stepper can be built from the tensors of its model, and has the methods of Stepper."""
    assert_members(stepper, Stepper)


@law()
def expected_tensors(stepper: Any, model: Any, factory: Any) -> None:
    """``expect`` of a factory gives the name, dtype and shape of every tensor of ``state_dict``."""
    if factory is None:
        return
    expected = factory.expect(model.config)
    saved = model.state_dict()
    assert expected.keys() == saved.keys(), (
        f"It names {sorted(expected)}; the model has {sorted(saved)}."
    )
    for name, (dtype, shape) in expected.items():
        saved_dtype = str(saved[name].dtype).removeprefix("torch.")
        sizes = tuple(saved[name].shape)
        # the expected sizes, of which None may be any size
        completed = tuple(
            size if wanted is None else wanted
            for size, wanted in zip_longest(sizes, shape, fillvalue=-1)
        )
        assert completed == sizes and dtype == saved_dtype, (
            f"It gives {name} as {dtype} {tuple(shape)}; in state_dict it is {saved_dtype} {sizes}."
        )


@law()
def batch_first(stepper: Any, model: Any, factory: Any) -> None:
    """The state has only NumPy arrays and tuples, with B first in each array; logits have the shape
    (B, V).
    """
    for batch in 1, ROWS:
        start = stepper.initial_state(batch)
        logits, after = stepper.forward(some_ids(model, batch, 2).numpy(), start)
        for array in flatten_state((start, after)):
            assert isinstance(array, np.ndarray) and array.shape[:1] == (batch,), (
                f"B is {batch}; a part is {array!r:.80}."
            )
        expected = (batch, model.config.vocab_size)
        assert np.shape(logits) == expected, (
            f"Logits are {np.shape(logits)}, not (B, V) = {expected}."
        )


@law()
def fixed_step_state(stepper: Any, model: Any, factory: Any) -> None:
    """Shapes and dtypes of the state depend on the batch size only, since the states of texts of
    different lengths are stacked. A model that reads earlier tokens keeps a fixed number of them.
    """

    def read(batch: int, time: int) -> Any:
        """Return the state after ``time`` tokens."""
        ids = some_ids(model, batch, time)
        return forward(stepper, ids, stepper.initial_state(batch))[1]

    assert_fixed_state(stepper.initial_state, read)


@law()
def step_logits(stepper: Any, model: Any, factory: Any) -> None:
    """The stepper gives the logits of the model's call, in chunks of any sizes, row by row, and
    modifies no state.
    """
    ids = some_ids(model, ROWS, STEPS)
    whole = logits_of(model, ids)
    for sizes in [STEPS], [1] * STEPS, [1, 4, 7]:
        state = stepper.initial_state(ROWS)
        end = 0
        for chunk in torch.split(ids, sizes, dim=1):
            end += chunk.shape[1]
            with assert_unchanged(state):
                logits, after = forward(stepper, chunk, state)
            assert_close(
                logits,
                whole[:, end - 1],
                f"In chunks of {sizes} tokens, logits (B, V) differ after {end} tokens.",
            )
            state = after
    for row in range(ROWS):
        alone, _ = forward(stepper, ids[row : row + 1], stepper.initial_state(1))
        assert_close(
            alone[0], whole[row, -1], f"Row {row} alone gets different logits than in a batch."
        )


@law()
def stacked(stepper: Any, model: Any, factory: Any) -> None:
    """States of prompts of unequal lengths can be stacked into a batch, and rows selected and
    repeated, as when a beam splits.
    """
    texts = [some_ids(model, 1, length + 1, seed=length) for length in PROMPTS]
    states = [forward(stepper, text[:, :-1], stepper.initial_state(1))[1] for text in texts]
    together = stack_rows(states)
    for rows in [0, 1, 2], [2, 0, 0]:
        ids = torch.cat([texts[row][:, -1:] for row in rows])
        logits, _ = forward(stepper, ids, select_rows(together, rows))
        expected = torch.cat([logits_of(model, texts[row])[:, -1] for row in rows])
        lengths = [PROMPTS[row] for row in rows]
        sentence = f"Texts of {lengths} tokens get different logits than each alone."
        assert_close(logits, expected, sentence)


@law()
def drift(stepper: Any, model: Any, factory: Any) -> None:
    """After 500 calls of one token each, the stepper still gives the logits of one call of the
    model with all tokens.
    """
    ids = some_ids(model, 2, CALLS)
    state = stepper.initial_state(2)
    steps = []
    for t in range(CALLS):
        with asserting(f"It fails at call {t} of {CALLS}:"):
            logits, state = forward(stepper, ids[:, t : t + 1], state)
        steps.append(logits)
    assert_close(torch.stack(steps, dim=1), call(model, ids)[0])


@law()
def own_weights(stepper: Any, model: Any, factory: Any) -> None:
    """Changing the model's weights does not change a stepper made before; it must have a copy of
    them.
    """
    if factory is None and is_trained_by_gradient(model):
        ids = some_ids(model, ROWS, 3)
        before, _ = forward(stepper, ids, stepper.initial_state(ROWS))
        expected = before.clone()
        change_weights(model)
        actual, _ = forward(stepper, ids, stepper.initial_state(ROWS))
        assert_close(actual, expected)


@law(SupportsSample)
def samples(stepper: Any, model: Any, factory: Any) -> None:
    """SupportsSample: greedy samples have the largest logits, and a row depends on its own random
    numbers only.
    """
    size = model.config.vocab_size
    if size <= 2:
        return  # all ids are special
    ids = some_ids(model, ROWS, 2)
    for row, tokens in enumerate(_sample_texts(stepper, ids, size, NUMBERS // 2, is_greedy=True)):
        sampled = torch.from_numpy(tokens[:STEPS])  # (T,)
        assert (sampled > 1).all(), (
            f"sample returns {sampled}; bos (0) is never sampled, nor eos (1) within {STEPS}"
            " tokens."
        )
        # the logits from which each token was sampled, without bos and eos, (T, V-2)
        logits = logits_of(model, torch.cat((ids[row], sampled))[None])[0, 1:-1, 2:]
        taken = logits.gather(-1, sampled[:, None] - 2)[:, 0]
        assert (taken >= logits.amax(-1) - TOLERANCE).all(), (
            f"For greedy decoding sample returns {sampled}; each token must have the largest logit."
        )
    whole = _sample_texts(stepper, ids, size, NUMBERS // 2)
    for numbers in 32, 100:
        sentence = f"With {numbers} random numbers per call, sample returns another text."
        for actual, expected in zip(_sample_texts(stepper, ids, size, numbers), whole, strict=True):
            assert_close(actual, expected, sentence, 0)
    alone = _sample_texts(stepper, ids[:1], size, 32)[0]
    assert_close(alone, whole[0], "sample returns another text for row 0 alone.", 0)


@law()
def no_step_trace(stepper: Any, model: Any, factory: Any) -> None:
    """Generation leaves no trace: other texts, read or sampled before or in the same batch, do not
    change the logits and the greedy samples of a text.
    """
    size = model.config.vocab_size

    def read(ids: Tensor) -> dict[str, Any]:
        """Return the logits of the ids fed twice in a row, and what is sampled after them."""
        first, state = forward(stepper, ids, stepper.initial_state(len(ids)))
        second, _ = forward(stepper, ids, state)
        results: dict[str, Any] = {"logits": torch.cat((first, second), dim=1)}
        if isinstance(stepper, SupportsSample) and size > 2:  # smaller ids are special
            results["samples"] = _sample_texts(stepper, ids, size, NUMBERS // 2, is_greedy=True)
        return results

    assert_no_trace(model, read)


@law()
def without_torch(stepper: Any, model: Any, factory: Any) -> None:
    """The module of a factory can be imported in a new process, and imports no torch."""
    name = getattr(factory, "__module__", "__main__")
    if name != "__main__":  # another process cannot import what a notebook defines
        run_python(_IMPORT, name)


def forward(stepper: Any, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Return a stepper's logits as a tensor, and its state."""
    logits, after = stepper.forward(ids.numpy(), state)
    return torch.from_numpy(np.ascontiguousarray(logits)), after


def _sample_texts(
    stepper: Any, ids: Tensor, size: int, numbers: int, is_greedy: bool = False
) -> list[np.ndarray]:
    """Return the tokens that a stepper samples after each prompt of ids (B, T): LENGTH tokens, or
    fewer if the text ends. ``size`` is V.

    Id 0 is never sampled. Id 1 ends a text, but is not sampled before the text has STEPS tokens.
    The random numbers of a row are always the same. Each call of ``sample`` gets ``numbers`` of
    them; unused ones are passed to the next call.
    """
    random_numbers = np.random.default_rng(0).random((len(ids), NUMBERS))
    # temperature 1, no filters, STEPS as the min and no max of new tokens, eos 1 and bos 0
    params = SamplingParams(np.ones(1), 0, 1.0, 0.0, 1.0, 0, STEPS, 1 << 40, is_greedy, 1, 0, size)
    _, state = forward(stepper, ids, stepper.initial_state(len(ids)))
    texts = [np.empty(0, np.int64)] * len(ids)
    used = np.zeros(len(ids), np.int64)  # number of random numbers that each row has used
    live = np.arange(len(ids))  # rows that are not finished
    while len(live):
        # the next ``numbers`` unused random numbers of each live row, or the last ones if there are
        # not as many, (live rows, numbers)
        starts = np.minimum(used[live], NUMBERS - numbers)
        passed = random_numbers[live[:, None], starts[:, None] + np.arange(numbers)]
        lengths = np.array([len(texts[row]) for row in live])
        tokens, consumed, state = stepper.sample(
            state, passed, params, ids[live, :0].numpy(), lengths
        )
        assert (consumed > 0).all(), (
            f"sample uses none of {numbers} random numbers per row; it must sample at least one"
            " token."
        )
        used[live] += consumed
        for row, sampled in zip(live, tokens, strict=True):
            texts[row] = np.append(texts[row], sampled[sampled != NONE])
        unfinished = [
            index
            for index, row in enumerate(live)
            if len(texts[row]) < LENGTH and (texts[row] > 1).all()
        ]
        state = select_rows(state, unfinished)
        live = live[unfinished]
    return [text[:LENGTH] for text in texts]
