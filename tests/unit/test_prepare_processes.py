"""Several processes prepare one store: as one process does, byte for byte; and none waits in vain for another."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reviewgen
from reviewgen.preparation.prepare import prepare_store
from tests.support.forked import run_python
from tests.support.launches import launch, made_once
from tests.support.loopback_hub import LoopbackHub
from tests.unit.test_prepare import SMALL as TRAINING
from tests.unit.test_prepare import facts_of, files_of, texts, write_csv

SMALL = {
    "reviewgen.data.spans._MIN_BYTES": 1,
    "reviewgen.preparation.reading._PART_BYTES": 1 << 12,
    "reviewgen.preparation.reading._MAX_PARTS": 30,
    "reviewgen.preparation.duplicates._BUCKET_TEXTS": 50,
    "reviewgen.training.rounds.SECONDS": 0.1,
}
SOURCES: dict[str, tuple[Any, dict[str, Any]]] = {
    "txt": ("*.txt", {}),
    "parquet": ("rows.parquet", {"conditions": ["stars"], "decontaminate": 30}),
    "small": ("small.txt", {}),
    "csv": ("rows.csv", {}),
    "jsonl": ("rows.jsonl", {"conditions": ["stars"]}),
    "list": ([f"a review, number {number}" for number in range(200)], {}),
    "near": ("more/near.txt", {"near_duplicates": 0.8}),
    "second": ("a.txt", {"validation": "b.txt"}),
    "words": ("*.txt", {"preset": "gru-word", "tokenizer": {"vocab_size": 400}}),
    "paragraphs": ("more/paragraphs.txt", {"documents": "paragraph"}),
    "book": ("a.txt", {"documents": "file"}),
}
"""The sources of the stores, and the options that read them; of gru-char, unless they name another preset."""

SCRIPT = """
import contextlib, errno, importlib, io, json, os, signal, sys, time
import reviewgen
from reviewgen.cli import main
from reviewgen.errors import ReviewgenError
from reviewgen.preparation import job, prepare, run

rank, (small, sources, training) = int(os.environ["RANK"]), json.load(open("settings.json"))
for name, value in small.items():
    module, _, attribute = name.rpartition(".")
    setattr(importlib.import_module(module), attribute, value)
facts, parts, clean, store = {}, [], run._clean, ""

def counted(*arguments):
    parts.append(arguments[-1])
    if rank == 0 and store != "killed":
        time.sleep(0.01)  # a slow process
    if rank == 1 and store == "killed" and len(parts) == 3:
        with open("killed.json", "w") as file:
            json.dump(time.time(), file)
        os.kill(os.getpid(), signal.SIGKILL)
    return clean(*arguments)

run._clean = counted

