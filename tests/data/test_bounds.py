"""Bounded memory: what is far larger than any real input is streamed or refused; settings are read
within bounds.
"""

import json
import os
import tracemalloc

import pytest

from reviewgen.config import MAX_DEPTH, MAX_SETTINGS, parse_json, read_json, read_text

MEGABYTE = 1 << 20


def test_a_file_of_settings_has_a_limit_and_a_sparse_one_is_not_read_into_memory(tmp_path):
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
    for start, end, inside in (("[", "]", '"]["'), ('[{"a":', "}]", "1")):
        deepest = MAX_DEPTH // (start.count("[") + start.count("{"))
        text = start * deepest + inside + end * deepest
        assert parse_json(text) == json.loads(text)
        for times in (deepest + 1, 985, 100_000):
            with pytest.raises(ValueError, match="nested more than 64 levels"):
                parse_json(start * times + inside + end * times)
    for number in ("NaN", "Infinity", "-Infinity", "1e400", "-1e999", "9" * 101, "-" + "9" * 400):
        with pytest.raises(ValueError, match=r"not finite|digits"):
            parse_json(f'{{"a": [{number}]}}')
    with pytest.raises(ValueError, match="more than 4,000,000 values"):
        parse_json("[" + "[]," * 2_000_001 + "1]")
