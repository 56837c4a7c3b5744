"""Several processes for one corpus: the same bytes for any number of workers, and a clear error if one of them ends."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reviewgen_char.tokenizer import CharTokenizer
from reviewgen_word.tokenizer import WordConfig, WordTokenizer

from reviewgen.conditions import fit_conditions
from reviewgen.data import DataConfig, cache_folder, gather, shards, spool, tokenize, workspace
from reviewgen.data.workers import count_workers, run_tasks
from reviewgen.errors import ConfigError, DataError, WorkerError

ROOT = Path(__file__).parents[2]
TEXTS = [
    ["good film", "  ", "très <br /> bon 😀", "line\nbreak", "ดี &amp; more"][n % 5] + f" {n % 170}" * (n % 7) for n in range(400)
]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Divide small files and corpora into parts, too."""
    monkeypatch.setattr(shards, "_PART_BYTES", 1)
    monkeypatch.setattr(spool, "_RANGE_BYTES", 1)


def write_shards(folder, kind, count=5):
    """Write the texts, many of them more than once, with a second column, and return a glob of the files."""
    folder.mkdir()
    for number in range(count):
        rows = [{"text": text, "stars": n % 3 or None} for n, text in enumerate(TEXTS) if n % count == number]
        file = folder / f"{number}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=30)
        elif kind == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif kind == "csv":
            file.write_text("text,stars\n" + "".join(f'"{row["text"]}",{row["stars"] or ""}\n' for row in rows))
        else:
            file.write_text("".join(row["text"] + "\n" for row in rows))
    return f"{folder}/*.{kind}"


def run(monkeypatch, tmp_path, source, workers, kind=CharTokenizer, config=None, **options):
    """Tokenize as a new run does; return all bytes of the cache and the cleaning report."""
    monkeypatch.setenv("REVIEWGEN_WORKERS", str(workers))
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path / f"cache of {workers}"))
    with workspace() as folder:
        corpus = gather(source, folder, DataConfig(**options))
        conditions = fit_conditions(options.get("conditions", ()), corpus.conditions("train"))
        tokenize(corpus, kind, config or kind.Config(), "x", folder, conditions=conditions)
    files = [file for file in cache_folder().rglob("*") if file.is_file()]
    return {str(file.relative_to(cache_folder())): file.read_bytes() for file in files}, corpus.report


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("parquet", {"conditions": ("stars",)}),
        ("jsonl", {"conditions": ("stars",), "lowercase": True}),
        ("csv", {"text_column": "text", "clean": False}),
        ("txt", {}),
    ],
)
def test_the_bytes_are_the_same_whatever_the_number_of_workers(monkeypatch, tmp_path, kind, options):
    source = write_shards(tmp_path / "shards", kind)
    alone, report = run(monkeypatch, tmp_path, source, 1, **options)
    together, joint_report = run(monkeypatch, tmp_path, source, 3, **options)
    assert together == alone
    assert joint_report == report
    assert report.duplicates or not options.get("clean", True)
    assert any(name.endswith("train.uint16") and len(content) > 1000 for name, content in alone.items())


def test_words_are_the_same_too(monkeypatch, tmp_path):
    source, config = write_shards(tmp_path / "shards", "parquet"), WordConfig(vocab_size=300)
    alone, _ = run(monkeypatch, tmp_path, source, 1, WordTokenizer, config)
    assert run(monkeypatch, tmp_path, source, 3, WordTokenizer, config)[0] == alone


class Local(CharTokenizer):
    """A tokenizer that another process can import, or not."""


def test_a_tokenizer_that_workers_cannot_import_is_used_in_this_process(monkeypatch, tmp_path):
    source = write_shards(tmp_path / "shards", "parquet", 2)
    monkeypatch.setattr(Local, "__module__", "__main__")
    assert run(monkeypatch, tmp_path, source, 2, Local)[0] == run(monkeypatch, tmp_path, source, 1)[0]


