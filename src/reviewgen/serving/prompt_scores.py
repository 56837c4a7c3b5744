"""The log probabilities of prompts: a thread of its own feeds them token by token, so that texts that are generated go on.

The prompts of a request are fed side by side. Requests take turns, each of some dozen milliseconds, so that a long one does not
hold up the others; a request's texts are begun once its prompts are scored.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from reviewgen.generation import Pieces
from reviewgen.generation.rows import Row, select_rows
from reviewgen.protocols import Stepper, Tokenizer
from reviewgen.serving.batch import failure
from reviewgen.serving.events import Event, PromptEvent, Scored
from reviewgen.serving.jobs import Job
from reviewgen.serving.outlet import Outlet
from reviewgen.serving.problems import OutOfTime
from reviewgen.serving.scores import Scorer

_SIDE_BY_SIDE = 16  # prompts
_TURN_TOKENS = 128  # of all prompts together, that are fed in a turn


@dataclass
class _Prompt:
    """A prompt whose tokens are scored: its row at the beginning, the texts that have it, and the scores so far."""

    row: Row
    numbers: list[int]
    scores: list[Scored] = field(default_factory=list)


class PromptScores:
    """Scores the prompts of jobs.

    Args:
        stepper: Predicts the next tokens.
        scorer: Returns the log probabilities of tokens from logits.
        tokenizer, pieces: The tokenizer, and the texts of its single tokens.
    """

    def __init__(self, stepper: Stepper, scorer: Scorer, tokenizer: Tokenizer, pieces: Pieces) -> None:
        self._stepper, self._scorer, self._tokenizer, self._pieces = stepper, scorer, tokenizer, pieces
        self._pool = ThreadPoolExecutor(1, "reviewgen-score")

    def start(self, job: Job) -> None:
        """Score the prompts of a job, in turn with those of others; then let its rows be started."""
        self._pool.submit(self._turn, job, self._events(job))

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(cancel_futures=True)

    def _turn(self, job: Job, turns: Iterator[list[Event]]) -> None:
        """Go on with a job, and queue again; runs in the thread."""
        if job.is_stopped:
            return
        try:
            if job.decoder.deadline is not None and time.monotonic() >= job.decoder.deadline:
                raise OutOfTime("The time of the request was over before its prompts were scored. Try again later.")
            for events in turns:
                job.add(events)
                with contextlib.suppress(RuntimeError):  # the engine was closed
                    self._pool.submit(self._turn, job, turns)
                return
            job.begin()
        except Exception as error:  # a model may raise anything
            job.fail(failure(error))

    def _events(self, job: Job) -> Iterator[list[Event]]:
        """Yield after each turn the events of the prompts that are scored by now; each prompt is fed once."""
        prompts: dict[tuple[int, ...], _Prompt] = {}
        for number, row in enumerate(job.starts):
            prompts.setdefault(tuple(row.ids), _Prompt(row, [])).numbers.append(number)
        waiting = iter(prompts.values())
        while group := list(islice(waiting, _SIDE_BY_SIDE)):
            for _ in self._feed(group, job.alternatives or 0):
                yield []
            yield [event for prompt in group for event in self._scored(prompt)]

    def _feed(self, prompts: Sequence[_Prompt], count: int) -> Iterator[None]:
        """Score some prompts, which begin alike with bos and conditions; yield after each turn."""
        live, fed = [prompt for prompt in prompts if prompt.row.ids], 0
        logits, state = self._stepper.forward(np.array([prompts[0].row.prefix], np.int64), self._stepper.initial_state(1))
        logits, state = np.repeat(logits, len(live), axis=0), select_rows(state, [0] * len(live))
        while live:
            tokens = [prompt.row.ids[len(prompt.scores)] for prompt in live]
            for prompt, scored in zip(live, self._scorer.score_rows(logits, tokens, count), strict=True):
                prompt.scores.append(scored)
            going = [place for place, prompt in enumerate(live) if len(prompt.scores) < len(prompt.row.ids)]
            live, fed = [live[place] for place in going], fed + len(tokens)
            if live:
                ids = np.array([[tokens[place]] for place in going], np.int64)
                logits, state = self._stepper.forward(ids, select_rows(state, going))
            if fed >= _TURN_TOKENS:
                fed = 0
                yield

    def _scored(self, prompt: _Prompt) -> list[Event]:
        """Return the events of a prompt that is scored, one for each text that has it."""
        row = prompt.row
        text = Row("", row.prefix, row.ids, "", 0, row.rng, new_tokens=len(row.ids))  # as if the prompt were generated
        tokens = Outlet(0, text, self._tokenizer, self._pieces, "nothing").take(prompt.scores)
        return [PromptEvent(number, tokens) for number in prompt.numbers]
