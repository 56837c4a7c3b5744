"""Requests that need whole texts before the first is known: beam search and ``must_include``.

They are not advanced with the others: a thread of their own calls the Generator, and delivers each text with all its tokens when
it is complete. Requests take turns after each block of tokens, so that a hopeless search does not hold up the others.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from reviewgen.generation import Generator, Request
from reviewgen.generation.rows import Row
from reviewgen.novelty import Span
from reviewgen.serving.batch import end_event, failure
from reviewgen.serving.events import Event, Scored
from reviewgen.serving.jobs import Job
from reviewgen.serving.outlet import Outlet
from reviewgen.serving.problems import OutOfTime
from reviewgen.serving.scores import Scorer
from reviewgen.serving.steppers import Stopped, stoppable


def is_offline(request: Request) -> bool:
    """Return whether a request needs whole texts."""
    return request.config.num_beams > 1 or bool(request.must_include)


class Offline:
    """Generates the texts of such requests.

    Args:
        generator: Generates the texts of a model.
        scorer: Returns the log probabilities of tokens from logits.
        examine: Returns the copied spans of some ids.
    """

    def __init__(self, generator: Generator, scorer: Scorer, examine: Callable[[Sequence[int]], tuple[Span, ...]]) -> None:
        self._generator, self._scorer, self._examine = generator, scorer, examine
        self._pool = ThreadPoolExecutor(1, "reviewgen-offline")

    def start(self, job: Job) -> None:
        """Generate the texts of a job, in turn with those of the others."""
        self._pool.submit(self._turn, job, self._turns(job))

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(cancel_futures=True)

    def _turn(self, job: Job, turns: Iterator[None]) -> None:
        """Go on with a job, and queue again; runs in the thread."""
        if job.is_stopped:
            return
        try:
            for _ in turns:
                with contextlib.suppress(RuntimeError):  # the engine was closed
                    self._pool.submit(self._turn, job, turns)
                return
        except Stopped:
            pass
        except Exception as error:  # a model may raise anything
            job.fail(failure(error))

    def _turns(self, job: Job) -> Iterator[None]:
        """Generate the texts of a job, and yield after each part of the work; its time counts from its submission.

        Raises:
            OutOfTime: It is over before the first text is begun.
        """
        request, deadline = job.request, job.decoder.deadline
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise OutOfTime("The time of the request was over before its turn came: others were before it. Try again later.")
            request = replace(request, config=replace(request.config, max_time=left))
        stepper = stoppable(self._generator.stepper, lambda: job.is_stopped)
        generator, number = self._generator.with_stepper(stepper), 0
        for row in generator.search(request) if request.must_include else generator.generate(request):
            if row is not None:
                job.add(self._events(job, number, row), finished=1)
                number += 1
            yield

    def _events(self, job: Job, number: int, row: Row) -> list[Event]:
        """Return the events of a complete text."""
        outlet = Outlet(number, row, self._generator.tokenizer, self._generator.pieces, "nothing")
        scores = [] if job.alternatives is None else self._score(row, job.alternatives)
        copied = () if job.request.novelty is None else self._examine(row.ids)
        return [*(outlet.take(scores) if job.has_tokens else []), end_event(number, row, copied)]

    def _score(self, row: Row, count: int) -> list[Scored]:
        """Return the scores of the new tokens of a row."""
        stepper, start = self._generator.stepper, len(row.ids) - row.new_tokens
        logits, state = stepper.forward(np.array([[*row.prefix, *row.ids[:start]]], np.int64), stepper.initial_state(1))
        scores = []
        for token in row.ids[start:]:
            scores.append(self._scorer.score(logits[0], token, count))
            logits, state = stepper.forward(np.array([[token]], np.int64), state)
        return scores
