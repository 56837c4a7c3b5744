"""Forces results to disk in a thread while the next are computed: a disk may need as long for them as a processor does."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_MAX_WAITING = 4  # results that are complete, but for the disk


class Flusher:
    """Calls functions in a thread, in order; ``wait`` says when all have returned.

    Once one has raised, none is called any more: a later one may rely on what the earlier ones have done.
    """

    def __init__(self) -> None:
        self._has_failed = False
        self._thread = ThreadPoolExecutor(1)  # it starts with the first call
        self._waiting: deque[Future[None]] = deque()

    def __call__(self, finish: Callable[[], None]) -> None:
        """Have a function called soon; raise what an earlier one has raised."""
        while len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._call, finish))

    def wait(self) -> None:
        """Return when all functions have returned; raise what one of them has raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Return when all functions have returned; what they have raised is lost."""
        self._thread.shutdown()

    def _call(self, finish: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            finish()
        except BaseException:
            self._has_failed = True
            raise
