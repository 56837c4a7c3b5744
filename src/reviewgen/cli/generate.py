"""``reviewgen generate | replay``: texts to the terminal or to a file, with receipts; and texts from receipts again."""

import secrets
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import drawing, options
from reviewgen.cli.console import note, notes, print_json
from reviewgen.errors import ConfigError, storage_errors

if TYPE_CHECKING:
    from reviewgen.model import Generation, ReviewModel

__all__ = ["generate", "replay"]


def generate(
    model: options.Model,
    prompt: drawing.Prompt = "",
    number: drawing.Number = 1,
    max_new_tokens: drawing.MaxNewTokens = None,
    min_new_tokens: drawing.MinNewTokens = None,
    temperature: drawing.Temperature = None,
    top_k: drawing.TopK = None,
    top_p: drawing.TopP = None,
    min_p: drawing.MinP = None,
    repetition_penalty: drawing.RepetitionPenalty = None,
    no_repeat_ngram_size: drawing.NoRepeatNgramSize = None,
    do_sample: drawing.DoSample = None,
    num_beams: drawing.NumBeams = None,
    length_penalty: drawing.LengthPenalty = None,
    stop: drawing.Stop = None,
    finish: drawing.Finish = None,
    max_time: drawing.MaxTime = None,
    condition: options.GivenCondition = None,
    must_include: drawing.MustInclude = None,
    seed: options.Seed = None,
    novelty: drawing.NoveltyMode = None,
    max_copy: drawing.MaxCopy = None,
    bits: drawing.Bits = 32,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file, a JSON object a line, as the texts come; goes on where it stopped.")
    ] = None,
    receipt: Annotated[Path | None, typer.Option(help="Write a receipt of each text to this file, for `replay`.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write reviews with a trained model."""
    wishes = drawing.wishes(locals())
    from reviewgen.api import load

    trained = load(model, weight_bits=bits)
    if out is not None:
        from reviewgen.cli.file import write_file

        facts, is_whole = write_file(trained, model, prompt, wishes, seed, out, receipt)
        _say_file(facts, as_json)
        sys.exit(0 if is_whole else 1)
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


def _say_file(facts: dict[str, Any], as_json: bool) -> None:
    """Say what a file of texts holds, and how fast it came."""
    if as_json:
        print_json(facts)
        return
    rate = f"{facts['written']:,} written in {facts['seconds']:.1f} s"
    if facts["written"]:
        rate += f", {facts['written'] / max(facts['seconds'], 1e-9):,.0f} a second"
    of = f" of {facts['asked']:,}" if facts["texts"] < facts["asked"] else ""
    typer.echo(f"{facts['texts']:,}{of} texts are in {facts['out']} ({rate}).")
    if facts["texts"] < facts["asked"]:
        note("The same command goes on from there.")


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
    for text in texts:  # no file without a text
        with storage_errors(file), file.open("a", encoding="utf-8", errors="backslashreplace") as lines:
            lines.write(json.dumps(make_receipt(trained, text, options.kept_source(source)), ensure_ascii=False) + "\n")
        yield text


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
            loaded[key] = load(options.typed_source(source), weight_bits=one["model"]["bits"])
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
