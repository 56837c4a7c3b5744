"""``reviewgen compare``: several models on one scale, as a table, JSON or a page."""

import sys
from pathlib import Path
from typing import Any

from reviewgen.cli.console import TerminalConsole, keeping, note, notes, show
from reviewgen.cli.options import parse_data, path_or_string, takes
from reviewgen.config.options import TrainingTexts, Trial
from reviewgen.errors import ConfigError, quoted
from reviewgen.interrupts import INTERRUPTED, begin


@takes(TrainingTexts, Trial)
def compare(
    models: list[str],
    *,
    data: list[str],
    held_out: str | None = None,
    held_out_split: str | None = None,
    prompt: str = "the ",
    html: Path | None = None,
    overwrite: bool = False,
    out: Path | None = None,
    resume: bool = False,
    settings: list[str] | None = None,
    as_json: bool = False,
    **options: Any,
) -> None:
    """Train or load several models, and compare them on the same held-out texts.

    Args:
        models: Presets to train (gru-char), saved folders (./my-model) or owner/name on the Hub; NAME=MODEL names a row.
        held_out: Another source of held-out texts. [default: the test split of the data]
        held_out_split: The split of a dataset with the held-out texts.
        prompt: The beginning of the samples.
        html: Write a page with tables, curves and samples: one .html file.
        out: Keep the trained models and finished rows in this folder.
        resume: Take finished rows from --out, and go on with the others.
        settings: A setting of every preset: training.evaluations=20.
    """
    from rich.console import Group

    named = _name_rows(models)
    from reviewgen.config import parse_settings
    from reviewgen.look.comparing import make_request
    from reviewgen.look.comparison import draw_tables
    from reviewgen.web.rendering import refuse_file

    if html is not None:
        refuse_file(html, overwrite=overwrite)
    options |= {"held_out": None if held_out is None else path_or_string(held_out), "held_out_split": held_out_split}
    options |= {"prompt": prompt, "out": out, "resume": resume, "settings": parse_settings(settings or [])}
    request = make_request(named, parse_data(data), options)  # type: ignore[arg-type]  # checked there
    begin()
    comparison = request.start(notes)
    note(comparison.describe_held_out())
    with keeping("the table has the finished models.") as finished:
        for measured in request.rows(comparison.held_out, notes):
            row = measured.row
            comparison.add(measured)
            bits = "no bits" if row.bits_per_character is None else f"{row.bits_per_character:.3f} bits"
            note(f"{row.name} failed: {row.failed}" if row.failed else f"{row.name}: {bits} per character")
    comparison.is_interrupted = finished.is_interrupted
    try:
        if html is not None:
            comparison.save_html(html, overwrite=overwrite)
            note(f"Page: {html}")
    finally:  # a full disk does not lose the table
        show(comparison.to_json(), as_json, [Group(*draw_tables(comparison, TerminalConsole().width))])
    sys.exit(INTERRUPTED if comparison.is_interrupted else int(comparison.has_failed))


def _name_rows(models: list[str]) -> Any:
    """Return the models by the names of their rows, where some are given as NAME=MODEL; otherwise the list.

    Raises:
        ConfigError: Two rows have one name.
    """

    def is_named(text: str) -> bool:  # a path may have that character, too
        return "=" in text and not text.startswith(("/", "./", "../", "~"))

    if not any(map(is_named, models)):
        return models
    from reviewgen.look.comparing import make_entries

    named: dict[str, str] = {}
    for text in models:
        name, _, source = text.partition("=") if is_named(text) else (make_entries([text])[0].name, "", text)
        if name in named:
            raise ConfigError(f"Two rows have the name {quoted(name, 60)}; give each its own: NAME=MODEL.")
        named[name] = source
    return named
