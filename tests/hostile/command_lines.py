"""Command lines: every command with options, files, standard streams and environment variables that are not what they should be.

Most cases run in a child that is forked from this process after the imports, some in a process of their own. Judged by: the exit
status, 0, 1, 2 or 130; no traceback and no control characters on standard error; a message below 500 characters; 20 seconds, of
which the last ten are after Ctrl-C.
"""

import contextlib
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hostile.command_bases import BASES, ENVIRONMENT, IMPORTED, NOT_TRIED_AS_THEY_STAND
from tests.hostile.frame import Fuzzer, Outcome
from tests.hostile.odd_files import ODD_FILES, write_odd_files
from tests.hostile.values import WORDS
from tests.support.loopback_hub import TOKEN, LoopbackHub

__all__ = ["FUZZER", "CommandLines"]

LIMIT, SECONDS = 500, 20.0
STATUSES = (0, 1, 2, 130)
MADE = {"n": "train", "g": "train gru", "c": "train conditions", "s": "prepare"}
"""What the cases use, and the command lines that make it."""

TEXTS = "".join(
    f"The {noun} was {kind} number {i}.\n" for noun in ("food", "band") for kind in ("good", "bad") for i in range(12)
)
ARGUMENTS = [word for word in WORDS if "\x00" not in word and "\ud800" not in word] + [
    *("\udcff", "--", "-", "--json", "-h", "jsonl", "parquet", "[/x]", "[/x]/y", "memory://a", "file:///dev/null/x", "memory:"),
]


