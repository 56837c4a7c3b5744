"""Correct tokenizers, and for each law tokenizers that break it. Other processes import those of
``any_order``.
"""

import itertools
import json
import os
import pickle
import unicodedata
from collections.abc import Callable
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

__all__ = ["FAULTS", "LOSSY", "Ascii", "Bytes", "make"]

Settings = make_dataclass("Settings", [], frozen=True, kw_only=True)
Mutable = make_dataclass("Mutable", [])


class Bytes:
    """A correct, lossless tokenizer: each byte gets the number of its place in a table; ``train``
    sorts it.
    """

    Config = Settings
    vocab_size = 258
    bos_id = 256
    eos_id = 257

    def __init__(self, table):
        self.table = bytes(table)
        self.places = {byte: place for place, byte in enumerate(table)}

    @classmethod
    def train(cls, texts, config):
        used = {*b"".join(text.encode("utf-8", "surrogatepass") for text in texts)}
        return cls([*sorted(used), *(byte for byte in range(256) if byte not in used)])

    def encode(self, text):
        return [self.places[byte] for byte in text.encode("utf-8", "surrogatepass")]

    def decode(self, ids):
        raw = bytes(self.table[i] for i in ids if i < 256)
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def save(self, folder):
        (folder / "bytes.json").write_text(json.dumps(list(self.table)))

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "bytes.json").read_text()))


class Ascii(Bytes):
    """Correct, without a byte fallback: what is not ASCII becomes a question mark."""

    def encode(self, text):
        return super().encode(text.encode("ascii", "replace").decode())


class InTheOrderOfASet(Bytes):
    @classmethod
    def train(cls, texts, config):
        used = {*"".join(texts)}
        table = [ord(character) for character in used if character < "\x80"]
        return cls([*table, *(byte for byte in range(256) if byte not in table)])


class CountsItsThreads(Bytes):
    @classmethod
    def train(cls, texts, config):
        return shifted(cls, int(os.environ.get("RAYON_NUM_THREADS", "1")))


def make(cls: Any) -> Callable[[], Any]:
    """Return what the laws call: a function that returns a newly trained tokenizer."""
    # loads torch, which the other processes do without
    from reviewgen.testing import TRAINING_TEXTS

    return lambda: cls.train(TRAINING_TEXTS, cls.Config())


def broken(**members: Any) -> type:
    """Return a class that differs from the correct one in some members."""
    return type("Broken", (Bytes,), members)


def encoding(change: Callable[[str], str]) -> type:
    """Return a tokenizer that changes a text before it encodes it."""
    return broken(encode=lambda self, text: Bytes.encode(self, change(text)))


def trained(train: Callable[..., Any]) -> type:
    return broken(train=classmethod(train))


def shifted(cls: Any, places: int) -> Any:
    return cls(np.roll(np.arange(256), places).tolist())


def saving(write: Callable[[Path], Any]) -> type:
    """Return a tokenizer that writes something more when it is saved."""

    def save(self, folder):
        Bytes.save(self, folder)
        write(folder)

    return broken(save=save)


def another_json(self):
    """Return a byte-level BPE without merges, whose ids are those of the symbols in another
    order.
    """
    symbols = [*sorted(ByteLevel.alphabet()), "<bos>", "<eos>"]
    other = Tokenizer(BPE({symbol: number for number, symbol in enumerate(symbols)}, []))
    other.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return other.to_str()


def leave_a_training_file(cls, texts, config):
    Path("training.tmp").write_text("texts")
    return shifted(cls, 1)


trainings = itertools.count()

FAULTS: dict[str, list[tuple[Any, str]]] = {
    "protocol": [(broken(save=None), "lacks save of reviewgen.protocols.Tokenizer")],
    "config": [(broken(Config=Mutable), "must be frozen")],
    "every_text": [
        (encoding(lambda text: text.encode("utf-8").decode()), "accepts every text"),
        (
            broken(encode=lambda self, text: np.array(Bytes.encode(self, text))),
            "It returns a ndarray",
        ),
    ],
    "frame": [
        (
            broken(encode=lambda self, text: Bytes.encode(self, text) + [256] * ("<s>" in text)),
            "must not return, even",
        )
    ],
    "stable": [
        (
            broken(decode=lambda self, ids: Bytes.decode(self, ids).replace("\r\n", "\n")),
            "but after decoding to",
        )
    ],
    "known_text": [(encoding(str.lower), "at character 0, 'A good f' becomes")],
    "unseen_text": [
        (encoding(lambda text: unicodedata.normalize("NFC", text)), "at character 0, 'e"),
        (encoding(lambda text: text.replace("映", "?")), "at character 0, "),
    ],
    "any_ids": [
        (
            broken(
                decode=lambda self, ids: bytes(self.table[i] for i in ids if i < 256).decode(
                    "utf-8", "surrogatepass"
                )
            ),
            "UnicodeDecodeError",
        )
    ],
    "batch": [
        (
            broken(encode_batch=lambda self, texts: [self.encode(text.strip()) for text in texts]),
            "different ids for 22 texts",
        )
    ],
    "trained_again": [
        (trained(lambda cls, texts, config: shifted(cls, next(trainings))), "Training twice")
    ],
    "streamed": [
        (
            trained(
                lambda cls, texts, config: shifted(cls, len(max(texts)) + sum(1 for _ in texts))
            ),
            "iterate over its texts once",
        )
    ],
    "in_parts": [
        (
            broken(combine=classmethod(lambda cls, parts: shifted(cls, len(parts)))),
            "combined from parts",
        )
    ],
    "save_load": [
        (
            broken(load=classmethod(lambda cls, folder: shifted(cls, 0))),
            "A saved and loaded tokenizer",
        )
    ],
    "other_programs": [
        (broken(tokenizer_json=another_json), 'must encode "A good film. I liked it')
    ],
    "plain_data": [
        (
            saving(lambda folder: (folder / "t.txt").write_bytes(pickle.dumps([1], protocol=0))),
            "It is a pickle",
        )
    ],
    "no_subfolders": [
        (
            saving(lambda folder: (folder / "vocabulary").mkdir()),
            "no subfolders and no links. It writes vocabulary",
        ),
        (
            saving(lambda folder: (folder / "latest.json").symlink_to("bytes.json")),
            "It writes latest.json",
        ),
    ],
    "file_names": [
        (
            saving(lambda folder: (folder / "config.json").write_text("{}")),
            "A saved model has config.json itself",
        ),
        (
            saving(lambda folder: (folder / "readme.md").write_text("x")),
            "A saved model has readme.md itself",
        ),
    ],
    "own_folder": [
        (
            saving(lambda folder: (folder.parent / f"{folder.name}.log").write_text("x")),
            "writes tokenizer.log beside its folder",
        ),
        (trained(leave_a_training_file), "writes training.tmp into the working directory"),
    ],
    "any_order": [
        (InTheOrderOfASet, "sort what comes from a set or from threads"),
        (CountsItsThreads, "With PYTHONHASHSEED=1 RAYON_NUM_THREADS=4"),
    ],
}
"""Of each law, by name, tokenizers that break it before any other, and words of the message."""

LOSSY = [
    (Ascii, r"at character 48, '\u2028\u2029\x85' becomes '???'."),
    (encoding(lambda text: text.encode("utf-8", "ignore").decode()), "at character 0, "),
]
"""Correct, but not lossless: the second drops lone surrogates."""
