"""Files of every format give the same texts as Python's csv and json modules; what cannot be read is refused with its place."""

import gzip
import json

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.errors import DataError
from tests.support.texts import as_csv, as_lines, as_parquet, corpus_of, refusal, texts_of, write

TEXTS = ["A fine film, really.", 'He said "no".\nTwice.', "007", "1.0", "NA", "null", "nan", "None", "", "True", "1e5"]
TEXTS += ["2020-01-01", " spaces ", "semi;colon\ttab|bar", "ดี 😀 é \u2028", "'single'", "back\\slash \\n", "crlf\r\ninside"]
TEXTS += ["-", "<br />&amp;"]
ROWS = [{"id": str(number), "text": text, "stars": str(number % 5)} for number, text in enumerate(TEXTS)]
FORMATS = {
    "a.csv": as_csv(ROWS),
    "semicolon.csv": as_csv(ROWS, delimiter=";"),
    "bar.csv": as_csv(ROWS, delimiter="|"),
    "tabs.csv": as_csv(ROWS, delimiter="\t"),
    "a.tsv": as_csv(ROWS, delimiter="\t"),
    "a.json": json.dumps(ROWS),
    "indented.json": "\n " + json.dumps(ROWS, indent=2, ensure_ascii=False),
    "strings.json": json.dumps(TEXTS),
    "objects.json": "".join(json.dumps(row, indent=1) for row in ROWS),
    "a.jsonl": as_lines(ROWS),
    "a.ndjson": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "a.parquet": as_parquet(ROWS),
    "groups.parquet": as_parquet(ROWS, row_group_size=3, use_dictionary=False, compression="none"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_texts(tmp_path, name):
    for suffix in ("", ".gz"):
        file = write(tmp_path / (name + suffix), FORMATS[name])
        assert texts_of(file) == TEXTS
        stream = corpus_of(file, clean=False).stream
        assert (stream.text_column in ("text", None), stream.preview, stream.decode_errors) == (True, TEXTS[:3], 0)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_txt_by_line_paragraph_and_file(tmp_path, name, newline):
    unix = "\n\na one\nb\n\n\n\n\nc  \n \t\n\td\n\n\n"
    path = write(tmp_path / name, unix.replace("\n", newline))
    assert texts_of(path) == unix.split("\n")[:-1]
    assert texts_of(path, documents="paragraph") == ["a one\nb", "c  ", "\td"]
    assert texts_of(path, documents="file") == [unix]


def test_several_files(tmp_path):
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.txt", f"{name}1\n{name}2\n")
    (tmp_path / "folder.txt").mkdir()
    write(tmp_path / "folder.txt" / "d.txt", "d1\n")
    assert texts_of(str(tmp_path / "?.txt")) == ["a1", "a2", "b1", "b2", "c1", "c2"]
    assert texts_of(tmp_path / "[ac].txt") == ["a1", "a2", "c1", "c2"]
    assert texts_of(str(tmp_path / "**/*.txt"))[-2:] == ["c2", "d1"]
    assert texts_of([tmp_path / "c.txt", tmp_path / "a.txt"]) == ["c1", "c2", "a1", "a2"]
    assert texts_of(str(tmp_path / "?.txt"), documents="file") == ["a1\na2\n", "b1\nb2\n", "c1\nc2\n"]
    write(tmp_path / "b.txt", "")
    assert texts_of(str(tmp_path / "?.txt"), documents="file") == ["a1\na2\n", "c1\nc2\n"]
    write(tmp_path / "e.txt", "")
    assert "All 2 files are empty" in refusal(tmp_path / "[be].txt")


def test_a_condition_that_the_first_records_leave_out(tmp_path):
    write(tmp_path / "a.jsonl", as_lines([{"text": str(n)} | ({"stars": 5} if n > 500 else {}) for n in range(700)]))
    assert corpus_of(tmp_path / "a.jsonl", conditions=("stars",)).values == [[None]] * 501 + [[5.0]] * 199


def test_files_behind_urls(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/reviews/b.csv", b"text\nb\n")
    memory.pipe_file("/reviews/a.csv.gz", gzip.compress(b"text\na\n"))
    assert texts_of("memory://reviews/*.csv*") == ["a", "b"]
    assert texts_of("memory://reviews/b.csv") == ["b"]
    assert refusal("memory://reviews/c.csv").startswith("There is no file memory://reviews/c.csv.")
    url = write(tmp_path / "a.csv", "text\na,b\n").as_uri()
    assert refusal(url).startswith(f"{url} cannot be read: row 2 has 2 fields")


# Bytes and characters.


def test_a_byte_order_mark_is_used_and_removed(tmp_path):
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        for name in ("a.txt", "a.txt.gz", "a.csv"):
            read = corpus_of(write(tmp_path / name, "\ufefftext\r\né ดี 😀\r\nx".encode(encoding)), clean=False)
            assert (read.texts, read.report.decode_errors) == (["text", "é ดี 😀", "x"][name == "a.csv" :], 0)


def bad_runs(data):
    """Count runs of bytes that are not valid UTF-8, and replace them, in one piece."""
    text, repaired, runs, inside = data.decode("utf-8", "surrogateescape"), [], 0, False
    for c in text:
        bad = "\udc80" <= c <= "\udcff"
        runs += bad and not inside
        if not (bad and inside):
            repaired.append("\ufffd" if bad else c)
        inside = bad
    return "".join(repaired), runs


@given(
    st.lists(st.sampled_from([b"\xff", b"\xe0\xb8", b"\xed\xa0\x80", "é".encode(), "ดี 😀 ".encode(), b"a", b" "]), max_size=30)
)
@settings(max_examples=60)
def test_every_run_of_invalid_bytes_is_replaced_and_counted(tmp_path_factory, pieces):
    valid = "ดีมาก ".encode() * 40  # so much valid UTF-8 that no other encoding is thought of
    data = valid + b"".join(pieces) + b"."
    file = write(tmp_path_factory.mktemp("bytes") / "a.txt", data)
    read = corpus_of(file, clean=False)
    assert ("\n".join(read.texts), read.report.decode_errors) == bad_runs(data)


# The length of a text.


LONG = "ab " * 400  # 1,200 characters


def test_a_text_that_is_too_long_is_refused_with_its_place(tmp_path):
    texts = ["short", "also short", LONG]
    rows = [{"text": text, "stars": number} for number, text in enumerate(texts)]
    for name, content, place in [
        ("a.txt", "\n".join(texts), "Text 3 of"),
        ("a.txt.gz", "\n".join(texts), "Text 3 of"),
        ("a.csv", as_csv(rows), "Text 3 of column 'text' of"),
        ("a.csv.gz", as_csv(rows), "Text 3 of column 'text' of"),
        ("a.jsonl", as_lines(rows), "Text 3 of column 'text' of"),
        ("a.json", json.dumps(rows), "Text 3 of column 'text' of"),
        ("a.parquet", as_parquet(rows), "column 'text' of"),
    ]:
        file = write(tmp_path / name, content)
        message = refusal(file, max_text_characters=1_000)
        assert place in message and str(file) in message and "more than 1,000 characters" in message
        assert len(message) < 300 + len(str(tmp_path))
        assert texts_of(file, max_text_characters=1_300) == texts
        corpus_of(file, max_text_characters=1_300)
        with pytest.raises(DataError, match="more than 1,000 characters"):  # also where the cache has the corpus
            corpus_of(file, max_text_characters=1_000)
