"""The loop that samples many tokens for many texts. It runs the compiled step of any model. Knows
neither a model nor a tokenizer.

Shapes: B texts, T tokens, N random numbers of a text, K last tokens that penalties and constraints
look at, V vocabulary, V64 at least V; S and W as in ``reviewgen.compiled.steps``.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

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
    """Return the width of the logits that a step writes: the vocabulary size, rounded up to a
    multiple of 64.
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

    A text stops when it has used its random numbers. Its tokens are the same whatever the other
    texts are.

    Args:
        stepper: A stepper with a compiled step, as in ``reviewgen.protocols.SupportsCompiledStep``.
        vocab_size: The number of ids, V.
        state, uniform, params, texts, new_tokens, constraints: As in ``SupportsSample``.

    Returns:
        The tokens, how many random numbers each text used, and the state after the tokens.
    """
    floats, ints = stepper.state_arrays(state)
    count, start = texts.shape
    # the texts, with room for the new tokens
    extended = np.full((count, start + uniform.shape[1]), NONE, np.int64)
    extended[:, :start] = texts
    sampled = np.zeros(count, np.int64)
    used = np.zeros(count, np.int64)
    rows = np.arange(count)  # the text in each slot of the loop
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
        extended,
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
    order = np.argsort(rows)  # undoes the swaps of the loop
    return extended[:, start:], used, stepper.state_of(floats[:, order], ints[:, order])


def feed(
    stepper: Any,
    vocab_size: int,
    ids: Int64[np.ndarray, "B T"],
    state: Any,
    expert: Float[np.ndarray, "B T V"] | None = None,
) -> tuple[Float32[np.ndarray, "B V"], Any]:
    """Feed T >= 1 tokens to each text, one step for each token. Return the logits after the last
    token and the state after it.

    A stepper with a compiled step can use this function as its ``forward``; then nothing else has
    to be compiled. If the stepper is not a ``CompiledStepper``, its step also computes the logits
    after every earlier token. For long texts, a ``forward`` of its own is then faster.

    Args:
        stepper, vocab_size: As in ``sample``.
        ids: The tokens.
        state: The state before them.
        expert: The expert's logits after each token, for the step of a
            ``reviewgen.protocols.SupportsExpertForward``; None for other steppers.
    """
    floats, ints = stepper.state_arrays(state)
    logits = np.zeros((len(ids), logits_width(vocab_size)), np.float32)
    step: CompiledStep = stepper.compiled_step
    tokens = np.ascontiguousarray(ids.T)  # (T, B)
    if expert is None:
        early_logits = np.zeros_like(logits) if needs_early_logits(stepper) else logits[:0]
        _feed(step.function, step.weights, tokens, floats, ints, early_logits, logits)
    else:
        for t in range(len(tokens)):
            logits[:, :vocab_size] = expert[:, t]
            _feed(step.function, step.weights, tokens[t : t + 1], floats, ints, logits, logits)
    return np.ascontiguousarray(logits[:, :vocab_size]), stepper.state_of(floats, ints)


def needs_early_logits(stepper: Any) -> bool:
    """Return whether the step of a stepper needs a full ``logits`` array after every token."""
    return not isinstance(stepper, CompiledStepper) or stepper.needs_early_logits


class CompiledStepper:
    """Base class of a stepper that feeds and samples with its compiled step.

    A subclass has a ``config`` with ``vocab_size``, V, and is a
    ``reviewgen.protocols.SupportsCompiledStep``. When a text is fed, only the logits after its last
    token are needed. For the tokens before it, the step gets an empty ``logits`` array, (0, V64);
    it must then update the state and write no logits. If ``needs_early_logits``, it gets a full
    array after every token.
    """

    config: Any

    @property
    def needs_early_logits(self) -> bool:
        """Whether the step needs a full ``logits`` array after every token. This is so if
        ``config.expert`` is True, since the step then reads an expert's logits from it.
        """
        return getattr(self.config, "expert", False) is True

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
        """Sample up to N tokens for each text in one compiled loop; see
        ``reviewgen.protocols.SupportsSample``.
        """
        return sample(
            self, self.config.vocab_size, state, uniform, params, texts, new_tokens, constraints
        )


@compiled
def _feed(function, weights, tokens, floats, ints, early_logits, logits):
    """Feed tokens, int64 (T, B), to B texts. Write the logits after the last token.

    Args:
        function, weights: The addresses of a step.
        tokens: The tokens.
        floats, ints: The state; updated.
        early_logits: The array that the step gets as ``logits`` for all tokens but the last:
            float32 (B, V64), or (0, V64) if the step does not need it.
        logits: float32 (B, V64); written.
    """
    last = len(tokens) - 1
    for t in range(last):
        call_step(function, weights, tokens[t], floats, ints, early_logits)
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
    """Sample tokens for B texts until each text has ended or has used its random numbers.

    A slot is a row of the state and of the logits. The first ``live`` slots hold the texts that
    have not ended. A text that ends changes places with the last of these.

    Args:
        function, weights: The addresses of a step.
        floats, ints: The state; updated. Slot ``slot`` holds the state of text ``rows[slot]``.
        logits: float32 (B, V64), scratch memory.
        rows: int64 (B,), the text in each slot; 0 to B-1 at first; updated.
        ids: int64 (B,), scratch memory: the token to feed to each slot, or NONE if the text gets no
            further token.
        texts: int64 (B, start + N). The first ``start`` tokens of each text are there already; the
            new tokens are written after them.
        start: The number of tokens that are there already.
        sampled: int64 (B,), how many tokens were sampled; updated.
        new_tokens: int64 (B,), how many new tokens each text had before the call.
        uniform: float64 (B, N), random numbers in [0, 1).
        used: int64 (B,), how many random numbers were used; updated.
        places: int64 (B, 5), the ``place`` of each text in the spelling; updated.
        params, windows, run, spelling, scores, probs: As in ``choose``.
    """
    live = len(rows)
    call_step(function, weights, ids[:0], floats, ints, logits)
    while live > 0:
        for slot in range(live):
            row = rows[slot]
            size = start + sampled[row]
            # the number of new tokens, of this call and of those before
            new_count = new_tokens[row] + sampled[row]
            ids[slot] = NONE
            if used[row] >= uniform.shape[1] or new_count >= params.max_new_tokens:
                continue
            token = choose(
                logits[slot],
                params,
                texts[row],
                size,
                new_count,
                uniform[row, used[row]],
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
            if token >= 0 and token != params.eos_id and new_count + 1 < params.max_new_tokens:
                ids[slot] = token
        live = _retire(rows, ids, live, floats, ints)
        if live > 0:
            call_step(function, weights, ids[:live], floats, ints, logits[:live])


@inner
def _retire(rows, ids, live, floats, ints):
    """Let each of the first ``live`` slots whose text has no next token change places with the last
    of them. Return the new number of live texts. The arguments are those of ``_generate``.
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
            ints[part, slot], ints[part, live] = ints[part, live], ints[part, slot]
        rows[slot], rows[live] = rows[live], rows[slot]
        ids[slot], ids[live] = ids[live], ids[slot]
    return live
