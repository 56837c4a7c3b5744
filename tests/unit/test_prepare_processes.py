"""Several processes prepare one store: as one process does, byte for byte; and none waits in vain for another."""

import json
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from tests.unit.fakes import launcher
from tests.unit.test_prepare import files_of, texts

SCRIPT = """
import contextlib, io, json, os, signal, sys, time
from reviewgen.cli import main
from reviewgen.data import spans
from reviewgen.errors import ReviewgenError
from reviewgen.preparation import duplicates, prepare, reading, rounds, run

rank, alone = int(os.environ.get("RANK", "0")), "RANK" not in os.environ
spans._MIN_BYTES, reading._PART_BYTES, duplicates._BUCKET_TEXTS, reading._MAX_PARTS = 1, 1 << 12, 50, 30
facts, parts, clean = {}, [], run._clean

def counted(*arguments):
    parts.append(arguments[-1])
    if not alone and rank == 0 and sys.argv[1] != "killed":
        time.sleep(0.01)  # a slow process
    if sys.argv[1] == "killed" and rank == 1 and len(parts) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return clean(*arguments)

run._clean = counted
rounds.SECONDS = 0.1

def prepared(name, source, **options):
    parts.clear()
    try:
        prepare.prepare_store(source, "gru-char", f"{'one' if alone else 'many'}/{name}", **options)
        facts[name] = {"error": None, "parts": list(parts)}
    except ReviewgenError as error:
        facts[name] = {"error": f"{type(error).__name__}: {error}"}

def command(name, source, *options):
    sys.argv[1:] = ["prepare", source, "--preset", "gru-char", "--out", f"many/{name}", *options]
    with contextlib.redirect_stderr(io.StringIO()) as problem:
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code
    facts[name] = {"status": status, "stderr": problem.getvalue()}

if sys.argv[1] in ("killed", "resumed"):
    alone = False
    prepared("killed", "*.txt")
    sys.exit()
prepared("txt", "*.txt")
prepared("parquet", "rows.parquet", conditions=["stars"], decontaminate=30)
prepared("small", "small.txt")
prepared("list", [f"a review, number {number}" for number in range(200)])
if not alone:
    command("broken", "[12].csv")
    command("different", "*.txt", *["--lowercase"][:rank])
    command("unknown", "*.txt", *["--near-duplicates", "7"][: 2 * (rank == 2)])
    with open(f"facts.{rank}.json", "w") as file:
        json.dump(facts, file)
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the script in one process and in three, once for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prepared"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _write_sources(folder)
            for command in (launcher(3), launcher(1)[:1]):
                done = _run([*command, "script.py", "all"], folder)
                assert done.returncode == 0, done.stderr
    facts = [json.loads((folder / f"facts.{rank}.json").read_text()) for rank in range(3)]
    return SimpleNamespace(folder=folder, facts=facts)


def _run(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "REVIEWGEN_CACHE": str(folder / "cache")}
    return subprocess.run(command, cwd=folder, env=os.environ | own, capture_output=True, text=True, timeout=180)


def _write_sources(folder: Path) -> None:
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    rows = texts(900)
    (folder / "a.txt").write_text("\n".join(rows[:700]), encoding="utf-8")  # large: it is cut
    (folder / "b.txt").write_text("\n".join(rows[600:]), encoding="utf-8")
    (folder / "small.txt").write_text("\n".join(rows[:20]), encoding="utf-8")
    table = pa.table({"text": rows, "stars": [len(row) % 5 for row in rows]})
    pq.write_table(table, folder / "rows.parquet", row_group_size=50, compression="none")
    for number in (1, 2):
        lines = [f"{len(row)},{row}" for row in rows[:300]] + ["1,2,3"] * (number - 1)
        (folder / f"{number}.csv").write_text("stars,text\n" + "\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("name", ["txt", "parquet", "small", "list"])
def test_three_processes_make_what_one_makes(name: str, launched: Any) -> None:
    one, many = (files_of(launched.folder / which / name) for which in ("one", "many"))
    assert one == many
    assert not (launched.folder / f"many/{name}.partial").exists()
    shared = [facts[name]["parts"] for facts in launched.facts]
    assert all(facts[name]["error"] is None for facts in launched.facts)
    if name in ("txt", "parquet"):
        every = [part for parts in shared for part in parts]
        assert sorted(every) == list(range(len(every))) and len(every) > 8 and all(shared)
    if name == "small":  # nothing was left for two of them
        assert sorted(map(len, shared)) == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("broken", "2.csv cannot be read: line 302"), ("different", "different settings: reading"), ("unknown", "from 0.3 to 1")],
)
def test_one_process_says_what_is_wrong_and_all_exit_with_status_1(name: str, problem: str, launched: Any) -> None:
    assert [facts[name]["status"] for facts in launched.facts] == [1, 1, 1]
    said = [facts[name]["stderr"] for facts in launched.facts if "error:" in facts[name]["stderr"]]
    assert len(said) == 1 and problem in said[0]
    assert "Traceback" not in "".join(facts[name]["stderr"] for facts in launched.facts)
    assert not (launched.folder / "many" / name).exists()


def test_a_process_that_is_killed_ends_all_and_the_same_command_goes_on(launched: Any) -> None:
    start = time.monotonic()
    done = _run([*launcher(2), "script.py", "killed"], launched.folder)
    assert done.returncode != 0 and time.monotonic() - start < 120  # most of it, the start of three Python processes
    assert not (launched.folder / "many/killed").exists()
    assert len(list((launched.folder / "many/killed.partial/texts").iterdir())) >= 2
    done = _run([*launcher(1)[:1], "script.py", "resumed"], launched.folder)
    assert done.returncode == 0, done.stderr
    assert files_of(launched.folder / "many/killed") == files_of(launched.folder / "one/txt")
