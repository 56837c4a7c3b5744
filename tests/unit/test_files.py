"""Files prepared for reading: found, unpacked, checked, and every run of invalid UTF-8 counted."""

import codecs
import gzip
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.data import files as files_module
from reviewgen.data.files import find_files, has_data_suffix, prepare_files
from reviewgen.errors import DataError


@pytest.fixture
def prepare(tmp_path):
    """Write bytes under a name and prepare that file; returns the prepared text and its decode errors."""
    numbers = iter(range(1000))

    def write_and_prepare(data, name="a.txt"):
        folder = tmp_path / str(next(numbers))
        (folder / "work").mkdir(parents=True)
        (folder / name).write_bytes(data)
        prepared = prepare_files([folder / name], folder / "work")
        return prepared.paths[0].read_bytes().decode(), prepared.decode_errors

    return write_and_prepare


@pytest.fixture
def only_utf8(monkeypatch):
    """Take any file for UTF-8, perhaps a damaged one."""
    monkeypatch.setattr(files_module, "recognise", lambda lines: None)


def count_runs(data):
    """Count runs of bytes that are not valid UTF-8, and replace them, in one piece."""
    text = data.decode("utf-8", "surrogateescape")
    repaired, runs, inside = [], 0, False
    for c in text:
        bad = "\udc80" <= c <= "\udcff"
        runs += bad and not inside
        if not (bad and inside):
            repaired.append("\ufffd" if bad else c)
        inside = bad
    return "".join(repaired), runs


def test_a_valid_file_is_linked_not_copied(tmp_path):
    (tmp_path / "a.txt").write_text("ดี\n", encoding="utf-8")
    (tmp_path / "w").mkdir()
    prepared = prepare_files([tmp_path / "a.txt"], tmp_path / "w")
    assert prepared.paths[0].is_symlink()
    assert (prepared.kind, prepared.decode_errors, prepared.paths[0].name) == ("text", 0, "00000000.txt")


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_is_used_and_removed(prepare, mark, encoding, packed):
    data = mark + "é ดี 😀\r\nx".encode(encoding)
    assert prepare(gzip.compress(data, mtime=0) if packed else data, "a.txt.gz" if packed else "a.txt") == ("é ดี 😀\r\nx", 0)


@pytest.mark.parametrize(
    ("data", "text", "errors"),
    [
        ("naïve crème brûlée, ".encode() + "café déjà".encode("latin-1"), "naïve crème brûlée, caf\ufffd d\ufffdj\ufffd", 3),
        (b"a\xff\xfe\xfdb\xff", "a\ufffdb\ufffd", 2),
        (b"\xe0\xb8", "\ufffd", 1),  # half a Thai letter at the end
        (b"\xed\xa0\x80", "\ufffd", 1),  # a surrogate
        (b"\xef\xbb\xbfa\xff", "a\ufffd", 1),
        (codecs.BOM_UTF16_LE + b"a\0\0\xd8b\0x", "a\ufffdb\ufffd", 2),  # half a pair, half a character
    ],
)
def test_decode_errors_are_replaced_and_counted(prepare, data, text, errors):
    assert prepare(data) == (text, errors)


@given(st.binary(max_size=40), st.integers(1, 7))
@settings(max_examples=300, deadline=None)
def test_runs_are_counted_alike_wherever_a_chunk_ends(tmp_path_factory, data, chunk):
    data = data.replace(b"\0", b"\xc3").removeprefix(codecs.BOM_UTF8) + b"."
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = b"." + data
    folder = tmp_path_factory.mktemp("f")
    (folder / "a.txt").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files_module, "recognise", lambda lines: None)
        patch.setattr(files_module, "_CHUNK", max(chunk, 4))  # a mark of 4 bytes is looked for in the first chunk
        prepared = prepare_files([folder / "a.txt"], folder)
    assert (prepared.paths[0].read_bytes().decode(), prepared.decode_errors) == count_runs(data)
    shutil.rmtree(folder)


@pytest.mark.parametrize("shift", range(-3, 3))
def test_across_the_real_chunk_boundary(prepare, only_utf8, shift):
    for middle, errors in ((b"\xff\xff\xff\xff", 1), ("😀ดี".encode(), 0), (b"\xff a \xff", 2)):
        data = b"a" * ((1 << 20) + shift) + middle + b"b\n"
        assert prepare(data) == (data.decode("utf-8", "replace") if not errors else count_runs(data)[0], errors)


