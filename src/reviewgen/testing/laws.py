"""Code that the laws of all contracts share: it makes laws from functions, and their messages.

A law is a function that checks one requirement of a contract, and raises an AssertionError if it is
broken. The message begins with the name of the law and the first paragraph of its docstring. pytest
adds the values that an ``assert`` compares, and numpy the arrays.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reviewgen.config.settings import from_dict, to_dict
from reviewgen.generation.states import map_state
from reviewgen.protocols.checks import TOLERANCE, assert_close, describe_error
from reviewgen.protocols.model import flatten_state

Law = Callable[..., None]


class Laws(list[Law]):
    """The laws of a contract, in the order in which to fix broken ones.

    Args:
        bind: Takes the arguments of a law, such as ``make``, and returns the arguments for each
            call of the function that checks the law. The first of these arguments is the plugin.
    """

    def __init__(self, bind: Callable[..., Iterable[tuple[Any, ...]]]) -> None:
        super().__init__()
        self._bind = bind

    def law(self, need: type | Callable[[Any], bool] = object) -> Callable[[Law], Law]:
        """Return a decorator that makes a law from a function, and appends it to the list. Any
        error that the function raises breaks the law.

        Args:
            need: The optional protocol that the law is about, or a function that returns whether
                the law applies to a plugin. A plugin to which the law does not apply passes it.
        """

        def register(check: Law) -> Law:
            """Make the law of a function, append it to the list, and return it."""
            summary = " ".join(str(check.__doc__).partition("\n\n")[0].split())
            sentence = f"{check.__name__}: {summary}"

            @functools.wraps(check)
            def checked(*arguments: Any) -> None:
                """Call the function with each set of arguments that ``bind`` returns."""
                try:
                    for plugin, *others in self._bind(*arguments):
                        applies = (
                            isinstance(plugin, need) if isinstance(need, type) else need(plugin)
                        )
                        if applies:
                            check(plugin, *others)
                except AssertionError as error:
                    error.args = (f"{sentence} {str(error).strip()}",)
                    raise
                except Exception as error:
                    raise AssertionError(f"{sentence} {describe_error(error)}") from error

            self.append(checked)
            return checked

        return register

    def check(self, *arguments: Any) -> None:
        """Check all laws in order, and stop at the first that is broken.

        Raises:
            AssertionError: A law is broken.
        """
        for law in self:
            law(*arguments)


def run_python(
    code: str, *arguments: str, stdin: str = "", variables: Mapping[str, str] | None = None
) -> str:
    """Run Python code in a process of its own, with the ``sys.path`` of this process, and return
    the last line that it prints.

    Args:
        code: The code.
        arguments: The ``sys.argv[1:]`` of the code.
        stdin: The standard input of the process.
        variables: Environment variables to set in the process.

    Raises:
        AssertionError: The process fails; the message has the end of its traceback.
    """
    # in ``sys.path``, "" stands for the current folder
    python_path = {"PYTHONPATH": os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)}
    command = [sys.executable, "-P", "-c", code, *arguments]
    environment = os.environ | python_path | dict(variables or {})
    completed = subprocess.run(
        command, env=environment, input=stdin, capture_output=True, text=True, encoding="utf-8"
    )
    problem = " ".join(completed.stderr.split())[-300:] or f"exit status {completed.returncode}"
    assert completed.returncode == 0, f"In a process of its own: {problem}"
    lines = completed.stdout.splitlines()
    return lines[-1] if lines else ""


def json_round_trip(config: Any) -> Any:
    """Convert a config to JSON and back."""
    return from_dict(type(config), json.loads(json.dumps(to_dict(config))))


def assert_same(actual: Any, expected: Any, tolerance: float = 0.0) -> None:
    """Raise AssertionError unless the arrays or tensors of two nested states are equal, up to a
    tolerance.
    """
    for actual_part, expected_part in zip(
        flatten_state(actual), flatten_state(expected), strict=True
    ):
        assert_close(actual_part, expected_part, tolerance=tolerance)


@contextmanager
def assert_unchanged(*states: Any) -> Iterator[None]:
    """Raise AssertionError if the block changes an array or tensor of some states."""
    before = map_state(
        lambda array: array.clone() if isinstance(array, Tensor) else array.copy(), states
    )
    yield
    assert_same(states, before)


def assert_result(actual: Any, results: Mapping[str, Any], what: str) -> None:
    """Raise AssertionError unless a result equals the first of ``results``, whose key says how to
    compute it. The other keys say what is wrong if it equals their values.
    """
    actual = torch.as_tensor(actual, dtype=torch.float64).detach()
    values = {key: torch.as_tensor(value).detach().double() for key, value in results.items()}
    (right, expected), *mistakes = values.items()
    assert actual.shape == expected.shape, (
        f"The shape of the {what} is {tuple(actual.shape)}, not {tuple(expected.shape)}."
    )
    if is_close(actual, expected):
        return
    for sentence, value in mistakes:
        assert not is_close(actual, value), sentence
    raise AssertionError(
        f"The {what} is {actual.mean():.4f} on average, not {expected.mean():.4f}: compute {right}."
    )


def is_close(actual: Tensor, expected: Tensor) -> bool:
    """Return whether two tensors are equal, up to the order of sums."""
    return torch.allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)
