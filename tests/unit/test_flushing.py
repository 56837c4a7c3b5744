"""Results that are forced to disk while the next are computed: in order, complete after a wait, and no error lost."""

import errno
import threading
from pathlib import Path

import pytest

from reviewgen.errors import StorageError
from reviewgen.flushing import Flusher
from reviewgen.storage import write_new
from reviewgen.training import Processes
from reviewgen.training.rounds import share_tasks
from reviewgen.writing.parts import TextPart


def test_functions_are_called_in_order_in_another_thread() -> None:
    flusher, called = Flusher(), []
    for number in range(20):
        flusher(lambda number=number: called.append((number, threading.current_thread())))
    flusher.wait()
    assert [number for number, _ in called] == list(range(20))
    assert threading.current_thread() not in {thread for _, thread in called}
    flusher.close()


def test_the_results_of_a_round_are_complete_at_its_end(tmp_path: Path) -> None:
    flusher, release, seen = Flusher(), threading.Event(), []

    def work(number: int) -> None:
        flusher(release.wait)  # a slow disk
        write_new(tmp_path / str(number), lambda file: file.write_bytes(b"x"), flusher)
        seen.append((tmp_path / str(number)).exists())
        if number == 1:
            release.set()

    share_tasks(Processes(), range(2), work, tmp_path, flush=flusher.wait)
    assert seen == [False, False] and sorted(file.name for file in tmp_path.iterdir()) == ["0", "1"]
    flusher.close()


def test_a_full_disk_is_told_and_nothing_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("reviewgen.storage.fsync_file", full)
    flusher = Flusher()

    def work(number: int) -> None:
        write_new(tmp_path / str(number), lambda file: file.write_bytes(b"x"), flusher)

    with pytest.raises(StorageError, match=r"No space left"):
        share_tasks(Processes(), range(3), work, tmp_path, flush=flusher.wait)
    flusher.close()
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == []


def test_what_follows_a_result_that_was_not_written_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a part would make it complete without its hashes."""

    def full(file: Path) -> None:
        if "hashes" in file.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("reviewgen.storage.fsync_file", full)
    flusher, part = Flusher(), TextPart(tmp_path, 0)
    part.write([{"text": "a"}], lambda path, write: write_new(path, write, flusher))
    with pytest.raises(OSError, match=r"No space left"):
        flusher.wait()
    flusher.close()
    assert not part.rows_file.exists()
