"""``reviewgen explain | graph | plot``: a text through a model with the numbers, the graph of a model, its learning curves."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from reviewgen.cli.console import Result, note, working
from reviewgen.cli.options import declared, read_stdin, takes
from reviewgen.config import GenerationConfig
from reviewgen.errors import ConfigError


@takes(declared(GenerationConfig, only=["conditions"], unset=True))
def explain(
    model: str,
    *,
    text: list[str] | None = None,
    tokens: int = 12,
    html: Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Result:
    """Explain what a model computes on a text: operations, loss, counts, gates.

    Args:
        text: A text to explain, - for standard input. [default: two short sentences]
        tokens: How many tokens of each table to print; --json and --html have all.
        html: Also write everything, with heat maps, as a page.
    """
    from reviewgen.cli.explain_tables import render
    from reviewgen.look import explain as explain_model
    from reviewgen.web.rendering import refuse_file

    if tokens < 1:
        raise ConfigError(f"--tokens must be a whole number of at least 1; got {tokens}.")
    if html is not None:
        refuse_file(html, overwrite=overwrite)
    with working("Explaining ..."):
        texts = [read_stdin() if each == "-" else each for each in text] if text else None
        explanation = explain_model(model, texts, **options)
    if html is not None:
        explanation.save_html(html, overwrite=overwrite)
        note(f"Wrote {html}.")
    return Result(explanation.facts(), render(explanation, tokens))


@takes()
def graph(model: str, *, out: Path | None = None, unroll: int = 1, autograd: bool = False, overwrite: bool = False) -> Result:
    """Draw the computational graph of a model: its layers, the gates of its cell, and the shapes between them.

    Args:
        out: The file: .svg. [default: ./NAME.svg]
        unroll: The number of tokens to draw, up to 12; 1 draws one with its loop.
        autograd: Draw PyTorch's graph of the backward pass; needs torchviz and graphviz.
    """
    from reviewgen.look import graph as draw_graph

    file = out or Path(f"{Path(model).name.replace('@', '-').replace(':', '-')}.svg")
    picture = draw_graph(model, file, unroll=unroll, autograd=autograd, overwrite=overwrite)
    facts = {"file": str(file), **picture.to_dict()}
    return Result(facts, [f"{picture.name}: {picture.parameters:,} parameters", f"Saved as {file}"])


@takes()
def plot(
    runs: list[str],
    *,
    out: Path | None = None,
    against: str = "seconds",
    metric: list[str] | None = None,
    overwrite: bool = False,
) -> Result:
    """Plot a training run: bits per character, token copy rate and learning rate over time.

    Args:
        runs: Saved folders (./my-model) or owner/name on the Hub; several are compared.
        out: The file: .png, .svg or .pdf. [default: ./NAME.png, or ./curves.png for several]
        against: The x axis: seconds, steps or tokens.
        metric: A metric of generated texts that gets a panel, as in distinct-2.
    """
    from reviewgen.api import plot_training
    from reviewgen.runs.showing import picture_name

    file = out or picture_name(runs)
    curves = plot_training(runs, file, against=against, metrics=metric or (), overwrite=overwrite)
    facts = {"file": str(file), "against": against, "runs": [asdict(run) for run in curves]}
    lines = [f"{run.name}: {run.verdict}" if run.verdict else run.name for run in curves]
    return Result(facts, [*lines, f"Saved as {file}"])
