"""What surrounds a command: signals, standard streams that are full, and pipes as inputs."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.inputs import open_input
from reviewgen.interrupts import SIGNALS, begin, caught
from tests.support.fakes import TEXTS, run_command


def test_signals_raise_an_interrupt_inside_a_command_and_are_restored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:
        with pytest.raises(KeyboardInterrupt), caught():
            begin()
            signal.raise_signal(number)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    present = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with caught():  # as nohup sets it
            begin()
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, present)


@pytest.mark.slow
def test_an_interrupt_inside_an_import_and_a_full_output_are_one_sentence(tmp_path: Path) -> None:
    """The import waits in a module that stands before the real one on the path."""
    (tmp_path / "typer.py").write_text(f"import time\nopen({str(tmp_path / 'begun')!r}, 'w').close()\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "reviewgen", "list"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert (process.communicate(timeout=60)[1], process.returncode) == ("Interrupted.\n", 130)
    full = subprocess.run(["sh", "-c", f"{sys.executable} -m reviewgen list > /dev/full"], capture_output=True, text=True)
    assert full.returncode == 1 and full.stderr.count("\n") == 1 and "No space left on device" in full.stderr


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.fixture
def write(fifo: Path) -> Any:
    """Return a function that writes parts to the pipe in a thread, each after a pause."""
    threads = []

    def start(*parts: bytes, pause: float = 0.0) -> None:
        def work() -> None:
            with fifo.open("wb", buffering=0) as file:
                for part in parts:
                    time.sleep(pause)
                    file.write(part)

        threads.append(threading.Thread(target=work))
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
    for use in (
        lambda: reviewgen.train("gru-char", TEXTS, out=tmp_path / "m", steps=1, initial_weights=fifo),
        lambda: list(reviewgen.tune("ngram-char", TEXTS, trials=1, storage=fifo)),
        lambda: reviewgen.load(model).evaluate("/dev/zero"),
    ):
        with pytest.raises(reviewgen.ReviewgenError, match=r"must be a file|is a pipe or a device|is a device"):
            use()


def test_a_pipe_is_waited_for_as_long_as_it_has_a_writer(fifo: Path, write: Any, monkeypatch: Any, caplog: Any) -> None:
    """By a clock that is ten seconds later each time that it is read; without a writer, 30 seconds."""
    monkeypatch.setattr("time.monotonic", itertools.count(step=10.0).__next__)
    with pytest.raises(TimeoutError, match="nothing has opened this pipe for writing"):
        open_input(fifo)
    with pytest.raises(reviewgen.ReviewgenError, match="nothing has opened this pipe for writing"):
        reviewgen.train("ngram-char", fifo)
    caplog.clear()
    parts = [b"1", b"2345" * 30_000]
    write(*parts, pause=1.0)
    with open_input(fifo) as stream:
        assert stream.read() == b"".join(parts)
    assert [record.getMessage()[:23] for record in caplog.records] == ["Waiting until something"]
