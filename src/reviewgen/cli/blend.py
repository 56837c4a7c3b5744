"""``reviewgen blend``: combines several trained models into one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, notes, print_json, show_log
from reviewgen.errors import ConfigError, quoted


def blend(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL MODEL...",
            help="Saved folders, or owner/name on the Hub; all with the same tokenizer.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to save the blend in; it must not exist.")],
    weights: Annotated[str | None, typer.Option(help="A number for each model: 0.3,0.7.  [default: equal]")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Fit the weights on these texts, on which no model was trained: a file or glob.")
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
    """Combine trained models that share a tokenizer: the average of their probabilities at each token."""
    numbers = None if weights is None else _parse_weights(weights)
    from reviewgen.api import blend as blend_models
    from reviewgen.storage import check_output, to_path

    check_output(to_path("out", out))
    show_log()
    with notes.status("Blending ..." if data is None else "Fitting the weights ..."):
        model = blend_models(
            models,
            numbers,
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
        model.save_pretrained(out)
    facts = _facts(models, model.training, out)
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _parse_weights(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise ConfigError(f"--weights takes a number for each model, as in 0.3,0.7; got {quoted(text)}.") from None


def _facts(models: list[str], training: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return the results as JSON values; bits are null if they are infinite or were not measured."""
    bits = training["weights"].get("bits_per_character", {})
    parts = zip(models, training["parts"], bits.get("parts", [None] * len(models)), strict=True)
    return {
        "models": [
            {"model": name, "preset": part["preset"], "weight": part["weight"], "bits_per_character": own}
            for name, part, own in parts
        ],
        "fit": training["weights"],
        "bits_per_character": bits.get("fitted_weights"),
        "saved": str(out),
    }


def _print(facts: dict[str, Any]) -> None:
    is_measured = "bits_per_character" in facts["fit"]
    width = max(len(row["model"]) for row in facts["models"])
    for row in facts["models"]:
        bits = f"  {_format_bits(row['bits_per_character'])}" if is_measured else ""
        echo(f"{row['model']:{width}}  weight {row['weight']:.4f}{bits}")
    if is_measured:
        fixed = facts["fit"]["bits_per_character"]["fixed_weights"]
        together = f"{_format_bits(facts['bits_per_character'])} (with fixed weights {_format_bits(fixed)}), end tokens included"
        echo(f"{'the blend':{width}}  {'':13}  {together}")
    echo(f"Saved in {facts['saved']}")


def _format_bits(bits: float | None) -> str:
    return "infinite" if bits is None else f"{bits:.4f} bits per character"
