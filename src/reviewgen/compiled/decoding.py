"""The loop that samples many tokens for many texts, with the compiled step of any model. Knows
neither a model nor a tokenizer.

B texts, N random numbers of a text, K tokens looked back at, V vocabulary, V64 at least as much.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from reviewgen.compiled.jit import compiled, inner
from reviewgen.compiled.sampling import (
    NONE,
    Constraints,
    SamplingParams,
    choose,
    compiled_constraints,
)
from reviewgen.compiled.steps import CompiledStep, call_step

LOGITS_MULTIPLE = 64


def logits_width(vocab_size: int) -> int:
    """Return the vocabulary size rounded up to a multiple of 64: the width of the logits that a
    step writes.
    """
    return -(-vocab_size // LOGITS_MULTIPLE) * LOGITS_MULTIPLE


def sample(
    stepper: Any,
    vocab_size: int,
    state: Any,
    uniform: Float64[np.ndarray, "B N"],
    params: SamplingParams,
    texts: Int64[np.ndarray, "B K"],
    new_tokens: Int64[np.ndarray, " B"],
    constraints: Constraints | None = None,
) -> tuple[Int64[np.ndarray, "B N"], Int64[np.ndarray, " B"], Any]:
    """Sample up to N tokens for each text; see ``reviewgen.protocols.SupportsSample``.

    A text stops where no random number is left. It does not depend on the other texts, bit for bit.

    Args:
        stepper: A stepper with a compiled step, as in ``reviewgen.protocols.SupportsCompiledStep``.
        vocab_size: The number of ids, V.
        state, uniform, params, texts, new_tokens, constraints: As in ``SupportsSample``.

    Returns:
        The tokens, how many random numbers each text used, and the state after the tokens.
    """
    floats, ints = stepper.state_arrays(state)
    count, start = texts.shape
    whole = np.full((count, start + uniform.shape[1]), NONE, np.int64)
    whole[:, :start] = texts
    sampled = np.zeros(count, np.int64)
    used = np.zeros(count, np.int64)
    rows = np.arange(count)
    windows, run, spelling, places = compiled_constraints(params, constraints, count)
    step: CompiledStep = stepper.compiled_step
    _generate(
        step.function,
        step.weights,
        floats,
        ints,
        np.zeros((count, logits_width(vocab_size)), np.float32),
        rows,
        np.empty(count, np.int64),
        whole,
        start,
        sampled,
        np.ascontiguousarray(new_tokens),
        np.ascontiguousarray(uniform),
        used,
        params,
        windows,
        run,
        spelling,
        places,
        np.empty(vocab_size),
        np.empty(vocab_size),
    )
    order = np.argsort(rows)
    return whole[:, start:], used, stepper.state_of(floats[:, order], ints[:, order])


def feed(
    stepper: Any, vocab_size: int, ids: Int64[np.ndarray, "B T"], state: Any
) -> tuple[Float32[np.ndarray, "B V"], Any]:
    """Return the logits after T >= 1 tokens, and the state after them, by one step for each token.

    A stepper with a compiled step can use it as its ``forward``: then there is nothing more to
    compile. Unless the stepper is a ``CompiledStepper``, all logits after each token are computed,
    so for long texts a forward of its own is faster.
    """
    floats, ints = stepper.state_arrays(state)
    logits = np.zeros((len(ids), logits_width(vocab_size)), np.float32)
    step: CompiledStep = stepper.compiled_step
    before = logits[:0] if isinstance(stepper, CompiledStepper) else logits
    _feed(step.function, step.weights, np.ascontiguousarray(ids.T), floats, ints, before, logits)
    return np.ascontiguousarray(logits[:, :vocab_size]), stepper.state_of(floats, ints)


class CompiledStepper:
    """Base class of a stepper that feeds and samples with its compiled step.

    A subclass has a ``config``, whose ``vocab_size`` is V, and is a
    ``reviewgen.protocols.SupportsCompiledStep``. Of a text that is fed, only the last logits count:
    given ``logits`` without rows, (0, V64), its step updates the state and writes none.
    """

    config: Any

    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: Any
    ) -> tuple[Float32[np.ndarray, "B V"], Any]:
        """Return the logits after the last of T >= 1 tokens, and the state after it."""
        return feed(self, self.config.vocab_size, ids, state)

    def sample(
        self,
        state: Any,
        uniform: Float64[np.ndarray, "B N"],
        params: SamplingParams,
        texts: Int64[np.ndarray, "B K"],
        new_tokens: Int64[np.ndarray, " B"],
        constraints: Constraints | None = None,
    ) -> tuple[Int64[np.ndarray, "B N"], Int64[np.ndarray, " B"], Any]:
        """Sample up to N tokens a row in one compiled loop; see
        ``reviewgen.protocols.SupportsSample``.
        """
        return sample(
            self, self.config.vocab_size, state, uniform, params, texts, new_tokens, constraints
        )


@compiled
def _feed(function, weights, tokens, floats, ints, before, logits):
    """Feed tokens, int64 (T, B), to B texts by the step at an address; the logits of the last go to
    ``logits``.
    """
    last = len(tokens) - 1
    for t in range(last):
        call_step(function, weights, tokens[t], floats, ints, before)
    call_step(function, weights, tokens[last], floats, ints, logits)


@compiled
def _generate(
    function,
    weights,
    floats,
    ints,
    logits,
    rows,
    ids,
    texts,
    start,
    sampled,
    new_tokens,
    uniform,
    used,
    params,
    windows,
    run,
    spelling,
    places,
    scores,
    probs,
):
    """Sample tokens for B texts until each has ended or has no random number left.

    The first ``live`` slots hold the texts that have not ended: the last of them changes places
    with one that ends.

    Args:
        function, weights: The addresses of a step.
        floats, ints: The state; updated, and that of text ``rows[slot]`` in each slot.
        logits: float32 (B, V64), scratch memory.
        rows: int64 (B,), the text in each slot; 0 to B-1 at first.
        ids: int64 (B,), scratch memory: the token to feed to each slot, or NONE where the text has
            no next one.
        texts: int64 (B, start + N), of which ``start`` tokens were there before; the new tokens are
            written.
        sampled: int64 (B,), how many tokens were sampled; updated.
        new_tokens: int64 (B,), how many new tokens there were before.
        uniform: float64 (B, N), random numbers in [0, 1).
        used: int64 (B,), how many of them were used; updated.
        places: int64 (B, 3), the ``place`` of each text; updated.
        params, windows, run, spelling, scores, probs: As in ``choose``.
    """
    live = len(rows)
    call_step(function, weights, ids[:0], floats, ints, logits)
    while live > 0:
        for slot in range(live):
            row = rows[slot]
            number = used[row]
            size = start + sampled[row]
            count = new_tokens[row] + sampled[row]
            ids[slot] = NONE
            if number >= uniform.shape[1] or count >= params.max_new_tokens:
                continue
            random = uniform[row, number]
            token = choose(
                logits[slot],
                params,
                texts[row],
                size,
                count,
                random,
                windows,
                run,
                spelling,
                places[row],
                scores,
                probs,
                False,
            )
            texts[row, size] = token
            sampled[row] += 1
            used[row] += 1
            if token >= 0 and token != params.eos_id and count + 1 < params.max_new_tokens:
                ids[slot] = token
        live = _retire(rows, ids, live, floats, ints)
        if live > 0:
            call_step(function, weights, ids[:live], floats, ints, logits[:live])


@inner
def _retire(rows, ids, live, floats, ints):
    """Let texts without a next token change places with the last live ones, and return the new
    ``live``.
    """
    slot = 0
    while slot < live:
        if ids[slot] >= 0:
            slot += 1
            continue
        live -= 1
        for part in range(len(floats)):
            for j in range(floats.shape[2]):
                value = floats[part, live, j]
                floats[part, live, j] = floats[part, slot, j]
                floats[part, slot, j] = value
        for part in range(len(ints)):
            number = ints[part, live]
            ints[part, live] = ints[part, slot]
            ints[part, slot] = number
        rows[slot], rows[live] = rows[live], rows[slot]
        ids[slot], ids[live] = ids[live], ids[slot]
    return live
