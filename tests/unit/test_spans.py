"""Spans of a large file give its texts, in order, however the file is cut; a store of several shards is their concatenation."""

import json
import random
import re
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reviewgen_char.tokenizer import CharTokenizer

from reviewgen.data import spans
from reviewgen.data.delimited import read_rows
from reviewgen.data.documents import read_texts
from reviewgen.data.shards import Shard
from reviewgen.data.store import TokenStore, write_split
from reviewgen.errors import DataError

PIECES = ["a", "é", "Film 😀.", " ", "\n", "\r\n", "\r", "\n\n", "\n \n", "\u2028", "It was good. ", "x" * 40]


@pytest.mark.parametrize("documents", ["line", "paragraph", "sentence"])
def test_the_texts_of_the_spans_are_those_of_the_file(documents, tmp_path, monkeypatch):
    monkeypatch.setattr(spans, "_MIN_BYTES", 1)
    monkeypatch.setattr(spans, "_PIECE", 3)
    draw, cut = random.Random(0), 0
    for number in range(60):
        file = tmp_path / f"{number}.txt"
        file.write_bytes("".join(draw.choices(PIECES, k=draw.randrange(1, 60))).encode())
        whole = list(read_texts(file, documents))
        for size in (1, 2, 7, 50):
            parts = Shard("s", "text", [str(file)], [str(file)], documents).parts(size)
            assert [text for part in parts for text in part.records()] == whole, (number, size)
            cut += len(parts) > 1
    assert cut > 100


CELLS = ["", "a", "Film 😀.", ' 5" disk', '"a, b"', '"a\n b"', '"say ""no"""', '"\r\n"', '""', '"\n\n"', "x" * 30]
LINE_ENDS = ["\n", "\r\n", "\n\n", "\r"]


def test_the_rows_of_the_spans_are_those_of_the_csv_file(tmp_path, monkeypatch):
    monkeypatch.setattr(spans, "_MIN_BYTES", 1)
    draw, cut = random.Random(1), 0
    for number in range(80):
        file, ends = tmp_path / f"{number}.csv", draw.choice(LINE_ENDS)
        rows = [f"{draw.choice(CELLS)},{draw.choice(CELLS)}" for _ in range(draw.randrange(1, 30))]
        file.write_bytes((ends.join(["stars,text", *rows]) + draw.choice(["", ends])).encode())
        whole = list(read_rows(file, "a.csv"))
        for size in (1, 7, 50, 200):
            parts = Shard("s", "csv", [str(file)], ["a.csv"], "line").parts(size)
            assert [row for part in parts for row in part.records()] == whole, (number, size)
            cut += len(parts) > 1
    assert cut > 150


@pytest.mark.parametrize("bad", ['1,"he said "no" twice"', '1,"open', "1,2,3", "1"])
def test_errors_in_a_csv_file_are_the_same_in_spans(bad, tmp_path, monkeypatch):
    monkeypatch.setattr(spans, "_MIN_BYTES", 1)
    file = tmp_path / "a.csv"
    file.write_text("stars,text\n" + '5,"a\nreview"\n' * 40 + bad + "\n" + "4,good\n" * 20)
    shard, found = Shard("a.csv", "csv", [str(file)], ["a.csv"], "line"), []
    parts = shard.parts(60)
    for shards in ([shard], parts):
        try:
            found.append(len([row for part in shards for row in part.records()]))
        except DataError as error:
            found.append(str(error))
    assert found[0] == found[1] and (len(parts) > 5) == (bad in ("1,2,3", "1"))
    assert isinstance(found[0], int) or ("line 82 " in found[0])


