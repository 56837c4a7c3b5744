"""One worker process: ``python -m reviewgen.data.worker`` calls what it is told, a JSON line a call, and answers in JSON lines.

It ends when its standard input does, in the middle of a call too: then the process that it works for is gone. See ``workers``.
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
    """Answer calls for ever."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for call in _calls():
        answers.write(json.dumps(_answer(*json.loads(call))) + "\n")
        answers.flush()


def _calls() -> Iterator[str]:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    while True:
        yield lines.get()


def _listen(lines: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _answer(module: str, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a call's result, or the error that a person should read; any other ends the process."""
    try:
        return {"result": getattr(importlib.import_module(module), function)(**arguments)}
    except ReviewgenError as error:
        return {"error": {"kind": type(error).__name__, "message": str(error), "number": None}}
    except OSError as error:
        return {"error": {"kind": "OSError", "message": error.strerror or str(error), "number": error.errno}}


if __name__ == "__main__":
    main()
