"""Tables of texts from the command line: ``generate --out``, and ``--data`` of ``score`` and ``novelty``."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reviewgen.cli import options
from reviewgen.cli.console import echo, note, notes, print_json, show_log
from reviewgen.cli.ranks import count_processes, one_voice
from reviewgen.errors import ConfigError, counted, per_second, storage_errors
from reviewgen.interrupts import begin

if TYPE_CHECKING:
    from reviewgen.tables import WrittenTexts

Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="jsonl or parquet: write --out as a folder of shards, as several processes do.  [default: jsonl]"
    ),
]
Columns = Annotated[bool, typer.Option("--columns", help="In a folder: number, seed, conditions and receipt beside each text.")]
Unique = Annotated[bool, typer.Option("--unique", help="In a folder: draw until all -n texts differ, up to about 10 n.")]
Schema = Annotated[
    str | None,
    typer.Option(
        "--schema",
        help="In a folder: draw each text's conditions, from a .json file {condition: {value: weight}} or the rows of a table.",
    ),
]
ShardTexts = Annotated[int, typer.Option("--shard-texts", min=1, help="The number of texts in a shard of a folder.")]
JudgedOut = Annotated[
    Path | None, typer.Option("--out", help="With --data: a folder for the table, or a .jsonl or .parquet file.")
]

_SHARD_TEXTS = 10_000  # by default
_RESUME = "The same command resumes from the shards that are finished."


def is_table(given: dict[str, Any]) -> bool:
    """Return whether the options of ``generate`` ask for a file or a folder of texts.

    Raises:
        ConfigError: They do, and there is no --out, or a --receipt beside a folder; or they do not, and there is --shard-texts.
    """
    processes, out = count_processes(), given["out"]
    asking = [f"--{name}" for name in ("format", "columns", "unique", "schema") if given[name]]
    if out is None and not asking and processes == 1:
        if given["shard_texts"] != _SHARD_TEXTS:
            raise ConfigError("--shard-texts is for a folder of shards: give --out FOLDER.")
        return False
    why = asking[0] if asking else f"A launcher with {processes} processes"
    if out is None:
        raise ConfigError(f"{why} writes to a folder or a file: give --out FOLDER, or a .jsonl or .parquet file.")
    if given["receipt"] is not None:
        if not _is_file(out):
            raise ConfigError("A folder has receipts with --columns: give that instead of --receipt.")
        if given["receipt"].resolve() == out.resolve():
            raise ConfigError("--out and --receipt name the same file; give each its own.")
        refuse_receipts(given["receipt"])
    return True


def _is_file(out: Path) -> bool:
    return out.suffix.lower() in (".jsonl", ".parquet")


def refuse_receipts(file: Path) -> None:
    """Raise a ConfigError if there is something where receipts are to be written."""
    if os.path.lexists(file):
        raise ConfigError(f"{file} already exists. Give another --receipt.")


def write_generated(model: str, prompt: str | list[str], settings: dict[str, Any], given: dict[str, Any]) -> None:
    """Generate texts into a file or a folder of shards, and exit."""
    others = {name: value for name, value in settings.items() if name != "num_return_sequences"}
    schema, receipt, is_file = given["schema"], given["receipt"], _is_file(given["out"])
    arguments = {name: given[name] for name in ("out", "seed", "unique", "format", "shard_texts")}
    with one_voice(_RESUME):
        from reviewgen.tables import generate_dataset, read_rows  # torch, where several processes meet

        begin()
        started = time.monotonic()
        with _progress() as progress:
            written = generate_dataset(
                model,
                settings["num_return_sequences"],
                prompt=prompt,
                columns=given["columns"] or is_file,
                receipts=given["columns"] if receipt is None else receipt,
                schema=None if schema is None else options.typed_source(schema),
                weight_bits=given["bits"],
                device="auto" if given["device"] is None else given["device"],
                progress=progress,
                options=others,  # type: ignore[arg-type]  # the options of the command line, by name
                **arguments,
            )
        if receipt is not None and not notes.quiet:
            with storage_errors(receipt), receipt.open("x", encoding="utf-8") as lines:
                lines.writelines(f"{row['receipt']}\n" for row in read_rows(written.out))
        seconds = time.monotonic() - started
    if not notes.quiet:
        _print_generated(written, seconds, as_json=given["as_json"])
    sys.exit(int(written.texts < written.summary["asked"]))


def write_judged(
    kind: Any,
    model: str,
    data: str,
    out: Path | None,
    format: str | None,
    shard_texts: int,
    *,
    device: str | None = None,
    as_json: bool,
    **reading: Any,
) -> None:
    """Judge the texts of a source, into a folder or a file.

    Raises:
        ConfigError: There is no ``out``.
    """
    if out is None:
        raise ConfigError("--data writes a table: give --out FOLDER, or a .jsonl or .parquet file.")
    with one_voice(_RESUME):
        from reviewgen.tables import judge_texts

        begin()
        show_log()
        started = time.monotonic()
        with _progress() as progress:
            written = judge_texts(
                kind,
                model,
                options.typed_data(data),
                out=out,
                format=format,
                shard_texts=shard_texts,
                progress=progress,
                device="auto" if device is None else device,
                options={name: value for name, value in reading.items() if value is not None},  # type: ignore[arg-type]  # by name
            )
        seconds = time.monotonic() - started
    if notes.quiet:
        return
    if as_json:
        print_json(_facts(written, seconds))
        return
    for line in _describe_scores(written.summary) if kind == "score" else _describe_copies(written.summary):
        echo(line)
    _print_place(written, seconds)


def _describe_scores(summary: Mapping[str, Any]) -> list[str]:
    bits = summary["bits_per_character"]
    rate = "infinite bits per character" if bits is None else f"{bits:.4f} bits per character, end tokens included"
    impossible = summary["zero_probability_texts"]
    lines = [f"{counted(impossible, 'text')} with probability zero: the bits are null."] if impossible else []
    return [rate, *lines, f"{counted(summary['characters'], 'character')}, {counted(summary['tokens'], 'token')}"]


def _describe_copies(summary: Mapping[str, Any]) -> list[str]:
    longest, long, share = summary.values()
    mean = "unknown" if share is None else f"{100 * share:.1f} %"
    texts = f"{counted(long, 'text')} {'has' if long == 1 else 'have'} one of at least 50"
    return [
        f"The longest copied span has {counted(longest, 'character')}; {texts}.",
        f"Also in the training text: {mean} of the windows of 20 tokens, on average over the texts that have any.",
    ]


def _print_generated(written: "WrittenTexts", seconds: float, *, as_json: bool) -> None:
    summary = written.summary
    if as_json:
        print_json(_facts(written, seconds))
    else:
        _print_place(written, seconds)
        if summary["repeats"]:
            were = "was" if summary["repeats"] == 1 else "were"
            echo(f"{counted(summary['repeats'], 'repeat')} among {summary['drawn']:,} generated texts {were} left out.")
    if written.texts < summary["asked"]:
        are, texts = "is" if written.texts == 1 else "are", counted(written.texts, "different text")
        note(
            f"There {are} only {texts} among {summary['drawn']:,}, and {summary['asked']:,} were wanted: "
            "raise --temperature, or ask for fewer.",
            "yellow",
        )


def _print_place(written: "WrittenTexts", seconds: float) -> None:
    files, texts = counted(len(written.files), "file"), counted(written.texts, "text")
    if not written.is_new:
        echo(f"{written.out} is complete already: {texts}, {files}.")
        return
    are = "is" if written.texts == 1 else "are"
    echo(f"{texts} {are} in {written.out} ({files}, {seconds:.1f} s, {per_second(written.texts, seconds)}).")


def _facts(written: "WrittenTexts", seconds: float) -> dict[str, Any]:
    facts = {"out": str(written.out), "texts": written.texts, **written.summary, "files": list(written.files)}
    return facts | {"is_new": written.is_new, "seconds": round(seconds, 3)}


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a progress bar on a terminal; yield a function that moves it."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    is_shown = notes.file.isatty() and not notes.quiet
    with Progress(*columns, console=notes, transient=True, disable=not is_shown) as progress:
        task = progress.add_task("Starting", total=None, rate="")
        stages: dict[str, tuple[float, int]] = {}

        def show(stage: str, done: int, total: int | None) -> None:
            """Move the bar, and show the rate since the stage began."""
            started, before = stages.setdefault(stage, (time.monotonic(), done))
            rate = (done - before) / max(time.monotonic() - started, 1e-9)
            text = f"{rate:,.0f} texts/s" if done > before else ""
            progress.update(task, description=stage, completed=done, total=total, rate=text)

        yield show
