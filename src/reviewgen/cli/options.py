"""Options that several commands share, each with its help text, and the parsing of their values."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reviewgen.cli.ranks import refuse_standard_input
from reviewgen.errors import ConfigError, DataError, quoted

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel

_MAX_STDIN = 1 << 30  # bytes; texts are then held in memory

Model = Annotated[
    str, typer.Argument(help="A saved folder (./my-model), owner/name on the Hub, or a preset.", show_default=False)
]
Device = Annotated[
    str, typer.Option(help="The device that scores: cpu, cuda, mps, or auto: what accelerate finds, for a network.")
]
ScoringDevice = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="The device that scores: cpu, cuda, mps, or auto: what accelerate finds, for a network.  "
        "[default: auto with --data, else cpu]",
    ),
]
Preset = Annotated[
    str | None, typer.Argument(help="<model>-<tokenizer>, as in lstm-word; see `reviewgen list`.", show_default=False)
]
Trained = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="MODEL", help="Train this model further instead of a preset: a saved folder, or owner/name on the Hub."
    ),
]
Source = Annotated[
    list[str],
    typer.Option(
        "--data",
        help="A file, glob, folder or URL (txt, csv, tsv, json, jsonl, parquet, arrow, sqlite, xlsx, also packed), owner/name of "
        "a Hub dataset, 'reviews', or - for the lines of standard input. Repeatable for files.",
    ),
]
Sql = Annotated[str | None, typer.Option("--sql", help='The query of a SQLite file: "select text, stars from reviews".')]
Subset = Annotated[str | None, typer.Option("--subset", help="The subset of a Hub dataset.")]
Split = Annotated[str | None, typer.Option("--split", help="The split of a dataset that is read.  [default: train]")]
ValidationSplit = Annotated[
    str | None, typer.Option("--validation-split", help="The split of a dataset to validate on, instead of a part of the texts.")
]
NearDuplicates = Annotated[
    float | None,
    typer.Option("--near-duplicates", help="Keep one of texts at least this similar, from 0.3 to 1; needs rensa."),
]
Decontaminate = Annotated[
    int | None,
    typer.Option("--decontaminate", help="Leave out held-out texts that share this many characters with a training text."),
]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="The column that holds the text; guessed if not given.")]
Condition = Annotated[
    list[str] | None, typer.Option("--condition", help="A column beside the text that the model is conditioned on. Repeatable.")
]
GivenCondition = Annotated[
    list[str] | None,
    typer.Option("--condition", help="A value of a condition that the model was trained with: stars=5. Repeatable."),
]
Documents = Annotated[
    str,
    typer.Option("--documents", help="How a txt file is cut into texts: line, paragraph, sentence, or file for one long text."),
]
MaxTextCharacters = Annotated[
    int,
    typer.Option("--max-text-characters", min=1, help="A text of more characters is an error."),
]
Lowercase = Annotated[bool, typer.Option("--lowercase", help="Lower-case the texts.")]
StripMarkdown = Annotated[bool, typer.Option("--strip-markdown", help="Remove Markdown and keep its text.")]
FixEncoding = Annotated[bool, typer.Option("--fix-encoding", help="Mend texts that were decoded wrongly (cafÃ©); needs ftfy.")]
AsTrainedFixEncoding = Annotated[
    bool | None,
    typer.Option("--fix-encoding/--keep-encoding", help="Mend wrongly decoded texts; needs ftfy.  [default: as in training]"),
]
AsTrainedLowercase = Annotated[
    bool | None, typer.Option("--lowercase/--keep-case", help="Lower-case the texts.  [default: as in training]")
]
AsTrainedStripMarkdown = Annotated[
    bool | None, typer.Option("--strip-markdown/--keep-markdown", help="Remove Markdown.  [default: as in training]")
]
AsTrainedClean = Annotated[bool | None, typer.Option("--clean/--no-clean", help="Clean the texts.  [default: as in training]")]
NoClean = Annotated[bool, typer.Option("--no-clean", help="Use the texts exactly as they are.")]
Seed = Annotated[int | None, typer.Option("--seed", help="The random seed: the same seed gives the same texts.")]
Token = Annotated[
    str | None, typer.Option("--token", help="The access token of the Hub.  [default: that of `hf auth login`, or HF_TOKEN]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def start(preset: str | None, trained: str | None) -> "str | ReviewModel":
    """Return the preset to train, or the model to train further.

    Raises:
        ConfigError: Neither is given, or the preset is not that of the model.
    """
    if trained is None:
        if preset is None:
            raise ConfigError("Give a preset to train, as in lstm-word, or a model to train further: --from ./my-model.")
        return preset
    from reviewgen.api import load

    model = load(trained)
    if preset not in (None, model.preset):
        raise ConfigError(f"{trained} is of the preset {model.preset}, not {preset}: leave the preset out, --from is enough.")
    return model


def read_stdin(max_bytes: int = _MAX_STDIN) -> str:
    """Return the text of standard input, of bounded size.

    Raises:
        DataError: It is larger, or not UTF-8.
        ConfigError: Several processes would read it.
    """
    refuse_standard_input("-")
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:  # a text, which a program that calls the command has put there
        return sys.stdin.read()
    content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DataError(f"Standard input has more than {max_bytes >> 20:,} MB. Write it to a file, and give its name.")
    try:
        return str(content, "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"Standard input is not UTF-8 text: byte {error.start:,} is not valid. Convert it, or give a file."
        ) from None


def typed_data(given: str | list[str]) -> str | Path | list[str] | list[Path]:
    """Return a source of texts from the command line, as ``typed_source`` does; for ``-`` the lines of standard input."""
    if isinstance(given, list) and len(given) > 1:
        return [Path(each) for each in given]
    text = given[0] if isinstance(given, list) else given
    refuse_standard_input(text)
    if text != "-":
        return typed_source(text)
    lines = read_stdin().splitlines()
    if not lines:
        raise DataError("Standard input is empty: pipe texts into it, one a line, or give a file with --data.")
    return lines


def typed_source(text: str) -> str | Path:
    """Return a source from the command line: as a Path if it can only be one."""
    return Path(text) if text.startswith(("/", "./", "../", "~")) and not any(sign in text for sign in "*?[") else text


def typed_conditions(conditions: list[str] | None) -> dict[str, str] | None:
    """Return conditions given as name=value.

    Raises:
        ConfigError: One has another form, or is given twice.
    """
    values = dict(text.partition("=")[::2] for text in conditions or ())
    names = [text.partition("=")[0] for text in conditions or ()]
    if len(values) < len(names):
        raise ConfigError(f"A condition is given twice: {', '.join(names)}.")
    for text in conditions or ():
        if "=" not in text:
            raise ConfigError(f"A condition has the form name=value, as in stars=5; got {quoted(text)}.")
    return values or None
