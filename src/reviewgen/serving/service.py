"""Handles requests for completions: reads each one, hands it to the engine of its model, and
answers whole or as a stream.

If the server cancels a request, for example when the time after a signal is over, the client gets
an error.
"""

import asyncio
import contextlib
import json
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
from reviewgen.novelty import Span
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

# A body of more bytes is parsed in another thread, since this may take tenths of a second.
_LARGE_BODY = 32_768
# seconds between two messages of a stream; tokens that come sooner share a message
_FLUSH_SECONDS = 0.02
# seconds that each request in progress adds to this pause, so that there are fewer messages
_FLUSH_SECONDS_PER_REQUEST = 0.001
# maximum seconds between two messages of a stream, however many requests there are
_MAX_FLUSH_SECONDS = 0.1
_LATE_SECONDS = 10.0  # the engine ends a request at most this long after its time limit
_LAST_SECONDS = 1.0  # seconds for sending the error with which a stream ends
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_EVENT = (b"data: ", b"\n\n")  # the bytes before and after the JSON of a server-sent event
_DONE = b"data: [DONE]\n\n"  # the last server-sent event
# x-accel-buffering: without this header, nginx would collect the messages
_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
# a header that says that a model has written the answer, as in draft-abaris-aicdh
_MARK = {"ai-disclosure": "mode=machine-generated"}
# the upper ends of the buckets of the histograms, in seconds
_FIRST_TOKEN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_REQUEST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class ClientGone(Exception):
    """The client has closed the connection."""


