"""Runs Python in a separate process, as ``subprocess.run([sys.executable, ...])`` does, without importing torch each time.

The processes are forked from a server of ``multiprocessing`` that has imported the heavy packages once. Each has its own
environment, working directory, standard streams and exit status. What reads the environment when it is imported, such as
huggingface_hub, is imported again. Tests of what is imported at start-up, of signals and of closed pipes start real processes.
"""

import atexit
import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["run_python"]

_PRELOADED = ["torch", "numba", "accelerate", "pandas", "pyarrow", "huggingface_hub", "reviewgen.cli", "reviewgen.runs.training_run"]
_READ_THE_ENVIRONMENT = ("huggingface_hub", "datasets")  # the latter cannot be imported twice, so it is not preloaded
_server = multiprocessing.get_context("forkserver")
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
    """Run ``python -m MODULE ...`` or ``python -c SCRIPT ...`` and return its status, standard output and standard error.

    Raises:
        TimeoutError: It did not end in time.
        subprocess.CalledProcessError: ``check`` is true and the status is not 0.
    """
    with tempfile.TemporaryDirectory(prefix="forked-") as scratch:
        streams = [str(Path(scratch) / name) for name in ("stdin", "stdout", "stderr")]
        Path(streams[0]).write_text(input, encoding="utf-8")
        arguments = list(map(str, words)), dict(os.environ if env is None else env), str(cwd or Path.cwd()), streams
        process = _server.Process(target=_run, args=arguments)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{words} did not end in {timeout:g} s; it printed: {_content(streams[2])}")
        done = subprocess.CompletedProcess(words, process.exitcode, _content(streams[1]), _content(streams[2]))
    if check:
        done.check_returncode()
    return done


def _content(file: str) -> str:
    path = Path(file)
    return path.read_bytes().decode("utf-8", "backslashreplace") if path.exists() else ""


def _run(words: list[str], env: dict[str, str], cwd: str, streams: list[str]) -> None:
    """Become the process: in the forked child."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, (file, flags) in enumerate(zip(streams, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)):
        os.dup2(os.open(file, flags, 0o600), number)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8", errors="surrogateescape")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)), encoding="utf-8", errors="backslashreplace", line_buffering=True
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
    sys.path[:0] = [str(Path.cwd()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
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
