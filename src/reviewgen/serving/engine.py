"""Engine: continuous batching for one model. One thread runs all requests in one batch, one step at
a time.

A text joins at the next tick, and leaves when it is complete; each is the text that
``ReviewModel.generate`` returns for the same seed and number. In a tick of some dozen milliseconds
the engine

1. schedules texts, at most ``max_rows``: each request's first text, then each one's second, as long
   as there is room. Scheduling is preemptive: a text that is not scheduled keeps its state and
   resumes later;
2. feeds the beginnings of new texts (bos, conditions, prompt) in turns, a part of at most 512
   tokens each time: chunked prefill (Agrawal et al. 2023, SARATHI). So a long prompt delays the
   others by a part of it, and a new one goes before the next part. The last states are kept, since
   many requests begin alike;
3. steps the texts that need each token's logits in Python: those inside a prompt's last word, or
   with logits processors;
4. lets the stepper sample a block of tokens for the others in its own loop, those with equal
   settings together, if they are many in parts on several cores;
5. scores the new tokens of texts with log probabilities, and the prompts that are scored: it feeds
   them once more, one by one. The next block waits for that.

A row does not depend on the other rows, so a text is the same alone and in company. Requests are
ended, never the engine: what a model or a logits processor raises ends its own request.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from reviewgen.errors import GenerationError, ReviewgenError
from reviewgen.generation.decode import Decoder
from reviewgen.generation.detokenizer import Detokenizer, Scored, Token, score_token
from reviewgen.generation.request import Request
from reviewgen.generation.states import Slot, gather, stack_rows
from reviewgen.generation.text import Text
from reviewgen.model.review_model import ReviewModel
from reviewgen.novelty import CopyGuard
from reviewgen.protocols.stepper import StepState, SupportsCompiledStep

_LOG = logging.getLogger(__name__)
_TICK_SECONDS = 0.03  # of the prefill, of the steps, and of the blocks of a tick
_MAX_CHUNK = 512  # tokens of a prompt that are fed at once, at most
_MIN_CHUNK = 32  # tokens of a prompt that are fed at once, at least
# seconds that a new prompt counts as waiting already, so that it goes before the next part of a
# long one
_HEAD_START = 1.0
_KEPT = 64  # states after beginnings that no text waits for
_MIN_NUMBERS = 7  # random numbers of a row in a block, at least
_MAX_NUMBERS = 512  # random numbers of a row in a block, at most
_SURE_NUMBERS = 32  # upper bound on the random numbers that one token needs
# rows of a block: fewer do not share the weights' way from memory, and are not worth a thread
_MIN_PART = 8
_MAX_THREADS = 4
# characters of a request that its consumer has not taken, until it is scheduled no more
_MAX_UNREAD = 4096
_NO_LIMIT = np.iinfo(np.int64).max


class RequestTimeout(GenerationError):
    """The time of a request is over, and nothing was generated."""


@dataclass(frozen=True)
class EngineRequest:
    """A request as it is submitted to an engine: what to generate, and what to deliver of it.

    Attributes:
        request: The request, without beams, ``must_include`` and streamer.
        prompt_ids: The token ids of each text's prompt, without bos, which are then fed as they
            are.
        alternatives: How many alternatives to each token are delivered with the log probabilities;
            None computes neither.
        is_streamed: Whether a text is delivered while it grows, or once it is complete.
        is_echoed: Whether a text is delivered with its prompt.
        scores_prompts: Whether the tokens of the prompts are scored and delivered, too; needs the
            others but ``is_streamed``.
    """

    request: Request
    prompt_ids: Sequence[Sequence[int]] | None = None
    alternatives: int | None = None
    is_streamed: bool = True
    is_echoed: bool = False
    scores_prompts: bool = False


@dataclass(eq=False, kw_only=True)
class ServedText(Text):
    """A text that was started.

    Attributes:
        job: Its request; ``number`` is its index in it.
        out: What is released of it, and its scores.
        lacks_random: Whether the last block had too few random numbers for a token.
        scored: How many of its ids were scored, or need no score.
        score_logits, score_state: The model's after these; None until they are known.
    """

    job: "ActiveRequest"
    out: Detokenizer = field(init=False)
    lacks_random: bool = False
    scored: int = 0
    score_logits: np.ndarray | None = None
    score_state: Slot | None = None

    @property
    def can_advance(self) -> bool:
        """Whether it can be advanced."""
        return (
            self.state is not None
            and self.finish_reason is None
            and not (self.job.is_stopped or self.is_scoring_prompt)
        )

    @property
    def is_ready(self) -> bool:
        """Whether it can be advanced in blocks."""
        return self.can_advance and self.job.decoder.is_ready(self)

    @property
    def is_scoring_prompt(self) -> bool:
        """Whether its prompt is still to be scored."""
        return self.out.scores_prompt and self.scored < self.prompt_tokens

    @property
    def is_unscored(self) -> bool:
        """Whether it has tokens that must be scored first."""
        return self.out.is_scored and len(self.out.scores) < len(self.ids) - self.out.first + (
            self.finish_reason == "end"
        )


class TextDelta(NamedTuple):
    """What is new of a text.

    Attributes:
        text: The text; its other attributes are final once it is over.
        characters: Its new characters; the first follow the prompt, or are those of the prompt if
            it is echoed.
        tokens: Their tokens, if log probabilities are computed.
        is_over: Whether the text is complete.
    """

    text: ServedText
    characters: str = ""
    tokens: Sequence[Token] = ()
    is_over: bool = False


@dataclass(eq=False)
class _CachedPrefix:
    """An entry of the prefix cache: ids, how many were fed, logits and state after these, since
    when it waits.
    """

    ids: tuple[int, ...]
    state: StepState
    logits: np.ndarray | None = None
    fed: int = 0
    waits_since: float = field(default_factory=lambda: time.monotonic() - _HEAD_START)


@dataclass(eq=False)
class ActiveRequest:
    """A submitted request; ``Engine.submit`` makes it.

    Attributes:
        submission, decoder: What was submitted, and its decoding loop.
        starts: Each text at its beginning, which is copied.
        notify: Is called in the engine's thread after a tick if there is anything to take, or the
            job has failed.
        wake: Is called when the engine may have something to do.
        started: The texts that were started.
        texts: Those of them that are not complete, in order.
        error: Why the job has failed; None if it has not.
    """

    submission: EngineRequest
    decoder: Decoder
    starts: Sequence[Text]
    notify: Callable[[], object]
    wake: Callable[[], None]
    started: list[ServedText] = field(default_factory=list)
    texts: list[ServedText] = field(default_factory=list)
    error: ReviewgenError | None = None
    is_cancelled: bool = False
    _next: int = 0
    _news: deque[TextDelta] = field(default_factory=deque)

    def cancel(self) -> None:
        """End the job. May be called in any thread, twice."""
        self.is_cancelled = True
        self.wake()

    def take(self) -> Iterator[TextDelta]:
        """Yield what is new of the texts; called in the consumer's thread."""
        while self._news:
            yield self._news.popleft()
        self.wake()

    def fail(self, error: Exception) -> None:
        """End the job with an error."""
        if not isinstance(error, ReviewgenError):
            error = GenerationError(
                f"The request has failed: {type(error).__name__}: {error!s:.300}"
            )
        self.error = self.error or error

    def notify_consumer(self) -> None:
        """Notify the consumer if there is anything to take, or the job has failed; one that has
        cancelled may be gone.
        """
        if (self._news or self.error is not None) and not self.is_cancelled:
            try:
                self.notify()
            except Exception:  # its event loop is closed, for one; the other jobs go on
                _LOG.exception("A consumer cannot be notified; its request ends.")
                self.cancel()

    @property
    def is_stopped(self) -> bool:
        """Whether it was cancelled or has failed."""
        return self.is_cancelled or self.error is not None

    @property
    def is_schedulable(self) -> bool:
        """Whether fewer than ``_MAX_UNREAD`` characters are unread, so the job may be scheduled."""
        return (
            not self.is_stopped
            and sum(1 + len(news.characters) for news in [*self._news]) <= _MAX_UNREAD
        )

    @property
    def is_done(self) -> bool:
        """Whether the engine has nothing left to do."""
        return self.is_stopped or not (self.texts or self.waiting)

    @property
    def waiting(self) -> int:
        """The number of texts that were not started yet."""
        return len(self.starts) - self._next

    @cached_property
    def batch_key(self) -> Hashable:
        """What jobs must have in common for their texts to be sampled in one block."""
        params = self.decoder.params
        guard = self.decoder.guard
        spelling = self.decoder.spelling
        numbers = params._replace(temperatures=params.temperatures.tobytes(), max_new_tokens=0)  # type: ignore[arg-type]
        return numbers, None if guard is None else (id(guard.windows), guard.run), id(spelling)

    def text(self, index: int) -> ServedText | None:
        """Return the text with this index among those that are not complete, which is started now
        if it was not; or None.
        """
        if index == len(self.texts) and self.waiting:
            number = self._next
            start = self.starts[self._next]
            submission = self.submission
            random = np.random.default_rng((submission.request.seed, number))
            prefix = [start.prefix[0], *submission.request.prefix_of(number)]
            own = {"ids": list(start.ids), "prefix": prefix, "rng": random, "number": number}
            text = ServedText(**vars(start) | own, job=self)
            is_whole = self.decoder.guard is not None or not submission.is_streamed
            is_scored = submission.alternatives is not None
            stops = start.config.stop_strings
            text.out = Detokenizer(
                text, stops, is_whole, submission.is_echoed, is_scored, submission.scores_prompts
            )
            self.started.append(text)
            self.texts.append(text)
            self._next += 1
        return self.texts[index] if index < len(self.texts) else None

    def collect(self, text: ServedText) -> None:
        """Collect what is new of a text; one that is complete leaves the job."""
        is_over = text.finish_reason is not None
        if self.is_stopped or (is_over and text.is_unscored):
            return
        characters, tokens = text.out.release()
        if characters or tokens or is_over:
            self._news.append(TextDelta(text, characters, tokens, is_over))
        if is_over:
            text.state = text.logits = text.score_state = text.score_logits = None
            self.texts.remove(text)


