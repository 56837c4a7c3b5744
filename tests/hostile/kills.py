"""Processes that are killed at any moment while they train, save, write texts, score them or
prepare a store; then started again.

After the kill nothing may be half there: a model is the old or the new one. Started again, the work
ends with the result of work that was never interrupted.
"""

import contextlib
import functools
import hashlib
import os
import random
import shutil
import signal
import time
import traceback
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reviewgen
from reviewgen.errors import OutputExists
from tests.hostile.frame import Fuzzer, in_child
from tests.support.fakes import TEXTS
from tests.support.models import make_model

OPTIONS: dict[str, Any] = {
    "model": {"hidden_size": 8, "embedding_size": 4, "layer": "fused"},
    "training": {"batch_size": 4, "evaluations": 1, "threads": 1, "precision": "no"},
}
"""Of a training that does the same in each process: layers, threads and precision are not chosen by
timing.
"""


class Kills(Fuzzer):
    """The fuzzer."""

    def prepare(self, folder: Path) -> None:
        """Train two models, and do each work once without a kill."""
        self.root = folder
        for name in ("ngram-char", "lstm-char"):
            in_child(functools.partial(make_model, name, folder / name))
        self.models = {
            name: reviewgen.load(folder / name / "model") for name in ("ngram-char", "lstm-char")
        }
        model = self.models["ngram-char"]
        self.work: dict[str, Callable[[Path], object]] = {
            "save": (
                lambda place: self.models["lstm-char"].save_pretrained(
                    place / "out", overwrite=True
                )
            ),
            "train": self._train,
            "prepare": lambda place: reviewgen.prepare(TEXTS, preset="gru-char", out=place / "out"),
            "generate": lambda place: reviewgen.generate_dataset(
                model, 300, out=place / "out", max_new_tokens=20, seed=1
            ),
            "score": lambda place: reviewgen.score_dataset(model, TEXTS * 5, out=place / "out"),
        }
        self.results = {}
        self.seconds = {}
        for kind in self.work:
            start = time.monotonic()
            place = self._place(kind)
            assert self._run(kind, place, None) == 0, (folder / "log").read_text(encoding="utf-8")
            self.seconds[kind] = time.monotonic() - start
            self.results[kind] = digests(place)
            shutil.rmtree(place)

    def run(self, seed: int) -> tuple[str, str]:
        """Kill a process at a moment, look, and do the same again."""
        source = random.Random(seed)
        kind = source.choice(sorted(self.work))
        moment = source.uniform(0, 1.1) * self.seconds[kind]
        place = self._place(kind)
        case = f"{kind}, killed after {moment:.3f} s"
        try:
            self._run(kind, place, moment)
            if kind == "save" and not (place / "out").exists():  # killed between the two renames
                (place / ".out.old").rename(place / "out")
            if kind in ("save", "train") and (place / "out").exists():
                reviewgen.load(place / "out")
            elif (place / "out").exists() and digests(place) != self.results[kind]:
                return case, f"what is there is not whole: {sorted(digests(place))}"
            if self._run(kind, place, None) != 0:
                return case, f"again: {(self.root / 'log').read_text(encoding='utf-8')[-2000:]}"
            found = digests(place)
            different = [
                name
                for name in found | self.results[kind]
                if found.get(name) != self.results[kind].get(name)
            ]
            return case, f"another result: {different}" if different else ""
        finally:
            shutil.rmtree(place)

    def _train(self, place: Path) -> None:
        from reviewgen.training.checkpoints import (
            Checkpoints,  # in the child only: torch starts threads
        )

        has_steps = any((place / "out.partial").glob("step-*"))
        # after each step
        with unittest.mock.patch.object(Checkpoints, "is_due", lambda self: True):
            reviewgen.train(
                "lstm-char",
                TEXTS,
                out=place / "out",
                resume=has_steps,
                progress=False,
                steps=30,
                **OPTIONS,
            )

    def _place(self, kind: str) -> Path:
        place = self.root / "case"
        place.mkdir()
        if kind == "save":
            shutil.copytree(self.root / "ngram-char" / "model", place / "out")
        return place

    def _run(self, kind: str, place: Path, moment: float | None) -> int:
        """Do some work in a child, killed after some seconds; return its exit status, negative if
        it was killed.
        """
        child = os.fork()
        if child == 0:
            os.dup2(os.open(self.root / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            status = 0
            try:
                with contextlib.suppress(OutputExists):  # it is complete
                    self.work[kind](place)
            except BaseException:
                traceback.print_exc()
                status = 1
            os._exit(status)
        until = time.monotonic() + (60 if moment is None else moment)
        while time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def digests(place: Path) -> dict[str, str]:
    """Return what lies in a folder: the SHA-256 of each file, but the size of what holds times."""
    files = [file for file in sorted(place.rglob("*")) if file.is_file()]
    timed = ("training.json", "manifest.json", "README.md", "job.json", "store.json")
    whole = {
        str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.name not in timed
    }
    return whole | {str(file.relative_to(place)): "" for file in files if file.name in timed}


FUZZER = Kills()
