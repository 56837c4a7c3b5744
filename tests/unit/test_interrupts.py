"""What surrounds a command: interrupts in its first moments, and standard streams that are closed or full."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import reviewgen
from reviewgen import inputs
from tests.support.forked import run_python

TEXTS = [f"The {noun} was good {i}." for noun in ("food", "band") for i in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streams")
    reviewgen.train("ngram-char", TEXTS, out=root / "m")
    (root / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    run_python(["-m", "reviewgen", "generate", "m", "--out", "texts.jsonl", "--receipt", "r.jsonl"], cwd=root, check=True)
    return root


def shell(command: str, folder: Path, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run a line of bash in which RG is the command."""
    line = command.replace("RG", f"{sys.executable} -m reviewgen")
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize(
    ("name", "module"), [("SIGINT", "typer"), ("SIGTERM", "typer"), ("SIGHUP", "typer"), ("SIGINT", "signal")]
)
def test_an_interrupt_inside_an_import_is_one_sentence(name: str, module: str, tmp_path: Path) -> None:
    """The import waits in a module that stands before the real one on the path, and says that it has begun.

    ``signal`` is imported before there is a handler.
    """
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


def test_a_signal_that_is_ignored_stays_ignored(folder: Path) -> None:
    """As with nohup."""
    done = shell("trap '' HUP; RG list & sleep 0.1; kill -HUP $!; wait $!", folder)
    assert done.returncode == 0 and "ngram-char" in done.stdout


def test_closed_and_full_streams(folder: Path) -> None:
    cases = {
        "RG generate m >&-": (1, "Standard output cannot be written: it is closed."),
        "RG generate m -n 3 --json >&-": (1, "Standard output cannot be written: it is closed."),
        "RG generate --help >&-": (1, "Standard output cannot be written: it is closed."),
        "RG explain m > /dev/full": (1, "Standard output cannot be written: No space left on device."),
        "RG list > /dev/full": (1, "Standard output cannot be written: No space left on device."),
        "RG evaluate m --data - <&-": (1, "Standard input is empty"),
        "printf '\\xff' | RG evaluate m --data -": (1, "Standard input is not UTF-8"),
    }
    for command, (status, sentence) in cases.items():
        done = shell(command, folder)
        assert done.returncode == status and sentence in done.stderr, (command, done)
        assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    cut = shell("RG list --json | head -1", folder)
    assert cut.stdout.startswith("{") and not cut.stderr  # the status depends on how much was written before
    played = shell("RG play m --prompt The <&-", folder)
    assert played.returncode == 0 and played.stdout.endswith("The\n")
    for dropped in ("2>&-", "2>/dev/full"):
        assert shell(f"RG evaluate m --data texts.txt {dropped}", folder).returncode == 0


PRINTING = {
    "list": "",
    "settings": "ngram-char",
    "doctor": "m",
    "plugin": "check char",
    "prepare": "texts.txt --preset ngram-char --out OUT",
    "train": "ngram-char --data texts.txt --out OUT",
    "plot": "m --out OUT.png",
    "sweep": "ngram-char --data texts.txt --set model.order=2,3",
    "tune": "ngram-char --data texts.txt --trials 1",
    "tune-sampling": "--help",
    "blend": "m m --out OUT",
    "compare": "m --data texts.txt",
    "generate": "m --out OUT --format jsonl",
    "replay": "r.jsonl",
    "play": "m --prompt The --json",
    "graph": "m",
    "evaluate": "m --data texts.txt",
    "score": "m --data texts.txt --out OUT",
    "novelty": "m --text food",
    "explain": "m",
    "export": "m --html OUT.html",
    "push": "--help",
    "pull": "--help",
    "serve": "--help",
    "demo": "--help",
}
"""Arguments with which each command prints; of five it is the help, as they need a network, a server or many texts."""

REDIRECTED = """
import io, os, runpy, sys
kind, *words = sys.argv[1:]
if kind == "full":
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)))
else:
    os.close(1), os.close(2)
    sys.stdout = sys.__stdout__ = sys.stderr = sys.__stderr__ = None
sys.argv = ["reviewgen", *words]
runpy.run_module("reviewgen", run_name="__main__")
"""


def test_each_command_has_arguments() -> None:
    from reviewgen.cli import app

    commands = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert commands == PRINTING.keys()


@pytest.mark.parametrize("command", PRINTING)
def test_output_that_is_lost_is_a_failure(command: str, folder: Path) -> None:
    """One sentence if standard output is full, nothing if it is closed and so is standard error; the status is 1."""
    said = {}
    for kind in ("full", "closed"):
        words = PRINTING[command].replace("OUT", f"{command}-{kind}").split()
        done = run_python(["-c", REDIRECTED, kind, command, *words], cwd=folder)
        assert done.returncode == 1, (kind, done)
        assert "Traceback" not in done.stderr and not done.stdout
        said[kind] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    sentence = "error: Standard output cannot be written: No space left on device. Redirect it to a file or a terminal."
    assert said == {"full": [sentence], "closed": []}


