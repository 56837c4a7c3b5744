"""The folder of a token store: a tokenizer, one or several shards of ``TokenStore`` files, and ``store.json``, written last.

The token cache and ``reviewgen prepare`` write the same folder. ``store.json`` has the format's version, the names of the
shards, and the size and SHA-256 digest of each other file; that of a prepared store also has the facts that a
training needs. Knows no model.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.conditions import Conditions
from reviewgen.config import MAX_RECORD, parse_json
from reviewgen.data.corpus import SPLITS
from reviewgen.data.store import TokenStore
from reviewgen.errors import DataError, printable, shortened

__all__ = [
    "STORE_FILE",
    "StoreFolder",
    "digest_file",
    "digest_files",
    "parse_store_file",
    "read_store_file",
    "write_store_file",
]

STORE_FILE = "store.json"
_FORMAT = 1


@dataclass(frozen=True)
class StoreFolder:
    """A token store on this machine.

    Attributes:
        folder: The folder.
        content: The content of ``store.json``.
        name: What the user calls it, for messages.
    """

    folder: Path
    content: Mapping[str, Any]
    name: str

    @classmethod
    def read(cls, folder: Path, name: str | None = None) -> "StoreFolder":
        """Read ``store.json`` and check that the files have the sizes in it.

        Raises:
            DataError: It is not a token store, of a newer version, or damaged.
        """
        store = cls(folder, parse_store_file(read_store_file(folder), name or str(folder)), name or str(folder))
        for file, facts in store.content["files"].items():
            path = folder / file
            is_there = os.path.isfile(path)  # noqa: PTH113  # Path.is_file raises for a name that is too long
            if not is_there or path.stat().st_size != facts["size"]:
                problem = "is incomplete: it has no" if not is_there else "is damaged: the size has changed of"
                raise DataError(f"The token store {store.name} {problem} {shortened(printable(file), 100)}. Prepare it again.")
        for path in (folder / "tokenizer").glob("*"):
            if (name := f"tokenizer/{path.name}") not in store.content["files"]:
                raise store._damaged(f"{shortened(printable(name), 100)} is not in its {STORE_FILE}")
        return store

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a prepared store knows of its corpus and its tokenizer; empty for a folder of the token cache."""
        facts: Mapping[str, Any] = self.content["facts"]
        return facts

    def splits(self) -> dict[str, TokenStore]:
        """Return the tokens of each split; see also ``check_splits``.

        Raises:
            DataError: The arrays are damaged, or do not fit one another.
        """
        shards = [self.folder / name for name in self.content["shards"]]
        try:
            return {split: TokenStore(shards, split) for split in SPLITS}
        except ValueError as error:  # it was changed
            raise self._damaged(str(error)) from None
        except FileNotFoundError:  # it is being removed
            raise self._damaged("a file of it is missing") from None
        except OSError as error:  # its name is too long
            raise self._damaged(f"a file of it cannot be read ({error.strerror})") from None

    def check_digests(self) -> None:
        """Raise unless the tokenizer and the index have their digests. Those of the shards are left out, which may be large.

        Raises:
            DataError: One differs.
        """
        shards = tuple(f"{name}/" for name in self.content["shards"])
        for name, facts in self.content["files"].items():
            if not name.startswith(shards) and digest_file(self.folder / name)["sha256"] != facts["sha256"]:
                raise self._damaged(f"{name} has changed since it was prepared")

    def check_splits(self, splits: Mapping[str, TokenStore], conditions: Conditions) -> None:
        """Raise unless the ids of a prepared store are in its vocabulary, which takes a pass over them.

        Args:
            splits: What ``splits`` has returned.
            conditions: The conditions of the texts, with their ids.

        Raises:
            DataError: Some ids are not, or the numbers of texts or conditions differ from the facts.
        """
        first = np.array([*conditions.unspecified_ids, conditions.vocab_size])  # (C + 1,) of each condition
        for split, store in splits.items():
            given = np.empty((len(store), 0)) if store.conditions is None else store.conditions
            if len(store) != self.facts["corpus"]["texts"][split] or given.shape[1] != len(conditions):
                raise self._damaged(f"the {split} texts are not those of {STORE_FILE}")
            if any(block.max() >= conditions.first_id for block in store.blocks):
                raise self._damaged(f"the {split} texts have ids that are not in the vocabulary")
            if ((given < first[:-1]) | (given >= first[1:])).any():
                raise self._damaged(f"the {split} texts have ids that are not those of their conditions")

    def _damaged(self, problem: str) -> DataError:
        return DataError(f"The token store {self.name} is damaged: {problem}. Prepare it again.")


def read_store_file(folder: Path) -> bytes:
    """Return the bytes of a ``store.json``, up to one more than it may have."""
    with (folder / STORE_FILE).open("rb") as stream:
        return stream.read(MAX_RECORD + 1)


def parse_store_file(content: bytes, name: str) -> dict[str, Any]:
    """Return the content of a ``store.json``.

    Raises:
        DataError: It is not one, or of a newer version.
    """
    try:
        if len(content) > MAX_RECORD:
            raise ValueError("it is too large")
        parsed = parse_json(content.decode("utf-8"))
        version, files, shards = parsed["format"], parsed["files"], parsed["shards"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{name} is not a token store: its {STORE_FILE} is damaged. Prepare it again.") from None
    if isinstance(version, int) and version > _FORMAT:
        raise DataError(f"The token store {name} is of a newer version of reviewgen (format {version}): update reviewgen.")
    if version != _FORMAT or not _are_files(files) or not _are_shards(shards) or not isinstance(parsed.get("facts"), dict):
        raise DataError(f"{name} is not a token store: its {STORE_FILE} is damaged. Prepare it again.")
    return dict(parsed)


def _are_files(files: Any) -> bool:
    """Return whether a value maps relative names inside the folder to sizes and digests."""
    return isinstance(files, dict) and all(
        isinstance(facts, dict)
        and isinstance(facts.get("size"), int)
        and facts["size"] >= 0
        and isinstance(facts.get("sha256"), str)
        and _is_inside(name)
        for name, facts in files.items()
    )


def _are_shards(shards: Any) -> bool:
    """Return whether a value is a list of names of folders inside the store; the store itself is one in the token cache."""
    return isinstance(shards, list) and bool(shards) and (shards == ["."] or all(map(_is_inside, shards)))


def _is_inside(name: Any) -> bool:
    """Return whether a value is a relative name that stays inside a folder, on any operating system."""
    if not isinstance(name, str):
        return False
    return not {"", "..", "."} & set(name.replace("\\", "/").split("/")) and ":" not in name and "\0" not in name


def digest_files(folder: Path, within: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return the size and digest of each file of a folder, by its name relative to ``folder`` or to one around it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / STORE_FILE)
    return {file.relative_to(within or folder).as_posix(): digest_file(file) for file in files}


def digest_file(file: Path) -> dict[str, Any]:
    """Return the size and digest of a file."""
    with file.open("rb") as stream:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def write_store_file(
    folder: Path, shards: Sequence[str], files: Mapping[str, Any], facts: Mapping[str, Any] | None = None
) -> None:
    """Write ``store.json``, after all other files of a store."""
    content = {"format": _FORMAT, "facts": dict(facts or {}), "shards": list(shards), "files": dict(sorted(files.items()))}
    (folder / STORE_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8", newline="")
