"""Clients of a server that cost little themselves: bare connections, on which a stream is read part by part."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int


@dataclass
class Stream:
    """What a client got.

    Attributes:
        text: The text; None of a stream that it left early.
        tokens: The number of new tokens.
        first, last: Seconds from the request to the first token, and to the end.
    """

    text: str | None
    tokens: int
    first: float
    last: float


@contextlib.contextmanager
def serving(*words: str) -> Iterator[Served]:
    """Run ``reviewgen serve`` on a free port as long as the block lasts."""
    command = [sys.executable, "-m", "reviewgen", "serve", *words, "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1] != "}\n":
        lines.append(process.stdout.readline())
        assert lines[-1], "The server did not start."
    try:
        yield Served(process, int(json.loads("".join(lines))["url"].rpartition(":")[2]))
    finally:
        process.terminate()
        process.wait(60)


async def ask(port: int, leave_after: int | None = None, **fields: Any) -> Stream:
    """Read one stream on a connection of its own; leave after some parts of it if that is given."""
    body = json.dumps(fields | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    started, first, text, tokens, parts = time.perf_counter(), 0.0, "", 0, 0
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    try:
        async for line in reader:
            if not line.startswith(b"data: {"):
                if line.startswith(b"HTTP/1.1 ") and b" 200 " not in line:
                    raise RuntimeError(f"{line!r} {await reader.read()!r}")
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            first = first or time.perf_counter() - started
            text += "".join(choice["text"] for choice in chunk["choices"])
            tokens = chunk["usage"]["completion_tokens"] if chunk.get("usage") else tokens
            parts += 1
            if leave_after is not None and parts >= leave_after:
                writer.transport.abort()
                return Stream(None, 0, first, time.perf_counter() - started)
    finally:
        writer.close()
    return Stream(text, tokens, first, time.perf_counter() - started)
