"""The law that training a tokenizer gives the same ids in any process: with other threads, hash seeds and streams of texts."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["any_order"]

ENVIRONMENTS = (
    {"PYTHONHASHSEED": "0", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    {"PYTHONHASHSEED": "1", "RAYON_NUM_THREADS": "4", "OMP_NUM_THREADS": "4", "TOKENIZERS_PARALLELISM": "true"},
)
_SYLLABLES = ("ra", "be", "li", "mon", "du", "ster", "ka", "tio", "ne", "w")
_TRAIN = """
import importlib, json, sys
module, name = sys.argv[1:]
kind = importlib.import_module(module)
for part in name.split("."):
    kind = getattr(kind, part)
texts = json.load(sys.stdin)
tokenizer = kind.train(iter(texts), kind.Config())
print("\\n" + json.dumps([[int(i) for i in tokenizer.encode(text)] for text in texts]))
"""


def any_order(make: Callable[[], Any]) -> None:
    """Training gives the same ids with another number of threads, another hash seed, and texts from another thread."""
    kind, texts = type(make()), some_texts()
    expected = _encode(kind.train(iter(texts), kind.Config()), texts)
    streamed = _encode(kind.train(_from_a_thread(texts), kind.Config()), texts)
    _assert_same(streamed, expected, texts, "with texts that another thread reads, than with a list")
    if not _is_importable(kind):
        return  # another process cannot import what a notebook defines
    results = _train_elsewhere(kind, texts)
    for ids in results:
        changed = "with PYTHONHASHSEED=1 and 4 threads, than with PYTHONHASHSEED=0 and one thread"
        _assert_same(ids, results[0], texts, f"in another process ({changed})")
        _assert_same(ids, expected, texts, "in another process, than in this one")


def some_texts() -> list[str]:
    """Return 200 short texts, the same ones each time, in which many pairs of symbols are equally frequent."""
    words = [a + b for a in _SYLLABLES for b in _SYLLABLES]
    return [" ".join(words[(7 * n + step * k) % len(words)] for k in range(6)) + "." for n in range(50) for step in (1, 3, 9, 11)]


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [tokenizer.encode(text) for text in texts]


def _assert_same(actual: list[list[int]], expected: list[list[int]], texts: Sequence[str], how: str) -> None:
    for text, one, other in zip(texts, actual, expected, strict=True):
        assert one == other, (
            f"A tokenizer trained on the same texts gives other ids {how}: {text[:30]!r} encodes to {str(one)[:50]} instead of "
            f"{str(other)[:50]}. Sort what comes from a set or from threads before ids are given."
        )


def _from_a_thread(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts that another thread provides one by one."""
    waiting: queue.Queue[str | None] = queue.Queue(maxsize=4)

    def fill() -> None:
        for text in texts:
            waiting.put(text)
        waiting.put(None)

    threading.Thread(target=fill, daemon=True).start()
    while (text := waiting.get()) is not None:
        yield text


def _is_importable(kind: type) -> bool:
    """Return whether another process can import a class by its name."""
    value: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        value = getattr(value, part, None)
    return kind.__module__ != "__main__" and value is kind


def _train_elsewhere(kind: type, texts: Sequence[str]) -> list[list[list[int]]]:
    """Return the ids of the texts after training in new processes, one for each environment, at the same time."""
    paths = {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    command = [sys.executable, "-P", "-c", _TRAIN, kind.__module__, kind.__qualname__]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [
        subprocess.Popen(command, env=os.environ | paths | environment, text=True, encoding="utf-8", **pipes)
        for environment in ENVIRONMENTS
    ]
    results = []
    for process in started:
        output, errors = process.communicate(json.dumps(texts))
        last = (errors.strip().splitlines() or ["no message"])[-1]
        assert process.returncode == 0, f"The tokenizer cannot be imported and trained in a new process: {last[:200]}"
        results.append(json.loads(output.splitlines()[-1]))
    return results
