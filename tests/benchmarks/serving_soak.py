"""Many requests from many connections, some of which go away: no wrong text, no leak, no stuck row.

    python -m tests.benchmarks.serving_soak [REQUESTS] [CONNECTIONS] [MODEL]

Each request has one of 200 seeds, whose texts were generated before; three of ten leave after the first parts of their stream. At
the end every text that was read is that of its seed, the server has the memory of the first tenth at the end, within 5 %,
and ``/metrics`` says that no text is in progress.
"""

import asyncio
import random
import sys
import time
import urllib.request

import psutil

import reviewgen
from tests.benchmarks.http_clients import ask, serving

SEEDS, LEAVING, TOKENS = 200, 0.3, 60


async def soak(port: int, model: str, expected: list[str], requests: int, connections: int, server: psutil.Process) -> list[int]:
    """Send the requests; return the server's resident memory in bytes after each twentieth of them."""
    numbers, memory, done = iter(range(requests)), [], 0

    async def client() -> None:
        nonlocal done
        for number in numbers:
            chance = random.Random(number)
            seed, leave = chance.randrange(SEEDS), chance.randrange(1, 4) if chance.random() < LEAVING else None
            got = await ask(port, leave, model=model, prompt="The ", seed=seed, max_tokens=TOKENS)
            if got.text is not None and "The " + got.text != expected[seed]:
                raise SystemExit(f"Request {number}, seed {seed}: {got.text!r} in place of {expected[seed]!r}")
            done += 1
            if done % max(1, requests // 20) == 0:
                memory.append(server.memory_info().rss)
                print(f"{done:7,} requests, {memory[-1] / 1e6:7.1f} MB, {time.strftime('%H:%M:%S')}", flush=True)

    await asyncio.gather(*(client() for _ in range(connections)))
    return memory


def progress(port: int) -> dict[str, float]:
    """Return the numbers of texts in progress that the server reports."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(("reviewgen_live", "reviewgen_waiting"))]
    return {name: float(value) for name, _, value in lines}


def main(requests: str = "20000", connections: str = "64", name: str = "lstm-char") -> None:
    """Run the soak; exit with a sentence if anything is wrong."""
    model, started = reviewgen.load(name), time.monotonic()
    expected = [model.generate_one("The ", seed=seed, max_new_tokens=TOKENS) for seed in range(SEEDS)]
    with serving(name) as served:
        process = psutil.Process(served.process.pid)
        memory = asyncio.run(soak(served.port, name, expected, int(requests), int(connections), process))
        time.sleep(1)
        left, files = progress(served.port), process.num_fds()
        status = served.process.poll()
    growth = memory[-1] / memory[1] - 1
    print(f"{int(requests):,} requests in {time.monotonic() - started:.0f} s; memory {growth:+.1%}; left {left}; {files} files")
    if status is not None or any(left.values()) or growth > 0.05:
        raise SystemExit("The server died, texts are stuck, or memory has grown by more than 5 %.")


if __name__ == "__main__":
    main(*sys.argv[1:])
