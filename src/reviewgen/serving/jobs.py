"""A submitted request: its rows, its consumer, and which rows of all jobs take a seat in the next tick.

A row is a state and a few numbers, so it can give up its seat between two ticks and take one again later. Seats go round: each
job's first row, then each job's second, as many as there are. So a request for a thousand texts leaves a seat to every other job,
and has all that nobody else needs. If there are more jobs than seats, those that came first have them.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count

import numpy as np

from reviewgen.errors import ReviewgenError
from reviewgen.generation import Request
from reviewgen.generation.decode import Decoder
from reviewgen.generation.rows import Row
from reviewgen.protocols import StepState
from reviewgen.serving.events import EndEvent, Event, FailedEvent, Scored
from reviewgen.serving.outlet import Hold, Outlet

MAX_UNTAKEN = 512  # events of a job that its consumer has not taken, until it is stepped no more


@dataclass(eq=False)
class Seated:
    """A row that was started.

    Attributes:
        job, number: The job that it belongs to, and its number there.
        row, outlet: The row, and what turns it into events.
        state: The state after its last token; None while its beginning is still to be fed.
        logits: The logits after its last token, where they are needed: of a row that goes token by token, or is scored.
        scores: Of each new token, if they were asked for.
        is_away: Whether its beginning is being fed by another thread.
        lacks_random: Whether the last block had too few random numbers for a token.
    """

    job: "Job"
    number: int
    row: Row
    outlet: Outlet
    state: StepState | None = None
    logits: np.ndarray | None = None
    scores: list[Scored] = field(default_factory=list)
    is_away: bool = False
    lacks_random: bool = False


class Job:
    """A submitted request; ``Engine.submit`` makes it.

    Args:
        request, decoder: The request, and its decoding loop.
        starts: For each prompt, a row at its beginning; rows are copied from it.
        deliver: Is called with the events of a tick.
        alternatives: How many alternatives to each token are delivered; None computes no log probabilities.
        has_tokens: Whether tokens are delivered, or only the ends of texts.
        is_held: Whether no row may be started until ``begin`` is called.
        wake: Is called when the engine may have something to do.
    """

    def __init__(
        self,
        request: Request,
        decoder: Decoder,
        starts: Sequence[Row],
        deliver: Callable[[list[Event]], None],
        alternatives: int | None,
        has_tokens: bool,
        is_held: bool,
        wake: Callable[[], None],
    ) -> None:
        self.request, self.decoder, self.deliver = request, decoder, deliver
        self.alternatives, self.has_tokens, self.is_held, self.starts = alternatives, has_tokens, is_held, starts
        self.rows: list[Seated] = []  # started and not finished, in order
        self.is_cancelled = self.is_stopped = False
        self._wake, self._next = wake, 0
        self._events: list[Event] = []  # of this tick
        self._lengths: dict[int, tuple[int, int]] = {}  # of its finished rows
        self._untaken, self._lock = 0, threading.Lock()

    def cancel(self) -> None:
        """End the job; nothing more is delivered, but for what is being delivered now. May be called in any thread, twice."""
        self.is_cancelled = self.is_stopped = True
        self._wake()

    def fail(self, error: ReviewgenError) -> None:
        """End the job with an error; its other rows end, too."""
        with self._lock:
            if not self.is_stopped:
                self.is_stopped = True
                self._events.append(FailedEvent(error))
        self._wake()

    def begin(self) -> None:
        """Let the rows be started. May be called in any thread."""
        self.is_held = False
        self._wake()

    def taken(self, count: int) -> None:
        """Tell how many events the consumer has sent on. May be called in any thread."""
        with self._lock:
            before, self._untaken = self._untaken, self._untaken - count
        if before > MAX_UNTAKEN >= before - count:
            self._wake()

    @property
    def can_go(self) -> bool:
        """Whether its consumer keeps up."""
        return self._untaken <= MAX_UNTAKEN

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        is_over = self.is_stopped or (not self.rows and not self.waiting)
        return self.is_cancelled or (is_over and not self._events)

    @property
    def waiting(self) -> int:
        """The number of rows that were not started yet."""
        return len(self.starts) - self._next

    @cached_property
    def alike(self) -> Hashable:
        """What jobs must have in common for their rows to be sampled in one block."""
        params, guard, spelling = self.decoder.params, self.decoder.guard, self.decoder.spelling
        numbers = params._replace(temperatures=params.temperatures.tobytes(), max_new_tokens=0)  # type: ignore[arg-type]
        return numbers, None if guard is None else (id(guard[0]), guard[1]), id(spelling)

    @property
    def hold(self) -> Hold:
        """What of its texts is held back."""
        if self.decoder.guard is not None:
            return "everything"
        return "sentence" if self.request.config.finish == "sentence" else "nothing"

    def row(self, index: int) -> Seated | None:
        """Return the row with this index among those that are not finished, which is started now if it was not; or None."""
        if index == len(self.rows) and self.waiting:
            number, self._next = self._next, self._next + 1
            start = self.starts[number]
            random = np.random.default_rng((self.request.seed, number))
            row = replace(start, ids=list(start.ids), prefix=list(start.prefix), rng=random)
            outlet = Outlet(number, row, self.decoder.tokenizer, self.decoder.pieces, self.hold)
            self.rows.append(Seated(self, number, row, outlet))
        return self.rows[index] if index < len(self.rows) else None

    def add(self, events: Sequence[Event], finished: int = 0) -> None:
        """Add events, to be delivered after this tick, of which only the last may be the end of a text; ``finished`` of its rows
        were finished elsewhere."""
        with self._lock:
            if events and isinstance(end := events[-1], EndEvent):
                self._lengths[end.number] = end.prompt_tokens, end.new_tokens
            self._events += events
            self._next += finished
        if finished:
            self._wake()

    def lengths(self) -> dict[int, tuple[int, int]]:
        """Return the tokens of the prompt, and the new ones so far, of each row that was started. May be called in any thread."""
        rows = {each.number: each.row for each in list(self.rows)}
        with self._lock:
            return {number: (len(row.ids) - row.new_tokens, row.new_tokens) for number, row in rows.items()} | self._lengths

    def flush(self) -> None:
        """Deliver the events of this tick."""
        with self._lock:
            events, self._events = self._events, []
            self._untaken += len(events)
        if events and not self.is_cancelled:
            self.deliver(events)


def choose(jobs: Sequence[Job], seats: int) -> list[Seated]:
    """Return the rows of some jobs, in the order of their submission, that are advanced next; at most ``seats``."""
    going = [job for job in jobs if job.can_go and not job.is_stopped and not job.is_held]
    chosen: list[Seated] = []
    for index in count():
        before = len(chosen)
        for job in going:
            if len(chosen) == seats:
                return chosen
            if (row := job.row(index)) is not None:
                chosen.append(row)
        if len(chosen) == before:
            return chosen
    return chosen
