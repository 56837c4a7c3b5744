"""The OpenAPI document of the server, made from the fields of a completion, and a page that shows it without a script."""

import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from reviewgen.config import bounds_of, choices_of, describe_fields, describe_hint, fields_of
from reviewgen.serving.fields import CompletionFields
from reviewgen.serving.limits import Limits
from reviewgen.version import __version__
from reviewgen.web.rendering import render

_KEYWORDS = {"at_least": "minimum", "above": "exclusiveMinimum", "at_most": "maximum", "below": "exclusiveMaximum"}
_TYPES: dict[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean", dict: "object", types.NoneType: "null"}
_PROMPT = "The beginning of each text: a string, a list of strings, token ids, or lists of token ids; the empty text by default."
_PATHS = {  # method, path, summary, name of the response, statuses of errors
    ("get", "/v1/models"): ("The models.", "ModelList", (401, 421)),
    ("get", "/v1/models/{name}"): ("One model.", "Model", (401, 404, 421)),
    ("post", "/v1/completions"): ("Writes texts.", "Completion", (400, 401, 404, 408, 413, 415, 421, 422, 429, 500, 503)),
    ("get", "/health"): ("Whether the engines run.", "Status", (421, 503)),
    ("get", "/ready"): ("Whether new requests are accepted.", "Status", (421, 503)),
    ("get", "/metrics"): ("Numbers for Prometheus.", None, (401, 421)),
}
_REASONS = {
    400: "A field is unknown, of a wrong type, or out of range.",
    401: "No API key, or one that this server does not have.",
    404: "There is no such model.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The content type is not application/json.",
    421: "The request calls this server by a name that is not one of its own.",
    422: "No text could be generated as asked, as where none includes what it must.",
    429: "The queue is full; Retry-After says when to try again.",
    500: "The server failed.",
    503: "The server is starting, shutting down or late.",
}


def openapi_document(limits: Limits) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a server with these limits."""
    paths: dict[str, Any] = {}
    for (method, path), (summary, response, errors) in _PATHS.items():
        paths.setdefault(path, {})[method] = _operation(method, path, summary, response, errors)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "reviewgen",
            "version": __version__,
            "description": "Small text generators behind the OpenAI protocol for completions.",
        },
        "paths": paths,
        "components": {
            "schemas": {"CompletionRequest": _request_schema(limits)} | _response_schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def docs_page(document: dict[str, Any], models: Sequence[str]) -> str:
    """Return the page: paths, fields of a completion with types and descriptions, statuses."""
    schema = document["components"]["schemas"]["CompletionRequest"]
    hints = {"prompt": "string | list"}
    hints |= {name: describe_hint(hint).replace(" | none", "") for name, hint in fields_of(CompletionFields).items()}
    rows = [(name, hints[name], each["description"]) for name, each in schema["properties"].items()]
    paths = [(method.upper(), path, summary) for (method, path), (summary, _, _) in _PATHS.items()]
    return render("serving/docs.html", paths=paths, rows=rows, reasons=_REASONS, models=models, version=__version__)


def _operation(method: str, path: str, summary: str, response: str | None, errors: Sequence[int]) -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    content = text if response is None else {"application/json": {"schema": _reference(response)}}
    if method == "post":
        content |= {"text/event-stream": {"schema": {"type": "string"}}}
    problem = {"application/json": {"schema": _reference("Error")}}
    responses = {"200": {"description": "Done.", "content": content}}
    responses |= {str(status): {"description": _REASONS[status], "content": problem} for status in errors}
    words = [part.strip("{}") for part in path.split("/") if part]
    operation: dict[str, Any] = {"summary": summary, "operationId": "_".join([method, *words]), "responses": responses}
    if "{name}" in path:
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    if method == "post":
        body = {"application/json": {"schema": _reference("CompletionRequest")}}
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _request_schema(limits: Limits) -> dict[str, Any]:
    described, ids = describe_fields(CompletionFields), {"type": "array", "items": {"type": "integer"}}
    strings = {"type": "array", "items": {"type": "string"}}
    prompt = {"anyOf": [{"type": "string"}, strings, ids, {"type": "array", "items": ids}, {"type": "null"}]}
    properties: dict[str, Any] = {"prompt": prompt | {"description": _PROMPT}}
    properties |= {name: schema_of(hint) | {"description": described[name]} for name, hint in fields_of(CompletionFields).items()}
    properties["max_tokens"]["maximum"] = limits.max_tokens
    return {"type": "object", "additionalProperties": False, "properties": properties}


def schema_of(hint: Any) -> dict[str, Any]:
    """Return the JSON schema of a type hint of a config dataclass.

    >>> schema_of(int | None)
    {'anyOf': [{'type': 'integer'}, {'type': 'null'}]}
    """
    inner = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
    options = get_args(inner) if get_origin(inner) in (Union, types.UnionType) else (inner,)
    if choices_of(hint) and all(get_origin(option) is Literal or option is types.NoneType for option in options):
        return {"enum": choices_of(hint)}
    schemas = [_option_schema(option, bounds_of(hint)) for option in options]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _option_schema(option: Any, bounds: dict[str, float]) -> dict[str, Any]:
    if get_origin(option) is tuple:
        return {"type": "array", "items": _option_schema(get_args(option)[0], bounds)}
    schema: dict[str, Any] = {"type": _TYPES[get_origin(option) or option]}
    if option in (int, float):
        schema |= {_KEYWORDS[name]: limit for name, limit in bounds.items()}
    if option is str:
        lengths = {"at_least": "minLength", "at_most": "maxLength"}
        schema |= {lengths[name]: limit for name, limit in bounds.items() if name in lengths}
    return schema


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _response_schemas() -> dict[str, Any]:
    """Return the schemas of responses; objects may have further members."""
    string: dict[str, Any] = {"type": "string"}
    integer: dict[str, Any] = {"type": "integer"}
    nullable, anything = {"type": ["string", "null"]}, {"type": ["object", "null"]}
    choice = {"index": integer, "text": string, "logprobs": anything, "finish_reason": {"enum": ["stop", "length", None]}}
    usage = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), integer)
    model = {"id": string, "object": {"const": "model"}, "created": integer, "owned_by": string, "reviewgen": {"type": "object"}}
    completion = {
        "id": string,
        "object": {"const": "text_completion"},
        "created": integer,
        "model": string,
        "choices": {"type": "array", "items": _object(choice)},
        "usage": _object(usage),
    }
    return {
        "Completion": _object(completion),
        "Model": _object(model),
        "ModelList": _object({"object": {"const": "list"}, "data": {"type": "array", "items": _reference("Model")}}),
        "Status": _object({"status": string}),
        "Error": _object({"error": _object({"message": string, "type": string, "param": nullable, "code": nullable})}),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
