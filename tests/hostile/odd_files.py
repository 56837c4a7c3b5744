"""Files that are not what a command expects: empty, damaged, of another kind, nested deeply, or no files at all."""

import gzip
import json
import os
import shutil
from pathlib import Path

__all__ = ["ODD_FILES", "write_odd_files"]

_CONTENTS = {
    "empty.txt": b"",
    "blank.txt": b"\n \n\n",
    "binary.txt": bytes(range(256)) * 20,
    "utf16.txt": "The food was good.\n".encode("utf-16") * 3,
    "escapes.txt": "a\x1b[31mred\x07 \u202eabc\n".encode() * 5,
    "long.txt": b"a" * 300_000,
    "ragged.csv": b'a,b\n1,2\n3,4,5,6\n"unclosed\n',
    "numbers.csv": b"a,b\n1,2\n3,4\n",
    "odd\x1b[31m.csv": b"te\x1b[31mxt,b\nThe food,2\n",
    "list.json": b"[1, 2, 3]",
    "digits.json": b'[{"text": "a", "n": ' + b"9" * 90_000 + b"}]",
    "deep.json": b"[" * 100_000,
    "deep.jsonl": b'{"text": ' * 10_000 + b"1" + b"}" * 10_000 + b"\n",
    "lines.jsonl": b'{"text": "a"}\n{"text": 3}\nnot json\n',
    "seed.jsonl": b'{"seed": 5}\n',
    "cut.gz": gzip.compress(b"The food was good.\n" * 99)[:40],
    "not.gz": b"not gzip",
    "not.parquet": b"PAR1 no",
    "not.zip": b"PK\x03\x04no",
    "not.safetensors": b"\xff" * 64,
    "page.html": b"<html>",
    "study.db": b"not sqlite" * 9,
    "keys.txt": b"\xff\n\n",
}
ODD_FILES = [
    *_CONTENTS,
    "folder",
    "folder.txt",
    "fifo",
    "loop",
    "dangling",
    "damaged",
    "bits.jsonl",
    "none.txt",
    "./none",
    "/dev/stdin",
]


def write_odd_files(folder: Path, model: Path, receipts: Path) -> None:
    """Write all of them into a folder.

    Args:
        folder: The folder.
        model: A saved model, of which a damaged copy is made.
        receipts: A file with a receipt.
    """
    for name, content in _CONTENTS.items():
        (folder / name).write_bytes(content)
    for name in ("folder", "folder.txt"):
        (folder / name).mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    shutil.copytree(model, folder / "damaged")
    config = json.loads((folder / "damaged/config.json").read_text(encoding="utf-8"))
    (folder / "damaged/config.json").write_text(json.dumps({**config, "preset": "a\x1b[31m"}), encoding="utf-8")
    receipt = json.loads(receipts.read_text(encoding="utf-8"))
    receipt["model"]["bits"] = [32]
    (folder / "bits.jsonl").write_text(json.dumps(receipt), encoding="utf-8")