class CommandLines:
    """The fuzzer."""

    name = "command_lines"

    def prepare(self, folder: Path) -> None:
        """Start a Hub, import what the cases need, then train three small models and prepare a store in children."""
        self.folder = folder
        self.hub = LoopbackHub({})
        self.hub.__enter__()
        own = {"REVIEWGEN_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        environment = self.hub.environment(folder / "home", TOKEN) | own
        os.environ.clear()
        os.environ.update(environment)
        _write_inputs(folder)
        for module in IMPORTED:
            importlib.import_module(module)
        self.options = _list_options()
        receipts = "generate n --receipt receipts.jsonl --max-new-tokens 5"
        lines = {name: BASES[base].replace(" new", f" {name}") for name, base in MADE.items()}
        for line in (*lines.values(), receipts):
            status, said = self._forked(line.split(), folder, {}, seconds=300)
            assert status == 0, said
        self.files = {file.name: file.read_bytes() for file in (folder / "n").iterdir()}

    def run(self, seed: int) -> Outcome:
        """Run one command line."""
        rng = random.Random(seed)
        place = self.folder / "place"
        place.mkdir()
        try:
            _write_inputs(place)
            self.hub.repositories = LoopbackHub({("model", "bob/m"): {"main": self.files}}).repositories
            write_odd_files(place, self.folder / "n", self.folder / "receipts.jsonl")
            name = rng.choice(sorted(BASES))
            works = name not in NOT_TRIED_AS_THEY_STAND and rng.random() < 0.03  # as it stands
            words = self._base(name) if works else self._command_line(rng, name)
            streams = {} if works else self._streams(rng)
            variable = rng.choice(ENVIRONMENT) if not works and rng.random() < 0.15 else None
            is_real = rng.random() < (0.5 if variable else 0.04)
            run = self._started if is_real else self._forked
            began = time.monotonic()
            status, said = run(words, place, streams, dict([variable] if variable else []))
            if works and status != 0:
                return Outcome("failed", f"{name}, as it stands", f"status {status}\n{said[-2000:]}")
            case = " ".join(_quote(word) for word in words) + "".join(f" {key}:{value}" for key, value in streams.items())
            return _judge(case + (f" {variable}" if variable else ""), status, said, streams, time.monotonic() - began)
        finally:
            for left in (place, self.folder / "home"):
                shutil.rmtree(left, ignore_errors=True)
            self.hub.uploads.clear()
            self.hub.requests.clear()

    def close(self) -> None:
        """Stop the Hub."""
        self.hub.__exit__(None, None, None)

    def _base(self, name: str) -> list[str]:
        names = {"MODEL": "n", "NET": "g", "STARS": "c", "STORE": "s", "RECEIPTS": "receipts.jsonl"}
        paths = {word: str(self.folder / own) for word, own in names.items()}
        url = (self.folder / "place").as_uri()
        return [paths.get(word, word).replace("PLACE_URL", url) for word in BASES[name].split()]

    def _command_line(self, rng: random.Random, name: str) -> list[str]:
        words = self._base(name)
        first = 2 if name.startswith("plugin") else 1
        for _ in range(rng.choice([1, 1, 2])):
            kind = rng.random()
            if kind < 0.45 and len(words) > first:  # another value for a word of the command line
                words[rng.randrange(first, len(words))] = self._word(rng)
            elif kind < 0.9:
                option, takes_value = rng.choice(self.options[" ".join(words[:first]) if first == 2 else words[0]])
                words += [option, self._word(rng)] if takes_value else [option]
            elif kind < 0.95 and len(words) > first:
                del words[rng.randrange(first, len(words))]
            else:
                words.append(self._word(rng))
        return words

    def _word(self, rng: random.Random) -> str:
        return rng.choice(ODD_FILES) if rng.random() < 0.3 else rng.choice(ARGUMENTS)

    def _streams(self, rng: random.Random) -> dict[str, str]:
        streams = {"stdin": rng.choice(["empty", "text", "binary", "closed"])}
        if rng.random() < 0.15:
            streams["stdout"] = rng.choice(["closed", "full", "broken"])
        if rng.random() < 0.05:
            streams["stderr"] = rng.choice(["closed", "full"])
        return streams

    def _forked(
        self, words: list[str], place: Path, streams: dict[str, str], env: dict[str, str] | None = None, seconds: float = SECONDS
    ) -> tuple[int | None, str]:
        """Run a command line in a child of this process."""
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                os.chdir(place)
                os.environ.update(env or {})
                _redirect(streams, self.folder)
                status = _main(words)
            except BaseException:
                status = 77
            os._exit(status)
        return _wait(child, seconds), _said(self.folder)

    def _started(
        self, words: list[str], place: Path, streams: dict[str, str], env: dict[str, str] | None = None
    ) -> tuple[int | None, str]:
        """Run a command line in a process of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "reviewgen", *map(os.fsencode, words)],  # type: ignore[list-item]  # str and bytes are both taken
            cwd=place,
            env={**os.environ, **(env or {}), "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
            preexec_fn=lambda: _redirect(streams, self.folder, is_python=False),
        )
        return _wait(process.pid, SECONDS), _said(self.folder)


def _write_inputs(folder: Path) -> None:
    """Write what the commands that work read."""
    (folder / "texts.txt").write_text(TEXTS, encoding="utf-8")
    rows = "".join(f"{number % 5 + 1},{text}\n" for number, text in enumerate(TEXTS.splitlines()))
    (folder / "rows.csv").write_text(f"stars,text\n{rows}", encoding="utf-8")
    (folder / "schema.json").write_text('{"stars": {"1": 1, "5": 3}}', encoding="utf-8")


def _main(words: list[str]) -> int:
    """Run a command as ``python -m reviewgen`` does; return its exit status, 99 after a traceback."""
    import traceback

    from reviewgen.__main__ import main

    sys.argv = ["reviewgen", *words]
    try:
        main()
    except SystemExit as end:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        with contextlib.suppress(Exception):
            traceback.print_exc()
        return 99
    return 0


def _redirect(streams: dict[str, str], folder: Path, is_python: bool = True) -> None:
    """Set the standard streams of a child."""
    read, write = os.pipe()
    os.close(read)
    inputs = {"empty": b"", "text": b"food\n1\n\nq\n", "binary": b"\xff\xfe\x00\x80\n" * 50}
    (folder / "stdin").write_bytes(inputs.get(streams.get("stdin", "empty"), b""))
    (folder / "stderr").unlink(missing_ok=True)
    opened = [os.open(folder / "stdin", os.O_RDONLY)]
    for name in ("stdout", "stderr"):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        kind = streams.get(name)
        opened.append(
            os.open("/dev/full", os.O_WRONLY)
            if kind == "full"
            else write
            if kind == "broken"
            else os.open(folder / name, flags, 0o600)
        )
    for number, handle in enumerate(opened):
        os.dup2(handle, number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if streams.get(name) == "closed":
            os.close(number)
    if is_python:
        os.environ.setdefault("PYTHONIOENCODING", "utf-8")
        for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
            is_open = streams.get(name) != "closed"
            stream = open(number, mode, encoding="utf-8", closefd=False) if is_open else None  # noqa: SIM115 (of the process)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _wait(child: int, seconds: float) -> int | None:
    """Return the exit status of a child; Ctrl-C at half of the time, and None if it does not end in it."""
    began, is_interrupted = time.monotonic(), False
    while (passed := time.monotonic() - began) < seconds:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if passed > seconds / 2 and not is_interrupted:
            os.kill(child, signal.SIGINT)
            is_interrupted = True
        time.sleep(0.005 if passed < 1 else 0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _said(folder: Path) -> str:
    file = folder / "stderr"
    return file.read_bytes().decode("utf-8", "backslashreplace") if file.exists() else ""


def _judge(case: str, status: int | None, said: str, streams: dict[str, str], seconds: float) -> Outcome:
    """Return the outcome of a case."""
    detail = f"status {status} after {seconds:.1f} s\n{said[-3000:]}"
    problems = [
        status not in STATUSES,
        "Traceback" in said or "Exception ignored" in said,
        any(character in said for character in "\x1b\x9b\x07\u202e")
        and "FORCE_COLOR" not in case
        and "TTY_COMPATIBLE" not in case,
        any(len(line) > LIMIT for line in said.splitlines() if line.startswith("error:")),
        status in (1, 2) and not said.strip() and "stderr" not in streams and streams.get("stdout") != "broken",
    ]
    if any(problems):
        return Outcome("failed", case, f"{[number for number, each in enumerate(problems) if each]} {detail}")
    return Outcome("changed" if status == 0 else "clean", case, said[-LIMIT:])


def _list_options() -> dict[str, list[tuple[str, bool]]]:
    """Return the options of each command, and whether they take a value."""
    import typer.main

    from reviewgen.cli import app

    def read(command: Any, name: str) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
        if hasattr(command, "commands"):
            for own, each in command.commands.items():
                yield from read(each, f"{name} {own}".strip())
            return
        options = [
            (option, not parameter.is_flag)
            for parameter in command.params
            if hasattr(parameter, "is_flag")
            for option in parameter.opts
        ]
        yield name, [each for each in options if each[0].startswith("-")] or [("--help", False)]

    return dict(read(typer.main.get_command(app), ""))


def _quote(word: str) -> str:
    return word if word.isprintable() and len(word) < 60 and " " not in word and word else ascii(word)[:60]


FUZZER: Fuzzer = CommandLines()
