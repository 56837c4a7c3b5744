"""The application of the server: routes, keys, errors in OpenAI's format. Any ASGI server runs it."""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reviewgen.config import to_dict
from reviewgen.errors import ReviewgenError
from reviewgen.hub.card import brief_facts
from reviewgen.model import ReviewModel
from reviewgen.serving.engine import Engine
from reviewgen.serving.openapi import docs_page, openapi_document
from reviewgen.serving.options import Limits, accepts_key
from reviewgen.serving.protocol import Problem, find_model, parse_object
from reviewgen.serving.service import Answer, Service, end_of_stream

_LARGE_BODY = 32_768  # bytes: a larger one is read by another thread, since it may take tenths of a second
_LAST_SECONDS = 2.0  # for the errors of requests that are ended
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def create_app(
    models: Mapping[str, ReviewModel | Engine],
    *,
    limits: Limits | None = None,
    key_digests: Sequence[str] | None = None,
    cors_origins: Sequence[str] = (),
    hosts: Sequence[str] | None = None,
    page: bool = False,
) -> Starlette:
    """Return the application that serves some models; ``app.state.service`` has its engines.

    Requests that are cancelled by the ASGI server, as where the time after a signal is over, end with an error.

    Args:
        models: The models by the name that requests give, or engines that run them already, which are closed with the server.
        limits: The limits of a request.
        key_digests: The SHA-256 of each accepted key; None accepts every request.
        cors_origins: The origins whose pages may call the server from a browser.
        hosts: The names that requests may call the server by; None accepts any.
        page: Whether to serve the page that writes texts, at /.

    Raises:
        ReviewgenError: A model cannot be served; names it.
    """
    limits, engines = limits or Limits(), dict[str, Engine]()
    for name, given in models.items():
        try:
            engines[name] = given if isinstance(given, Engine) else Engine(given, max_rows=limits.max_rows)
        except ReviewgenError as error:
            Service(engines, limits).close()
            raise type(error)(f"{name} cannot be served: {error}") from None
    service = Service(engines, limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        until = time.monotonic() + _LAST_SECONDS
        while service.answering and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(service.close)

    middleware = [Middleware(_Completions, service=service)]
    if hosts is not None:
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False))
    if cors_origins:
        allowed: dict[str, Any] = {"allow_methods": ["GET", "POST"], "allow_headers": ["authorization", "content-type"]}
        middleware.append(Middleware(CORSMiddleware, allow_origins=list(cors_origins), **allowed))
    handlers: dict[Any, Any] = {Problem: _answer_problem, HTTPException: _answer_http, Exception: _answer_fault}
    app = Starlette(routes=_routes(page), middleware=middleware, exception_handlers=handlers, lifespan=lifespan)
    app.router.redirect_slashes = False  # it would redirect to whatever host the request names
    app.state.service, app.state.key_digests, app.state.created = service, key_digests, int(time.time())
    return app


def _routes(page: bool) -> list[Route]:
    return [
        Route("/v1/models", _list_models, methods=["GET"]),
        Route("/v1/models/{name:path}", _show_model, methods=["GET"]),
        Route("/v1/completions", _complete, methods=["POST"]),
        Route("/v1/chat/completions", _refuse_chat, methods=["POST"]),
        Route("/health", _health, methods=["GET"]),
        Route("/ready", _health, methods=["GET"]),
        Route("/metrics", _metrics, methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/docs", _docs, methods=["GET"]),
        *([Route("/", _page, methods=["GET"]), Route("/static/{name}", _static, methods=["GET"])] if page else []),
    ]


def _service(request: Request) -> Service:
    """Return the service, for a request that has one of the keys.

    Raises:
        Problem: It has none.
    """
    digests, given = request.app.state.key_digests, request.headers.get("authorization", "")
    if digests is not None and not accepts_key(digests, given):
        what = "The API key is not one of this server's" if given else "The request has no API key"
        headers = {"www-authenticate": "Bearer"}
        raise Problem(401, f"{what}: send Authorization: Bearer KEY.", None, "invalid_api_key", headers)
    service: Service = request.app.state.service
    return service


async def _list_models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_describe(request, name) for name in _service(request).engines]})


async def _show_model(request: Request) -> Response:
    return JSONResponse(_describe(request, find_model(request.path_params["name"], list(_service(request).engines))))


