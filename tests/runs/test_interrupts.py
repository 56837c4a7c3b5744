"""What surrounds a command: signals, standard streams that are full, and pipes as inputs."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reviewgen.interrupts import SIGNALS, begin, caught
from tests.support.fakes import TEXTS, run_command


def test_signals_raise_an_interrupt_inside_a_command_and_are_restored() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        with pytest.raises(KeyboardInterrupt), caught():
            begin()
            signal.raise_signal(number)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    present = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup sets it
    with caught():
        begin()
        signal.raise_signal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, present)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.fixture
def write(fifo: Path) -> Iterator[Any]:
    """Return a function that writes to the pipe in a thread."""
    threads = []

    def start(content: bytes) -> None:
        threads.append(threading.Thread(target=fifo.write_bytes, args=[content]))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(10)


def test_pipes_are_inputs(model_folder: Any, fifo: Path, write: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def printed(*words: Any) -> tuple[str, str]:
        status, out, err = run_command(monkeypatch, capsys, *words)
        assert status == 0, err
        return out, err

    model, file = model_folder("ngram-char"), tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    write(file.read_bytes())
    piped, _ = printed("evaluate", model, "--data", fifo, "--json")
    assert json.loads(piped) == json.loads(printed("evaluate", model, "--data", file, "--json")[0])
    (tmp_path / "prompts").write_text("The\nA\n")
    expected, _ = printed("generate", model, "--prompts", tmp_path / "prompts", "--seed", 1, "--receipt", tmp_path / "r.jsonl")
    write(b"The\nA\n")
    assert printed("generate", model, "--prompts", fifo, "--seed", 1)[0] == expected
    write((tmp_path / "r.jsonl").read_bytes())
    assert "2 of 2 texts are identical" in printed("replay", fifo, "--model", model)[1]
