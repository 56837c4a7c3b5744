"""Working folders of interrupted jobs, and written tables, with damage of every kind; then the same command again.

The jobs are a prepared store and three tables. Judged by: the files of an undisturbed run, byte for byte, or one sentence; and
nothing outside the working folder, and no file that somebody has put into it, is changed, added or removed.
"""

import contextlib
import os
import random
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from reviewgen import partial
from reviewgen.data import spans
from reviewgen.errors import ReviewgenError
from reviewgen.preparation import reading
from reviewgen.preparation.prepare import prepare_store
from reviewgen.writing import judging
from reviewgen.writing.generating import generate_dataset
from tests.hostile.frame import Outcome
from tests.hostile.mutations import (
    cut,
    edit_array,
    edit_json,
    files_in,
    fill,
    flip,
    pick,
    remove,
    replace_by_other,
)
from tests.hostile.stores import ROWS
from tests.support.fakes import NGRAM, train_tiny

__all__ = ["FUZZER", "Working", "contents", "make_jobs"]

MAX_MESSAGE, MAX_STAGES = 500, 6
DONE = "published"
"""The stage of a job that was killed between giving its result the name and removing its working folder."""

WRITTEN = "written"
"""The stage of a job that has ended; its manifest is damaged."""

PRECIOUS = {"diary.txt": b"my diary", "000000.jsonl": b'{"text": "mine"}\n', "parts/a.txt": b"mine", "job.json": b'{"mine": 1}'}
"""Files of the user beside the result, under names that a job may use."""

Work = Callable[[Path, Callable[..., None]], Any]
"""Does a job: its result, and what is called with its progress."""


class Working:
    """The fuzzer of working folders and of written tables."""

    name = "working"

    def prepare(self, folder: Path) -> None:
        """Do each job undisturbed, and interrupt it at each of its stages."""
        torch.set_num_threads(1)
        self.root, self.kept = folder, folder / "kept"
        os.environ["REVIEWGEN_CACHE"] = str(folder / "cache")
        self.jobs = make_jobs(folder)
        self.expected: dict[str, dict[str, bytes]] = {}
        self.results: dict[str, Any] = {}
        self.stages: list[tuple[str, str]] = []
        for job in self.jobs:
            self._interrupt(job)

    def run(self, seed: int) -> Outcome:
        """Damage a copy of an unfinished or finished job, and do it again."""
        source = random.Random(seed)
        job, stage = source.choice(self.stages)
        place = self.root / "case"
        shutil.copytree(self.kept / f"{job} {stage}", place, symlinks=True)
        for name, data in PRECIOUS.items():
            (place / "precious" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "precious" / name).write_bytes(data)
        out = place / job
        try:
            damaged = out if stage == WRITTEN else out.with_name(f"{job}.partial")
            what = damage(damaged, place, source, is_written=stage == WRITTEN)
            return self.judge(f"{job}, {stage}: {what}", job, stage, out)
        finally:
            shutil.rmtree(place)

    def judge(self, case: str, job: str, stage: str, out: Path) -> Outcome:
        """Do a job again, and say what came of it."""
        before = users_files(out)
        try:
            result: Any = self.jobs[job](out, lambda *_: None)
            said = ""
        except ReviewgenError as error:
            result, said = None, str(error)
            if not (10 < len(said) <= MAX_MESSAGE and said.isprintable()):
                return Outcome("failed", case, said[:2000])
        except BaseException:
            return Outcome("failed", case, traceback.format_exc()[-2000:])
        if users_files(out) != before:
            changed = sorted(path for path, _ in set(users_files(out).items()) ^ set(before.items()))
            return Outcome("failed", case, f"files of the user have changed: {changed[:3]}; {said}")
        if said:
            return Outcome("clean", case, said)
        if stage == WRITTEN:
            return self._judge_written(case, job, result)
        if contents(out) != self.expected[job]:
            changed = sorted(path for path, _ in set(contents(out).items()) ^ set(self.expected[job].items()))
            return Outcome("failed", case, f"another result: {changed[:3]}")
        return Outcome("same", case)

    def close(self) -> None:
        """There is nothing to stop."""

    def _judge_written(self, case: str, job: str, result: Any) -> Outcome:
        """Judge what is said of a table whose manifest was edited: numbers may differ, but names are those of its files."""
        wanted = self.results[job]
        if tuple(result.files) != tuple(wanted.files):
            return Outcome("failed", case, f"other files: {ascii(result.files)[:500]}")
        return Outcome("same" if (result.texts, result.summary) == (wanted.texts, wanted.summary) else "changed", case)

    def _interrupt(self, job: str) -> None:
        """Do a job undisturbed, then interrupt it at some of its calls with its progress; keep what it leaves each time."""
        calls = _Interrupt(1 << 30)
        with self._tried(job, calls, WRITTEN if job != "store" and "." not in job else None) as place:
            self.expected[job] = contents(place / job)
        for number in range(MAX_STAGES):
            call = number * calls.count // MAX_STAGES
            with self._tried(job, _Interrupt(call), f"interrupted at {call} of {calls.count}"):
                pass
        remove_folder = partial.PartialFolder.remove
        partial.PartialFolder.remove = _Interrupt(0)  # type: ignore[method-assign,assignment]  # as a kill before it
        try:
            with self._tried(job, _Interrupt(1 << 30), DONE):
                pass
        finally:
            partial.PartialFolder.remove = remove_folder  # type: ignore[method-assign]

    @contextlib.contextmanager
    def _tried(self, job: str, progress: "_Interrupt", stage: str | None) -> Iterator[Path]:
        """Do a job until it is interrupted, yield the folder it was done in, and keep that under the name of a stage."""
        place = self.root / "case"
        place.mkdir()
        with contextlib.suppress(KeyboardInterrupt):
            self.results[job] = self.jobs[job](place / job, progress)
        yield place
        if stage is not None and any(place.iterdir()):
            shutil.copytree(place, self.kept / f"{job} {stage}")
            self.stages.append((job, stage))
        shutil.rmtree(place)


