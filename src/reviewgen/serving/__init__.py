"""Serving: the texts of many callers at once, by one model; and over HTTP, with the OpenAI
protocol.

    options   what the operator decides: limits, keys, names of models and of the server
    app       the application: routes, the OpenAPI document and the page that shows it, models,
              errors
    service   a request for a completion on its way: read, handed to the engine of its model,
              answered whole or as a stream
    protocol  the fields of a completion, and from its JSON to a checked call; what is wrong with a
              request
    engine    continuous batching in one thread; knows nothing of HTTP
    response  from what is released of the texts to the JSON of a response or a chunk
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
