"""The process that a fuzzer runs in: ``python -m tests.hostile.child MODULE[:NAME] FOLDER DESCRIPTOR DRIVER``.

It receives seeds over a socket that it inherits, and answers each with the outcome, the seconds and the memory of the case.
SIGUSR1 makes it print where it is, for a case that hangs. When the process DRIVER ends, it ends with all that it has started.
"""

import contextlib
import faulthandler
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from tests.hostile.frame import Fuzzer, Outcome, Tried

__all__ = ["load"]


def load(spec: str) -> Fuzzer:
    """Import ``module`` or ``module:NAME``, and return its fuzzer."""
    module, _, name = spec.partition(":")
    fuzzer: Fuzzer = getattr(importlib.import_module(module), name or "FUZZER")
    return fuzzer


def main(spec: str, folder: str, descriptor: str, driver: str) -> None:
    """Prepare, and try the case of each seed that arrives, until the other side closes the connection."""
    threading.Thread(target=_follow, args=(int(driver),), daemon=True).start()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    connection = Connection(int(descriptor))
    fuzzer = load(spec)
    fuzzer.prepare(Path(folder))
    try:
        base = psutil.Process().memory_info().rss
        connection.send(base)
        with contextlib.suppress(EOFError):
            while True:
                connection.send(_try(fuzzer, connection.recv(), base))
    finally:
        fuzzer.close()


def _follow(driver: int) -> None:
    """Wait until the driver has ended; end all that this process has started, also in sessions of their own, and this session."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(driver).wait()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if os.getsid(0) == os.getpid():  # as the driver starts it: no process of others is in its group
        os.killpg(0, signal.SIGKILL)


def _try(fuzzer: Fuzzer, seed: int, base: int) -> Tried:
    """Try one case. Whatever it raises counts as failed."""
    _forget_the_peak()
    grown = _largest_child()
    start = time.monotonic()
    try:
        outcome = fuzzer.run(seed)
    except BaseException:  # SystemExit and KeyboardInterrupt too: a case may raise anything
        outcome = Outcome("failed", f"seed {seed}", traceback.format_exc())
    seconds = time.monotonic() - start
    child = _largest_child()
    return Tried(seed, outcome, seconds, max(_peak() - base, child - base if child > grown else 0, 0))


def _forget_the_peak() -> None:
    """Let the kernel count the peak of resident memory from now on, where it can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """The peak of resident memory in bytes; without /proc, what is resident now."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def _largest_child() -> int:
    """The peak of resident memory, in bytes, of the largest process that this one has started and waited for."""
    import resource  # not on Windows, where the fuzzers do not run

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
