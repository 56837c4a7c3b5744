"""Saved folders with damage of every kind: loaded, scored and sampled, with the manifest of the undamaged folder or a new one.

With the manifest as it was, no change of a file but the card may go unnoticed. With a new one, or none, the checks behind it are
reached: a result may then differ, but nothing may crash, hang, or end in another exception than ours.
"""

import json
import math
import random
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reviewgen
from reviewgen.bundle.layout import CARD, CONFIG, MANIFEST, files_of
from reviewgen.bundle.manifest import write_manifest
from reviewgen.errors import ReviewgenError
from tests.hostile.frame import Outcome
from tests.hostile.mutations import cut, edit_header, edit_json, exchange, fill, flip, pick, remove, replace_by_other
from tests.support.fakes import NGRAM, train_tiny

__all__ = ["FUZZER", "Folders"]

TEXT, PROMPT, SEED, TOKENS = "the movie was good.", "the ", 7, 20
MAX_MESSAGE, MAX_SECONDS = 500, 20.0
SMALL = {"model": {"hidden_size": 8}, "training": {"batch_size": 4, "bptt": 8, "threads": 1}}
Result = tuple[Any, ...]
"""The text, the score and the digest of a model."""


class Folders:
    """The fuzzer of saved folders."""

    name = "folders"

    def prepare(self, folder: Path) -> None:
        """Train tiny models of each kind, and note what they score and generate."""
        self.root = folder
        ngram, lstm = (train_tiny(name, folder / "cache", **settings) for name, settings in MODELS.items())
        train_tiny("gru-word", folder / "cache", **SMALL).save_pretrained(folder / "gru-word", dtype="int8")
        ngram.save_pretrained(folder / "ngram-char")
        lstm.save_pretrained(folder / "lstm-char")
        reviewgen.blend([folder / "ngram-char", folder / "lstm-char"]).save_pretrained(folder / "blend")
        self.names = ["ngram-char", "lstm-char", "gru-word", "blend"]
        self.expected = {name: use(folder / name) for name in self.names}

    def run(self, seed: int) -> Outcome:
        """Damage a copy of one of the folders, and use it."""
        source = random.Random(seed)
        name, manifest = source.choice(self.names), source.choice(["kept", "kept", "new", "new", "none"])
        target = self.root / "case"
        shutil.copytree(self.root / name, target)
        before = contents(target)
        try:
            what = damage(target, self.root, source)
            if not (target / MANIFEST).exists():  # as of an earlier version
                manifest = "none"
            if manifest == "new":
                sign(target)
            elif manifest == "none":
                remove(target / MANIFEST)
            return self.judge(name, target, f"{name}, manifest {manifest}: {what}", manifest, before)
        finally:
            remove(target)
            remove(self.root / "elsewhere")

    def judge(self, name: str, target: Path, case: str, manifest: str, before: dict[str, bytes]) -> Outcome:
        """Use a damaged folder, and say what came of it."""
        start, changed = time.monotonic(), contents(target) != before
        try:
            result = use(target)
        except ReviewgenError as error:
            message = str(error)
            is_fine = len(message) <= MAX_MESSAGE and message.isprintable() and time.monotonic() - start < MAX_SECONDS
            return Outcome("clean" if is_fine else "failed", case, message[:2000])
        except BaseException:
            return Outcome("failed", case, traceback.format_exc()[-2000:])
        if time.monotonic() - start >= MAX_SECONDS:
            return Outcome("failed", case, f"{time.monotonic() - start:.0f} seconds")
        if math.isnan(result[1]):
            return Outcome("failed", case, "the score is NaN")
        if manifest == "kept" and changed:
            return Outcome("failed", case, f"a change without a message: {result} instead of {self.expected[name]}")
        return Outcome("same" if result == self.expected[name] else "changed", case)

    def close(self) -> None:
        """There is nothing to stop."""


MODELS: dict[str, dict[str, Any]] = {"ngram-char": NGRAM, "lstm-char": SMALL}


def use(folder: Path) -> Result:
    """Load a model, score a text, generate one, and return both and the digest."""
    model = reviewgen.load(folder)
    score = model.score(TEXT).bits
    text = model.generate_one(PROMPT, seed=SEED, max_new_tokens=TOKENS)
    if model.bundle.index is not None:
        model.novelty(TEXT)
    return text, score, model.digest


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the files of a model except the card and the manifest; of anything else than a file, a word."""
    files = [path for path in folder.iterdir() if path.name not in (CARD, MANIFEST)]
    return {path.name: path.read_bytes() if path.is_file() else b"not a file" for path in files}


def sign(folder: Path) -> None:
    """Write a new manifest where the damaged folder allows it."""
    try:
        if not (folder / CONFIG).is_file():  # a pipe, or a device
            raise FileNotFoundError(CONFIG)
        write_manifest(folder, files_of(json.loads((folder / CONFIG).read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError, ReviewgenError):
        remove(folder / MANIFEST)


# The damage. Each function changes a folder and says what it did.


def damage(folder: Path, root: Path, source: random.Random) -> str:
    """Damage a folder once, sometimes twice."""
    kinds = source.choices(list(KINDS), weights=list(KINDS.values()), k=source.choice([1, 1, 1, 2]))
    return "; ".join(kind(folder, root, source) for kind in kinds)


def swap(folder: Path, root: Path, source: random.Random) -> str:
    """Exchange two files, or take one of another model."""
    one, other = pick(folder, source), pick(folder, source)
    if source.random() < 0.5:
        foreign = root / source.choice(["ngram-char", "lstm-char", "gru-word", "blend"]) / one.name
        if foreign.is_file():
            shutil.copyfile(foreign, one)
            return f"{one.name} of {foreign.parent.name}"
    return exchange(one, other)


def names(folder: Path, root: Path, source: random.Random) -> str:
    """Remove, rename or link a file, put a folder, a device or a pipe in its place, or add one."""
    file, elsewhere = pick(folder, source), root / "elsewhere"
    what = source.choice(["remove", "rename", "case", "link", "loop", "device", "folder", "pipe", "add", "empty"])
    if what == "add":
        name = source.choice(
            ["x.py", "model.pkl", "manifest.json.bak", "..x", "a" * 200, "\n", "é", ".lock", "novelty.safetensors"]
        )
        (folder / name).write_bytes(source.randbytes(9))
        return f"add {name[:20]!r}"
    if what == "empty":
        file.write_bytes(b"")
        return f"empty {file.name}"
    return replace_by_other(file, elsewhere, what, source)


KINDS: dict[Callable[[Path, Path, random.Random], str], float] = {
    flip: 3,
    cut: 1,
    fill: 2,
    swap: 1,
    names: 1,
    edit_json: 4,
    edit_header: 3,
}
FUZZER = Folders()
