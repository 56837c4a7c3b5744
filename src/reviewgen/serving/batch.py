"""One tick of an engine: rows of many jobs are advanced together, by one stepper.

A row's beginning is fed by a thread of its own, so that a long prompt does not hold up the others. Then a row goes token by
token or, where the stepper has a loop of its own, in blocks that take about 30 ms for all rows together: a row that joins waits
no longer. Rows of different jobs share a block if their jobs sample alike; each row has its own random stream, and a stepper's
rows do not depend on one another, so a text is the same alone and in company.

What raises is tried again with the rows of one job at a time, so that only the job at fault fails.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from reviewgen.errors import GenerationError, ReviewgenError
from reviewgen.generation.rows import Row, split_rows, stack_rows
from reviewgen.novelty import Span
from reviewgen.protocols import Stepper, StepState
from reviewgen.serving.beginnings import Beginnings
from reviewgen.serving.events import EndEvent, Scored
from reviewgen.serving.jobs import Job, Seated
from reviewgen.serving.scores import Scorer

TICK_SECONDS = 0.03
_MIN_NUMBERS, _MAX_NUMBERS = 7, 512  # random numbers of a row in a block
_SURE_NUMBERS = 32  # with this number of random numbers, a row always gets a token
_MIN_PART = 8  # rows: fewer do not share the weights' way from memory, and are not worth a thread
_NO_LIMIT = np.iinfo(np.int64).max


class _Block(NamedTuple):
    """What was sampled for some rows: the tokens (B, N), and the state after them."""

    rows: Sequence[Seated]
    tokens: np.ndarray
    state: StepState


class Batch:
    """Advances rows.

    Args:
        stepper: Predicts the next tokens.
        scorer: Returns the log probabilities of tokens from logits.
        examine: Returns the copied spans of some ids.
        wake: Is called when the beginning of a row was fed.
        threads: How many threads sample blocks.
    """

    def __init__(
        self,
        stepper: Stepper,
        scorer: Scorer,
        examine: Callable[[Sequence[int]], tuple[Span, ...]],
        wake: Callable[[], None],
        threads: int,
    ) -> None:
        self._stepper, self._scorer, self._examine, self._threads = stepper, scorer, examine, threads
        self._beginnings = Beginnings(stepper, wake)
        self._pool = ThreadPoolExecutor(max(1, threads - 1), "reviewgen-block")
        self._cost = 1e-3  # seconds of a token of a row
        self.tokens = 0  # that were sampled in all

    def close(self) -> None:
        """End the threads."""
        self._beginnings.close()
        self._pool.shutdown()

    def advance(self, seated: Sequence[Seated]) -> bool:
        """Give each row some tokens, and collect the events in its job; return whether anything was done."""
        fed = self._beginnings.arrive()
        for row, error in fed:
            self._fail_if(row.job, error)
        rows = [row for row in seated if not _is_over(row)]
        for row in (row for row in rows if row.state is None and not row.is_away):
            self._beginnings.start(row)
        going = [row for row in rows if row.state is not None]
        ready = [row for row in going if _is_ready(row)]  # before others are stepped, which may be ready then
        self._sample_blocks(ready + self._step_for_a_while([row for row in going if not _is_ready(row)]))
        for row in seated:
            self._collect(row)
        return len(going) > 0 or len(fed) > 0 or len(rows) < len(seated)

    def _step_for_a_while(self, rows: list[Seated]) -> list[Seated]:
        """Advance rows token by token, until a tick is over or none is left; return those that can go on in blocks."""
        until, ready = time.monotonic() + TICK_SECONDS, []
        while rows:
            for group in _grouped(rows, lambda row: row.job).values():
                self._contained(group, self._step)
            going = [row for row in rows if _is_going(row) and row.logits is None]
            self._contained(going, self._forward)
            ready += [row for row in going if _is_going(row) and _is_ready(row)]
            rows = [row for row in going if _is_going(row) and not _is_ready(row) and not _is_over(row)]
            if time.monotonic() >= until:
                break
        return ready

    def _step(self, rows: Sequence[Seated]) -> None:
        """Give each of some rows of one job a token; those that continue have no logits then."""
        decoder, before = rows[0].job.decoder, [row.row.new_tokens for row in rows]
        table = np.stack([row.logits for row in rows if row.logits is not None])  # all rows that go token by token have some
        continuing = decoder.step([row.row for row in rows], table)
        for number, row in enumerate(rows):
            is_longer = row.row.new_tokens > before[number]
            self.tokens += is_longer
            if row.job.alternatives is not None and (is_longer or row.row.finish_reason == "end"):
                token = row.row.ids[-1] if is_longer else decoder.tokenizer.eos_id
                row.scores.append(self._scorer.score(table[number], token, row.job.alternatives))
            row.logits = None
            if number not in continuing:
                _go_back(row)

    def _forward(self, rows: Sequence[Seated]) -> None:
        """Feed the last token of some rows, together."""
        ids = np.array([[row.row.ids[-1]] for row in rows], np.int64)
        logits, state = self._stepper.forward(ids, stack_rows([row.state for row in rows]))
        for row, own, after in zip(rows, logits, split_rows(state, len(rows)), strict=True):
            row.logits, row.state = own, after

    def _sample_blocks(self, rows: Sequence[Seated]) -> None:
        """Let the stepper sample rows in its own loop, those that sample alike together."""
        rows = [row for row in rows if not row.job.is_stopped]
        if not rows:
            return
        size = int(min(max(TICK_SECONDS / (self._cost * len(rows)) + 1, _MIN_NUMBERS), _MAX_NUMBERS))
        started, before = time.monotonic(), self.tokens
        waiting, blocks = deque(self._parts(rows)), []

        def sample(part: Sequence[Seated]) -> None:
            blocks.append(_sample(part, max(size, _SURE_NUMBERS) if any(row.lacks_random for row in part) else size))

        def work() -> None:
            with contextlib.suppress(IndexError):  # none is left
                while True:
                    self._contained(waiting.popleft(), sample)

        others = [self._pool.submit(work) for _ in range(min(self._threads, len(waiting)) - 1)]
        work()
        for other in others:
            other.result()
        for block in blocks:
            self._append(block)
        if sampled := self.tokens - before:
            self._cost = (self._cost + (time.monotonic() - started) / sampled) / 2

    def _parts(self, rows: Sequence[Seated]) -> Iterable[list[Seated]]:
        """Yield rows that sample alike, in several parts where they are many, so that all threads have something to do."""
        for row in rows:  # here, since places are kept for each job, and its rows may be in several parts
            if row.row.place is None and row.job.decoder.spelling is not None:
                row.job.decoder.place(row.row)
        for group in _grouped(rows, lambda row: row.job.alike).values():
            parts = min(self._threads, max(1, len(group) // _MIN_PART))
            yield from (group[number::parts] for number in range(parts))

    def _append(self, block: _Block) -> None:
        """Append the tokens of a block to its rows."""
        scored = [number for number, row in enumerate(block.rows) if row.job.alternatives is not None]
        if scored:
            self._contained([block.rows[number] for number in scored], lambda rows: self._score(rows, block))
        for row, tokens, state in zip(block.rows, block.tokens.tolist(), split_rows(block.state, len(block.rows)), strict=True):
            before, row.state = row.row.new_tokens, state
            if row.job.alternatives is None:
                row.logits = None
            if not row.job.is_stopped:
                try:
                    _append_tokens(row, tokens)
                except GenerationError as error:  # the logits are damaged
                    row.job.fail(error)
            self.tokens += row.row.new_tokens - before

    def _score(self, rows: Sequence[Seated], block: _Block) -> None:
        """Score the tokens of a block, which are fed one after another from the state before it."""
        sampled = {row: tokens[tokens >= 0].tolist() for row, tokens in zip(block.rows, block.tokens, strict=True)}
        scores: dict[Seated, list[Scored]] = {row: [] for row in rows}
        logits: dict[Seated, Any] = {row: row.logits for row in rows}
        states = {row: row.state for row in rows}
        for at in range(max(len(sampled[row]) for row in rows)):
            live = [row for row in rows if at < len(sampled[row])]
            for row in live:
                scores[row].append(self._scorer.score(logits[row], sampled[row][at], row.job.alternatives or 0))
            ids = np.array([[sampled[row][at]] for row in live], np.int64)
            table, state = self._stepper.forward(ids, stack_rows([states[row] for row in live]))
            logits.update(zip(live, table, strict=True))
            states.update(zip(live, split_rows(state, len(live)), strict=True))
        for row in rows:  # now that nothing has raised
            row.logits = logits[row]
            row.scores += scores[row]

    def _contained(self, rows: Sequence[Seated], advance: Callable[[Sequence[Seated]], None]) -> None:
        """Call a function with some rows; if it raises, with those of one job at a time, and let a job fail that raises alone."""
        if not rows:
            return
        try:
            advance(rows)
        except Exception as error:  # a model or a logits processor may raise anything
            jobs = list(dict.fromkeys(row.job for row in rows))
            if len(jobs) == 1:
                self._fail_if(jobs[0], error)
                return
            for job in jobs:
                self._contained([row for row in rows if row.job is job], advance)

    def _fail_if(self, job: Job, error: Exception | None) -> None:
        if error is not None:
            job.fail(failure(error))

    def _collect(self, row: Seated) -> None:
        """Collect a row's events in its job, and take it out if it is finished."""
        job = row.job
        if job.is_stopped:
            return
        ended = next(iter(row.scores[row.row.new_tokens :]), None) if row.row.finish_reason == "end" else None
        del row.scores[row.row.new_tokens :]
        is_finished = row.row.finish_reason is not None
        if job.has_tokens:
            job.add(row.outlet.take(row.scores))
        if is_finished:
            copied = () if job.request.novelty is None else self._examine(row.row.ids)
            job.add([end_event(row.number, row.row, copied, ended)])
            job.rows.remove(row)