def fails(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def prepared(name, source, **options):
    global store
    store = name
    parts.clear()
    try:
        prepare.prepare_store(source, options.pop("preset", "gru-char"), f"many/{name}", **options)
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

@contextlib.contextmanager
def changed(on, module, name, value):
    before = getattr(module, name)
    if rank == on:
        setattr(module, name, value)
    yield
    setattr(module, name, before)

for name, (source, options) in sources.items():
    prepared(name, source, **options)
for name, source in (("store", "many/csv"), ("texts", "rows.csv")):
    model = reviewgen.train("gru-char", source, progress=False, **training)
    if rank == 0:
        model.save_pretrained(f"trained/{name}")
command("../many/txt", "*.txt")
command("broken", "[12].csv")
command("stdin", "-")
command("different", "*.txt", *["--lowercase"][:rank])
command("unknown", "*.txt", *["--near-duplicates", "7"][: 2 * (rank == 2)])
command("tokenizers", "*.txt", *["--preset", "gru-word"][: 2 * (rank == 1)])
with changed(1, job, "__version__", "0.0.1"):
    command("versions", "*.txt")
with changed(0, job, "source_digest", lambda *_: "other"):
    command("code", "*.txt")
with changed(2, run, "_clean", fails):
    command("full", "*.txt")
with open(f"facts.{rank}.json", "w") as file:
    json.dump(facts, file)
prepared("killed", "*.txt")
with open(f"lost.{rank}.json", "w") as file:
    json.dump(facts["killed"]["error"], file)
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the script in three processes, once for all workers of pytest-xdist; at its end, one of the processes is killed."""
    folder = made_once(tmp_path_factory, "prepared", _launch)
    status, ended, said = json.loads((folder / "launched.json").read_text())
    assert (folder / "facts.0.json").exists(), said
    facts = [json.loads((folder / f"facts.{rank}.json").read_text()) for rank in range(3)]
    return SimpleNamespace(folder=folder, facts=facts, status=status, ended=ended)


@pytest.fixture
def alone(launched: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Return a function that prepares one of the sources in this process; it returns the folder of the store."""
    monkeypatch.chdir(launched.folder)  # a store has the name of its source
    for name, value in SMALL.items():
        monkeypatch.setattr(name, value)

    def prepare(name: str, out: str) -> Path:
        source, options = SOURCES[name]
        return prepare_store(source, **{"preset": "gru-char", "out": out, **options}).folder

    return prepare


def _launch(folder: Path) -> None:
    _write_sources(folder)
    done = launch(3, folder, "script.py")
    (folder / "launched.json").write_text(json.dumps([done.returncode, time.time(), done.stderr]))


def _write_sources(folder: Path) -> None:
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps([SMALL, SOURCES, TRAINING]), encoding="utf-8")
    rows = texts(900)
    (folder / "a.txt").write_text("\n".join(rows[:700]), encoding="utf-8")  # large: it is cut
    (folder / "b.txt").write_text("\n".join(rows[600:]), encoding="utf-8")
    (folder / "small.txt").write_text("\n".join(rows[:20]), encoding="utf-8")
    (folder / "more").mkdir()
    (folder / "more/near.txt").write_text("\n".join(rows + [f"{row} indeed" for row in rows[:200]]), encoding="utf-8")
    (folder / "more/paragraphs.txt").write_text("\n\n".join(row.replace(" a ", "\n") for row in rows), encoding="utf-8")
    (folder / "blank.txt").write_text("\n" * 9000)  # parts without texts
    write_csv(folder / "rows.csv", [row.replace(" a ", "\n") for row in rows])
    lines = [json.dumps({"text": row, "stars": len(row) % 5}) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    table = pa.table({"text": rows, "stars": [len(row) % 5 for row in rows]})
    pq.write_table(table, folder / "rows.parquet", row_group_size=50, compression="none")
    for number in (1, 2):
        lines = [f"{len(row)},{row}" for row in rows[:300]] + ["1,2,3"] * (number - 1)
        (folder / f"{number}.csv").write_text("stars,text\n" + "\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("name", list(SOURCES))
def test_three_processes_make_what_one_makes(name: str, launched: Any, alone: Callable[[str, str], Path]) -> None:
    assert files_of(launched.folder / "many" / name) == files_of(alone(name, f"one/{name}"))
    assert not (launched.folder / f"many/{name}.partial").exists()
    shared = [facts[name]["parts"] for facts in launched.facts]
    assert all(facts[name]["error"] is None for facts in launched.facts)
    if name not in ("small", "list", "second", "book"):
        every = [part for parts in shared for part in parts]
        assert sorted(every) == list(range(len(every))) and len(every) > 8 and all(shared)
    if name == "second":  # the parts of both sources
        assert len({part for parts in shared for part in parts}) < sum(map(len, shared)) and all(shared)
    if name == "near":
        store = json.loads((launched.folder / "many/near/store.json").read_text())
        assert store["facts"]["corpus"]["source"]["cleaning"]["near_duplicates"] > 50
    if name == "small":  # nothing was left for two of them
        assert sorted(map(len, shared)) == [0, 0, 1]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("broken", "2.csv cannot be read: line 302"),
        ("stdin", "Several processes cannot read one standard input."),
        ("different", "different settings: reading"),
        ("unknown", "from 0.3 to 1"),
        ("tokenizers", "different settings: tokenizer"),
        ("versions", "different settings: versions"),
        ("code", "different settings: source code"),
        ("full", "No space left on device"),
    ],
)
def test_one_process_says_what_is_wrong_and_all_exit_with_status_1(name: str, problem: str, launched: Any) -> None:
    assert [facts[name]["status"] for facts in launched.facts] == [1, 1, 1]
    said = [facts[name]["stderr"] for facts in launched.facts if "error:" in facts[name]["stderr"]]
    assert len(said) == 1 and problem in said[0]
    assert "Traceback" not in "".join(facts[name]["stderr"] for facts in launched.facts)
    assert not (launched.folder / "many" / name).exists()


