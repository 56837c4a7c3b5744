"""Engine: continuous batching for one model. One thread advances the texts of all callers together, tick by tick.

A text joins at the next tick, and leaves when it is complete; each is the text that ``ReviewModel.generate`` returns for the same
seed and number. Requests are ended, never the engine: what a model, a logits processor or a consumer raises ends its own request.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from reviewgen.errors import ConfigError, GenerationError, growing_state
from reviewgen.generation import Request
from reviewgen.generation.rows import Row, row_of_ids
from reviewgen.model import ReviewModel
from reviewgen.novelty import Span
from reviewgen.protocols import Stepper, StepState, SupportsSample
from reviewgen.serving.batch import Batch, failure
from reviewgen.serving.events import Event
from reviewgen.serving.jobs import Job, choose
from reviewgen.serving.offline import Offline, is_offline
from reviewgen.serving.prompt_scores import PromptScores
from reviewgen.serving.scores import Scorer
from reviewgen.serving.steppers import OneAtATime

_LOG = logging.getLogger(__name__)
_MAX_THREADS = 4


class Stats(NamedTuple):
    """What an engine does.

    Attributes:
        live_rows, waiting_rows: The rows that were started, and those that wait.
        offline_rows: The rows of beam search and ``must_include``, which wait for none of the others; they are not among those.
        jobs: Its requests.
        tokens: The tokens sampled since its start.
    """

    live_rows: int
    waiting_rows: int
    offline_rows: int
    jobs: int
    tokens: int


class Engine:
    """Generates texts of one model for many callers at once. All methods may be called in any thread.

    Args:
        model: The model. Its weights must not be changed any more.
        max_rows: How many texts are advanced side by side; others wait.
        threads: How many threads compute where many texts are advanced; one for each core, at most four, if not given.

    Attributes:
        model: The model.

    Raises:
        GenerationError: The model's weights are damaged.
        BrokenPlugin: The model's state grows with the text, so that texts of different lengths cannot be advanced together.
    """

    def __init__(self, model: ReviewModel, max_rows: int = 64, threads: int | None = None) -> None:
        self.model, generator = model, model.generator
        if not isinstance(generator.stepper, SupportsSample):
            generator = generator.with_stepper(OneAtATime(generator.stepper))
        _refuse_growing(generator.stepper, generator.tokenizer.bos_id)
        self._generator = generator
        self._max_rows = max_rows
        scorer = Scorer(generator.tokenizer, generator.pieces)
        cores = min(_MAX_THREADS, os.cpu_count() or 1) if threads is None else threads
        self._batch = Batch(generator.stepper, scorer, self._copied, self._wake_up, cores)
        self._offline = Offline(self._generator, scorer, self._copied)
        self._prompt_scores = PromptScores(generator.stepper, scorer, generator.tokenizer, generator.pieces)
        self._inbox: deque[Job] = deque()
        self._jobs: list[Job] = []
        self._wake, self._lock, self._guard_lock = threading.Event(), threading.Lock(), threading.Lock()
        self._is_closed = self._must_stop = False
        self._thread = threading.Thread(target=self._run, name=f"reviewgen-engine-{model.preset}", daemon=True)
        self._thread.start()

    def submit(
        self,
        request: Request,
        deliver: Callable[[list[Event]], None],
        alternatives: int | None = None,
        *,
        tokens: bool = True,
        prompt_ids: Sequence[Sequence[int]] | None = None,
        score_prompts: bool = False,
    ) -> Job:
        """Start to generate the texts of a request.

        Args:
            request: The request; its streamer must be None. Its ``max_time`` counts from now.
            deliver: Is called in the engine's thread after a tick with the events of all texts of the request. It must return
                quickly; if it raises, the request ends.
            alternatives: How many alternatives to each token are delivered with the log probabilities; None computes neither.
            tokens: Whether tokens are delivered; else only the ends of texts.
            prompt_ids: The token ids of each of the request's prompts, which are then fed as they are. Beam search and
                ``must_include`` tokenize the prompts instead.
            score_prompts: Whether the tokens of each prompt are delivered first, scored as those of the text; needs
                ``prompt_ids`` and ``alternatives``, and neither beam search nor ``must_include``.

        Returns:
            The job, to cancel it, and to tell how many events were taken: one with more than some hundreds of untaken events
            waits until its consumer has caught up.

        Raises:
            ConfigError: The request has a streamer, or the ids are not those of tokens, one list for each prompt.
            DataError: It needs an index or a lexicon that the model does not have.
            GenerationError: The engine was closed.
        """
        if request.hooks is not None and request.hooks.streamer is not None:
            raise ConfigError("An engine delivers the tokens itself: leave the streamer out.")
        if score_prompts and (prompt_ids is None or alternatives is None or is_offline(request)):
            raise ConfigError("Prompts are scored by their ids, with alternatives; not for beam search or must_include.")
        starts = self._starts(request, prompt_ids)
        with self._guard_lock:  # an index builds a guard when it is first asked for, which takes a while
            guard = self._generator.guard(request)
        decoder = self._generator.decoder(request, guard, request.deadline(), starts)
        job = Job(request, decoder, starts, deliver, alternatives, tokens, score_prompts, self._wake_up)
        with self._lock:
            if self._is_closed:
                raise GenerationError("The engine was closed, so it takes no more requests.")
            self._inbox.append(job)
        self._wake_up()
        return job

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def stats(self) -> Stats:
        """Return what it does at the moment."""
        jobs = [*self._jobs, *self._inbox]
        live, offline = sum(len(job.rows) for job in jobs), sum(job.waiting for job in jobs if is_offline(job.request))
        return Stats(live, sum(job.waiting for job in jobs) - offline, offline, len(jobs), self._batch.tokens)

    def close(self, drain: bool = True, timeout: float | None = None) -> None:
        """Take no more requests, and end the thread.

        Args:
            drain: Whether to finish the texts first.
            timeout: The seconds to wait for them; what is not finished then has failed.
        """
        with self._lock:
            self._is_closed = True
        if drain:
            self._wake_up()
            self._thread.join(timeout)
        self._must_stop = True
        self._wake_up()
        self._thread.join()

    def _starts(self, request: Request, prompt_ids: Sequence[Sequence[int]] | None) -> list[Row]:
        """Return a row at its beginning for each prompt; equal prompts share one."""
        random = np.random.default_rng(0)  # each row that is started gets its own
        if prompt_ids is None:
            rows = {prompt: self._generator.row(request, prompt, 0) for prompt in dict.fromkeys(request.prompts)}
            return [rows[prompt] for prompt in request.prompts]
        size, bos = self._generator.tokenizer.vocab_size, self._generator.tokenizer.bos_id
        if len(prompt_ids) != len(request.prompts):
            raise ConfigError(f"There are {len(prompt_ids)} lists of token ids for {len(request.prompts)} prompts.")
        for token in {token for ids in prompt_ids for token in ids}:
            if not 0 <= token < size or token == bos:
                raise ConfigError(f"{token} is not the id of a token: ids are 0 to {size - 1}, without bos, {bos}.")
        tokenizer = self._generator.tokenizer
        given = {tuple(ids): row_of_ids(ids, tokenizer, random, request.prefix) for ids in prompt_ids}
        return [given[tuple(ids)] for ids in prompt_ids]

    def _copied(self, ids: Sequence[int]) -> tuple[Span, ...]:
        """Return the copied spans of a text, by its ids."""
        index = self._generator.index
        return () if index is None else index.examine(ids, self._generator.tokenizer.decode).spans

    def _wake_up(self) -> None:
        self._wake.set()

    def _run(self) -> None:
        """Advance the jobs until the engine is closed; the engine's thread."""
        while not self._must_stop:
            self._wake.clear()
            self._take_in()
            if self._is_closed and not self._jobs and not self._inbox:
                break
            if not self._tick():
                self._wake.wait()
        self._end()

    def _tick(self) -> bool:
        """Advance the jobs and deliver their events; return whether there was anything to do."""
        try:
            is_busy = self._batch.advance(choose([job for job in self._jobs if not is_offline(job.request)], self._max_rows))
        except Exception as error:  # a mistake of ours ends the requests, not the engine
            _LOG.exception("The engine has failed; its requests end.")
            for job in self._jobs:
                job.fail(failure(error))
            is_busy = True
        for job in self._jobs:
            self._flush(job)
        return is_busy

    def _take_in(self) -> None:
        """Take in the jobs that were submitted, and drop those that are done."""
        while self._inbox:
            job = self._inbox.popleft()
            self._jobs.append(job)
            if is_offline(job.request):
                self._offline.start(job)
            elif job.is_held:
                self._prompt_scores.start(job)
        if any(job.is_done for job in self._jobs):
            self._jobs = [job for job in self._jobs if not job.is_done]

    def _flush(self, job: Job) -> None:
        """Deliver a job's events; end it if its consumer raises."""
        try:
            job.flush()
        except Exception:  # the consumer may raise anything
            _LOG.exception("The consumer of a request's events has failed; the request ends.")
            job.cancel()

    def _end(self) -> None:
        """Let what is not finished fail, and end the other threads."""
        for job in [*self._jobs, *self._inbox]:
            job.fail(GenerationError("The server was shut down before the text was complete."))
            self._flush(job)
        self._jobs.clear()
        self._inbox.clear()
        self._offline.close()
        self._prompt_scores.close()
        self._batch.close()


def _refuse_growing(stepper: Stepper, bos_id: int) -> None:
    """Raise if the shapes of a state depend on the tokens read; also compiles what the first text needs."""
    state = stepper.initial_state(1)
    before = _shapes(state)
    for _ in range(2):
        _, state = stepper.forward(np.array([[bos_id]], np.int64), state)
        for one, other in zip(before, _shapes(state), strict=False):
            if one != other:
                raise growing_state(other, one)


def _shapes(state: StepState) -> list[tuple[int, ...]]:
    return [shape for part in state for shape in _shapes(part)] if isinstance(state, tuple) else [state.shape]
