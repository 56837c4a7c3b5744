"""Commands that several processes of a launcher run together: the main process prints, or the one that has failed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from reviewgen.cli.console import note, notes
from reviewgen.errors import ProcessLost, ReviewgenError
from reviewgen.interrupts import INTERRUPTED

__all__ = ["count_processes", "one_voice"]


def count_processes() -> int:
    """Return the number of processes that the launcher has started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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
        from reviewgen.training.rounds import TOLD  # torch, which is loaded by now where several processes are connected

        if not isinstance(problem, ProcessLost):
            notes.quiet = False
        if count_processes() == 1:
            raise
        if not str(problem).endswith(TOLD):
            note(f"error: {problem}", "red")
        sys.exit(1)
