"""What ``GET /metrics`` reports, in the format of Prometheus: requests, tokens, texts in progress, the time to the first token.

Where several processes serve, each writes its numbers into a folder (``PROMETHEUS_MULTIPROC_DIR``), and any of them adds up all.
"""

import os
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from reviewgen.serving.engine import Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
_WHOLE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The numbers of a server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        model = ["model"]
        self.requests = Counter(
            "reviewgen_requests", "Completions by model and status of the response.", ["model", "status"], registry=registry
        )
        self.tokens = Counter("reviewgen_tokens", "Tokens by model and kind.", ["model", "kind"], registry=registry)
        self.disconnects = Counter(
            "reviewgen_disconnects", "Requests whose client went away before the end.", model, registry=registry
        )
        self.first_token = Histogram(
            "reviewgen_time_to_first_token_seconds",
            "From a request to its first token.",
            model,
            registry=registry,
            buckets=_FIRST,
        )
        self.seconds = Histogram(
            "reviewgen_request_seconds", "From a request to its end.", model, registry=registry, buckets=_WHOLE
        )
        self.live = Gauge("reviewgen_live_rows", "Texts in progress.", model, registry=registry, multiprocess_mode="livesum")
        self.waiting = Gauge("reviewgen_waiting_rows", "Texts that wait.", model, registry=registry, multiprocess_mode="livesum")

    def observe(self, loads: Mapping[str, Stats]) -> None:
        """Take over how busy the engines are, by model."""
        for model, load in loads.items():
            self.live.labels(model).set(load.live_rows)
            self.waiting.labels(model).set(load.waiting_rows + load.offline_rows)

    def text(self) -> bytes:
        """Return all numbers in the format of Prometheus."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)
