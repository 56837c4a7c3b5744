"""Scratch folders: what a killed process has left is removed by the next one, and what a living one uses is not."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import lock, scratch, storage
from reviewgen.data import cache_folder
from reviewgen.errors import OutputExists
from reviewgen.runs import finished
from reviewgen.runs.litter import clean
from reviewgen.scratch import TEMPORARY, abandoned_folders, scratch_folder, temporary_folder
from reviewgen.storage import new_folder, recover
from tests.support.fakes import NGRAM, TEXTS, run_command, train_tiny
from tests.support.forked import run_group

HOLD = """if True:
    import sys, time
    from pathlib import Path
    from reviewgen.storage import new_folder
    with new_folder(Path(sys.argv[1]), overwrite=True) as folder:
        (folder / "file").write_text("half")
        print(folder, flush=True)
        time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process that is writing ``m``, and its scratch folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "m")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip()).parent
    process.kill()
    process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_what_a_killed_process_has_left_goes_and_what_a_living_one_writes_stays(
    holder: tuple["subprocess.Popen[str]", Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process, left = holder
    os.utime(left, (0, 0))  # age decides nothing
    with new_folder(tmp_path / "m", overwrite=True) as folder:
        (folder / "file").write_text("mine")
    assert names(tmp_path) == sorted([left.name, "m"]) and not caplog.messages
    kill(process)
    with caplog.at_level(logging.WARNING, "reviewgen"), new_folder(tmp_path / "m", overwrite=True) as folder:
        (folder / "file").write_text("mine, too")
    assert names(tmp_path) == ["m"] and (tmp_path / "m" / "file").read_text() == "mine, too"
    assert caplog.messages == [f"Removed {left}, which a process that was killed has left."]


def test_nothing_is_removed_where_the_file_system_has_no_locks(
    holder: tuple["subprocess.Popen[str]", Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(next(iter(lock._UNSUPPORTED)), "no locks here")

    kill(holder[0])
    monkeypatch.setattr(lock.FileLock, "acquire", refuse)
    assert list(abandoned_folders(tmp_path, ".m-")) == [] and names(tmp_path) == [holder[1].name]


def test_only_own_scratch_folders_are_touched(tmp_path: Path) -> None:
    for name in (".m-abcdefgh", ".m-abcdefg", ".n-abcdefgh", ".m-b-abcdefgh"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis").write_text("mine")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "reviewgen.lock").touch()
    (tmp_path / ".m-linked00").symlink_to(tmp_path / "target")
    before = names(tmp_path)
    assert list(abandoned_folders(tmp_path, ".m-")) == [] and names(tmp_path) == before
    assert all((tmp_path / name / "thesis").exists() for name in before if name.endswith("abcdefgh"))


def test_an_empty_folder_goes_only_if_it_has_the_mode_of_a_scratch_folder(tmp_path: Path) -> None:
    (tmp_path / ".my-settings").mkdir()
    left = Path(tempfile.mkdtemp(prefix=".my-", dir=tmp_path))
    clean(tmp_path)
    assert names(tmp_path) == [".my-settings"] and not left.exists()


@pytest.mark.parametrize("with_new", [True, False])
def test_a_replacement_cut_off_between_its_renames_is_finished(tmp_path: Path, with_new: bool) -> None:
    left = tmp_path / ".m-abcdefgh"
    left.mkdir()
    (left / "reviewgen.lock").touch()
    for name in ("old", *(["new"] if with_new else [])):
        (left / name).mkdir()
        (left / name / "file").write_text(name)
    recover(tmp_path / "m")
    assert names(tmp_path) == ["m"] and (tmp_path / "m" / "file").read_text() == ("new" if with_new else "old")


def test_a_folder_being_replaced_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_REPLACING_SECONDS", 0.3)
    with scratch_folder(tmp_path, ".m-") as folder:
        (folder / "old").mkdir()
        recover(tmp_path / "m")
        assert (folder / "old").is_dir() and names(tmp_path) == [folder.name]
    assert names(tmp_path) == []


def test_temporary_folders_of_killed_processes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    scratch._remove_temporary.cache_clear()
    left, rescued = tmp_path / f"{TEMPORARY}abcdefgh", tmp_path / "reviewgen-abcdefgh"
    for folder in (left, rescued):
        folder.mkdir()
        (folder / "model").write_text("x")
    (left / "reviewgen.lock").touch()
    with temporary_folder() as folder:
        assert list(folder.iterdir()) == [] and not left.exists()
    assert names(tmp_path) == [rescued.name], "a model that was rescued from a full disk stays"


def finished_run(folder: Path, training: dict[str, Any]) -> Path:
    """Make the folder of a run that was killed after it had saved a model with this record."""
    run = folder / "m.run"
    (run / "step-00000003").mkdir(parents=True)
    (run / ".lock").touch()
    (run / "run.json").write_text("{}")
    (run / "saved.json").write_bytes(finished.describe_result(training))
    return run


def test_the_folder_of_a_finished_run_goes_at_the_next_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = train_tiny("ngram-char", tmp_path / "cache", out=tmp_path / "m", **NGRAM)
    assert names(tmp_path) == ["cache", "m"]
    run = finished_run(tmp_path, model.training | {"seed": 5})
    with pytest.raises(OutputExists):
        train_tiny("ngram-char", tmp_path / "cache", out=tmp_path / "m", **NGRAM)
    assert run.exists(), "it is that of another model"
    (run / "saved.json").write_bytes(finished.describe_result(model.training))
    held = lock.Lock(run / ".lock")
    assert not finished.discard_finished(tmp_path / "m") and run.exists()
    held.release()
    with caplog.at_level(logging.WARNING, "reviewgen"), pytest.raises(OutputExists):
        train_tiny("ngram-char", tmp_path / "cache", out=tmp_path / "m", **NGRAM)
    assert not run.exists() and "its run has saved the model" in caplog.text


def test_doctor_cleans_beside_a_folder_and_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REVIEWGEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    model = reviewgen.train("ngram-char", TEXTS, out=tmp_path / "models" / "m", progress=False, **NGRAM)
    finished_run(tmp_path / "models", model.training)
    left = [tmp_path / "models" / ".m-abcdefgh", tmp_path / "models" / ".page-abcdefgh", cache_folder() / "tmp-abcdefgh"]
    left.append(tmp_path / "temporary" / f"{TEMPORARY}abcdefgh")
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "reviewgen.lock").touch()
    lock.Lock(tmp_path / "models" / ".t.jsonl.lock").release()
    (tmp_path / "models" / ".t.jsonl.lock").touch()  # on some systems, releasing removes it
    held = lock.Lock(tmp_path / "models" / ".u.jsonl.lock")
    (tmp_path / "models" / ".other.lock").touch()  # of another program
    for name in (".a.lock", ".a.lock.pid"):  # of another program
        (tmp_path / "models" / name).write_text("12\n")
    status, out, _ = run_command(monkeypatch, capsys, "doctor", tmp_path / "models" / "m", "--clean", "--json")
    removed = {Path(path).name for path in json.loads(out)["removed"]}
    assert status == 0 and removed == {*(folder.name for folder in left), "m.run", ".t.jsonl.lock", ".t.jsonl.lock.pid"}
    assert names(tmp_path / "models") == [".a.lock", ".a.lock.pid", ".other.lock", ".u.jsonl.lock", ".u.jsonl.lock.pid", "m"]
    held.remove()
    assert clean(tmp_path / "models" / "m") == []
    _, out, _ = run_command(monkeypatch, capsys, "doctor", tmp_path / "models" / "m", "--clean")
    assert out == "Killed processes have left no files.\n"
    status, _, said = run_command(monkeypatch, capsys, "doctor", tmp_path / "model" / "m", "--clean")
    assert status == 2 and said == f"error: {tmp_path / 'model' / 'm'} is in a folder that does not exist. Check the path.\n"


MANY = """
from reviewgen.data.cache import workspace

for number in range(400):
    with workspace() as folder:
        (folder / "text").write_text(str(number))
        assert (folder / "text").read_text() == str(number)
"""


def test_processes_that_come_and_go_do_not_remove_the_folders_of_others(tmp_path: Path) -> None:
    for process in run_group(["-c", MANY], 4, env={"REVIEWGEN_CACHE": str(tmp_path)}):
        assert process.returncode == 0, process.stderr
    assert list(tmp_path.iterdir()) == []


OWNERS = {
    "workers of the server": """
        from reviewgen.serving import workers
        workers._start = wait
        workers.run_workers(None, None, 2, None, None)
    """,
    "inspection of plugins": """
        from reviewgen.inspection import processes
        processes._watch = wait
        processes._run([], 5.0)
    """,
    "check of a plugin": """
        from reviewgen.testing import plugin_check
        plugin_check._check_trained = wait
        plugin_check.check_plugin("ngram-char")
    """,
}


@pytest.mark.parametrize("name", OWNERS)
def test_the_temporary_folders_of_killed_owners_are_removed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = """
        import time
        def wait(*_):
            print("waiting", flush=True)
            time.sleep(600)
    """
    script = "if True:\n" + waiting + OWNERS[name]
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        left = [path for path in tmp_path.iterdir() if path.name.startswith("reviewgen")]
        assert len(left) == 1
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        assert clean() == [] and left[0].exists()
    finally:
        kill(process)
    with caplog.at_level(logging.WARNING, "reviewgen"):
        assert clean() == left and not left[0].exists()
