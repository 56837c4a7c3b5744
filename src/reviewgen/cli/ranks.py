"""Commands that several processes of a launcher run together: one of them prints an error, and all of them end."""

import hashlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from typing import Any

from reviewgen.cli.console import error, note, notes
from reviewgen.errors import ConfigError, ProcessLost
from reviewgen.interrupts import INTERRUPTED

_reports = itertools.count()  # a script may run several commands, which say the same
_ASKING = timedelta(seconds=5)
_JOINING = timedelta(minutes=1)
_ENDING_SECONDS = 10.0  # in which a process that was at work notices that another one has ended
_STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_NO_STORE = (KeyError, OSError, RuntimeError, ValueError)  # it has ended, or the environment does not name it


def count_processes() -> int:
    """Return the number of processes that the launcher has started; 1 without a launcher."""
    count = os.environ.get("WORLD_SIZE", "")
    return int(count) if count.isdecimal() else 1


def refuse_standard_input(source: str) -> None:
    """Raise if a source is standard input, of which each of several processes would read a piece.

    Raises:
        ConfigError: It is.
    """
    if source in _STANDARD_INPUT and count_processes() > 1:
        raise ConfigError("Several processes cannot read one standard input. Write it to a file, and give the file's name.")


@contextmanager
def one_voice(hint: str) -> Iterator[None]:
    """Let only the main process print notes from now on, and end the command after an interrupt.

    Args:
        hint: What to do after an interrupt.
    """
    notes.quiet = os.environ.get("RANK", "0") != "0"
    try:
        yield
    except KeyboardInterrupt:
        note(f"Interrupted. {hint}")
        sys.exit(INTERRUPTED)


def report(problem: Exception | str, say: Callable[[], None] | None = None) -> None:
    """Print an error message, unless another process of the launcher prints it.

    Args:
        problem: The error, or the message.
        say: Prints it in another form.
    """
    undisturbed: AbstractContextManager[None] = nullcontext()
    if count_processes() > 1:
        from reviewgen.interrupts import uninterrupted  # torch: a second or two

        if not _has_store_of_launcher():
            _join(_JOINING)
        undisturbed = uninterrupted()
    with undisturbed:  # the launcher may be ending this process because another one has ended
        if count_processes() == 1 or _is_said_here(problem):
            notes.quiet = False
            (say or partial(error, str(problem)))()


def _is_said_here(problem: Exception | str) -> bool:
    """Return whether this one of several processes prints an error message.

    An error of one process is printed by that process, an error that all have by the first of them. That another process was lost
    is printed once on a machine, unless one there has said why: by the first process of the machine, unless that is the lost one.
    """
    from reviewgen.processes import TOLD

    number, machine = next(_reports), os.environ.get("GROUP_RANK") or socket.gethostname()
    if str(problem).endswith(TOLD):
        return False
    here, lost = f"said {number} on {machine}", f"lost {number} on {machine}"
    if isinstance(problem, ProcessLost):
        is_first = os.environ.get("LOCAL_RANK", "0") == "0"
        return not _happens(here) and (is_first or not _happens(lost)) and _count(lost) == 1
    _count(here)
    return _count(f"said {number}: {hashlib.sha256(str(problem).encode()).hexdigest()}") == 1


def leave() -> None:
    """End together with the other processes, which may not be connected yet and would wait for this one."""
    with suppress(*_NO_STORE, KeyboardInterrupt):
        if _join(_JOINING) and not _has_store_of_launcher():
            store = _store()
            store.set(f"end of {os.environ['RANK']}", "")
            if os.environ["RANK"] == "0":  # the store ends with this process
                _await(store, [f"end of {rank}" for rank in range(count_processes())], _ENDING_SECONDS)


def _has_store_of_launcher() -> bool:
    """Return whether the launcher has the store where the processes meet; else it comes and goes with one of them."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _join(timeout: timedelta) -> bool:
    """Connect with the other processes; return whether that was possible."""
    from reviewgen.processes import process_state

    try:
        process_state(timeout)
    except ProcessLost:
        return False
    return True


def _count(event: str) -> int:
    """Return how many processes have had an event, with this one; 1 if the store is gone where they are counted."""
    try:
        return int(_store().add(event, 1))
    except _NO_STORE:
        return 1


def _happens(event: str) -> bool:
    """Return whether a process has an event, or has it in a moment: its connections may close before it says why."""
    try:
        return _await(_store(), [event], 1.0)
    except _NO_STORE:
        return False


def _await(store: Any, keys: list[str], seconds: float) -> bool:
    """Wait until a store has all keys, and return whether it has; its own ``wait`` prints a warning if it has not."""
    deadline = time.monotonic() + seconds
    while not (has_all := store.check(keys)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(has_all)


def _store() -> Any:
    """Connect with the store where the processes have met. It may have kept what they said before they were started again."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # public, but not exported for type checkers

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    socket.create_connection((address, port), _ASKING.total_seconds()).close()  # without a store, torch prints a long stack trace
    store = TCPStore(address, port, is_master=False, timeout=_ASKING, wait_for_workers=False)
    return PrefixStore(f"reviewgen/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