class _Interrupt:
    """A function that counts its calls, and after some of them interrupts the process."""

    def __init__(self, calls: int) -> None:
        self._calls, self.count = calls, 0

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.count > self._calls:
            raise KeyboardInterrupt


def make_jobs(folder: Path) -> dict[str, Work]:
    """Return the jobs by the names of their results; each has several parts, of few texts, from here on."""
    spans._MIN_BYTES, reading._PART_BYTES, judging._PART_TEXTS = 1, 1 << 10, 16
    for number in range(2):
        lines = "".join(f'{row["stars"]},"{row["text"]}"\n' for row in ROWS[number::2])
        (folder / f"rows-{number}.csv").write_text(f"stars,review\n{lines}", encoding="utf-8")
    model = folder / "model"
    train_tiny("ngram-char", folder / "cache", **NGRAM).save_pretrained(model)
    rows, options = str(folder / "rows-*.csv"), {"conditions": ["stars"], "decontaminate": 30}

    def prepare(out: Path, watch: Callable[..., None]) -> Any:
        return prepare_store(rows, "gru-char", out, watch, **options)  # type: ignore[arg-type]  # by name

    def generate(out: Path, progress: Callable[..., None]) -> Any:
        settings: Any = {"columns": True, "unique": True, "seed": 3, "shard_texts": 60, "options": {"temperature": 2.0}}
        return generate_dataset(model, 150, out=out, progress=progress, **settings)

    def score(out: Path, progress: Callable[..., None]) -> Any:
        one = folder / "rows-0.csv"
        return judging.judge("score", model, one, out=out, shard_texts=20, progress=progress, options={"text_column": "review"})

    return {"store": prepare, "texts": generate, "scores": score, "scores.parquet": score}


