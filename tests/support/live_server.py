"""Servers of models: in this process without a socket, or live under uvicorn in a thread; and
models that need no training.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import httpx
import uvicorn
from starlette.testclient import TestClient

from reviewgen import ReviewModel
from reviewgen.serving.app import create_app
from reviewgen.serving.options import Limits, digest_key
from reviewgen.serving.server import open_socket, uvicorn_options
from tests.support.fakes import LETTERS, SlowModel, review_model

PATIENCE = 120.0  # seconds that a test waits for what comes within one on an idle machine
PATH = "/v1/completions"
KEY = "sk-0123456789abcdef"


def slow_model() -> ReviewModel:
    """Return a ReviewModel of letters whose texts go on until they are cut off."""
    return review_model(SlowModel(), LETTERS, max_new_tokens=4000)


class Server:
    """A running server: ``http`` is a client of it; a live one has its address and its uvicorn
    server, too.
    """

    def __init__(
        self, http: httpx.Client, url: str = "", uvicorn: Any = None, key: str | None = None
    ) -> None:
        self.http = http
        self.url = url
        self.uvicorn = uvicorn
        if key is not None:
            http.headers["authorization"] = f"Bearer {key}"

    def complete(self, **fields: Any) -> httpx.Response:
        """Ask for a completion."""
        return self.http.post(PATH, json=fields)

    def choices(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the choices of a completion."""
        response = self.complete(**fields)
        assert response.status_code == 200, response.text
        choices: list[dict[str, Any]] = response.json()["choices"]
        return choices

    def stream(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the chunks of a whole stream, without its last line."""
        response = self.complete(stream=True, **fields)
        assert response.status_code == 200 and response.headers["content-type"].startswith(
            "text/event-stream"
        ), response.text
        *parts, last = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
        assert last == "[DONE]"
        return [json.loads(part) for part in parts]

    def live_texts(self) -> int:
        """Return the number of texts that are generated or wait."""
        return sum(
            float(count)
            for count in re.findall(
                r"^reviewgen_(?:live|waiting)_rows\S* (\S+)", self.metrics(), re.M
            )
        )

    def metrics(self) -> str:
        return self.http.get("/metrics").text

    def wait_until_idle(self) -> None:
        """Wait until no text is in progress."""
        wait_for(lambda: not self.live_texts())


@contextlib.contextmanager
def in_process(
    models: Mapping[str, ReviewModel],
    limits: Mapping[str, Any] | None = None,
    key: str | None = None,
    **options: Any,
) -> Iterator[Server]:
    """Run the application in this process, as long as the block lasts; a stream arrives as a
    whole.
    """
    app = create_app(
        models, limits=Limits(**(limits or {})), key_digests=key and [digest_key(key)], **options
    )
    with TestClient(app, raise_server_exceptions=False) as http:
        yield Server(http, key=key)


@contextlib.contextmanager
def serve(
    models: Mapping[str, ReviewModel],
    limits: Mapping[str, Any] | None = None,
    key: str | None = None,
    **options: Any,
) -> Iterator[Server]:
    """Run a live server on a free port, as long as the block lasts."""
    own = Limits(**({"shutdown_seconds": 2.0} | dict(limits or {})))
    app = create_app(models, limits=own, key_digests=key and [digest_key(key)], **options)
    listening = open_socket("127.0.0.1", 0, own.stall_seconds)
    server = uvicorn.Server(uvicorn.Config(app, **uvicorn_options(own)))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        wait_for(lambda: server.started)
        with httpx.Client(base_url=url, timeout=PATIENCE) as http:
            yield Server(http, url, server, key)
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


def joined(chunks: list[dict[str, Any]], texts: int) -> list[str]:
    """Return the texts of a stream."""
    parts = [*chain.from_iterable(chunk["choices"] for chunk in chunks)]
    return [
        "".join(part["text"] for part in parts if part["index"] == index) for index in range(texts)
    ]


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the error of a response, after checking its form."""
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"} and len(error["message"]) <= 510
    return error


def wait_for(holds: Callable[[], Any]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, "It did not happen in time."
        time.sleep(0.01)