def test_a_job_that_is_started_again_is_complete(launched: Any) -> None:
    again = [facts["../many/txt"] for facts in launched.facts]
    assert [each["status"] or 0 for each in again] == [0, 0, 0]
    assert ["is complete already" in each["stderr"] for each in again] == [True, False, False]


def test_a_training_in_three_processes_from_a_store_is_that_from_its_texts(launched: Any) -> None:
    first, second = (reviewgen.load(launched.folder / "trained" / name) for name in ("store", "texts"))
    assert first.digest == second.digest and facts_of(first) == facts_of(second)


def test_a_process_that_is_killed_ends_all_and_the_same_command_goes_on(launched: Any, alone: Callable[[str, str], Path]) -> None:
    folder, unfinished = launched.folder, launched.folder / "many/killed.partial"
    assert launched.status != 0 and not (folder / "lost.1.json").exists()
    assert launched.ended - json.loads((folder / "killed.json").read_text()) < 60
    for file in folder.glob("lost.*.json"):  # of those that the launcher has not ended before
        assert json.loads(file.read_text()).startswith("ProcessLost")
    assert not (folder / "many/killed").exists() and len(list((unfinished / "texts").iterdir())) >= 2
    assert files_of(alone("txt", "many/killed")) == files_of(folder / "many/txt")
    assert not unfinished.exists()


def test_three_processes_share_the_shards_of_a_hub_dataset(tmp_path: Path) -> None:
    rows = [f"{row} No. {number}" for number, row in enumerate(texts(270))]
    shards = {f"train-{n}.jsonl": "".join(json.dumps({"text": r}) + "\n" for r in rows[50 * n : 50 * n + 50]) for n in range(6)}
    repositories = {("dataset", "owner/shards"): {"main": {name: content.encode() for name, content in shards.items()}}}
    script = """if True:
        import os, time
        import reviewgen
        from reviewgen.preparation import reading
        clean, rank = reading.clean_files, os.environ.get("RANK", "alone")
        def counted(folder, shard, *options):
            open(f"{rank}-{shard.index}.read", "w").close()
            time.sleep(0.3)  # so that there is something for everyone
            return clean(folder, shard, *options)
        reading.clean_files = counted
        reviewgen.prepare("owner/shards", preset="gru-char", out="alone" if rank == "alone" else "many")
    """
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    with LoopbackHub(repositories) as hub:
        environment = hub.environment(tmp_path / "home")
        many = launch(3, tmp_path, "script.py", env=environment)
        one = run_python(["-c", script], env=environment, cwd=tmp_path)
    assert (many.returncode, one.returncode) == (0, 0), many.stderr + one.stderr
    assert files_of(tmp_path / "many") == files_of(tmp_path / "alone")
    read = sorted(file.stem.split("-") for file in tmp_path.glob("[0-9]-*.read"))
    assert sorted(shard for _, shard in read) == list("012345") and len({rank for rank, _ in read}) == 3
