"""``reviewgen generate | replay | play``: generates texts and their receipts; generates the texts
of receipts again; and lets the user write a text by choosing each token.
"""

import io
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from reviewgen import api
from reviewgen.cli.console import (
    Result,
    describe_written,
    echo,
    echo_text,
    exit_resumable,
    make_table,
    note,
    progress,
    show,
)
from reviewgen.cli.options import declared, path_or_string, read_stdin, select, takes
from reviewgen.config.bounded import MAX_VOCABULARY, read_text
from reviewgen.config.generation import FOREIGN, GenerationConfig
from reviewgen.config.options import CallOptions, DatasetOptions
from reviewgen.errors import (
    ConfigError,
    DataError,
    ReviewgenError,
    counted,
    first_line,
    storage_errors,
)
from reviewgen.registry.plugins import list_plugins

if TYPE_CHECKING:
    from reviewgen.generation.generator import Generation
    from reviewgen.generation.next_tokens import Alternative, Context, NextTokens, Walk
    from reviewgen.model.review_model import ReviewModel
    from reviewgen.tables.receipts import Replay

_FILES = (".jsonl", ".parquet", ".csv")  # if --out ends with one of these, the table is a file
_NO_TIME = "--max-time ran out before the first token: give more seconds, or leave it out."
_BAR = 12  # number of characters of the bar for probability 1
_SMALL_SHARE = 0.05  # a context from which a smaller share of a probability comes is not shown
_HELP = """\
a number     appends that token
Enter        samples a token; d 20 samples twenty
any text     is appended; +text or "text" if it could be a command: +5, +u, "a\\nb"
u            undoes the last step
q, Ctrl-D    quits and prints the text
In the table: bits, the token's information content; n, the length of the longest n-gram ending in
it that was seen in training (1 is the token alone); seen, how often, where "after 3" counts the
different tokens before that n-gram, as Kneser-Ney does below the longest; from, which n contribute
most to the probability."""


@takes(
    declared(
        GenerationConfig,
        without=["likeness", "json_schema", "grammar"],
        unset=True,
        num_return_sequences=1,
    ),
    CallOptions,
    DatasetOptions,
)
def generate(
    model: str,
    *,
    prompt: str = "",
    prompts: Path | None = None,
    best: int | None = None,
    of: int | None = None,
    by: str = "model",
    json_schema: Path | None = None,
    grammar: Path | None = None,
    bits: int = 32,
    device: str | None = None,
    out: Path | None = None,
    receipt: Path | None = None,
    as_json: bool = False,
    **options: Any,
) -> Result | None:
    """Generate reviews with a trained model; under accelerate launch, in several processes.

    Args:
        prompt: The beginning of each text.
        prompts: A text file of prompts, one per line, each for -n texts; - reads standard input.
        best: Print the best BEST of OF texts per prompt, best first.
        of: How many texts --best chooses among.
        by: How texts are ranked: by bits per character of the model itself (model) or of another
            model, or by an installed metric.
        json_schema: A file with a JSON schema: what follows the prompt is JSON that it allows.
        grammar: A file with a Lark grammar that what follows the prompt matches.
        device: The device that generates: cpu, cuda, mps, or auto (the device that accelerate
            finds, for networks). [default: auto with --out, else cpu]
        out: Write to this .jsonl, .parquet or .csv file, or folder of shards; after an
            interruption, the same command resumes.
        receipt: Write a receipt of each text to this file, for `reviewgen replay`.
    """
    # if the same command was interrupted before, the receipts may exist already
    is_resumed = out is not None and Path(f"{out}.partial").exists()
    if receipt is not None and os.path.lexists(receipt) and not is_resumed:
        raise ConfigError(f"{receipt} already exists. Give another --receipt.")
    prompt_or_prompts = read_prompts(prompt, prompts)
    settings = select(options, GenerationConfig) | select(options, CallOptions)
    for name, file in (("json_schema", json_schema), ("grammar", grammar)):
        settings[name] = None if file is None else _read_rule(name, file)
    shards = DatasetOptions(**select(options, DatasetOptions))
    if best is not None or of is not None or by != "model":
        _set_best_of(settings, best, of, by, out)
    _check_table_options(shards, out, receipt)
    if out is not None:
        return _write_table(
            model, prompt_or_prompts, settings, shards, receipt, out, bits, device or "auto"
        )
    trained = api.load(model, weight_bits=bits)
    if device is not None:
        from reviewgen.tables.scoring import move

        move(trained, device)
    if settings["seed"] is None:
        settings["seed"] = secrets.randbits(32)
    texts = trained.generate_each(prompt_or_prompts, **settings)
    if receipt is not None:
        texts = _with_receipts(texts, trained, model, receipt)
    prompt_count = 1 if isinstance(prompt_or_prompts, str) else len(prompt_or_prompts)
    asked = settings["num_return_sequences"] * prompt_count
    facts: dict[str, Any] = {}
    problems = 0
    # a single text is printed while it is generated, unless an option needs the whole text first
    whole_text_settings = ("novelty", "num_beams", "finish")
    needs_whole_texts = as_json or receipt or prompts or of is not None
    needs_whole_texts = needs_whole_texts or any(settings[name] for name in whole_text_settings)
    if asked == 1 and not needs_whole_texts:
        shown = 1
        has_new_text = _stream(trained, prompt, settings)
    elif as_json:
        facts = {"model": model, "prompt": prompt_or_prompts, "seed": settings["seed"]}
        facts |= _describe_all(list(texts), settings["novelty"])
        problems = sum(map(bool, facts["problems"]))
        shown = len(facts["texts"])
        has_new_text = any(facts["new_tokens"])
    else:
        shown = 0
        has_new_text = False
        for text in texts:
            _print_text(text, not shown, settings["novelty"])
            shown += 1
            has_new_text |= text.new_tokens > 0
            problems += bool(text.problem)
    if settings["max_time"] is not None:
        if not has_new_text:
            note(_NO_TIME, "yellow")
            return Result(facts, status=1)
        if shown != asked:
            note(f"--max-time ran out after {shown:,} of {asked:,} texts.", "yellow")
    return Result(facts, status=int(problems > 0))


