"""A ``store.json`` that was changed by hand or by an attacker: one sentence, whatever is in it."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reviewgen
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


@pytest.mark.parametrize("damage", ["pickle", "shape", "empty"])
def test_arrays_that_were_replaced(damage, content):
    folder, facts = content
    file = folder / "shards/00000/train.index.npy"
    before = file.read_bytes()
    if damage == "pickle":
        np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    elif damage == "shape":
        np.save(file, np.zeros(3))
    else:
        file.write_bytes(b"")
    facts = copy.deepcopy(facts)
    facts["files"]["shards/00000/train.index.npy"]["size"] = file.stat().st_size
    try:
        (folder / "store.json").write_text(json.dumps(facts), encoding="utf-8")
        store = find_store(folder)
        with pytest.raises(DataError, match="cannot be read"):
            store.splits()
    finally:
        file.write_bytes(before)
