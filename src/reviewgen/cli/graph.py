"""``reviewgen graph``: draws the computational graph of a preset or a model."""

from pathlib import Path
from typing import Annotated

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, print_json


def graph(
    model: options.Model,
    out: Annotated[Path | None, typer.Option(help="The file: .svg.  [default: ./NAME.svg]")] = None,
    unroll: Annotated[int, typer.Option(help="The number of tokens to draw, up to 12; 1 draws one with its loop.")] = 1,
    autograd: Annotated[
        bool, typer.Option("--autograd", help="Draw PyTorch's graph of the backward pass; needs torchviz and graphviz.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Draw the computational graph of a model: its layers, the gates of its cell, and the shapes between them."""
    from reviewgen.graphs import graph as draw_graph

    file = out or Path(f"{Path(model).name.replace('@', '-').replace(':', '-')}.svg")
    picture = draw_graph(model, file, unroll=unroll, autograd=autograd, overwrite=overwrite)
    if as_json:
        print_json({"file": str(file), **picture.to_dict()})
        return
    echo(f"{picture.name}: {picture.parameters:,} parameters")
    echo(f"Saved as {file}")
