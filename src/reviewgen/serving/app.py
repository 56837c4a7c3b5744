"""The application of the server: routes and their documents, models, errors in OpenAI's format. Any
ASGI server runs it.
"""

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from reviewgen.config.descriptions import describe_hint, json_schema
from reviewgen.config.settings import to_dict
from reviewgen.errors import ReviewgenError
from reviewgen.hub.card import brief_facts
from reviewgen.model.review_model import ReviewModel
from reviewgen.serving.engine import Engine
from reviewgen.serving.options import Limits
from reviewgen.serving.protocol import CHAT_FIELDS, DESCRIPTIONS, HINTS, RequestError, find_model
from reviewgen.serving.service import CompletionResponse, Service
from reviewgen.version import __version__
from reviewgen.web.composing import page_for_server, static_files
from reviewgen.web.rendering import render

_LAST_SECONDS = 2.0  # max seconds for answering the requests that were cancelled at the end
_ABOUT = (
    "Small text generators behind the OpenAI protocol for completions, chat completions and"
    " embeddings."
)
_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}
# the schema of an item of the field ``prompt``, if this field is a list
_PROMPT_ITEM = {"anyOf": [_STRING, _INTEGER, {"type": "array", "items": _INTEGER}]}
# the schema of the response of each endpoint, by the name of its function
_SCHEMAS = {"_complete": "Completion", "_chat": "ChatCompletion", "_embed": "Embedding"}
_REASONS = {
    400: (
        "A field is unknown, of a wrong type, or out of range; or the server does not accept this"
        " host name."
    ),
    401: "No API key, or one that this server does not accept.",
    404: "There is no such model.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The content type is not application/json.",
    422: "No text could be generated as asked.",
    429: "The queue is full; Retry-After says when to try again.",
    500: "The server failed.",
    503: "The server is shutting down, or did not answer in time.",
}
# the metadata at the top of a model card, between two lines of three hyphens
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

    If the ASGI server cancels a request, for example when the time after a signal is over, the
    client gets an error.

    Args:
        models: The models, by the names that requests use for them. In place of a model, there may
            be an engine that already runs the model; the engine is closed with the server.
        limits: The limits of a request.
        key_digests: The SHA-256 of each accepted key; None accepts every request.
        cors_origins: The origins whose pages may call the server from a browser.
        hosts: The names that requests may call the server by; None accepts any.
        page: Whether to serve the page that writes texts, at /.

    Raises:
        ReviewgenError: A model cannot be served; the message names it.
    """
    limits = limits or Limits()
    service = Service(_start_engines(models, limits), limits, key_digests)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        """After the server has stopped, wait for the last answers, and close the engines."""
        yield
        until = time.monotonic() + _LAST_SECONDS
        while service.answering and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(service.close)

    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)]
    if cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type"],
            )
        )
    handlers: dict[Any, Any] = dict.fromkeys(
        (RequestError, HTTPException, Exception), _answer_error
    )
    app = Starlette(
        routes=_routes(page), middleware=middleware, exception_handlers=handlers, lifespan=lifespan
    )
    # without redirections, since they would lead to any host that the request names
    app.router.redirect_slashes = False
    app.state.service = service
    app.state.created = int(time.time())
    return app


def _start_engines(models: Mapping[str, ReviewModel | Engine], limits: Limits) -> dict[str, Engine]:
    """Return an engine for each model. If a model cannot be served, close the engines and raise."""
    engines: dict[str, Engine] = {}
    for name, model in models.items():
        try:
            engines[name] = (
                model if isinstance(model, Engine) else Engine(model, max_rows=limits.max_rows)
            )
        except ReviewgenError as error:
            Service(engines, limits).close()
            raise type(error)(f"{name} cannot be served: {error}") from None
    return engines


def _routes(page: bool) -> list[Route]:
    """Return the routes. The OpenAPI document uses the docstrings of the endpoints as summaries."""
    routes = [
        Route("/v1/models", _list_models),
        Route("/v1/models/{name:path}", _show_model),
        Route("/v1/completions", _complete, methods=["POST"]),
        Route("/v1/chat/completions", _chat, methods=["POST"]),
        Route("/v1/embeddings", _embed, methods=["POST"]),
        Route("/health", _health),
        Route("/ready", _health),
        Route("/metrics", _metrics),
    ]
    hidden = {"/openapi.json": _openapi, "/docs": _docs}
    if page:
        hidden |= {"/": _page, "/static/{name}": _static}
    return routes + [Route(path, hidden[path], include_in_schema=False) for path in hidden]


def _authorized(request: Request) -> Service:
    """Check the API key of a request, and return the service.

    Raises:
        RequestError: The request has none of the accepted keys.
    """
    service: Service = request.app.state.service
    service.authorize(request)
    return service


async def _list_models(request: Request) -> Response:
    """The models."""
    models = [_describe(request, name) for name in _authorized(request).engines]
    return JSONResponse({"object": "list", "data": models})


async def _show_model(request: Request) -> Response:
    """One model."""
    name = find_model(request.path_params["name"], list(_authorized(request).engines))
    return JSONResponse(_describe(request, name))


async def _complete(request: Request) -> CompletionResponse:
    """Writes texts."""
    return CompletionResponse(request.app.state.service, request)


async def _chat(request: Request) -> CompletionResponse:
    """Continues the last message of the user."""
    return CompletionResponse(request.app.state.service, request, is_chat=True)


async def _embed(request: Request) -> Response:
    """Returns a vector of each text, of a model with a hidden state."""
    return await _authorized(request).embed(request)


async def _health(request: Request) -> Response:
    """Whether the engines run, and so requests are accepted."""
    if stopped := request.app.state.service.stopped:
        raise RequestError(
            503,
            f"The engine of {', '.join(stopped)} has stopped: start the server again.",
            code="engine_stopped",
        )
    return JSONResponse({"status": "ok"})


async def _metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    service = _authorized(request)
    for name, engine in service.engines.items():
        service.metrics.live.labels(name).set(engine.live)
        service.metrics.waiting.labels(name).set(engine.waiting)
    registry = service.metrics.registry
    # each worker writes its numbers to the folder that this variable names, where any worker can
    # add up the numbers of all workers
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return Response(
        generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


async def _openapi(request: Request) -> Response:
    """The OpenAPI 3.1 document, made from the routes and the fields of a completion."""
    schemas = json.loads(Path(__file__).with_name("schemas.json").read_text(encoding="utf-8"))
    paths = {route.path_format: _operation(method, route) for method, route in _documented(request)}
    return JSONResponse(
        {
            "openapi": "3.1.0",
            "info": {"title": "reviewgen", "version": __version__, "description": _ABOUT},
            "paths": paths,
            "components": {
                "schemas": schemas | _request_schemas(request.app.state.service.limits),
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{}, {"key": []}],
        }
    )


def _request_schemas(limits: Limits) -> dict[str, Any]:
    """Return the schemas of the requests for completions and for chat completions."""
    fields = {
        name: json_schema(hint) | {"description": DESCRIPTIONS[name]}
        for name, hint in HINTS.items()
    }
    fields["max_tokens"]["maximum"] = limits.max_tokens
    # a prompt is a string, a list or null; this describes the items of the list
    fields["prompt"]["anyOf"][1]["items"] = _PROMPT_ITEM
    chat = {name: fields[name] for name in CHAT_FIELDS}
    chat["messages"] = {"type": "array", "items": {"type": "object"}}
    return {
        "CompletionRequest": {
            "type": "object",
            "additionalProperties": False,
            "properties": fields,
        },
        "ChatCompletionRequest": {
            "type": "object",
            "properties": chat,
            "required": ["messages"],
        },
    }


async def _docs(request: Request) -> Response:
    """The content of the OpenAPI document as a page: paths, fields of a completion with types and
    descriptions, statuses.
    """
    page = render(
        "serving/docs.html",
        paths=[
            (method.upper(), route.path_format, route.endpoint.__doc__)
            for method, route in _documented(request)
        ],
        rows=[
            (name, describe_hint(hint).replace(" | none", ""), DESCRIPTIONS[name])
            for name, hint in HINTS.items()
        ],
        reasons=_REASONS,
        models=list(request.app.state.service.engines),
    )
    return HTMLResponse(page)


async def _page(request: Request) -> Response:
    """The page that writes texts."""
    return HTMLResponse(page_for_server())


async def _static(request: Request) -> Response:
    """A script or a style sheet of the page."""
    file = static_files().get(request.path_params["name"])
    if file is None:
        raise RequestError(404, "The page has no file of this name.", code="not_found")
    return FileResponse(file, media_type="text/javascript" if file.suffix == ".js" else "text/css")


def _describe(request: Request, name: str) -> dict[str, Any]:
    """Return the entry of a model in ``GET /v1/models``: OpenAI's fields and, under ``reviewgen``,
    the fields that a page needs.
    """
    model = _authorized(request).engines[name].model
    details = {
        "preset": model.preset,
        "conditions": model.conditions.to_json(),
        "defaults": to_dict(model.generation_config),
        "has_index": model.bundle.index is not None,
        "facts": brief_facts(model.bundle),
        "card": _FRONT_MATTER.sub("", model.bundle.card).strip(),
    }
    return {
        "id": name,
        "object": "model",
        "created": request.app.state.created,
        "owned_by": "reviewgen",
        "reviewgen": details,
    }


async def _answer_error(request: Request, error: Exception) -> Response:
    """Answer a request that was refused, or that failed by a fault of the server, in OpenAI's
    format. The log has the traceback of a fault.
    """
    if isinstance(error, RequestError):
        problem = error
    elif isinstance(error, HTTPException):  # an unknown path, or a method that it does not have
        message = (
            f"There is no {request.method} {request.url.path} here. GET /docs lists what there is."
        )
        code = "method_not_allowed" if error.status_code == 405 else "not_found"
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        problem = RequestError(error.status_code, message, code=code, headers=headers)
    else:
        message = "The server failed; its log says why."
        problem = RequestError(500, message, None, "server_error", {"connection": "close"})
    return JSONResponse(problem.to_json(), problem.status, problem.headers)


def _documented(request: Request) -> list[tuple[str, Route]]:
    """Return the routes of the OpenAPI document, each with its method."""
    routes = [route for route in request.app.routes if route.include_in_schema]
    return [("post" if "POST" in route.methods else "get", route) for route in routes]


def _operation(method: str, route: Route) -> dict[str, Any]:
    """Return the entry of a route in the OpenAPI document."""
    answer = {"application/json": {"schema": {"type": "object"}}}
    words = [word.strip("{}") for word in route.path_format.split("/") if word]
    operation: dict[str, Any] = {
        "summary": route.endpoint.__doc__,
        "operationId": "_".join([method, *words]),
    }
    if route.param_convertors:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": _STRING}
            for name in route.param_convertors
        ]
    if method == "post":
        name = _SCHEMAS[route.endpoint.__name__]
        operation["requestBody"] = {"required": True, "content": _content(f"{name}Request")}
        answer = _content(name)
        if name != "Embedding":
            answer["text/event-stream"] = {"schema": _STRING}
    operation["responses"] = {"200": {"description": "Done.", "content": answer}}
    for status, reason in _REASONS.items():
        operation["responses"][str(status)] = {"description": reason, "content": _content("Error")}
    return {method: operation}


def _content(name: str) -> dict[str, Any]:
    """Return the content of a body whose schema has this name."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
