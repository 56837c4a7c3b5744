"""``reviewgen sweep``: trains a preset with several values of one setting, and compares them in a bias-variance table."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, note, notes, print_json
from reviewgen.errors import ConfigError
from reviewgen.interrupts import INTERRUPTED, begin

if TYPE_CHECKING:
    from reviewgen.search import SweepRow


def sweep(
    preset: Annotated[str, typer.Argument(help="<model>-<tokenizer>, as in ngram-char.", show_default=False)],
    data: options.Source,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="The setting to sweep with its values: model.order=2,4,6; other settings with one value each. Repeatable.",
        ),
    ],
    budget: Annotated[str | None, typer.Option(help="Time for each value: 90s, 2m, 1h.  [default: 2m]")] = None,
    steps: Annotated[int | None, typer.Option(help="Train each for this many steps instead of a budget.")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Train each for this many passes over the corpus instead of a budget.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The random seed of the initial weights, the order of the texts and dropout.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Plot the table to this file: .png, .svg or .pdf.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the plot if it exists.")] = False,
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
    """Train a preset with each of several values of one setting, and compare them in a table."""
    swept, values, fixed = _split_settings(settings)
    from reviewgen.api import plot_sweep
    from reviewgen.api import sweep as train_each
    from reviewgen.pictures import refuse_plot

    if plot is not None:
        refuse_plot(plot, overwrite)
    sweep_rows = train_each(
        preset,
        options.typed_data(data),
        swept,
        values,
        fixed,
        budget=budget,
        steps=steps,
        epochs=epochs,
        seed=seed,
        text_column=text_column,
        sql=sql,
        subset=subset,
        split=split,
        documents=documents,
        max_text_characters=max_text_characters,
        lowercase=lowercase,
        strip_markdown=strip_markdown,
        fix_encoding=fix_encoding,
        clean=not no_clean,
        conditions=condition or (),
    )
    begin()
    rows, is_interrupted = _watch(sweep_rows, swept, values)
    if as_json:
        print_json({"preset": preset, "setting": swept, "rows": [row.as_json() for row in rows]})
    else:
        _print_table(swept, rows)
    if plot is not None and rows:
        plot_sweep(rows, swept, preset, plot, overwrite=overwrite)
        note(f"Plotted to {plot}")
    sys.exit(INTERRUPTED if is_interrupted else 0)


def _watch(sweep_rows: Iterator["SweepRow"], swept: str, values: list[str]) -> tuple[list["SweepRow"], bool]:
    """Show progress; return the finished rows, and whether an interrupt ended the sweep."""
    rows: list[SweepRow] = []
    try:
        with notes.status(f"Training with {swept}={values[0]} ...") as status:
            for row in sweep_rows:
                rows.append(row)  # so that an interrupt keeps the finished rows
                note(f"{swept}={row.value} done in {row.seconds:.1f} s.")
                if len(rows) < len(values):
                    status.update(f"Training with {swept}={values[len(rows)]} ...")
    except KeyboardInterrupt:
        note("Interrupted; the table has the finished values.")
        return rows, True
    return rows, False


def _split_settings(settings: list[str]) -> tuple[str, list[str], dict[str, dict[str, str]]]:
    """Return the setting with several values, its values, and the settings with one value.

    Raises:
        ConfigError: Not exactly one setting has several values.
    """
    from reviewgen.config import parse_settings

    fixed = parse_settings(settings)
    several = [(group, name) for group, names in fixed.items() for name, value in names.items() if "," in value]
    if not several and sum(map(len, fixed.values())) == 1:
        several = [(group, name) for group, names in fixed.items() for name in names]
    if len(several) != 1:
        raise ConfigError("Give one setting with several values, as in --set model.order=2,4,6; the others with one value each.")
    group, name = several[0]
    values = [value.strip() for value in fixed[group].pop(name).split(",")]
    if not all(values):
        raise ConfigError(f"A value of {group}.{name} is empty. Separate the values by single commas.")
    return f"{group}.{name}", values, fixed


def _print_table(setting: str, rows: list["SweepRow"]) -> None:
    name = setting.partition(".")[2]
    width = max([len(name), *(len(str(row.value)) for row in rows)])
    echo(f"{name:>{width}}  train bits/char  held-out bits/char       MB  seconds  token copy rate")
    for row in rows:
        numbers = asdict(row)
        cells = [
            f"{row.value:>{width}}",
            _cell(numbers["train_bits"], 15, 4),
            _cell(numbers["held_out_bits"], 18, 4),
            _cell(numbers["megabytes"], 7, 2),
            _cell(numbers["seconds"], 7, 1),
            "              -" if row.token_copy_rate is None else f"{row.token_copy_rate:15.1%}",
        ]
        echo("  ".join(cells))


def _cell(value: Any, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"
