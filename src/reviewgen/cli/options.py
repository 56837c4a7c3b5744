"""Options that several commands share, each with its help text, said once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reviewgen.errors import ConfigError

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel

__all__ = [
    "AsJson",
    "AsTrainedClean",
    "AsTrainedLowercase",
    "AsTrainedStripMarkdown",
    "Condition",
    "Documents",
    "GivenCondition",
    "Lowercase",
    "Model",
    "NoClean",
    "Preset",
    "Seed",
    "Source",
    "StripMarkdown",
    "TextColumn",
    "Token",
    "Trained",
    "kept_source",
    "start",
    "typed_conditions",
    "typed_source",
]

Model = Annotated[
    str, typer.Argument(help="A saved folder (./my-model), owner/name on the Hub, or a preset.", show_default=False)
]
Preset = Annotated[
    str | None, typer.Argument(help="<model>-<tokenizer>, as in lstm-word; see `reviewgen list`.", show_default=False)
]
Trained = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="MODEL", help="Train this model further, in place of a preset: a saved folder, owner/name on the Hub."
    ),
]
Source = Annotated[
    str,
    typer.Option(
        "--data",
        help="A file or glob (txt, csv, tsv, json, jsonl, parquet, each also .gz), owner/name of a Hub dataset, or 'reviews'.",
    ),
]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="The column that holds the text; guessed if not given.")]
Condition = Annotated[
    list[str] | None, typer.Option("--condition", help="A column beside the text that the model learns to obey. Repeatable.")
]
GivenCondition = Annotated[
    list[str] | None, typer.Option("--condition", help="A condition of the training: stars=5. Repeatable.")
]
Documents = Annotated[str, typer.Option("--documents", help="How a txt file is cut into reviews: line, paragraph or file.")]
Lowercase = Annotated[bool, typer.Option("--lowercase", help="Lower-case the texts.")]
StripMarkdown = Annotated[bool, typer.Option("--strip-markdown", help="Keep the words of markdown only.")]
AsTrainedLowercase = Annotated[bool | None, typer.Option("--lowercase/--keep-case", help="Lower-case.  [default: as trained]")]
AsTrainedStripMarkdown = Annotated[
    bool | None, typer.Option("--strip-markdown/--keep-markdown", help="Strip markdown.  [default: as trained]")
]
AsTrainedClean = Annotated[bool | None, typer.Option("--clean/--no-clean", help="Clean the texts.  [default: as trained]")]
NoClean = Annotated[bool, typer.Option("--no-clean", help="Take the texts exactly as they are.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Same seed, same texts.")]
Token = Annotated[str | None, typer.Option("--token", help="Of the Hub.  [default: of `hf auth login`, or HF_TOKEN]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def start(preset: str | None, trained: str | None) -> "str | ReviewModel":
    """Return the preset, or the model that is trained further.

    Raises:
        ConfigError: There is neither, or both and they differ.
    """
    if trained is None:
        if preset is None:
            raise ConfigError("Name a preset to train, as in lstm-word, or a model to train further: --from ./my-model.")
        return preset
    from reviewgen.api import load

    model = load(trained)
    if preset not in (None, model.preset):
        raise ConfigError(f"{trained} is of the preset {model.preset}, not {preset}: leave the preset out, --from says it all.")
    return model


def typed_source(text: str) -> str | Path:
    """Return what a person typed as a source: a path where it can only be one."""
    return Path(text) if text.startswith(("/", "./", "../", "~")) and not any(sign in text for sign in "*?[") else text


def kept_source(text: str) -> str:
    """Return a model's source as it is understood from any folder: that of a local one is its whole path."""
    return str(Path(text).expanduser().resolve()) if Path(text).expanduser().is_dir() else text


def typed_conditions(conditions: list[str] | None) -> dict[str, str] | None:
    """Return conditions typed as name=value."""
    found = dict(text.partition("=")[::2] for text in conditions or ())
    names = [text.partition("=")[0] for text in conditions or ()]
    if len(found) < len(names):
        raise ConfigError(f"A condition is given twice: {', '.join(names)}.")
    for text in conditions or ():
        if "=" not in text:
            raise ConfigError(f"A condition is written name=value, as in stars=5; got {text!r}.")
    return found or None
