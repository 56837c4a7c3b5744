"""The command line: ``reviewgen train | prepare | plot | sweep | tune | blend | generate | replay | play | evaluate`` and more.

Parses arguments, calls the API and prints results. Heavy imports stand inside the commands, so that ``--help`` is fast.

    train, prepare, plot, sweep, tune, tune_sampling, blend, compare    one file a command
    settings                           ``settings``: every setting of a preset
    generate, sampling, file, tables   ``generate`` and ``replay``; the generation options; texts into a file or a table
    play                               ``play``
    graph                              ``graph``
    explain, explain_tables            ``explain``; its tables
    export                             ``export``
    use                                ``evaluate``, ``score``, ``novelty``
    share                              ``push``, ``pull``
    serve, demo                        one file a command
    look                               ``list``, ``doctor``
    plugin                             ``plugin new``, ``plugin check``
    options, console, streams, ranks    what the commands share: options, output, standard streams and interrupts, launchers
"""

import inspect
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from reviewgen.cli import (
    blend,
    compare,
    demo,
    explain,
    export,
    generate,
    graph,
    look,
    play,
    plot,
    plugin,
    prepare,
    ranks,
    sampling,
    serve,
    settings,
    share,
    sweep,
    train,
    tune,
    tune_sampling,
    use,
)
from reviewgen.cli.console import echo, print_usage_error, show_warnings
from reviewgen.cli.streams import close_output, describe_os_error, finish_output, interruptible, is_closed_pipe, open_streams
from reviewgen.errors import ConfigError, ReviewgenError, SourceError
from reviewgen.interrupts import INTERRUPTED, caught
from reviewgen.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="reviewgen",
    help="Train small text generators on a corpus of reviews, from scratch and in minutes.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(is_asked: bool) -> bool:
    if is_asked:
        echo(f"reviewgen {__version__}")
        raise typer.Exit
    return is_asked


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    pass


def _add(name: str, command: Callable[..., None]) -> None:
    """Add a command; the list of commands has the whole first line of its docstring, which typer would cut off."""
    app.command(name, short_help=(inspect.getdoc(command) or "").partition("\n")[0])(interruptible(command))


_add("train", train.train)
_add("prepare", prepare.prepare)
_add("settings", settings.settings)
_add("plot", plot.plot)
_add("sweep", sweep.sweep)
_add("tune", tune.tune)
_add("tune-sampling", tune_sampling.tune_sampling)
_add("blend", blend.blend)
_add("compare", compare.compare)
_add("generate", generate.generate)
_add("replay", generate.replay)
_add("play", play.play)
_add("graph", graph.graph)
_add("evaluate", use.evaluate)
_add("score", use.score)
_add("novelty", use.novelty)
_add("explain", explain.explain)
_add("export", export.export)
_add("push", share.push)
_add("pull", share.pull)
_add("serve", serve.serve)
_add("demo", demo.demo)
_add("list", look.list_plugins)
_add("doctor", look.doctor)
app.add_typer(plugin.app, name="plugin", short_help=plugin.app.info.help)


def main() -> None:
    """Run a command; exit with status 0, 1 if it failed (with a message), 2 on bad usage, or 130 if it was interrupted.

    Several processes of a launcher exit with 1 in place of 2.
    """
    for name, value in (
        ("DATASETS_VERBOSITY", "critical"),  # its errors are raised as ours, in one sentence
        ("HF_DATASETS_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_VERBOSITY", "error"),
        ("TOKENIZERS_PARALLELISM", "true"),
        ("TORCH_CPP_LOG_LEVEL", "FATAL"),  # of a lost connection, torch prints a C++ stack trace; we print one sentence
        ("GOMP_SPINCOUNT", "30000"),  # longer busy-waiting made an LSTM 50 times slower on a shared machine
    ):
        os.environ.setdefault(name, value)
    open_streams()
    show_warnings()
    with caught():
        status = _run()
        if status not in (0, None, INTERRUPTED) and ranks.count_processes() > 1:
            ranks.leave()
            status = 1
    sys.exit(status)


def _run() -> Any:
    """Run a command and return its exit status."""
    try:
        if sys.argv[1:2] == ["generate"]:
            sampling.refuse_foreign_names(sys.argv[2:])
        try:
            status = app(standalone_mode=False)
        except SystemExit as end:
            status = end.code
        finish_output()
        return status
    except (ConfigError, SourceError) as problem:
        ranks.report(problem)
        return 2
    except ReviewgenError as problem:
        ranks.report(problem)
    except OSError as problem:  # for example a disk that fills up while code is compiled, or a closed standard output
        close_output()
        if not is_closed_pipe(problem):
            ranks.report(describe_os_error(problem))
    except typer.Abort:
        ranks.report("The input has ended.")
    except MemoryError:
        ranks.report("The memory of this machine is used up. Use fewer or shorter texts, or a smaller model.")
    except Exception as problem:
        if not hasattr(problem, "show") or not hasattr(problem, "exit_code"):  # else one of typer's, for an argument
            raise
        ranks.report(problem, partial(print_usage_error, problem))
        return problem.exit_code
    return 1
