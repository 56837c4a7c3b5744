"""The stages of a corpus: each is made once, by one process, and whatever interrupts it."""

import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time

import pytest

import reviewgen
from reviewgen.data.stage import cache_folder, run_stage, write_rows
from reviewgen.errors import DataError
from reviewgen.registry.plugins import find_tokenizer
from tests.support.forked import run_python
from tests.support.texts import as_csv, as_lines, texts_of, tokenized, write

ROWS = [
    {"text": f"Text number {number}, about the film", "stars": number % 5} for number in range(80)
]

TRAINED = """if True:
    import os, signal, sys
    from reviewgen import storage
    publish = storage.publish
    left = [int(sys.argv[1])]
    def publish_or_die(new, target):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        publish(new, target)
    storage.publish = publish_or_die
    from reviewgen.registry.plugins import find_tokenizer
    from tests.support.texts import tokenized
    tokenized("a.csv", find_tokenizer("char")[0], conditions=("stars",))
"""

WAITS = """if True:
    import time
    from reviewgen.data.stage import cache_folder, run_stage
    def make(folder):
        print("making", flush=True)
        time.sleep(2.5)
        return {"lines": 2}
    run_stage(cache_folder(), "lines", [1], make)
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()


def stages():
    """Return the kinds of the stages in the cache, and other names in it as they are."""
    return sorted(path.name.partition("-")[0] for path in cache_folder().iterdir())


def count_lines(folder):
    (folder / "made").mkdir(parents=True)
    (folder / "made/a.txt").write_text("a\n")
    return {"lines": 1}


def test_a_stage_is_made_once_for_the_same_inputs(tmp_path):
    made = []

    def make(folder):
        made.append(folder)
        return count_lines(folder)

    first, second, other = (run_stage(cache_folder(), "lines", [n], make) for n in (1, 1, 2))
    assert (first, len(made)) == (second, 2) and other.folder != first.folder
    assert first.facts == {"lines": 1} and (first.folder / "made/a.txt").read_text() == "a\n"


def test_a_second_process_waits_and_finds_the_stage(tmp_path):
    made = []

    def make(folder):
        made.append(threading.get_ident())
        time.sleep(0.3)
        return count_lines(folder)

    threads = [
        threading.Thread(target=run_stage, args=(cache_folder(), "lines", [1], make))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(list(cache_folder().iterdir())) == 1


def test_a_second_process_says_once_that_it_waits(caplog):
    waits = [sys.executable, "-c", WAITS]
    with subprocess.Popen(waits, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"making\n"
        with caplog.at_level(logging.INFO, "reviewgen"):
            stage = run_stage(cache_folder(), "lines", [1], count_lines)
    assert stage.facts == {"lines": 2}  # of the other process
    assert caplog.messages == [f"Waiting for another process, which makes {stage.folder}."]


def test_a_stage_of_unknown_inputs_is_named_after_its_content(tmp_path):
    first, again = (
        run_stage(cache_folder(), "lines", [1], count_lines, are_complete=False) for _ in range(2)
    )
    assert first.folder == again.folder
    assert [path.name for path in cache_folder().iterdir()] == [first.folder.name]


def test_files_of_an_interrupted_stage_are_kept(tmp_path):
    import pyarrow

    written = []

    def write_two(folder, is_interrupted):
        for number in range(2):
            if number and is_interrupted:
                raise KeyboardInterrupt
            write_rows(
                folder / f"{number}.arrow",
                lambda number=number: written.append(number) or pyarrow.table({"n": [number]}),
            )
        return {}

    with pytest.raises(KeyboardInterrupt):
        run_stage(cache_folder(), "rows", [1], lambda folder: write_two(folder, True))
    run_stage(cache_folder(), "rows", [1], lambda folder: write_two(folder, False))
    assert written == [0, 1]


def test_an_error_of_a_source_leaves_nothing_in_the_cache(tmp_path):
    lines = as_lines(ROWS).splitlines()
    lines[60] = "{"
    file = write(tmp_path / "a.jsonl", "\n".join(lines))
    with pytest.raises(DataError, match="line 61 is not JSON"):
        reviewgen.corpus(file)
    assert stages() == []


@pytest.mark.slow
def test_a_kill_in_any_stage_loses_only_what_was_not_written(tmp_path, monkeypatch):
    write(tmp_path / "a.csv", as_csv(ROWS))
    expected = None
    for kills in itertools.count():
        monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path / f"cache {kills}"))
        done = run_python(["-c", TRAINED, str(kills)], cwd=tmp_path)
        if kills == 0:
            assert done.returncode == -9
        for folder in cache_folder().glob("tmp-*"):  # what the killed process has left
            os.utime(folder, (time.time() - 100, time.time() - 100))
        again = run_python(["-c", TRAINED, "1000"], cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert stages() == ["clean", "encode", "split"]
        files = {
            path.relative_to(cache_folder()).as_posix(): path.read_bytes()
            for path in cache_folder().rglob("*")
            if path.is_file()
        }
        expected = expected or files
        assert files == expected
        if done.returncode == 0:
            break
    assert kills >= 6  # the rows, three stages, a tokenizer, a shard and its words


def test_an_evaluation_of_a_split_starts_from_the_stages_of_the_training(tmp_path):
    file = write(tmp_path / "a.csv", as_csv(ROWS))
    corpus = reviewgen.corpus(file)
    before = {path: path.stat().st_ctime_ns for path in cache_folder().rglob("*.arrow")}
    texts = texts_of(file, clean=True, split="test")
    assert texts == [row["text"] for row in corpus if row["split"] == 2]
    after = {path: path.stat().st_ctime_ns for path in cache_folder().rglob("*.arrow")}
    assert after == before and stages() == ["clean", "split"]


def test_another_filter_cleans_nothing_again(tmp_path):
    file = write(tmp_path / "a.csv", as_csv(ROWS))
    reviewgen.corpus(file)
    reviewgen.corpus(file, decontaminate=30)
    assert stages() == ["clean", "split", "split"]


def test_a_stage_with_a_lost_file_is_made_again(tmp_path):
    file = write(tmp_path / "a.csv", as_csv(ROWS))
    texts = reviewgen.corpus(file)["text"][:]
    (file_of_rows,) = cache_folder().rglob("*.arrow")
    file_of_rows.unlink()
    assert reviewgen.corpus(file)["text"][:] == texts


def test_the_facts_of_a_stage_are_written_last(tmp_path):
    stage = run_stage(cache_folder(), "lines", [1], count_lines)
    content = json.loads((stage.folder / "stage.json").read_text())
    assert content == {"facts": {"lines": 1}, "files": {"made/a.txt": 2}}


# Python objects, whose content is known only when they are read.


def test_other_options_read_an_object_again():
    rows = [{"text": f"text {n % 60}", "a": n % 3, "b": -n % 3} for n in range(70)]
    assert [len(reviewgen.corpus(rows, clean=clean)) for clean in (True, False)] == [60, 70]
    for name in ("a", "b"):
        corpus = reviewgen.corpus(rows, conditions=[name])
        assert corpus[name][:] == [row[name] for row in rows[:60]]


def test_the_same_texts_to_train_and_to_validate_on_are_both_read():
    texts = [row["text"] for row in ROWS]
    *_, stores, corpus = tokenized(texts, find_tokenizer("char")[0], validation=texts)
    assert corpus.counts == {"train": 80, "validation": 80, "test": 0}
    assert stores["train"].ids.tolist() == stores["validation"].ids.tolist()
    assert "80 of 80 validation texts are also in the training text." in corpus.notes


def test_a_damaged_source_leaves_no_unfinished_store(tmp_path):
    file = write(tmp_path / "a.jsonl", as_lines(ROWS) + "{")
    with pytest.raises(DataError, match="line 81 is not JSON"):
        reviewgen.prepare(file, preset="ngram-char", out=tmp_path / "store")
    write(file, as_lines(ROWS))
    reviewgen.prepare(file, preset="ngram-char", out=tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "cache", "store"]
