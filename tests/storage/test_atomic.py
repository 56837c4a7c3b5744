"""Atomic writing: a file or folder appears whole or not at all; and jobs that are resumed."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from reviewgen.errors import CheckpointError, OutputExists
from reviewgen.storage import Job, atomic_file, atomic_folder, safetensors_file
from tests.support.disks import listing
from tests.support.fakes import raising


class PowerCut(BaseException):
    """Ends the writing between two steps."""


def fill(folder: Path, content: bytes = b"new") -> None:
    """Write two files, one in a subfolder."""
    (folder / "file").write_bytes(content)
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_bytes(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


NEW = {"m": None, "m/file": b"new", "m/sub": None, "m/sub/file": b"new"}
OLD = {"m": None, "m/kept": b"old"}


def old_folder(path: Path) -> None:
    path.mkdir()
    (path / "kept").write_bytes(b"old")


def test_a_new_folder_appears_at_the_end_of_the_block(tmp_path):
    with atomic_folder(tmp_path / "m") as scratch:
        fill(scratch)
        assert not (tmp_path / "m").exists()
    assert listing(tmp_path) == NEW
    (tmp_path / "plain").touch()
    assert (tmp_path / "m/file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("is_there", [False, True])
def test_a_cut_before_the_end_changes_nothing(tmp_path, monkeypatch, is_there):
    if is_there:
        old_folder(tmp_path / "m")
    for owner, name, call in [
        *((os, "fsync", number) for number in range(1, 5)),
        (Path, "rename", 1),
    ]:
        plain = getattr(owner, name)
        calls = []

        def cut(
            *args: Any,
            plain: Any = plain,
            calls: list[int] = calls,
            call: int = call,
            **options: Any,
        ) -> Any:
            calls.append(1)
            if len(calls) == call:
                raise PowerCut
            return plain(*args, **options)

        with (
            monkeypatch.context() as patch,
            pytest.raises(PowerCut),
            atomic_folder(tmp_path / "m", overwrite=is_there) as scratch,
        ):
            fill(scratch)
            patch.setattr(owner, name, cut)
        assert listing(tmp_path) == (OLD if is_there else {}), (name, call)


def test_a_file_appears_whole_and_an_old_one_stays(tmp_path, monkeypatch):
    for content in ("first", "second"):
        with atomic_file(tmp_path / "f") as new:
            new.write_text(content)
        assert (tmp_path / "f").read_text() == content
    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match="No space"),
        atomic_file(tmp_path / "f") as new,
    ):
        patch.setattr(os, "fsync", raising(OSError(errno.ENOSPC, "No space left on device")))
        new.write_text("third")
    assert (tmp_path / "f").read_text() == "second" and names(tmp_path) == ["f"]


def test_what_a_killed_process_has_left_goes_with_the_next(tmp_path):
    old_folder(tmp_path / "m")
    for name in (".m.new", ".m.old"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    with atomic_folder(tmp_path / "m", overwrite=True) as folder:
        fill(folder)
    assert listing(tmp_path) == NEW


def test_a_job_is_resumed_by_the_same_facts_only(tmp_path):
    made = []

    def make(path: Path) -> None:
        made.append(path.name)
        path.write_text("piece")

    with Job(tmp_path / "out", "table", {"n": 1}) as job:
        job.write("shards", make)
        with pytest.raises(CheckpointError, match="Another process"):
            Job(tmp_path / "out", "table", {"n": 1}).__enter__()
    with pytest.raises(CheckpointError, match="other n"):
        Job(tmp_path / "out", "table", {"n": 2}).__enter__()
    with Job(tmp_path / "out", "table", {"n": 1}) as job:
        job.write("shards", make)
        job.write("table", make)
        job.finish("table")
    assert (
        len(made) == 2 and names(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "piece"
    )
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial/thesis").write_text("mine")
    with pytest.raises(OutputExists):
        Job(tmp_path / "new", "table", {}).__enter__()
    with Job(tmp_path / "none", "table", {}):
        pass
    assert names(tmp_path) == ["new.partial", "out"]


def test_a_file_of_the_user_in_the_folder_of_a_job_stays(tmp_path):
    with Job(tmp_path / "out", "table", {"n": 1}) as job:
        job.write("table", lambda path: path.write_text("piece"))
        (job.folder / "notes.txt").write_text("mine")
        job.finish("table")
    assert (tmp_path / "out").read_text() == "piece" and (
        tmp_path / "out.partial/notes.txt"
    ).read_text() == "mine"


def test_a_file_of_safetensors_has_the_errors_and_the_mode_of_other_files(tmp_path):
    from safetensors import SafetensorError

    for said, number in (
        ("I/O error: no room (os error 28)", errno.ENOSPC),
        ("header too large", errno.EIO),
    ):
        with pytest.raises(OSError) as caught, safetensors_file(tmp_path / "t"):
            raise SafetensorError(said)
        assert caught.value.errno == number and str(caught.value).endswith(
            said.split(": ")[-1].partition(" (")[0]
        )
    (tmp_path / "plain").touch()
    (tmp_path / "t").touch(mode=0o600)
    with safetensors_file(tmp_path / "t"):
        pass
    assert (tmp_path / "t").stat().st_mode == (tmp_path / "plain").stat().st_mode
