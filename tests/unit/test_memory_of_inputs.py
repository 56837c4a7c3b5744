"""Inputs that are far larger than any real one are refused, or streamed, in bounded memory; measured in a process of its own."""

import base64
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow.parquet import encryption

from reviewgen.data.json_records import read_records
from reviewgen.data.parquet import read_table
from reviewgen.data.parquet_pages import Page, max_bytes, read_pages
from reviewgen.data.sources import open_texts
from reviewgen.errors import DataError

MEGABYTE = 1 << 20
LONG_CELL = 60  # megabytes
# Over the imports; prompts may have 64 MB, which are held as bytes and as a text. Torch for CUDA takes 80 MB more.
MAX_MEGABYTES = 160 if torch.version.cuda is None else 240

SCRIPT = """
import itertools, json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # a failure is a MemoryError, and harms nobody else
import numpy, pyarrow.parquet, reviewgen.search.study, reviewgen.runs.finished, reviewgen.cli.sampling
from reviewgen.data import documents
from reviewgen.data.json_lines import read_objects
from reviewgen.data.json_records import read_records
from reviewgen.data.parquet import read_table
from reviewgen.errors import ReviewgenError
from reviewgen.search.space import Range
from reviewgen.training import Checkpoints

folder = Path(sys.argv[1])
documents.MAX_FILE_CHARACTERS = 10_000_000

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024

def checkpoint():
    checkpoints = Checkpoints(folder / "a.run", 0.0, 2)
    checkpoints.open()
    checkpoints.load()
    return checkpoints.seconds, *checkpoints.pop_notes()

cases = {
    "array": lambda: sum(len(record["text"]) for record in read_records(folder / "array.json", "array.json")),
    "string": lambda: list(read_records(folder / "string.json", "string.json", 1_000_000)),
    "brackets": lambda: list(read_records(folder / "brackets.json", "brackets.json")),
    "values": lambda: list(read_records(folder / "values.json", "values.json")),
    "lines": lambda: list(read_objects(folder / "lines.jsonl", "lines.jsonl")),
    "packed cell": lambda: list(read_table(folder / "packed.parquet", "packed.parquet")),
    "cell": lambda: list(read_table(folder / "plain.parquet", "plain.parquet")),
    "document": lambda: list(documents.read_texts(folder / "string.json", "file")),
    "checkpoint": checkpoint,
    "search": lambda: reviewgen.search.study.Study({"a": Range(0.0, 1.0, False)}, 0, {}, 1, folder / "sparse"),
    "prompts": lambda: reviewgen.cli.sampling.read_prompts("", folder / "sparse"),
    "finished run": lambda: reviewgen.runs.finished.discard_finished(folder / "finished"),
    "page": lambda: list(read_table(folder / "page.parquet", "page.parquet")),
    "repeated cell": lambda: sum(1 for _ in itertools.islice(read_table(folder / "repeated.parquet", "repeated.parquet"), 500)),
    "one long cell": lambda: list(read_table(folder / "one_long.parquet", "one_long.parquet")),
}
before = peak()
for name, read in cases.items():
    try:
        said = read()
    except ReviewgenError as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps([name, said, peak() - before]), flush=True)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, int]]:
    """Read each odd file in one process; return what was said, and the peak of memory over the imports so far in MB."""
    folder = tmp_path_factory.mktemp("large")
    write_json(folder)
    cell = pa.table({"text": ["x" * (100 * MEGABYTE), "ab"]})
    pq.write_table(cell, folder / "packed.parquet", compression="zstd", use_dictionary=False)
    pq.write_table(cell, folder / "plain.parquet", compression="none", use_dictionary=False, write_statistics=False)
    write_pages(folder)
    write_checkpoints(folder / "a.run")
    for name in ("sparse", "finished.run/saved.json", "finished/training.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
        os.truncate(folder / name, 3 << 30)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=False, timeout=300)
    for name in ("array.json", "string.json", "lines.jsonl", "values.json", *(file.name for file in folder.glob("*.parquet"))):
        (folder / name).unlink()
    assert done.returncode == 0, done.stderr
    return {name: (said, peak) for name, said, peak in map(json.loads, done.stdout.splitlines())}


def write_json(folder: Path) -> None:
    record = json.dumps({"text": "x" * 10_000, "stars": 4.5})
    for name, start, piece, times, end in (
        ("array.json", "[" + record, ", " + record, 10_000, "]"),
        ("string.json", '["', "x" * MEGABYTE, 50, '"]'),
        ("brackets.json", "", "[" * MEGABYTE, 10, ""),
        ("lines.jsonl", '{"text": "a"}\n{"a": [', "[]," * MEGABYTE, 10, "0]}"),
        ("values.json", '{"a": [', "[]," * MEGABYTE, 10, ""),
    ):
        with (folder / name).open("w") as file:
            file.write(start)
            for _ in range(times):
                file.write(piece)
            file.write(end)


def write_pages(folder: Path) -> None:
    """Write one long text among short ones, in pages of a common size and in one page; and one that many rows refer to."""
    noise = random.Random(0).randbytes(3 * MEGABYTE // 4)
    text = base64.b64encode(noise).decode()  # of a megabyte, which is packed into three quarters of it
    texts = ["short"] * 50_000 + ["".join(text[start:] + text[:start] for start in range(LONG_CELL))] + ["short"] * 50_000
    pq.write_table(pa.table({"text": texts}), folder / "one_long.parquet", compression="zstd", use_dictionary=False)
    pq.write_table(
        pa.table({"text": [text] * 300}),
        folder / "page.parquet",
        compression="none",
        use_dictionary=False,
        data_page_size=1 << 30,
        write_batch_size=1000,
    )
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), [text * 9])
    pq.write_table(
        pa.table({"text": repeated}), folder / "repeated.parquet", compression="none", dictionary_pagesize_limit=1 << 30
    )


def write_checkpoints(folder: Path) -> None:
    """Write two checkpoints, and damage the newer one: its tensors take half a gigabyte."""
    from reviewgen.training import Checkpoints

    checkpoints = Checkpoints(folder, 60.0, 2)
    checkpoints.open()
    for step in (1, 2):
        checkpoints.save(step, {"seconds": float(step)})
    checkpoints.close()
    os.truncate(folder / "step-00000002" / "state.safetensors", 1 << 29)


SAID = {
    "string": "DataError: Record 1 of string.json has more than 1,000,000 characters",
    "brackets": "brackets.json cannot be read: JSON parse error in the first record: it is nested more than 64 levels deep.",
    "values": "DataError: values.json cannot be read: record 1 has more than 4,000,000 values.",
    "lines": "DataError: lines.jsonl cannot be read: line 2 has more than 4,000,000 values.",
    "packed cell": "DataError: packed.parquet unpacks to more than 100 times its size in the column 'text': no text does.",
    "cell": "DataError: On average, a value of the column 'text' of plain.parquet has more than 10,000,000 characters",
    "page": "DataError: page.parquet has a page of 314,574,",
    "one long cell": "DataError: A value of the column 'text' of one_long.parquet has more than 10,000,000 characters, the limit",
    "document": "string.json has more than 10,000,000 characters, the limit for one text",
    "search": "holds no search that can be read",
    "prompts": "cannot be read: it is larger than 64 MB.",
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_is_one_sentence_in_little_memory(results: dict[str, tuple[object, int]]) -> None:
    assert results["array"][0] == 10_001 * 10_000
    assert results["checkpoint"][0] == [1.0, "The checkpoint of step 2 is damaged; that of step 1 is used."]
    assert results["finished run"][0] is False
    for name, said in SAID.items():
        assert said in str(results[name][0])
    peaks = {name: peak for name, (_, peak) in results.items()}
    assert peaks["array"] < 20, peaks
    assert results["repeated cell"][0] == 500
    long_cells = [peaks.pop(name) for name in ("one long cell", "repeated cell")]  # the last ones
    assert max(long_cells) < MAX_MEGABYTES + 5 * LONG_CELL, long_cells
    assert max(peaks.values()) < MAX_MEGABYTES, peaks


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1.5, "b": "x"}, {"a": 12345678901234567890123}]',
        '{"a": 1}\n\n{"a": [1, 2]}',
        '["a", "\\u00e9\\ud83d\\ude00"]',
        "[]",
    ],
)
def test_records_are_those_of_the_json_module(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding="utf-8")
    expected = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.split("\n\n")]
    assert list(read_records(file, "a.json")) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1}, {"a": 2}', "after record 2: premature EOF."),
        ('{"a": 1}\noops', "after record 1: invalid char in json text."),
        ('{"a": NaN}', "in the first record: JSON has no NaN; write null instead."),
    ],
)
def test_the_place_of_an_error(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="JSON parse error") as caught:
        list(read_records(file, "a.json"))
    assert str(caught.value).endswith(said)


def test_long_rows_are_read_few_at_a_time(tmp_path: Path) -> None:
    rows = [{"text": chr(97 + number % 26) * 100_000, "n": number} for number in range(2_000)]
    pq.write_table(
        pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=700, use_dictionary=False, compression="none"
    )
    assert list(read_table(tmp_path / "a.parquet", "a.parquet", ["n"])) == [{"n": row["n"]} for row in rows]
    assert list(read_table(tmp_path / "a.parquet", "a.parquet", span=(1, 2))) == rows[700:1400]


def test_a_column_that_the_first_records_leave_out(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"text": f"text {number}"} | ({"stars": 5} if number > 500 else {}) for number in range(700)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stream = open_texts(file, Path(tempfile.mkdtemp(dir=tmp_path)), conditions=["stars"])
    assert list(stream.examples) == [(row["text"], [row.get("stars")]) for row in rows]


def test_the_pages_that_a_run_of_rows_touches() -> None:
    """By brute force: each page as often as it has values, and every run of rows."""
    draw = random.Random(0)
    for _ in range(300):
        pages = [Page(False, draw.randrange(100), draw.randrange(1, 6)) for _ in range(draw.randrange(1, 8))]
        pages.append(Page(True, draw.randrange(100), 3))
        owners = [number for number, page in enumerate(pages[:-1]) for _ in range(page.values)]
        for rows in (1, 2, 5, 9):
            runs = [set(owners[first : first + rows]) for first in range(len(owners))]
            longest = max(sum(pages[number].size for number in run) for run in runs)
            assert max_bytes(pages, rows, pages[-1].size) == longest + rows * pages[-1].size


@pytest.mark.parametrize("options", [{}, {"data_page_version": "2.0"}, {"use_dictionary": False, "compression": "none"}])
def test_pages_are_those_of_the_file(tmp_path: Path, options: dict[str, object]) -> None:
    """Their values are the rows, their sizes the metadata's."""
    texts = [f"text {number} " + "x" * (number % 5_000) for number in range(20_000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", **options)
    column = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    with (tmp_path / "a.parquet").open("rb") as file:
        pages = list(read_pages(file, start, column.total_compressed_size))
    data = [page for page in pages if not page.is_dictionary]
    assert len(pages) - len(data) == (column.dictionary_page_offset is not None)
    assert sum(page.values for page in data) == len(texts)
    assert 0.9 * column.total_uncompressed_size < sum(page.size for page in pages) <= column.total_uncompressed_size
    assert [row["text"] for row in read_table(tmp_path / "a.parquet", "a.parquet")] == texts


@pytest.mark.parametrize("texts", [[], ["a", "b"]])
def test_row_groups_without_rows_are_skipped(tmp_path: Path, texts: list[str]) -> None:
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "a.parquet", schema) as writer:
        for part in ([], texts, []):
            writer.write_table(pa.table({"text": part}, schema))
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3
    assert [row["text"] for row in read_table(tmp_path / "a.parquet", "a.parquet", ["text"])] == texts


def test_a_large_dictionary_of_short_texts_is_read_at_full_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest text decides how many rows are read at a time, not the dictionary, of a column with a dot in its name, too."""
    texts = [f"text {number} " + "x" * 100 for number in range(3_000)]
    pq.write_table(pa.table({"the.text": texts, "n": range(3_000)}), tmp_path / "a.parquet")
    sizes, read = [], pq.ParquetFile.iter_batches

    def record(file: pq.ParquetFile, size: int, **options: Any) -> Any:
        sizes.append(size)
        return read(file, size, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", record)
    assert [row["the.text"] for row in read_table(tmp_path / "a.parquet", "a.parquet", ["the.text"])] == texts
    assert sizes == [1, 1024]


def test_a_long_text_of_a_column_with_a_dot_in_its_name_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"the.text": ["x" * 5_000]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"On average, a value of the column 'the\.text' of a\.parquet has more than 1,000"):
        list(read_table(tmp_path / "a.parquet", "a.parquet", ["the.text"], limit=1_000))


class _Keys(encryption.KmsClient):
    def wrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64decode(key)


@pytest.mark.parametrize("plaintext_footer", [False, True])
def test_an_encrypted_file_is_one_sentence(tmp_path: Path, plaintext_footer: bool) -> None:
    """pyarrow aborts the process when it is asked for the size of an encrypted column."""
    factory = encryption.CryptoFactory(lambda _: _Keys())
    settings = encryption.EncryptionConfiguration("key", column_keys={"key": ["text"]}, plaintext_footer=plaintext_footer)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    table = pa.table({"text": ["a", "b"], "n": [1, 2]})
    pq.write_table(table, tmp_path / "a.parquet", encryption_properties=properties)
    read = "import pathlib, sys; from reviewgen.data.sources import open_texts; file = sys.argv[1]; "
    read += "list(open_texts(file, pathlib.Path(file).parent).examples)"
    done = subprocess.run([sys.executable, "-c", read, str(tmp_path / "a.parquet")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"^reviewgen\.errors\.DataError: .*a\.parquet .*encrypted", done.stderr, re.MULTILINE)


def test_a_damaged_page_header_is_one_sentence(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet", use_dictionary=False, compression="none")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    for header in (b"\x00", b"\xff" * 12, b"\x1c" * 40, b"\x15" + b"\x80" * 12):
        content[4 : 4 + len(header)] = header
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.parquet cannot be read: the column 'text' is damaged \(a page header"):
            list(read_table(tmp_path / "a.parquet", "a.parquet"))
