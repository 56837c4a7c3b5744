"""Serving: the texts of many callers at once, by one model; and over HTTP, with the OpenAI protocol.

    options   what the operator decides: limits, keys, names of models and of the server
    app       the application: routes, keys, errors, the body of a request
    protocol  the fields of a completion, and from its JSON to a checked call; what is wrong with a request
    service   a request in progress: handed to the engine of its model, answered whole or as a stream
    engine    one thread that advances all texts together, tick by tick; knows nothing of HTTP
    texts     from sampled tokens to characters and tokens that can no longer be removed
    response  from these to the JSON of a response or a chunk
    openapi   the OpenAPI document, and the page that shows it
    server    uvicorn in one process, or in several

Each name is imported on first use.
"""

import lazy_loader

TYPE_CHECKING = False  # as in ``reviewgen``
if TYPE_CHECKING:
    from reviewgen.serving.app import create_app
    from reviewgen.serving.engine import Asked, Engine
    from reviewgen.serving.options import Limits, ServerOptions, accepted_hosts, digest_key, name_sources, read_keys
    from reviewgen.serving.server import load_engines, open_socket, uvicorn_options

__all__ = [
    "Asked",
    "Engine",
    "Limits",
    "ServerOptions",
    "accepted_hosts",
    "create_app",
    "digest_key",
    "load_engines",
    "name_sources",
    "open_socket",
    "read_keys",
    "uvicorn_options",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "app": ["create_app"],
        "engine": ["Asked", "Engine"],
        "options": ["Limits", "ServerOptions", "accepted_hosts", "digest_key", "name_sources", "read_keys"],
        "server": ["load_engines", "open_socket", "uvicorn_options"],
    },
)
