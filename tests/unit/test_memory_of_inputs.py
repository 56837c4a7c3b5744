"""Inputs that are far larger than any real one are refused, or streamed, in bounded memory; measured in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reviewgen.data.json_records import read_records
from reviewgen.data.parquet import read_table
from reviewgen.data.sources import open_texts
from reviewgen.errors import DataError

MEGABYTE = 1 << 20
MAX_MEGABYTES = 160  # over the imports; prompts may have 64 MB, which are held as bytes and as a text

SCRIPT = """
import json, resource, sys
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
    write_checkpoints(folder / "a.run")
    for name in ("sparse", "finished.run/saved.json", "finished/training.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
        os.truncate(folder / name, 3 << 30)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=False, timeout=300)
    for name in ("array.json", "string.json", "lines.jsonl", "values.json", "plain.parquet"):
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
