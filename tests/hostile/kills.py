"""Processes that are killed, at any moment, while they train, save, write texts, score them, prepare a store or publish.

Each case forks this process, which has imported everything, and kills the child after a part of the time that its work takes.
Afterwards a saved folder is the old or the new one and whole, and the same command, run again, completes with the result of an
undisturbed run and leaves nothing lying about.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import reviewgen
from reviewgen import scratch, storage
from reviewgen.errors import OutputExists, ReviewgenError
from tests.hostile.frame import Outcome
from tests.hostile.working import contents, make_jobs
from tests.support.fakes import NGRAM, TEXTS, train_tiny

__all__ = ["FUZZER", "Kills"]

SMALL = {"model": {"hidden_size": 16}, "training": {"batch_size": 4, "bptt": 8, "threads": 1, "checkpoint_seconds": 0.01}}
TEXTS_IN_FILE, STEPS, MAX_SECONDS = 100, 12, 60.0


class Kills:
    """The fuzzer of killed processes."""

    name = "kills"

    def prepare(self, folder: Path) -> None:
        """Train two models, and run each kind of work undisturbed: how long it takes, and what comes of it."""
        torch.set_num_threads(1)  # a child forked from a process that has used PyTorch's threads may hang
        self.root, self.before = folder, dict(os.environ)
        os.environ |= {"REVIEWGEN_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "temporary"), "HF_HUB_OFFLINE": "1"}
        (folder / "temporary").mkdir()
        tempfile.tempdir = None  # it is read again
        train_tiny("ngram-char", folder / "cache", **NGRAM).save_pretrained(folder / "old")
        train_tiny("lstm-char", folder / "cache", **SMALL).save_pretrained(folder / "new")
        self.digests = {name: reviewgen.load(folder / name).digest for name in ("old", "new")}
        self.models = {name: reviewgen.load(folder / name) for name in ("old", "new")}
        _ = self.models["new"].bundle.model  # built here once, not in each child
        self.jobs = make_jobs(folder)
        self.kinds: dict[str, Callable[[Path], None]] = {
            "save": self.save,
            "save without exchange": self.save_by_renames,
            "train": self.train,
            "generate": self.generate,
            "push": self.push,
            **{f"write {job}": partial(self.write, job) for job in self.jobs},
        }
        self.results, self.seconds = {}, {}
        for kind, work in self.kinds.items():
            place = self.place(kind)
            start = time.monotonic()
            if said := self.child(work, place):
                raise RuntimeError(f"{kind}: {said}")
            self.seconds[kind] = time.monotonic() - start
            self.results[kind] = self.result(place)
            shutil.rmtree(place)

    def run(self, seed: int) -> Outcome:
        """Kill a child at a moment, look, and run the same again."""
        source = random.Random(seed)
        kind = source.choice(list(self.kinds))
        seconds = source.uniform(0, 1.1) * self.seconds[kind]
        case, place = f"{kind}, killed after {seconds:.3f} s", self.place(kind)
        try:
            was_killed = self.child(self.kinds[kind], place, seconds) is None
            self.check(kind, place)
            if said := self.child(self.kinds[kind], place):
                return Outcome("failed", case, f"run again: {said}")
            if (result := self.result(place)) != self.results[kind]:
                return Outcome("failed", case, f"another result: {str(result)[:700]} instead of {str(self.results[kind])[:700]}")
            return Outcome("clean" if was_killed else "same", case, self.log.read_text(encoding="utf-8")[-500:])
        except Exception:
            return Outcome("failed", case, traceback.format_exc()[-1500:])
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def close(self) -> None:
        """Give the environment back."""
        os.environ.clear()
        os.environ.update(self.before)
        tempfile.tempdir = None

    # The work.

    def save(self, place: Path) -> None:
        """Replace a saved model by another."""
        self.models["new"].save_pretrained(place / "m", overwrite=True)

    def save_by_renames(self, place: Path) -> None:
        """The same, on a system that cannot exchange two names."""
        storage._renameat2 = lambda: None  # type: ignore[assignment]  # in the child only
        self.save(place)

    def train(self, place: Path) -> None:
        """Train a model; resume where there is a run, and be content where there is a model."""
        has_steps = any((place / "m.run").glob("step-*"))
        with contextlib.suppress(OutputExists):
            reviewgen.train("lstm-char", TEXTS, out=place / "m", steps=STEPS, resume=has_steps, progress=False, **SMALL)

    def generate(self, place: Path) -> None:
        """Write texts to a file, with receipts."""
        from reviewgen.cli.file import write_file

        settings = {"num_return_sequences": TEXTS_IN_FILE, "max_new_tokens": 30, "novelty": None}
        write_file(self.models["old"], "./old", "the ", settings, 5, place / "t.jsonl", place / "r.jsonl")

    def write(self, job: str, place: Path) -> None:
        """Prepare a store, or write a table; be content where it is complete."""
        with contextlib.suppress(OutputExists):
            self.jobs[job](place / job, lambda *_: None)

    def push(self, place: Path) -> None:
        """Check and copy a model for the Hub, up to the upload."""
        from reviewgen.hub import publish
        from reviewgen.hub.push import Remote

        publish.inspect_repository = lambda *_: Remote()  # type: ignore[assignment]  # in the child only
        publish.push = lambda *_, **__: "https://example.org"  # type: ignore[assignment]  # in the child only
        model = reviewgen.load(self.root / "old")
        model.push_to_hub("ana/m", license="mit", allow=["copies", "text", "email", "phone", "url", "handle"])

    # The judgement.

    def place(self, kind: str) -> Path:
        """Return a new folder for a case; what is saved again is there already."""
        place = self.root / "case"
        place.mkdir()
        if kind.startswith("save"):
            shutil.copytree(self.root / "old", place / "m")
        return place

    def check(self, kind: str, place: Path) -> None:
        """Raise unless the folder of a model is the old or the new one; or, where there was none, what is there is whole."""
        if kind.startswith("save"):
            digest = reviewgen.load(place / "m").digest
            assert digest in self.digests.values(), "neither the old nor the new model"
        elif kind == "train" and (place / "m").exists():
            assert reviewgen.load(place / "m").digest == self.results["train"][1]
        for job in self.jobs:
            assert not (place / job).exists() or digests(place / job) == self.results[kind][3], f"{job} is not whole"

    def result(self, place: Path) -> tuple[Any, ...]:
        """Return what lies in the folder, in the folder of temporary files and in the cache, and what it contains."""
        names = sorted(path.name for path in place.iterdir())
        litter = sorted(path.name for path in (self.root / "temporary").iterdir())
        litter += sorted(path.name for path in (self.root / "cache").glob("tmp-*"))
        digest = reviewgen.load(place / "m").digest if (place / "m").exists() else None
        lines = [json.loads(line) for file in sorted(place.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
        texts = tuple(json.dumps({key: value for key, value in line.items() if key != "seconds"}) for line in lines)
        return names + litter, digest, texts, {name: file for job in self.jobs for name, file in digests(place / job).items()}

    @property
    def log(self) -> Path:
        """What the last child has printed."""
        return self.root / "log"

    def child(self, work: Callable[[Path], None], place: Path, kill_after: float | None = None) -> str | None:
        """Run some work in a child, and return what went wrong: "" if nothing, None if it was killed as planned.

        Raises:
            TimeoutError: It has not ended in a minute.
        """
        pid = os.fork()
        if pid == 0:
            self.behave(work, place)
        deadline = time.monotonic() + (MAX_SECONDS if kill_after is None else kill_after)
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return "" if status == 0 else self.log.read_text(encoding="utf-8")[-1500:] or f"status {status}"
            time.sleep(0.0005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if kill_after is None:
            raise TimeoutError(f"the work has not ended in {MAX_SECONDS:.0f} s")
        return None

    def behave(self, work: Callable[[Path], None], place: Path) -> None:
        """Do some work as a process of its own would, and end."""
        scratch._remove_temporary.cache_clear()
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        status = 0
        try:
            work(place)
        except ReviewgenError as error:
            print(error, file=sys.stderr)
            status = 1
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a store or table, or of a table of one file; nothing if it is not there."""
    if not path.exists():
        return {}
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents(path).items()}


FUZZER = Kills()
