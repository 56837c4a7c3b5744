"""Command lines: every command with options, files and standard streams that are not what they
should be.

Each runs in a child that is forked after the imports. It ends within the limit with status 0, 1, 2
or 130, without a traceback or control characters on standard error, and its message is short.
"""

import functools
import gzip
import os
import random
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import typer.main

from reviewgen.cli import app, main
from tests.hostile.calls import WORDS
from tests.hostile.frame import Fuzzer, in_child
from tests.support.fakes import TEXTS
from tests.support.models import make_model

BASES = (
    "train ngram-char --data texts.txt --out new --steps 1",
    "train gru-char --data rows.csv --out new --steps 1 --set model.hidden_size=8",
    "prepare texts.txt --preset gru-char --out new",
    "settings gru-char",
    "plot NET --out a.svg",
    "sweep ngram-char --data texts.txt --set model.order=2,3 --steps 1",
    "ablate ngram-char --data texts.txt",
    "tune ngram-char --data texts.txt --trials 1 --steps 1",
    "tune-sampling MODEL --data texts.txt --texts 20",
    "blend MODEL MODEL --out new",
    "compare MODEL --data texts.txt",
    "generate MODEL --max-new-tokens 5",
    "generate NET -n 2 --max-new-tokens 5 --out o.jsonl --receipt r.jsonl",
    "generate NET -n 3 --max-new-tokens 5 --format jsonl --out new",
    "replay texts.txt",
    "play MODEL",
    "graph NET --out g.svg",
    "evaluate MODEL --data texts.txt",
    "score MODEL --data texts.txt --out new.parquet",
    "novelty MODEL --text food",
    "explain NET",
    "export NET --html p.html",
    "list",
    "plugin new mingru --model",
)
ODD_FILES = {
    "empty.txt": b"",
    "binary.txt": bytes(range(256)) * 20,
    "escapes.txt": "a\x1b[31mred\x07 \u202eabc\n".encode() * 5,
    "ragged.csv": b'a,b\n1,2\n3,4,5,6\n"unclosed\n',
    "digits.json": b'[{"text": "a", "n": ' + b"9" * 90_000 + b"}]",
    "deep.json": b"[" * 100_000,
    "lines.jsonl": b'{"text": "a"}\n{"text": 3}\nnot json\n',
    "cut.gz": gzip.compress(b"The food was good.\n" * 99)[:40],
    "not.parquet": b"PAR1 no",
    "not.zip": b"PK\x03\x04no",
}
NAMES = [*ODD_FILES, "folder", "pipe", "loop", "none.txt", "/dev/stdin", "texts.txt", "rows.csv"]
ARGUMENTS = [word for word in WORDS if "\x00" not in word and "\ud800" not in word] + [
    "--",
    "-",
    "-h",
    "--json",
    "\udcff",
]


class Commands(Fuzzer):
    """The fuzzer."""

    def prepare(self, folder: Path) -> None:
        """Train two small models and write the files that the cases read."""
        os.environ["HF_HUB_OFFLINE"] = "1"
        self.folder = folder
        self.inputs = folder / "inputs"
        for name in ("ngram-char", "gru-char"):
            in_child(functools.partial(make_model, name, folder / name))
        self.inputs.mkdir()
        (self.inputs / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
        rows = "\n".join(f"{number % 5 + 1},{text}" for number, text in enumerate(TEXTS))
        (self.inputs / "rows.csv").write_text(f"stars,text\n{rows}\n", encoding="utf-8")
        for name, content in ODD_FILES.items():
            (self.inputs / name).write_bytes(content)
        self.options = {
            name: options_of(command)
            for name, command in typer.main.get_command(app).commands.items()
        }  # type: ignore[attr-defined]

    def run(self, seed: int) -> tuple[str, str]:
        """Run one command line."""
        source = random.Random(seed)
        paths = {
            "MODEL": str(self.folder / "ngram-char" / "model"),
            "NET": str(self.folder / "gru-char" / "model"),
        }
        words = [paths.get(word, word) for word in source.choice(BASES).split()]
        for _ in range(source.choice([1, 1, 2])):
            word = source.choice(NAMES if source.random() < 0.3 else ARGUMENTS)
            if source.random() < 0.5 and len(words) > 1:
                words[source.randrange(1, len(words))] = word
            else:
                option, takes_value = source.choice(self.options[words[0]])
                words += [option, word] if takes_value else [option]
        place = self.folder / "place"
        shutil.copytree(self.inputs, place)
        (place / "folder").mkdir()
        (place / "loop").symlink_to("loop")
        os.mkfifo(place / "pipe")
        try:
            status, said = self._fork(
                words, place, source.choice([b"", b"food\n1\nq\n", b"\xff\xfe\x00\n" * 50])
            )
        finally:
            shutil.rmtree(place)
        problems = [
            status not in (0, 1, 2, 130),
            "Traceback" in said,
            any(character in said for character in "\x1b\x07\u202e"),
            any(len(line) > 500 for line in said.splitlines() if line.startswith("error:")),
            status in (1, 2) and not said.strip(),
        ]
        return ascii(words)[:300], (
            f"status {status}, {problems}\n{said[-2000:]}" if any(problems) else ""
        )

    def _fork(self, words: list[str], place: Path, stdin: bytes) -> tuple[int, str]:
        """Run a command line in a child; return its exit status and standard error."""
        (self.folder / "stdin").write_bytes(stdin)
        child = os.fork()
        if child == 0:
            os.chdir(place)
            os.dup2(os.open(self.folder / "stdin", os.O_RDONLY), 0)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdin, sys.stdout, sys.stderr = (
                os.fdopen(n, mode, encoding="utf-8") for n, mode in enumerate("rww")
            )
            sys.argv = ["reviewgen", *words]
            status = 0
            try:
                main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                traceback.print_exc()
                status = 99
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status, (self.folder / "stderr").read_bytes().decode("utf-8", "backslashreplace")


def options_of(command: Any) -> list[tuple[str, bool]]:
    """Return the options of a command, and whether they take a value."""
    named: list[tuple[str, bool]] = []
    for each in getattr(command, "params", []):
        if hasattr(each, "is_flag"):
            named += [(option, not each.is_flag) for option in each.opts]
    return [each for each in named if each[0].startswith("-")] or [("--help", False)]


FUZZER = Commands()
