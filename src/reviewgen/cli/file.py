"""Writes generated texts to a file, one JSON object a line, with a progress bar; resumes where an earlier run stopped."""

import hashlib
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reviewgen.cli.console import note, notes
from reviewgen.cli.outputs import check_output, continue_file, is_stream, locked
from reviewgen.config import to_dict
from reviewgen.errors import ConfigError, storage_errors
from reviewgen.generation.request import device_facts
from reviewgen.interrupts import INTERRUPTED, begin
from reviewgen.receipts import make_receipt

if TYPE_CHECKING:
    from reviewgen.model import Generation, ReviewModel


def write_file(
    model: "ReviewModel",
    source: str,
    prompt: str | list[str],
    settings: dict[str, Any],
    seed: int | None,
    out: Path,
    receipt: Path | None,
) -> tuple[dict[str, Any], int]:
    """Generate texts and write them to a file.

    Args:
        model: The model.
        source: The model's source as the user gave it, for the receipts.
        prompt: The beginning of each text, or several.
        settings: Keywords of ``ReviewModel.generate_each``.
        seed: The seed; None takes that of the file, or a random one.
        out: The file of texts.
        receipt: A file for a receipt of each text.

    Returns:
        Facts of the run as JSON values, and the exit status: 1 if the time was over before all texts were written.

    Raises:
        ConfigError: A file was written with other settings or by another model, holds something else, is not a plain file, or
            another process writes to it; or both are one file.
        StorageError: The disk is full, or the file cannot be written.
    """
    if receipt is not None and receipt.resolve() == out.resolve():
        raise ConfigError("--out and --receipt name the same file; give each its own.")
    files = {"--receipt": receipt, "--out": out} if receipt is not None else {"--out": out}
    for option, file in files.items():
        check_output(option, file)
    run = _digest_run(model, prompt, settings)
    total = settings["num_return_sequences"] * (1 if isinstance(prompt, str) else len(prompt))

    def make_lines(text: "Generation") -> list[dict[str, Any]]:
        own = {"run": run} | text.facts() | _novelty(text, settings["novelty"])
        return [own] if receipt is None else [make_receipt(model, text, source, receipt), own]

    with ExitStack() as stack:
        stack.enter_context(locked(*(file for file in files.values() if not is_stream(file))))
        done, seed = _resume(out, run, seed)
        if receipt is not None:
            _resume_receipts(receipt, out, done, seed, model)
        if 0 < done < total:
            note(f"{out} holds {done:,} of {total:,} texts; resuming.")
        begin()
        texts = model.generate_each(prompt, first=done, seed=seed, **settings) if done < total else iter(())
        written, started, is_interrupted = done, time.monotonic(), False
        append = stack.enter_context(_appending(list(files.values()), make_lines))
        try:
            for text in _with_progress(texts, done, total):
                append(text)
                written += 1
        except KeyboardInterrupt:
            note("Interrupted.")
            is_interrupted = True
    facts = {"out": str(out), "seed": seed, "texts": max(written, done), "written": written - done, "asked": total}
    return facts | {"seconds": round(time.monotonic() - started, 3)}, INTERRUPTED if is_interrupted else int(written < total)


def _digest_run(model: "ReviewModel", prompt: str | list[str], settings: dict[str, Any]) -> str:
    """Return a digest of the model, its defaults and device, the prompt and all settings; one prompt's texts may become more."""
    left_out = {"num_return_sequences"} if isinstance(prompt, str) else set()
    facts = {name: value for name, value in settings.items() if name not in left_out} | {"prompt": prompt}
    facts |= device_facts(model.device)
    text = json.dumps([model.digest, model.weight_bits, to_dict(model.generation_config), facts], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _resume(out: Path, run: str, seed: int | None) -> tuple[int, int]:
    """Return how many texts a file holds already, and its seed.

    Raises:
        ConfigError: It was written with other settings, another seed or by another model, or holds something else.
    """
    lines = [] if is_stream(out) else _continue(out, b'{"run": "', f'{{"run": "{run}", '.encode(), _is_text, "a generated text")
    if not lines:
        return 0, secrets.randbits(32) if seed is None else seed
    if lines[0]["run"] != run or (seed is not None and seed != lines[0]["seed"]):
        raise ConfigError(f"{out} was written with other settings, another seed or another model. Give another --out.")
    return len(lines), lines[0]["seed"]


def _is_text(value: Any, number: int) -> bool:
    return isinstance(value, dict) and value.get("number") == number and {"run", "seed"} <= value.keys()


def _resume_receipts(file: Path, out: Path, done: int, seed: int, model: "ReviewModel") -> None:
    """Keep the receipts of the first ``done`` texts; a crash may have left more, or part of one.

    Raises:
        ConfigError: There are receipts and no texts, so that they are of another run; or the file holds something else.
    """
    if is_stream(file):
        return
    if file.exists() and file.stat().st_size and not out.exists():
        raise ConfigError(f"{file} already exists, and {out}, whose receipts it would hold, does not. Give another --receipt.")

    def is_own(value: Any, number: int) -> bool:
        known = isinstance(value, dict) and isinstance(value.get("number"), int) and isinstance(value.get("model"), dict)
        return known and value.get("seed") == seed and value["model"].get("digest") == model.digest

    form = b'{"synthetic": true, "text": '
    _continue(file, form, form, is_own, "a receipt of this run", last=done - 1)


def _continue(file: Path, *args: Any, **options: Any) -> list[Any]:
    with storage_errors(file):
        return continue_file(file, *args, **options)


@contextmanager
def _appending(
    files: list[Path], make_lines: Callable[["Generation"], list[dict[str, Any]]]
) -> Iterator[Callable[["Generation"], None]]:
    """Yield a function that appends the lines of a text to files, a line to each."""
    with ExitStack() as stack:
        streams = [stack.enter_context(_opened(file)) for file in files]

        def append(text: "Generation") -> None:
            for stream, line in zip(streams, make_lines(text), strict=True):
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
                stream.flush()  # an interrupt or a crash loses no text

        yield append


@contextmanager
def _opened(file: Path) -> Iterator[IO[str]]:
    if is_stream(file):
        yield sys.stderr if file.as_posix().endswith(("stderr", "/2")) else sys.stdout
        return
    with storage_errors(file), file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
        yield stream


def _with_progress(texts: Iterator["Generation"], done: int, total: int) -> Iterator["Generation"]:
    """Yield texts and show a progress bar and the rate."""
    columns = (
        TextColumn("Generating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started, characters = time.monotonic(), 0
    with Progress(*columns, console=notes, transient=True, disable=not notes.file.isatty()) as progress:
        task = progress.add_task("", total=total, completed=done, rate="")
        for count, text in enumerate(texts, 1):
            yield text
            characters += len(text.text) - len(text.prompt)
            seconds = max(time.monotonic() - started, 1e-9)
            progress.update(task, advance=1, rate=f"{count / seconds:,.1f} texts/s, {characters / seconds:,.0f} characters/s")


def _novelty(text: "Generation", novelty: str | None) -> dict[str, Any]:
    return {} if novelty is None or text.novelty is None else {"novelty": asdict(text.novelty)}
