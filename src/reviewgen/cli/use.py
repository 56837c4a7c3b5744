"""``reviewgen evaluate | score | novelty``: measurements with a trained model."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from reviewgen.cli import options, tables
from reviewgen.cli.console import echo, note, notes, print_json, show_log
from reviewgen.cli.ranks import one_voice
from reviewgen.errors import ConfigError, counted

_MAX_SPANS = 10  # copied spans that are printed
_CLEANING = ("lowercase", "strip_markdown", "fix_encoding", "clean")
_READING = ("text_column", "sql", "subset", "documents", "max_text_characters", *_CLEANING)
_Data = Annotated[
    str | None, typer.Option("--data", help="Texts, as for `evaluate`; a row for each is written to --out.", show_default=False)
]
_Format = Annotated[str | None, typer.Option("--format", help="jsonl or parquet.  [default: that of --out, or jsonl]")]


def novelty(
    model: options.Model,
    text: Annotated[str | None, typer.Option(help="The text to check; - reads standard input.", show_default=False)] = None,
    data: _Data = None,
    out: tables.JudgedOut = None,
    format: _Format = None,
    shard_texts: tables.ShardTexts = 10_000,
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
    """Show which parts of a text, or of each text of a corpus, are copied from the text that a model was trained on."""
    if (text := _text_or_table("novelty", locals())) is None:
        return
    from reviewgen.api import load

    report = load(model).novelty(options.read_stdin() if text == "-" else text)
    if as_json:
        print_json(asdict(report))
        return
    for line in report.describe():
        echo(line)
    for span in report.spans[1:_MAX_SPANS]:
        review = "" if span.review is None else f"  (training review {span.review})"
        echo(f"{len(span.text):6} character{'' if len(span.text) == 1 else 's'}: {span.text!r}{review}")


def evaluate(
    model: options.Model,
    data: options.Source,
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
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Evaluate a trained model on a corpus, in bits per character; under accelerate launch, in several processes."""
    from reviewgen.evaluation import finite

    given = locals()
    with one_voice("Nothing is kept."):
        from reviewgen.tables import evaluate as evaluate_model  # torch, where several processes meet

        show_log()
        with notes.status("Evaluating ..."):
            reading: Any = {name: given[name] for name in ("split", *_READING)}
            trained, result = evaluate_model(model, options.typed_data(data), device, **reading)
    if notes.quiet:
        return
    if result.zero_probability_tokens:
        note(f"{counted(result.zero_probability_tokens, 'token')} with probability zero: the bits are infinite.")
    if as_json:
        print_json(finite(asdict(result)))
        return
    echo(f"{result.bits_per_character:.4f} bits per character ({result.nats_per_character:.4f} nats), end tokens included")
    echo(f"{result.perplexity_per_token:.2f} perplexity per {trained.tokenizer_name} token")
    counts = {"review": result.reviews, "character": result.characters, "token": result.tokens}
    echo(", ".join(counted(number, noun) for noun, number in counts.items()))


def _text_or_table(kind: str, given: dict[str, Any]) -> str | None:
    """Return the text to judge; with --data, write a table and return None.

    Raises:
        ConfigError: Neither --text nor --data is given, or both.
    """
    text: str | None = given["text"]
    if (text is None) == (given["data"] is None):
        raise ConfigError("Give --text, a text, or --data, a corpus with --out for the table; not both.")
    if text is None:
        names = ("model", "data", "out", "format", "shard_texts", "device", "as_json", *_READING)
        arguments = {name: given[name] for name in names if name in given}
        tables.write_judged(kind, **arguments)
    elif given["out"] is not None:
        raise ConfigError("--out is for --data; the result of --text is printed.")
    return text


def score(
    model: options.Model,
    text: Annotated[str | None, typer.Option(help="The text to score; - reads standard input.", show_default=False)] = None,
    prompt: Annotated[str, typer.Option(help="What comes before the text and is not scored.")] = "",
    condition: options.GivenCondition = None,
    data: _Data = None,
    out: tables.JudgedOut = None,
    format: _Format = None,
    shard_texts: tables.ShardTexts = 10_000,
    text_column: options.TextColumn = None,
    sql: options.Sql = None,
    subset: options.Subset = None,
    documents: options.Documents = "line",
    max_text_characters: options.MaxTextCharacters = 10_000_000,
    lowercase: options.AsTrainedLowercase = None,
    strip_markdown: options.AsTrainedStripMarkdown = None,
    fix_encoding: options.AsTrainedFixEncoding = None,
    clean: options.AsTrainedClean = None,
    device: options.ScoringDevice = None,
    as_json: options.AsJson = False,
) -> None:
    """Score a text with a trained model, in bits, token by token; or each text of a corpus."""
    if data is not None and (prompt or condition):
        raise ConfigError("--prompt and --condition are for --text; the conditions of --data are its columns of the same names.")
    if (text := _text_or_table("score", locals())) is None:
        return
    from reviewgen.api import load
    from reviewgen.evaluation import finite
    from reviewgen.tables import move

    given = options.read_stdin() if text == "-" else text
    trained = load(model)
    if device is not None:
        move(trained, device)
    result = trained.score(given, prompt, conditions=options.typed_conditions(condition))
    if as_json:
        print_json(finite(asdict(result)) | {"tokens": [finite(asdict(token)) for token in result.tokens]})
        return
    echo(f"{result.bits:.2f} bits, {result.bits_per_character:.4f} bits per character, end token included")
    for token in result.tokens:
        echo(f"{token.bits:9.3f}  {token.text!r}" if token.text else f"{token.bits:9.3f}  (end)")
