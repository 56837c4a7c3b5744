"""Atomic writing: a folder appears whole or not at all, wherever the writing is cut short."""

import errno
import os
import stat
import sys
import threading
from pathlib import Path

import pytest
from safetensors import SafetensorError

from reviewgen import storage
from reviewgen.errors import OutputExists, StorageError
from reviewgen.storage import (
    default_mode,
    fsync_file,
    fsync_folder,
    new_folder,
    publish,
    refuse_existing,
    safetensors_errors,
    write_file,
)


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


NEW = {"m": None, "m/file": b"new", "m/sub": None, "m/sub/file": b"new"}
OLD = {"m": None, "m/kept": b"old"}


def old_folder(path: Path) -> None:
    path.mkdir()
    (path / "kept").write_bytes(b"old")


def test_a_new_folder_appears_at_the_end_of_the_block(tmp_path):
    with new_folder(tmp_path / "m") as scratch:
        fill(scratch)
        assert not (tmp_path / "m").exists() and scratch.parent.parent == tmp_path
    assert listing(tmp_path) == NEW


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("bug"), PowerCut()])
@pytest.mark.parametrize("is_there", [False, True])
def test_an_exception_in_the_block_leaves_what_was_there(tmp_path, error, is_there):
    if is_there:
        old_folder(tmp_path / "m")
    with pytest.raises(type(error)), new_folder(tmp_path / "m", overwrite=is_there) as scratch:
        fill(scratch)
        raise error
    assert listing(tmp_path) == (OLD if is_there else {})


@pytest.fixture
def no_exchange(monkeypatch):
    """A system that cannot exchange two names."""
    monkeypatch.setattr(storage, "_renameat2", lambda: None)


STEPS = [(os, "fsync", n) for n in range(1, 5)] + [(Path, "chmod", 1), (Path, "rename", 1)]  # two files and two folders


