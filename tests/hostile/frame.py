"""What a fuzzer is, and what came of a case."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

__all__ = ["Fuzzer", "Outcome", "Tried", "Verdict"]

Verdict = Literal["clean", "same", "changed", "failed"]
"""clean: refused in one sentence; same: accepted, with the result of the unchanged input; changed: accepted, with another result
that is right for this input; failed: anything else, such as a traceback, a crash, a wait or a change without a message."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    verdict: Verdict
    case: str  # what was tried, in a line
    detail: str = ""  # the sentence or the traceback


@dataclass(frozen=True)
class Tried:
    """A case that was tried."""

    seed: int
    outcome: Outcome
    seconds: float
    peak_bytes: int  # resident memory over that after ``prepare``; of the largest process that the case started, too


class Fuzzer(Protocol):
    """A source of hostile cases.

    A module of this folder has one as ``FUZZER``. It runs in a process of its own: ``prepare`` once, then ``run`` for each seed.
    """

    name: str
    """A word for the summary and for ``--only``, such as ``folders``."""

    def prepare(self, folder: Path) -> None:
        """Make what all cases need (small models, a server), in an empty folder, within some seconds."""

    def run(self, seed: int) -> Outcome:
        """Try the case of this seed. Equal seeds try equal cases. Nothing that a case wrote is left behind for the next one."""

    def close(self) -> None:
        """Stop what ``prepare`` started."""
