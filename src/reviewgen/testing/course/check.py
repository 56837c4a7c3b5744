"""The exercises, whose notebooks are in this folder, and the check of what a learner has written.

The code of the learner is run in this process.
"""

import contextlib
import itertools
import json
import linecache
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import nn

from reviewgen.errors import ConfigError, did_you_mean, first_line, quoted, storage_errors
from reviewgen.protocols.checks import describe_error, seeded
from reviewgen.storage import atomic_file, check_output
from reviewgen.testing.course.counting import BITS_LAWS, COUNT_LAWS, COUNT_ORDER, MIXING_LAWS
from reviewgen.testing.course.networks import (
    ATTENTION_LAWS,
    BPTT_LAWS,
    HEADS,
    LSTM_LAWS,
    NNLM_LAWS,
    ORDER,
    RNN_LAWS,
    E,
    H,
    V,
)
from reviewgen.testing.laws import Law

_CHECK = "reviewgen exercise check"  # the cell with it, and those below it, are not run


class Exercise(NamedTuple):
    """An exercise of the course.

    Attributes:
        title: What it is about.
        writes: The names of the class or the functions that the learner writes.
        laws: The laws, in the order in which to fix broken ones. A law takes a callable that
            creates the learner's model; without ``sizes``, all that the learner wrote, by name.
        sizes: The arguments with which the model is created.
    """

    title: str
    writes: tuple[str, ...]
    laws: Sequence[Law]
    sizes: tuple[int, ...] = ()


class Verdict(NamedTuple):
    """What a check has found; the message is empty unless the outcome is "failed"."""

    name: str
    outcome: str
    message: str = ""


def find_exercise(name: str) -> Exercise:
    """Return the exercise of a name.

    Raises:
        ConfigError: There is no such exercise.
    """
    if name not in EXERCISES:
        raise ConfigError(f"There is no exercise {quoted(name)}. {did_you_mean(name, EXERCISES)}")
    return EXERCISES[name]


def copy_notebook(name: str, out: Path | None = None) -> Path:
    """Copy the notebook of an exercise, by default to ``NAME.ipynb`` in the current folder.

    Raises:
        ConfigError: There is no such exercise.
        OutputExists: The file exists.
    """
    find_exercise(name)
    target = out or Path(f"{name}.ipynb")
    check_output(target)
    with storage_errors(target), atomic_file(target) as file:
        file.write_bytes(Path(__file__).with_name(f"{name}.ipynb").read_bytes())
    return target


def check_exercise(name: str, file: Path) -> list[Verdict]:
    """Run the code of a learner, and check each law of the exercise.

    Of a notebook, the code cells above the one with ``reviewgen exercise check`` are run, without
    lines that begin with % or !.

    Args:
        name: The exercise.
        file: A Python file or a notebook.

    Returns:
        What each check has found. If the code does not define what the exercise asks for, nothing
        else is checked.

    Raises:
        ConfigError: There is no such exercise, or the notebook cannot be read.
    """
    exercise = find_exercise(name)
    source = _read(file)
    # with the source in the cache, a traceback has the lines of a notebook, too
    linecache.cache[str(file)] = (len(source), None, source.splitlines(), str(file))
    names: dict[str, Any] = {"__name__": "learner"}
    message = ""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            exec(compile(source, str(file), "exec"), names)
        except (Exception, SystemExit) as error:
            message = f"{file.name} cannot be run: {describe_error(error)}{_find_line(error, file)}"
        missing = [each for each in exercise.writes if each not in names]
        if missing and not message:
            message = f"{file.name} does not define {' and '.join(missing)}."
        if message:
            rest = [Verdict(law.__name__, "not checked") for law in exercise.laws]
            return [Verdict("defined", "failed", message), *rest]
        # what the laws take: all that the learner wrote, or a function that creates the model
        written: Any = SimpleNamespace(**{each: names[each] for each in exercise.writes})
        if exercise.sizes:
            written = _maker(names[exercise.writes[0]], exercise.sizes)
        return [Verdict("defined", "ok"), *(_judge(law, written, file) for law in exercise.laws)]


def _read(file: Path) -> str:
    """Return the Python code of a file or a notebook."""
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix != ".ipynb":
            return text
        cells = json.loads(text)["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{file} is not a notebook or a Python file in UTF-8: save it as .ipynb or .py."
        ) from None
    above = itertools.takewhile(lambda cell: _CHECK not in cell, code)
    lines = "\n".join(above).splitlines()
    return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)


def _maker(cls: Any, sizes: tuple[int, ...]) -> Callable[[], Any]:
    """Return a function that creates a model of the learner, as the laws need it."""

    def make() -> Any:
        """Return a new model in evaluation mode, with a ``config`` and always the same weights."""
        with seeded():
            model = cls(*sizes)
        model.config = SimpleNamespace(vocab_size=V)
        return model.eval() if isinstance(model, nn.Module) else model

    return make


def _judge(law: Law, written: Any, file: Path) -> Verdict:
    """Check a law on what the learner has written in a file."""
    try:
        with seeded():
            law(written)
        return Verdict(law.__name__, "ok")
    except AssertionError as error:
        # without the sentence of numpy on tolerances, which may end the first line
        sentence, *_ = first_line(error).split(" Not equal to tolerance")
        message = f"{sentence.rstrip('.')}{_find_line(error, file)}.".replace("``", "`")
    except SystemExit:
        message = "The code ends the process: remove the call of exit()."
    return Verdict(law.__name__, "failed", message)


def _find_line(error: BaseException | None, file: Path) -> str:
    """Return, for a message, the line of a file in which an error or its cause was raised; "" if
    there is none. It is the line of the first cause, and of the innermost call.
    """
    line: str | None = ""
    while error is not None:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == str(file):
                line = frame.line
        error = error.__cause__
    return f" (in the line: {line})" if line else ""


EXERCISES = {
    "count": Exercise("count and smooth", ("Ngram",), COUNT_LAWS, (COUNT_ORDER, V)),
    "bits": Exercise("bits per character", ("bits_per_character",), BITS_LAWS),
    "mixing": Exercise("mixing", ("Mixer", "cost"), MIXING_LAWS),
    "nnlm": Exercise("a neural n-gram", ("NeuralNgram",), NNLM_LAWS, (V, ORDER, E, H)),
    "rnn": Exercise("an RNN by hand", ("Rnn",), RNN_LAWS, (V, E, H)),
    "bptt": Exercise("clipping and BPTT", ("clip", "train"), BPTT_LAWS),
    "lstm": Exercise("an LSTM", ("Lstm",), LSTM_LAWS, (V, E, H)),
    "attention": Exercise("attention", ("Attention",), ATTENTION_LAWS, (V, E, HEADS)),
}
"""The exercises by name, in the order of the course."""