class ServerMetrics:
    """The numbers of a server, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        by_model = ["model"]  # the labels of a number that each model has
        options: dict[str, Any] = {"namespace": "reviewgen", "registry": self.registry}
        # a gauge of several workers is the sum over those that are alive
        live = options | {"multiprocess_mode": "livesum"}
        self.requests = Counter(
            "requests",
            "Completions by model and status of the response.",
            ["model", "status"],
            **options,
        )
        self.tokens = Counter("tokens", "Tokens by model and kind.", ["model", "kind"], **options)
        self.disconnects = Counter(
            "disconnects", "Requests whose client went away before the end.", by_model, **options
        )
        self.first_token = Histogram(
            "time_to_first_token_seconds",
            "From a request to its first token.",
            by_model,
            buckets=_FIRST_TOKEN_BUCKETS,
            **options,
        )
        self.seconds = Histogram(
            "request_seconds",
            "From a request to its end.",
            by_model,
            buckets=_REQUEST_BUCKETS,
            **options,
        )
        self.live = Gauge("live_rows", "Texts in progress.", by_model, **live)
        self.waiting = Gauge("waiting_rows", "Texts that wait.", by_model, **live)


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
        # a lock for each model: one index or format is made, or one request embedded, at a time
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
            RequestError: The request has no key, or one that is not accepted.
        """
        header = request.headers.get("authorization", "")
        if self._key_digests is not None and not accepts_key(self._key_digests, header):
            problem = "The request has no API key"
            if header:
                problem = "The API key is not one of this server's"
            message = f"{problem}: send Authorization: Bearer KEY."
            headers = {"www-authenticate": "Bearer"}
            raise RequestError(401, message, None, "invalid_api_key", headers)

    def read(self, body: bytes, is_chat: bool) -> Completion:
        """Parse a body, and return the request in it.

        Raises:
            RequestError: A field is wrong.
        """
        models = {name: engine.model for name, engine in self.engines.items()}
        fields = parse_object(body)
        if is_chat:
            fields = to_completion(fields)
        return Completion(**vars(read_call(fields, models, self.limits)), is_chat=is_chat)

    async def embed(self, request: Request) -> Response:
        """Return the response to a request for the vectors of some texts. Other requests go on
        while the model computes the vectors.

        Raises:
            RequestError: A field is wrong, or the model has no hidden state.
        """
        fields = parse_object(await _read_body(request, self.limits))
        name = find_model(fields.get("model"), list(self.engines))
        texts = read_embedding(fields, self.limits)
        model = self.engines[name].model

        def answer() -> bytes:
            """Compute the vectors, and return the response as JSON. Called in another thread."""
            vectors: list[Any] = list(model.embed(texts))
            if fields.get("encoding_format") == "base64":
                vectors = [b64encode(vector.astype("<f4")).decode() for vector in vectors]
            else:
                vectors = [vector.tolist() for vector in vectors]
            tokens = sum(len(model.tokenizer.encode(text)) for text in texts)
            data = [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(vectors)
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
        """Start to generate the texts of a request. If an index or a format must be made first,
        other requests go on meanwhile.

        Raises:
            RequestError: The queue is full, or the model lacks what the request needs.
        """
        engine = self.engines[completion.model]
        request = completion.submission.request
        guard = None
        try:
            if request.novelty is not None:
                async with self._guarding[completion.model]:
                    guard = await asyncio.to_thread(engine.generator.guard, request)
            if request.has_format:
                async with self._guarding[completion.model]:
                    await asyncio.to_thread(engine.generator.formats, request)
            waiting = engine.waiting
            if waiting + len(request.prompts) > self.limits.max_waiting:
                problem = f"The queue is full, with {waiting:,} waiting"
                message = f"{problem}: try again in a moment, or ask for fewer texts."
                raise RequestError(429, message, code="queue_full", headers={"retry-after": "1"})
            return engine.submit(completion.submission, notify, guard)
        except ReviewgenError as error:
            raise to_request_error(error) from None


@dataclass
class CompletionResponse:
    """The response to one request for a completion: an ASGI application.

    Attributes:
        service: The server's models and engines.
        request: The request.
        is_chat: Whether the request is for a chat completion.
        completion, active: The checked request, and the engine's work on it.
        model: The name of the model; empty until the request is read.
        status: The status of the response; "none" until it has begun.
    """

    service: Service
    request: Request
    is_chat: bool = False
    completion: Completion = field(init=False)
    active: ActiveRequest = field(init=False)
    model: str = ""
    status: str = "none"
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request, generate the texts and send them; stop if the client disconnects.

        Raises:
            RequestError: The request is refused, or fails before anything was sent. A later failure
                is sent as the last event of the stream.
        """
        self.service.answering += 1
        try:
            self.service.authorize(self.request)
            body = await _read_body(self.request, self.service.limits)
            read = partial(self.service.read, body, self.is_chat)
            self.completion = await asyncio.to_thread(read) if len(body) > _LARGE_BODY else read()
            self.model = self.completion.model
            await self._answer(scope, receive, send)
        except (ClientGone, TimeoutError):  # TimeoutError: the client reads nothing
            self.service.metrics.disconnects.labels(self.model).inc()
        except RequestError as problem:
            await self._fail(problem, send)
        except asyncio.CancelledError:  # the server ends
            message = "The server is shutting down: the text is not finished."
            headers = {"retry-after": "5", "connection": "close"}
            await self._fail(RequestError(503, message, None, "shutting_down", headers), send)
        except Exception:
            self.status = "500"
            raise
        finally:
            self.service.answering -= 1
            self.service.metrics.requests.labels(self.model, self.status).inc()

    async def _fail(self, problem: RequestError, send: Send) -> None:
        """Raise the problem if nothing was sent; otherwise send it as the last event of the
        stream.
        """
        if self.status == "none":
            self.status = str(problem.status)
            raise problem from None
        if self.completion.fields.stream:
            last = await self._encode(lambda: [problem.to_json()], *_EVENT)
            with contextlib.suppress(TimeoutError):
                await self._send(send, last + _DONE, _LAST_SECONDS, is_last=True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request to the engine, and send what it generates."""
        metrics = self.service.metrics
        loop = asyncio.get_running_loop()
        started = loop.time()
        self.active = await self.service.submit(
            self.completion, lambda: loop.call_soon_threadsafe(self._woken.set)
        )
        watching = asyncio.create_task(self._watch(receive))
        deadline = started + self.service.limits.request_seconds + _LATE_SECONDS
        headers = {"x-request-id": self.completion.id}
        if self.completion.is_synthetic:
            headers |= _MARK
        try:
            if self.completion.fields.stream:
                await self._stream(send, headers, started, deadline)
            else:
                while not self.completion.is_over:
                    await self._advance(deadline)
                body = await self._encode(lambda: [self.completion.whole(self.active.started)])
                self.status = "200"
                response = Response(body, headers=headers, media_type="application/json")
                await response(scope, receive, send)
        finally:
            watching.cancel()
            metrics.seconds.labels(self.model).observe(loop.time() - started)
            self.active.cancel()
            usage = self.completion.usage(self.active.started)
            for kind in ("prompt", "completion"):
                metrics.tokens.labels(self.model, kind).inc(usage[f"{kind}_tokens"])

    async def _stream(
        self, send: Send, headers: dict[str, str], started: float, deadline: float
    ) -> None:
        """Send the texts while they are generated."""
        stall_seconds = self.service.limits.stall_seconds
        first_token = self.service.metrics.first_token.labels(self.model)
        while not self.completion.is_over:
            await self._advance(deadline)
            if self.status == "none":
                first_token.observe(asyncio.get_running_loop().time() - started)
                raw = Headers(_STREAM_HEADERS | headers).raw
                await send({"type": "http.response.start", "status": 200, "headers": raw})
                self.status = "200"
            data = await self._encode(self.completion.chunks, *_EVENT)
            if data:
                await self._send(send, data, stall_seconds)
        last = await self._encode(lambda: self.completion.last_chunks(self.active.started), *_EVENT)
        await self._send(send, last + _DONE, stall_seconds, is_last=True)

    async def _advance(self, deadline: float) -> None:
        """Wait until the texts have grown, and add the new parts to ``completion.choices``.

        Raises:
            RequestError: The request has failed, or its time is over.
            ClientGone: The client has disconnected.
        """
        if self.status != "none":  # the stream has begun
            seconds = _FLUSH_SECONDS + _FLUSH_SECONDS_PER_REQUEST * self.service.answering
            await asyncio.sleep(min(seconds, _MAX_FLUSH_SECONDS))
        try:
            async with asyncio.timeout_at(deadline):
                await self._woken.wait()
        except TimeoutError:
            limit = self.service.limits.request_seconds
            message = f"The request did not end within {limit:g} seconds."
            raise RequestError(503, message, code="timeout") from None
        self._woken.clear()
        if self.active.is_cancelled:
            raise ClientGone
        for delta in self.active.take():
            choice = self.completion.choices[delta.served.number]
            choice.add(delta)
            if choice.is_over and self.completion.submission.request.novelty is not None:
                choice.copied = await self._find_copies(delta.served.ids)
        if self.active.error is not None:
            raise to_request_error(self.active.error)

    async def _find_copies(self, ids: Sequence[int]) -> Sequence[Span]:
        """Return the copied spans of a text. They are found in another thread, since the first use
        of an index takes a while.
        """
        generator = self.service.engines[self.model].generator
        index = require_index(generator.index)
        novelty = await asyncio.to_thread(index.examine, ids, generator.tokenizer.decode)
        return novelty.spans

    async def _encode(
        self, values: Callable[[], Iterable[Any]], before: bytes = b"", after: bytes = b""
    ) -> bytes:
        """Return some values as JSON, each between ``before`` and ``after``. If they have log
        probabilities, they are encoded in another thread, so that other requests go on meanwhile.
        """

        def encode() -> bytes:
            """Return the values as JSON."""
            return b"".join(before + _to_json(value) + after for value in values())

        has_logprobs = self.completion.fields.logprobs is not None
        return await asyncio.to_thread(encode) if has_logprobs else encode()

    async def _send(self, send: Send, data: bytes, seconds: float, is_last: bool = False) -> None:
        """Send a message of a stream.

        Raises:
            TimeoutError: The client has read nothing for ``seconds``.
        """
        async with asyncio.timeout(seconds):
            await send({"type": "http.response.body", "body": data, "more_body": not is_last})

    async def _watch(self, receive: Receive) -> None:
        """Cancel the request once the client has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.active.cancel()
        self._woken.set()


def _to_json(value: Any) -> bytes:
    """Return a value as JSON, encoded piece by piece, so that other threads go on meanwhile."""
    return "".join(_JSON.iterencode(value)).encode()


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Return the body of a request. Reading stops at the limit, whether or not the request declares
    its length.

    Raises:
        RequestError: The content type is not JSON, or the body is compressed (415), too large
            (413), or not complete in time (408) or before the connection was closed (400).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = request.headers.get("content-encoding", "identity")
    unsupported = None
    if kind != "application/json" and not kind.endswith("+json"):
        unsupported = f"The content type must be application/json; got {kind or 'none'}."
    elif coding != "identity":
        unsupported = f"The body must not be compressed; its content encoding is {coding}."
    if unsupported is not None:
        raise RequestError(415, unsupported, code="unsupported_media_type")
    headers = {"connection": "close"}  # the rest of the body is not read
    message = f"The body is larger than {limits.max_body:,} bytes: send less."
    too_large = RequestError(413, message, None, "body_too_large", headers)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limits.max_body:
        raise too_large
    body = bytearray()
    now = asyncio.get_running_loop().time  # a function
    until = now() + limits.request_seconds
    try:
        async with asyncio.timeout_at(min(now() + limits.stall_seconds, until)) as timeout:
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_body:
                    raise too_large
                timeout.reschedule(min(now() + limits.stall_seconds, until))
    except TimeoutError:
        message = "The body, or the next part of it, did not come in time."
        raise RequestError(408, message, None, "timeout", headers) from None
    except ClientDisconnect:
        message = "The connection was closed before the end of the body."
        raise RequestError(400, message, code="disconnected") from None
    return bytes(body)
