"""Calls of the public functions and methods with values that their arguments should not have.

Refused in one sentence of ours, or by the TypeError that Python raises for arguments that do not
exist.
"""

import contextlib
import datetime
import inspect
import io
import os
import random
import shutil
import traceback
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import reviewgen
from reviewgen.export.folders import export_tokenizer
from reviewgen.export.html import export_html
from tests.hostile.frame import Fuzzer, find_fault
from tests.support.fakes import TEXTS
from tests.support.models import make_model

WORDS = [
    *(
        "",
        " ",
        "\n",
        "\x00",
        "\x1b[31mred",
        "\u202eabc",
        "\ud800",
        "é" * 300,
        "x" * 100_000,
        "../..",
        "/",
        ".",
        "/dev/null/x",
    ),
    *(
        "/dev/full",
        "nan",
        "inf",
        "1e400",
        "-1",
        "0",
        "1",
        "1.5",
        "٣",
        "1_000",
        "0x10",
        "9" * 5000,
        "true",
        "None",
        "a/b",
        "@",
    ),
    *(
        "hf://a/b",
        "a/b@c",
        "lstm-char",
        "ngram-",
        "-char",
        "lstm-char-x",
        "{}",
        "[]",
        '{"a": 1}',
        "*",
        "a=b",
        "model.order=",
    ),
    *(
        "5m",
        "-5s",
        "[/a]",
        "[red]",
        "known",
        "sentence",
        "filter",
        "line",
        "train",
        "a.svg",
        "a.html",
        "a.txt",
    ),
]
"""Strings that are wrong in most places: control characters, long ones, paths, numbers, names and
settings.
"""


class Unprintable:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


VALUES: list[Any] = [
    *(
        None,
        True,
        ...,
        -1,
        0,
        1,
        2,
        7,
        2**31,
        2**64,
        10**400,
        1.5,
        -0.0,
        float("nan"),
        float("inf"),
        1e308,
        3 + 4j,
    ),
    *(
        b"",
        b"\xff" * 1000,
        [],
        [None],
        [[]],
        [1, "a"],
        ["a", "b"],
        list(range(10_000)),
        ["x" * 100_000],
        (),
        {1, "a"},
        range(3),
    ),
    *(
        {},
        {1: 2},
        {"a": 1},
        {"model": 3},
        {"": None},
        {"a": {"b": [1]}},
        {"order": -1},
        {"stars": 5},
        object(),
        Unprintable(),
    ),
    *(
        object,
        len,
        Exception("e"),
        [Unprintable()],
        datetime.datetime(2020, 1, 1),
        random,
        Path("/dev/null/x"),
    ),
    *(np.zeros(3), np.array([]), np.int64(3), torch.zeros(2)),
]


