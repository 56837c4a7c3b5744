"""What others have written cannot steer a terminal: control characters are printed as escapes, in every place of the output."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import reviewgen
from reviewgen.cli import console
from tests.support.forked import run_python

HOSTILE = {
    "a colour": "\x1b[31mred",
    "a window title": "\x1b]0;title\x07",
    "a link": "\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\",
    "a bell": "ding\x07",
    "a carriage return": "safe\rdanger",
    "C1": "\x9b2Jcleared",
    "a line": "one\nerror: two",
    "bidi overrides": "user\u202etxt.exe\u2066x\u2069",
    "nothing that is shown": "a\ufeffb\u2060c\U000e0041",
    "a line separator": "one\u2028two",
}
STEERING = [
    *map(chr, range(32)),
    *map(chr, range(127, 160)),
    "\u202e",
    "\u2066",
    "\u2069",
    "\ufeff",
    "\u2060",
    "\U000e0041",
    "\u2028",
]
KEPT = ["café", "映画", "👩‍👧 family", "ﬁne", "שלום", "مرحبا", "नमस्ते", "a\u00adb", "naïve — “quoted”"]


def steers(text: str, allowed: str = "\n") -> list[str]:
    """Return the characters of a text that a terminal would obey."""
    return [character for character in STEERING if character in text and character not in allowed]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_each_is_printed_as_an_escape(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert steers(console.escape(text), "") == []
    console.echo(text)
    console.note(text)
    console.error(text)
    shown = capsys.readouterr()
    assert steers(shown.out) == steers(shown.err) == []
    assert shown.out.count("\n") == 1 and shown.err.count("\n") == 2
    assert console.escape(console.escape(text)) == console.escape(text)


@pytest.mark.parametrize("text", KEPT)
def test_text_in_any_script_is_kept(text: str) -> None:
    assert console.escape(text) == text


def test_tables_are_escaped_and_their_own_colours_remain() -> None:
    from rich.table import Table
    from rich.text import Text

    file = io.StringIO()
    terminal = console.TerminalConsole(file=file, force_terminal=True, color_system="standard", width=200, _environ={})
    table = Table("column")
    for text in HOSTILE.values():
        table.add_row(Text(text, style="red"))
    terminal.print(table)
    assert "\x1b[31m" in file.getvalue()  # the style
    assert steers(file.getvalue().replace("\x1b[31m", "").replace("\x1b[0m", "").replace("\x1b[1m", "")) == []
    assert "\\x1b[31mred" in file.getvalue()


class Terminal(io.StringIO):
    """A standard output that is a terminal."""

    def isatty(self) -> bool:
        """Return that it is."""
        return True


def test_generated_text_keeps_its_lines_and_is_untouched_where_it_is_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "one\n\ttwo \x1b[31m\u202e"
    for stream, expected in ((io.StringIO(), text), (Terminal(), "one\n\ttwo \\x1b[31m\\u202e")):
        monkeypatch.setattr(sys, "stdout", stream)
        console.echo_text(text, end="")
        assert stream.getvalue() == expected


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_stays_the_same_value(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stdout", stream)
        console.print_json({"text": text})
        assert json.loads(stream.getvalue()) == {"text": text}
    assert steers(stream.getvalue()) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("console")
    texts = [
        f"The {noun} was \x1b[31m{kind}\u202e {i}." for noun in ("food", "band") for kind in ("good", "bad") for i in range(9)
    ]
    reviewgen.train("ngram-char", texts, out=root / "m", clean=False)
    rows = [f'{i % 2},"{text}"' for i, text in enumerate(texts)]
    (root / "odd.csv").write_text("\n".join(["st\x1b]0;x\x07ars,bo\x1b[2Jdy", *rows]), encoding="utf-8")
    return root


COMMANDS: list[tuple[int, list[str]]] = [
    (0, ["evaluate", "m", "--data", "odd.csv"]),
    (1, ["evaluate", "m", "--data", "odd.csv", "--text-column", "te\x1b[31mxt"]),
    (0, ["train", "ngram-char", "--data", "odd.csv", "--out", "no\x1b[31mne/x", "--steps", "1"]),
    (2, ["generate", "no\x1b]0;x\x07ne"]),
    (2, ["generate", "m", "--words", "\x9b2J"]),
    (0, ["generate", "m", "--novelty", "report", "--seed", "1"]),
    (0, ["novelty", "m", "--text", "The food was \x1b[31mgood\u202e 1."]),
    (0, ["score", "m", "--text", "\x1b[31mgood\u202e"]),
    (0, ["explain", "m", "--text", "The \x1b[31mgood\u202e"]),
    (2, ["settings", "no\x1b[31mne"]),
    (1, ["plugin", "check", "no\x1b[31mne"]),
    (2, ["no\x1b[31mne"]),
    (2, ["list", "more\u202e", "--no\x1b[31mne"]),
    (2, ["generate", "m", "--seed", "\x1b[31m"]),
    (2, ["push", "m", "a\x1b[31m/b"]),
    (2, ["serve", "[/a]=nosuch", "--port", "0"]),
    (2, ["demo", "[/a]=nosuch", "--port", "0", "--no-browser"]),
    (1, ["plugin", "check", "[/a]"]),
    (2, ["pull", "a/[/b]"]),
]


@pytest.mark.parametrize(("status", "words"), COMMANDS, ids=[" ".join(words[:2]) for _, words in COMMANDS])
def test_no_command_prints_what_steers(status: int, words: list[str], folder: Path) -> None:
    done = run_python(["-m", "reviewgen", *words], cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert status == 0 or done.stderr.strip()
    assert steers(done.stderr, "\n\t") == []
    if words[0] != "generate":  # whose texts are written as they are into a pipe
        assert steers(done.stdout, "\n\t") == []


@pytest.mark.parametrize("name", ["[/a]", "[red]a[/red]", "[link=http://a]b[/link]", ":smile:", "a[/]"])
def test_no_string_is_markup(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.table import Table

    terminal = console.TerminalConsole(file=Terminal(), force_terminal=True, highlight=False, width=200, _environ={})
    with terminal.status(f"Loading {name} ...") as status:
        status.update(f"Checking {name}: one ...")
    table = Table(name, title=f"of {name}")
    table.add_row(f"row {name}")
    terminal.print(f"printed {name}", table)
    monkeypatch.setattr(console, "notes", terminal)
    console.note(f"noted {name}")
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]  # the Terminal above
    for text in (f"Checking {name}: one ...", f"of {name}", f"row {name}", f"printed {name}", f"noted {name}"):
        assert text in shown
    piped = console.TerminalConsole(file=io.StringIO())
    with piped.status(f"Loading {name} ...") as status:
        status.update(f"Checking {name}: one ...")
    assert piped.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_terminal_gets_no_sequence_of_a_generated_text(folder: Path) -> None:
    main, side = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "reviewgen",
            "generate",
            "m",
            "--prompt",
            "\x1b[31mred\x07",
            "--seed",
            "1",
            "--max-new-tokens",
            "40",
        ],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=side,
        stderr=subprocess.DEVNULL,
    )
    assert process.wait(120) == 0
    os.close(side)
    shown = os.read(main, 10_000).decode()
    assert steers(shown, "\r\n") == [] and "\\x1b[31mred\\x07" in shown
