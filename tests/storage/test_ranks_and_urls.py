"""Several processes prepare, write and score as one does, byte for byte; sources and stores behind
URLs are those of files.
"""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reviewgen
from reviewgen.errors import ReviewgenError
from tests.support.disks import listing
from tests.support.fakes import TEXTS
from tests.support.launches import launch, made_once

ROWS = [f"{text} {number}" for number, text in itertools.product(range(5), TEXTS)]
JOBS = {
    "txt": "prepare *.txt --preset gru-char --out OUT",
    "parquet": (
        "prepare rows.parquet --preset gru-word --condition stars --decontaminate 60 --out OUT"
    ),
    "texts": "generate ./model -n 200 --seed 1 --format jsonl --columns --out OUT",
    "unique": (
        "generate ./model -n 25 --seed 2 --unique --temperature 1 --max-new-tokens 9 --format"
        " parquet --out OUT"
    ),
    "scores": "score ./model --data 0.txt --out OUT",
    "copies": "novelty ./model --data 0.txt --out OUT",
}
SCRIPT = """
import contextlib, errno, io, json, os, signal, sys
from reviewgen.cli import main

rank, jobs, facts = int(os.environ["RANK"]), json.load(open("jobs.json")), {}

def command(name, words):
    sys.argv[1:] = words.replace("OUT", f"many/{name}").split()
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
    facts[name] = [status, said.getvalue()]

for name, words in jobs.items():
    command(name, words)
command("stdin", "score ./model --data - --out OUT")
command("different", f"generate ./model -n {9 + rank} --seed 1 --format jsonl --out OUT")
plain, left = os.fsync, [14]

def full(handle):
    left[0] -= 1
    if rank == 0 and left[0] < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    plain(handle)

os.fsync = full
command("full", jobs["txt"])
os.fsync = plain
with open(f"facts.{rank}.json", "w") as file:
    json.dump(facts, file)
if rank == 0:
    left[0], plain = 14, os.fsync
    os.fsync = lambda handle: full(handle) if left[0] else os.kill(os.getpid(), signal.SIGKILL)
command("killed", jobs["txt"])
"""


def make(folder: Path) -> None:
    """Write the sources and a model, and run the script in three processes."""
    reviewgen.train("ngram-char", TEXTS, model={"order": 4}, progress=False).save_pretrained(
        folder / "model"
    )
    for number in range(4):
        (folder / f"{number}.txt").write_text("\n".join(ROWS[number::4]), encoding="utf-8")
    pq.write_table(
        pa.table({"text": ROWS, "stars": [len(row) % 5 for row in ROWS]}),
        folder / "rows.parquet",
        row_group_size=30,
    )
    (folder / "jobs.json").write_text(json.dumps(JOBS), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = launch(3, folder, "script.py", timeout=300)
    (folder / "ended.json").write_text(json.dumps([done.returncode, done.stderr]), encoding="utf-8")


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Path:
    return made_once(tmp_path_factory, "ranks", make)


@pytest.mark.launch
@pytest.mark.parametrize("name", JOBS)
def test_three_processes_write_what_one_writes(name, launched, tmp_path, monkeypatch, run_command):
    facts = [json.loads((launched / f"facts.{rank}.json").read_text())[name] for rank in range(3)]
    assert [status for status, _ in facts] == [0, 0, 0], facts
    monkeypatch.chdir(launched)
    words = JOBS[name].replace("OUT", str(tmp_path / name)).split()
    assert run_command(*words)[0] == 0
    assert listing(launched / "many" / name) == listing(tmp_path / name)


@pytest.mark.launch
def test_a_failure_of_one_process_is_said_once_and_ends_all(launched, tmp_path):
    facts = [json.loads((launched / f"facts.{rank}.json").read_text()) for rank in range(3)]
    for name, problem in (
        ("stdin", "standard input"),
        ("different", "different settings"),
        ("full", "No space left"),
    ):
        said = "".join(each[name][1] for each in facts)
        assert (
            all(each[name][0] in (1, 2) for each in facts)
            and problem in said
            and said.count("error:") == 1
        ), said
        assert not (launched / "many" / name).exists()
    status, said = json.loads((launched / "ended.json").read_text())
    assert status == 1 and not (launched / "many" / "killed").exists(), said
    for name in ("full", "killed"):  # one process continues
        shutil.copytree(launched / "many" / f"{name}.partial", tmp_path / f"{name}.partial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(launched)
        for name in ("full", "killed"):
            reviewgen.prepare("*.txt", preset="gru-char", out=tmp_path / name)
            assert listing(tmp_path / name) == listing(launched / "many" / "txt")


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """An S3 server, and the variables that lead to it."""
    server = pytest.importorskip(
        "moto.server", reason="needs moto: pip install 'reviewgen[test-s3]'"
    )
    pytest.importorskip("s3fs", reason="needs s3fs: pip install 'reviewgen[s3]'")
    running = server.ThreadedMotoServer(port=0)
    running.start()
    _, port = running.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    running.stop()


@pytest.mark.parametrize("kind", ["memory", pytest.param("s3", marks=pytest.mark.server)])
def test_a_store_behind_a_url_is_that_of_files(kind, request, tmp_path, monkeypatch, run_command):
    if kind == "s3":
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    url = f"{kind}://bucket-{kind}"
    system, path = fsspec.core.url_to_fs(url)
    system.mkdir(path)
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    system.pipe_file(f"{path}/a.txt", (tmp_path / "a.txt").read_bytes())
    local = reviewgen.prepare(
        tmp_path / "a.txt", preset="ngram-char", out=tmp_path / "store"
    ).folder
    words = ["prepare", f"{url}/a.txt", "--preset", "ngram-char", "--out", f"{url}/store"]
    status, _, said = run_command(*words)
    assert status == 0, said
    found = system.find(f"{path}/store")
    base = system.find(f"{path}/store/store.json")[0].removesuffix("store.json")
    stored = {name.removeprefix(base): system.cat_file(name) for name in found}
    expected = {name: content for name, content in listing(local).items() if content is not None}
    assert stored.keys() == expected.keys()
    # these have the name of the source
    for name in expected.keys() - {"store.json", "novelty.safetensors"}:
        assert stored[name] == expected[name], name
    one, two = (
        reviewgen.train("ngram-char", source, progress=False) for source in (f"{url}/store", local)
    )
    assert one.generate(seed=1) == two.generate(seed=1)
    status, _, said = run_command(*words)
    assert status == 0 and "complete already" in said
    with pytest.raises(ReviewgenError, match="none"):
        reviewgen.train("ngram-char", f"{url}/none.txt", progress=False)
