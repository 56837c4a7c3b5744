"""Token stores with damage of every kind: trained on for a few steps, with ``store.json`` as it was or made to fit the damage.

With ``store.json`` as it was, a change of the tokenizer or the index is refused or has no effect. Made to fit, with the sizes and
SHA-256 of the damaged files, it is a forged store: another model may come of it, as of other ids in a shard, but nothing may
crash, hang, or end in another exception than ours.
"""

import hashlib
import json
import math
import os
import random
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import reviewgen
from reviewgen.data import spans
from reviewgen.data.store_folder import STORE_FILE, digest_files
from reviewgen.errors import ReviewgenError
from reviewgen.preparation import reading
from tests.hostile.frame import Outcome
from tests.hostile.mutations import (
    cut,
    edit_array,
    edit_array_header,
    edit_header,
    edit_json,
    exchange,
    files_in,
    fill,
    flip,
    pick,
    remove,
    replace_by_other,
)

__all__ = ["FUZZER", "Stores"]

MAX_MESSAGE = 500
ROWS = [
    {"text": f"the {noun} was {kind}, number {i}", "stars": i % 5 + 1}
    for noun in ("food", "band", "film")
    for kind in ("good", "bad")
    for i in range(12)
]
EXACT = {"batch_size": 4, "threads": 1, "precision": "no"}  # the same on each machine and each time
TRAININGS: dict[str, dict[str, Any]] = {
    "ngram-char": {"model": {"order": 3}, "training": {"threads": 1}},
    "nnlm-char": {
        "model": {"hidden_size": 8, "embedding_size": 4},
        "training": {"batch_size": 4, "threads": 1, "precision": "no"},
    },
    "gru-char": {
        "model": {"hidden_size": 8, "layer": "fused"},
        "training": {"batch_size": 4, "bptt": 8, "threads": 1, "precision": "no"},
    },
}
"""Presets that share a tokenizer, and so a store."""


class Stores:
    """The fuzzer of token stores."""

    name = "stores"

    def prepare(self, folder: Path) -> None:
        """Prepare a store with conditions and one of several shards without, and train on both."""
        torch.set_num_threads(1)
        self.root = folder
        os.environ["REVIEWGEN_CACHE"] = str(folder / "cache")
        spans._MIN_BYTES, reading._PART_BYTES = 1, 1 << 10  # so that small files have several shards
        for number in range(2):
            lines = "".join(f"{row['text']}\n" for row in ROWS[number::2])
            (folder / f"texts-{number}.txt").write_text(lines, encoding="utf-8")
        reviewgen.prepare(ROWS, preset="gru-char", out=folder / "conditions", conditions=["stars"])
        reviewgen.prepare(str(folder / "texts-*.txt"), preset="gru-char", out=folder / "shards")
        self.expected = {
            (store, preset): train(preset, folder / store) for store in ("conditions", "shards") for preset in TRAININGS
        }

    def run(self, seed: int) -> Outcome:
        """Damage a copy of one of the stores, and train on it."""
        source = random.Random(seed)
        name, preset = source.choice(list(self.expected))
        is_forged, is_remote = source.random() < 0.6, source.random() < 0.2
        target = self.root / "case"
        shutil.copytree(self.root / name, target)
        before = contents(target)
        try:
            what = damage(target, self.root, source)
            if is_forged:
                forge(target)
            case = f"{preset} from {name}, {'forged' if is_forged else 'as it was'}{', by a URL' if is_remote else ''}: {what}"
            place = target.as_uri() if is_remote else target
            after = contents(target)
            changed = [file for file in before.keys() | after.keys() if after.get(file) != before.get(file)]
            is_known = not is_forged and any(is_remote or not file.startswith("shards/") for file in changed)
            return self.judge(case, preset, name, place, is_known=is_known)
        finally:
            remove(target)
            remove(self.root / "elsewhere")
            shutil.rmtree(self.root / "cache", ignore_errors=True)

    def judge(self, case: str, preset: str, name: str, place: Path | str, *, is_known: bool) -> Outcome:
        """Train on a damaged store, and say what came of it.

        Args:
            case: What was done to it.
            preset: What is trained.
            name: The store that it was.
            place: Where it is.
            is_known: Whether the digests in ``store.json`` show damage that is looked for.
        """
        try:
            result = train(preset, place)
        except ReviewgenError as error:
            message = str(error)
            is_fine = 10 < len(message) <= MAX_MESSAGE and message.isprintable()
            return Outcome("clean" if is_fine else "failed", case, message[:2000])
        except BaseException:
            return Outcome("failed", case, traceback.format_exc()[-2000:])
        if math.isnan(result[1] or 0.0):  # None if it is infinite
            return Outcome("failed", case, "the bits per character are NaN")
        expected = self.expected[name, preset]
        if is_known and result != expected:
            return Outcome("failed", case, f"a change without a message: {result} instead of {expected}")
        return Outcome("same" if result == expected else "changed", case)

    def close(self) -> None:
        """There is nothing to stop."""


