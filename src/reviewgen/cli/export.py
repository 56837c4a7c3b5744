"""``reviewgen export``: a model as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from reviewgen.cli import options
from reviewgen.cli.console import note, notes
from reviewgen.errors import ConfigError

__all__ = ["export"]


def export(
    model: options.Model,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="PAGE", help="One HTML file with the model inside, which generates without a network."),
    ] = None,
    bits: Annotated[int, typer.Option("--bits", help="Of a weight in the page: 8, 16 or 32.")] = 8,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
) -> None:
    """Export a model for browsers and other runtimes."""
    if html is None:
        raise ConfigError("Say what to export: --html PAGE.html.")
    if html is not None:
        _export_html(model, html, bits, overwrite)


def _export_html(model: str, html: Path, bits: int, overwrite: bool) -> None:
    """Write the page of a model."""
    from reviewgen.api import load
    from reviewgen.export import export_html
    from reviewgen.pages import refuse_page

    refuse_page(html, overwrite)  # before the model is loaded
    with notes.status("Exporting ..."):
        export_html(load(model), html, bits=bits, overwrite=overwrite)
    note(f"Wrote {html} ({html.stat().st_size / 1e6:.1f} MB).")
