"""A ``store.json`` that was changed by hand or by an attacker: one sentence, whatever is in it."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reviewgen_char.tokenizer import CharTokenizer

import reviewgen
from reviewgen.data.store_folder import StoreFolder, digest_file
from reviewgen.errors import DataError, ReviewgenError
from reviewgen.runs.prepared import corpus_of, find_store

WRONG = [None, [], {}, "x", "\x1b[2J", -1, 1e300, True, 10**40, [{}], {"a": [1]}]
"""Values of other types and sizes than any field has."""


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a prepared store and the content of its ``store.json``."""
    folder = tmp_path_factory.mktemp("facts") / "store"
    rows = [{"text": f"a review, number {number}", "stars": number % 5} for number in range(60)]
    reviewgen.prepare(rows, preset="gru-char", out=folder, conditions=["stars"])
    return folder, json.loads((folder / "store.json").read_text(encoding="utf-8"))


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in JSON values."""
    if before:
        yield before
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*before, key))


def read(folder: Path, changed: Any) -> str | None:
    """Return the message of the error that a changed ``store.json`` gives, if it gives one."""
    (folder / "store.json").write_text(json.dumps(changed), encoding="utf-8")
    try:
        store = find_store(folder)
        corpus, _, _ = corpus_of(store)
        assert len(corpus.splits) <= 60 and corpus.describe_held_out()
        store.splits()
    except ReviewgenError as error:
        return str(error)
    return None


def test_any_value_may_be_wrong(content):
    folder, facts = content
    assert read(folder, facts) is None
    refused = tried = 0
    for *before, last in (place for place in places(facts) if "conditions" not in place[1:2] or len(place) < 4):
        for wrong in [*WRONG, "missing"]:
            changed = copy.deepcopy(facts)
            inner = changed
            for key in before:
                inner = inner[key]
            if wrong == "missing":
                del inner[last]
            else:
                inner[last] = wrong
            message = read(folder, changed)
            tried, refused = tried + 1, refused + (message is not None)
            if message is not None:
                assert len(message) <= 500 and "\x1b" not in message
                assert any(advice in message for advice in ("Prepare it again", "update reviewgen", "Give the reviews")), message
    assert read(folder, facts) is None
    assert refused > 0.6 * tried > 500  # of the others, many are free texts, numbers and settings of a tokenizer


@pytest.mark.parametrize("name", ["../secret", "/etc", "C:\\secret", "a/../../b", "", "shards/..", 7])
def test_shards_and_files_stay_inside(name, content):
    folder, facts = content
    for changed in (facts | {"shards": [name]}, facts | {"files": {name: {"size": 1, "sha256": ""}}}):
        if changed["files"] != {7: {"size": 1, "sha256": ""}}:
            assert "is damaged" in (read(folder, changed) or "")
    assert read(folder, facts) is None


def claim(file: Path, shape: tuple[int, ...]) -> None:
    """Write an array whose header has a shape, and little else."""
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<i8", "fortran_order": False, "shape": shape})
        stream.write(bytes(100))


def changed(at: tuple[int, ...], value: int) -> Callable[[Path], None]:
    """Return a function that changes one value of an array."""

    def change(file: Path) -> None:
        array = np.load(file)
        array[at] = value
        np.save(file, array)

    return change


def ids_to(value: int) -> Callable[[Path], None]:
    """Return a function that changes an id."""

    def change(file: Path) -> None:
        ids = np.fromfile(file, np.uint16)
        ids[5] = value
        ids.tofile(file)

    return change


def as_type(dtype: str) -> Callable[[Path], None]:
    """Return a function that changes the dtype of an array."""
    return lambda file: np.save(file, np.load(file).astype(dtype))


INDEX, IDS, CONDITIONS = "train.index.npy", "train.uint16", "train.conditions.npy"
DAMAGES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "pickle": (INDEX, lambda file: np.save(file, np.array([{"a": 1}], object), allow_pickle=True), "is not an array"),
    "shape": (INDEX, lambda file: np.save(file, np.zeros(3, np.int64)), "is not an index of texts"),
    "empty": (INDEX, lambda file: file.write_bytes(b""), "is not an array"),
    "no texts at all": (INDEX, lambda file: np.save(file, np.zeros((2, 0), np.int64)), "is not an index of texts"),
    "claimed shape": (INDEX, lambda file: claim(file, (2, 10**13)), "is not an array"),
    "claimed shape beyond integers": (INDEX, lambda file: claim(file, (2, 10**30)), "is not an array"),
    "archive": (INDEX, lambda file: np.savez(file.open("wb"), np.zeros(3)), "is not an array"),
    "header": (INDEX, lambda file: file.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((" + bytes(50)), "is not an array"),
    "float index": (INDEX, as_type("f8"), "is not an index of texts"),
    "small integers": (INDEX, as_type("i4"), "is not an index of texts"),
    "last offset too small": (INDEX, changed((0, -1), 100), "does not fit the [0-9,]+ ids"),
    "last offset too large": (INDEX, changed((0, -1), 10**15), "does not fit the [0-9,]+ ids"),
    "an offset too large": (INDEX, changed((0, 5), 10**12), "does not fit the [0-9,]+ ids"),
    "an offset below zero": (INDEX, changed((0, 5), -5), "does not fit the [0-9,]+ ids"),
    "the largest offset": (INDEX, changed((0, 5), 2**63 - 1), "does not fit the [0-9,]+ ids"),
    "the smallest offset": (INDEX, changed((0, 5), -(2**63)), "does not fit the [0-9,]+ ids"),
    "the first offset": (INDEX, changed((0, 0), 1), "does not fit the [0-9,]+ ids"),
    "offsets that fall": (INDEX, changed((0, 5), 3), "do not rise"),
    "characters": (INDEX, changed((1, 3), -7), "impossible numbers of characters"),
    "very many characters": (INDEX, changed((1, 3), 2**62), "impossible numbers of characters"),
    "an id": (IDS, ids_to(60000), "ids that are not in the vocabulary"),
    "an id of a condition": (IDS, ids_to(-1), "ids that are not in the vocabulary"),
    "a held-out id": ("validation.uint16", ids_to(60000), "ids that are not in the vocabulary"),
    "half an id": (IDS, lambda file: file.write_bytes(file.read_bytes()[:-1]), "ends within an id"),
    "no ids": (IDS, lambda file: file.write_bytes(b""), "does not fit the 0 ids"),
    "few conditions": (CONDITIONS, lambda file: np.save(file, np.load(file)[:5]), "does not fit the [0-9]+ texts"),
    "wide conditions": (CONDITIONS, lambda file: np.save(file, np.repeat(np.load(file), 2, 1)), "are not those of store.json"),
    "flat conditions": (CONDITIONS, lambda file: np.save(file, np.load(file)[:, 0]), "does not fit the [0-9]+ texts"),
    "float conditions": (CONDITIONS, as_type("f4"), "does not fit the [0-9]+ texts"),
    "a condition": (CONDITIONS, changed((3, 0), 60000), "not those of their conditions"),
    "a condition that is a token": (CONDITIONS, changed((3, 0), 2), "not those of their conditions"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_arrays_that_were_replaced(damage, content, tmp_path):
    """The sizes and digests in ``store.json`` are those of the changed files, as in a forged store."""
    name, change, problem = DAMAGES[damage]
    folder, facts = tmp_path / "store", copy.deepcopy(content[1])
    shutil.copytree(content[0], folder)
    file = folder / "shards/00000" / name
    if damage == "an id of a condition":
        change = ids_to(CharTokenizer.load(folder / "tokenizer").vocab_size)
    change(file)
    facts["files"][f"shards/00000/{name}"] = digest_file(file)
    (folder / "store.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(DataError, match=rf"is damaged: .*{problem}.*\. Prepare it again") as raised:
        reviewgen.train("gru-char", folder, steps=1, model={"hidden_size": 8}, progress=False)
    assert len(str(raised.value)) < 500


def test_a_store_that_was_not_changed_is_read(content):
    assert reviewgen.train("gru-char", content[0], steps=1, model={"hidden_size": 8}, progress=False)


@pytest.mark.parametrize("name", [INDEX, CONDITIONS, IDS])
def test_arrays_that_are_no_files(name, content, tmp_path):
    folder, facts = tmp_path / "store", copy.deepcopy(content[1])
    shutil.copytree(content[0], folder)
    (folder / "shards/00000" / name).unlink()
    os.mkfifo(folder / "shards/00000" / name)  # opening it would wait for a writer
    del facts["files"][f"shards/00000/{name}"]
    (folder / "store.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(DataError, match="it has no train"):
        StoreFolder.read(folder).splits()


def test_a_changed_tokenizer_or_index_is_noticed(tmp_path):
    """Where the size is as before, the digest says so; ``store.json`` has both."""
    folder = tmp_path / "store"
    reviewgen.prepare([f"a review, number {number}" for number in range(60)], preset="gru-char", out=folder)
    for name in ("tokenizer/characters.json", "novelty.safetensors"):
        file = folder / name
        before = file.read_bytes()
        file.write_bytes(before[:-20] + before[-20:].swapcase()[::-1])
        with pytest.raises(DataError, match=f"{file.name} has changed since it was prepared. Prepare it again."):
            reviewgen.train("gru-char", folder, steps=1, progress=False)
        file.write_bytes(before)
    assert reviewgen.train("ngram-char", folder, progress=False).training["data"]["reviews"]["train"]


@pytest.mark.parametrize("kind", ["file", "pipe", "unlisted"])
def test_a_file_of_the_tokenizer_that_is_not_listed(kind: str, content: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(content[0], tmp_path / "store")
    facts = copy.deepcopy(content[1])
    own = folder / "tokenizer/characters.json"
    if kind == "file":
        (folder / "tokenizer/x\x1b.json").write_text("[]")
    else:
        del facts["files"]["tokenizer/characters.json"]
    if kind == "pipe":
        own.unlink()
        os.mkfifo(own)
    name = r"tokenizer/x\\x1b.json" if kind == "file" else "tokenizer/characters.json"
    said = read(folder, facts)
    assert said is not None and f"is damaged: {name.replace(2 * chr(92), chr(92))} is not in its store.json" in said


def test_a_name_that_is_too_long_for_a_file(content: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(content[0], tmp_path / "store")
    facts = content[1] | {"files": content[1]["files"] | {"x" * 5000: {"size": 1, "sha256": "0" * 64}}}
    said = read(folder, facts)
    assert said is not None and "is incomplete: it has no xxx" in said and len(said) < 400
