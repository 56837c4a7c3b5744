"""The course: the check accepts right solutions and refuses wrong ones with the right sentence, and
the notebooks run.
"""

import re
from pathlib import Path

import pytest

from reviewgen.testing.course.check import EXERCISES, check_exercise
from tests.exercises.wrong import WRONG

ROOT = Path(__file__).parents[2]
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
