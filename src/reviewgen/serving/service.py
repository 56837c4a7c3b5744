"""Requests for completions: each is read, handed to the engine of its model, and answered whole or
as a stream.

A request that the server ends, as where the time after a signal is over, ends with an error.
"""

import asyncio
import contextlib
import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reviewgen.errors import ReviewgenError
from reviewgen.generation.generator import require_index
from reviewgen.serving.engine import ActiveRequest, Engine
from reviewgen.serving.options import Limits, accepts_key
from reviewgen.serving.protocol import (
    RequestError,
    find_model,
    parse_object,
    read_call,
    read_embedding,
    to_completion,
    to_request_error,
)
from reviewgen.serving.response import Completion

# bytes: a larger one is read by another thread, since it may take tenths of a second
_LARGE_BODY = 32_768
_FLUSH_SECONDS = 0.02  # between two parts of a stream; tokens that come sooner share one
# added for each request: the more requests, the larger the parts
_FLUSH_SECONDS_PER_REQUEST = 0.001
_MAX_FLUSH_SECONDS = 0.1  # between two parts of a stream, however many requests there are
_LATE_SECONDS = 10.0  # after its time limit, by which the engine ends a request
_LAST_SECONDS = 1.0  # for the error of a stream that is ended: a reader that stalls gets nothing
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_EVENT = (b"data: ", b"\n\n")  # around the JSON of a server-sent event
_DONE = b"data: [DONE]\n\n"  # the last server-sent event
# X-Accel-Buffering: nginx would collect the parts
_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
_WHOLE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class ClientGone(Exception):
    """The client has closed the connection."""


class ServerMetrics:
    """The numbers of a server, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        model = ["model"]
        options: dict[str, Any] = {"namespace": "reviewgen", "registry": self.registry}
        live = options | {"multiprocess_mode": "livesum"}
        self.requests = Counter(
            "requests",
            "Completions by model and status of the response.",
            ["model", "status"],
            **options,
        )
        self.tokens = Counter("tokens", "Tokens by model and kind.", ["model", "kind"], **options)
        self.disconnects = Counter(
            "disconnects", "Requests whose client went away before the end.", model, **options
        )
        first = "time_to_first_token_seconds", "From a request to its first token."
        self.first_token = Histogram(*first, model, buckets=_FIRST, **options)
        self.seconds = Histogram(
            "request_seconds", "From a request to its end.", model, buckets=_WHOLE, **options
        )
        self.live = Gauge("live_rows", "Texts in progress.", model, **live)
        self.waiting = Gauge("waiting_rows", "Texts that wait.", model, **live)


class Service:
    """The models of a server with their engines.

    Args:
        engines: The engine of each model, by its name.
        limits: The limits of a request.
        key_digests: The SHA-256 of each accepted key; None accepts every request.

    Attributes:
        answering: The number of requests for completions in progress.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        limits: Limits,
        key_digests: Sequence[str] | None = None,
    ) -> None:
        self.engines = dict(engines)
        self.limits = limits
        self.metrics = ServerMetrics()
        self._key_digests = key_digests
        self.answering = 0
        # one index is built, or request embedded, at a time
        self._guarding = {name: asyncio.Lock() for name in engines}

    def close(self) -> None:
        """Stop the engines."""
        for engine in self.engines.values():
            engine.close(timeout=5.0)

    @property
    def stopped(self) -> list[str]:
        """The models whose engine has stopped: the server should be replaced."""
        return [name for name, engine in self.engines.items() if not engine.thread.is_alive()]

    def authorize(self, request: Request) -> None:
        """Check the key of a request.

        Raises:
            RequestError: It has none, or another one.
        """
        header = request.headers.get("authorization", "")
        if self._key_digests is not None and not accepts_key(self._key_digests, header):
            what = (
                "The API key is not one of this server's"
                if header
                else "The request has no API key"
            )
            headers = {"www-authenticate": "Bearer"}
            raise RequestError(
                401, f"{what}: send Authorization: Bearer KEY.", None, "invalid_api_key", headers
            )

    def read(self, body: bytes, is_chat: bool) -> Completion:
        """Return the request of a body.

        Raises:
            RequestError: A field is wrong.
        """
        models = {name: engine.model for name, engine in self.engines.items()}
        fields = parse_object(body)
        return Completion(
            read_call(to_completion(fields) if is_chat else fields, models, self.limits), is_chat
        )

    async def embed(self, request: Request) -> Response:
        """Return the response to a request for the vectors of some texts; others go on while a
        model computes them.

        Raises:
            RequestError: A field is wrong, or the model has no hidden state.
        """
        fields = parse_object(await _read_body(request, self.limits))
        name = find_model(fields.get("model"), list(self.engines))
        texts = read_embedding(fields, self.limits)
        model = self.engines[name].model
        is_base64 = fields.get("encoding_format") == "base64"

        def answer() -> bytes:
            vectors = model.embed(texts)
            tokens = sum(len(model.tokenizer.encode(text)) for text in texts)
            coded = [
                b64encode(vector.astype("<f4")).decode() if is_base64 else vector.tolist()
                for vector in vectors
            ]
            data = [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(coded)
            ]
            usage = {"prompt_tokens": tokens, "total_tokens": tokens}
            return _to_json({"object": "list", "model": name, "data": data, "usage": usage})

        try:
            with self.metrics.seconds.labels(name).time():
                async with self._guarding[name]:
                    return Response(await asyncio.to_thread(answer), media_type="application/json")
        except ReviewgenError as error:
            raise to_request_error(error) from None

    async def submit(self, completion: Completion, notify: Callable[[], object]) -> ActiveRequest:
        """Start to generate the texts of a request; others go on while an index is built for it.

        Raises:
            RequestError: The queue is full, or the model lacks what the request needs.
        """
        engine = self.engines[completion.call.model]
        request = completion.call.submission.request
        guard = None
        try:
            if request.novelty is not None:
                async with self._guarding[completion.call.model]:
                    guard = await asyncio.to_thread(engine.generator.guard, request)
            waiting = engine.waiting
            if waiting + len(request.prompts) > self.limits.max_waiting:
                message = (
                    f"The queue is full, with {waiting:,} waiting: try again in a moment, or ask"
                    " for fewer texts."
                )
                raise RequestError(429, message, code="queue_full", headers={"retry-after": "1"})
            return engine.submit(completion.call.submission, notify, guard)
        except ReviewgenError as error:
            raise to_request_error(error) from None


