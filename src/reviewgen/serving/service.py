"""Requests on their way through the server: handed to the engine of their model, and answered whole or as a stream."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reviewgen.errors import ReviewgenError, counted
from reviewgen.generation import require_index
from reviewgen.serving.engine import Engine, Job, OutOfTime
from reviewgen.serving.options import Limits
from reviewgen.serving.protocol import Problem, find_model, make_call, problem_of, read_fields
from reviewgen.serving.response import Completion
from reviewgen.serving.texts import Event, Failed

_FLUSH_SECONDS = 0.02  # between two parts of a stream; tokens that come sooner share one
_FLUSH_SECONDS_PER_REQUEST, _MAX_FLUSH_SECONDS = 0.001, 0.1  # the more requests, the larger the parts
_LATE_SECONDS = 10.0  # after its time limit, by which the engine ends a request
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_EVENT = b"data: ", b"\n\n"  # around the JSON of a server-sent event
_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_STREAM_HEADERS += [(b"x-accel-buffering", b"no")]  # nginx would collect the parts
_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
_WHOLE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


_Inbox: TypeAlias = "asyncio.Queue[Sequence[Event] | None]"  # None: the client has gone


class ClientGone(Exception):
    """The client has closed the connection."""


class Metrics:
    """The numbers of a server, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name, model = "reviewgen_", ["model"]
        own: dict[str, Any] = {"registry": self.registry}
        live = own | {"multiprocess_mode": "livesum"}
        counted_by = "Completions by model and status of the response."
        self.requests = Counter(f"{name}requests", counted_by, ["model", "status"], **own)
        self.tokens = Counter(f"{name}tokens", "Tokens by model and kind.", ["model", "kind"], **own)
        self.disconnects = Counter(f"{name}disconnects", "Requests whose client went away before the end.", model, **own)
        first = f"{name}time_to_first_token_seconds", "From a request to its first token."
        self.first_token = Histogram(*first, model, buckets=_FIRST, **own)
        self.seconds = Histogram(f"{name}request_seconds", "From a request to its end.", model, buckets=_WHOLE, **own)
        self.live = Gauge(f"{name}live_rows", "Texts in progress.", model, **live)
        self.waiting = Gauge(f"{name}waiting_rows", "Texts that wait.", model, **live)


