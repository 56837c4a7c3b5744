"""Values that no argument should have, for the fuzzers of calls and of command lines."""

import datetime
import decimal
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["WORDS", "hostile_value"]


class Unprintable:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Liar(dict):  # type: ignore[type-arg]  # what it holds does not matter
    """A mapping that fails when it is read."""

    def keys(self) -> Any:
        raise KeyError("no keys")

    def __iter__(self) -> Any:
        raise ZeroDivisionError("no iteration")


class Endless:
    """An object whose attributes are all there, and wrong."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


WORDS = [
    *("", " ", "\n", "\t", "\x00", "a\x00b", "\x1b[31mred", "\x1b]8;;http://a\x07b", "\x9b2J", "\u202eabc", "\ud800", "é" * 300),
    *("x" * 100_000, "../..", "/", ".", "~no-such-user/x", "/dev/null", "/dev/null/x", "/dev/full", "/proc/self/mem", "x" * 300),
    *("nan", "inf", "-inf", "1e400", "-1", "0", "1", "1.5", "٣", "1_000", "1e308,1e308", "0x10", "9" * 5000, "true", "None"),
    *("a/b", "hf://a/b", "a/b@c", "a:b", "@", "lstm-char", "ngram-char", "ngram-", "-char", "lstm-char-x", "blend-char", "word"),
    *("{}", "[]", '{"a": 1}', "*", "?", "[", "a=b", "=", "model.order=", "model.order=2", "training.batch_size=nan", "5m", "-5s"),
    *("[/a]", "[/a]=nosuch", "a/[/b]", "[red]", "[@click=app.quit]x", ":smile:"),
    *(
        "known",
        "sentence",
        "report",
        "filter",
        "line",
        "file",
        "train",
        "tensorboard",
        "svg",
        "a.svg",
        "a.html",
        "a.png",
        "a.txt",
    ),
]
"""Strings that are wrong in most places: control characters, long ones, paths, numbers, names and settings."""


def _arrays(rng: random.Random) -> Any:
    import numpy as np
    import torch

    return (
        rng.choice([np.zeros(3), np.zeros((2, 2)), np.array(3), np.array([]), np.array(["a"]), np.float32(1), np.int64(3)])
        if (rng.random() < 0.7)
        else rng.choice([torch.zeros(2), torch.tensor(1.5), torch.zeros(0)])
    )


def _tables(rng: random.Random) -> Any:
    import pandas

    return rng.choice([pandas.DataFrame({"a": [1, None]}), pandas.Series(["x", 3]), pandas.DataFrame()])


_MAKERS: list[Callable[[random.Random], Any]] = [
    lambda rng: rng.choice([None, True, False, ..., NotImplemented]),
    lambda rng: rng.choice([-1, 0, 1, 2, 3, 7, 2**31, 2**63, 2**64, -(2**70), 10**400]),
    lambda rng: rng.choice([1.5, 0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, 2.0]),
    lambda rng: rng.choice(WORDS),
    lambda rng: rng.choice(WORDS),
    lambda rng: rng.choice([b"", b"bytes", b"\xff" * 1000, bytearray(b"a"), memoryview(b"abc")]),
    lambda rng: rng.choice(
        [[], [None], [[]], [1, "a"], ["a", "b"], list(range(10_000)), [float("nan")], ["x" * 100_000], [b"a"]]
    ),
    lambda rng: rng.choice(
        [(), (1,), ("a", None), {1, "a"}, frozenset(), range(3), iter([]), (n for n in "ab"), zip("a", "b", strict=True)]
    ),
    lambda rng: rng.choice(
        [{}, {1: 2}, {"a": 1}, {"model": {}}, {"model": 3}, {"": None}, {"a": {"b": [1]}}, {None: "x" * 9999}]
    ),
    lambda rng: rng.choice([{"stars": 5}, {"order": -1}, {"order": "x" * 100_000}, {"train": ["a"], "test": ["b"]}, Liar(a=1)]),
    lambda rng: rng.choice([object(), Unprintable(), Endless(), object, int, Exception("e"), len, lambda: None, lambda *a: None]),
    lambda rng: rng.choice([[Unprintable()], {"a": Unprintable()}, (Endless(),), [Liar(a=1)]]),
    lambda rng: rng.choice([3 + 4j, decimal.Decimal("NaN"), decimal.Decimal("1.5"), datetime.datetime(2020, 1, 1), random]),
    lambda rng: Path(rng.choice(WORDS)),
    _arrays,
    _tables,
]


def hostile_value(rng: random.Random) -> Any:
    """Return a value of any type."""
    return rng.choice(_MAKERS)(rng)
