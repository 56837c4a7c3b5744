"""``reviewgen plot``: plots the learning curves of saved models."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, print_json


def plot(
    runs: Annotated[
        list[str],
        typer.Argument(help="Saved folders (./my-model) or owner/name on the Hub; several are compared.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file: .png, .svg or .pdf.  [default: ./NAME.png, or ./curves.png for several]")
    ] = None,
    against: Annotated[str, typer.Option(help="The x axis: seconds, steps or tokens.")] = "seconds",
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric of generated texts that gets a panel, as in distinct-2. Repeatable.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Plot a training run: bits per character, token copy rate and learning rate over time."""
    from reviewgen.api import plot_training
    from reviewgen.runs.plot import picture_name

    file = out or picture_name(runs)
    curves = plot_training(runs, file, against=against, metrics=metric or (), overwrite=overwrite)
    if as_json:
        print_json({"file": str(file), "against": against, "runs": [asdict(run) for run in curves]})
        return
    for run in curves:
        echo(f"{run.name}: {run.verdict}" if run.verdict else run.name)
    echo(f"Saved as {file}")
