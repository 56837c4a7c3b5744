"""``reviewgen generate | evaluate | score | novelty``: what one does with a trained model."""

import secrets
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import note, notes, print_json, show_log

if TYPE_CHECKING:
    from reviewgen.model import GeneratedText

__all__ = ["evaluate", "generate", "novelty", "score"]

_MOST_SPANS = 10  # copied spans that are printed


def generate(
    model: options.Model,
    prompt: Annotated[str, typer.Option(help="What each text begins with.")] = "",
    number: Annotated[int, typer.Option("-n", "--number", help="How many texts.")] = 1,
    max_new_tokens: Annotated[int | None, typer.Option(help="Where to stop a text that does not end by itself.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Above 0; below 1 likelier, above 1 wilder.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k most probable tokens; 0 is off.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the most probable tokens of this probability; 1 is off.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Draw from tokens this many times as probable as the best; 0 is off.")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End a text after this string. Repeatable.")] = None,
    seed: options.Seed = None,
    novelty: Annotated[
        str | None, typer.Option(help="report: say what of each text was copied; filter: also let no long span be copied.")
    ] = None,
    max_copy: Annotated[
        int | None, typer.Option(help="With filter: the most tokens of a copied span.  [default: about 50 characters]")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write reviews with a trained model."""
    from reviewgen.api import load
    from reviewgen.model import GeneratedText

    seed = secrets.randbits(32) if seed is None else seed
    with notes.status(f"Writing {number:,} texts ..."):
        texts = load(model).generate(
            prompt,
            num_return_sequences=number,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            stop_strings=stop or (),
            seed=seed,
            novelty=novelty,
            max_copy=max_copy,
        )
    if as_json:
        facts = (
            {} if novelty is None else {"novelty": [_novelty_facts(text) for text in texts if isinstance(text, GeneratedText)]}
        )
        print_json({"model": model, "prompt": prompt, "seed": seed, "texts": texts} | facts)
    elif novelty is None:
        typer.echo("\n---\n".join(texts))
    else:
        for number, text in enumerate(texts):
            typer.echo(("---\n" if number else "") + text)
            if not isinstance(text, GeneratedText):
                continue
            for line in text.novelty.describe():
                note(f"  {line}", "dim")
            if text.exceeds_max_copy:
                note("  A longer span than max_copy was copied: at some place no other token was left.", "yellow")


def _novelty_facts(text: "GeneratedText") -> dict[str, Any]:
    return asdict(text.novelty) | {"exceeds_max_copy": text.exceeds_max_copy}


def novelty(
    model: options.Model,
    text: Annotated[str, typer.Option(help="The text to look for in the training text; - reads standard input.")],
    as_json: options.AsJson = False,
) -> None:
    """Say what of a text stands in the text that a model was trained on."""
    from reviewgen.api import load

    report = load(model).novelty(sys.stdin.read() if text == "-" else text)
    if as_json:
        print_json(asdict(report))
        return
    for line in report.describe():
        typer.echo(line)
    for span in report.spans[1:_MOST_SPANS]:
        where = "" if span.review is None else f"  (training review {span.review})"
        typer.echo(f"{len(span.text):6} characters: {span.text!r}{where}")


def evaluate(
    model: options.Model,
    data: options.Source,
    split: Annotated[str, typer.Option(help="all, or a part of the hash split: train, validation or test.")] = "all",
    text_column: options.TextColumn = None,
    documents: options.Documents = "line",
    lowercase: options.AsTrainedLowercase = None,
    strip_markdown: options.AsTrainedStripMarkdown = None,
    clean: options.AsTrainedClean = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure a trained model on a corpus, in bits per character."""
    from reviewgen.api import load
    from reviewgen.evaluation import finite

    trained = load(model)
    show_log()
    with notes.status("Evaluating ..."):
        result = trained.evaluate(
            options.typed_source(data),
            split=split,
            text_column=text_column,
            documents=documents,
            lowercase=lowercase,
            strip_markdown=strip_markdown,
            clean=clean,
        )
    if result.zero_probability_tokens:
        note(f"{result.zero_probability_tokens:,} tokens have probability zero, so the bits are infinite.")
    if as_json:
        print_json(finite(asdict(result)))
        return
    typer.echo(f"{result.bits_per_character:.4f} bits per character ({result.nats_per_character:.4f} nats), end tokens included")
    typer.echo(f"{result.perplexity_per_token:.2f} perplexity per {trained.tokenizer_name} token")
    typer.echo(f"{result.reviews:,} reviews, {result.characters:,} characters, {result.tokens:,} tokens")


def score(
    model: options.Model,
    text: Annotated[str, typer.Option(help="The text to score.")],
    as_json: options.AsJson = False,
) -> None:
    """Say how many bits a text takes under a trained model, token by token."""
    from reviewgen.api import load
    from reviewgen.evaluation import finite

    result = load(model).score(text)
    if as_json:
        print_json(finite(asdict(result)) | {"tokens": [finite(asdict(token)) for token in result.tokens]})
        return
    typer.echo(f"{result.bits:.2f} bits, {result.bits_per_character:.4f} bits per character, end token included")
    for token in result.tokens:
        typer.echo(f"{token.bits:9.3f}  {token.text!r}" if token.text else f"{token.bits:9.3f}  (end)")
