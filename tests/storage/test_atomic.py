"""Atomic writing: a folder appears whole or not at all, and what killed processes have left is removed, but nothing of others."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.errors import BundleError, OutputExists, StorageError
from reviewgen.lock import Lock
from reviewgen.scratch import TEMPORARY, abandoned_folders, scratch_folder, temporary_folder
from reviewgen.storage import default_mode, new_folder, refuse_existing, safetensors_errors, write_new
from tests.support.fakes import TEXTS, run_command


class PowerCut(BaseException):
    """Ends the writing between two steps."""


def fill(folder: Path, content: bytes = b"new") -> None:
    """Write two files, one in a subfolder."""
    (folder / "file").write_bytes(content)
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_bytes(content)


def listing(folder: Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in paths}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


NEW = {"m": None, "m/file": b"new", "m/sub": None, "m/sub/file": b"new"}
OLD = {"m": None, "m/kept": b"old"}


def old_folder(path: Path) -> None:
    path.mkdir()
    (path / "kept").write_bytes(b"old")


def test_a_new_folder_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    with new_folder(tmp_path / "m") as scratch:
        fill(scratch)
        assert not (tmp_path / "m").exists()
    assert listing(tmp_path) == NEW
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == default_mode(is_folder=True)
    assert stat.S_IMODE((tmp_path / "m/file").stat().st_mode) == default_mode()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("bug"), PowerCut()])
@pytest.mark.parametrize("is_there", [False, True])
def test_an_exception_in_the_block_leaves_what_was_there(tmp_path: Path, error: BaseException, is_there: bool) -> None:
    if is_there:
        old_folder(tmp_path / "m")
    with pytest.raises(type(error)), new_folder(tmp_path / "m", overwrite=is_there) as scratch:
        fill(scratch)
        raise error
    assert listing(tmp_path) == (OLD if is_there else {})


@pytest.mark.parametrize("is_there", [False, True])
def test_a_cut_before_the_end_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool) -> None:
    if is_there:
        old_folder(tmp_path / "m")
    for owner, name, call in [*((os, "fsync", number) for number in range(1, 5)), (Path, "chmod", 1)]:
        plain, calls = getattr(owner, name), []

        def cut(*args: Any, plain: Any = plain, calls: list[int] = calls, call: int = call, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == call:
                raise PowerCut
            return plain(*args, **options)

        with monkeypatch.context() as patch, pytest.raises(PowerCut), new_folder(tmp_path / "m", overwrite=is_there) as scratch:
            fill(scratch)
            patch.setattr(owner, name, cut)
        assert listing(tmp_path) == (OLD if is_there else {}), (name, call)


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    old_folder(tmp_path / "m")
    with pytest.raises(OutputExists, match="m"):
        refuse_existing(tmp_path / "m")
    with pytest.raises(OutputExists, match="m"), new_folder(tmp_path / "m") as scratch:
        fill(scratch)
    assert listing(tmp_path) == OLD


def test_a_new_file_appears_whole_and_an_old_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises((OSError, StorageError), match="No space"):
        patch.setattr(os, "fsync", full)
        write_new(tmp_path / "f", lambda path: path.write_bytes(b"new") and None)
    assert names(tmp_path) == []
    write_new(tmp_path / "f", lambda path: path.write_bytes(b"first") and None)
    write_new(tmp_path / "f", lambda path: path.write_bytes(b"second") and None)
    assert (tmp_path / "f").read_bytes() == b"first" and names(tmp_path) == ["f"]


def test_a_replacement_that_was_cut_between_its_renames_leaves_both_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_folder(tmp_path / "m")
    plain, calls = Path.rename, []

    def cut(self: Path, target: Path) -> Path:
        calls.append(1)
        if len(calls) > 1:
            os._exit(9)
        return plain(self, target)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Path, "rename", cut)
        with new_folder(tmp_path / "m", overwrite=True) as scratch:
            fill(scratch)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    before = listing(tmp_path)
    assert (tmp_path / ".m.old" / "kept").read_bytes() == b"old" and b"new" in before.values()
    for call in (lambda: refuse_existing(tmp_path / "m"), lambda: new_folder(tmp_path / "m", overwrite=True).__enter__()):
        with pytest.raises(OutputExists, match=r"was cut off.*\.m\.old.*/new"):
            call()
    assert listing(tmp_path) == before
    (tmp_path / ".m.old").rename(tmp_path / "m")
    with new_folder(tmp_path / "m", overwrite=True) as scratch:
        fill(scratch)
    assert listing(tmp_path) == NEW


HOLD = """
import sys, time
from pathlib import Path
from reviewgen.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), ".m-") as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_the_scratch_folder_of_a_process_goes_once_it_was_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    os.utime(left, (0, 0))  # age decides nothing
    with new_folder(tmp_path / "m", overwrite=True) as folder:
        (folder / "file").write_text("mine")
    assert names(tmp_path) == sorted([left.name, "m"]) and not caplog.messages
    process.send_signal(signal.SIGKILL)
    process.wait()
    with new_folder(tmp_path / "m", overwrite=True) as folder:
        (folder / "file").write_text("again")
    assert names(tmp_path) == ["m"] and "was killed" in caplog.text


def test_only_own_scratch_folders_are_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".m-abcdefgh", ".m-abcdefg", ".n-abcdefgh"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis").write_text("mine")
    before = names(tmp_path)
    assert list(abandoned_folders(tmp_path, ".m-")) == [] and names(tmp_path) == before
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder(tmp_path, ".m-") as scratch, temporary_folder() as temporary:
        assert scratch.parent == tmp_path and tmp_path in temporary.parents and temporary.parent.name.startswith(TEMPORARY)
    assert names(tmp_path) == before


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    held = Lock(tmp_path / "lock")
    with pytest.raises(Exception, match=r".*"):
        Lock(tmp_path / "lock")
    held.release()
    Lock(tmp_path / "lock").release()


def test_doctor_removes_what_killed_processes_have_left_and_nothing_else(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    models = tmp_path / "models"
    monkeypatch.setattr(tempfile, "tempdir", str(models))
    reviewgen.train("ngram-char", TEXTS, out=models / "m", model={"order": 3}, progress=False)
    left = [models / ".m-abcdefgh", own_cache / "tmp-abcdefgh"]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "reviewgen.lock").touch()
    for name in (".a.lock", ".my-settings"):  # of other programs
        (models / name).write_text("12\n")
    (models / "other.partial").mkdir()
    (models / "other.partial/job.json").write_text("{}")
    status, out, _ = run_command(monkeypatch, capsys, "doctor", models / "m", "--clean")
    assert status == 0 and not any(folder.exists() for folder in left), out
    assert names(models) == [".a.lock", ".my-settings", "m", "other.partial"]
    status, _, said = run_command(monkeypatch, capsys, "doctor", tmp_path / "none" / "m", "--clean")
    assert status == 2 and "does not exist" in said


def test_errors_of_safetensors_on_a_full_disk_are_ours() -> None:
    from safetensors import SafetensorError

    for said, kind in (("No space left on device", StorageError), ("header too large", BundleError)):
        with pytest.raises((kind, OSError, SafetensorError)), safetensors_errors():
            raise SafetensorError(f"I/O error: {said}")
