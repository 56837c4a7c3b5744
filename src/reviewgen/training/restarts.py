"""Restarts by the launcher: ``accelerate launch --max_restarts N`` and torchrun start a job again when a process is lost.

The launcher says so in the environment of each process. Such a job resumes from its last checkpoint by itself, so a process that
loses another one, or that the launcher ends because of one, saves no model and leaves the checkpoints as they are.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from reviewgen.errors import ProcessLost
from reviewgen.training.checkpoints import Checkpoints


def resumes_by_itself() -> bool:
    """Return whether the job was started with restarts.

    That, and not the number of restarts so far: a machine that joins the others again is not counted as one.
    """
    return _number("TORCHELASTIC_MAX_RESTARTS") > 0


def can_restart() -> bool:
    """Return whether the launcher starts the job again if a process is lost now."""
    return _number("TORCHELASTIC_RESTART_COUNT") < _number("TORCHELASTIC_MAX_RESTARTS")


@contextmanager
def interrupts_kept_for_restart(checkpoints: Checkpoints | None) -> Iterator[None]:
    """Where the job can be restarted, turn an interrupt into an error: the launcher ends all processes before it restarts them.

    Args:
        checkpoints: Those of the run; None if it has none, or in another process than the main one.

    Raises:
        ProcessLost: The process was interrupted, and the job can be restarted.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not can_restart():
            raise
        has_checkpoint = checkpoints is not None and bool(checkpoints.steps())
        raise ProcessLost(f"This process was asked to end. {how_to_resume(has_checkpoint=has_checkpoint)}") from None


def how_to_resume(*, has_checkpoint: bool) -> str:
    """Return a sentence for the user of a run that has lost a process."""
    if not has_checkpoint:
        return "No checkpoint was saved yet, so the same command starts from the beginning."
    if resumes_by_itself():
        return "Started again, the same command goes on from the last checkpoint."
    return "The same command with --resume (resume=True) goes on from the last checkpoint."


def _number(name: str) -> int:
    value = os.environ.get(name, "0")
    return int(value) if value.isdecimal() else 0
