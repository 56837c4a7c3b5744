"""What a training, and the first use of compiled functions, print: a line on a terminal, and nothing anywhere else."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")

TRAIN = """
import sys, reviewgen
reviewgen.train("ngram-char", ["The food was great.", "The food was cold."] * 5, progress={progress})
"""
COMPILE = """
from reviewgen.compiled import compiled
import numba

@{decorator}
def double(number):
    return 2 * number

assert double(3) == 6
"""


def on_terminal(script: Path, code: str, columns: int = 80, **environment: str) -> str:
    """Return what a script prints on a terminal, standard output and standard error together."""
    if not script.exists():  # compiled code on disk is of this file
        script.write_text(code, encoding="utf-8")
    ours, theirs = pty.openpty()
    names = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"} | environment
    with subprocess.Popen([sys.executable, str(script)], stdout=theirs, stderr=theirs, env=names) as process:
        os.close(theirs)
        printed = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            printed += part
    os.close(ours)
    assert process.returncode == 0, printed.decode()
    return printed.decode()


def piped(script: Path, code: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what a script prints where output is not a terminal."""
    script.write_text(code, encoding="utf-8")
    names = os.environ | (environment or {})
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, env=names)
    return done.stdout + done.stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_a_training_draws_a_bar_on_a_terminal(tmp_path, columns):
    printed = on_terminal(tmp_path / "train.py", TRAIN.format(progress=True), columns)
    assert "Reading" in printed
    assert "Training" in printed
    assert "%" in printed


def test_progress_false_prints_nothing(tmp_path):
    assert on_terminal(tmp_path / "train.py", TRAIN.format(progress=False)) == ""


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}])
def test_a_training_prints_nothing_where_output_is_not_a_terminal(tmp_path, environment):
    assert piped(tmp_path / "train.py", TRAIN.format(progress=True), environment) == ""


def test_compiling_for_the_first_use_is_shown_on_a_terminal_and_erased(tmp_path):
    script, code = tmp_path / "compile.py", COMPILE.format(decorator="compiled")
    first, later = (on_terminal(script, code, NUMBA_CACHE_DIR=str(tmp_path / "cache")) for _ in range(2))
    assert "Compiling for the first use" in first
    assert first.endswith("\x1b8\x1b[K")
    assert later == ""


def test_compiling_is_not_shown_where_output_is_not_a_terminal_nor_for_the_functions_of_others(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert piped(tmp_path / "compile.py", COMPILE.format(decorator="compiled"), environment) == ""
    assert on_terminal(tmp_path / "theirs.py", COMPILE.format(decorator="numba.njit"), **environment) == ""