def test_the_objects_of_the_spans_are_those_of_the_file_of_json_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(spans, "_MIN_BYTES", 1)
    draw, cut = random.Random(2), 0
    for number in range(40):
        file = tmp_path / f"{number}.jsonl"
        rows = [{"text": "".join(draw.choices(PIECES, k=4)), "stars": n} for n in range(draw.randrange(1, 30))]
        ends = draw.choice(["\n", "\r\n", "\n \n"])
        file.write_text(ends.join(json.dumps(row, ensure_ascii=bool(n % 2)) for n, row in enumerate(rows)), "utf-8", newline="")
        for size in (1, 7, 50, 200):
            parts = Shard("s", "json", [str(file)], ["a.jsonl"], "line").parts(size)
            assert [row for part in parts for row in part.records()] == rows, (number, size)
            cut += len(parts) > 1
    assert cut > 80
    for content in (json.dumps([{"text": "a"}] * 200), json.dumps({"text": "a" * 500}, indent=1)):
        file.write_text(content)
        assert len(Shard("s", "json", [str(file)], ["a.json"], "line").parts(1)) == 1


def test_a_line_that_is_too_long_is_refused_in_the_span_where_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(spans, "_MIN_BYTES", 1)
    file, long = tmp_path / "a.txt", "x" * 500
    file.write_text("a review\n" * 50 + long + "\n" + "a review\n" * 50)
    refused, others = [], []
    for part in Shard("s", "text", [str(file)], ["a.txt"], "line", 100).parts(60):
        try:
            others += part.records()
        except DataError as error:
            refused.append(str(error))
    assert len(refused) == 1
    line, start = map(
        int, re.match(r"Line (\d) of a.txt \(from byte (\d+) on\) has more than 100 characters", refused[0]).groups()
    )
    assert file.read_text()[start:].split("\n")[line - 1] == long
    assert set(others) == {"a review"} and 90 < len(others) <= 100


def test_a_long_line_is_skipped_in_little_memory(tmp_path):
    with (tmp_path / "a.txt").open("wb") as stream:
        for _ in range(40):
            stream.write(b"a" * (1 << 20))
        stream.write(b"\nlast\n")
    tracemalloc.start()
    try:
        assert spans.find_lines(tmp_path / "a.txt", (10, 20), "line") == (40 * (1 << 20) + 1,) * 2
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_small_files_share_a_part_and_large_ones_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(spans, "_MIN_BYTES", 1)
    names = [str(tmp_path / f"{number}.txt") for number in range(5)]
    for name, lines in zip(names, (1, 2, 100, 1, 1), strict=True):
        (tmp_path / name).write_text("a review\n" * lines)
    parts = Shard("s", "text", names, names, "line").parts(200)
    assert [len(part.paths) for part in parts] == [2, 1, 1, 1, 1, 2]
    assert [len(list(part.records())) for part in parts] == [3, 25, 25, 25, 25, 2]
    assert "bytes 0 to 225" in parts[1].name


def test_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(spans, "_MIN_BYTES", 1)
    rows = [{"text": f"review {number}", "stars": number % 5} for number in range(95)]
    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=10)
    for size, count in ((1, 10), (file.stat().st_size // 3, 3), (file.stat().st_size, 1)):
        parts = Shard("s", "parquet", [str(file)], [str(file)], "line").parts(size)
        assert len(parts) == count
        assert [row for part in parts for row in part.records(["text", "stars"])] == rows


def test_a_store_of_shards_is_their_concatenation(tmp_path):
    tokenizer, draw = CharTokenizer("abc"), random.Random(1)
    texts = ["".join(draw.choices("abc", k=draw.randrange(6))) for _ in range(40)]
    folders, whole = [tmp_path / str(number) for number in range(6)], tmp_path / "whole"
    for folder in (*folders, whole):
        folder.mkdir()
    write_split(texts, tokenizer, whole, "train", 100)
    for folder, (first, last) in zip(folders, [(0, 0), (0, 7), (7, 7), (7, 8), (8, 40), (40, 40)], strict=True):
        write_split(texts[first:last], tokenizer, folder, "train", 100)
    one, many = TokenStore(whole, "train"), TokenStore(folders, "train")
    assert len(many) == 40 and many.tokens == one.tokens and many.ids.tolist() == one.ids.tolist()
    assert [(ids.tolist(), count) for ids, count in many.documents()] == [(ids.tolist(), count) for ids, count in one.documents()]
    for part in (many, many.head(60), many.head(one.tokens)):
        assert np.concatenate(list(part.blocks)).tolist() == one.ids[: part.offsets[-1]].tolist()
    many.release_pages()
    assert many.document(39).tolist() == one.document(39).tolist()
