"""``reviewgen compare``: several models on one scale, as a table, JSON or a page."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import TerminalConsole, note, notes, print_json
from reviewgen.errors import ConfigError, quoted
from reviewgen.interrupts import INTERRUPTED, begin

if TYPE_CHECKING:
    from reviewgen.comparison import Comparison
    from reviewgen.comparison.comparing import Request


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Presets to train (gru-char), saved folders (./my-model) or owner/name on the Hub; NAME=MODEL names a row.",
            show_default=False,
        ),
    ],
    data: options.Source,
    held_out: Annotated[
        str | None, typer.Option(help="Another source of held-out texts.  [default: the test split of the data]")
    ] = None,
    held_out_split: Annotated[str | None, typer.Option(help="The split of a dataset with the held-out texts.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time to train each preset: 90s, 2m, 1h.  [default: 2m]")] = None,
    steps: Annotated[int | None, typer.Option(help="Train each preset for this many steps instead of a budget.")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Train each preset for this many passes over the corpus instead of a budget.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="The beginning of the samples.")] = "the ",
    seed: Annotated[int, typer.Option(help="The random seed of trainings, samples and intervals.")] = 0,
    html: Annotated[Path | None, typer.Option(help="Write a page with tables, curves and samples: one .html file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page if it exists.")] = False,
    out: Annotated[Path | None, typer.Option(help="Keep the trained models and finished rows in this folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take finished rows from --out, and go on with the others.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of every preset: training.evaluations=20. Repeatable.")
    ] = None,
    text_column: options.TextColumn = None,
    sql: options.Sql = None,
    subset: options.Subset = None,
    split: options.Split = None,
    condition: options.Condition = None,
    documents: options.Documents = "line",
    max_text_characters: options.MaxTextCharacters = 10_000_000,
    lowercase: options.Lowercase = False,
    strip_markdown: options.StripMarkdown = False,
    fix_encoding: options.FixEncoding = False,
    no_clean: options.NoClean = False,
    as_json: options.AsJson = False,
) -> None:
    """Train or load several models, and compare them on the same held-out texts."""
    named = _name_rows(models)
    from reviewgen.comparison.comparing import make_request
    from reviewgen.config import parse_settings
    from reviewgen.pages import refuse_page

    if html is not None:
        refuse_page(html, overwrite)
    request = make_request(
        named,
        options.typed_data(data),
        {
            "held_out": None if held_out is None else options.typed_source(held_out),
            "budget": budget,
            "steps": steps,
            "epochs": epochs,
            "prompt": prompt,
            "seed": seed,
            "out": out,
            "resume": resume,
            "settings": parse_settings(settings or []),
            "text_column": text_column,
            "sql": sql,
            "subset": subset,
            "split": split,
            "held_out_split": held_out_split,
            "conditions": condition or (),
            "documents": documents,
            "max_text_characters": max_text_characters,
            "lowercase": lowercase,
            "strip_markdown": strip_markdown,
            "fix_encoding": fix_encoding,
            "clean": not no_clean,
        },
    )
    begin()
    comparison = _watch(request)
    try:
        if html is not None:
            comparison.save_html(html, overwrite=overwrite)
            note(f"Page: {html}")
    finally:  # a full disk does not lose the table
        _print(comparison, as_json)
    sys.exit(INTERRUPTED if comparison.is_interrupted else 1 if comparison.has_failed else 0)


def _name_rows(models: list[str]) -> Any:
    """Return the models by the names of their rows, where some are given as NAME=MODEL; otherwise the list.

    Raises:
        ConfigError: Two rows have one name.
    """
    if not any(map(_is_named, models)):
        return models
    from reviewgen.comparison.entries import make_entries

    named: dict[str, str] = {}
    for text in models:
        name, _, source = text.partition("=") if _is_named(text) else (make_entries([text])[0].name, "", text)
        if name in named:
            raise ConfigError(f"Two rows have the name {quoted(name, 60)}; give each its own: NAME=MODEL.")
        named[name] = source
    return named


def _is_named(text: str) -> bool:
    """Return whether a model is given as NAME=MODEL; a path may have that character, too."""
    return "=" in text and not text.startswith(("/", "./", "../", "~"))


def _watch(request: "Request") -> "Comparison":
    """Show the progress, and a line for each finished row; an interrupt keeps what is finished."""
    from reviewgen.comparison.comparing import compare_each

    comparison = request.start(notes)
    note(comparison.describe_held_out())
    try:
        for measured in compare_each(request, comparison, notes):
            row = measured.row
            comparison.add(measured)
            bits = (
                "no bits per character" if row.bits_per_character is None else f"{row.bits_per_character:.3f} bits per character"
            )
            note(f"{row.name}: {bits}" if row.failed is None else f"{row.name} failed: {row.failed}")
    except KeyboardInterrupt:
        note("Interrupted; the table has the finished models.")
        comparison.is_interrupted = True
    return comparison


def _print(comparison: "Comparison", as_json: bool) -> None:
    if as_json:
        print_json(comparison.to_json())
        return

    from reviewgen.comparison.table import draw_tables

    console = TerminalConsole(highlight=False)
    console.print(draw_tables(comparison, console.width))
