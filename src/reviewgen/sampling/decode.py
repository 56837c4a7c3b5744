"""The decoding loop: prompts in, texts out, many rows at once.

Every row draws from a random stream of its own, made from the seed and the row's number, so a text does not depend on which
others are written beside it. Global random state is never touched. Works with any Stepper, token by token; one that
``SupportsSample`` draws blocks of tokens in its own loop as soon as the prompt is spelled. How one token is drawn stands in
``reviewgen.compiled.draw``, where texts end in ``ends``.

With a guard no token may complete a copied span: one that would is drawn again from those that do not. Where only the end of the
text is left, a row goes back a few tokens, twice as many each time, and takes another way; after ``TRIES`` of these it takes the
forbidden token and says so.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from reviewgen.compiled.draw import DEAD_END, NOT_A_NUMBER, NOTHING_LEFT, Drawing, adjust, choose_rows
from reviewgen.compiled.windows import NO_WINDOWS, copies
from reviewgen.config import GenerationConfig
from reviewgen.errors import GenerationError
from reviewgen.protocols import Guard, Stepper, StepState, SupportsSample, Tokenizer
from reviewgen.sampling.drawing import make_drawing
from reviewgen.sampling.ends import Ends
from reviewgen.sampling.hooks import Hooks
from reviewgen.sampling.prompt import Pieces
from reviewgen.sampling.row import Row
from reviewgen.sampling.states import select_rows, stack_rows

__all__ = ["decode"]

TRIES = 12  # that a row goes back at dead ends
_LEAST_BLOCK, _FIRST_BLOCK, _LONGEST_BLOCK = 32, 64, 4096  # numbers a row for a stepper's own loop
_PACE = 0.2  # seconds that a block should take, so that an interrupt and a time limit are met


def decode(
    stepper: Stepper,
    tokenizer: Tokenizer,
    pieces: Pieces,
    rows: list[Row],
    config: GenerationConfig,
    guard: Guard | None = None,
    hooks: Hooks | None = None,
    deadline: float | None = None,
    pace: float = _PACE,
) -> Iterator[list[Row]]:
    """Extend the rows until each is finished; yield those that got tokens, after every step.

    Args:
        stepper: Predicts.
        tokenizer, pieces: The tokenizer, and the texts of its tokens.
        rows: What to extend.
        config: How to draw, and where to end.
        guard: What must not be completed.
        hooks: What to call at every token.
        deadline: The ``time.monotonic`` at which all rows end where they are.
        pace: Seconds between two yields, about, where the stepper is fast.

    Raises:
        GenerationError: The logits are no numbers, or a logits processor rules out every token.
    """
    started = time.monotonic()
    ends = Ends(tokenizer, config.max_new_tokens, config.stop_strings, config.finish, config.min_new_tokens)
    if config.max_new_tokens == 0:
        for row in rows:
            row.ids += tokenizer.encode(row.rest)
            row.text, row.rest, row.finish_reason = row.prompt, "", "length"
    longest = config.max_new_tokens + max((len(row.ids) + len(row.rest) for row in rows), default=0)
    if guard is not None and guard[0].length + guard[1] - 1 > longest:
        guard = None  # no text gets as long as that
    decoding = _Decoding(stepper, tokenizer, pieces, make_drawing(config, tokenizer), ends, guard, hooks, deadline, pace)
    if hooks is not None:
        hooks.begin(rows, tokenizer)
    pending = [row for row in rows if row.finish_reason is None]
    while pending:
        for stepped in decoding.run(pending):
            for row in stepped:
                row.seconds = time.monotonic() - started
            yield stepped
        pending = [row for row in pending if row.finish_reason is None]
        for row in pending:
            decoding.go_back(row)
    if hooks is not None:
        hooks.end()


@dataclass(frozen=True)
class _Decoding:
    """What stays the same from step to step."""

    stepper: Stepper
    tokenizer: Tokenizer
    pieces: Pieces
    drawing: Drawing
    ends: Ends
    guard: Guard | None
    hooks: Hooks | None
    deadline: float | None
    pace: float

    def run(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Extend rows until each is finished or stands before a dead end."""
        logits, state = self._read_prompts(rows)
        live, spelled = list(rows), []
        while live:
            if isinstance(self.stepper, SupportsSample) and self.hooks is None:
                ready = [n for n, row in enumerate(live) if row.is_spelled and row.tries < TRIES]
                spelled += [(live[number], select_rows(state, [number])) for number in ready]
                live, logits, state = _keep(live, logits, state, set(range(len(live))) - set(ready))
                if not live:
                    break
            going = self._step(live, logits)
            yield live
            live, _, state = _keep(live, logits, state, going)
            if live and self._is_over(live):
                yield live
                live = []
            if live:
                logits, state = self.stepper.read(np.array([[row.ids[-1]] for row in live], np.int64), state)
        if spelled:
            yield from self._sample([row for row, _ in spelled], stack_rows([part for _, part in spelled]))

    def go_back(self, row: Row) -> None:
        """Take a row that stands before a dead end back to where it may go another way."""
        row.tries += 1
        back = min(1 << row.tries, len(row.ids) - row.spelled)
        if back:
            del row.ids[-back:]
            row.new_tokens -= back

    def _is_over(self, rows: list[Row]) -> bool:
        """End all rows where they are once the deadline has passed; return whether it has."""
        if self.deadline is None or time.monotonic() < self.deadline:
            return False
        for row in rows:
            self.ends.end(row, "time")
        return True

    def _step(self, live: list[Row], logits: Float[np.ndarray, "B V"]) -> set[int]:
        """Give every row a token; return which go on."""
        table, drawing = self._prepare(live, logits)
        texts = np.pad(self._tails(live), ((0, 0), (0, 1)))  # room for a token
        runs = np.array([self.guard[1] if self.guard and row.is_spelled else 0 for row in live], np.int64)
        tokens = self._choose(live, table, texts, runs, drawing)
        going = set()
        for number, row in enumerate(live):
            token = int(tokens[number])
            if token == NOTHING_LEFT and row.rest:  # penalties rule out all that spells it, so as the tokenizer does
                row.forced, row.rest = self.tokenizer.encode(row.rest), ""
            elif token == DEAD_END and row.tries >= TRIES:
                row.exceeds_limit = True
                one = slice(number, number + 1)
                token = int(self._choose([row], table[one], texts[one], np.zeros(1, np.int64), drawing)[0])
            elif token >= 0 and self.guard is not None and not row.is_spelled:
                token = self._run_on(row, token, table[number : number + 1], texts[number : number + 1], drawing)
            if self._take(row, token, table[number]):
                going.add(number)
        return going

    def _choose(
        self,
        rows: list[Row],
        table: Float[np.ndarray, "B V"],
        texts: Int64[np.ndarray, "B K"],
        runs: Int64[np.ndarray, " B"],
        drawing: Drawing,
    ) -> Int64[np.ndarray, " B"]:
        """Return each row's token, or why there is none."""
        tokens, used = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        uniform = np.array([row.look_at_numbers(2) for row in rows])
        sizes = np.full(len(rows), texts.shape[1] - 1)
        written = np.array([row.new_tokens for row in rows], np.int64)
        windows = NO_WINDOWS if self.guard is None else self.guard[0]
        choose_rows(table, texts, sizes, written, uniform, drawing, windows, runs, tokens, used)
        for row, count in zip(rows, used.tolist(), strict=True):
            row.use_numbers(count)
        return tokens

    def _prepare(self, rows: list[Row], logits: Float[np.ndarray, "B V"]) -> tuple[Float[np.ndarray, "B V"], Drawing]:
        """Rule out what does not spell a prompt that is still to be spelled, and let the hooks have their say."""
        drawing, size = self.drawing, self.drawing.size
        if self.hooks is None and all(row.is_spelled for row in rows):
            return logits, drawing
        table = logits.astype(np.float64)
        table[:, size:] = -np.inf
        for number, row in enumerate(rows):
            if row.rest:
                allowed = self.pieces.spelling(row.rest) & (table[number, :size] > -np.inf)
                if allowed.any():
                    table[number, :size][~allowed] = -np.inf
                else:  # no likely way to spell it, so as the tokenizer does
                    row.forced, row.rest = self.tokenizer.encode(row.rest), ""
            elif self.hooks is not None and not row.forced:
                scores = np.empty(table.shape[1])
                text = np.array([*row.start, *row.ids], np.int64)
                adjust(table[number], text, len(text), row.new_tokens, drawing, scores)
                table[number] = self.hooks.process(row, scores)
        if self.hooks is not None:  # the penalties have been paid
            drawing = drawing._replace(repetition_penalty=1.0, no_repeat_ngram_size=0, min_new_tokens=0)
        return table, drawing

    def _run_on(
        self, row: Row, token: int, table: Float[np.ndarray, "1 V"], text: Int64[np.ndarray, "1 K"], drawing: Drawing
    ) -> int:
        """Return a token that runs on from the prompt, or another in its place where it would complete a copied span."""
        if row.forced or token == self.tokenizer.eos_id or 0 < len(self.pieces.texts[token]) <= len(row.rest):
            return token  # the prompt, and no more
        assert self.guard is not None
        windows, run = self.guard
        text[0, -1] = token
        if not copies(windows, text[0], text.shape[1] - 1, run):
            return token
        chosen = int(self._choose([row], table, text, np.full(1, run), drawing)[0])
        row.exceeds_limit |= chosen == DEAD_END
        return token if chosen == DEAD_END else chosen

    def _take(self, row: Row, token: int, scores: Float[np.ndarray, " V"]) -> bool:
        """Add a token to a row, and finish the row where it ends; return whether it goes on."""
        if row.forced:
            row.ids.append(row.forced.pop(0))
            row.spelled = len(row.ids)
            return True
        if token < 0:
            self._meet(row, token)
            return False
        if token == self.tokenizer.eos_id:
            self.ends.end(row, "end")
            return False
        rest, piece = row.rest, self.pieces.texts[token]
        row.ids.append(token)
        row.new_tokens += len(piece) > len(row.rest) or not row.rest
        row.rest = row.rest[len(piece) :]
        if rest:
            row.spelled = len(row.ids)
        if self.hooks is not None:
            self.hooks.put(self.tokenizer.encode(piece[len(rest) :]) if rest else [token])  # the prompt was handed over whole
            if row.new_tokens and self.hooks.ends(row, scores.astype(np.float64)):
                self.ends.end(row, "criteria")
        return row.finish_reason is None and (bool(row.rest) or not self.ends.after(row, 1))

    def _meet(self, row: Row, code: int) -> None:
        """Finish a row, if it cannot go on and did not just stand before a dead end.

        Raises:
            GenerationError: The logits are no numbers.
        """
        if code == NOT_A_NUMBER:
            raise GenerationError.of_damaged_logits()
        if code == NOTHING_LEFT:
            self.ends.end(row, "stuck")

    def _tails(self, rows: list[Row]) -> Int64[np.ndarray, "B K"]:
        """Return the last tokens of each row, as many as the draw and the guard look back at."""
        size = max(len(row.start) + len(row.ids) for row in rows) if self.drawing.looks_back else 0
        if self.guard is not None:
            size = max(size, self.guard[0].length + self.guard[1] - 2)
        return np.array([row.tail(size) for row in rows], np.int64).reshape(len(rows), size)

    def _sample(self, live: list[Row], state: StepState) -> Iterator[list[Row]]:
        """Let the stepper extend rows in its own loop, block by block."""
        assert isinstance(self.stepper, SupportsSample)
        size = _FIRST_BLOCK
        while live and not self._is_over(live):
            begun = time.monotonic()
            uniform = np.stack([row.look_at_numbers(size) for row in live])
            written = np.array([row.new_tokens for row in live], np.int64)
            tokens, used, state = self.stepper.sample(state, uniform, self.drawing, self._tails(live), written, self.guard)
            for row, count in zip(live, used.tolist(), strict=True):
                row.use_numbers(count)
            going = [number for number, row in enumerate(live) if self._take_block(row, tokens[number])]
            yield live
            live, state = [live[number] for number in going], select_rows(state, going)
            ratio = self.pace / max(time.monotonic() - begun, 1e-9)
            size = int(min(max(size * min(2.0, ratio), _LEAST_BLOCK), _LONGEST_BLOCK))
        if live:
            yield live

    def _take_block(self, row: Row, drawn: Int64[np.ndarray, " N"]) -> bool:
        """Add a block of tokens to a row, and finish the row where it ends; return whether it goes on."""
        tokens = drawn[: int((drawn >= 0).sum())].tolist()
        ends = bool(tokens) and tokens[-1] == self.tokenizer.eos_id
        kept = tokens[:-1] if ends else tokens
        row.ids += kept
        row.new_tokens += len(kept)
        if self.ends.after(row, len(kept)):
            return False
        if ends:
            self.ends.end(row, "end")
        elif len(tokens) < len(drawn):
            code = int(drawn[len(tokens)])
            self._meet(row, code)
            return row.finish_reason is None and code != DEAD_END
        return row.finish_reason is None

    def _read_prompts(self, rows: list[Row]) -> tuple[Float[np.ndarray, "B V"], StepState]:
        """Read each distinct text once and return the logits (B, V) after it, and the state."""
        read: dict[tuple[int, ...], tuple[np.ndarray, StepState]] = {}
        keys: list[tuple[int, ...]] = [(*row.start, *row.ids) for row in rows]
        for key in keys:
            if key not in read:
                read[key] = self.stepper.read(np.array([key], np.int64), self.stepper.initial_state(1))
        return np.concatenate([read[key][0] for key in keys]), stack_rows([read[key][1] for key in keys])


def _keep(
    live: list[Row], logits: Float[np.ndarray, "B V"], state: StepState, going: set[int]
) -> tuple[list[Row], Float[np.ndarray, "K V"], StepState]:
    """Return rows, logits and state of those that go on."""
    if len(going) == len(live):
        return live, logits, state
    numbers: Sequence[int] = sorted(going)
    return [live[number] for number in numbers], logits[np.array(numbers, np.int64)], select_rows(state, numbers)
