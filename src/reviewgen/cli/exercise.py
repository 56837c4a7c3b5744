"""``reviewgen exercise``: the course, from a notebook with a hole to the check of what fills it."""

from pathlib import Path

from reviewgen.cli.console import Result, make_table
from reviewgen.cli.options import takes


@takes()
def list_() -> Result:
    """List the exercises of the course, and what the learner writes in each."""
    from reviewgen.testing.course.check import EXERCISES

    table = make_table("exercise", "about", "write", left=("exercise", "about", "write"))
    facts = []
    for name, exercise in EXERCISES.items():
        table.add_row(name, exercise.title, ", ".join(exercise.writes))
        facts.append({"name": name, "title": exercise.title, "writes": exercise.writes})
    return Result({"exercises": facts}, [table])


@takes()
def new(name: str, *, out: Path | None = None) -> Result:
    """Copy the notebook of an exercise, with a hole to fill.

    Args:
        name: The exercise, as in rnn; see `reviewgen exercise list`.
        out: The notebook to write. [default: NAME.ipynb]
    """
    from reviewgen.testing.course.check import copy_notebook

    file = copy_notebook(name, out)
    lines = [
        f"{file}: open it in Jupyter or VS Code, fill the hole, save, and run",
        f"  reviewgen exercise check {name} {file}",
    ]
    return Result({"file": str(file)}, lines)


@takes()
def check(name: str, file: Path) -> Result:
    """Check what a learner has written for an exercise, and say what is wrong.

    Runs the code of FILE, as Python would. Of a notebook, the code cells above the one with this
    command are run. Exit status 1 if a check fails.

    Args:
        name: The exercise, as in rnn; see `reviewgen exercise list`.
        file: A notebook or a Python file.
    """
    from reviewgen.testing.course.check import check_exercise

    verdicts = check_exercise(name, file)
    failed = [verdict for verdict in verdicts if verdict.outcome == "failed"]
    lines = [f"{verdict.outcome:11} {verdict.name}" for verdict in verdicts]
    lines += ["", failed[0].message] if failed else [f"{file} is right."]
    checks = [verdict._asdict() for verdict in verdicts]
    facts = {"exercise": name, "file": str(file), "passed": not failed, "checks": checks}
    return Result(facts, lines, int(bool(failed)))
