"""The OpenAPI document of the server, made from its routes and the fields of a completion, and a page that shows it."""

import types
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from starlette.routing import BaseRoute, Route

from reviewgen.config import bounds_of, choices_of, describe_fields, describe_hint, fields_of
from reviewgen.config.settings import bare, options_of
from reviewgen.serving.options import Limits
from reviewgen.serving.protocol import CompletionFields
from reviewgen.version import __version__
from reviewgen.web.rendering import render

_KEYWORDS = {"at_least": "minimum", "above": "exclusiveMinimum", "at_most": "maximum", "below": "exclusiveMaximum"}
_LENGTHS = {"at_least": "minLength", "at_most": "maxLength"}
_TYPES: dict[Any, str] = {int: "integer", float: "number", str: "string", dict: "object", types.NoneType: "null"}
_ABOUT = "Small text generators behind the OpenAI protocol for completions."
_STRING, _INTEGER = {"type": "string"}, {"type": "integer"}
_ITEMS = {"anyOf": [_STRING, _INTEGER, {"type": "array", "items": _INTEGER}]}  # of prompt
_REASONS = {
    400: "A field is unknown, of a wrong type, or out of range; or the server does not answer to this name.",
    401: "No API key, or one that this server does not have.",
    404: "There is no such model.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The content type is not application/json.",
    422: "No text could be generated as asked.",
    429: "The queue is full; Retry-After says when to try again.",
    500: "The server failed.",
    503: "The server is shutting down or late.",
}


def openapi_document(routes: Sequence[BaseRoute], limits: Limits) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a server with these routes and limits; the docstring of an endpoint is its summary."""
    described, hints = describe_fields(CompletionFields), fields_of(CompletionFields).items()
    fields = {name: schema_of(hint) | {"description": described[name]} for name, hint in hints}
    fields["max_tokens"]["maximum"] = limits.max_tokens
    request = {"type": "object", "additionalProperties": False, "properties": fields}
    listed = [route for route in routes if isinstance(route, Route) and route.include_in_schema]
    return {
        "openapi": "3.1.0",
        "info": {"title": "reviewgen", "version": __version__, "description": _ABOUT},
        "paths": {route.path_format: _operation(route) for route in listed},
        "components": {
            "schemas": {"CompletionRequest": request} | _response_schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def docs_page(document: dict[str, Any], models: Sequence[str]) -> str:
    """Return the page: paths, fields of a completion with types and descriptions, statuses."""
    schema, hints = document["components"]["schemas"]["CompletionRequest"], fields_of(CompletionFields)
    rows = [
        (name, describe_hint(hints[name]).replace(" | none", ""), each["description"])
        for name, each in schema["properties"].items()
    ]
    return render("serving/docs.html", paths=document["paths"], rows=rows, reasons=_REASONS, models=models, version=__version__)


def _operation(route: Route) -> dict[str, Any]:
    done = {"description": "Done.", "content": {"application/json": {"schema": {"type": "object"}}}}
    responses = {"200": done} | {
        str(status): {"description": reason, "content": _content("Error")} for status, reason in _REASONS.items()
    }
    method = "post" if "POST" in (route.methods or ()) else "get"
    words = [part.strip("{}") for part in route.path_format.split("/") if part]
    operation: dict[str, Any] = {"summary": route.endpoint.__doc__, "operationId": "_".join([method, *words])}
    operation["responses"] = responses
    if route.param_convertors:
        parameters = [{"name": name, "in": "path", "required": True, "schema": _STRING} for name in route.param_convertors]
        operation["parameters"] = parameters
    if method == "post":
        operation["requestBody"] = {"required": True, "content": _content("CompletionRequest")}
        done["content"] = _content("Completion") | {"text/event-stream": {"schema": _STRING}}
    return {method: operation}


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def schema_of(hint: Any) -> dict[str, Any]:
    """Return the JSON schema of a type hint of a config dataclass.

    >>> schema_of(int | None)
    {'anyOf': [{'type': 'integer'}, {'type': 'null'}]}
    """
    if choices := choices_of(hint):
        return {"enum": choices}
    options = options_of(bare(hint))
    schemas = [_option_schema(option, bounds_of(hint)) for option in options]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _option_schema(option: Any, bounds: dict[str, float]) -> dict[str, Any]:
    if get_origin(option) is tuple:
        return {"type": "array", "items": _option_schema(get_args(option)[0], bounds)}
    if get_origin(option) is list:
        return {"type": "array", "items": _ITEMS}
    keywords = _KEYWORDS if option in (int, float) else _LENGTHS if option is str else {}
    limits = {keywords[name]: limit for name, limit in bounds.items() if name in keywords}
    return {"type": _TYPES[get_origin(option) or option]} | limits


def _response_schemas() -> dict[str, Any]:
    """Return the schemas of responses; objects may have further members."""
    nullable, anything = {"type": ["string", "null"]}, {"type": ["object", "null"]}
    choice = {"index": _INTEGER, "text": _STRING, "logprobs": anything, "finish_reason": {"enum": ["stop", "length", None]}}
    usage = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), _INTEGER)
    completion: dict[str, Any] = {"id": _STRING, "object": {"const": "text_completion"}, "created": _INTEGER, "model": _STRING}
    completion |= {"choices": {"type": "array", "items": _object(choice)}, "usage": _object(usage)}
    error: dict[str, Any] = {"message": _STRING, "type": _STRING, "param": nullable, "code": nullable}
    return {"Completion": _object(completion), "Error": _object({"error": _object(error)})}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
