"""Tokens a second of 64 streams over HTTP beside one stream and the bare loop, and the time to the
first token.

    python -m tests.benchmarks serving_http [MODEL] [STREAMS]

The server is ``reviewgen serve`` in a process of its own, the clients are bare connections in this
one. The bare loop is ``ReviewModel.generate`` with as many texts side by side, in one thread, while
the server is idle. Targets: 64 streams have 5 times the tokens of one and 0.8 of the bare loop's,
and 99 % of the first tokens come within 250 ms, on two cores without other work.
"""

import asyncio
import json
import tempfile
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import reviewgen
from tests.support.servers import serving

TOKENS = 400
ROUNDS = 3
PLAIN = {
    "prompt": "The movie",
    "words": "any",
    "finish": "anywhere",
    "max_tokens": TOKENS,
    "min_tokens": TOKENS,
}


@dataclass
class Stream:
    """What a client got: the number of new tokens, and the seconds from the request to the first
    one.
    """

    tokens: int
    first: float


async def ask(port: int, **fields: Any) -> Stream:
    """Read one stream on a connection of its own."""
    body = json.dumps(fields | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    started = time.perf_counter()
    first = 0.0
    tokens = 0
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type:"
        b" application/json\r\nConnection: close\r\n"
    )
    writer.write(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    async for line in reader:
        if line.startswith(b"HTTP/1.1 ") and b" 200 " not in line:
            raise RuntimeError(f"{line!r} {await reader.read()!r}")
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            first = first or time.perf_counter() - started
            tokens = chunk["usage"]["completion_tokens"] if chunk.get("usage") else tokens
    writer.close()
    return Stream(tokens, first)


async def at_once(port: int, model: str, streams: int, rounds: int) -> tuple[float, list[Stream]]:
    """Return the tokens a second of some streams at once, and what each client got."""

    async def client(number: int) -> list[Stream]:
        return [
            await ask(port, model=model, seed=number * rounds + turn, **PLAIN)
            for turn in range(rounds)
        ]

    started = time.perf_counter()
    read = [*chain.from_iterable(await asyncio.gather(*map(client, range(streams))))]
    return sum(one.tokens for one in read) / (time.perf_counter() - started), read


def bare(model: reviewgen.ReviewModel, texts: int) -> float:
    """Return the tokens a second of the bare loop."""
    settings = {
        "max_new_tokens": TOKENS,
        "min_new_tokens": TOKENS,
        "words": "any",
        "finish": "anywhere",
    }
    started = time.perf_counter()
    model.generate("The movie", num_return_sequences=texts, seed=1, **settings)
    return texts * TOKENS / (time.perf_counter() - started)


def main(name: str = "lstm-char", streams: str = "64") -> None:
    """Print the figures."""
    model = reviewgen.load(name)
    many = int(streams)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(["serve", name, "--port", "0"], Path(folder, "log")) as said,
    ):
        port = int(said["url"].rpartition(":")[2])
        bare(model, many)  # compiles
        asyncio.run(at_once(port, name, many, 1))
        alone, _ = asyncio.run(at_once(port, name, 1, ROUNDS))
        loop = max(bare(model, many) for _ in range(ROUNDS))
        together, read = asyncio.run(at_once(port, name, many, ROUNDS))
    first = np.array([one.first for one in read]) * 1000
    print(f"{name}, {TOKENS} tokens a stream")
    print(f"1 stream           {alone:9,.0f} tokens/s")
    print(
        f"{many} streams         {together:9,.0f} tokens/s   {together / alone:.1f} x one (target"
        " >= 5)"
    )
    print(
        f"bare loop of {many}    {loop:9,.0f} tokens/s   HTTP has {together / loop:.2f} of it"
        " (target >= 0.8)"
    )
    print(
        f"first token        median {np.median(first):.0f} ms, 99 % {np.quantile(first, 0.99):.0f}"
        " ms (target <= 250)"
    )
