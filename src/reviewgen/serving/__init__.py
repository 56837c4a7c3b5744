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
"""
