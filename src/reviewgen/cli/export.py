"""``reviewgen export``: a model as one HTML page, as ONNX, or its tokenizer for transformers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import note, notes, print_json
from reviewgen.errors import ConfigError

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel

__all__ = ["export"]


def export(
    model: options.Model,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="PAGE", help="One HTML file with the model inside, which generates without a network."),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            "--onnx",
            metavar="FOLDER",
            help="The model as ONNX, with its tokenizer and programs that generate; checked by onnxruntime.",
        ),
    ] = None,
    transformers: Annotated[
        Path | None,
        typer.Option("--transformers", metavar="FOLDER", help="The tokenizer, as AutoTokenizer of transformers loads it."),
    ] = None,
    bits: Annotated[int, typer.Option("--bits", help="Of a weight in the page: 8, 16 or 32.")] = 8,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Export a model for browsers and other runtimes."""
    if html is None and onnx is None and transformers is None:
        raise ConfigError("Say what to export: --html PAGE.html, --onnx FOLDER or --transformers FOLDER.")
    from reviewgen.api import load
    from reviewgen.export.folders import check_target
    from reviewgen.export.onnx import GRAPH
    from reviewgen.export.transformers import MARKER
    from reviewgen.pages import refuse_page

    if html is not None:  # targets are checked before the model is loaded
        refuse_page(html, overwrite)
    for folder, marker in ((onnx, GRAPH), (transformers, MARKER)):
        if folder is not None:
            check_target(folder, marker, overwrite)
    trained, facts = load(model), dict[str, Any]()
    with notes.status("Exporting ..."):
        if html is not None:
            facts["html"] = _export_html(trained, html, bits, overwrite)
        if onnx is not None:
            facts["onnx"] = _export_onnx(trained, onnx, overwrite)
        if transformers is not None:
            facts["transformers"] = _export_transformers(trained, transformers, overwrite)
    if as_json:
        print_json(facts)


def _export_html(model: "ReviewModel", page: Path, bits: int, overwrite: bool) -> dict[str, Any]:
    from reviewgen.export import export_html

    export_html(model, page, bits=bits, overwrite=overwrite)
    megabytes = page.stat().st_size / 1e6
    note(f"Wrote {page} ({megabytes:.1f} MB).")
    return {"file": str(page), "megabytes": round(megabytes, 3)}


def _export_onnx(model: "ReviewModel", folder: Path, overwrite: bool) -> dict[str, Any]:
    from reviewgen.export import export_onnx

    done = export_onnx(model, folder, overwrite=overwrite)
    note(
        f"Wrote {folder} ({done.megabytes:.1f} MB). onnxruntime gives the model's logits within {done.largest_difference:.0e}; "
        "README.md has programs that generate."
    )
    return {
        "folder": str(folder),
        "megabytes": round(done.megabytes, 3),
        "largest_difference": done.largest_difference,
        "tokenizer_json": done.tokenizer_json,
    }


def _export_transformers(model: "ReviewModel", folder: Path, overwrite: bool) -> dict[str, Any]:
    from reviewgen.export import export_transformers

    export_transformers(model, folder, overwrite=overwrite)
    note(f"Wrote {folder}: AutoTokenizer.from_pretrained({str(folder)!r}) loads it.")
    return {"folder": str(folder)}
