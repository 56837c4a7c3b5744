"""Serving: the texts of many callers at once, by one model; and over HTTP, with the OpenAI protocol.

The engine, which knows nothing of HTTP:

    engine   Engine: one thread that advances all texts together, tick by tick
    jobs     a submitted request: its rows, its consumer, and which rows of all jobs take a seat in the next tick
    batch    one tick: the beginnings of new rows, a token or a block of tokens for the others
    outlet   from the tokens of a row to events: what each adds to the text, and what is held back
    events   what an engine delivers
    offline  requests that need whole texts before the first is known: beam search and ``must_include``
    prompt_scores  the log probabilities of prompts

The server:

    fields, protocol     the fields of a completion, and from its JSON to a checked call
    body, problems       the JSON of a body; what is wrong with a request, in OpenAI's format
    choices, completion  from events to the JSON of a response, whole or in chunks
    inbox, service       from the engine's thread to a coroutine; requests in progress
    app                  the application: routes, keys, errors
    models, limits       the names of models and what is said of them; what a request may ask for
    hosts, keys          the names that requests may call the server by; API keys
    metrics              numbers for Prometheus
    openapi              the OpenAPI document, and the page that shows it
    server, workers      uvicorn in one process, or in several

Each name is imported on first use.
"""

import lazy_loader

TYPE_CHECKING = False  # as in ``reviewgen``
if TYPE_CHECKING:
    from reviewgen.serving.app import create_app
    from reviewgen.serving.hosts import accepted_hosts
    from reviewgen.serving.keys import ApiKeys, read_keys
    from reviewgen.serving.limits import Limits
    from reviewgen.serving.server import make_server, open_socket

__all__ = ["ApiKeys", "Limits", "accepted_hosts", "create_app", "make_server", "open_socket", "read_keys"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "app": ["create_app"],
        "hosts": ["accepted_hosts"],
        "keys": ["ApiKeys", "read_keys"],
        "limits": ["Limits"],
        "server": ["make_server", "open_socket"],
    },
)
