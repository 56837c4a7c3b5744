"""The command line: ``reviewgen train | prepare | plot | sweep | tune | blend | generate | replay |
play | evaluate`` and more.

A command parses its arguments, calls the library and prints the result. Modules that are slow to
import are imported inside the commands, so ``--help`` is fast.

    train      ``train``, ``prepare``
    search     ``sweep``, ``ablate``, ``tune``, ``tune-sampling``
    generate   ``generate``, ``replay``, ``play``
    measure    ``evaluate``, ``score``, ``novelty``, ``report``, ``blend``
    analysis   ``explain``, ``graph``, ``plot``, ``compare``, ``probe``, ``neighbours``,
               ``contrast``, ``classify``
    explain_tables  the tables of ``explain``
    publish    ``export``, ``push``, ``pull``, ``search``, ``serve``, ``demo``
    inspecting ``list``, ``settings``, ``doctor``, ``plugin new``, ``plugin check``
    exercise   ``exercise list``, ``exercise new``, ``exercise check``
    options    makes the options of commands from the classes that declare them; parses values
    console    the output of all commands: results, notes, progress
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from reviewgen.cli import analysis, exercise, generate, inspecting, measure, publish, search, train
from reviewgen.cli.console import echo, note, notes, show_log
from reviewgen.errors import (
    ConfigError,
    ProcessLost,
    ReviewgenError,
    SourceError,
    escape_controls,
    shortened,
)
from reviewgen.interrupts import INTERRUPTED, block_signals, raising_interrupts
from reviewgen.version import __version__

__all__ = ["app", "main"]

_LINE = 490  # max number of characters of a line of typer's messages about wrong arguments
# environment variables of other libraries, unless the user has set them
_ENVIRONMENT = {
    # the library's own error messages are not printed: an error of reviewgen says the same
    "DATASETS_VERBOSITY": "critical",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
    # without it, torch prints a C++ stack trace when a connection is lost
    "TORCH_CPP_LOG_LEVEL": "FATAL",
    # how long OpenMP's threads wait for work without sleeping: with its default, an LSTM was 50
    # times slower on a shared machine
    "GOMP_SPINCOUNT": "30000",
}
# the options of typer for the command and for its groups of commands
_GROUP: dict[str, Any] = {
    "no_args_is_help": True,
    "context_settings": {"help_option_names": ["-h", "--help"]},
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}
app = typer.Typer(
    name="reviewgen",
    help="Train small text generators on a corpus of reviews, from scratch and in minutes.",
    **_GROUP,
)
_plugin = typer.Typer(
    help="Write the package of a new plugin, and check an installed one.", **_GROUP
)

_exercise = typer.Typer(
    help="Learn how the models work: a course of eight exercises, each with a check.", **_GROUP
)


def _print_version(is_asked: bool) -> bool:
    """Print the version and end the command, if the user asks for it."""
    if is_asked:
        echo(f"reviewgen {__version__}")
        raise typer.Exit
    return is_asked


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def _add(group: typer.Typer, command: Callable[..., None]) -> None:
    """Add a command to a group. In the list of commands, the help is the whole first line of the
    command's docstring, which typer would shorten.
    """
    name = command.__name__.strip("_").replace("_", "-")
    summary = (command.__doc__ or "").partition("\n")[0]
    group.command(name, short_help=summary)(command)


for _command in (
    train.train,
    train.prepare,
    inspecting.settings,
    analysis.plot,
    search.sweep,
    search.ablate,
    search.tune,
    search.tune_sampling,
    measure.blend,
    analysis.compare,
    generate.generate,
    generate.replay,
    generate.play,
    analysis.graph,
    analysis.probe,
    analysis.neighbours,
    analysis.contrast,
    analysis.classify,
    measure.evaluate,
    measure.score,
    measure.novelty,
    measure.report,
    analysis.explain,
    publish.export,
    publish.push,
    publish.pull,
    publish.search,
    publish.serve,
    publish.demo,
    inspecting.list_,
    inspecting.doctor,
):
    _add(app, _command)
_add(_plugin, inspecting.new)
_add(_plugin, inspecting.check)
app.add_typer(_plugin, name="plugin", short_help=_plugin.info.help)
_add(_exercise, exercise.list_)
_add(_exercise, exercise.new)
_add(_exercise, exercise.check)
app.add_typer(_exercise, name="exercise", short_help=_exercise.info.help)


def main() -> None:
    """Run a command and exit with its status: 0 for success, 1 for a failure (with a message), 2
    for bad usage, 130 for an interrupt.

    Under a launcher, only the main process prints notes and results.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # print a character that the terminal cannot encode as an escape, instead of failing
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    notes.quiet = os.environ.get("RANK", "0") != "0"
    show_log()
    with raising_interrupts():
        sys.exit(_run())


def _run() -> Any:
    """Run a command and return its exit status."""
    try:
        if sys.argv[1:2] == ["generate"]:
            generate.refuse_foreign_names(sys.argv[2:])
        try:
            status = app(standalone_mode=False)
            if status == INTERRUPTED:  # typer turns Ctrl-C into this status
                raise KeyboardInterrupt
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        note("Interrupted.")
        return INTERRUPTED
    except ReviewgenError as problem:
        _report(problem, str(problem))
        return 2 if isinstance(problem, ConfigError | SourceError) else 1
    except typer.Abort as problem:
        _report(problem, "The input has ended.")
    except MemoryError as problem:
        _report(
            problem,
            "The memory of this machine is used up. Use fewer or shorter texts, or a smaller"
            " model.",
        )
    except OSError as problem:
        # For example, the disk is full while code is compiled, or standard output was closed. The
        # interpreter flushes standard output at its end, which would fail again, so the output is
        # sent to the null device.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(problem, BrokenPipeError):  # as when the reader of a pipe is ``head``
            where = "A step was refused"
            if problem.filename is not None:
                where = f"{os.fsdecode(problem.filename)} cannot be used"
            _report(problem, f"{where}: {problem.strerror or problem or type(problem).__name__}.")
    except Exception as problem:
        if not hasattr(problem, "show") or not hasattr(problem, "exit_code"):
            raise  # not an error of typer about an argument
        shown = io.StringIO()
        problem.show(file=shown)
        for line in shown.getvalue().splitlines():
            sys.stderr.write(escape_controls(shortened(line, _LINE)) + "\n")
        return problem.exit_code
    return 1


def _report(problem: BaseException, text: str) -> None:
    """Print an error message. In a process other than the main process, pass the message to the
    launcher instead, which prints it.
    """
    # The launcher may be ending this process because another one has ended: its signal must not cut
    # off the message.
    with block_signals():
        if notes.quiet and "TORCHELASTIC_ERROR_FILE" in os.environ:
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(problem)
        elif not notes.quiet or not isinstance(problem, ProcessLost):
            notes.quiet = False
            note(f"error: {text}", "red")