@pytest.mark.parametrize(("owner", "name", "call"), STEPS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("is_there", [False, True])
def test_a_cut_at_any_step_before_the_last_rename_changes_nothing(
    tmp_path, monkeypatch, no_exchange, owner, name, call, is_there
):
    if is_there:
        old_folder(tmp_path / "m")
    plain, calls = getattr(owner, name), []

    def cut(*args, **options):
        calls.append(args)
        if len(calls) == call:
            raise PowerCut
        return plain(*args, **options)

    with pytest.raises(PowerCut), new_folder(tmp_path / "m", overwrite=is_there) as scratch:
        fill(scratch)
        monkeypatch.setattr(owner, name, cut)
    assert listing(tmp_path) == (OLD if is_there else {})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux exchanges two names in one step")
def test_a_folder_that_is_replaced_is_there_at_every_moment(tmp_path):
    old_folder(tmp_path / "m")
    missing, looks, is_over = [], [], threading.Event()

    def look():
        while not is_over.is_set():
            looks.append(1)
            if not (tmp_path / "m").is_dir():
                missing.append(len(looks))

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(100):
        with new_folder(tmp_path / "m", overwrite=True) as scratch:
            fill(scratch)
    is_over.set()
    watcher.join()
    assert not missing and len(looks) > 100 and listing(tmp_path) == NEW


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), PowerCut()])
def test_a_failed_second_rename_moves_the_old_folder_back(tmp_path, monkeypatch, no_exchange, error):
    old_folder(tmp_path / "m")
    plain, calls = Path.rename, []

    def fail_second(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise error
        return plain(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(type(error)), new_folder(tmp_path / "m", overwrite=True) as scratch:
        fill(scratch)
    assert listing(tmp_path) == OLD


def test_after_the_last_rename_the_new_folder_is_whole(tmp_path, monkeypatch):
    """Only the flush of the parent folder is left then."""
    plain = os.fsync

    def cut(handle):
        if (tmp_path / "m" / "file").exists():
            raise PowerCut
        plain(handle)

    monkeypatch.setattr(os, "fsync", cut)
    with pytest.raises(PowerCut), new_folder(tmp_path / "m") as scratch:
        fill(scratch)
    assert listing(tmp_path) == NEW


def test_every_file_is_flushed_before_the_rename(tmp_path, monkeypatch):
    flushed, plain = set(), os.fsync

    def record(handle):
        flushed.add(os.fstat(handle).st_ino)
        plain(handle)

    rename = Path.rename

    def check(self, target):
        assert {path.stat().st_ino for path in (self, *self.rglob("*"))} <= flushed
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Path, "rename", check)
    with new_folder(tmp_path / "m") as scratch:
        fill(scratch)
    assert tmp_path.stat().st_ino in flushed


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_target_that_another_program_created_meanwhile_is_kept(tmp_path, what):
    with pytest.raises(OutputExists, match="already exists"), new_folder(tmp_path / "m") as scratch:
        fill(scratch)
        if what == "folder":
            old_folder(tmp_path / "m")
        else:
            (tmp_path / "m").write_bytes(b"mine")
    assert listing(tmp_path) == (OLD if what == "folder" else {"m": b"mine"})


@pytest.mark.parametrize("what", ["nothing", "folder", "empty folder", "file", "link", "dangling link"])
def test_overwriting_replaces_whatever_has_the_name(tmp_path, what):
    target = tmp_path / "home" / "m"
    target.parent.mkdir()
    if what == "folder":
        old_folder(target)
    elif what == "empty folder":
        target.mkdir()
    elif what == "file":
        target.write_bytes(b"old")
    elif what != "nothing":
        target.symlink_to(tmp_path / "elsewhere")
    if what == "link":
        old_folder(tmp_path / "elsewhere")
    with new_folder(target, overwrite=True) as scratch:
        fill(scratch)
    assert listing(target.parent) == NEW and not target.is_symlink()
    if what == "link":
        assert listing(tmp_path / "elsewhere") == {"kept": b"old"}


def test_publish_keeps_the_folder_of_a_process_that_was_first(tmp_path):
    old_folder(tmp_path / "m")
    for name in ("late", "new"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    with pytest.raises(OutputExists):
        publish(tmp_path / "late", tmp_path / "m")
    publish(tmp_path / "new", tmp_path / "n")
    assert (tmp_path / "m" / "kept").exists() and (tmp_path / "late").is_dir()
    assert (tmp_path / "n" / "sub" / "file").exists() and not (tmp_path / "new").exists()


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_modes_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        with new_folder(tmp_path / "m") as scratch:
            fill(scratch)
        assert (default_mode(), default_mode(is_folder=True)) == (0o666 & ~mask, 0o777 & ~mask)
        assert os.umask(mask) == mask  # reading it changed nothing
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "m", *(tmp_path / "m").rglob("*"))}
    assert modes == {"m": 0o777 & ~mask, "sub": 0o777 & ~mask, "file": 0o666 & ~mask}


def test_a_read_only_file_is_flushed(tmp_path):
    write_file(tmp_path / "file", b"content")
    (tmp_path / "file").chmod(0o444)
    fsync_file(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize(("number", "is_raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_flushes_no_folders(tmp_path, monkeypatch, number, is_raised):
    def refuse(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    if is_raised:
        with pytest.raises(OSError, match="Input/output"):
            fsync_folder(tmp_path)
    else:
        fsync_folder(tmp_path)


def test_targets_are_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "file", tmp_path / "link"):
        with pytest.raises(OutputExists, match="already exists"):
            refuse_existing(path)
    for path in (tmp_path / "file" / "m", tmp_path / "file" / "x" / "m", tmp_path / ("x" * 300)):
        with pytest.raises(StorageError, match="cannot be written"):
            refuse_existing(path)
    refuse_existing(tmp_path / "a" / "b" / "m")


@pytest.mark.parametrize(
    ("said", "number", "words"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", errno.ENOSPC, "No space left on device"),
        ("InvalidHeader\n  of a tensor", errno.EIO, "InvalidHeader of a tensor"),
    ],
)
def test_the_operating_system_s_error_inside_safetensors(said, number, words):
    with pytest.raises(OSError) as caught, safetensors_errors():
        raise SafetensorError(said)
    assert (caught.value.errno, caught.value.strerror) == (number, words)