def _grouped(rows: Iterable[Seated], key: Callable[[Seated], Hashable]) -> dict[Hashable, list[Seated]]:
    """Return rows by a key, in order."""
    groups: dict[Hashable, list[Seated]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _sample(rows: Sequence[Seated], size: int) -> _Block:
    """Return a block of tokens for rows that sample alike."""
    decoder, same = rows[0].job.decoder, all(row.job is rows[0].job for row in rows)
    params = decoder.params if same else decoder.params._replace(max_new_tokens=_NO_LIMIT)
    tokens, state = decoder.sample_block([row.row for row in rows], stack_rows([row.state for row in rows]), size, params)
    return _Block(rows, tokens, state)


def _append_tokens(row: Seated, tokens: list[int]) -> None:
    """Append the tokens of a block to a row, no more than it may have; it goes back if it is at a dead end."""
    decoder, before = row.job.decoder, row.row.new_tokens
    if not decoder.append_block(row.row, tokens[: decoder.config.max_new_tokens - before]):
        _go_back(row)
    row.lacks_random = row.row.new_tokens == before


def _go_back(row: Seated) -> None:
    """Let a row that is not finished, but at a dead end, go back; its beginning is then fed anew."""
    if row.row.finish_reason is None:
        row.job.decoder.go_back(row.row)
        row.state = row.logits = None


def _is_going(row: Seated) -> bool:
    """Return whether a row can be advanced."""
    return row.state is not None and row.row.finish_reason is None and not row.job.is_stopped


def _is_ready(row: Seated) -> bool:
    """Return whether a row can be advanced in blocks."""
    decoder = row.job.decoder
    return decoder.has_blocks and decoder.is_ready(row.row)


def _is_over(row: Seated) -> bool:
    """Finish a row whose time is over, or that gets no tokens; return whether it is finished."""
    decoder = row.job.decoder
    if decoder.config.max_new_tokens == 0:
        decoder.finish_unextended([row.row])
    elif row.row.finish_reason is None:
        decoder.is_over([row.row])
    return row.row.finish_reason is not None


def end_event(number: int, row: Row, copied: tuple[Span, ...], ended: Scored | None = None) -> EndEvent:
    """Return the event of a finished row."""
    given = len(row.ids) - row.new_tokens
    return EndEvent(number, row.text, row.finish_reason or "", given, row.new_tokens, copied, row.ids, row.exceeds_limit, ended)


def failure(error: Exception) -> ReviewgenError:
    """Return what was raised as an error that can be shown."""
    if isinstance(error, ReviewgenError):
        return error
    return GenerationError(f"The request has failed: {type(error).__name__}: {error!s:.300}")
