"""The command line, ``reviewgen train | plot | sweep | tune | blend | generate | replay | play | evaluate | score`` and more.

A face: parses, calls the API and prints. Heavy imports stand inside the commands, so that ``--help`` answers at once.
"""

import io
import os
import sys

import typer

from reviewgen.cli import blend, drawing, generate, look, play, plot, share, sweep, train, tune, use
from reviewgen.cli.console import error
from reviewgen.errors import ConfigError, ReviewgenError, SourceError

__all__ = ["app", "main"]

app = typer.Typer(
    name="reviewgen",
    help="Train small text generators on a corpus of reviews, from scratch and in minutes.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train)
app.command("plot")(plot.plot)
app.command("sweep")(sweep.sweep)
app.command("tune")(tune.tune)
app.command("blend")(blend.blend)
app.command("generate")(generate.generate)
app.command("replay")(generate.replay)
app.command("play")(play.play)
app.command("evaluate")(use.evaluate)
app.command("score")(use.score)
app.command("novelty")(use.novelty)
app.command("push")(share.push)
app.command("pull")(share.pull)
app.command("list")(look.list_plugins)
app.command("doctor")(look.doctor)


def main() -> None:
    """Run a command; exit with 0, with 1 where it failed and said why, or with 2 on bad usage."""
    for name, value in (
        ("DATASETS_VERBOSITY", "critical"),  # its errors come as ours, in one sentence
        ("HF_DATASETS_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_VERBOSITY", "error"),
        ("TOKENIZERS_PARALLELISM", "true"),
        ("GOMP_SPINCOUNT", "30000"),  # threads that wait busily for longer made an LSTM fifty times slower on a shared machine
    ):
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character shows its escape
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if sys.argv[1:2] == ["generate"]:
            drawing.refuse_foreign_words(sys.argv[2:])
        app()
    except (ConfigError, SourceError) as problem:
        error(str(problem))
        sys.exit(2)
    except (ReviewgenError, OSError) as problem:  # of the operating system: a disk that fills up while code is compiled
        error(str(problem))
        sys.exit(1)
