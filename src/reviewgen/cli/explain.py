"""``reviewgen explain``: a text through a model, step by step, with the actual numbers."""

from pathlib import Path
from typing import Annotated

import typer

from reviewgen.cli import options
from reviewgen.cli.console import note, notes, print_json
from reviewgen.errors import ConfigError


def explain(
    model: options.Model,
    text: Annotated[
        list[str] | None,
        typer.Option(help="A text to explain, - for standard input. Repeatable.  [default: two short sentences]"),
    ] = None,
    condition: options.GivenCondition = None,
    tokens: Annotated[int, typer.Option(help="How many tokens of each table to print; --json and --html have all.")] = 12,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PAGE", help="Also write everything, with heat maps, as a page.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page if it exists.")] = False,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Texts that the model was not trained on, to find hidden units that follow quotes, the position in the line or "
            "a condition; a source as for evaluate.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="The part of the data: all, or train, validation or test of the hash split.")
    ] = "all",
    text_column: options.TextColumn = None,
    sql: options.Sql = None,
    subset: options.Subset = None,
    documents: options.Documents = "line",
    max_text_characters: options.MaxTextCharacters = 10_000_000,
    lowercase: options.AsTrainedLowercase = None,
    strip_markdown: options.AsTrainedStripMarkdown = None,
    fix_encoding: options.AsTrainedFixEncoding = None,
    clean: options.AsTrainedClean = None,
    as_json: options.AsJson = False,
) -> None:
    """Explain what a model computes on a text: operations, loss, counts, gates."""
    from reviewgen.explanation import explain as explain_model

    if tokens < 1:
        raise ConfigError(f"--tokens must be a whole number of at least 1; got {tokens}.")
    if html is not None:
        from reviewgen.pages import refuse_page

        refuse_page(html, overwrite)
    with notes.status("Explaining ..."):
        explanation = explain_model(
            model,
            [options.read_stdin() if each == "-" else each for each in text] if text else None,
            conditions=options.typed_conditions(condition),
            data=None if data is None else options.typed_data(data),
            split=split,
            text_column=text_column,
            sql=sql,
            subset=subset,
            documents=documents,
            max_text_characters=max_text_characters,
            lowercase=lowercase,
            strip_markdown=strip_markdown,
            fix_encoding=fix_encoding,
            clean=clean,
        )
    if html is not None:
        explanation.save_html(html, overwrite=overwrite)
        note(f"Wrote {html}.")
    if as_json:
        print_json(explanation.facts())
        return
    from reviewgen.cli.explain_tables import print_explanation

    print_explanation(explanation, tokens)
