"""Damage to files: bits, blocks, lengths, JSON values, headers of safetensors, arrays; and other things in the place of a file.

Each kind of damage takes a folder, a place for what is moved out of it and a source of random numbers; it changes one file
and says what it did.
"""

import copy
import json
import math
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "change",
    "cut",
    "edit_array",
    "edit_array_header",
    "edit_header",
    "edit_json",
    "exchange",
    "files_in",
    "fill",
    "flip",
    "pick",
    "remove",
    "replace_by_other",
    "write",
]


def remove(path: Path) -> None:
    """Remove a folder or file, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder and of the folders in it, sorted; links are none."""
    found = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return sorted(file for file in found if file.is_file() and not file.is_symlink())


def pick(folder: Path, source: random.Random, ends: str = "") -> Path:
    """Return one of the files of a folder whose name ends as asked for, or any if no name does."""
    files = files_in(folder)
    return source.choice([path for path in files if path.name.endswith(ends)] or files)


def exchange(one: Path, other: Path) -> str:
    """Exchange the contents of two files."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return f"exchange {one.name} and {other.name}"


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


def edit_array(folder: Path, root: Path, source: random.Random) -> str:
    """Change numbers of an array of integers: in numpy's format, or bare ids, offsets and hashes."""
    suffixes = (".npy", ".uint16", ".uint32")
    files = [file for file in files_in(folder) if file.suffix in suffixes or (not file.suffix and file.name in BARE)]
    if not files:
        return flip(folder, root, source)
    file = source.choice(files)
    data = bytearray(file.read_bytes())
    start = 128 if file.suffix == ".npy" else 0  # after the header
    width = 2 if file.suffix == ".uint16" else 4 if file.suffix == ".uint32" else 8
    count = max(0, len(data) - start) // width
    for _ in range(source.choice([1, 1, 2, 50]) if count else 0):
        at = start + width * source.choice([0, count - 1, source.randrange(count)])
        number = int.from_bytes(data[at : at + width], "little", signed=True) + source.choice([-1, 1])
        number = source.choice([number, 0, -1, 1, 7, 1 << 13, (1 << 16) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 62)])
        data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    file.write_bytes(data)
    return f"numbers of {file.name}"


def edit_array_header(folder: Path, root: Path, source: random.Random) -> str:
    """Write an array of another shape, order or dtype, or one that holds objects."""
    files = [file for file in files_in(folder) if file.suffix == ".npy"]
    if not files:
        return flip(folder, root, source)
    file = source.choice(files)
    try:
        array = np.load(file)
    except (ValueError, EOFError, OSError):  # damaged before
        return flip(folder, root, source)
    what = source.choice(["flat", "rows", "float", "short", "empty", "objects", "huge", "bool", "columns", "negative"])
    others = {
        "flat": array.ravel(),
        "rows": array[:-1],
        "float": array + 0.5,
        "short": array[..., :-1],
        "empty": array[:0],
        "objects": np.array([{"a": 1}, None], object),
        "bool": array.astype(bool),
        "columns": np.asfortranarray(array[..., ::-1]),
        "negative": -array.astype(np.int64),
    }
    if what == "huge":
        header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': (2, {source.choice([10**9, 10**12, 2**62])}), }}".encode()
        text = header + b" " * (117 - len(header)) + b"\n"
        file.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64)
    else:
        with file.open("wb") as stream:
            np.save(stream, others[what], allow_pickle=True)
    return f"{what} array {file.name}"


def replace_by_other(file: Path, elsewhere: Path, what: str, source: random.Random) -> str:
    """Move a file away, and put what is not a file in its place; or put it back under another name."""
    remove(elsewhere)
    file.rename(elsewhere)
    if what == "rename":
        elsewhere.rename(file.with_name(f"{file.name}.old"))
    elif what == "case":
        elsewhere.rename(file.with_name(file.name.swapcase()))
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


def edit_json(folder: Path, root: Path, source: random.Random, file: Path | None = None) -> str:
    """Change a value, a key or the text of a JSON file; of one of them if none is given."""
    file = file or pick(folder, source, ".json")
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


BARE = ("index",)
"""Files of 64-bit integers whose names have no suffix."""

WORDS = ["", "\0", "\x1b[31m", "../../etc/passwd", "é" * 40, "x" * 100_000, "tanh", "lstm", "word", "reviewgen", "\udc80", "None"]
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63)),
    *(0.5, 1e-320, 1e-30, 1e30, 1e308, math.inf, -math.inf, math.nan, -0.0, "<deep>", "<digits>"),
    *("", "x", "../x", "/etc/passwd", [], {}, [[]], {"": {}}, [None], ["x"] * 1000, {"x": 1}, list(range(300))),
]
