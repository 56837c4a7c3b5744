"""Figures of reviewgen beside what else a user could run; ``make bench``."""

import time


def timed(call) -> float:
    """Return the seconds that a call takes."""
    start = time.monotonic()
    call()
    return time.monotonic() - start