class Calls(Fuzzer):
    """The fuzzer."""

    def prepare(self, folder: Path) -> None:
        """Train two small models, and list the functions with arguments that they accept."""
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
        self.folder = folder
        for name in ("ngram-char", "gru-char"):
            make_model(name, folder / name)
        self.functions = self._functions(folder)
        for name in ("ngram-char", "gru-char"):
            for method, own in self._methods(reviewgen.load(folder / name / "model")):
                self.functions[f"{name}.{method.__name__}"] = (method, own)

    def run(self, seed: int) -> tuple[str, str]:
        """Call one function."""
        source = random.Random(seed)
        name = source.choice(sorted(self.functions))
        function, own = self.functions[name]
        names = [
            each
            for each in inspect.signature(function).parameters
            if each not in ("self", "progress", "options")
        ]
        changed = source.sample(sorted({*names, *own}), 1) + (
            ["temprature"] if source.random() < 0.03 else []
        )
        values = {each: source.choice([*WORDS, *VALUES, *VALUES]) for each in changed}
        with contextlib.suppress(RuntimeError):  # that of the value that cannot be shown
            name += ascii(values)[:100]
        place = self.folder / "place"
        before = Path.cwd()
        place.mkdir()
        os.chdir(place)
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                consume(function(**own | values))
        except TypeError as error:
            is_of_python = len(
                traceback.extract_tb(error.__traceback__)
            ) <= 2 and "argument" in str(error)
            return name, "" if is_of_python else find_fault(error)
        except Exception as error:
            return name, find_fault(error)
        finally:
            os.chdir(before)
            shutil.rmtree(place, ignore_errors=True)
        return name, ""

    def _functions(self, folder: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
        n = reviewgen.load(folder / "ngram-char" / "model")
        texts = TEXTS[:24]
        listed: list[tuple[Callable[..., Any], dict[str, Any]]] = [
            (reviewgen.load, {"source": folder / "ngram-char" / "model"}),
            (
                reviewgen.train,
                {
                    "start": "ngram-char",
                    "source": texts,
                    "progress": False,
                    "steps": 1,
                    "budget": None,
                    "model": {},
                },
            ),
            (reviewgen.blend, {"models": [n, n], "weights": [1, 2]}),
            (
                reviewgen.prepare,
                {"source": texts, "preset": "gru-char", "out": "store", "conditions": None},
            ),
            (
                reviewgen.generate_dataset,
                {
                    "model": n,
                    "n": 4,
                    "out": "t",
                    "max_new_tokens": 5,
                    "format": "jsonl",
                    "unique": True,
                },
            ),
            (reviewgen.score_dataset, {"model": n, "source": texts, "out": "table"}),
            (reviewgen.novelty_dataset, {"model": n, "source": texts, "out": "table"}),
            (
                reviewgen.sweep,
                {
                    "preset": "ngram-char",
                    "source": texts,
                    "setting": "model.order",
                    "values": [2],
                    "steps": 1,
                },
            ),
            (reviewgen.ablate, {"preset": "ngram-char", "source": texts}),
            (reviewgen.tune, {"start": "ngram-char", "source": texts, "trials": 1, "steps": 1}),
            (
                reviewgen.tune_sampling,
                {"model": n, "source": texts, "texts": 20, "search": {"top_k": [5]}},
            ),
            (
                reviewgen.plot_training,
                {"sources": [folder / "gru-char" / "model"], "file": "a.svg"},
            ),
            (
                reviewgen.compare,
                {"models": [folder / "ngram-char" / "model"], "data": texts, "progress": False},
            ),
            (reviewgen.graph, {"source": "gru-char", "out": "g.svg"}),
            (reviewgen.explain, {"source": n, "text": "The food"}),
            (export_html, {"model": n, "path": Path("p.html")}),
            (export_tokenizer, {"model": n, "folder": Path("t")}),
        ]
        return {function.__name__: (function, own) for function, own in listed}

    def _methods(
        self, model: reviewgen.ReviewModel
    ) -> list[tuple[Callable[..., Any], dict[str, Any]]]:
        settings = {
            "prompt": "",
            "seed": 1,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "stop_strings": [],
            "max_new_tokens": 5,
        }
        settings |= {
            "must_include": None,
            "novelty": None,
            "conditions": {},
            "num_return_sequences": 1,
            "words": "any",
        }
        return [
            (model.generate, settings),
            (model.stream, {"seed": 1, "max_new_tokens": 5}),
            (model.next_tokens, {"prompt": "", "k": 3}),
            (model.evaluate, {"source": TEXTS[:5]}),
            (model.novelty, {"text": "The food"}),
            (model.score, {"text": "The food"}),
            (model.save_pretrained, {"save_directory": "copy"}),
            (model.to, {"device": "cpu"}),
            (model.push_to_hub, {"repo_id": "ana/m", "license": "mit"}),
        ]


def consume(result: Any) -> None:
    """Take what a function yields."""
    if inspect.isgenerator(result) or type(result).__name__ in ("map", "islice"):
        list(islice(result, 20))


FUZZER = Calls()