@dataclass
class CompletionResponse:
    """The response to one request for a completion: an ASGI application.

    Attributes:
        service: The server's models and engines.
        request: The request.
        is_chat: Whether it is one for a chat completion.
        completion, job: What was asked for, and the engine's work on it.
        model: The name of its model; empty until the request is read.
        status: The status of the response; "none" until it has begun.
    """

    service: Service
    request: Request
    is_chat: bool = False
    completion: Completion = field(init=False)
    job: ActiveRequest = field(init=False)
    model: str = ""
    status: str = "none"
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request, generate the texts and send them; stop if the client disconnects.

        Raises:
            RequestError: The request is refused, or fails before anything was sent; a later failure
                is the stream's last event.
        """
        self.service.answering += 1
        try:
            self.service.authorize(self.request)
            body = await _read_body(self.request, self.service.limits)
            read = partial(self.service.read, body, self.is_chat)
            self.completion = await asyncio.to_thread(read) if len(body) > _LARGE_BODY else read()
            self.model = self.completion.call.model
            await self._answer(scope, receive, send)
        except (ClientGone, TimeoutError):  # TimeoutError: a reader that reads nothing
            self.service.metrics.disconnects.labels(self.model).inc()
        except (RequestError, asyncio.CancelledError) as error:  # CancelledError: the server ends
            headers = {"retry-after": "5", "connection": "close"}
            ending = RequestError(
                503,
                "The server is shutting down: the text is not finished.",
                None,
                "shutting_down",
                headers,
            )
            problem = error if isinstance(error, RequestError) else ending
            if self.status == "none":
                self.status = str(problem.status)
                raise problem from None
            if self.completion.call.fields.stream:
                last = await self._encode(lambda: [problem.to_json()], *_EVENT)
                with contextlib.suppress(TimeoutError):
                    await self._send(send, last + _DONE, _LAST_SECONDS, is_last=True)
        except Exception:
            self.status = "500"
            raise
        finally:
            self.service.answering -= 1
            self.service.metrics.requests.labels(self.model, self.status).inc()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request to the engine, and send what it generates."""
        metrics = self.service.metrics
        completion = self.completion
        started = time.perf_counter()
        name = {"x-request-id": completion.id}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.service.limits.request_seconds + _LATE_SECONDS
        self.job = await self.service.submit(
            completion, lambda: loop.call_soon_threadsafe(self._woken.set)
        )
        watching = asyncio.create_task(self._watch(receive))
        try:
            while not completion.is_over:
                await self._advance(deadline)
                if completion.call.fields.stream:
                    if self.status == "none":
                        metrics.first_token.labels(self.model).observe(
                            time.perf_counter() - started
                        )
                        headers = Headers(_STREAM_HEADERS | name)
                        await send(
                            {"type": "http.response.start", "status": 200, "headers": headers.raw}
                        )
                        self.status = "200"
                    if data := await self._encode(completion.chunks, *_EVENT):
                        await self._send(send, data, self.service.limits.stall_seconds)
            if completion.call.fields.stream:
                last = await self._encode(lambda: completion.last_chunks(self.job.started), *_EVENT)
                await self._send(
                    send, last + _DONE, self.service.limits.stall_seconds, is_last=True
                )
            else:
                body = await self._encode(lambda: [completion.whole(self.job.started)])
                self.status = "200"
                await Response(body, headers=name, media_type="application/json")(
                    scope, receive, send
                )
        finally:
            watching.cancel()
            metrics.seconds.labels(self.model).observe(time.perf_counter() - started)
            self.job.cancel()
            usage = completion.usage(self.job.started)
            for kind in ("prompt", "completion"):
                metrics.tokens.labels(self.model, kind).inc(usage[f"{kind}_tokens"])

    async def _advance(self, deadline: float) -> None:
        """Wait until the texts have grown, and take in what is new.

        Raises:
            RequestError: The request has failed, or its time is over.
            ClientGone: The client is not there any more.
        """
        generator = self.service.engines[self.model].generator
        limit = self.service.limits.request_seconds
        if self.status != "none":  # a part of the stream was sent
            await asyncio.sleep(
                min(
                    _FLUSH_SECONDS + _FLUSH_SECONDS_PER_REQUEST * self.service.answering,
                    _MAX_FLUSH_SECONDS,
                )
            )
        try:
            async with asyncio.timeout_at(deadline):
                await self._woken.wait()
        except TimeoutError:
            raise RequestError(
                503, f"The request did not end within {limit:g} seconds.", code="timeout"
            ) from None
        self._woken.clear()
        if self.job.is_cancelled:
            raise ClientGone
        for news in self.job.take():
            choice = self.completion.choices[news.text.number]
            choice.read(news)
            # an index takes a while the first time
            if choice.is_over and self.job.submission.request.novelty is not None:
                index = require_index(generator.index)
                choice.copied = (
                    await asyncio.to_thread(
                        index.examine, news.text.ids, generator.tokenizer.decode
                    )
                ).spans
        if self.job.error is not None:
            raise to_request_error(self.job.error)

    async def _encode(
        self, values: Callable[[], Iterable[Any]], before: bytes = b"", after: bytes = b""
    ) -> bytes:
        """Return some values as JSON; log probabilities in a thread, so that others go on
        meanwhile.
        """

        def encode() -> bytes:
            return b"".join(before + _to_json(value) + after for value in values())

        return (
            encode()
            if self.completion.call.fields.logprobs is None
            else await asyncio.to_thread(encode)
        )

    async def _send(self, send: Send, data: bytes, seconds: float, is_last: bool = False) -> None:
        """Send a part of a stream.

        Raises:
            TimeoutError: The client has not read for too long.
        """
        async with asyncio.timeout(seconds):
            await send({"type": "http.response.body", "body": data, "more_body": not is_last})

    async def _watch(self, receive: Receive) -> None:
        """Cancel the job once the client has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.job.cancel()
        self._woken.set()


def _to_json(value: Any) -> bytes:
    """Return a value as JSON, made piece by piece, so that other threads go on meanwhile."""
    return "".join(_JSON.iterencode(value)).encode()


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Return the body of a request, of which no more than the limit is read, in chunks or not.

    Raises:
        RequestError: It is not JSON by its content type or compressed (415), too large (413), or
            did not come in time (408).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise RequestError(
            415,
            f"The content type must be application/json; got {kind or 'none'}.",
            code="unsupported_media_type",
        )
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise RequestError(
            415,
            f"The body must not be compressed; its content encoding is {coding}.",
            code="unsupported_media_type",
        )
    headers = {"connection": "close"}  # the rest of it is not read
    too_large = RequestError(
        413,
        f"The body is larger than {limits.max_body:,} bytes: send less.",
        None,
        "body_too_large",
        headers,
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limits.max_body:
        raise too_large
    body = bytearray()
    now = asyncio.get_running_loop().time
    until = now() + limits.request_seconds
    try:
        async with asyncio.timeout_at(min(now() + limits.stall_seconds, until)) as limit:
            async for part in request.stream():
                body += part
                if len(body) > limits.max_body:
                    raise too_large
                limit.reschedule(min(now() + limits.stall_seconds, until))
    except TimeoutError:
        raise RequestError(
            408, "The body, or the next part of it, did not come in time.", None, "timeout", headers
        ) from None
    except ClientDisconnect:
        raise RequestError(
            400, "The connection was closed before the end of the body.", code="disconnected"
        ) from None
    return bytes(body)
