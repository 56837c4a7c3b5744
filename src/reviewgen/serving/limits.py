"""The limits of the server: what one request may ask for, and how long it may take."""

from dataclasses import dataclass
from typing import Annotated

from reviewgen.config import Bound, check


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of the server.

    Attributes:
        max_tokens: The largest ``max_tokens`` of a request.
        max_texts: The largest number of texts of a request: prompts times ``n`` or ``best_of``.
        max_waiting: The number of texts that may wait, per model, before requests are refused with 429; those of ``must_include``
            are counted apart.
        max_rows: The number of texts, per model, that are generated side by side; others wait.
        max_prompt: The largest number of characters of all prompts of a request.
        max_body: The largest body of a request, in bytes.
        request_seconds: The time of a request; texts that are not finished then are cut off.
        stall_seconds: The time that a client may take to read a part of a stream, or to send a part of its request.
        shutdown_seconds: The time that running requests have after SIGTERM or Ctrl-C.
    """

    max_tokens: Annotated[int, Bound(at_least=1)] = 4096
    max_texts: Annotated[int, Bound(at_least=1)] = 128
    max_waiting: Annotated[int, Bound(at_least=1)] = 512
    max_rows: Annotated[int, Bound(at_least=1, at_most=1024)] = 64
    max_prompt: Annotated[int, Bound(at_least=1)] = 16_384
    max_body: Annotated[int, Bound(at_least=1024)] = 1_000_000
    request_seconds: Annotated[float, Bound(above=0)] = 300.0
    stall_seconds: Annotated[float, Bound(above=0)] = 60.0
    shutdown_seconds: Annotated[float, Bound(at_least=0)] = 30.0

    def __post_init__(self) -> None:
        check(self)

    @property
    def most_texts(self) -> int:
        """The largest number of texts of a request that an idle server accepts."""
        return min(self.max_texts, self.max_waiting)
