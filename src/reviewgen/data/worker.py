"""A worker process, started as ``python -m reviewgen.data.worker``: reads calls from stdin and writes results to stdout.

A call is one JSON line ``[module, function, arguments]``; a result is one JSON line with the key ``result`` or ``error``. The
process exits when its stdin is closed, even during a call, since its parent process has then ended. See ``workers``.
"""

import importlib
import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

from reviewgen.errors import ReviewgenError


def main() -> None:
    """Run calls until stdin is closed."""
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes to stderr, so that it is not taken for a result
    for call in _receive_calls():
        results.write(json.dumps(_run(*json.loads(call))) + "\n")
        results.flush()


def _receive_calls() -> Iterator[str]:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_queue_stdin, args=(lines,), daemon=True).start()
    while True:
        yield lines.get()


def _queue_stdin(lines: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _run(module: str, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a call, or an error meant for the user; any other error ends the process."""
    try:
        return {"result": getattr(importlib.import_module(module), function)(**arguments)}
    except ReviewgenError as error:
        return {"error": {"kind": type(error).__name__, "message": str(error), "errno": None}}
    except OSError as error:
        return {"error": {"kind": "OSError", "message": error.strerror or str(error), "errno": error.errno}}


if __name__ == "__main__":
    main()
