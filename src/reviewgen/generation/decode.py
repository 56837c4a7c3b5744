"""The decoding loop: rows with prompts in, finished rows out, many at once.

Every row has its own random stream, seeded from the seed and the row's number, so a text does not depend on which others are
generated with it. Global random state is never touched. Any Stepper works, token by token; one that
``SupportsSample`` samples blocks of tokens in its own loop once the prompt is complete. ``reviewgen.compiled.sampling`` samples
a token from logits; ``stopping`` decides where a text ends.

With a CopyGuard no token may complete a copied span, and with a Spelling a token may only continue or end a known word. A token
that is forbidden is sampled again from those that are not. If none is left, or only eos after a copied span, a row with a
CopyGuard goes back a few tokens, twice as many each time, and continues differently; after ``MAX_RETRIES`` of these it takes the
forbidden token, and sets ``exceeds_limit`` if that completes a copied span. Without a CopyGuard it takes the token at once.

B rows, V vocabulary, K tokens looked back at, N random numbers a row.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int64

from reviewgen.compiled.sampling import (
    DEAD_END,
    NOT_A_NUMBER,
    NOTHING_LEFT,
    Constraints,
    SamplingParams,
    apply_penalties,
    compiled_constraints,
    sample_rows,
)
from reviewgen.compiled.spelling import Spelling, follow_all, mark_spelled, no_places, start_of_text
from reviewgen.compiled.windows import copies
from reviewgen.config import GenerationConfig
from reviewgen.errors import GenerationError
from reviewgen.generation.hooks import Hooks
from reviewgen.generation.prompts import Pieces
from reviewgen.generation.rows import Row, select_rows, stack_rows
from reviewgen.generation.stopping import Stopping
from reviewgen.novelty import CopyGuard
from reviewgen.protocols import Stepper, StepState, SupportsSample, Tokenizer

MAX_RETRIES = 12  # of a row at dead ends
_MIN_BLOCK, _FIRST_BLOCK, _MAX_BLOCK = 32, 64, 4096  # random numbers a row for a stepper's own loop
_BLOCK_SECONDS = 0.2  # that a block should take, so that an interrupt and a time limit are noticed


def make_sampling_params(config: GenerationConfig, tokenizer: Tokenizer) -> SamplingParams:
    """Return the sampling settings of a call in the form that compiled functions take."""
    int64_max = np.iinfo(np.int64).max
    return SamplingParams(
        temperatures=np.array(config.temperatures, np.float64),
        top_k=config.top_k if config.top_k < tokenizer.vocab_size else 0,
        top_p=float(config.top_p),
        min_p=float(config.min_p),
        repetition_penalty=float(config.repetition_penalty),
        no_repeat_ngram_size=min(config.no_repeat_ngram_size, int64_max),
        min_new_tokens=min(config.min_new_tokens, int64_max),
        max_new_tokens=min(config.max_new_tokens, int64_max),
        is_greedy=config.do_sample is False,
        eos_id=tokenizer.eos_id,
        bos_id=tokenizer.bos_id,
        vocab_size=tokenizer.vocab_size,
    )


def reachable_guard(guard: CopyGuard | None, rows: Sequence[Row], max_new_tokens: int) -> CopyGuard | None:
    """Return a guard, or None if no text can become long enough to complete a span that it forbids."""
    if guard is None:
        return None
    longest = max_new_tokens + max((len(row.ids) + len(row.rest) for row in rows), default=0)
    return None if guard[0].length + guard[1] - 1 > longest else guard


@dataclass(frozen=True)
class Decoder:
    """The decoding loop of one call.

    Attributes:
        stepper: Predicts the next token.
        tokenizer, pieces: The tokenizer, and the texts of its single tokens.
        config: The generation settings.
        guard: The copied spans that must not be completed.
        spelling: The words and characters that texts are made of; None for any.
        hooks: Objects that are called at every token.
        deadline: The ``time.monotonic`` at which all rows end where they are.
        block_seconds: About how long a block of a stepper's own loop should take.
    """

    stepper: Stepper
    tokenizer: Tokenizer
    pieces: Pieces
    config: GenerationConfig
    guard: CopyGuard | None = None
    spelling: Spelling | None = None
    hooks: Hooks | None = None
    deadline: float | None = None
    block_seconds: float = _BLOCK_SECONDS

    @cached_property
    def params(self) -> SamplingParams:
        """The sampling settings for compiled functions."""
        return make_sampling_params(self.config, self.tokenizer)

    @cached_property
    def _places(self) -> dict[tuple[int, ...], Int64[np.ndarray, "3"]]:
        """The place after each of some texts: most rows have the same prompt."""
        return {}

    @cached_property
    def stopping(self) -> Stopping:
        """The rules that decide where a text ends."""
        return Stopping(self.tokenizer, self.pieces, self.config)

    def decode(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Extend the rows until each is finished; yield those that got tokens, after every step.

        Raises:
            GenerationError: The logits are NaN or infinite, or a logits processor rules out every token.
        """
        started = time.monotonic()
        if self.config.max_new_tokens == 0:
            self.finish_unextended(rows)
        if self.hooks is not None:
            self.hooks.begin(rows, self.tokenizer)
        pending = [row for row in rows if row.finish_reason is None]
        while pending:
            past_prompt: list[tuple[Row, StepState]] = []
            for stepped in self._decode_tokens(pending, past_prompt):
                yield _stamped(stepped, started)
            live, size = [row for row, _ in past_prompt], _FIRST_BLOCK if self.deadline is None else _MIN_BLOCK
            state = stack_rows([part for _, part in past_prompt]) if live else None
            while live and not self.is_over(live):
                block_started = time.monotonic()
                tokens, state = self.sample_block(live, state, size, self.params)
                continuing = [number for number, row in enumerate(live) if self.append_block(row, tokens[number].tolist())]
                yield _stamped(live, started)
                live, state = [live[number] for number in continuing], select_rows(state, continuing)
                ratio = self.block_seconds / max(time.monotonic() - block_started, 1e-9)
                size = int(min(max(size * min(2.0, ratio), _MIN_BLOCK), _MAX_BLOCK))
            if live:
                yield _stamped(live, started)
            pending = [row for row in pending if row.finish_reason is None]
            for row in pending:
                self.go_back(row)
        if self.hooks is not None:
            self.hooks.end()

    def finish_unextended(self, rows: Sequence[Row]) -> None:
        """Finish rows that get no new token: each is its prompt."""
        for row in rows:
            row.ids += self.tokenizer.encode(row.rest)
            row.text, row.rest, row.finish_reason = row.prompt, "", "length"

    def go_back(self, row: Row) -> None:
        """Remove the last tokens of a row at a dead end, so that it can continue differently.

        Without a copy limit it takes a token of an unknown word at once: what was streamed cannot be removed.
        """
        if self.guard is None:
            row.retries = MAX_RETRIES
            return
        row.retries += 1
        removed = min(1 << row.retries, len(row.ids) - row.prompt_tokens)
        if removed:
            del row.ids[-removed:]
            row.new_tokens -= removed
            row.place = None

    def is_over(self, rows: Sequence[Row]) -> bool:
        """Finish all rows where they are once the deadline has passed; return whether it has."""
        if self.deadline is None or time.monotonic() < self.deadline:
            return False
        for row in rows:
            self.stopping.finish(row, "time")
        return True

    def _decode_tokens(self, rows: list[Row], past_prompt: list[tuple[Row, StepState]]) -> Iterator[list[Row]]:
        """Extend rows token by token until each is finished or at a dead end.

        Rows that can continue in the stepper's own loop are moved to ``past_prompt``, each with its state.
        """
        logits, state = self._prefill(rows)
        live = list(rows)
        while live:
            if self.has_blocks:
                ready = {number for number, row in enumerate(live) if self.is_ready(row)}
                past_prompt += [(live[number], select_rows(state, [number])) for number in sorted(ready)]
                live, logits, state = _keep(live, logits, state, set(range(len(live))) - ready)
                if not live:
                    break
            continuing = self.step(live, logits)
            yield live
            live, _, state = _keep(live, logits, state, continuing)
            if live and self.is_over(live):
                yield live
                live = []
            if live:
                logits, state = self.stepper.forward(np.array([[row.ids[-1]] for row in live], np.int64), state)

    @cached_property
    def has_blocks(self) -> bool:
        """Whether the stepper samples rows in its own loop once they are past the prompt."""
        return isinstance(self.stepper, SupportsSample) and self.hooks is None

    def is_ready(self, row: Row) -> bool:
        """Return whether the next tokens of a row may be sampled in the stepper's own loop, if it has one."""
        return row.is_past_prompt and row.retries < MAX_RETRIES

    def sample_block(
        self, rows: Sequence[Row], state: StepState, size: int, params: SamplingParams
    ) -> tuple[Int64[np.ndarray, "B N"], StepState]:
        """Let the stepper sample up to N tokens for each row, in its own loop; return them, and the state after them.

        The rows' random numbers are used up, and their places are moved on; the tokens are not appended.

        Args:
            rows: Rows that are ready.
            state: The state after their last tokens.
            size: The random numbers for each row, N; of fewer than 32, none may be enough for a token.
            params: The sampling settings.
        """
        assert isinstance(self.stepper, SupportsSample)
        uniform = np.stack([row.peek_random(size) for row in rows])
        new_tokens = np.array([row.new_tokens for row in rows], np.int64)
        constraints = self._constraints(rows)
        tokens, used, state = self.stepper.sample(state, uniform, params, self._tails(rows), new_tokens, constraints)
        for row, count, place in zip(rows, used.tolist(), constraints.places, strict=True):
            row.use_random(count)
            row.place = place
        return tokens, state

    def _prefill(self, rows: Sequence[Row]) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Feed each distinct prompt once and return the logits (B, V) after it, and the state."""
        done: dict[tuple[int, ...], tuple[np.ndarray, StepState]] = {}
        keys: list[tuple[int, ...]] = [(*row.prefix, *row.ids) for row in rows]
        for key in keys:
            if key not in done:
                done[key] = self.stepper.forward(np.array([key], np.int64), self.stepper.initial_state(1))
        return np.concatenate([done[key][0] for key in keys]), stack_rows([done[key][1] for key in keys])

    def step(self, live: list[Row], logits: Float[np.ndarray, "B V"]) -> set[int]:
        """Give every row a token; return the indices of those that continue."""
        table, params = self._mask_and_process(live, logits)
        texts = np.pad(self._tails(live), ((0, 0), (0, 1)))  # room for a token
        runs = np.array([self.guard[1] if self.guard and row.is_past_prompt else 0 for row in live], np.int64)
        constraints = self._constraints(live)
        constraints.places[[not row.is_past_prompt for row in live]] = no_places(1)
        tokens = self._sample(live, table, texts, runs, params, constraints)
        continuing = set()
        for number, row in enumerate(live):
            token = int(tokens[number])
            if token == NOTHING_LEFT and row.rest:  # penalties rule out every match: use the tokenizer's tokens
                row.forced, row.rest = self.tokenizer.encode(row.rest), ""
            elif token == DEAD_END and row.retries >= MAX_RETRIES:
                one = slice(number, number + 1)
                token = self._sample_forbidden(row, table[one], texts[one], runs[one], params)
            elif token >= 0 and self.guard is not None and not row.is_past_prompt:
                token = self._guard_prompt_end(row, token, table[number : number + 1], texts[number : number + 1], params)
            if self.guard is None and token >= 0:
                row.retries = 0
            if self._append(row, token, table[number]):
                continuing.add(number)
        return continuing

    def _sample(
        self,
        rows: list[Row],
        table: Float[np.ndarray, "B V"],
        texts: Int64[np.ndarray, "B K"],
        runs: Int64[np.ndarray, " B"],
        params: SamplingParams,
        constraints: Constraints,
    ) -> Int64[np.ndarray, " B"]:
        """Return each row's token, or the code of why it has none."""
        tokens = np.empty(len(rows), np.int64)
        uniform = np.array([row.peek_random(1)[0] for row in rows])
        sizes = np.full(len(rows), texts.shape[1] - 1)
        new_tokens = np.array([row.new_tokens for row in rows], np.int64)
        windows, _, spelling, places = compiled_constraints(params, constraints, len(rows))
        sample_rows(table, texts, sizes, new_tokens, uniform, params, windows, runs, spelling, places, tokens)
        for row in rows:
            row.use_random(1)
        return tokens

    def _sample_forbidden(
        self,
        row: Row,
        table: Float[np.ndarray, "1 V"],
        text: Int64[np.ndarray, "1 K"],
        run: Int64[np.ndarray, "1"],
        params: SamplingParams,
    ) -> int:
        """Return a token for a row of which all tokens are forbidden: one of an unknown word, or else one of a copied span."""
        anywhere = self._constraints([row])._replace(places=no_places(1))
        token = int(self._sample([row], table, text, run, params, anywhere)[0])
        if token == DEAD_END:
            row.exceeds_limit = True
            token = int(self._sample([row], table, text, np.zeros(1, np.int64), params, anywhere)[0])
        return token

    def _constraints(self, rows: Sequence[Row]) -> Constraints:
        """Return what the texts of some rows must not contain, with the places where they are now."""
        windows, run = self.guard or (None, 0)
        places = no_places(len(rows)) if self.spelling is None else np.stack([self.place(row) for row in rows])
        return Constraints(windows, run, self.spelling, places)

    def place(self, row: Row) -> Int64[np.ndarray, "3"]:
        """Return the place of a row among the known words."""
        assert self.spelling is not None
        if row.place is None:
            ids = tuple(row.ids)
            if ids not in self._places:
                self._places[ids] = start_of_text(self.spelling)
                follow_all(self.spelling, self._places[ids], ids)
            row.place = self._places[ids]
        return row.place

    def spelled(self, row: Row) -> Bool[np.ndarray, " V"]:
        """Return a mask of the tokens that continue or end a known word of a row."""
        if self.spelling is None:
            return np.ones(self.params.vocab_size, np.bool_)
        return mark_spelled(self.spelling, self.place(row), self.params.eos_id)

    def append(self, row: Row, token: int) -> None:
        """Append a token to the ids of a row."""
        if self.spelling is not None:
            row.place = self.place(row).copy()
            follow_all(self.spelling, row.place, [token])
        row.ids.append(token)

    def _mask_and_process(
        self, rows: list[Row], logits: Float[np.ndarray, "B V"]
    ) -> tuple[Float[np.ndarray, "B V"], SamplingParams]:
        """Rule out what does not match the rest of a prompt, and apply the logits processors."""
        params, size = self.params, self.params.vocab_size
        if self.hooks is None and all(row.is_past_prompt for row in rows):
            return logits, params
        table = logits.astype(np.float64)
        table[:, size:] = -np.inf
        for number, row in enumerate(rows):
            if row.rest:
                allowed = self.pieces.matches(row.rest) & (table[number, :size] > -np.inf)
                if (known := allowed & self.spelled(row)).any():
                    allowed = known
                if allowed.any():
                    table[number, :size][~allowed] = -np.inf
                else:  # no match has a probability: use the tokenizer's tokens
                    row.forced, row.rest = self.tokenizer.encode(row.rest), ""
            elif self.hooks is not None and not row.forced:
                scores = np.empty(table.shape[1])
                text = np.array([*row.prefix, *row.ids], np.int64)
                apply_penalties(table[number], text, len(text), row.new_tokens, params, scores)
                table[number] = self.hooks.process(text.tolist(), scores)
        if self.hooks is not None:  # the penalties are applied already
            params = params._replace(repetition_penalty=1.0, no_repeat_ngram_size=0, min_new_tokens=0)
        return table, params

    def _guard_prompt_end(
        self, row: Row, token: int, table: Float[np.ndarray, "1 V"], text: Int64[np.ndarray, "1 K"], params: SamplingParams
    ) -> int:
        """Return the token that runs on from the prompt, or another one if it would complete a copied span."""
        if row.forced or token == self.tokenizer.eos_id or 0 < len(self.pieces.texts[token]) <= len(row.rest):
            return token  # the prompt, and no more
        assert self.guard is not None
        windows, run = self.guard
        text[0, -1] = token
        if not copies(windows, text[0], text.shape[1] - 1, run):
            return token
        anywhere = self._constraints([row])._replace(places=no_places(1))
        other = int(self._sample([row], table, text, np.full(1, run), params, anywhere)[0])
        row.exceeds_limit |= other == DEAD_END
        return token if other == DEAD_END else other

    def _append(self, row: Row, token: int, scores: Float[np.ndarray, " V"]) -> bool:
        """Append a token to a row, and finish the row if it ends there; return whether it continues."""
        if row.forced:
            self.append(row, row.forced.pop(0))
            row.prompt_tokens = len(row.ids)
            return True
        if token < 0:
            self._finish_without_token(row, token)
            return False
        if token == self.tokenizer.eos_id:
            self.stopping.finish(row, "end")
            return False
        rest, piece = row.rest, self.pieces.texts[token]
        self.append(row, token)
        row.new_tokens += len(piece) > len(row.rest) or not row.rest
        row.rest = row.rest[len(piece) :]
        if rest:
            row.prompt_tokens = len(row.ids)
        if self.hooks is not None:
            self.hooks.put(self.tokenizer.encode(piece[len(rest) :]) if rest else [token])  # the prompt was put as a whole
            if row.new_tokens and self.hooks.should_stop(row, scores.astype(np.float64)):
                self.stopping.finish(row, "criteria")
        return row.finish_reason is None and (bool(row.rest) or not self.stopping.check(row, 1))

    def append_block(self, row: Row, sampled: Sequence[int]) -> bool:
        """Append a block of tokens to a row, and finish the row if it ends there; return whether it continues."""
        tokens = sampled[: bisect_left(sampled, True, key=lambda token: token < 0)]  # codes come last
        has_eos = bool(tokens) and tokens[-1] == self.tokenizer.eos_id
        kept = tokens[:-1] if has_eos else tokens
        row.ids += kept
        row.new_tokens += len(kept)
        if self.stopping.check(row, len(kept)):
            return False
        if has_eos:
            self.stopping.finish(row, "end")
        elif len(tokens) < len(sampled):
            code = sampled[len(tokens)]
            self._finish_without_token(row, code)
            return row.finish_reason is None and code != DEAD_END
        return row.finish_reason is None

    def _finish_without_token(self, row: Row, code: int) -> None:
        """Finish a row for which no token is left; at a dead end it goes back instead.

        Raises:
            GenerationError: The logits are NaN or infinite.
        """
        if code == NOT_A_NUMBER:
            raise GenerationError.of_damaged_logits()
        if code == NOTHING_LEFT:
            self.stopping.finish(row, "stuck")

    def _tails(self, rows: Sequence[Row]) -> Int64[np.ndarray, "B K"]:
        """Return the last tokens of each row, as many as the penalties and the guard look back at."""
        size = max(len(row.prefix) + len(row.ids) for row in rows) if self.params.looks_back else 0
        if self.guard is not None:
            size = max(size, self.guard[0].length + self.guard[1] - 2)
        return np.array([row.tail(size) for row in rows], np.int64).reshape(len(rows), size)


def _stamped(rows: list[Row], started: float) -> list[Row]:
    """Return rows, each with the seconds since a moment of ``time.monotonic``."""
    for row in rows:
        row.seconds = time.monotonic() - started
    return rows


def _keep(
    live: list[Row], logits: Float[np.ndarray, "B V"], state: StepState, continuing: set[int]
) -> tuple[list[Row], Float[np.ndarray, "K V"], StepState]:
    """Select the rows that continue, with their logits and state."""
    if len(continuing) == len(live):
        return live, logits, state
    numbers: Sequence[int] = sorted(continuing)
    return [live[number] for number in numbers], logits[np.array(numbers, np.int64)], select_rows(state, numbers)