async def _complete(request: Request) -> Answer:
    service = _service(request)
    body = await _read_body(request, service.limits)

    def answer() -> Answer:
        return service.answer(parse_object(body))

    return await asyncio.to_thread(answer) if len(body) > _LARGE_BODY else answer()


async def _refuse_chat(request: Request) -> Response:
    _service(request)
    raise Problem(404, "These models complete a text and were not trained to chat: use POST /v1/completions.", code="not_found")


async def _health(request: Request) -> Response:
    if stopped := request.app.state.service.stopped:
        raise Problem(503, f"The engine of {', '.join(stopped)} has stopped: start the server again.", code="engine_stopped")
    return JSONResponse({"status": "ok"})


async def _metrics(request: Request) -> Response:
    metrics = _service(request).metrics
    for name, engine in _service(request).engines.items():
        metrics.live.labels(name).set(engine.live)
        metrics.waiting.labels(name).set(engine.waiting)
    registry = metrics.registry
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # each worker writes its numbers there, and any of them adds up all
        MultiProcessCollector(registry := CollectorRegistry())
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi_document(request.app.state.service.limits))


async def _docs(request: Request) -> Response:
    service = request.app.state.service
    return HTMLResponse(docs_page(openapi_document(service.limits), list(service.engines)))


async def _page(request: Request) -> Response:
    from reviewgen.web import page_for_server

    return HTMLResponse(page_for_server())


async def _static(request: Request) -> Response:
    from reviewgen.web import static_files

    file = static_files().get(request.path_params["name"])
    if file is None:
        raise Problem(404, "The page has no file of this name.", code="not_found")
    return FileResponse(file, media_type="text/javascript" if file.suffix == ".js" else "text/css")


def _describe(request: Request, name: str) -> dict[str, Any]:
    """Return what ``GET /v1/models`` says of a model: OpenAI's fields, and what a page needs to know, under ``reviewgen``."""
    model = _service(request).engines[name].model
    own = {
        "preset": model.preset,
        "conditions": model.conditions.to_json(),
        "defaults": to_dict(model.generation_config),
        "has_index": model.bundle.index is not None,
        "facts": brief_facts(model.bundle),
        "card": _FRONT_MATTER.sub("", model.bundle.card).strip(),
    }
    return {"id": name, "object": "model", "created": request.app.state.created, "owned_by": "reviewgen", "reviewgen": own}


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


async def _answer_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return JSONResponse(problem.to_json(), problem.status, problem.headers)


async def _answer_http(request: Request, error: Exception) -> Response:
    """Answer what Starlette itself refuses: an unknown path, another method."""
    assert isinstance(error, HTTPException)
    message = f"There is no {request.method} {request.url.path} here. GET /docs lists what there is."
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return await _answer_problem(request, Problem(error.status_code, message, code=code, headers=headers))


async def _answer_fault(request: Request, error: Exception) -> Response:
    """Answer a fault of ours; its traceback is in the log of the server."""
    headers = {"connection": "close"}  # uvicorn closes it after a fault
    return await _answer_problem(request, Problem(500, "The server failed; its log says why.", None, "server_error", headers))


class _Completions:
    """Counts completions by model and status, and ends those that are cancelled with an error."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/completions":
            return await self._app(scope, receive, send)
        status, is_stream = "none", False  # the client went away first

        async def observed(message: Message) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                status = str(message["status"])
                is_stream = dict(message["headers"]).get(b"content-type", b"").startswith(b"text/event-stream")
            await send(message)

        self._service.answering += 1
        try:
            await self._app(scope, receive, observed)
        except asyncio.CancelledError:  # the server ends
            problem = Problem(503, "The server is shutting down: the text is not finished.", code="shutting_down")
            problem.headers = {"retry-after": "5", "connection": "close"}
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(_LAST_SECONDS / 2):  # a reader that stalls gets nothing
                    if status == "none":
                        await JSONResponse(problem.to_json(), 503, problem.headers)(scope, receive, observed)
                    elif is_stream:
                        await send({"type": "http.response.body", "body": end_of_stream(problem.to_json())})
        finally:
            self._service.answering -= 1
            self._service.metrics.requests.labels(scope.get("reviewgen.model", ""), status).inc()
