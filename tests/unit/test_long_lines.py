"""Texts of bounded length: a line of gigabytes and a gzip file that unpacks to more than any text are one sentence."""

import csv
import gzip
import io
import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reviewgen.data import DataConfig, gather, read_examples
from reviewgen.errors import ConfigError, DataError

LONG = "ab " * 400  # 1,200 characters


def read(source: Any, folder: Path, limit: int = 1_000, **options: Any) -> list[str]:
    workspace = Path(tempfile.mkdtemp(dir=folder))
    config = DataConfig(max_text_characters=limit, clean=False, **options)
    return [text for text, _ in read_examples(source, workspace, config)]


def write(file: Path, texts: list[str]) -> Path:
    """Write texts in the format of a file's suffix, with the columns text and stars."""
    suffix = file.suffixes[0]
    rows = [{"text": text, "stars": number} for number, text in enumerate(texts)]
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
        return file
    stream = io.StringIO()
    if suffix == ".csv":
        writer = csv.DictWriter(stream, ["text", "stars"])
        writer.writeheader()
        writer.writerows(rows)
    elif suffix == ".jsonl":
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        stream.writelines(f"{text}\n" for text in texts)
    content = stream.getvalue().encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a.txt", "Line 3 of .*a.txt"),
        ("a.txt.gz", "Line 3 of .*a.txt.gz"),
        ("a.csv", "Line 4 of .*a.csv"),
        ("a.csv.gz", "Line 4 of .*a.csv.gz"),
        ("a.jsonl", "Text 3 of column 'text' of .*a.jsonl"),
        ("a.parquet", "Text 3 of column 'text' of .*a.parquet"),
    ],
)
def test_a_text_that_is_too_long(tmp_path: Path, name: str, place: str) -> None:
    file = write(tmp_path / name, ["short", "also short", LONG])
    with pytest.raises(DataError, match=f"{place} has more than 1,000 characters, the limit for one text") as caught:
        read(file, tmp_path)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
    assert read(file, tmp_path, limit=1_300) == ["short", "also short", LONG]


@pytest.mark.parametrize("length", [1_000, 1_001])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_the_limit_is_inclusive(tmp_path: Path, length: int, end: str) -> None:
    (tmp_path / "a.txt").write_bytes(f"first{end or chr(10)}{'x' * length}{end}".encode())
    if length == 1_000:
        assert read(tmp_path / "a.txt", tmp_path) == ["first", "x" * length]
    else:
        with pytest.raises(DataError, match="Line 2"):
            read(tmp_path / "a.txt", tmp_path)


@pytest.mark.parametrize("documents", ["paragraph", "sentence"])
def test_a_paragraph_of_many_lines(tmp_path: Path, documents: str) -> None:
    (tmp_path / "a.txt").write_text("One.\nTwo.\n\n" + "A short line.\n" * 100 + "\nEnd.\nOf it.\n")
    with pytest.raises(DataError, match=r"The paragraph of .*a\.txt from line 4 on"):
        read(tmp_path / "a.txt", tmp_path, documents=documents)
    assert len(read(tmp_path / "a.txt", tmp_path, limit=10_000, documents=documents)) >= 3


def test_a_file_that_is_one_text_has_no_limit(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(LONG)
    assert read(tmp_path / "a.txt", tmp_path, documents="file") == [LONG]


def test_texts_in_memory(tmp_path: Path) -> None:
    for source in (["short", LONG], pd.DataFrame({"text": ["short", LONG]}), [{"text": "short"}, {"text": LONG}]):
        with pytest.raises(DataError, match="Text 2 of"):
            read(source, tmp_path)


def test_several_processes_have_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reviewgen.data.corpus.count_workers", lambda *_: 2)
    monkeypatch.setattr("reviewgen.data.shards._PART_BYTES", 1)
    for name in ("a", "b"):
        write(tmp_path / f"{name}.txt", [*(f"text {name} {number}" for number in range(200)), LONG if name == "b" else "end"])
    (tmp_path / "work").mkdir()
    with pytest.raises(DataError, match=r"Line 201 of .*b\.txt"):
        gather(tmp_path / "*.txt", tmp_path / "work", DataConfig(max_text_characters=1_000))


def test_a_gzip_bomb_is_not_held_in_memory(tmp_path: Path) -> None:
    for name in ("bomb.txt.gz", "bomb.csv.gz", "bomb.jsonl.gz"):
        with gzip.open(tmp_path / name, "wb", compresslevel=1) as stream:
            for _ in range(80):
                stream.write(b"a" * (1 << 20))
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=f"{name} unpacks to more than 100 times its size"):
                read(tmp_path / name, tmp_path, limit=10_000_000)
            assert tracemalloc.get_traced_memory()[1] < 20 << 20
        finally:
            tracemalloc.stop()


def test_a_long_line_is_not_held_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as stream:
        for _ in range(60):
            stream.write(b"abcd efg" * (1 << 17))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="Line 1 of"):
            read(tmp_path / "a.txt", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("limit", [0, -1, 1 << 50])
def test_a_limit_that_is_not_one(limit: Any) -> None:
    with pytest.raises(ConfigError, match="max_text_characters"):
        DataConfig(max_text_characters=limit)