def test_a_bad_shard_is_named(monkeypatch, tmp_path):
    source = write_shards(tmp_path / "shards", "parquet")
    pq.write_table(pa.table({"text": [["a", "list"]]}), tmp_path / "shards" / "3.parquet")
    with pytest.raises(DataError, match=r"^Text 1 of column 'text' of \S*3\.parquet is of type list, not a string\.$"):
        run(monkeypatch, tmp_path, source, 2)
    (tmp_path / "shards" / "3.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match=r"^\S*3\.parquet cannot be read: .*\.$"):
        run(monkeypatch, tmp_path, source, 2)
    assert list(cache_folder().iterdir()) == []


# Functions, and a tokenizer, that workers call.


class Deadly(CharTokenizer):
    """Kills the process that it encodes in if that is a worker."""

    def encode_batch(self, texts):
        if "worker" in sys.orig_argv[-1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_batch(texts)


def double(value):
    """Return twice a value."""
    return 2 * value


def die(file):
    """Kill this process."""
    Path(file).write_text("here")
    os.kill(os.getpid(), signal.SIGKILL)


def fill_up(file):
    """Write more than there is room for."""
    with Path("/dev/full").open("w") as stream:
        stream.write(file)


def fall_asleep(file):
    """Write a file named after this process, then sleep."""
    (Path(file).parent / f"{os.getpid()}.pid").write_text("")
    time.sleep(600)


@pytest.fixture
def reachable(monkeypatch):
    """Have workers find this module by its name."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setitem(sys.modules, "tests.unit.test_workers", sys.modules[__name__])
    for function in (double, die, fill_up, fall_asleep, Deadly):
        monkeypatch.setattr(function, "__module__", "tests.unit.test_workers")


def wait_for(condition):
    """Wait until a condition holds, for at most five minutes."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid):
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_results_come_in_order(reachable):
    assert list(run_tasks(double, ({"value": n} for n in range(20)), 3)) == [2 * n for n in range(20)]


def test_a_worker_that_is_killed_is_one_error(reachable, tmp_path):
    message = r"^A process that reads .* was killed \(SIGKILL\), perhaps .*\. No partial .* REVIEWGEN_WORKERS=1 .*\.$"
    with pytest.raises(WorkerError, match=message):
        list(run_tasks(die, [{"file": str(tmp_path / "x")}] * 5, 2))
    assert (tmp_path / "x").exists()


def test_a_worker_that_is_killed_in_the_middle_leaves_nothing(reachable, monkeypatch, tmp_path):
    source = write_shards(tmp_path / "shards", "parquet")
    with pytest.raises(WorkerError, match="SIGKILL"):
        run(monkeypatch, tmp_path, source, 2, Deadly)
    assert list(cache_folder().iterdir()) == []
    assert run(monkeypatch, tmp_path, source, 1, Deadly)[0] == run(monkeypatch, tmp_path / "other", source, 1)[0]


def test_a_full_disk_in_a_worker_raises_the_same_error_here(reachable):
    with pytest.raises(OSError, match="No space left on device") as caught:
        list(run_tasks(fill_up, [{"file": "x"}] * 3, 2))
    assert caught.value.errno == 28


@pytest.fixture
def interruptible():
    """Have Ctrl-C reach this process, even where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_workers_end_with_the_reader_of_their_results(reachable, interruptible, tmp_path):
    results = run_tasks(fall_asleep, ({"file": str(tmp_path / str(n))} for n in range(3)), 2)
    with pytest.raises(KeyboardInterrupt):
        interrupt_when(lambda: len(list(tmp_path.glob("*.pid"))) == 2, results)
    assert not any(is_running(file.stem) for file in tmp_path.glob("*.pid"))


def interrupt_when(condition, results):
    """Press Ctrl-C for a process that waits for results, once a condition holds."""
    threading.Thread(target=lambda: (wait_for(condition), os.kill(os.getpid(), signal.SIGINT))).start()
    next(results)


def test_workers_end_with_a_process_that_is_killed(tmp_path):
    script = f"""if True:
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from reviewgen.data.workers import run_tasks
        from tests.unit.test_workers import fall_asleep
        list(run_tasks(fall_asleep, [{{"file": {str(tmp_path / "x")!r}}}] * 2, 2))
    """
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        process.kill()
    wait_for(lambda: not any(is_running(file.stem) for file in tmp_path.glob("*.pid")))


LIMITED = """if True:
    import resource, sys
    from reviewgen_char.tokenizer import CharTokenizer
    from reviewgen.data import DataConfig, cache_folder, gather, shards, spool, tokenize, workspace
    from reviewgen.errors import ReviewgenError
    shards._PART_BYTES = spool._RANGE_BYTES = 1
    before, after = int(sys.argv[1]), int(sys.argv[2])
    try:
        with workspace() as folder:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, resource.RLIM_INFINITY))
            corpus = gather(sys.argv[3], folder, DataConfig())
            resource.setrlimit(resource.RLIMIT_FSIZE, (after, resource.RLIM_INFINITY))
            tokenize(corpus, CharTokenizer, CharTokenizer.Config(), "char", folder)
    except ReviewgenError as error:
        print(type(error).__name__, error)
    print(len(list(cache_folder().iterdir())))
"""


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (300, 10**9, "StorageError No room to write .*texts.jsonl: File too large"),
        (10**9, 300, "StorageError No room to write the token cache .*: File too large"),
        (10**9, 10**9, None),
    ],
)
def test_a_full_disk_is_one_error_with_workers_too(monkeypatch, tmp_path, before, after, said):
    monkeypatch.setenv("REVIEWGEN_WORKERS", "2")
    source = write_shards(tmp_path / "shards", "parquet", 3)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(before), str(after), source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *lines, left = done.stdout.splitlines()
    assert left == ("1" if said is None else "0")
    assert len(lines) == (said is not None)
    assert said is None or re.match(said, lines[0])


def test_the_number_of_workers(monkeypatch):
    monkeypatch.delenv("REVIEWGEN_WORKERS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(100)))
    assert [count_workers(size, 10) for size in (9, 10)] == [1, 8]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert count_workers(10, 10) == 1
    monkeypatch.setenv("REVIEWGEN_WORKERS", "5")
    assert count_workers(0, 10) == 5


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", " "])
def test_an_invalid_number_of_workers(monkeypatch, value):
    monkeypatch.setenv("REVIEWGEN_WORKERS", value)
    with pytest.raises(ConfigError, match=rf"^REVIEWGEN_WORKERS is {value!r}; set it to the number of processes"):
        count_workers(10, 10)
