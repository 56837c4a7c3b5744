"""Bounded memory: what is far larger than any real input is streamed or refused; settings are read within bounds."""

import gzip
import json
import os
import sys
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reviewgen.config import MAX_DEPTH, MAX_SETTINGS, parse_json, read_json, read_text
from tests.support.forked import run_python
from tests.support.texts import refusal

MEGABYTE = 1 << 20


@pytest.mark.slow
def test_long_lines_and_files_that_unpack_to_much_are_not_held_in_memory(tmp_path):
    with (tmp_path / "a.txt").open("wb") as stream:
        for _ in range(60):
            stream.write(b"abcd efg" * (1 << 17))
    for name in ("bomb.txt.gz", "bomb.csv.gz", "bomb.jsonl.gz"):
        with gzip.open(tmp_path / name, "wb", compresslevel=1) as stream:
            for _ in range(80):
                stream.write(b"a" * MEGABYTE)
    for file, said in (("a.txt", "Line 1 of"), *((f"bomb.{kind}.gz", "100 times its size") for kind in ("txt", "csv", "jsonl"))):
        tracemalloc.start()
        try:
            assert said in refusal(tmp_path / file)
            assert tracemalloc.get_traced_memory()[1] < 60 * MEGABYTE
        finally:
            tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_array_and_a_parquet_file_are_read_in_little_memory(tmp_path):
    record = json.dumps({"text": "x" * 10_000, "stars": 4.5})
    with (tmp_path / "array.json").open("w") as file:
        file.write("[" + ", ".join([record] * 10) + "".join([f", {record}"] * 9_990) + "]")
    rows = pa.table({"text": [chr(97 + n % 26) * 20_000 + str(n) for n in range(5_000)]})
    pq.write_table(rows, tmp_path / "a.parquet", compression="none", use_dictionary=False, row_group_size=2_500)
    script = """if True:
        import tempfile, ijson, pyarrow.parquet
        from pathlib import Path
        from reviewgen.data import DataConfig, read_examples
        def peak():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024
        before = peak()
        for name in ("array.json", "a.parquet"):
            with tempfile.TemporaryDirectory() as folder:
                examples = read_examples(name, Path(folder), DataConfig(clean=False))
                print(sum(len(text) for text, _ in examples), peak() - before)
    """
    done = run_python(["-c", script], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [characters for characters, _ in lines] == [10_000 * 10_000, 20_000 * 5_000 + 18_890]
    assert lines[0][1] < 60 and lines[1][1] < 300, lines  # megabytes; each file has 100


# Settings.


def test_text_is_what_open_reads(tmp_path):
    file = tmp_path / "a.txt"
    for content in (b"a\r\nb\rc\n", "\ufeffx".encode(), b"", "\u0e14\ud83d".encode("utf-8", "replace")):
        file.write_bytes(content)
        assert read_text(file) == file.read_text(encoding="utf-8")
        assert read_text(file, encoding="utf-8-sig") == file.read_text(encoding="utf-8-sig")


def test_a_file_of_settings_has_a_limit_and_a_sparse_one_is_not_read_into_memory(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"x" * MAX_SETTINGS)
    assert len(read_text(file)) == MAX_SETTINGS
    tracemalloc.start()
    try:
        for size in (MAX_SETTINGS + 1, 3 << 30):
            os.truncate(file, size)
            for read in (read_text, read_json):
                with pytest.raises(ValueError, match="larger than 1 MB"):
                    read(file)
        assert tracemalloc.get_traced_memory()[1] < 8 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_nesting_and_numbers_of_settings_have_limits():
    for start, end, inside in (
        ("[", "]", "1"),
        ("[", "]", ""),
        ("[", "]", '"]["'),
        ('{"a":', "}", "null"),
        ('[{"a":', "}]", "1"),
    ):
        deepest = MAX_DEPTH // (start.count("[") + start.count("{"))
        text = start * deepest + inside + end * deepest
        assert parse_json(text) == json.loads(text)
        for times in (deepest + 1, 985, 100_000):
            with pytest.raises(ValueError, match="nested more than 64 levels"):
                parse_json(start * times + inside + end * times)
    for number in ("NaN", "Infinity", "-Infinity", "1e400", "-1e999", "9" * 101, "-" + "9" * 400):
        with pytest.raises(ValueError, match=r"not finite|digits"):
            parse_json(f'{{"a": [{number}]}}')
    for number in ("0", "-5", "1e300", "1e-320", "9" * 100, "0.1"):
        assert parse_json(number) == json.loads(number)
    with pytest.raises(ValueError, match="more than 4,000,000 values"):
        parse_json("[" + "[]," * 2_000_001 + "1]")
