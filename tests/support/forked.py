"""Runs Python in a separate process, as ``subprocess.run([sys.executable, ...])`` does, without
importing torch each time.

The processes are forked from a server of ``multiprocessing`` that has imported the heavy packages
once. Each has its own environment, working directory, standard streams and exit status. What reads
the environment when it is imported, such as huggingface_hub, is imported again. Tests of what is
imported at start-up, of signals and of closed pipes start real processes.
"""

import atexit
import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.servers import free_port

__all__ = ["run_group", "run_python"]

_PRELOADED = [
    "torch",
    "numba",
    "accelerate",
    "pandas",
    "pyarrow",
    "huggingface_hub",
    "reviewgen.cli",
    "reviewgen.runs.run",
]
# the latter cannot be imported twice, so it is not preloaded
_READ_THE_ENVIRONMENT = ("huggingface_hub", "datasets")
_server = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
_server.set_forkserver_preload(_PRELOADED)


def run_python(
    words: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    input: str = "",
    timeout: float = 300,
    check: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m MODULE ...`` or ``python -c SCRIPT ...`` and return its status, standard
    output and standard error.

    Raises:
        TimeoutError: It did not end in time.
        subprocess.CalledProcessError: ``check`` is true and the status is not 0.
    """
    (done,) = _run_all(words, [os.environ if env is None else env], cwd, input, timeout)
    if check:
        done.check_returncode()
    return done


def run_group(
    words: Sequence[str],
    processes: int,
    *,
    env: Mapping[str, str],
    cwd: Path | str | None = None,
    timeout: float = 300,
) -> "list[subprocess.CompletedProcess[str]]":
    """Run a program in a process group of PyTorch, as a launcher does that leaves the processes
    alone once they are started.

    Raises:
        TimeoutError: One of them did not end in time.
    """
    master = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_MIXED_PRECISION": "no",
    }
    sizes = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return _run_all(words, [{**env, **master, **sizes, **rank} for rank in ranks], cwd, "", timeout)


def _run_all(
    words: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    cwd: Path | str | None,
    input: str,
    timeout: float,
) -> "list[subprocess.CompletedProcess[str]]":
    """Run a program once in each environment, all at the same time."""
    started = []
    done = []
    with tempfile.TemporaryDirectory(prefix="forked-") as scratch:
        for number, env in enumerate(environments):
            streams = [
                str(Path(scratch) / f"{name}{number}") for name in ("stdin", "stdout", "stderr")
            ]
            Path(streams[0]).write_text(input, encoding="utf-8")
            arguments = list(map(str, words)), dict(env), str(cwd or Path.cwd()), streams
            started.append((_server.Process(target=_run, args=arguments), streams))
            started[-1][0].start()
        deadline = time.monotonic() + timeout
        for process, streams in started:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                for other, _ in started:
                    other.kill()
                raise TimeoutError(
                    f"{words} did not end in {timeout:g} s; it printed: {_content(streams[2])}"
                )
            done.append(
                subprocess.CompletedProcess(
                    words, process.exitcode, _content(streams[1]), _content(streams[2])
                )
            )
    return done


def _content(file: str) -> str:
    path = Path(file)
    return path.read_bytes().decode("utf-8", "backslashreplace") if path.exists() else ""


def _run(words: list[str], env: dict[str, str], cwd: str, streams: list[str]) -> None:
    """Become the process: in the forked child."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, (file, flags) in enumerate(
        zip(streams, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)
    ):
        os.dup2(os.open(file, flags, 0o600), number)
    sys.stdin = io.TextIOWrapper(
        io.FileIO(0, closefd=False), encoding="utf-8", errors="surrogateescape"
    )
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8"
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    for name in list(sys.modules):
        if name.partition(".")[0] in _READ_THE_ENVIRONMENT:
            del sys.modules[name]
    status = _execute(words)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _execute(words: list[str]) -> int:
    """Run a module or a script as ``python`` does, and return the exit status."""
    kind, program, *arguments = words
    sys.argv = [kind, *arguments]
    sys.path[:0] = [
        str(Path.cwd()),
        *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
    ]
    try:
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