class Engine:
    """Generates texts of one model for many requests at once. All methods may be called in any
    thread.

    Args:
        model: The model. Its weights must not be changed any more.
        max_rows: How many texts are advanced side by side; others wait.

    Attributes:
        model, generator: The model, and what generates its texts.
        thread: The engine's thread.

    Raises:
        GenerationError: The model's weights are damaged.
        BrokenPlugin: The model's state grows with the text, so that texts of different lengths
            cannot be advanced together.
    """

    def __init__(self, model: ReviewModel, max_rows: int = 64) -> None:
        self.model, self.generator, self._max_rows = model, model.generator, max_rows
        self._stepper = self.generator.stepper
        self._tokenizer = self.generator.tokenizer
        states = [self._stepper.initial_state(1)]
        bos = np.array([[self._tokenizer.bos_id]], np.int64)
        # also compiles what the first text needs
        states += [self._stepper.forward(bos, states[0])[1]]
        stack_rows([*states, self._stepper.forward(bos, states[1])[1]])  # raises if the state grows
        self._threads = min(_MAX_THREADS, os.cpu_count() or 1)  # that sample blocks of many texts
        self._pool = ThreadPoolExecutor(self._threads, "reviewgen-block")
        self._inbox: deque[ActiveRequest] = deque()
        self._jobs: list[ActiveRequest] = []
        self._beginnings: dict[tuple[int, ...], _CachedPrefix] = {}  # the latest come last
        self._fed_seconds = 1e-3  # of a token of a prompt
        self._sampled_seconds = 1e-3  # of a row in a block
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._must_stop = False
        self.thread = threading.Thread(
            target=self._run, name=f"reviewgen-engine-{model.preset}", daemon=True
        )
        self.thread.start()

    def submit(
        self,
        submission: EngineRequest,
        notify: Callable[[], object],
        guard: CopyGuard | None = None,
    ) -> ActiveRequest:
        """Start to generate the texts of a request, whose ``max_time`` counts from now.

        Args:
            submission: The request.
            notify: Is called in the engine's thread after a tick if there is anything to take from
                the job, or it has failed. It must return quickly.
            guard: The copied spans that must not be completed: ``generator.guard(request)``, which
                may take seconds.

        Returns:
            The job, to take from it what is new, and to cancel it. A job with more than
            ``_MAX_UNREAD`` unread characters pauses until its consumer has caught up.

        Raises:
            DataError: The request needs a lexicon that the model does not have.
            GenerationError: The engine was closed.
        """
        keys: Sequence[str | tuple[int, ...]] = submission.request.prompts
        keys = keys if submission.prompt_ids is None else list(map(tuple, submission.prompt_ids))
        # equal prompts share one
        known = {
            key: self.generator.text(submission.request, key, 0) for key in dict.fromkeys(keys)
        }
        starts = [known[key] for key in keys]
        decoder = self.generator.decoder(
            submission.request, guard, submission.request.deadline(), starts
        )
        job = ActiveRequest(submission, decoder, starts, notify, self._wake.set)
        with self._lock:
            if self._must_stop:
                raise GenerationError("The engine was closed, so it takes no more requests.")
            self._inbox.append(job)
        self._wake.set()
        return job

    @property
    def live(self) -> int:
        """The number of texts that were started."""
        return sum(len(job.texts) for job in [*self._jobs])

    @property
    def waiting(self) -> int:
        """The number of texts that were not started yet."""
        return sum(job.waiting for job in [*self._jobs, *self._inbox])

    def close(self, timeout: float | None = None) -> None:
        """Take no more requests, let those in progress fail, and end the thread.

        Args:
            timeout: The seconds to wait for that. After it, they fail as soon as the model returns.
        """
        with self._lock:
            self._must_stop = True
        self._wake.set()
        self.thread.join(timeout)

    def _run(self) -> None:
        """Advance the jobs until the engine is closed; the engine's thread."""
        while not self._must_stop:
            while self._inbox:
                self._jobs.append(self._inbox.popleft())
            if not self._tick():
                self._wake.wait()
                self._wake.clear()  # before the next look at what has woken it
            self._jobs = [job for job in self._jobs if not job.is_done]
        for job in [*self._jobs, *self._inbox]:
            job.fail(GenerationError("The server was shut down before the text was complete."))
            job.notify_consumer()
        self._pool.shutdown()

    def _tick(self) -> bool:
        """Advance the jobs and notify their consumers; return whether there was anything to do."""
        texts = _schedule(self._jobs, self._max_rows)
        try:
            for text in texts:
                if text.config.max_new_tokens == 0 and text.finish_reason is None:
                    text.finish_unextended()
                if text.job.decoder.is_over([text]) and text.is_scoring_prompt:
                    text.job.fail(
                        RequestTimeout(
                            "The time ran out before the prompts were scored. Try again later."
                        )
                    )
            self._prefill(
                [text for text in texts if text.state is None and text.finish_reason is None]
            )
            self._step_for_a_while(
                [text for text in texts if text.can_advance and not text.is_ready]
            )
            self._sample_blocks([text for text in texts if text.is_ready and not text.is_unscored])
            self._score_for_a_while(texts)
            for text in texts:
                text.job.collect(text)
        except Exception as error:  # a mistake of ours ends the requests, not the engine
            _LOG.exception("The engine has failed; its requests end.")
            for job in self._jobs:
                job.fail(error)
        for job in self._jobs:
            job.notify_consumer()
        return len(texts) > 0

    def _prefill(self, texts: Sequence[ServedText]) -> None:
        """Feed, in turns, the beginnings of texts that have no state yet, the one that has waited
        longest first.
        """
        waiting: dict[_CachedPrefix, list[ServedText]] = {}
        for text in texts:
            key = (*text.prefix, *text.ids)
            beginning = self._beginnings.pop(key, None) or _CachedPrefix(
                key, self._stepper.initial_state(1)
            )
            self._beginnings[key] = beginning
            waiting.setdefault(beginning, []).append(text)
        for key in [*self._beginnings][: -_KEPT - self._max_rows]:
            del self._beginnings[key]
        until = time.monotonic() + _TICK_SECONDS
        queue = deque(sorted(waiting, key=lambda prefix: prefix.waits_since))
        while queue and time.monotonic() < until:
            beginning = queue[0]
            before = queue[0].fed
            if before < len(beginning.ids):
                self._call_isolated(waiting[beginning], partial(self._feed, beginning))
            queue.rotate(-1) if before < beginning.fed < len(beginning.ids) else queue.popleft()
        for beginning, some in waiting.items():
            if beginning.fed == len(beginning.ids):
                for text in some:
                    text.logits = beginning.logits
                    text.state = Slot(beginning.state, 0)
                    if text.scored > len(text.ids) or (
                        text.score_state is None and not text.out.scores_prompt
                    ):
                        # of tokens that it lost where it backtracked
                        del text.out.scores[len(text.ids) - text.out.first :]
                        text.scored = len(text.ids)
                        text.score_logits = text.logits
                        text.score_state = text.state

    def _feed(self, beginning: _CachedPrefix, _texts: Sequence[ServedText]) -> None:
        """Feed a part of a beginning, as much as a tick has time for.

        A stepper without a compiled step calls its model, whose last bits may depend on where a
        text is cut: always after 512 tokens, as ``ModelStepper`` cuts it.
        """
        size = min(max(int(_TICK_SECONDS / self._fed_seconds), _MIN_CHUNK), _MAX_CHUNK)
        is_compiled = isinstance(self._stepper, SupportsCompiledStep)
        started = time.monotonic()
        part = beginning.ids[beginning.fed :][: size if is_compiled else _MAX_CHUNK]
        logits, beginning.state = self._stepper.forward(np.array([part], np.int64), beginning.state)
        beginning.logits, beginning.fed, beginning.waits_since = (
            logits[0],
            beginning.fed + len(part),
            time.monotonic(),
        )
        if len(part) >= _MIN_CHUNK:
            self._fed_seconds = max(
                (self._fed_seconds + (beginning.waits_since - started) / len(part)) / 2, 1e-9
            )

    def _step_for_a_while(self, texts: Sequence[ServedText]) -> None:
        """Advance texts token by token, until a tick is over or none is left that cannot go on in
        blocks.
        """
        until = time.monotonic() + _TICK_SECONDS
        while texts and time.monotonic() < until:
            for group in _grouped(texts, lambda text: text.job):
                self._call_isolated(group, self._step)
            going = [text for text in texts if text.can_advance and text.logits is None]
            self._call_isolated(going, lambda some: some[0].job.decoder.forward(some))
            texts = [text for text in going if text.can_advance and not text.is_ready]

    def _step(self, texts: Sequence[ServedText]) -> None:
        """Give each of some texts of one job a token; those that continue have no logits then."""
        for text in texts[0].job.decoder.step(texts):
            text.logits = None

    def _sample_blocks(self, texts: Sequence[ServedText]) -> None:
        """Let the stepper sample texts in its own loop, those that sample alike together."""
        if not texts:
            return
        size = int(
            min(
                max(_TICK_SECONDS / (self._sampled_seconds * len(texts)) + 1, _MIN_NUMBERS),
                _MAX_NUMBERS,
            )
        )
        started = time.monotonic()
        before = sum(text.new_tokens for text in texts)
        parts = list[list[ServedText]]()
        # before the parts run in parallel: the job's spelling states are not thread-safe
        for text in texts:
            if text.place is None and text.job.decoder.spelling is not None:
                text.job.decoder.place(text)
        for group in _grouped(texts, lambda text: text.job.batch_key):
            number = min(self._threads, max(1, len(group) // _MIN_PART))
            parts += [group[first::number] for first in range(number)]
        blocks: list[tuple[Sequence[ServedText], np.ndarray]] = []

        def sample(part: Sequence[ServedText]) -> None:
            decoder = part[0].job.decoder
            numbers = max(size, _SURE_NUMBERS) if any(text.lacks_random for text in part) else size
            is_one_job = all(text.job is part[0].job for text in part)
            params = (
                decoder.params if is_one_job else decoder.params._replace(max_new_tokens=_NO_LIMIT)
            )
            blocks.append((part, decoder.sample_block(part, numbers, params)))

        run: Callable[..., Iterable[object]] = map if len(parts) == 1 else self._pool.map
        list(run(lambda part: self._call_isolated(part, sample), parts))
        for part, table in blocks:
            for text, tokens in zip(part, table.tolist(), strict=True):
                # it raises if the logits are damaged
                self._call_isolated([text], partial(self._append, tokens))
        if (sampled := sum(text.new_tokens for text in texts) - before) > 0:
            self._sampled_seconds = (
                self._sampled_seconds + (time.monotonic() - started) / sampled
            ) / 2

    def _append(self, tokens: list[int], texts: Sequence[ServedText]) -> None:
        """Append the tokens of a block to a text."""
        text = texts[0]
        count = texts[0].new_tokens
        text.job.decoder.append(text, tokens[: text.config.max_new_tokens - count])
        text.lacks_random = text.new_tokens == count

    def _score_for_a_while(self, texts: Sequence[ServedText]) -> None:
        """Score the tokens of texts one by one, until a tick is over or none is left."""
        until = time.monotonic() + _TICK_SECONDS
        while (
            texts := [text for text in texts if text.is_unscored and not text.job.is_stopped]
        ) and time.monotonic() < until:
            self._call_isolated(texts, self._score)

    def _score(self, texts: Sequence[ServedText]) -> None:
        """Score the next token of some texts, and feed it."""
        for text in texts:
            if text.score_state is None:  # a prompt is scored from its beginning
                logits, state = self._stepper.forward(
                    np.array([text.prefix], np.int64), self._stepper.initial_state(1)
                )
                text.score_logits = logits[0]
                text.score_state = Slot(state, 0)
        scores = list[Scored]()
        fed = [text for text in texts if text.scored < len(text.ids)]
        for text in texts:
            assert text.score_logits is not None
            token = text.ids[text.scored] if text.scored < len(text.ids) else self._tokenizer.eos_id
            scores.append(
                score_token(
                    text.score_logits, token, text.job.submission.alternatives or 0, text.pieces
                )
            )
        if fed:
            ids = np.array([[text.ids[text.scored]] for text in fed], np.int64)
            logits, state = self._stepper.forward(
                ids, gather([text.score_state for text in fed if text.score_state])
            )
        for text, scored in zip(texts, scores, strict=True):  # now that nothing has raised
            # not of a part of the prompt
            text.out.scores += [scored] if text.scored >= text.out.first else []
        for row, text in enumerate(fed):
            text.scored = text.scored + 1
            text.score_logits = logits[row]
            text.score_state = Slot(state, row)

    def _call_isolated(
        self, texts: Sequence[ServedText], advance: Callable[[Sequence[ServedText]], object]
    ) -> None:
        """Call a function with some texts; if it raises, call it for each job alone, and fail the
        jobs that raise again.
        """
        try:
            if texts:
                advance(texts)
        except Exception as error:  # a model or a logits processor may raise anything
            groups = _grouped(texts, lambda text: text.job)
            for group in groups:
                if len(groups) == 1:
                    group[0].job.fail(error)
                else:
                    self._call_isolated(group, advance)


def _schedule(jobs: Sequence[ActiveRequest], max_rows: int) -> list[ServedText]:
    """Return the texts of some jobs, in the order of their submission, that are advanced next.

    A request for many texts leaves room for every other job, and uses all remaining capacity. If
    there are more jobs than room, those that came first have it.
    """
    going = [job for job in jobs if job.is_schedulable]
    scheduled = list[ServedText]()
    before = -1
    for index in count():
        if len(scheduled) in (before, max_rows):
            break
        before = len(scheduled)
        scheduled += islice(
            (text for job in going if (text := job.text(index)) is not None), max_rows - before
        )
    return scheduled


def _grouped(
    texts: Sequence[ServedText], key: Callable[[ServedText], Hashable]
) -> list[list[ServedText]]:
    """Return texts by a key, in order."""
    groups: dict[Hashable, list[ServedText]] = {}
    for text in texts:
        groups.setdefault(key(text), []).append(text)
    return list(groups.values())