def train(preset: str, store: Path | str) -> tuple[str, float | None]:
    """Train for two steps, and look up a text in the index; return a digest of the model and its bits per character."""
    model = reviewgen.train(preset, store, steps=2, progress=False, **TRAININGS[preset])  # type: ignore[arg-type]  # by name
    digest = hashlib.sha256(repr(model.novelty(ROWS[0]["text"])).encode())
    for name, tensor in sorted(model.model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest(), model.training["evaluations"][-1]["bits_per_character"]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a store but ``store.json``."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in files_in(folder) if file.name != STORE_FILE}


def forge(folder: Path) -> None:
    """Make ``store.json`` fit the files, where the damage allows it."""
    if not (folder / STORE_FILE).is_file():  # a pipe, or a device without an end
        return
    try:
        content = json.loads((folder / STORE_FILE).read_text(encoding="utf-8"))
        facts = digest_files(folder)
        content["files"] = {name: facts[name] for name in content["files"] if name in facts}
        (folder / STORE_FILE).write_text(json.dumps(content), encoding="utf-8")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):  # of store.json itself
        return


# The damage.


def damage(folder: Path, root: Path, source: random.Random) -> str:
    """Damage a store once, sometimes twice."""
    kinds = source.choices(list(KINDS), weights=list(KINDS.values()), k=source.choice([1, 1, 1, 2]))
    return "; ".join(kind(folder, root, source) for kind in kinds if files_in(folder))


def swap(folder: Path, root: Path, source: random.Random) -> str:
    """Exchange two files of a store, or take one of the other store."""
    one, other = pick(folder, source), pick(folder, source)
    foreign = [file for name in ("conditions", "shards") for file in files_in(root / name) if file.suffix == one.suffix]
    if foreign and source.random() < 0.5:
        taken = source.choice(foreign)
        shutil.copyfile(taken, one)
        return f"{one.name} from {taken.relative_to(root)}"
    return exchange(one, other)


def names(folder: Path, root: Path, source: random.Random) -> str:
    """Remove, rename or link a file, or put a folder, a device or a pipe in its place."""
    what = source.choice(["remove", "rename", "case", "link", "loop", "device", "folder", "pipe"])
    return replace_by_other(pick(folder, source), root / "elsewhere", what, source)


def edit_store_file(folder: Path, root: Path, source: random.Random) -> str:
    """Edit ``store.json``."""
    file = folder / STORE_FILE
    if not file.is_file():
        return flip(folder, root, source)
    return edit_json(folder, root, source, file)


KINDS: dict[Callable[[Path, Path, random.Random], str], float] = {
    flip: 2,
    cut: 1,
    fill: 1,
    swap: 1,
    names: 1,
    edit_json: 2,
    edit_store_file: 2,
    edit_header: 1,
    edit_array: 5,
    edit_array_header: 2,
}
FUZZER = Stores()
