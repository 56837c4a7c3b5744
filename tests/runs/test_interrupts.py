"""What surrounds a command: signals, standard streams that are full, and pipes as inputs."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
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
@pytest.mark.parametrize(("name", "module"), [("SIGTERM", "typer"), ("SIGINT", "signal")])
def test_an_interrupt_inside_an_import_is_one_sentence(name: str, module: str, tmp_path: Path) -> None:
    """The import waits in a module that stands before the real one on the path; ``signal`` is imported before all others."""
    (tmp_path / f"{module}.py").write_text(f"import time\nopen({str(tmp_path / 'begun')!r}, 'w').close()\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "reviewgen", "list"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_DFL),  # which nohup would ignore
    )
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "Interrupted.\n")


@pytest.mark.slow
def test_a_full_standard_output_is_one_sentence_and_a_closed_pipe_none() -> None:
    def shell(command: str) -> "subprocess.CompletedProcess[str]":
        line = command.replace("RG", f"{sys.executable} -m reviewgen")
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120)

    full = shell("RG list > /dev/full")
    assert full.returncode == 1 and full.stderr.count("\n") == 1 and "No space left on device" in full.stderr
    cut = shell("RG list --json | head -1")
    assert cut.stdout.startswith("{") and not cut.stderr


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


def test_a_pipe_that_nothing_opens_is_given_up(fifo: Path, model_folder: Any, monkeypatch: Any, capsys: Any) -> None:
    """After 30 seconds, of a clock that is ten seconds later each time that it is read."""
    monkeypatch.setattr("time.monotonic", itertools.count(step=10.0).__next__)
    readers: list[Callable[[], Any]] = [
        lambda: reviewgen.train("ngram-char", fifo),
        lambda: open_input(fifo),
    ]
    for read in readers:
        with pytest.raises((reviewgen.ReviewgenError, TimeoutError), match="nothing has opened this pipe for writing"):
            read()
    status, _, err = run_command(monkeypatch, capsys, "generate", model_folder("ngram-char"), "--prompts", fifo)
    assert status in (1, 2) and "nothing has opened this pipe for writing" in err


def test_a_pipe_is_waited_for_as_long_as_it_has_a_writer(fifo: Path, write: Any, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr("time.monotonic", itertools.count(step=10.0).__next__)
    content = b"12345" * 30_000
    for parts in ([content[:1], content[1:]], [b""]):
        write(*parts, pause=1.0)
        with open_input(fifo) as stream:
            assert stream.read() == b"".join(parts)
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == 2 and all("Waiting until something" in note for note in notes)


def test_a_receipt_of_another_form_is_refused_and_kept(model_folder: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    model, receipt = model_folder("ngram-char"), tmp_path / "r.jsonl"
    assert run_command(monkeypatch, capsys, "generate", model, "--receipt", receipt)[0] == 0
    content = json.loads(receipt.read_text(encoding="utf-8"))
    for wrong in ([32], None, "32", 7):
        content["model"]["bits"] = wrong
        receipt.write_text(json.dumps(content), encoding="utf-8")
        status, _, err = run_command(monkeypatch, capsys, "replay", receipt)
        assert status == 1 and "32, 16 or 8" in err
    receipt.write_text('{"seed": 5}\n', encoding="utf-8")
    (tmp_path / "out.jsonl").touch()
    status, _, err = run_command(monkeypatch, capsys, "generate", model, "--out", tmp_path / "out.jsonl", "--receipt", receipt)
    assert status == 2 and "is not a receipt of this run" in err and receipt.read_text(encoding="utf-8") == '{"seed": 5}\n'
    for more in ([], ["-n", "2"], ["--json"]):
        status, _, err = run_command(monkeypatch, capsys, "generate", model, "--max-time", "0.000001", *more)
        assert status == 1 and "--max-time was over" in err
