"""``reviewgen evaluate | score | novelty``: measurements with a trained model."""

from dataclasses import asdict
from typing import Annotated

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, note, notes, print_json, show_log

__all__ = ["evaluate", "novelty", "score"]

_MAX_SPANS = 10  # copied spans that are printed


def novelty(
    model: options.Model,
    text: Annotated[str, typer.Option(help="The text to check; - reads standard input.")],
    as_json: options.AsJson = False,
) -> None:
    """Show which parts of a text are copied from the text that a model was trained on."""
    from reviewgen.api import load

    report = load(model).novelty(options.read_stdin() if text == "-" else text)
    if as_json:
        print_json(asdict(report))
        return
    for line in report.describe():
        echo(line)
    for span in report.spans[1:_MAX_SPANS]:
        review = "" if span.review is None else f"  (training review {span.review})"
        echo(f"{len(span.text):6} characters: {span.text!r}{review}")


def evaluate(
    model: options.Model,
    data: options.Source,
    split: Annotated[
        str, typer.Option(help="The part of the data: all, or train, validation or test of the hash split.")
    ] = "all",
    text_column: options.TextColumn = None,
    documents: options.Documents = "line",
    max_text_characters: options.MaxTextCharacters = 10_000_000,
    lowercase: options.AsTrainedLowercase = None,
    strip_markdown: options.AsTrainedStripMarkdown = None,
    fix_encoding: options.AsTrainedFixEncoding = None,
    clean: options.AsTrainedClean = None,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate a trained model on a corpus, in bits per character."""
    from reviewgen.api import load
    from reviewgen.evaluation import finite

    trained = load(model)
    show_log()
    with notes.status("Evaluating ..."):
        result = trained.evaluate(
            options.typed_data(data),
            split=split,
            text_column=text_column,
            documents=documents,
            max_text_characters=max_text_characters,
            lowercase=lowercase,
            strip_markdown=strip_markdown,
            fix_encoding=fix_encoding,
            clean=clean,
        )
    if result.zero_probability_tokens:
        note(f"{result.zero_probability_tokens:,} tokens have probability zero, so the bits are infinite.")
    if as_json:
        print_json(finite(asdict(result)))
        return
    echo(f"{result.bits_per_character:.4f} bits per character ({result.nats_per_character:.4f} nats), end tokens included")
    echo(f"{result.perplexity_per_token:.2f} perplexity per {trained.tokenizer_name} token")
    echo(f"{result.reviews:,} reviews, {result.characters:,} characters, {result.tokens:,} tokens")


def score(
    model: options.Model,
    text: Annotated[str, typer.Option(help="The text to score; - reads standard input.")],
    prompt: Annotated[str, typer.Option(help="What comes before the text and is not scored.")] = "",
    condition: options.GivenCondition = None,
    as_json: options.AsJson = False,
) -> None:
    """Score a text with a trained model, in bits, token by token."""
    from reviewgen.api import load
    from reviewgen.evaluation import finite

    given = options.read_stdin() if text == "-" else text
    result = load(model).score(given, prompt, conditions=options.typed_conditions(condition))
    if as_json:
        print_json(finite(asdict(result)) | {"tokens": [finite(asdict(token)) for token in result.tokens]})
        return
    echo(f"{result.bits:.2f} bits, {result.bits_per_character:.4f} bits per character, end token included")
    for token in result.tokens:
        echo(f"{token.bits:9.3f}  {token.text!r}" if token.text else f"{token.bits:9.3f}  (end)")
