"""Saved folders with damage of every kind: loaded, scored and sampled, with the manifest of the undamaged folder or a new one.

With the manifest as it was, no change of a file but the card may go unnoticed. With a new one, or none, the checks behind it are
reached: a result may then differ, but nothing may crash, hang, or end in another exception than ours.
"""

import copy
import json
import math
import os
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
from tests.unit.fakes import NGRAM, train_tiny

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


def remove(path: Path) -> None:
    """Remove a folder or file, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# The damage. Each function changes a folder and says what it did.


def damage(folder: Path, root: Path, source: random.Random) -> str:
    """Damage a folder once, sometimes twice."""
    kinds = source.choices(list(KINDS), weights=list(KINDS.values()), k=source.choice([1, 1, 1, 2]))
    return "; ".join(kind(folder, root, source) for kind in kinds)


def pick(folder: Path, source: random.Random, ends: str = "") -> Path:
    """Return one of the files of a folder; of another ending where there is none."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    return source.choice([path for path in files if path.name.endswith(ends)] or files)


def flip(folder: Path, root: Path, source: random.Random) -> str:
    """Flip one to eight bits of a file."""
    file = pick(folder, source, source.choice(["", ".safetensors"]))
    data = bytearray(file.read_bytes())
    for _ in range(source.choice([1, 1, 1, 8]) if data else 0):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    file.write_bytes(data)
    return f"flip {file.name}"


def cut(folder: Path, root: Path, source: random.Random) -> str:
    """Cut a file, or add bytes to it."""
    file = pick(folder, source)
    data = file.read_bytes()
    size = source.choice([0, 1, 7, 8, 9, len(data) // 2, max(0, len(data) - 1), len(data) + source.choice([1, 8, 4096])])
    file.write_bytes(data[:size].ljust(size, source.choice([b"\0", b" ", b"\xff"])))
    return f"cut {file.name} to {size} of {len(data)} bytes"


def fill(folder: Path, root: Path, source: random.Random) -> str:
    """Overwrite a block of a file."""
    file = pick(folder, source, ".safetensors")
    data = bytearray(file.read_bytes())
    start, length = source.randrange(len(data) + 1), source.choice([4, 64, 512, 65536])
    block = source.choice([b"\0", b"\xff", b"\x7f", source.randbytes(16)])
    part = data[start : start + length]
    data[start : start + length] = (block * length)[: len(part)]
    file.write_bytes(data)
    return f"fill {len(part)} bytes of {file.name} from {start} with {block[:1].hex()}"


def swap(folder: Path, root: Path, source: random.Random) -> str:
    """Exchange two files, or take one of another model."""
    one, other = pick(folder, source), pick(folder, source)
    if source.random() < 0.5:
        foreign = root / source.choice(["ngram-char", "lstm-char", "gru-word", "blend"]) / one.name
        if foreign.is_file():
            shutil.copyfile(foreign, one)
            return f"{one.name} of {foreign.parent.name}"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return f"exchange {one.name} and {other.name}"


def names(folder: Path, root: Path, source: random.Random) -> str:
    """Remove, rename, link or replace a file by what is no file; or add one."""
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
    remove(elsewhere)
    file.rename(elsewhere)
    if what == "rename":
        elsewhere.rename(folder / f"{file.name}.old")
    elif what == "case":
        elsewhere.rename(folder / file.name.swapcase())
    elif what == "link":
        file.symlink_to(elsewhere)
    elif what == "loop":
        file.symlink_to(file)
    elif what == "device":
        file.symlink_to(source.choice(["/dev/zero", "/dev/null", "/dev/stdin", "/"]))
    elif what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    return f"{what} {file.name}"


def edit_json(folder: Path, root: Path, source: random.Random) -> str:
    """Change a value, a key or the text of a JSON file."""
    file = pick(folder, source, ".json")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # damaged before
        return flip(folder, root, source)
    for _ in range(source.choice([1, 1, 1, 3])):
        value, where = change(value, source)
    file.write_text(write(value), encoding="utf-8", errors="backslashreplace")
    return f"edit {file.name}: {where}"


def edit_header(folder: Path, root: Path, source: random.Random) -> str:
    """Change the header of a safetensors file: its length, or a name, dtype, shape, offset or fact in it."""
    file = pick(folder, source, ".safetensors")
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if source.random() < 0.2:
        wrong = source.choice([0, 1, length - 1, length + 1, len(data), 1 << 31, (1 << 63) - 1, (1 << 64) - 1])
        file.write_bytes(max(0, wrong).to_bytes(8, "little") + data[8:])
        return f"header of {file.name} of {wrong} bytes"
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):  # damaged before
        return flip(folder, root, source)
    part = source.choice(list(header)) if source.random() < 0.7 and header else None
    if part is None:
        header, where = change(header, source)
    elif part == "__metadata__" and "reviewgen.novelty" in header[part]:
        facts, where = change(json.loads(header[part]["reviewgen.novelty"]), source)
        header[part] = {"reviewgen.novelty": write(facts)}
    else:
        header[part], where = change(header[part], source)
    text = write(header).encode("utf-8", errors="replace")
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return f"header of {file.name}: {part} {where}"


def change(value: Any, source: random.Random) -> tuple[Any, str]:
    """Return a JSON value with one change somewhere in it, and where that is."""
    value, path = copy.deepcopy(value), []
    inner, outer, key = value, None, None
    while isinstance(inner, dict | list) and inner and (outer is None or source.random() < 0.75):
        outer, key = inner, source.choice(list(inner)) if isinstance(inner, dict) else source.randrange(len(inner))
        inner = outer[key]
        path.append(str(key))
    if outer is None:
        return odd_value(value, source), "all of it"
    what = source.random()
    if what < 0.15:
        del outer[key]
    elif what < 0.25 and isinstance(outer, dict):
        outer[source.choice([*WORDS, f"{key}x"])] = outer.pop(key) if source.random() < 0.5 else outer[key]
    else:
        outer[key] = odd_value(inner, source)
    return value, f"{'.'.join(path)[-60:]} {'deleted' if what < 0.15 else 'changed'}"


def odd_value(value: Any, source: random.Random) -> Any:
    """Return another JSON value: near the one that was there, or far from it."""
    if isinstance(value, bool):
        return source.choice([not value, *ODD])
    if isinstance(value, int | float) and source.random() < 0.5:
        return source.choice([value + 1, value - 1, -value, value * 2, value + 0.5, value * 10**6])
    if isinstance(value, str) and source.random() < 0.5:
        return source.choice([value[1:], value + "x", value.upper(), value * 2, *WORDS])
    return source.choice(ODD)


def write(value: Any) -> str:
    """Return JSON text; a number of very many digits and deep nesting, too."""
    return json.dumps(value, ensure_ascii=False).replace('"<deep>"', "[" * 5000 + "]" * 5000).replace('"<digits>"', "9" * 400)


WORDS = ["", "\0", "\x1b[31m", "../../etc/passwd", "é" * 40, "x" * 100_000, "tanh", "lstm", "word", "reviewgen", "\udc80", "None"]
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63)),
    *(0.5, 1e-320, 1e-30, 1e30, 1e308, math.inf, -math.inf, math.nan, -0.0, "<deep>", "<digits>"),
    *("", "x", "../x", "/etc/passwd", [], {}, [[]], {"": {}}, [None], ["x"] * 1000, {"x": 1}, list(range(300))),
]
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
