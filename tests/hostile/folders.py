"""Saved folders with damage of every kind: loaded, scored and sampled, with their manifest or
without it.

With the manifest, no change of a file but the card may go unnoticed. Without it the checks behind
it are reached: a result may then differ, but nothing may crash, hang, or end in another exception
than ours.
"""

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reviewgen
from tests.hostile.frame import Fuzzer, find_fault
from tests.support.models import make_model

NAMES = ("ngram-char", "lstm-char", "gru-word", "blend-char")
Damage = Callable[[Path, Path, random.Random], str]


class Folders(Fuzzer):
    """The fuzzer of saved folders."""

    def prepare(self, folder: Path) -> None:
        """Train tiny models of each kind, and note what they score and generate."""
        self.root = folder
        for name in NAMES:
            make_model(name, folder / name)
        reviewgen.load(folder / "gru-word" / "model").save_pretrained(
            folder / "gru-word" / "model", dtype="int8", overwrite=True
        )
        self.expected = {name: use(folder / name / "model") for name in NAMES}

    def run(self, seed: int) -> tuple[str, str]:
        """Damage a copy of one of the folders, and use it."""
        source = random.Random(seed)
        name = source.choice(NAMES)
        has_manifest = source.random() < 0.4
        target = self.root / "case"
        shutil.copytree(self.root / name / "model", target)
        before = contents(target)
        if not has_manifest:
            (target / "manifest.json").unlink()
        try:
            case = (
                f"{name}, manifest {has_manifest}:"
                f" {source.choice(DAMAGE)(target, self.root, source)}"
            )
            changed = contents(target) != before
            try:
                result = use(target)
            except BaseException as error:
                return case, find_fault(error)
            if math.isnan(result[1]):
                return case, "the score is NaN"
            is_silent = has_manifest and (target / "manifest.json").exists() and changed
            return (
                case,
                (
                    f"a change without a message: {result} instead of {self.expected[name]}"
                    if is_silent
                    else ""
                ),
            )
        finally:
            for path in (target, self.root / "elsewhere"):
                (
                    shutil.rmtree(path)
                    if path.is_dir() and not path.is_symlink()
                    else path.unlink(missing_ok=True)
                )