class Service:
    """The models of a server with their engines, and the requests in progress.

    Args:
        engines: The engine of each model, by its name.
        limits: The limits of a request.
    """

    def __init__(self, engines: Mapping[str, Engine], limits: Limits) -> None:
        self.engines, self.limits, self.metrics = dict(engines), limits, Metrics()
        self.answering = 0  # requests for completions
        self._guarding = {name: asyncio.Lock() for name in engines}  # one index is built at a time

    def close(self) -> None:
        """Stop the engines."""
        for engine in self.engines.values():
            engine.close(timeout=5.0)

    @property
    def flush_seconds(self) -> float:
        """The time between two parts of a stream."""
        return min(_FLUSH_SECONDS + _FLUSH_SECONDS_PER_REQUEST * self.answering, _MAX_FLUSH_SECONDS)

    @property
    def stopped(self) -> list[str]:
        """The models whose engine has stopped: the server should be replaced."""
        return [name for name, engine in self.engines.items() if not engine.thread.is_alive()]

    def answer(self, body: Mapping[str, Any]) -> "Answer":
        """Return the answer to a request.

        Raises:
            Problem: A field is wrong.
        """
        fields = read_fields(body, self.limits)
        name = find_model(fields.model, list(self.engines))
        model = self.engines[name].model
        call = make_call(fields, model, self.limits)
        return Answer(self, Completion(name, call, model.tokenizer.bos_id, model.tokenizer.eos_id))

    async def submit(self, completion: Completion, deliver: Callable[[Sequence[Event]], None]) -> Job:
        """Start to generate the texts of a request; others go on while an index is built for it.

        Raises:
            Problem: The queue is full, or the model lacks what the request needs.
        """
        engine, request, guard = self.engines[completion.model], completion.call.asked.request, None
        try:
            if request.novelty is not None:
                async with self._guarding[completion.model]:
                    guard = await asyncio.to_thread(engine.generator.guard, request)
            waiting = engine.waiting
            if waiting + len(request.prompts) > self.limits.max_waiting:
                are = "is" if waiting == 1 else "are"
                message = f"{counted(waiting, 'text')} {are} waiting already. Try again in a moment, or ask for fewer texts."
                raise Problem(429, message, code="queue_full", headers={"retry-after": "1"})
            return engine.submit(completion.call.asked, deliver, guard)
        except ReviewgenError as error:
            raise problem_of(error) from None


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
        started, job = time.perf_counter(), None
        inbox: _Inbox = asyncio.Queue()
        watching = asyncio.create_task(_watch(receive, inbox))
        loop = asyncio.get_running_loop()

        def deliver(events: Sequence[Event]) -> None:
            loop.call_soon_threadsafe(inbox.put_nowait, events)

        try:
            job = await self.service.submit(self.completion, deliver)
            events = self._read(inbox, job)
            if self.completion.call.fields.stream:
                await self._send_stream(events, job, send)
            else:
                async for _ in events:
                    pass
                lengths, headers = job.lengths(), {"x-request-id": self.completion.id}
                body = await self._encode(lambda: [self.completion.whole(lengths)])
                await Response(body, headers=headers, media_type="application/json")(scope, receive, send)
        except (ClientGone, TimeoutError):  # TimeoutError: a reader that reads nothing
            metrics.disconnects.labels(model).inc()
        finally:
            watching.cancel()
            metrics.seconds.labels(model).observe(time.perf_counter() - started)
            if job is not None:
                job.cancel()
                usage = self.completion.usage(job.lengths())
                for kind in ("prompt", "completion"):
                    metrics.tokens.labels(model, kind).inc(usage[f"{kind}_tokens"])

    async def _read(self, inbox: _Inbox, job: Job) -> AsyncIterator[None]:
        """Yield each time the texts have grown, until they have ended; the engine waits for a consumer that lags far behind."""
        limit, request = self.service.limits.request_seconds, self.completion.call.asked.request
        started, deadline = time.perf_counter(), time.monotonic() + limit + _LATE_SECONDS
        engine, is_first = self.service.engines[self.completion.model], bool(self.completion.call.fields.stream)
        while not self.completion.is_over:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    parts = [await inbox.get()] + [inbox.get_nowait() for _ in range(inbox.qsize())]
            except TimeoutError:
                raise Problem(503, f"The request did not end within {limit:g} seconds.", code="timeout") from None
            if None in parts:
                raise ClientGone
            events = [event for part in parts for event in part or ()]
            for event in events:
                if isinstance(event, Failed):
                    late = Problem(503, str(event.error), code="timeout")
                    raise late if isinstance(event.error, OutOfTime) else problem_of(event.error)
                choice = self.completion.choices[event.number]
                choice.read(event, self.completion.bos_id)
                if event.ended and request.novelty is not None:  # an index takes a while the first time
                    index, decode = require_index(engine.generator.index), engine.generator.tokenizer.decode
                    choice.copied = (await asyncio.to_thread(index.examine, event.ended.ids, decode)).spans
            if is_first:
                self.service.metrics.first_token.labels(self.completion.model).observe(time.perf_counter() - started)
                is_first = False
            yield
            job.taken(events)

    async def _send_stream(self, events: AsyncIterator[None], job: Job, send: Send) -> None:
        """Send server-sent events; what fails before the first of them has a status of its own."""
        await anext(events, None)
        headers = [*_STREAM_HEADERS, (b"x-request-id", self.completion.id.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        last: list[Any] = []
        try:
            await self._send_chunks(send)
            while not self.completion.is_over:
                await asyncio.sleep(self.service.flush_seconds)
                await anext(events, None)
                await self._send_chunks(send)
            if self.completion.include_usage:
                last = [self.completion.last_chunk(job.lengths())]
        except Problem as problem:
            last = [problem.to_json()]
        await self._send_part(send, end_of_stream(*last), is_last=True)

    async def _encode(self, make: Callable[[], list[Any]], before: bytes = b"", after: bytes = b"") -> bytes:
        """Return some values as JSON; log probabilities in a thread and piece by piece, so that others go on meanwhile."""
        if self.completion.call.fields.logprobs is None:
            return b"".join(before + _JSON.encode(value).encode() + after for value in make())
        values = await asyncio.to_thread(lambda: ["".join(_JSON.iterencode(value)).encode() for value in make()])
        return b"".join(before + value + after for value in values)

    async def _send_chunks(self, send: Send) -> None:
        if data := await self._encode(lambda: list(self.completion.chunks()), *_EVENT):
            await self._send_part(send, data)

    async def _send_part(self, send: Send, data: bytes, is_last: bool = False) -> None:
        """Send a part of the response.

        Raises:
            TimeoutError: The client has not read for too long.
        """
        async with asyncio.timeout(self.service.limits.stall_seconds):
            await send({"type": "http.response.body", "body": data, "more_body": not is_last})


async def _watch(receive: Receive, inbox: _Inbox) -> None:
    """Put None into an inbox once the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    inbox.put_nowait(None)


def end_of_stream(*values: Any) -> bytes:
    """Return the last part of a stream."""
    before, after = _EVENT
    return b"".join(before + _JSON.encode(value).encode() + after for value in values) + before + b"[DONE]" + after
