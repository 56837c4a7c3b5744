"""``reviewgen generate | replay``: texts to the terminal or to a file, with receipts; and texts from receipts again."""

import secrets
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import note, notes, print_json
from reviewgen.errors import ConfigError, storage_errors

if TYPE_CHECKING:
    from reviewgen.model import Generation, ReviewModel

__all__ = ["generate", "replay"]


def generate(
    model: options.Model,
    prompt: Annotated[str, typer.Option(help="What each text begins with.")] = "",
    number: Annotated[int, typer.Option("-n", "--number", help="How many texts.")] = 1,
    max_new_tokens: Annotated[int | None, typer.Option(help="Where to cut off a text that does not end by itself.")] = None,
    min_new_tokens: Annotated[int | None, typer.Option(help="No text ends by itself before it has so many.")] = None,
    temperature: Annotated[
        str | None, typer.Option(help="Above 0; below 1 likelier, above 1 wilder. A cycle: 1.0,0.5,0.2.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k most probable tokens; 0 is off.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the most probable tokens of this probability; 1 is off.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Draw from tokens this many times as probable as the best; 0 is off.")
    ] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1: used tokens become less probable.")] = None,
    no_repeat_ngram_size: Annotated[int | None, typer.Option(help="No run of so many tokens twice in a text; 0 is off.")] = None,
    do_sample: Annotated[
        bool | None, typer.Option("--sample/--greedy", help="Draw, or take the most probable token.  [default: draw]")
    ] = None,
    num_beams: Annotated[int | None, typer.Option(help="Search for the most probable texts, so many at a time.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End a text after this string. Repeatable.")] = None,
    finish: Annotated[str | None, typer.Option(help="sentence: end texts that are cut off at a sentence end.")] = None,
    max_time: Annotated[float | None, typer.Option(help="Seconds after which the texts end where they are.")] = None,
    condition: options.GivenCondition = None,
    must_include: Annotated[list[str] | None, typer.Option(help="A word that each text must hold. Repeatable.")] = None,
    seed: options.Seed = None,
    novelty: Annotated[
        str | None, typer.Option(help="report: say what of each text was copied; filter: also let no long span be copied.")
    ] = None,
    max_copy: Annotated[
        int | None, typer.Option(help="With filter: the most tokens of a copied span.  [default: about 50 characters]")
    ] = None,
    bits: Annotated[int, typer.Option(help="Of a weight: 32, or 16 or 8, which write faster with large models.")] = 32,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file, a JSON object a line, as the texts come; goes on where it stopped.")
    ] = None,
    receipt: Annotated[Path | None, typer.Option(help="Write a receipt of each text to this file, for `replay`.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write reviews with a trained model."""
    from reviewgen.api import load

    trained = load(model, bits=bits)
    wishes: dict[str, Any] = {
        "num_return_sequences": number,
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
        "temperature": _numbers(temperature),
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "do_sample": do_sample,
        "num_beams": num_beams,
        "stop_strings": stop or None,
        "finish": finish,
        "max_time": max_time,
        "conditions": options.typed_conditions(condition),
        "must_include": must_include or None,
        "novelty": novelty,
        "max_copy": max_copy,
    }
    if out is not None:
        from reviewgen.cli.file import write_file

        sys.exit(write_file(trained, model, prompt, wishes, seed, out, receipt))
    wishes["seed"] = secrets.randbits(32) if seed is None else seed
    texts = trained.generate_each(prompt, **wishes)
    if receipt is not None:
        texts = _with_receipts(texts, trained, model, receipt)
    if as_json:
        with notes.status(f"Writing {number:,} texts ..."):
            found = list(texts)
        print_json({"model": model, "prompt": prompt, "seed": wishes["seed"]} | _facts(found, novelty))
        return
    plain = num_beams is None and not (novelty or must_include or finish or receipt)
    if number == 1 and plain:
        _stream(trained, prompt, wishes)
        return
    for count, text in enumerate(texts):
        _show(text, count, novelty)


def _stream(trained: "ReviewModel", prompt: str, wishes: dict[str, Any]) -> None:
    """Print one text as it comes."""
    try:
        for piece in trained.stream(prompt, **wishes):
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:  # an interrupt too leaves the terminal on a new line
        sys.stdout.write("\n")


def _show(text: "Generation", count: int, novelty: str | None) -> None:
    typer.echo(("---\n" if count else "") + text.text)
    if novelty is None or text.novelty is None:
        return
    for line in text.novelty.describe():
        note(f"  {line}", "dim")
    if text.exceeds_max_copy:
        note("  A longer span than max_copy was copied: at some place no other token was left.", "yellow")


def _facts(texts: list["Generation"], novelty: str | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "texts": [text.text for text in texts],
        "finish_reasons": [text.finish_reason for text in texts],
        "new_tokens": [text.new_tokens for text in texts],
    }
    if novelty is None:
        return facts
    reports = [asdict(text.novelty) | {"exceeds_max_copy": text.exceeds_max_copy} for text in texts if text.novelty is not None]
    return facts | {"novelty": reports}


def _with_receipts(texts: Iterator["Generation"], trained: "ReviewModel", source: str, file: Path) -> Iterator["Generation"]:
    """Yield texts, and write a receipt of each."""
    import json

    from reviewgen.receipts import make_receipt

    if file.exists():
        raise ConfigError(f"{file} is there already. Give another --receipt.")
    with storage_errors(file), file.open("x", encoding="utf-8", errors="backslashreplace") as lines:
        for text in texts:
            lines.write(json.dumps(make_receipt(trained, text, options.kept_source(source)), ensure_ascii=False) + "\n")
            yield text


def _numbers(text: str | None) -> list[float] | float | None:
    """Return a temperature or a cycle of them, as typed."""
    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"temperature is a number, or several as in 1.0,0.5,0.2; got {text!r}.") from None
    return found[0] if len(found) == 1 else found


def replay(
    receipt: Annotated[Path, typer.Argument(help="A file of receipts, from `generate --receipt`.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="The model.  [default: where the receipt says that it was]")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the texts of receipts again, and say what differs."""
    from reviewgen.api import load
    from reviewgen.receipts import read_receipts
    from reviewgen.receipts import replay as write_again

    results, loaded = [], {}
    for number, one in enumerate(read_receipts(receipt), 1):
        source = model or one["model"]["source"]
        if source is None:
            raise ConfigError("The receipt does not say where its model is: name it with --model.")
        key = source, one["model"]["bits"]
        if key not in loaded:
            loaded[key] = load(options.typed_source(source), bits=one["model"]["bits"])
        result = write_again(one, loaded[key])
        results.append(result)
        if not as_json:
            typer.echo(("---\n" if number > 1 else "") + result.text)
            for line in result.differences:
                note(f"  {line}", "yellow")
            note("  The same text." if result.is_equal else "  Another text.", "green" if result.is_equal else "red")
    if as_json:
        print_json({"receipt": str(receipt), "texts": [asdict(result) for result in results]})
    sys.exit(0 if all(result.is_equal for result in results) else 1)
