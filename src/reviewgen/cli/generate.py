"""``reviewgen generate | replay``: generates texts, with receipts; and generates the texts of receipts again."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options, sampling, tables
from reviewgen.cli.console import echo, echo_text, note, notes, print_json
from reviewgen.errors import ConfigError, counted, storage_errors

if TYPE_CHECKING:
    from reviewgen.model import Generation, ReviewModel

_NO_TIME = "--max-time was over before the first token: give more seconds, or leave it out."


def generate(
    model: options.Model,
    prompt: sampling.Prompt = "",
    prompts: sampling.Prompts = None,
    number: sampling.Number = 1,
    max_new_tokens: sampling.MaxNewTokens = None,
    min_new_tokens: sampling.MinNewTokens = None,
    temperature: sampling.Temperature = None,
    top_k: sampling.TopK = None,
    top_p: sampling.TopP = None,
    min_p: sampling.MinP = None,
    repetition_penalty: sampling.RepetitionPenalty = None,
    no_repeat_ngram_size: sampling.NoRepeatNgramSize = None,
    do_sample: sampling.DoSample = None,
    num_beams: sampling.NumBeams = None,
    length_penalty: sampling.LengthPenalty = None,
    stop: sampling.Stop = None,
    words: sampling.Words = None,
    finish: sampling.Finish = None,
    logits_processor: sampling.LogitsProcessor = None,
    max_time: sampling.MaxTime = None,
    condition: options.GivenCondition = None,
    must_include: sampling.MustInclude = None,
    seed: options.Seed = None,
    novelty: sampling.NoveltyMode = None,
    max_copy: sampling.MaxCopy = None,
    bits: sampling.WeightBits = 32,
    device: sampling.Device = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write to this .jsonl or .parquet file, or folder of shards; the same command resumes it."),
    ] = None,
    receipt: Annotated[
        Path | None, typer.Option(help="Write a receipt of each text to this file, for `reviewgen replay`.")
    ] = None,
    format: tables.Format = None,
    columns: tables.Columns = False,
    unique: tables.Unique = False,
    schema: tables.Schema = None,
    shard_texts: tables.ShardTexts = 10_000,
    as_json: options.AsJson = False,
) -> None:
    """Generate reviews with a trained model; under accelerate launch, in several processes."""
    given = dict(locals())
    settings = sampling.generation_options(given)
    begin = sampling.read_prompts(prompt, prompts)
    if tables.is_table(given):
        tables.write_generated(model, begin, settings, given)
    from reviewgen.api import load

    trained = load(model, weight_bits=bits)
    if device is not None:
        from reviewgen.tables import move  # torch

        move(trained, device)
    asked = None if max_time is None else number * (1 if isinstance(begin, str) else len(begin))
    settings["seed"] = secrets.randbits(32) if seed is None else seed
    texts = trained.generate_each(begin, **settings)
    if receipt is not None:
        texts = _with_receipts(texts, trained, model, receipt)
    if as_json:
        with notes.status(f"Generating {counted(number, 'text')} ..."):
            whole = list(texts)
        facts = {"model": model, "prompt": begin, "seed": settings["seed"], "texts": [text.text for text in whole]}
        facts |= {"finish_reasons": [text.finish_reason for text in whole], "new_tokens": [text.new_tokens for text in whole]}
        if novelty is not None:
            facts["novelty"] = [
                asdict(text.novelty) | {"exceeds_max_copy": text.exceeds_max_copy} for text in whole if text.novelty
            ]
        print_json(facts)
        sys.exit(_note_time(len(whole), sum(facts["new_tokens"]), asked))
    plain = num_beams is None and not (novelty or must_include or finish or receipt)
    if number == 1 and plain and prompts is None:
        sys.exit(_note_time(1, _stream(trained, prompt, settings), asked))
    shown = new_tokens = 0
    for text in texts:
        _print_text(text, shown, novelty)
        shown, new_tokens = shown + 1, new_tokens + text.new_tokens
    sys.exit(_note_time(shown, new_tokens, asked))


def _note_time(texts: int, new_tokens: int, asked: int | None) -> int:
    """Say if ``--max-time`` was over before all texts that were asked for; return the exit status, 1 if it left nothing.

    Args:
        texts: The texts that were generated.
        new_tokens: Their new tokens, or 0 if there are none.
        asked: How many texts should have been generated; None without a time limit.
    """
    if asked is None or (texts == asked and new_tokens):
        return 0
    note(f"--max-time was over after {texts:,} of {asked:,} texts." if texts and new_tokens else _NO_TIME, "yellow")
    return 0 if new_tokens else 1


def _stream(trained: "ReviewModel", prompt: str, settings: dict[str, Any]) -> int:
    """Print one text while it is generated; return how many characters are new."""
    characters = -len(prompt)
    try:
        for piece in trained.stream(prompt, **settings):
            characters += len(piece)
            echo_text(piece, end="")
            sys.stdout.flush()
    finally:  # so that an interrupt, too, leaves the terminal on a new line
        echo()
    return characters


def _print_text(text: "Generation", count: int, novelty: str | None) -> None:
    if count:
        echo("---")
    echo_text(text.text)
    if novelty is None or text.novelty is None:
        return
    for line in text.novelty.describe():
        note(f"  {line}", "dim")
    if text.exceeds_max_copy:
        note("  A span longer than max_copy was copied: at some position no other token was possible.", "yellow")


def _with_receipts(texts: Iterator["Generation"], trained: "ReviewModel", source: str, file: Path) -> Iterator["Generation"]:
    """Yield texts and write a receipt of each to a file."""
    import json

    from reviewgen.tables import make_receipt, portable_source

    tables.refuse_receipts(file)
    name = portable_source(source, file)
    first = next(texts)  # the file is created with the first text
    with storage_errors(file), file.open("x", encoding="utf-8", errors="backslashreplace") as lines:
        for text in chain([first], texts):
            lines.write(json.dumps(make_receipt(trained, text, name), ensure_ascii=False) + "\n")
            lines.flush()
            yield text


def replay(
    receipt: Annotated[Path, typer.Argument(help="A file of receipts, from `generate --receipt`.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(help="The model: a saved folder, owner/name on the Hub, or a preset.  [default: as in the receipt]"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Generate the texts of receipts again, and show what differs."""
    from reviewgen.api import load
    from reviewgen.tables import describe_replays, find_source, read_receipts
    from reviewgen.tables import replay as replay_receipt

    results, loaded = [], {}
    for number, one in enumerate(read_receipts(receipt), 1):
        source = find_source(one, receipt) if model is None else options.typed_source(model)
        device = one["model"].get("device", "cpu")
        key = source, one["model"]["bits"], device
        if key not in loaded:
            loaded[key] = load(source, weight_bits=one["model"]["bits"])
            with suppress(ConfigError):  # it is not here, which the differences say
                loaded[key].to(device)
        result = replay_receipt(one, loaded[key])
        results.append(result)
        if not as_json:
            if number > 1:
                echo("---")
            echo_text(result.text)
            for line in result.differences:
                note(f"  {line}", "yellow")
            note("  The same text." if result.is_equal else "  Another text.", "green" if result.is_equal else "red")
    is_equal = all(result.is_equal for result in results)
    if as_json:
        facts = {"identical": sum(result.is_equal for result in results), "texts": [asdict(result) for result in results]}
        print_json({"receipt": str(receipt)} | facts)
    else:
        note(describe_replays(results), "green" if is_equal else "red")
    sys.exit(0 if is_equal else 1)
