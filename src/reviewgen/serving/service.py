"""Requests for completions on their way through the server: read, handed to the engine of their model, and answered whole or as
a stream. A request that the server ends, as where the time after a signal is over, ends with an error."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reviewgen.errors import ReviewgenError, counted
from reviewgen.generation import require_index
from reviewgen.serving.engine import Engine, Job
from reviewgen.serving.options import Limits, accepts_key
from reviewgen.serving.protocol import Problem, find_model, make_call, parse_object, problem_of, read_fields
from reviewgen.serving.response import Completion

_LARGE_BODY = 32_768  # bytes: a larger one is read by another thread, since it may take tenths of a second
_FLUSH_SECONDS = 0.02  # between two parts of a stream; tokens that come sooner share one
_FLUSH_SECONDS_PER_REQUEST, _MAX_FLUSH_SECONDS = 0.001, 0.1  # the more requests, the larger the parts
_LATE_SECONDS = 10.0  # after its time limit, by which the engine ends a request
_LAST_SECONDS = 1.0  # for the error of a stream that is ended: a reader that stalls gets nothing
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_EVENT = b"data: ", b"\n\n"  # around the JSON of a server-sent event
_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_STREAM_HEADERS += [(b"x-accel-buffering", b"no")]  # nginx would collect the parts
_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
_WHOLE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


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
    """The models of a server with their engines.

    Args:
        engines: The engine of each model, by its name.
        limits: The limits of a request.
        key_digests: The SHA-256 of each accepted key; None accepts every request.

    Attributes:
        answering: The number of requests for completions in progress.
    """

    def __init__(self, engines: Mapping[str, Engine], limits: Limits, key_digests: Sequence[str] | None = None) -> None:
        self.engines, self.limits, self.metrics, self._key_digests = dict(engines), limits, Metrics(), key_digests
        self.answering = 0
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

    def authorize(self, request: Request) -> None:
        """Check the key of a request.

        Raises:
            Problem: It has none, or another one.
        """
        given = request.headers.get("authorization", "")
        if self._key_digests is not None and not accepts_key(self._key_digests, given):
            what = "The API key is not one of this server's" if given else "The request has no API key"
            headers = {"www-authenticate": "Bearer"}
            raise Problem(401, f"{what}: send Authorization: Bearer KEY.", None, "invalid_api_key", headers)

    def read(self, body: bytes) -> Completion:
        """Return the request of a body.

        Raises:
            Problem: A field is wrong.
        """
        fields = read_fields(parse_object(body), self.limits)
        name = find_model(fields.model, list(self.engines))
        model = self.engines[name].model
        return Completion(name, make_call(fields, model, self.limits), model.tokenizer.bos_id, model.tokenizer.eos_id)

    async def submit(self, completion: Completion, notify: Callable[[], None]) -> Job:
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
            return engine.submit(completion.call.asked, notify, guard)
        except ReviewgenError as error:
            raise problem_of(error) from None


@dataclass
class Answer:
    """The response to one request for a completion: an ASGI application.

    Attributes:
        service: The server's models and engines.
        request: The request.
        status: The status of the response; "none" until it is known.
    """

    service: Service
    request: Request
    status: str = "none"
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _is_gone: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request, generate the texts and send them; the client's leaving stops them.

        Raises:
            Problem: The request is refused or fails before anything was sent.
        """
        service, model = self.service, ""
        service.answering += 1
        try:
            service.authorize(self.request)
            body = await _read_body(self.request, service.limits)
            completion = await asyncio.to_thread(service.read, body) if len(body) > _LARGE_BODY else service.read(body)
            model = completion.model
            await self._answer(completion, scope, receive, send)
        except (ClientGone, TimeoutError):  # TimeoutError: a reader that reads nothing
            service.metrics.disconnects.labels(model).inc()
        except asyncio.CancelledError:  # the server ends
            if self.status == "none":
                self.status = "503"
                raise _shutting_down() from None
        except Problem as problem:
            self.status = str(problem.status)
            raise
        except Exception:
            self.status = "500"
            raise
        finally:
            service.answering -= 1
            service.metrics.requests.labels(model, self.status).inc()

    async def _answer(self, completion: Completion, scope: Scope, receive: Receive, send: Send) -> None:
        metrics, model, started, job = self.service.metrics, completion.model, time.perf_counter(), None
        watching, loop = asyncio.create_task(self._watch(receive)), asyncio.get_running_loop()
        deadline = loop.time() + self.service.limits.request_seconds + _LATE_SECONDS
        try:
            job = await self.service.submit(completion, lambda: loop.call_soon_threadsafe(self._woken.set))
            await self._advance(completion, job, deadline)
            if completion.call.fields.stream:
                metrics.first_token.labels(model).observe(time.perf_counter() - started)
                await self._send_stream(completion, job, deadline, send)
            else:
                while not completion.is_over:
                    await self._advance(completion, job, deadline)
                body, headers = await _encode(completion, lambda: [completion.whole(job.started)]), _id_header(completion)
                self.status = "200"
                await Response(body, headers=headers, media_type="application/json")(scope, receive, send)
        finally:
            watching.cancel()
            metrics.seconds.labels(model).observe(time.perf_counter() - started)
            if job is not None:
                job.cancel()
                usage = completion.usage(job.started)
                for kind in ("prompt", "completion"):
                    metrics.tokens.labels(model, kind).inc(usage[f"{kind}_tokens"])

    async def _advance(self, completion: Completion, job: Job, deadline: float) -> None:
        """Wait until the texts have grown, and take in what is new.

        Raises:
            Problem: The request has failed, or its time is over.
            ClientGone: The client is not there any more.
        """
        engine, limit = self.service.engines[completion.model], self.service.limits.request_seconds
        try:
            async with asyncio.timeout_at(deadline):
                await self._woken.wait()
        except TimeoutError:
            raise Problem(503, f"The request did not end within {limit:g} seconds.", code="timeout") from None
        self._woken.clear()
        if self._is_gone:
            raise ClientGone
        for news in job.take():
            choice = completion.choices[news.source.number]
            choice.read(news)
            if choice.is_over and job.asked.request.novelty is not None:  # an index takes a while the first time
                index, decode = require_index(engine.generator.index), engine.generator.tokenizer.decode
                choice.copied = (await asyncio.to_thread(index.examine, news.source.ids, decode)).spans
        if job.error is not None:
            raise problem_of(job.error)

    async def _send_stream(self, completion: Completion, job: Job, deadline: float, send: Send) -> None:
        """Send server-sent events; what fails from now on is the last of them."""
        headers = [*_STREAM_HEADERS, *((name.encode(), value.encode()) for name, value in _id_header(completion).items())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self.status, stall_seconds = "200", self.service.limits.stall_seconds
        try:
            await self._send_chunks(completion, send)
            while not completion.is_over:
                await asyncio.sleep(self.service.flush_seconds)
                await self._advance(completion, job, deadline)
                await self._send_chunks(completion, send)
            last = completion.last_chunks(job.started)
        except Problem as problem:
            last = [problem.to_json()]
        except asyncio.CancelledError:
            last, stall_seconds = [_shutting_down().to_json()], min(stall_seconds, _LAST_SECONDS)
        before, after = _EVENT
        data = b"".join(before + part + after for part in [*map(_to_json, last), b"[DONE]"])
        await _send_part(send, data, stall_seconds, is_last=True)

    async def _send_chunks(self, completion: Completion, send: Send) -> None:
        if data := await _encode(completion, lambda: completion.chunks(), *_EVENT):
            await _send_part(send, data, self.service.limits.stall_seconds)

    async def _watch(self, receive: Receive) -> None:
        """Wake up once the client has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._woken.set()


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Return the body of a request, of which no more than the limit is read, in chunks or not.

    Raises:
        Problem: It is not JSON by its content type or compressed (415), too large (413), or did not come in time (408).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem(415, f"The content type must be application/json; got {kind or 'none'}.", code="unsupported_media_type")
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise Problem(415, f"The body must not be compressed; its content encoding is {coding}.", code="unsupported_media_type")
    headers = {"connection": "close"}  # the rest of it is not read
    too_large = Problem(413, f"The body is larger than {limits.max_body:,} bytes: send less.", None, "body_too_large", headers)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limits.max_body:
        raise too_large
    body, now = bytearray(), asyncio.get_running_loop().time
    until = now() + limits.request_seconds
    try:
        async with asyncio.timeout_at(min(now() + limits.stall_seconds, until)) as limit:
            async for part in request.stream():
                body += part
                if len(body) > limits.max_body:
                    raise too_large
                limit.reschedule(min(now() + limits.stall_seconds, until))
    except TimeoutError:
        raise Problem(408, "The body, or the next part of it, did not come in time.", None, "timeout", headers) from None
    except ClientDisconnect:
        raise Problem(400, "The connection was closed before the end of the body.", code="disconnected") from None
    return bytes(body)


async def _encode(completion: Completion, make: Callable[[], Iterable[Any]], before: bytes = b"", after: bytes = b"") -> bytes:
    """Return some values as JSON; log probabilities in a thread and piece by piece, so that others go on meanwhile."""
    if completion.call.fields.logprobs is None:
        return b"".join(before + _to_json(value) + after for value in make())
    values = await asyncio.to_thread(lambda: ["".join(_JSON.iterencode(value)).encode() for value in make()])
    return b"".join(before + value + after for value in values)


async def _send_part(send: Send, data: bytes, seconds: float, is_last: bool = False) -> None:
    """Send a part of the response.

    Raises:
        TimeoutError: The client has not read for too long.
    """
    async with asyncio.timeout(seconds):
        await send({"type": "http.response.body", "body": data, "more_body": not is_last})


def _to_json(value: Any) -> bytes:
    return _JSON.encode(value).encode()


def _id_header(completion: Completion) -> dict[str, str]:
    return {"x-request-id": completion.id}


def _shutting_down() -> Problem:
    headers = {"retry-after": "5", "connection": "close"}
    return Problem(503, "The server is shutting down: the text is not finished.", None, "shutting_down", headers)
