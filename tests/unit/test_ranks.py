"""Several processes of a launcher fail: one of them says why, once, and all end."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest

from tests.support.fakes import TEXTS
from tests.support.forked import run_group
from tests.support.launches import CPU, launcher

SCRIPT = """
import os, sys
from reviewgen.cli import main

everyone, own = ([word for word in words.split("|") if word] for words in sys.argv[1:])
sys.argv[1:] = everyone + (own if os.environ["RANK"] == "1" else [])
main()
"""
FOO = ["--set", "foo"]
NO_SETTING = "error: A setting must have the form group.name=value, as in model.hidden_size=256; got 'foo'."


@pytest.fixture
def train(tmp_path: Path) -> list[str]:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(TEXTS), encoding="utf-8")
    return ["train", "gru-char", "--data", str(corpus), "--steps", "5", "--out", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("everyone", "own", "sentence"),
    [
        (FOO, [], NO_SETTING),
        (["--unknown", "3"], [], "Error: No such option: --unknown"),
        (["--set", "training.precision=fp16"], [], "error: The mixed precision fp16 is not available on cpu: use bf16 or no."),
        ([], FOO, NO_SETTING),
        ([], ["--unknown", "3"], "Error: No such option: --unknown"),
    ],
)
def test_what_is_wrong_is_said_once(everyone: list[str], own: list[str], sentence: str, train: list[str]) -> None:
    """Whether all processes have the error or the second one alone, before they are connected or after it."""
    start = time.monotonic()
    done = run_group(["-c", SCRIPT, "|".join([*train, *everyone]), "|".join(own)], 2, env=CPU, timeout=60)
    assert time.monotonic() - start < 60 and all(process.returncode == 1 for process in done)
    said = "".join(process.stderr for process in done)
    assert sentence in said and said.count("rror: ") == 1 and "Traceback" not in said


def test_under_a_launcher_that_ends_the_others_it_is_said_once(train: list[str], tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(SCRIPT)
    command = [*launcher(2), str(tmp_path / "job.py"), "|".join(train), "|".join(FOO)]
    said = subprocess.run(command, env=CPU | {"PATH": ""}, capture_output=True, text=True, timeout=120).stderr
    assert said.count("error: ") == said.count(NO_SETTING) == 1


KILLED = """
import os, signal, sys
from reviewgen.cli import main, train

if os.environ["RANK"] == "0":
    train._prepare = lambda run: os.kill(os.getpid(), signal.SIGKILL)  # as the system does that is out of memory
sys.argv[1:] = sys.argv[1].split("|")
main()
"""


def test_that_the_first_process_was_lost_is_said_by_another(train: list[str]) -> None:
    command = [sys.executable, "-c", KILLED, "|".join(train)]  # the log level of torch is read when a process imports it
    group = CPU | _master() | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "ACCELERATE_MIXED_PRECISION": "no"}
    killed, other = (
        subprocess.Popen(command, env=group | {"RANK": rank, "LOCAL_RANK": rank}, stdout=PIPE, stderr=PIPE, text=True)
        for rank in "01"
    )
    with killed, other:
        said = other.communicate(timeout=120)[1]
        killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL and other.returncode == 1
    assert said.startswith("error: Another process has ended") and said.count("\n") == 1


WAITING = """
import sys
from datetime import timedelta
from reviewgen.cli.ranks import leave, report
from reviewgen.errors import ProcessLost
from reviewgen.interrupts import begin, caught
from reviewgen.training import process_state

with caught():
    begin()
    print("waiting", flush=True)
    try:
        process_state(timedelta(seconds=float(sys.argv[1])))
    except ProcessLost as problem:
        report(problem)
        leave()
        sys.exit(1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_whose_others_never_come_can_be_interrupted(number: signal.Signals) -> None:
    with _waiting("600") as process:
        _await_connecting(process.pid)
        process.send_signal(number)
        assert process.wait(20) == -number and process.stderr is not None and process.stderr.read() == ""


def test_a_process_whose_others_never_come_says_so() -> None:
    with _waiting("2") as process:
        assert process.wait(60) == 1 and process.stderr is not None
        said = process.stderr.read()
        assert said.startswith("error: The processes could not be connected (") and said.count("\n") == 1


@contextmanager
def _waiting(seconds: str) -> Iterator["subprocess.Popen[str]"]:
    """Start the first of two processes; yield it when it waits for the second one."""
    own = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    command = [sys.executable, "-c", WAITING, seconds]
    with subprocess.Popen(command, env=CPU | _master() | own, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "waiting\n"
            yield process
        finally:
            process.kill()


def _await_connecting(pid: int) -> None:
    """Return when a process has opened the store where the others are to connect."""
    deadline = time.monotonic() + 60
    while not any(each.status == psutil.CONN_LISTEN for each in psutil.Process(pid).net_connections("tcp")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _master() -> dict[str, str]:
    """Return the environment that names an address for the store of the processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
