"""A server of reviewgen on a free port of this machine, under uvicorn, in a thread; and models for it that need no training."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from torch import Tensor

from reviewgen.model import ReviewModel
from reviewgen.serving.app import create_app
from reviewgen.serving.limits import Limits
from reviewgen.serving.server import make_server, open_socket
from reviewgen.serving.service import Service
from tests.support.fakes import LETTERS, TableModel, review_model, table

PATIENCE = 300.0  # seconds that a test waits for what comes within one on an idle machine


class SlowModel(TableModel):
    """Takes some time for each token, and never ends a text."""

    seconds = 0.002

    def __init__(self) -> None:
        super().__init__(table(LETTERS.vocab_size, eos=-1e9))

    def __call__(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        return super().__call__(ids, state)


def slow_model(**generation: Any) -> ReviewModel:
    """Return a ReviewModel of letters whose texts go on until they are cut off."""
    return review_model(SlowModel(), LETTERS, **({"max_new_tokens": 4000} | generation))


class LiveServer:
    """A running server.

    Attributes:
        url: Its address.
        service: Its engines and requests.
        http: A client of it.
    """

    def __init__(self, url: str, service: Service, server: Any) -> None:
        self.url, self.service, self.server = url, service, server
        self.http = httpx.Client(base_url=url, timeout=PATIENCE)

    def complete(self, **fields: Any) -> httpx.Response:
        """Ask for a completion."""
        return self.http.post("/v1/completions", json=fields)

    def live_rows(self) -> int:
        """Return the number of texts that are generated or wait."""
        stats = [engine.stats() for engine in self.service.engines.values()]
        return sum(each.live_rows + each.waiting_rows + each.offline_rows for each in stats)

    def wait_until_idle(self, seconds: float = PATIENCE) -> None:
        """Wait until no text is in progress."""
        wait_for(lambda: self.live_rows() == 0, seconds)


@contextlib.contextmanager
def serve(models: Mapping[str, ReviewModel], limits: Mapping[str, Any] | None = None, **options: Any) -> Iterator[LiveServer]:
    """Run a server as long as the block lasts."""
    own = Limits(**({"shutdown_seconds": 2.0} | dict(limits or {})))
    app, started = create_app(models, limits=own, **options), threading.Event()
    listening = open_socket("127.0.0.1", 0, own.stall_seconds)
    server = make_server(app, started.set)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        assert started.wait(60)
        yield LiveServer(f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.service, server)
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


def wait_for(holds: Any, seconds: float = PATIENCE) -> None:
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "It did not happen in time."
        time.sleep(0.01)