@pytest.mark.parametrize("data", [b"PK\x03\x04\0\0", random.Random(0).randbytes(3000), b"text" + b" " * (1 << 20) + b"\0"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a", "a.txt.gz"])
def test_a_binary_file(prepare, data, name):
    with pytest.raises(DataError, match=r"is a binary file, not text\. Supported formats are \.txt, .*, each also gzipped\.$"):
        prepare(gzip.compress(data, mtime=0) if name.endswith(".gz") else data, name)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json", "a.parquet", "a.jsonl.gz", "a.parquet.gz"])
def test_an_empty_file(prepare, name):
    with pytest.raises(DataError, match=r"is empty\.$"):
        prepare(gzip.compress(b"", mtime=0) if name.endswith(".gz") else b"", name)
    if name.endswith(".gz"):
        with pytest.raises(DataError, match=r"is empty\.$"):
            prepare(b"", name)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE])
def test_a_byte_order_mark_and_nothing_after_it(prepare, mark):
    with pytest.raises(DataError, match=r"is empty\.$"):
        prepare(mark)


PACKED = gzip.compress(b"".join(b"%d line\n" % number for number in range(1000)), mtime=0)


@pytest.mark.parametrize(
    "data",
    [
        b"no gzip",
        PACKED[:-12],
        PACKED[:5],
        PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
        PACKED[:20] + b"\xff\xff\xff\0\x11" * 4 + PACKED[40:],
    ],
)
@pytest.mark.parametrize("name", ["a.txt.gz", "a.parquet.gz"])
def test_a_damaged_gzip_file(prepare, data, name):
    with pytest.raises(DataError, match=r"^[^\n]*a\.[a-z]+\.gz (cannot be read: [^\n]*[^.]|is not a parquet file)\.$"):
        prepare(data, name)


def test_empty_files_among_others_are_skipped(tmp_path):
    for name, text in (("a.txt", ""), ("b.txt", "x\n"), ("c.txt", "")):
        (tmp_path / name).write_text(text)
    (tmp_path / "w").mkdir()
    assert len(prepare_files(find_files(tmp_path / "*.txt"), tmp_path / "w").paths) == 1
    (tmp_path / "w2").mkdir()
    with pytest.raises(DataError, match="All 2 files are empty"):
        prepare_files([tmp_path / "a.txt", tmp_path / "c.txt"], tmp_path / "w2")


def test_several_formats(tmp_path):
    for name in ("a.txt", "b.csv", "c.jsonl"):
        (tmp_path / name).write_text("x\n")
    with pytest.raises(DataError, match=r"several formats \(csv, json, text\); pass files of one format"):
        prepare_files(find_files(tmp_path / "?.*"), tmp_path)


def test_find_files(tmp_path):
    for name in ("b.txt", "a.txt", "c.csv", "sub/d.txt", "e[1].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.txt").mkdir()
    assert find_files(tmp_path / "e[1].txt") == [tmp_path / "e[1].txt"]
    assert [path.name for path in find_files(str(tmp_path / "*.txt"))] == ["a.txt", "b.txt", "e[1].txt"]
    assert [path.name for path in find_files(str(tmp_path / "**/*.txt"))] == ["a.txt", "b.txt", "e[1].txt", "d.txt"]


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("x")
    assert find_files("~/a.txt") == find_files("~/*.txt") == [tmp_path / "a.txt"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none.txt", r"There is no file .*none\.txt\. Check the name, or give a glob"),
        ("none/*.txt", r"No file matches .*none/\*\.txt\."),
        (".", r"is a folder\. Name its files with a glob, as in '.*/\*\.txt'"),
        ("x" * 300, r"cannot be read as a file: File name too long"),
        ("~no-such-user/a.txt", "home folder of a user who does not exist on this machine"),
        ("a\0b", "There is no file"),
        ("", "The source is an empty string"),
    ],
)
def test_what_cannot_be_found(tmp_path, monkeypatch, pattern, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        find_files(pattern)


@pytest.mark.parametrize("name", ["a.txt", "a.CSV", "x/a.b.jsonl.gz", "a.NDJSON", "a.parquet.GZ", "a.tsv", "a.json"])
def test_data_suffixes(name):
    assert has_data_suffix(name)


@pytest.mark.parametrize("name", ["a", "owner/name", "a.gz", "a.zip", "txt", ".txt", "owner/name-1.5"])
def test_other_suffixes(name):
    assert not has_data_suffix(name)