def test_pipes_are_sources(folder: Path) -> None:
    expected = json.loads(shell("RG evaluate m --data texts.txt --json", folder).stdout)
    for command in ("RG evaluate m --data <(cat texts.txt) --json", "cat texts.txt | RG evaluate m --data /dev/stdin --json"):
        assert json.loads(shell(command, folder).stdout) == expected
    device = shell("RG evaluate m --data /dev/zero", folder)
    assert device.returncode == 1 and "is a device" in device.stderr


def test_a_pipe_that_nothing_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reviewgen.cli.sampling import read_prompts
    from reviewgen.receipts import read_receipts
    from reviewgen.serving.keys import read_keys

    monkeypatch.setattr(inputs, "_SECONDS", 0.3)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    readers = {
        "--data": lambda: reviewgen.train("ngram-char", fifo, out=tmp_path / "m"),
        "--prompts": lambda: read_prompts("", fifo),
        "replay": lambda: list(read_receipts(fifo)),
        "--api-key-file": lambda: read_keys(fifo),
    }
    for read in readers.values():
        with pytest.raises(reviewgen.ReviewgenError, match="nothing has opened this pipe for writing"):
            read()


def test_a_pipe_is_waited_for_as_long_as_it_has_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inputs, "_SECONDS", 0.2)
    monkeypatch.setattr(inputs, "_NOTE_SECONDS", 0.4)
    fifo, content = tmp_path / "fifo", b"12345" * 30_000
    os.mkfifo(fifo)

    def write_late(parts: list[bytes]) -> None:
        with fifo.open("wb", buffering=0) as file:
            for part in parts:
                time.sleep(1.2)
                file.write(part)

    for parts in ([content[:1], content[1:]], [b""]):
        writer = threading.Thread(target=write_late, args=[parts])
        writer.start()
        with inputs.open_input(fifo) as stream:
            assert stream.read() == b"".join(parts)
        writer.join()
    notes = [record.getMessage() for record in caplog.records]
    assert notes == [f"Waiting until something is written to {fifo} ..."] * 2
    with pytest.raises(TimeoutError, match=r"nothing has opened this pipe for writing in 0\.2 seconds"):
        inputs.open_input(fifo)


def test_a_file_that_is_read_twice_is_not_a_pipe(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(reviewgen.ReviewgenError, match="initial_weights must be a file"):
        reviewgen.train("gru-char", TEXTS, out=tmp_path / "m", steps=1, initial_weights=fifo)
    with pytest.raises(reviewgen.ReviewgenError, match="is a pipe or a device"):
        list(reviewgen.tune("ngram-char", TEXTS, trials=1, storage=fifo))


def test_prompts_and_receipts_from_pipes(folder: Path) -> None:
    piped = shell("printf 'The\\nA\\n' | RG generate m --prompts /dev/stdin --receipt piped.jsonl --seed 1", folder)
    assert shell("RG generate m --prompts <(printf 'The\\nA\\n') --seed 1", folder).stdout == piped.stdout
    assert "2 of 2 texts are identical" in shell("RG replay <(cat piped.jsonl)", folder).stderr


def test_time_that_is_over_before_the_first_token_is_said(folder: Path) -> None:
    for more in ([], ["-n", "2"], ["--json"]):
        done = run_python(["-m", "reviewgen", "generate", "m", "--max-time", "0.000001", *more], cwd=folder)
        assert done.returncode == 1 and "--max-time was over before the first token" in done.stderr


def test_weights_of_any_size(folder: Path, tmp_path: Path) -> None:
    parts = [reviewgen.load(folder / "m")] * 2
    assert reviewgen.blend(parts, [1e308, 1e308]).training["weights"]["method"] == "given"
    with pytest.raises(reviewgen.ReviewgenError, match="leave that model out"):
        reviewgen.blend(parts, [1e308, 5e-324])


def test_a_receipt_with_other_bits(folder: Path, tmp_path: Path) -> None:
    run_python(["-m", "reviewgen", "generate", "m", "--receipt", tmp_path / "r.jsonl"], cwd=folder, check=True)
    receipt = json.loads((tmp_path / "r.jsonl").read_text(encoding="utf-8"))
    for wrong in ([32], None, "32", 7):
        receipt["model"]["bits"] = wrong
        (tmp_path / "w.jsonl").write_text(json.dumps(receipt), encoding="utf-8")
        done = run_python(["-m", "reviewgen", "replay", tmp_path / "w.jsonl"], cwd=folder)
        assert done.returncode == 1 and "its bits must be 32, 16 or 8" in done.stderr and "Traceback" not in done.stderr


def test_receipts_that_are_something_else_are_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "seed").write_text('{"seed": 5}\n', encoding="utf-8")
    (tmp_path / "out.jsonl").touch()
    done = run_python(
        ["-m", "reviewgen", "generate", "m", "--out", tmp_path / "out.jsonl", "--receipt", tmp_path / "seed"], cwd=folder
    )
    assert done.returncode == 2 and "is not a receipt of this run" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "seed").read_text(encoding="utf-8") == '{"seed": 5}\n'
