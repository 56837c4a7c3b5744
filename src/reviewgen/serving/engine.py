"""Engine: continuous batching for one model. One thread runs all requests in one batch, one step at
a time.

A text joins the batch at the next tick, and leaves it when the text is complete. Each text equals
the one that ``ReviewModel.generate`` returns for the same seed and number. A tick takes some dozen
milliseconds. In each tick, the engine

1. schedules at most ``max_rows`` texts: the first text of each request, then the second text of
   each, as long as there is room. Scheduling is preemptive: a text that is not scheduled keeps its
   state and resumes later.
2. feeds the prefixes of new texts (bos, conditions, prompt) in turns, a chunk of at most 512 tokens
   each time. This is chunked prefill (Agrawal et al. 2023, SARATHI). So a long prompt delays other
   texts by one chunk only: a new prompt is fed before the next chunk of a long prompt. A prefix
   cache keeps the latest states, since many requests begin with the same ids.
3. steps some texts token by token in Python, since they need the logits of each token: texts that
   are still inside the last word of their prompt, and texts with logits processors.
4. lets the stepper sample a block of tokens for each of the other texts, in the stepper's own loop.
   Texts with equal settings are sampled together; many texts are divided among several threads.
5. scores texts for requests that ask for log probabilities, of new tokens or also of prompts. For
   this, the tokens are fed once more, one by one. The next block of a text waits until the tokens
   of the text are scored.

A row does not depend on the other rows, so a text is the same alone and in a batch. An error of a
model or a logits processor ends its own request, never the engine.
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
from itertools import islice
from typing import NamedTuple

import numpy as np

from reviewgen.errors import GenerationError, ReviewgenError
from reviewgen.generation.decode import Decoder
from reviewgen.generation.detokenizer import Detokenizer, Scored, Token, score_token
from reviewgen.generation.generator import has_retries
from reviewgen.generation.request import Request
from reviewgen.generation.states import Slot, gather, stack_rows
from reviewgen.generation.text import Text
from reviewgen.model.review_model import ReviewModel
from reviewgen.novelty import CopyGuard
from reviewgen.protocols.stepper import StepState, SupportsCompiledStep

_LOG = logging.getLogger(__name__)
_TICK_SECONDS = 0.03  # time limit of each part of a tick: prefill, steps, blocks, scoring
_MAX_CHUNK = 512  # max tokens of a prompt that are fed at once
_MIN_CHUNK = 32  # min tokens of a prompt that are fed at once, even if a tick has time for fewer
# A new prompt counts as if it had already waited this long, so that it is fed before the next chunk
# of a long prompt.
_HEAD_START_SECONDS = 1.0
_KEPT_PREFIXES = 64  # number of entries of the prefix cache that are kept for later texts
_MIN_NUMBERS = 7  # min random numbers of a row in a block
_MAX_NUMBERS = 512  # max random numbers of a row in a block
_NUMBERS_OF_A_TOKEN = 32  # no token needs more random numbers
# Each thread reads all weights from memory. With fewer rows, this costs more than a thread gains.
_MIN_ROWS_OF_A_THREAD = 8
_MAX_THREADS = 4
# A request pauses while more characters than this wait for its consumer.
_MAX_UNREAD = 4096
_NO_LIMIT = np.iinfo(np.int64).max


class RequestTimeout(GenerationError):
    """The time of a request is over, and nothing was generated."""


@dataclass(frozen=True)
class EngineRequest:
    """A request as it is submitted to an engine: what to generate, and what to deliver of it.

    Attributes:
        request: The request, without beams and streamer.
        prompt_ids: The token ids of each text's prompt, without bos. If not None, these ids are fed
            in place of the encoded prompts.
        alternatives: How many alternatives to each token are delivered with the log probabilities.
            If None, no log probabilities are computed.
        is_streamed: Whether the parts of a text are delivered as it grows; otherwise, only the
            complete text is.
        is_echoed: Whether a text is delivered with its prompt.
        scores_prompts: Whether the tokens of the prompts are scored and delivered, too. This needs
            ``prompt_ids``, ``alternatives`` and ``is_echoed``.
    """

    request: Request
    prompt_ids: Sequence[Sequence[int]] | None = None
    alternatives: int | None = None
    is_streamed: bool = True
    is_echoed: bool = False
    scores_prompts: bool = False


@dataclass(eq=False, kw_only=True)
class ServedText(Text):
    """A text of a request, after its generation has started.

    Attributes:
        request: The request of the text; ``number`` is the index of the text in this request.
        out: Decides which characters and tokens may be delivered, and keeps the scores.
        lacks_random: Whether the last block had too few random numbers for a token.
        scored: How many ids of the text were scored, or need no score.
        score_logits, score_state: The model's logits and state after the first ``scored`` ids; None
            until they are known.
    """

    request: "ActiveRequest"
    out: Detokenizer = field(init=False)
    lacks_random: bool = False
    scored: int = 0
    score_logits: np.ndarray | None = None
    score_state: Slot | None = None

    @property
    def can_advance(self) -> bool:
        """Whether the text can get its next token."""
        is_going = self.state is not None and self.finish_reason is None
        return is_going and not self.request.is_stopped and not self.is_scoring_prompt

    @property
    def is_ready(self) -> bool:
        """Whether the text can get its next tokens in a block."""
        return self.can_advance and self.request.decoder.is_ready(self)

    @property
    def is_scoring_prompt(self) -> bool:
        """Whether the prompt of the text must still be scored."""
        return self.out.scores_prompt and self.scored < self.prompt_tokens

    @property
    def has_unscored_tokens(self) -> bool:
        """Whether the text has tokens that must be scored before its next block or its end."""
        tokens = len(self.ids) - self.out.first
        if self.finish_reason == "end":
            tokens += 1  # eos is scored, too
        return self.out.wants_scores and len(self.out.scores) < tokens


class TextDelta(NamedTuple):
    """The new part of a text, as it is delivered to the consumer.

    Attributes:
        served: The text in the engine. Its attributes are final once the text is complete.
        new_text: The new characters. Those of a text begin after its prompt, or with its prompt if
            prompts are echoed.
        tokens: The new tokens, if log probabilities are computed.
        is_over: Whether the text is complete.
    """

    served: ServedText
    new_text: str
    tokens: Sequence[Token]
    is_over: bool


@dataclass(eq=False)
class _CachedPrefix:
    """An entry of the prefix cache.

    Attributes:
        ids: The ids of a text's beginning: bos, conditions, prompt.
        state, logits: The model's state and logits after the ids that were fed.
        fed: How many of the ids were fed.
        waits_since: When the last chunk was fed, in seconds of ``time.monotonic``. Before the first
            chunk: when the entry was made, less ``_HEAD_START_SECONDS``.
    """

    ids: tuple[int, ...]
    state: StepState
    logits: np.ndarray | None = None
    fed: int = 0
    waits_since: float = field(default_factory=lambda: time.monotonic() - _HEAD_START_SECONDS)

    @property
    def is_fed(self) -> bool:
        """Whether all ids were fed."""
        return self.fed == len(self.ids)


@dataclass(eq=False)
class ActiveRequest:
    """A submitted request; ``Engine.submit`` makes it.

    Attributes:
        submission, decoder: The submitted request, and its decoding loop.
        starts: For each text, a ``Text`` without new tokens, which is copied when the text is
            started.
        notify: Called in the engine's thread after a tick, if there are new parts of texts to take
            or the request has failed.
        wake: Called to wake the engine when it may have something to do.
        started: The texts that were started.
        texts: The started texts that are not complete, in order.
        error: Why the request has failed; None if it has not.
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
    _unread: deque[TextDelta] = field(default_factory=deque)

    def cancel(self) -> None:
        """End the request. May be called in any thread, and more than once."""
        self.is_cancelled = True
        self.wake()

    def take(self) -> Iterator[TextDelta]:
        """Yield the new parts of the texts. Called in the consumer's thread."""
        while self._unread:
            yield self._unread.popleft()
        self.wake()

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        if not isinstance(error, ReviewgenError):
            error = GenerationError(
                f"The request has failed: {type(error).__name__}: {error!s:.300}"
            )
        self.error = self.error or error

    def notify_consumer(self) -> None:
        """Notify the consumer if there are new parts of texts, or the request has failed. A
        consumer that has cancelled the request may be gone, so it is not notified.
        """
        if (self._unread or self.error is not None) and not self.is_cancelled:
            try:
                self.notify()
            except Exception:  # for example, its event loop is closed; other requests go on
                _LOG.exception("A consumer cannot be notified; its request ends.")
                self.cancel()

    @property
    def is_stopped(self) -> bool:
        """Whether the request was cancelled or has failed."""
        return self.is_cancelled or self.error is not None

    @property
    def is_schedulable(self) -> bool:
        """Whether texts of the request may be scheduled: the request must not be stopped, and not
        too many characters may wait for the consumer.
        """
        # a copy, since the consumer may take parts meanwhile; a part without characters counts as 1
        unread = sum(1 + len(delta.new_text) for delta in [*self._unread])
        return not self.is_stopped and unread <= _MAX_UNREAD

    @property
    def is_done(self) -> bool:
        """Whether the engine has nothing left to do for the request."""
        return self.is_stopped or (not self.texts and not self.waiting)

    @property
    def waiting(self) -> int:
        """The number of texts that were not started yet."""
        return len(self.starts) - len(self.started)

    @cached_property
    def batch_key(self) -> Hashable:
        """A key that is equal for requests whose texts can be sampled in one block."""
        params = self.decoder.params
        guard = self.decoder.guard
        # an array cannot be a key; max_new_tokens may differ, see ``_sample_block``
        settings = params._replace(temperatures=params.temperatures.tobytes(), max_new_tokens=0)  # type: ignore[arg-type]
        copy_limit = None if guard is None else (id(guard.windows), guard.run)
        return settings, copy_limit, id(self.decoder.spelling)

    def text(self, index: int) -> ServedText | None:
        """Return the text at an index of ``texts``. If the index is one too large, start a waiting
        text and return it. Return None if there is no such text and none waits.
        """
        if index == len(self.texts) and self.waiting:
            self._start_text()
        return self.texts[index] if index < len(self.texts) else None

    def _start_text(self) -> None:
        """Start the next waiting text: a copy of the text in ``starts``, with its own lists and its
        own random stream.
        """
        number = len(self.started)
        start = self.starts[number]
        submission = self.submission
        own_fields = {
            "ids": list(start.ids),
            "prefix": [start.prefix[0], *submission.request.prefix_of(number)],
            "rng": np.random.default_rng((submission.request.seed, number)),
            "number": number,
            "cursor": None if start.cursor is None else start.cursor.copy(),
        }
        text = ServedText(**vars(start) | own_fields, request=self)
        may_shrink = self.decoder.guard is not None or has_retries(submission.request)
        text.out = Detokenizer(
            text,
            start.config.stop_strings,
            is_whole=may_shrink or not submission.is_streamed,
            is_echoed=submission.is_echoed,
            wants_scores=submission.alternatives is not None,
            scores_prompt=submission.scores_prompts,
        )
        self.started.append(text)
        self.texts.append(text)

    def collect(self, text: ServedText) -> None:
        """Collect the new part of a text for the consumer. A text that is complete is removed from
        ``texts``.
        """
        is_over = text.finish_reason is not None
        if self.is_stopped or (is_over and text.has_unscored_tokens):
            return
        new_text, tokens = text.out.release()
        if new_text or tokens or is_over:
            self._unread.append(TextDelta(text, new_text, tokens, is_over))
        if is_over:
            text.state = text.logits = text.score_state = text.score_logits = None
            self.texts.remove(text)


