"""``reviewgen export``: a model as one HTML page, as ONNX, or its tokenizer for transformers."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, notes, print_json
from reviewgen.errors import ConfigError

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel


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
    bits: Annotated[int, typer.Option("--bits", help="Of a weight in the page: 5, 6, 8, 16 or 32.")] = 8,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Export a model for browsers and other runtimes."""
    if html is None and onnx is None and transformers is None:
        raise ConfigError("Say what to export: --html PAGE.html, --onnx FOLDER or --transformers FOLDER.")
    from reviewgen.api import load
    from reviewgen.export.folders import ONNX, TRANSFORMERS, check_target
    from reviewgen.pages import refuse_page

    if html is not None:  # targets are checked before the model is loaded
        refuse_page(html, overwrite)
    for folder, kind in ((onnx, ONNX), (transformers, TRANSFORMERS)):
        if folder is not None:
            check_target(folder, kind, overwrite)
    if onnx is not None and transformers is not None and onnx.absolute() == transformers.absolute():
        raise ConfigError("--onnx and --transformers name the same folder; give each its own.")
    trained, facts = load(model), dict[str, Any]()
    with notes.status("Exporting ..."):
        for name, target, write in (
            ("html", html, partial(_export_html, bits=bits)),
            ("onnx", onnx, _export_onnx),
            ("transformers", transformers, _export_transformers),
        ):
            if target is not None:
                facts[name], line = write(trained, target, overwrite)
                if not as_json:
                    echo(line)
    if as_json:
        print_json(facts)


def _export_html(model: "ReviewModel", page: Path, overwrite: bool, bits: int) -> tuple[dict[str, Any], str]:
    """Write the page; return facts about it, and a line for the user. The other two do the same."""
    from reviewgen.export import export_html

    export_html(model, page, bits=bits, overwrite=overwrite)
    megabytes = page.stat().st_size / 1e6
    return {"file": str(page), "megabytes": round(megabytes, 3)}, f"Wrote {page} ({megabytes:.1f} MB)."


def _export_onnx(model: "ReviewModel", folder: Path, overwrite: bool) -> tuple[dict[str, Any], str]:
    from reviewgen.export import export_onnx

    done = export_onnx(model, folder, overwrite=overwrite)
    line = (
        f"Wrote {folder} ({done.megabytes:.1f} MB). onnxruntime gives the model's logits within {done.largest_difference:.0e}; "
        "README.md has programs that generate."
    )
    facts = {"megabytes": round(done.megabytes, 3), "largest_difference": done.largest_difference}
    return {"folder": str(folder), **facts, "tokenizer_json": done.tokenizer_json}, line


def _export_transformers(model: "ReviewModel", folder: Path, overwrite: bool) -> tuple[dict[str, Any], str]:
    from reviewgen.export import export_transformers

    export_transformers(model, folder, overwrite=overwrite)
    return {"folder": str(folder)}, f"Wrote {folder}: AutoTokenizer.from_pretrained({str(folder)!r}) loads it."
