"""Commands that several processes of a launcher run together: which of them prints."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from reviewgen.cli.console import note, notes
from reviewgen.errors import ConfigError, ProcessLost, ReviewgenError
from reviewgen.interrupts import INTERRUPTED

__all__ = ["count_processes", "is_said_elsewhere", "one_voice", "refused_by_all"]


def count_processes() -> int:
    """Return the number of processes that the launcher has started; 1 without a launcher."""
    count = os.environ.get("WORLD_SIZE", "")
    return int(count) if count.isdecimal() else 1


@contextmanager
def one_voice(hint: str) -> Iterator[None]:
    """Let only the main process print in a block; of several processes, the one that has failed prints why, and all exit with 1.

    Args:
        hint: What to do after an interrupt.
    """
    notes.quiet = os.environ.get("RANK", "0") != "0"
    try:
        yield
    except KeyboardInterrupt:
        note(f"Interrupted. {hint}")
        sys.exit(INTERRUPTED)
    except ReviewgenError as problem:
        if count_processes() == 1:
            raise
        if not is_said_elsewhere(problem):
            notes.quiet = False
            note(f"error: {problem}", "red")
        sys.exit(1)


@contextmanager
def refused_by_all() -> Iterator[None]:
    """Check a command line that all processes have: only the main one prints what is wrong; all exit with 1."""
    try:
        yield
    except ConfigError as problem:
        if count_processes() == 1:
            raise
        if os.environ.get("RANK", "0") == "0":
            note(f"error: {problem}", "red")
        sys.exit(1)


def is_said_elsewhere(problem: ReviewgenError) -> bool:
    """Return whether another process prints an error.

    An error of one process is printed by that process. That one was lost is printed once on each of the other machines.
    """
    from reviewgen.training.processes import TOLD  # torch: a second or two

    is_first_here = os.environ.get("LOCAL_RANK", "0") == "0"
    return isinstance(problem, ProcessLost) and (str(problem).endswith(TOLD) or not is_first_here)