class Engine:
    """Generates texts of one model for many requests at once. All methods may be called in any
    thread.

    Args:
        model: The model. Its weights must not be changed any more.
        max_rows: How many texts are advanced at the same time; other texts wait.

    Attributes:
        model, generator: The model, and its generator.
        thread: The engine's thread.

    Raises:
        GenerationError: The model's weights are damaged.
        BrokenPlugin: The model's state grows with the text, so that texts of different lengths
            cannot be advanced together.
    """

    def __init__(self, model: ReviewModel, max_rows: int = 64) -> None:
        self.model = model
        self.generator = model.generator
        self._max_rows = max_rows
        self._stepper = self.generator.stepper
        self._tokenizer = self.generator.tokenizer
        self._refuse_growing_state()
        # threads for the blocks of many texts
        self._threads = min(_MAX_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads, "reviewgen-block")
        self._inbox: deque[ActiveRequest] = deque()
        self._requests: list[ActiveRequest] = []
        self._prefixes: dict[tuple[int, ...], _CachedPrefix] = {}  # the most recently used is last
        self._fed_seconds = 1e-3  # estimated seconds to feed a token of a prompt
        self._sampled_seconds = 1e-3  # estimated seconds to sample a token of a row in a block
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._must_stop = False
        self.thread = threading.Thread(
            target=self._run, name=f"reviewgen-engine-{model.preset}", daemon=True
        )
        self.thread.start()

    def _refuse_growing_state(self) -> None:
        """Raise if the state grows with the text. This also compiles what the first text needs."""
        states = [self._stepper.initial_state(1)]
        for _ in range(2):
            states.append(self._feed_one([self._tokenizer.bos_id], states[-1])[1])
        stack_rows(states)  # raises if their shapes differ

    def _feed_one(self, ids: Sequence[int], state: StepState) -> tuple[np.ndarray, StepState]:
        """Feed ids of one text. Return the logits (V,) and the state after the last id."""
        logits, after = self._stepper.forward(np.array([ids], np.int64), state)
        return logits[0], after

    def submit(
        self,
        submission: EngineRequest,
        notify: Callable[[], object],
        guard: CopyGuard | None = None,
    ) -> ActiveRequest:
        """Start to generate the texts of a request. The request's ``max_time`` counts from now.

        Args:
            submission: The request.
            notify: Called in the engine's thread after a tick, if there are new parts of texts to
                take or the request has failed. It must return quickly.
            guard: The copied spans that must not be completed: ``generator.guard(request)``, which
                may take seconds.

        Returns:
            The active request, from which the consumer takes the new parts of the texts, and which
            it can cancel. A request with more than ``_MAX_UNREAD`` unread characters pauses until
            its consumer has caught up.

        Raises:
            DataError: The request needs a lexicon that the model does not have.
            GenerationError: The engine was closed.
        """
        request = submission.request
        prompts: Sequence[str | tuple[int, ...]] = request.prompts
        if submission.prompt_ids is not None:
            prompts = [tuple(ids) for ids in submission.prompt_ids]
        # equal prompts are encoded once
        start_of = {
            prompt: self.generator.text(request, prompt, 0) for prompt in dict.fromkeys(prompts)
        }
        starts = [start_of[prompt] for prompt in prompts]
        decoder = self.generator.decoder(request, guard, request.deadline(), starts)
        active = ActiveRequest(submission, decoder, starts, notify, self._wake.set)
        with self._lock:
            if self._must_stop:
                raise GenerationError("The engine was closed, so it takes no more requests.")
            self._inbox.append(active)
        self._wake.set()
        return active

    @property
    def live(self) -> int:
        """The number of texts in progress."""
        # a copy of the list, since the engine's thread may change it meanwhile
        return sum(len(request.texts) for request in [*self._requests])

    @property
    def waiting(self) -> int:
        """The number of texts that were not started yet."""
        return sum(request.waiting for request in [*self._requests, *self._inbox])

    def close(self, timeout: float | None = None) -> None:
        """Take no more requests, let those in progress fail, and end the thread.

        Args:
            timeout: The seconds to wait for the end of the thread. If the model takes longer for a
                step, the requests fail as soon as the step is done.
        """
        with self._lock:
            self._must_stop = True
        self._wake.set()
        self.thread.join(timeout)

    def _run(self) -> None:
        """Advance the requests until the engine is closed. This runs in the engine's thread."""
        while not self._must_stop:
            while self._inbox:
                self._requests.append(self._inbox.popleft())
            if not self._tick():
                self._wake.wait()
                # cleared before the inbox is read again, so no request is missed
                self._wake.clear()
            self._requests = [request for request in self._requests if not request.is_done]
        for request in [*self._requests, *self._inbox]:
            request.fail(GenerationError("The server was shut down before the text was complete."))
            request.notify_consumer()
        self._pool.shutdown()

    def _tick(self) -> bool:
        """Advance the requests and notify their consumers; return whether there was work."""
        texts = _schedule(self._requests, self._max_rows)
        try:
            for text in texts:
                if text.config.max_new_tokens == 0 and text.finish_reason is None:
                    text.finish_unextended()
                # without the scores of the prompts, there is nothing to answer
                if text.request.decoder.finish_if_late([text]) and text.is_scoring_prompt:
                    text.request.fail(
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
            self._sample_blocks(
                [text for text in texts if text.is_ready and not text.has_unscored_tokens]
            )
            self._score_for_a_while(texts)
            for text in texts:
                text.request.collect(text)
        # an error of the engine itself ends the requests, not the engine
        except Exception as error:
            _LOG.exception("The engine has failed; its requests end.")
            for request in self._requests:
                request.fail(error)
        for request in self._requests:
            request.notify_consumer()
        return len(texts) > 0

    def _prefill(self, texts: Sequence[ServedText]) -> None:
        """Feed, in turns, the prefixes of texts that have no state yet. The prefix that has waited
        longest is first.
        """
        waiting: dict[_CachedPrefix, list[ServedText]] = {}
        for text in texts:
            ids = (*text.prefix, *text.ids)
            # removed and inserted again, so that the most recently used entry is the last
            prefix = self._prefixes.pop(ids, None) or _CachedPrefix(
                ids, self._stepper.initial_state(1)
            )
            self._prefixes[ids] = prefix
            waiting.setdefault(prefix, []).append(text)
        # keep only the entries that were used most recently
        for ids in [*self._prefixes][: -_KEPT_PREFIXES - self._max_rows]:
            del self._prefixes[ids]
        until = time.monotonic() + _TICK_SECONDS
        queue = deque(sorted(waiting, key=lambda prefix: prefix.waits_since))
        while queue and time.monotonic() < until:
            prefix = queue.popleft()
            fed_before = prefix.fed
            if not prefix.is_fed:
                self._call_isolated(waiting[prefix], partial(self._feed, prefix))
            has_failed = prefix.fed == fed_before
            if not prefix.is_fed and not has_failed:
                queue.append(prefix)
        for prefix, prefix_texts in waiting.items():
            if prefix.is_fed:
                for text in prefix_texts:
                    _start_after(text, prefix)

    def _feed(self, prefix: _CachedPrefix, _texts: Sequence[ServedText]) -> None:
        """Feed the next chunk of a prefix. With a compiled stepper, the chunk has as many tokens as
        a tick has time for.

        Other steppers call their model. The last bits of a model's results may depend on where the
        ids are cut into chunks. So these chunks always have 512 tokens, as in ``ModelStepper``.
        """
        size = _MAX_CHUNK
        if isinstance(self._stepper, SupportsCompiledStep):
            size = min(max(int(_TICK_SECONDS / self._fed_seconds), _MIN_CHUNK), _MAX_CHUNK)
        chunk = prefix.ids[prefix.fed :][:size]
        started = time.monotonic()
        prefix.logits, prefix.state = self._feed_one(chunk, prefix.state)
        prefix.fed += len(chunk)
        prefix.waits_since = time.monotonic()
        if len(chunk) >= _MIN_CHUNK:
            seconds = (prefix.waits_since - started) / len(chunk)
            self._fed_seconds = max((self._fed_seconds + seconds) / 2, 1e-9)

    def _step_for_a_while(self, texts: Sequence[ServedText]) -> None:
        """Advance texts token by token, until the time of a tick is over or all unfinished texts
        can go on in blocks.
        """
        until = time.monotonic() + _TICK_SECONDS
        while texts and time.monotonic() < until:
            for group in _grouped(texts, lambda text: text.request):
                self._call_isolated(group, self._step)
            # the texts that continue are fed in one batch, whatever their requests
            going = [text for text in texts if text.can_advance and text.logits is None]
            self._call_isolated(going, lambda batch: batch[0].request.decoder.forward(batch))
            texts = [text for text in going if text.can_advance and not text.is_ready]

    def _step(self, texts: Sequence[ServedText]) -> None:
        """Give each text of one request its next token. The logits of texts that continue are
        deleted, since they are out of date.
        """
        for text in texts[0].request.decoder.step(texts):
            text.logits = None

    def _sample_blocks(self, texts: Sequence[ServedText]) -> None:
        """Let the stepper sample blocks of tokens in its own loop. Texts with the same
        ``batch_key`` are sampled together.
        """
        if not texts:
            return
        # How many random numbers each text gets: as many as the tokens that a tick has time for,
        # since a token usually takes one number.
        numbers = int(_TICK_SECONDS / (self._sampled_seconds * len(texts))) + 1
        numbers = min(max(numbers, _MIN_NUMBERS), _MAX_NUMBERS)
        started = time.monotonic()
        tokens_before = sum(text.new_tokens for text in texts)
        # Do this before the threads start: the spelling states of a request are not thread-safe.
        for text in texts:
            if text.place is None and text.request.decoder.spelling is not None:
                text.request.decoder.place(text)
        groups: list[list[ServedText]] = []  # a group is sampled by one thread
        for same_key in _grouped(texts, lambda text: text.request.batch_key):
            parts = min(self._threads, max(1, len(same_key) // _MIN_ROWS_OF_A_THREAD))
            groups += [same_key[first::parts] for first in range(parts)]
        blocks: list[tuple[Sequence[ServedText], np.ndarray]] = []

        def sample(group: Sequence[ServedText]) -> None:
            """Sample a block of tokens for each text of a group, and add them to ``blocks``."""
            blocks.append((group, _sample_block(group, numbers)))

        run: Callable[..., Iterable[object]] = map if len(groups) == 1 else self._pool.map
        # the list is not used, but making it waits for all groups
        list(run(lambda group: self._call_isolated(group, sample), groups))
        for group, block in blocks:
            for text, tokens in zip(group, block.tolist(), strict=True):
                # appending raises if the logits are damaged
                self._call_isolated([text], partial(self._append, tokens))
        sampled = sum(text.new_tokens for text in texts) - tokens_before
        if sampled > 0:
            seconds = (time.monotonic() - started) / sampled
            self._sampled_seconds = (self._sampled_seconds + seconds) / 2

    def _append(self, tokens: list[int], texts: Sequence[ServedText]) -> None:
        """Append the tokens of a block to a text."""
        text = texts[0]
        new_before = text.new_tokens
        text.request.decoder.append(text, tokens[: text.config.max_new_tokens - new_before])
        text.lacks_random = text.new_tokens == new_before

    def _score_for_a_while(self, texts: Sequence[ServedText]) -> None:
        """Score the tokens of texts one by one, until the time of a tick is over or all tokens are
        scored.
        """
        until = time.monotonic() + _TICK_SECONDS
        while time.monotonic() < until:
            texts = [
                text for text in texts if text.has_unscored_tokens and not text.request.is_stopped
            ]
            if not texts:
                break
            self._call_isolated(texts, self._score)

    def _score(self, texts: Sequence[ServedText]) -> None:
        """Score the next token of each text, and feed the tokens that are not eos."""
        scores: list[Scored] = []
        fed: list[ServedText] = []
        states: list[Slot] = []
        for text in texts:
            if text.score_state is None:  # a prompt is scored from its beginning
                initial = self._stepper.initial_state(1)
                text.score_logits, state = self._feed_one(text.prefix, initial)
                text.score_state = Slot(state, 0)
            assert text.score_logits is not None
            token = self._tokenizer.eos_id
            if text.scored < len(text.ids):
                token = text.ids[text.scored]
                fed.append(text)
                states.append(text.score_state)
            alternatives = text.request.submission.alternatives or 0
            scores.append(score_token(text.score_logits, token, alternatives, text.pieces))
        if fed:
            ids = np.array([[text.ids[text.scored]] for text in fed], np.int64)
            logits, after = self._stepper.forward(ids, gather(states))
        for text, score in zip(texts, scores, strict=True):  # only now, when nothing has raised
            # ids before ``first`` belong to a prompt that is not scored
            if text.scored >= text.out.first:
                text.out.scores.append(score)
        for row, text in enumerate(fed):
            text.scored += 1
            text.score_logits = logits[row]
            text.score_state = Slot(after, row)

    def _call_isolated(
        self, texts: Sequence[ServedText], advance: Callable[[Sequence[ServedText]], object]
    ) -> None:
        """Call a function with some texts. If the function raises, call it again for the texts of
        each request alone, and fail the requests for which it raises again.
        """
        try:
            if texts:
                advance(texts)
        except Exception as error:  # a model or a logits processor may raise anything
            groups = _grouped(texts, lambda text: text.request)
            for group in groups:
                if len(groups) == 1:
                    group[0].request.fail(error)
                else:
                    self._call_isolated(group, advance)


def _start_after(text: ServedText, prefix: _CachedPrefix) -> None:
    """Give a text the state and the logits after its prefix. Scoring its new tokens starts from
    this state, too.
    """
    text.logits = prefix.logits
    text.state = Slot(prefix.state, 0)
    has_backtracked = text.scored > len(text.ids)
    is_new = text.score_state is None and not text.out.scores_prompt
    if has_backtracked or is_new:
        del text.out.scores[len(text.ids) - text.out.first :]  # scores of tokens that the text lost
        text.scored = len(text.ids)
        text.score_logits = text.logits
        text.score_state = text.state


def _sample_block(texts: Sequence[ServedText], numbers: int) -> np.ndarray:
    """Return the tokens (B, N) that the stepper samples for B texts with the same ``batch_key``. N
    is the number of random numbers for each text: ``numbers``, or more if a text had too few for a
    token in its last block.
    """
    request = texts[0].request
    params = request.decoder.params
    if any(text.request is not request for text in texts):  # each request has its own limit
        params = params._replace(max_new_tokens=_NO_LIMIT)
    if any(text.lacks_random for text in texts):
        numbers = max(numbers, _NUMBERS_OF_A_TOKEN)
    return request.decoder.sample_block(texts, numbers, params)


def _schedule(requests: Sequence[ActiveRequest], max_rows: int) -> list[ServedText]:
    """Return the texts that are advanced next: the first text of each request, then the second text
    of each, and so on, until there are ``max_rows``. ``requests`` are in the order in which they
    were submitted, so those that were submitted first have priority.
    """
    going = [request for request in requests if request.is_schedulable]
    scheduled: list[ServedText] = []
    index = 0
    while going and len(scheduled) < max_rows:
        # a generator: ``text`` starts a waiting text, so it is called only while there is room
        texts = (request.text(index) for request in going)
        taken = list(islice(filter(None, texts), max_rows - len(scheduled)))
        if not taken:
            break
        scheduled += taken
        index += 1
    return scheduled


def _grouped(
    texts: Sequence[ServedText], key: Callable[[ServedText], Hashable]
) -> list[list[ServedText]]:
    """Group texts by a key. The groups, and the texts in a group, keep their order."""
    groups: dict[Hashable, list[ServedText]] = {}
    for text in texts:
        groups.setdefault(key(text), []).append(text)
    return list(groups.values())
