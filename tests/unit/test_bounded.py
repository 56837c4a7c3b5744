"""Reading text and JSON within bounds of size, nesting and digits."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from reviewgen.config import MAX_DEPTH, MAX_SETTINGS, parse_json, read_json, read_text


@pytest.mark.parametrize("content", [b"a\r\nb\rc\n", "\ufeffx".encode(), b"", "\u0e14\ud83d".encode("utf-8", "replace")])
def test_text_is_what_open_reads(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    assert read_text(file) == file.read_text(encoding="utf-8")
    assert read_text(file, encoding="utf-8-sig") == file.read_text(encoding="utf-8-sig")


def test_a_sparse_file_is_not_read_into_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.touch()
    os.truncate(file, 3 << 30)
    tracemalloc.start()
    try:
        for read in (read_text, read_json):
            with pytest.raises(ValueError, match="larger than 1 MB"):
                read(file)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_the_limit_is_inclusive(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"x" * MAX_SETTINGS)
    assert len(read_text(file)) == MAX_SETTINGS
    file.write_bytes(b"x" * (MAX_SETTINGS + 1))
    with pytest.raises(ValueError, match="larger"):
        read_text(file)


@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
@pytest.mark.parametrize("inside", ["1", "", '"]["'])
def test_nesting(start: str, end: str, inside: str) -> None:
    inside = inside or ("null" if ":" in start else "")
    each = start.count("[") + start.count("{")
    deepest = MAX_DEPTH // each
    text = start * deepest + inside + end * deepest
    assert parse_json(text) == json.loads(text)
    for times in (deepest + 1, 985, 100_000):
        with pytest.raises(ValueError, match="nested more than 64 levels"):
            parse_json(start * times + inside + end * times)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e999", "9" * 101, "-" + "9" * 400])
def test_numbers_that_no_setting_has(number: str) -> None:
    with pytest.raises(ValueError, match=r"not finite|digits"):
        parse_json(f'{{"a": [{number}]}}')


@pytest.mark.parametrize("number", ["0", "-5", "1e300", "1e-320", "9" * 100, "0.1"])
def test_numbers_that_are_read_as_json_reads_them(number: str) -> None:
    assert parse_json(number) == json.loads(number)


def test_many_values() -> None:
    with pytest.raises(ValueError, match="more than 4,000,000 values"):
        parse_json("[" + "[]," * 2_000_001 + "1]")
