"""Fuzzers with planted faults, for the tests of the driver."""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.hostile.frame import Outcome

_MEGABYTE = 1 << 20


class _Planted:
    """A fuzzer that does as it should in even cases, and in odd ones has a fault."""

    name = "planted"

    def prepare(self, folder: Path) -> None:
        """Expect an empty folder."""
        assert not list(folder.iterdir())
        (folder / "prepared").touch()

    def run(self, seed: int) -> Outcome:
        """The fault, or a clean outcome."""
        if seed % 2:
            self.fault(seed)
        return Outcome("clean", f"case {seed}")

    def fault(self, seed: int) -> Outcome | None:
        """What an odd case does."""
        return None

    def close(self) -> None:
        """Nothing was started."""


class _Raises(_Planted):
    def fault(self, seed: int) -> None:
        raise RecursionError(f"planted {seed}")


class _Exits(_Planted):
    def fault(self, seed: int) -> None:
        os._exit(3)


class _Hangs(_Planted):
    def fault(self, seed: int) -> None:
        while True:
            time.sleep(1)


class _HangsWithAChild(_Planted):
    def __init__(self, in_session: bool) -> None:
        self.in_session = in_session  # whether the child leads a session of its own, as a server of ours does

    def fault(self, seed: int) -> None:
        subprocess.run(
            [sys.executable, "-c", "import time; time.sleep(3600)", f"planted-{os.getppid()}"], start_new_session=self.in_session
        )


class _Crashes(_Planted):
    def fault(self, seed: int) -> None:
        ctypes.string_at(0)


class _Grows(_Planted):
    """Takes memory and returns it before the case ends."""

    def fault(self, seed: int) -> None:
        bytearray(b"x") * (300 * _MEGABYTE)


class _GrowsForEver(_Planted):
    def fault(self, seed: int) -> None:
        kept = []
        while True:
            kept.append(b"x" * (8 * _MEGABYTE))
            time.sleep(0.02)


class _GrowsInAChild(_Planted):
    def fault(self, seed: int) -> None:
        subprocess.run([sys.executable, "-c", f"b'x' * {300 * _MEGABYTE}"], check=True)


class _CannotPrepare(_Planted):
    def prepare(self, folder: Path) -> None:
        raise ValueError("planted in prepare")


CLEAN = _Planted()
RAISES = _Raises()
EXITS = _Exits()
HANGS = _Hangs()
HANGS_WITH_A_CHILD = _HangsWithAChild(False)
HANGS_WITH_A_SESSION = _HangsWithAChild(True)
CRASHES = _Crashes()
GROWS = _Grows()
GROWS_FOR_EVER = _GrowsForEver()
GROWS_IN_A_CHILD = _GrowsInAChild()
CANNOT_PREPARE = _CannotPrepare()