def contents(path: Path) -> dict[str, bytes]:
    """Return the bytes of each file of a folder by its path, or those of a file; a link is one that says where to."""
    if path.is_symlink() or not path.is_dir():
        link = str(path.readlink()).encode() if path.is_symlink() else None
        return {"": link or (path.read_bytes() if path.is_file() else b"not a file")}
    found = {}
    for entry in path.iterdir():
        inner = contents(entry) or {"": b"empty folder"}
        found.update({f"{entry.name}/{name}".rstrip("/"): data for name, data in inner.items()})
    return found


def users_files(out: Path) -> dict[str, bytes]:
    """Return what a job may not change: all beside its result and its working folder, and what the user has put into that."""
    own, working = (out.name, f"{out.name}.partial"), out.with_name(f"{out.name}.partial")
    found = {name: data for name, data in contents(out.parent).items() if name.partition("/")[0] not in own}
    if not working.is_symlink() and (working / FOREIGN).is_file():
        found[FOREIGN] = (working / FOREIGN).read_bytes()
    return found


# The damage. Each function changes a folder and says what it did.

FOREIGN = "my notes.txt"


def damage(folder: Path, place: Path, source: random.Random, *, is_written: bool) -> str:
    """Damage a working folder once, sometimes twice; of a written table, the manifest or a shard."""
    kinds = {edit_json: 5, flip: 1, cut: 1, names: 1} if is_written else KINDS
    times = source.choice([1, 1, 1, 2])
    chosen = source.choices(list(kinds), weights=list(kinds.values()), k=times)
    return "; ".join(kind(folder, place, source) for kind in chosen if not folder.is_symlink() and files_in(folder))


def names(folder: Path, place: Path, source: random.Random) -> str:
    """Remove, rename or link a file, or put a folder, a device or a pipe in its place."""
    what = source.choice(["remove", "rename", "link", "loop", "folder", "pipe"])
    return replace_by_other(pick(folder, source), place / "elsewhere", what, source)


def swap(folder: Path, place: Path, source: random.Random) -> str:
    """Exchange two files."""
    one, other = pick(folder, source), pick(folder, source)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return f"exchange {one.relative_to(folder)} and {other.relative_to(folder)}"


def plant_link(folder: Path, place: Path, source: random.Random) -> str:
    """Put a link to files of the user in the place of a folder or file, or under a name that is yet to be written."""
    targets = ["precious", "precious/parts", "precious/diary.txt", "precious/000000.jsonl", "precious/new", "nowhere"]
    target = place / source.choice(targets)
    inner = [Path(top, name) for top, folders, files in os.walk(folder) for name in (*folders, *files)]
    new = [folder / name for name in ("parts", "out", "texts", "store", "lock", "lock.pid", "job.json", ".scratch")]
    new += [path.with_name(name) for path in inner for name in ("000001.jsonl", ".new", "manifest.json", "00001")]
    link = folder if source.random() < 0.1 else source.choice(source.choice([inner, new]) or new)
    remove(link)
    link.symlink_to(target, target_is_directory=target.is_dir())
    return f"link {link.relative_to(folder.parent)} to {target.relative_to(place)}"


def plant_file(folder: Path, place: Path, source: random.Random) -> str:
    """Put a file into it that no job has written."""
    inner = [folder, *(Path(top, name) for top, folders, _ in os.walk(folder) for name in folders)]
    target = source.choice(inner) / source.choice([FOREIGN, "999999.jsonl", ".hidden", "manifest.json", "x\x1b[31m.txt"])
    if target.exists():
        return flip(folder, place, source)
    target.write_bytes(source.choice([b"mine", b"", b'{"text": "mine"}\n']))
    return f"add {str(target.relative_to(folder))!a}"


KINDS: dict[Callable[[Path, Path, random.Random], str], float] = {
    flip: 2,
    cut: 2,
    fill: 1,
    swap: 1,
    names: 2,
    edit_json: 3,
    edit_array: 2,
    plant_link: 4,
    plant_file: 2,
}
FUZZER = Working()
