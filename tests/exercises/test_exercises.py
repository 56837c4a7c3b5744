"""The course: the check accepts right solutions and refuses wrong ones with the right sentence, and
the notebooks run.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reviewgen.cli import app
from reviewgen.errors import ConfigError, OutputExists
from reviewgen.testing import course
from reviewgen.testing.course.check import EXERCISES, check_exercise, copy_notebook
from tests.exercises.wrong import WRONG

ROOT = Path(__file__).parents[2]
COURSE = Path(course.__file__).parent
PAGE = (ROOT / "docs" / "course-solutions.md").read_text(encoding="utf-8")
SOLUTIONS = dict(re.findall(r"^## (\w+)\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def failures(name: str, source: str, folder: Path) -> list[str]:
    file = folder / "mine.py"
    file.write_text(source, encoding="utf-8")
    return [each.message for each in check_exercise(name, file) if each.outcome == "failed"]


@pytest.mark.parametrize("name", EXERCISES)
def test_two_right_solutions_are_accepted(name, tmp_path):
    other = (Path(__file__).parent / "right" / f"{name}.py").read_text(encoding="utf-8")
    assert failures(name, SOLUTIONS[name], tmp_path) == []
    assert failures(name, other, tmp_path) == []


@pytest.mark.parametrize("name", EXERCISES)
def test_wrong_solutions_are_refused_with_the_right_sentence(name, tmp_path):
    assert len(WRONG[name]) >= 5
    for changes, sentences in WRONG[name]:
        source = SOLUTIONS[name]
        for old, new in changes.items():
            assert old in source
            source = source.replace(old, new)
        first, *_ = failures(name, source, tmp_path)
        assert all(sentence in first for sentence in sentences), (changes, first)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_notebook_is_refused_until_its_hole_is_filled(name, tmp_path):
    copied = copy_notebook(name, tmp_path / "mine.ipynb")
    _, first, *_ = check_exercise(name, copied)
    assert "NotImplementedError" in first.message
    book = filled(name)
    copied.write_text(json.dumps(book), encoding="utf-8")
    assert {each.outcome for each in check_exercise(name, copied)} == {"ok"}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXERCISES)
def test_the_cells_after_the_check_run(name, capsys):
    names: dict[str, Any] = {}
    book = filled(name)
    pytest.importorskip("nbformat").validate(book)
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.startswith("!"):
            exec(source, names)
    printed = capsys.readouterr().out
    assert printed.strip() and "nan" not in printed


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("new", "rnn").exit_code == 0
    assert isinstance(run("new", "rnn").exception, OutputExists)
    listed = json.loads(run("list", "--json").stdout)["exercises"]
    assert [each["name"] for each in listed] == [*EXERCISES]
    Path("mine.py").write_text(f"print('hello')\n{SOLUTIONS['rnn']}", encoding="utf-8")
    right = run("check", "rnn", "mine.py", "--json")
    assert right.exit_code == 0 and json.loads(right.stdout)["passed"]
    wrong = run("check", "lstm", "mine.py")
    assert wrong.exit_code == 1 and "mine.py does not define Lstm." in wrong.stdout
    assert isinstance(run("check", "rn", "mine.py").exception, ConfigError)


def test_code_that_cannot_be_run(tmp_path):
    assert failures("rnn", "x = ", tmp_path) == [
        "mine.py cannot be run: SyntaxError: invalid syntax (mine.py, line 1)"
    ]
    assert failures("rnn", "def f():\n    1 / 0\n\nf()\n", tmp_path) == [
        "mine.py cannot be run: ZeroDivisionError: division by zero (in the line: 1 / 0)"
    ]
    ends = SOLUTIONS["rnn"].replace("inputs = ", "exit(0)\n        inputs = ")
    assert "The code ends the process" in failures("rnn", ends, tmp_path)[0]
    book = tmp_path / "mine.ipynb"
    book.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a notebook or a Python file"):
        check_exercise("rnn", book)


def filled(name: str) -> dict[str, Any]:
    """Return the notebook of an exercise with the solution of the docs in its hole."""
    book = json.loads((COURSE / f"{name}.ipynb").read_text(encoding="utf-8"))
    (hole,) = [cell for cell in book["cells"] if "NotImplementedError" in "".join(cell["source"])]
    hole["source"] = SOLUTIONS[name]
    return book


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["exercise", *words])
