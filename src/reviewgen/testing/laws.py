"""What the laws of all contracts share: how a law is made of a function, and what a message says.

A law is a function that raises an AssertionError. Its message begins with the name of the law and the first line of its
docstring; pytest adds the values that an ``assert`` compares, numpy the arrays.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from reviewgen.training.contract import describe_error

Law = Callable[..., None]
Need = type | Callable[[Any], bool]


def laws_of(laws: list[Law], bind: Callable[..., Iterable[tuple[Any, ...]]]) -> Callable[..., Callable[[Law], Law]]:
    """Return a decorator that makes a law of a function, and appends it to the laws of a contract.

    The decorator takes the optional protocols that a law is about, or functions that say whether it applies: a plugin that lacks
    them keeps the law. Whatever is raised in a law breaks it.

    Args:
        laws: The laws of the contract, in the order in which to fix broken ones.
        bind: From what a law is called with, the arguments of each call of its function, the plugin first.
    """

    def can(plugin: Any, need: Need) -> bool:
        """Return whether a plugin has an ability."""
        return isinstance(plugin, need) if isinstance(need, type) else need(plugin)

    def law(*needs: Need) -> Callable[[Law], Law]:
        """Return the decorator of a law of plugins with these abilities."""

        def register(check: Law) -> Law:
            """Add a function to the laws, and return it as it is called there."""

            @functools.wraps(check)
            def checked(*given: Any) -> None:
                """Check the law for each bound call."""
                sentence = f"{check.__name__}: {str(check.__doc__).splitlines()[0]}"
                try:
                    for arguments in bind(*given):
                        if all(can(arguments[0], need) for need in needs):
                            check(*arguments)
                except AssertionError as error:
                    error.args = (f"{sentence} {str(error).strip()}",)
                    raise
                except Exception as error:
                    raise AssertionError(f"{sentence} {describe_error(error)}") from error

            laws.append(checked)
            return checked

        return register

    return law


def check_laws(laws: Iterable[Law], *given: Any) -> None:
    """Check laws in order, and stop at the first that is broken.

    Raises:
        AssertionError: A law is broken.
    """
    for law in laws:
        law(*given)


def fails(function: Callable[..., Any], *arguments: Any) -> bool:
    """Return whether a call raises; the contract does not say which exception."""
    try:
        function(*arguments)
    except Exception:
        return True
    return False


def run_python(code: str, *arguments: str, given: str = "", variables: Mapping[str, str] | None = None) -> str:
    """Return the last line that Python code prints in a process of its own, with this one's path; raise if the process fails.

    Args:
        code: The code.
        arguments: Its ``sys.argv[1:]``.
        given: Its standard input.
        variables: Changes of the environment.

    Raises:
        AssertionError: It fails, with the last line of its errors.
    """
    path = {"PYTHONPATH": os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)}
    command, environment = [sys.executable, "-P", "-c", code, *arguments], os.environ | path | dict(variables or {})
    done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True, encoding="utf-8")
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    assert done.returncode == 0, f"In a process of its own: {last[-300:]}"
    return (done.stdout.splitlines() or [""])[-1]


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Seed torch's random numbers, as for dropout, and restore them afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