def _set_best_of(
    settings: dict[str, Any], best: int | None, of: int | None, by: str, out: Path | None
) -> None:
    """Add to ``settings`` how many texts are chosen, among how many, and by which judge.

    Args:
        settings: The settings of the call; updated.
        best, of, by, out: The values of these options of ``generate``.

    Raises:
        ConfigError: The options do not fit together, or the judge cannot be loaded.
    """
    if best is None or of is None:
        raise ConfigError("--best and --of are given together, as in --best 5 --of 50.")
    if settings["num_return_sequences"] != 1 or out is not None:
        raise ConfigError("--best says how many texts are printed: leave out -n and --out.")
    settings |= {"num_return_sequences": best, "best_of": of}
    if by in [metric.name for metric in list_plugins("metric")]:
        settings["judge"] = by
    elif by != "model":
        settings["judge"] = api.load(by)


def refuse_foreign_names(arguments: Sequence[str]) -> None:
    """Refuse options of ``generate`` under the names that they have in other libraries.

    ``stop`` is among these names, but it is accepted here.

    Raises:
        ConfigError: There is such an option; the message gives the option's name in reviewgen.
    """
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0].replace("-", "_")
        if argument.startswith("--") and name in FOREIGN and name != "stop":
            raise ConfigError(
                f"{argument.partition('=')[0]} is called --{FOREIGN[name].replace('_', '-')} here."
            )