def use(folder: Path) -> tuple[str, float, str]:
    """Load a model, generate a text and score one, and return both and the digest."""
    model = reviewgen.load(folder)
    model.novelty("the movie was good.")
    return (
        model.generate_one("the ", seed=7, max_new_tokens=20),
        model.score("the movie was good.").bits,
        model.digest,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the files of a model except the card and the manifest."""
    files = [path for path in folder.iterdir() if path.name not in ("README.md", "manifest.json")]
    return {path.name: path.read_bytes() if path.is_file() else b"not a file" for path in files}


def pick(folder: Path, source: random.Random, end: str = "") -> Path:
    """Return one of the files whose name ends like this."""
    return source.choice(
        sorted(path for path in folder.iterdir() if path.name.endswith(end))
        or sorted(folder.iterdir())
    )


def flip(folder: Path, root: Path, source: random.Random) -> str:
    """Flip one to eight bits of a file."""
    file = pick(folder, source, source.choice(["", ".safetensors"]))
    data = bytearray(file.read_bytes())
    for _ in range(source.choice([1, 1, 8])):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    file.write_bytes(data)
    return f"flip {file.name}"


def cut(folder: Path, root: Path, source: random.Random) -> str:
    """Cut a file, or add bytes to it."""
    file = pick(folder, source)
    data = file.read_bytes()
    size = source.choice(
        [0, 1, 7, 8, 9, len(data) // 2, len(data) - 1, len(data) + 1, len(data) + 4096]
    )
    file.write_bytes(data[:size].ljust(size, source.choice([b"\0", b" ", b"\xff"])))
    return f"cut {file.name} to {size} of {len(data)} bytes"


def fill(folder: Path, root: Path, source: random.Random) -> str:
    """Overwrite a block of tensors."""
    file = pick(folder, source, ".safetensors")
    data = bytearray(file.read_bytes())
    start = source.randrange(len(data))
    block = source.choice([b"\0", b"\xff", b"\x7f"]) * source.choice([4, 512, 65536])
    data[start : start + len(block)] = block[: len(data) - start]
    file.write_bytes(data)
    return f"fill {file.name} from {start}"


def swap(folder: Path, root: Path, source: random.Random) -> str:
    """Take a file of another model."""
    file = pick(folder, source)
    other = root / source.choice(NAMES) / "model" / file.name
    if other.is_file():
        shutil.copyfile(other, file)
    return f"{file.name} of {other.parent.parent.name}"


def replace(folder: Path, root: Path, source: random.Random) -> str:
    """Remove, rename or link a file, put a folder, a device or a pipe in its place, or add one."""
    file = pick(folder, source)
    elsewhere = root / "elsewhere"
    what = source.choice(["remove", "rename", "link", "loop", "device", "folder", "pipe", "add"])
    if what == "add":
        (
            folder
            / source.choice(
                ["x.py", "model.pkl", "..x", "a" * 200, "\n", "é", "novelty.safetensors"]
            )
        ).write_bytes(b"123")
        return what
    file.rename(elsewhere)
    if what == "rename":
        elsewhere.rename(file.with_name(f"{file.name}.old"))
    elif what in ("link", "loop", "device"):
        file.symlink_to(
            {"link": elsewhere, "loop": file}.get(
                what, Path(source.choice(["/dev/zero", "/dev/null", "/"]))
            )
        )
    elif what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    return f"{what} {file.name}"


def edit_json(folder: Path, root: Path, source: random.Random) -> str:
    """Change a value or a key of a JSON file."""
    file = pick(folder, source, ".json")
    value = json.loads(file.read_text(encoding="utf-8"))
    where = change(value, source)
    file.write_text(json.dumps(value), encoding="utf-8")
    return f"edit {file.name}: {where}"


def edit_header(folder: Path, root: Path, source: random.Random) -> str:
    """Change the header of a safetensors file: its length, or a name, dtype, shape or offset in
    it.
    """
    file = pick(folder, source, ".safetensors")
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if source.random() < 0.2 or not file.name.endswith(".safetensors"):
        wrong = source.choice(
            [0, length - 1, length + 1, len(data), 1 << 31, (1 << 63) - 1, (1 << 64) - 1]
        )
        file.write_bytes(wrong.to_bytes(8, "little") + data[8:])
        return f"header of {file.name} of {wrong} bytes"
    header = json.loads(data[8 : 8 + length])
    where = change(header, source)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return f"header of {file.name}: {where}"


def change(value: Any, source: random.Random) -> str:
    """Change something inside a JSON value; return where."""
    where = ""
    while isinstance(value, dict | list) and value:
        key = source.choice(sorted(value) if isinstance(value, dict) else list(range(len(value))))
        where += f".{key}"
        if isinstance(value[key], dict | list) and value[key] and source.random() < 0.8:
            value = value[key]
            continue
        action = source.random()
        if action < 0.15:
            del value[key]
        elif action < 0.25 and isinstance(value, dict):
            value[source.choice(["unknown", "", "__class__", key + "x"])] = value[key]
        else:
            value[key] = source.choice(
                [*ODD, value[key] + 1 if type(value[key]) is int else [value[key]]]
            )
        break
    return where


ODD: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**63,
        10**30,
        1.5,
        float("nan"),
        1e999,
        "",
        "x" * 9999,
        "../x",
        "\x1b[31m",
        [],
        {},
    )
]
DAMAGE: list[Damage] = [
    flip,
    flip,
    cut,
    fill,
    fill,
    swap,
    replace,
    *[edit_json] * 4,
    *[edit_header] * 3,
]
FUZZER = Folders()
