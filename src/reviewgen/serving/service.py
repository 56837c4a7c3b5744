"""Requests on their way through the server: handed to the engine of their model, and answered whole or as a stream."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reviewgen.errors import ReviewgenError
from reviewgen.generation import Request
from reviewgen.serving.completion import Completion
from reviewgen.serving.engine import Engine
from reviewgen.serving.events import Event
from reviewgen.serving.inbox import ClientGone, Inbox, watch_client
from reviewgen.serving.jobs import Job
from reviewgen.serving.limits import Limits
from reviewgen.serving.metrics import Metrics
from reviewgen.serving.models import ServedModel
from reviewgen.serving.offline import is_offline
from reviewgen.serving.problems import Problem, problem_of, too_busy
from reviewgen.serving.protocol import find_model, make_call

_FLUSH_SECONDS = 0.02  # between two parts of a stream; tokens that come sooner share one
_FLUSH_SECONDS_PER_REQUEST, _MAX_FLUSH_SECONDS = 0.001, 0.1  # the more requests, the larger the parts
_LATE_SECONDS = 10.0  # after its time limit, by which the engine ends a request
_DONE = b"data: [DONE]\n\n"
_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_STREAM_HEADERS += [(b"x-accel-buffering", b"no")]  # nginx would collect the parts


class Service:
    """The models of a server with their engines, and the requests in progress.

    Args:
        models: The models.
        limits: The limits of a request.
        engines: The engines, by name, of models that have one already.

    Raises:
        ReviewgenError: A model cannot be served: its weights are damaged, or its state grows with the text.
    """

    def __init__(self, models: Sequence[ServedModel], limits: Limits, engines: Mapping[str, Engine]) -> None:
        self.models = {model.name: model for model in models}
        self.limits, self.metrics = limits, Metrics()
        self.engines = dict(engines)
        self._running: set[Inbox[Event]] = set()
        self._is_closing = False
        self._submitting: Counter[tuple[str, bool]] = Counter()  # texts that are on their way to an engine
        for name, each in self.models.items():
            if name in self.engines:
                continue
            try:
                self.engines[name] = Engine(each.model, max_rows=limits.max_rows)
            except ReviewgenError as error:
                self.close()
                raise type(error)(f"{name} cannot be served: {error}") from None

    def close(self) -> None:
        """Stop the engines."""
        for engine in self.engines.values():
            engine.close(drain=False, timeout=5.0)

    @property
    def is_ready(self) -> bool:
        """Whether new requests are accepted."""
        return not self._is_closing

    @property
    def flush_seconds(self) -> float:
        """The time between two parts of a stream."""
        return min(_FLUSH_SECONDS + _FLUSH_SECONDS_PER_REQUEST * len(self._running), _MAX_FLUSH_SECONDS)

    @property
    def stopped(self) -> list[str]:
        """The models whose engine has stopped: the server should be replaced."""
        return [name for name, engine in self.engines.items() if not engine.is_alive]

    def refuse_new(self) -> None:
        """Answer new requests with 503 from now on."""
        self._is_closing = True

    def end_running(self) -> None:
        """End all requests in progress with an error."""
        for inbox in list(self._running):
            inbox.stop(Problem(503, "The server is shutting down: the text is not finished.", code="shutting_down"))

    def metrics_text(self) -> bytes:
        """Return the numbers of the server, for Prometheus."""
        self.metrics.observe({name: engine.stats() for name, engine in self.engines.items()})
        return self.metrics.text()

    def find(self, name: str | None) -> ServedModel:
        """Return the model that a request is for; raises as ``find_model``."""
        return self.models[find_model(name, list(self.models))]

    def answer(self, body: Mapping[str, Any]) -> "Answer":
        """Return the answer to a request.

        Raises:
            Problem: A field is wrong, or the server is shutting down.
        """
        if self._is_closing:
            headers = {"retry-after": "5", "connection": "close"}
            raise Problem(503, "The server is shutting down.", code="shutting_down", headers=headers)
        name = body.get("model")
        if name is not None and not isinstance(name, str):
            raise Problem(400, f"model must be a string; got {name!r}.", "model", "invalid_value")
        served = self.find(name)
        call = make_call(body, served.model, self.limits)
        return Answer(self, Completion(served.name, call, served.model.tokenizer.bos_id, served.model.tokenizer.eos_id))

    @contextlib.contextmanager
    def place(self, model: str, request: Request) -> Iterator[None]:
        """Keep places in the queue for the texts of a request while it is submitted, which may wait for another thread.

        Raises:
            Problem: The queue is full.
        """
        kind, texts, stats = (model, is_offline(request)), len(request.prompts), self.engines[model].stats()
        waiting = (stats.offline_rows if kind[1] else stats.waiting_rows) + self._submitting[kind]
        if waiting + texts > self.limits.max_waiting:
            raise too_busy(waiting)
        self._submitting[kind] += texts
        try:
            yield
        finally:
            self._submitting[kind] -= texts


@dataclass
class Answer:
    """The response to one request: an ASGI application.

    Attributes:
        service: The server's models and engines.
        completion: The request.
    """

    service: Service
    completion: Completion

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate the texts and send them; the client's leaving stops them."""
        model, metrics = self.completion.model, self.service.metrics
        scope["reviewgen.model"] = model
        started = time.perf_counter()
        try:
            async with self._events(receive) as events:
                if self.completion.call.fields.stream:
                    await self._send_stream(events, send)
                else:
                    async for _ in events:
                        pass
                    body = await self._encoded(lambda: _encode(self.completion.whole(), self.completion.is_large))
                    await Response(body, headers=self._headers, media_type="application/json")(scope, receive, send)
        except (ClientGone, TimeoutError):  # TimeoutError: a reader that reads nothing
            metrics.disconnects.labels(model).inc()
        finally:
            metrics.seconds.labels(model).observe(time.perf_counter() - started)

    @property
    def _headers(self) -> dict[str, str]:
        return {"x-request-id": self.completion.id}

    @contextlib.asynccontextmanager
    async def _events(self, receive: Receive) -> AsyncIterator[AsyncIterator[None]]:
        """Submit the request; yield an iterator over the moments at which its texts have grown. At the end nothing runs on."""
        inbox: Inbox[Event] = Inbox()
        job = await self._submit(inbox)
        watch = asyncio.create_task(watch_client(receive, inbox))
        self.service._running.add(inbox)
        try:
            yield self._read(inbox, job)
        finally:
            job.cancel()
            watch.cancel()
            self.service._running.discard(inbox)
            for kind, count in zip(("prompt", "completion"), self.completion.sums(job.lengths()), strict=True):
                self.service.metrics.tokens.labels(self.completion.model, kind).inc(count)

    async def _submit(self, inbox: Inbox[Event]) -> Job:
        call, engine = self.completion.call, self.service.engines[self.completion.model]
        options: dict[str, Any] = {"tokens": call.needs_tokens, "score_prompts": call.fields.scores_prompts}
        submit = partial(engine.submit, call.request, inbox.deliver, call.alternatives, **options)
        try:
            with self.service.place(self.completion.model, call.request):
                if call.request.novelty is None:
                    return submit(prompt_ids=call.prompt_ids)
                return await asyncio.to_thread(submit, prompt_ids=call.prompt_ids)  # an index takes a moment the first time
        except ReviewgenError as error:
            raise problem_of(error) from None

    async def _read(self, inbox: Inbox[Event], job: Job) -> AsyncIterator[None]:
        """Yield each time the texts have grown, until they have ended; the engine waits for a consumer that lags far behind."""
        started, deadline = time.perf_counter(), time.monotonic() + self.service.limits.request_seconds + _LATE_SECONDS
        is_first = True
        while not self.completion.is_over:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    events = await inbox.take()
            except TimeoutError:
                seconds = f"{self.service.limits.request_seconds:g}"
                raise Problem(503, f"The request did not end within {seconds} seconds.", code="timeout") from None
            self.completion.read(events)
            if is_first and self.completion.call.fields.stream:
                self.service.metrics.first_token.labels(self.completion.model).observe(time.perf_counter() - started)
                is_first = False
            yield
            job.taken(len(events))

    async def _send_stream(self, events: AsyncIterator[None], send: Send) -> None:
        """Send server-sent events; what fails before the first of them has a status of its own."""
        await anext(events, None)
        headers = [*_STREAM_HEADERS, (b"x-request-id", self.completion.id.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        last = b""
        try:
            await self._send_chunks(send)
            while not self.completion.is_over:
                await asyncio.sleep(self.service.flush_seconds)
                await anext(events, None)
                await self._send_chunks(send)
            if self.completion.call.include_usage:
                last = _event(self.completion.last_chunk())
        except Problem as problem:
            last = _event(problem.to_json())
        await self._send_part(send, last + _DONE, is_last=True)

    async def _encoded(self, encode: Callable[[], bytes]) -> bytes:
        """Return what a function returns, which is called in a thread if it takes long."""
        return await asyncio.to_thread(encode) if self.completion.is_large else encode()

    async def _send_chunks(self, send: Send) -> None:
        is_large = self.completion.is_large
        if data := await self._encoded(lambda: b"".join(_event(chunk, is_large) for chunk in self.completion.chunks())):
            await self._send_part(send, data)

    async def _send_part(self, send: Send, data: bytes, is_last: bool = False) -> None:
        """Send a part of the response.

        Raises:
            TimeoutError: The client has not read for too long.
        """
        async with asyncio.timeout(self.service.limits.stall_seconds):
            await send({"type": "http.response.body", "body": data, "more_body": not is_last})


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _encode(value: Mapping[str, Any], is_large: bool = False) -> bytes:
    """Return the JSON of a value; of a large one piece by piece, since else no other thread would run meanwhile."""
    return ("".join(_JSON.iterencode(value)) if is_large else _JSON.encode(value)).encode("utf-8")


def _event(value: Mapping[str, Any], is_large: bool = False) -> bytes:
    """Return a server-sent event."""
    return b"data: " + _encode(value, is_large) + b"\n\n"
