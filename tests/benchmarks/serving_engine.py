"""The serving engine on lstm-char: tokens a second of 64 streams and of one, beside the bare loop, and how soon a stream starts.

    python -m tests.benchmarks serving_engine

Targets: 64 streams write at least 5 times the tokens a second of one; of the bare decoding loop, ``model.generate`` of the same
64 texts in the same minute, at least 0.8; and a request that joins 64 running streams, with a prompt of 30 characters, gets its
first token within 250 ms (99 of 100). The engine uses all cores, the bare loop one; so the ratio to it is also given in seconds
of the processor, which other work on the machine disturbs least. Each figure is the best of some rounds, which take turns.
"""

import statistics
import threading
import time
from typing import Any

import reviewgen
from reviewgen.generation import Request, make_request
from reviewgen.model import ReviewModel
from reviewgen.serving.engine import Engine
from reviewgen.serving.events import EndEvent, Event, FailedEvent, TokenEvent

STREAMS, TOKENS, ROUNDS, JOINING = 64, 400, 5, 200
PROMPT = "the movie was about a man who "
LENGTH: dict[str, Any] = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "finish": "anywhere"}


class Stream:
    """A stream: when its first token came, and how many came."""

    def __init__(self, engine: Engine, request: Request) -> None:
        self.started, self.first, self.tokens, self.done = time.monotonic(), 0.0, 0, threading.Event()
        self._ready = threading.Event()
        self.job = engine.submit(request, self.deliver)
        self._ready.set()

    def deliver(self, events: list[Event]) -> None:
        """Take events, as a server would that sends them on."""
        self._ready.wait()
        self.job.taken(len(events))
        self.first = self.first or time.monotonic()
        self.tokens += sum(isinstance(event, TokenEvent) for event in events)
        if any(isinstance(event, EndEvent | FailedEvent) for event in events):
            self.done.set()


def request(model: ReviewModel, seed: int, **settings: Any) -> Request:
    """Return the request of one text."""
    return make_request(PROMPT, model.generation_config, {"seed": seed, **LENGTH, **settings}, model.tokenizer, model.conditions)


def rate(engine: Engine, model: ReviewModel, count: int) -> tuple[float, float]:
    """Return the tokens a second of some streams that start together, and of a second of the processor."""
    started, used = time.monotonic(), time.process_time()
    streams = [Stream(engine, request(model, seed)) for seed in range(count)]
    for stream in streams:
        stream.done.wait()
    tokens = sum(stream.tokens for stream in streams)
    return tokens / (time.monotonic() - started), tokens / (time.process_time() - used)


def bare(model: ReviewModel, count: int) -> tuple[float, float]:
    """Return the same of ``generate``."""
    started, used = time.monotonic(), time.process_time()
    texts = model.generate(PROMPT, seed=0, num_return_sequences=count, return_dict_in_generate=True, **LENGTH)
    tokens = sum(text.new_tokens for text in texts)
    return tokens / (time.monotonic() - started), tokens / (time.process_time() - used)


def first_tokens(engine: Engine, model: ReviewModel) -> list[float]:
    """Return the seconds until the first token of requests that join 64 endless streams, one after another, sorted."""
    endless = {"max_new_tokens": 10**9, "min_new_tokens": 10**9}
    running = [Stream(engine, request(model, seed, **endless)) for seed in range(STREAMS)]
    while not all(stream.first for stream in running):
        time.sleep(0.01)
    waits = []
    for seed in range(JOINING):
        short = {"max_new_tokens": 5, "min_new_tokens": 5}
        prompt = f"{PROMPT}{seed}"  # none is known already
        settings = {"seed": seed, **LENGTH, **short}
        stream = Stream(engine, make_request(prompt, model.generation_config, settings, model.tokenizer, model.conditions))
        stream.done.wait()
        waits.append(stream.first - stream.started)
    for stream in running:
        stream.job.cancel()
    return sorted(waits)


def main() -> None:
    """Print the figures."""
    model = reviewgen.load("lstm-char")
    engine = Engine(model, max_rows=2 * STREAMS)
    rate(engine, model, 2)  # compiles
    rounds = [(rate(engine, model, 1), rate(engine, model, STREAMS), bare(model, STREAMS)) for _ in range(ROUNDS)]
    (one, _), (many, many_cpu), (loop, loop_cpu) = (map(max, zip(*each, strict=True)) for each in zip(*rounds, strict=True))
    print(f"one stream                  {one:10,.0f} tokens/s")
    print(f"{STREAMS} streams                  {many:10,.0f} tokens/s   ({many_cpu:,.0f} in a second of the processor)")
    print(f"bare loop, {STREAMS} texts         {loop:10,.0f} tokens/s   ({loop_cpu:,.0f} in a second of the processor)")
    print(f"{STREAMS} streams / one            {many / one:10.2f}            target >= 5")
    print(f"{STREAMS} streams / bare loop      {many / loop:10.2f}   ({many_cpu / loop_cpu:.2f})   target >= 0.8")
    waits = first_tokens(engine, model)
    print(f"first token, median         {1000 * statistics.median(waits):10.0f} ms")
    print(f"first token, 99 of 100      {1000 * waits[int(0.99 * len(waits)) - 1]:10.0f} ms         target <= 250")
    engine.close(drain=False)


if __name__ == "__main__":
    main()
