"""Serving: generates the texts of many callers at once with one model, and serves models over HTTP
with the OpenAI protocol.

    options   what the operator decides: limits, keys, names of models and of the server
    app       the application: routes, the OpenAPI document and the page that shows it, models,
              errors
    service   handles a request for a completion: reads it, hands it to the engine of its model,
              and answers whole or as a stream
    protocol  the fields of a completion; turns the JSON of a request into a checked call, or says
              what is wrong with it
    engine    continuous batching in one thread; knows nothing of HTTP
    response  turns the new parts of the texts into the JSON of a response or a chunk
    server    uvicorn in one process, or in several
"""

from typing import TYPE_CHECKING

from reviewgen.lazy import import_on_first_use

if TYPE_CHECKING:
    from reviewgen.serving.app import create_app
    from reviewgen.serving.options import ServerOptions, name_sources
    from reviewgen.serving.server import load_engines

__all__ = ["ServerOptions", "create_app", "load_engines", "name_sources"]

__getattr__ = import_on_first_use(
    __name__,
    {"app": "create_app", "options": "ServerOptions name_sources", "server": "load_engines"},
)
