"""Commands under a launcher: which of the processes prints an error."""

import os

from reviewgen.errors import ProcessLost, ReviewgenError

__all__ = ["is_said_elsewhere"]


def is_said_elsewhere(problem: ReviewgenError) -> bool:
    """Return whether another process prints an error.

    An error of one process is printed by that process. That one was lost is printed once on each of the other machines.
    """
    from reviewgen.training.processes import TOLD  # torch: a second or two

    is_first_here = os.environ.get("LOCAL_RANK", "0") == "0"
    return isinstance(problem, ProcessLost) and (str(problem).endswith(TOLD) or not is_first_here)
