"""The application of the server: routes, keys, errors in OpenAI's format. Any ASGI server runs it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reviewgen.model import ReviewModel
from reviewgen.serving.body import parse_object, read_body
from reviewgen.serving.engine import Engine
from reviewgen.serving.hosts import HostsOnly
from reviewgen.serving.keys import ApiKeys
from reviewgen.serving.limits import Limits
from reviewgen.serving.metrics import CONTENT_TYPE
from reviewgen.serving.models import ServedModel
from reviewgen.serving.openapi import docs_page, openapi_document
from reviewgen.serving.problems import Problem
from reviewgen.serving.service import Answer, Service

_OPEN = ("/health", "/ready", "/openapi.json", "/docs", "/", "/static/")  # what needs no key; a final slash: and below
_LARGE_BODY = 32_768  # bytes: a larger one is read by another thread, since it may take tenths of a second
_COUNTED = ("/v1/completions",)
log = logging.getLogger("reviewgen")


def create_app(
    models: Mapping[str, ReviewModel | Engine],
    *,
    limits: Limits | None = None,
    keys: ApiKeys | None = None,
    cors_origins: Sequence[str] = (),
    hosts: Collection[str] | None = None,
    page: bool = False,
) -> Starlette:
    """Return the application that serves some models; ``app.state.service`` has its engines.

    Args:
        models: The models by the name that requests give, or engines that run them already, which are closed with the server.
        limits: The limits of a request.
        keys: The accepted keys; None accepts every request.
        cors_origins: The origins whose pages may call the server from a browser.
        hosts: The names that requests may call the server by, besides localhost; None accepts any.
        page: Whether to serve the page that writes texts, at /.

    Raises:
        ReviewgenError: A model cannot be served; names it.
    """
    engines = {name: given for name, given in models.items() if isinstance(given, Engine)}
    served = [ServedModel(name, given.model if isinstance(given, Engine) else given) for name, given in models.items()]
    service = Service(served, limits or Limits(), engines)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    middleware = [Middleware(_Counted, service=service)]
    if hosts is not None:
        middleware.append(Middleware(HostsOnly, hosts=hosts))
    if cors_origins:
        headers = ["authorization", "content-type"]
        middleware.append(
            Middleware(CORSMiddleware, allow_origins=list(cors_origins), allow_methods=["GET", "POST"], allow_headers=headers)
        )
    if keys is not None:
        middleware.append(Middleware(_Keyed, keys=keys))
    handlers: dict[Any, Any] = {Problem: _answer_problem, HTTPException: _answer_http, Exception: _answer_fault}
    routes = _routes() + (_page_routes() if page else [])
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan)
    app.router.redirect_slashes = False  # it would redirect to whatever host the request names
    app.state.service = service
    return app


def _routes() -> list[Route]:
    return [
        Route("/v1/models", _list_models, methods=["GET"]),
        Route("/v1/models/{name:path}", _show_model, methods=["GET"]),
        Route("/v1/completions", _complete, methods=["POST"]),
        Route("/v1/chat/completions", _refuse_chat, methods=["POST"]),
        Route("/health", _health, methods=["GET"]),
        Route("/ready", _ready, methods=["GET"]),
        Route("/metrics", _metrics, methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/docs", _docs, methods=["GET"]),
    ]


def _page_routes() -> list[Route]:
    return [Route("/", _page, methods=["GET"]), Route("/static/{name}", _static, methods=["GET"])]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _list_models(request: Request) -> Response:
    models = _service(request).models.values()
    return JSONResponse({"object": "list", "data": [model.description for model in models]})


async def _show_model(request: Request) -> Response:
    return JSONResponse(_service(request).find(request.path_params["name"]).description)


async def _complete(request: Request) -> Answer:
    service = _service(request)
    limits = service.limits
    body = await read_body(request, limits.max_body, limits.stall_seconds, limits.request_seconds)

    def answer() -> Answer:
        return service.answer(parse_object(body))

    return await asyncio.to_thread(answer) if len(body) > _LARGE_BODY else answer()


async def _refuse_chat(request: Request) -> Response:
    raise Problem(404, "These models complete a text and were not trained to chat: use POST /v1/completions.", code="not_found")


async def _health(request: Request) -> Response:
    if stopped := _service(request).stopped:
        raise Problem(503, f"The engine of {', '.join(stopped)} has stopped: start the server again.", code="engine_stopped")
    return JSONResponse({"status": "ok"})


async def _ready(request: Request) -> Response:
    if not _service(request).is_ready:
        raise Problem(503, "The server is starting or shutting down.", code="not_ready", headers={"retry-after": "1"})
    return await _health(request)


async def _metrics(request: Request) -> Response:
    return Response(_service(request).metrics_text(), media_type=CONTENT_TYPE)


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi_document(_service(request).limits))


async def _docs(request: Request) -> Response:
    service = _service(request)
    return HTMLResponse(docs_page(openapi_document(service.limits), list(service.models)))


async def _page(request: Request) -> Response:
    from reviewgen.web import page_for_server

    return HTMLResponse(page_for_server())


async def _static(request: Request) -> Response:
    from reviewgen.web import static_files

    file = static_files().get(request.path_params["name"])
    if file is None:
        raise Problem(404, "The page has no file of this name.", code="not_found")
    return FileResponse(file, media_type="text/javascript" if file.suffix == ".js" else "text/css")


async def _answer_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return JSONResponse(problem.to_json(), problem.status, problem.headers)


async def _answer_http(request: Request, error: Exception) -> Response:
    """Answer what Starlette itself refuses: an unknown path, another method."""
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    sentences = {404: f"There is no {path} here. GET /docs lists what there is.", 405: f"{path} does not take {method}."}
    message = sentences.get(error.status_code, f"{error.detail}.")
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return await _answer_problem(request, Problem(error.status_code, message, code=code, headers=headers))


async def _answer_fault(request: Request, error: Exception) -> Response:
    """Answer a fault of ours; its traceback is in the log of the server."""
    headers = {"connection": "close"}  # uvicorn closes it after a fault
    return await _answer_problem(
        request, Problem(500, "The server failed; its log says why.", code="server_error", headers=headers)
    )


class _Keyed:
    """Lets a request pass that has one of the keys; other middleware would read the body first."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_open(scope["path"]):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not self._keys.accepts(given):
                what = "The API key is not one of this server's" if given else "The request has no API key"
                problem = Problem(401, f"{what}: send Authorization: Bearer KEY.", code="invalid_api_key")
                response = JSONResponse(problem.to_json(), 401, {"www-authenticate": "Bearer"})
                return await response(scope, receive, send)
        return await self._app(scope, receive, send)


class _Counted:
    """Counts completions by model and status."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in _COUNTED:
            return await self._app(scope, receive, send)
        status = "none"  # the client went away first

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            self._service.metrics.requests.labels(scope.get("reviewgen.model", ""), status).inc()


def _is_open(path: str) -> bool:
    return any(path == each or (each != "/" and each.endswith("/") and path.startswith(each)) for each in _OPEN)