def read_prompts(prompt: str, file: Path | None) -> str | list[str]:
    """Return the prompt, or the list of prompts in a file, which has one per line.

    Raises:
        ConfigError: Both are given, or the file has no prompts.
        DataError: The file cannot be read, or is not text.
    """
    if file is None:
        return prompt
    if prompt:
        raise ConfigError("Give --prompt or --prompts, not both.")
    try:
        text = read_stdin() if str(file) == "-" else read_text(file, MAX_VOCABULARY, "utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"The prompts {file} cannot be read: {first_line(error)}.") from None
    prompts = [line for line in text.splitlines() if line.strip()]
    if not prompts:
        raise ConfigError(f"{file} has no prompts; write one per line.")
    return prompts


def _read_rule(name: str, file: Path) -> str:
    """Return the text of a file with a JSON schema or a grammar. ``name`` is the setting.

    Raises:
        DataError: The file cannot be read, or is not text.
    """
    try:
        return read_text(file, MAX_VOCABULARY, "utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"The {name} {file} cannot be read: {first_line(error)}.") from None


def _check_table_options(shards: DatasetOptions, out: Path | None, receipt: Path | None) -> None:
    """Check the options for a table of texts: a file or a folder, which --out names.

    Raises:
        ConfigError: An option needs a table, and there is no --out; --receipt is given with a
            folder; or --out and --receipt name the same file.
    """
    if out is None:
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        given = [  # the options for a table that the user has set
            f"--{name.replace('_', '-')}"
            for name, value in vars(shards).items()
            if value != getattr(DatasetOptions, name)
        ]
        if given or processes != 1:
            why = given[0] if given else f"A launcher with {processes} processes"
            raise ConfigError(
                f"{why} writes to a folder or a file: give --out FOLDER, or a .jsonl, .parquet or"
                " .csv file."
            )
    elif receipt is not None:
        if out.suffix.lower() not in _FILES:
            raise ConfigError(
                "A folder has receipts with --columns: give that instead of --receipt."
            )
        if receipt.resolve() == out.resolve():
            raise ConfigError("--out and --receipt name the same file; give each its own.")


def _write_table(
    model: str,
    prompt: str | list[str],
    settings: Any,
    shards: DatasetOptions,
    receipt: Path | None,
    out: Path,
    bits: int,
    device: str,
) -> Result:
    """Generate texts into a file or a folder of shards, and return the result of the command."""
    from reviewgen.tables.generating import generate_dataset

    texts_per_prompt = settings.pop("num_return_sequences")
    started = time.monotonic()
    # a file always has the columns of --columns, except that of the receipts, which it has only
    # with --columns or --receipt
    receipts = receipt or shards.columns
    shards = replace(shards, columns=shards.columns or out.suffix.lower() in _FILES)
    with exit_resumable(out), progress() as report:
        written = generate_dataset(
            model,
            texts_per_prompt,
            shards,
            out=out,
            prompt=prompt,
            receipts=receipts,
            progress=report,
            weight_bits=bits,
            device=device,
            options=settings,
        )
    asked, drawn, repeats = (written.summary[name] for name in ("asked", "drawn", "repeats"))
    is_short = written.texts < asked
    if is_short:
        texts = counted(written.texts, "different text")
        note(
            f"Wanted {asked:,}, but got only {texts} among {drawn:,}: raise --temperature, or ask"
            " for fewer.",
            "yellow",
        )
    left_out = f"Left out {counted(repeats, 'repeat')} among {drawn:,} generated texts."
    return describe_written(written, started, [left_out] if repeats else [], int(is_short))


def _describe_all(texts: "list[Generation]", novelty: str | None) -> dict[str, Any]:
    """Return the facts on generated texts for ``--json``: a list for each kind of fact."""
    facts: dict[str, Any] = {
        "synthetic": True,
        "texts": [text.text for text in texts],
        "finish_reasons": [text.finish_reason for text in texts],
        "new_tokens": [text.new_tokens for text in texts],
        "conditions": [text.conditions for text in texts],
        "problems": [text.problem for text in texts],
    }
    if novelty is not None:
        facts["novelty"] = [
            vars(text.novelty) | {"exceeds_max_copy": text.exceeds_max_copy}
            for text in texts
            if text.novelty is not None
        ]
    return facts


def _stream(trained: "ReviewModel", prompt: str, settings: dict[str, Any]) -> bool:
    """Print a text while it is generated. Return whether the text is longer than the prompt."""
    characters = 0
    try:
        for piece in trained.stream(prompt, **settings):
            characters += len(piece)
            echo_text(piece, end="")
            sys.stdout.flush()
    finally:  # also after an interrupt, so that the terminal is on a new line
        echo()
    return characters > len(prompt)


def _print_text(text: "Generation", is_first: bool, novelty: str | None) -> None:
    """Print a text, and what it copies unless ``novelty`` is None. Before a text that is not the
    first, a separating line is printed.
    """
    if not is_first:
        echo("---")
    echo_text(text.text)
    if text.problem:
        note(f"  {text.problem}", "yellow")
    # in this order, since ``text.novelty`` looks the copies up, which takes time
    if novelty is None or text.novelty is None:
        return
    for line in text.novelty.describe():
        note(f"  {line}", "dim")
    if text.exceeds_max_copy:
        note(
            "  A span longer than max_copy was copied: at some position no other token was"
            " possible.",
            "yellow",
        )


def _with_receipts(
    texts: Iterator["Generation"], trained: "ReviewModel", source: str, file: Path
) -> Iterator["Generation"]:
    """Yield texts, and write a receipt of each to a file. The file is created when the first text
    is finished.
    """
    from reviewgen.tables.receipts import make_receipt, portable_origin

    origin = portable_origin(source, file)
    first = next(texts)
    with storage_errors(file), file.open("x", encoding="utf-8", errors="backslashreplace") as lines:
        for text in chain([first], texts):
            lines.write(json.dumps(make_receipt(trained, text, origin), ensure_ascii=False) + "\n")
            lines.flush()
            yield text


@takes()
def replay(receipt: Path, *, model: str | None = None, as_json: bool = False) -> Result:
    """Generate the texts of receipts again, and show what differs.

    Args:
        receipt: A file of receipts, from `generate --receipt`.
        model: The model: a saved folder, owner/name on the Hub, or a preset. [default: as in the
            receipt]
    """
    from reviewgen.tables.receipts import describe_replays, find_origin, read_receipts, replay

    results: list[Replay] = []
    loaded: dict[tuple[Any, ...], ReviewModel] = {}
    for record in read_receipts(receipt):
        source = find_origin(record, receipt) if model is None else path_or_string(model)
        key = (source, record.model.bits, record.model.device)
        if key not in loaded:
            loaded[key] = api.load(source, weight_bits=record.model.bits)
            # the receipt's device may be missing here; result.differences then reports that
            with suppress(ConfigError):
                loaded[key].to(record.model.device)
        result = replay(record, loaded[key])
        if not as_json:
            if results:
                echo("---")
            echo_text(result.text)
            for line in result.differences:
                note(f"  {line}", "yellow")
            if result.is_equal:
                note("  The same text.", "green")
            else:
                note("  Another text.", "red")
        results.append(result)
    identical = sum(result.is_equal for result in results)
    is_equal = identical == len(results)
    if not as_json:
        note(describe_replays(results), "green" if is_equal else "red")
    facts = {"receipt": str(receipt), "identical": identical, "texts": results}
    return Result(facts, status=int(not is_equal))


@takes(
    declared(GenerationConfig, only=["conditions", "logits_processors"], unset=True),
    declared(CallOptions, only=["seed"]),
)
def play(
    model: str,
    *,
    prompt: str = "",
    k: int = 10,
    temperature: float = 1.0,
    as_json: bool = False,
    **options: Any,
) -> Result | None:
    """Show what a model expects next, token by token, and choose the next token yourself.

    Args:
        prompt: The beginning of the text.
        k: The number of alternatives to show.
        temperature: Above 0; 1 shows the model's own probabilities.
    """
    from reviewgen.generation.pieces import TokenTexts

    processors = options.pop("logits_processors")
    loaded = api.load(model)
    if prompt.endswith(" ") and not TokenTexts(loaded.tokenizer).are_characters:
        note(
            "The prompt ends with a space, which belongs to the next word in this model: leave it"
            " out.",
            "yellow",
        )
    walk = loaded.walk(prompt, temperature=temperature, logits_processor=processors, **options)
    if as_json:
        return Result({"model": model} | walk.next_tokens(k).to_dict())
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    try:
        _loop(walk, k)
    except (EOFError, KeyboardInterrupt):
        echo()
    echo_text(walk.text)
    return None


def _loop(walk: "Walk", k: int) -> None:
    """Until the user quits: show the possible next tokens, and carry out commands until one of them
    has changed the text.
    """
    note(
        "A number appends a token, Enter samples one, text is appended, u undoes, q quits, ? is"
        " help.",
        "dim",
    )
    while True:
        expected = None if walk.has_ended else walk.next_tokens(k)
        show(None, False, _show_step(walk.text, expected))
        message: str | None = ""  # what to tell the user; None once a command has changed the text
        while message is not None:
            command = input("> ")
            if command == "q":
                return
            try:
                message = _execute(walk, command, expected)
            except ReviewgenError as error:
                message = str(error)
            for line in (message or "").splitlines():
                note(line, None if message == _HELP else "yellow")


def _execute(walk: "Walk", line: str, expected: "NextTokens | None") -> str | None:
    """Carry out a command of ``play``. Return None if the text has changed, else a message for the
    user.
    """
    if line == "?":
        return _HELP
    if line == "u":
        return None if walk.undo() else "There is no step to undo."
    # matches an empty line (Enter), d, and d with a number of tokens
    if draw := re.fullmatch(r"(?:d(?: +([0-9]{1,9}))?)?", line):
        walk.draw(int(draw[1] or 1))
        return None
    if re.fullmatch(r"[0-9]{1,9}", line):
        shown = expected.alternatives if expected else ()
        if not 1 <= int(line) <= len(shown):
            return (
                f"{line} is not in the table, which has {len(shown)} rows; +{line} appends it as"
                " text."
            )
        walk.take(shown[int(line) - 1].token)
        return None
    text = line.removeprefix("+")
    if len(line) > 1 and line[0] == line[-1] == '"':
        try:
            text = str(json.loads(line))
        except ValueError:
            text = ""
    if not text:
        return f'{line} adds no text: type +text, or "text" with \\n for a new line.'
    walk.write(text)
    return None


def _show_step(text: str, expected: "NextTokens | None") -> list[RenderableType]:
    """Return the text so far, and the table of the possible next tokens, for printing."""
    lines: list[RenderableType] = [Text(), Text(text or "(the start of a review)", style="bold")]
    if expected is None:
        return [*lines, Text("The review ends here; u undoes that.", style="dim")]
    if expected.contexts:
        lines.append(Text(_describe_context(expected.contexts[0]), style="dim"))
    possible = counted(expected.possible, "possible token")
    entropy = Text(f"entropy {expected.entropy_bits:.2f} bits; {possible}")
    return [*lines, _next_tokens_table(expected), entropy]


def _describe_context(context: "Context") -> str:
    """Return a sentence on the longest context that was seen in training."""
    from reviewgen.generation.next_tokens import show

    text = show(context.text)
    if context.is_start:
        what = "the start of the review" + (f" and {text}" if context.text else "")
    elif context.tokens:
        what = f"the last {context.tokens} tokens, {text}" if context.tokens > 1 else text
    else:
        what = "no token"
    if context.total is None:
        return f"looks back at {what}; the model does not store how often that was seen"
    if context.unit == "predecessors":
        return f"looks back at {what}, seen between {context.total:,} different pairs of neighbours"
    times = "once" if context.total == 1 else f"{context.total:,} times"
    return f"looks back at {what}, seen {times}"


def _next_tokens_table(expected: "NextTokens") -> RenderableType:
    """Return a table with a row for each possible next token."""
    rows = []
    for number, alternative in enumerate(expected.alternatives, 1):
        probability = alternative.probability
        form = ".1f" if probability >= 0.001 else ".1g"
        bar = ("█" * round(_BAR * probability)).ljust(_BAR)
        cells = [number, alternative.shown, f"{100 * probability:{form}} %", bar]
        counts = _count_cells(alternative, expected.contexts)
        rows.append([*cells, f"{alternative.bits:.2f}", *counts])
    names = ("n", "seen", "from") if expected.contexts else ()
    return make_table("#", "token", "prob.", "", "bits", *names, rows=rows, left=["token", "from"])


def _count_cells(alternative: "Alternative", contexts: "tuple[Context, ...]") -> list[str]:
    """Return the cells on the counts behind a token's probability; no cells if the model has no
    counts.

    The cells are: the order (the length in tokens) of the longest n-gram that ends in the token and
    was seen in training; how often this n-gram was seen; and the at most two orders that contribute
    most to the probability.
    """
    support = alternative.support
    if support is None:
        return []
    unit_of_order = {context.tokens + 1: context.unit for context in contexts}
    if not support.order:
        seen = "never"
    elif support.count is None:
        seen = ""
    elif unit_of_order.get(support.order) == "predecessors":
        seen = f"after {support.count:,}"
    else:
        seen = f"{support.count:,}×"
    shares_and_orders = [
        (share, context.tokens + 1)
        for context, share in zip(contexts, support.shares or (), strict=False)
        if share >= _SMALL_SHARE
    ]
    largest = sorted(shares_and_orders, reverse=True)[:2]
    origin = ", ".join(f"{order}: {round(100 * share)} %" for share, order in largest)
    return [str(support.order or "-"), seen, origin]
