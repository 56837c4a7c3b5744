"""``reviewgen tune-sampling``: finds the generation settings whose texts read most like human ones."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, note, notes, print_json
from reviewgen.errors import ConfigError, quoted
from reviewgen.interrupts import INTERRUPTED, begin
from reviewgen.storage import check_output, to_path

if TYPE_CHECKING:
    from reviewgen.evaluation import TextStatistics
    from reviewgen.search import SamplingTrial

_COLUMNS = "unknown  distinct-1      -2      -3      -4  words/text  repeated  bits/char  distance"


def tune_sampling(
    model: options.Model,
    data: Annotated[
        str, typer.Option("--data", help="Texts by people that the model was not trained on, at least 40: a file or glob.")
    ],
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting and its values: temperature=0.8,0.9 or top_p=0.9,1. Repeatable.  [default: temperatures from 0.7 to "
            "1.1 with top_p 1 and 0.95]"
        ),
    ] = None,
    texts: Annotated[int, typer.Option(help="The number of texts generated for each combination, at least 20.")] = 100,
    judge: Annotated[
        str | None,
        typer.Option(help="A model that scores all texts.  [default: an n-gram trained on half of the data]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Save the best settings as defaults: in the model's own folder, or in a copy of it in a new folder."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The random seed of the texts.")] = 0,
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
    """Compare the texts of several generation settings with texts by people, and print the settings that come nearest."""
    values = _parse_search(search or [])
    from reviewgen.api import load
    from reviewgen.api import tune_sampling as try_settings

    loaded = load(model)
    if out is not None and not loaded.is_saved_in(out):
        check_output(to_path("out", out))

    def start() -> "Iterator[SamplingTrial]":
        """Read the texts, train the judge, and yield the trials."""
        return try_settings(
            loaded,
            options.typed_data(data),
            search=values,
            texts=texts,
            judge=None if judge is None else load(judge),
            seed=seed,
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

    begin()
    finished, is_interrupted = _watch(start, as_json)
    if not finished:
        sys.exit(INTERRUPTED if is_interrupted else 1)
    best = min(finished, key=lambda trial: trial.distance)
    if out is not None and not is_interrupted:
        loaded.save_generation_config(out, **best.settings)
    if as_json:
        print_json({"trials": [trial.as_json() for trial in finished], "best": best.as_json()})
    else:
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in best.settings.items())
        saved = f"Saved as the defaults of {out}." if out is not None and not is_interrupted else "Generate with them:"
        echo(f"Nearest to texts by people: {_describe(best.settings)}. {saved}")
        echo(f"reviewgen generate {model} {flags}" if out is None else f"reviewgen generate {out}")
    sys.exit(INTERRUPTED if is_interrupted else 0)


def _watch(start: "Callable[[], Iterator[SamplingTrial]]", as_json: bool) -> tuple[list["SamplingTrial"], bool]:
    """Print a line for each trial; return the trials, and whether an interrupt ended the search."""
    finished: list[SamplingTrial] = []
    try:
        with notes.status("Reading and generating ..."):
            for trial in start():
                finished.append(trial)
                if not as_json:
                    _print_trial(trial, is_first=len(finished) == 1)
    except KeyboardInterrupt:
        note("Interrupted; nothing was saved.")
        return finished, True
    return finished, False


def _print_trial(trial: "SamplingTrial", is_first: bool) -> None:
    width = max(len("texts by people"), len(_describe(trial.settings)))
    if is_first:
        echo(f"{'':{width}}  {_COLUMNS}")
        echo(f"{'texts by people':{width}}  {_format(trial.human)}         -")
    echo(f"{_describe(trial.settings):{width}}  {_format(trial.generated)}  {trial.distance:8.2f}")


def _format(figures: "TextStatistics") -> str:
    unknown = "      -" if figures.unknown_words is None else f"{figures.unknown_words:7.2%}"
    one, *more = figures.distinct
    distinct = "  ".join([f"{one:10.3f}", *(f"{share:6.3f}" for share in more)])
    bits = "        -" if figures.bits_per_character is None else f"{figures.bits_per_character:9.3f}"
    return f"{unknown}  {distinct}  {figures.words_per_text:10.0f}  {figures.repetition:8.2%}  {bits}"


def _describe(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _parse_search(search: list[str]) -> dict[str, list[Any]]:
    """Return the values of each setting.

    Raises:
        ConfigError: A setting has another form than name=value,value, or is given twice.
    """
    values: dict[str, list[Any]] = {}
    for text in search:
        name, listed = _parse(text)
        if name in values:
            raise ConfigError(f"{name} is given twice; give all of its values at once, as in {name}=0.8,0.9.")
        values[name] = listed
    return values


def _parse(text: str) -> tuple[str, list[Any]]:
    """Return the name and the values of a setting, given as name=value,value.

    Raises:
        ConfigError: It has another form, or a value is not a number.
    """
    name, _, listed = text.partition("=")
    try:
        values: list[Any] = [listed_value if name == "words" else _number(listed_value) for listed_value in listed.split(",")]
    except ValueError:
        raise ConfigError(f"Give a setting with its values, as in temperature=0.8,0.9; got {quoted(text)}.") from None
    return name, values


def _number(text: str) -> int | float:
    return int(text) if text.strip().isdigit() else float(text)
