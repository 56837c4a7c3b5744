"""Writes generated texts to a file, one JSON object a line, with a progress bar; resumes where an earlier run stopped."""

import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reviewgen.cli.console import note, notes
from reviewgen.config import to_dict
from reviewgen.errors import ConfigError, DataError, storage_errors
from reviewgen.receipts import make_receipt

if TYPE_CHECKING:
    from reviewgen.model import Generation, ReviewModel

__all__ = ["write_file"]


def write_file(
    model: "ReviewModel",
    source: str,
    prompt: str | list[str],
    settings: dict[str, Any],
    seed: int | None,
    out: Path,
    receipt: Path | None,
) -> tuple[dict[str, Any], bool]:
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
        Facts of the run as JSON values, and whether all texts were written.

    Raises:
        ConfigError: The file was written with other settings or by another model, or is also the receipt file.
        DataError: The file holds something else.
        StorageError: The disk is full, or the file cannot be written.
    """
    if receipt is not None and receipt.resolve() == out.resolve():
        raise ConfigError("--out and --receipt name the same file; give each its own.")
    run = _digest_run(model, prompt, settings)
    total = settings["num_return_sequences"] * (1 if isinstance(prompt, str) else len(prompt))
    with storage_errors(out):
        done, seed = _resume(out, run, seed)
    if receipt is not None:
        with storage_errors(receipt):
            _truncate_receipts(receipt, done, seed)
    if 0 < done < total:
        note(f"{out} holds {done:,} of {total:,} texts; resuming.")
    texts = model.generate_each(prompt, first=done, seed=seed, **settings) if done < total else iter(())
    written, started, is_whole = done, time.monotonic(), True
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(_appending(file)) for file in (receipt, out) if file is not None]
            for text in _with_progress(texts, done, total):
                lines = [make_receipt(model, text, source, receipt)] if receipt is not None else []
                lines.append(text.facts() | _novelty(text, settings["novelty"]) | {"run": run})
                for file, line in zip(files, lines, strict=True):
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    file.flush()  # an interrupt or a crash loses no text
                written += 1
    except KeyboardInterrupt:
        note("Interrupted.")
        is_whole = False
    facts = {"out": str(out), "seed": seed, "texts": max(written, done), "written": written - done, "asked": total}
    return facts | {"seconds": round(time.monotonic() - started, 3)}, is_whole and written >= total


def _digest_run(model: "ReviewModel", prompt: str | list[str], settings: dict[str, Any]) -> str:
    """Return a digest of the model and its defaults, the prompt and all settings; of one prompt, their number may change."""
    left_out = {"num_return_sequences"} if isinstance(prompt, str) else set()
    facts = {name: value for name, value in settings.items() if name not in left_out} | {"prompt": prompt}
    text = json.dumps([model.digest, model.weight_bits, to_dict(model.generation_config), facts], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _resume(out: Path, run: str, seed: int | None) -> tuple[int, int]:
    """Return how many texts a file holds already, and its seed; an incomplete last line is removed."""
    if not out.exists():
        return 0, secrets.randbits(32) if seed is None else seed
    done, end, first = 0, 0, None
    with out.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break  # truncated by a crash
            last = _parse_text(line, out, done)
            first = first or last
            done, end = done + 1, end + len(line)
    if end < out.stat().st_size:
        with out.open("rb+") as file:
            file.truncate(end)
    if first is None:
        return 0, secrets.randbits(32) if seed is None else seed
    if first["run"] != run or (seed is not None and seed != first["seed"]):
        raise ConfigError(f"{out} was written with other settings, another seed or another model. Give another --out.")
    return done, first["seed"]


def _parse_text(line: bytes, out: Path, number: int) -> dict[str, Any]:
    """Return the text in a line of a file of texts.

    Raises:
        DataError: The line is not text ``number`` of such a file.
    """
    text = _parse_json(line)
    if isinstance(text, dict) and text.get("number") == number and {"run", "seed"} <= text.keys():
        return text
    raise DataError(f"Line {number + 1} of {out} is not a generated text, so the file is left unchanged. Give another --out.")


def _truncate_receipts(file: Path, done: int, seed: int) -> None:
    """Keep the receipts of the first ``done`` texts; a crash may have left one more, or part of one."""
    if not file.exists():
        return
    end = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            receipt = _parse_json(line)
            if line.endswith(b"\n") and (not isinstance(receipt, dict) or receipt.get("seed") != seed):
                raise ConfigError(f"Line {number} of {file} is not a receipt of this run. Give another --receipt.")
            if receipt is None or receipt["number"] >= done:
                break
            end += len(line)
    with file.open("rb+") as lines:
        lines.truncate(end)


def _parse_json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _appending(file: Path) -> IO[str]:
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a", encoding="utf-8", errors="backslashreplace")


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
    with Progress(*columns, console=notes, transient=True) as progress:
        task = progress.add_task("", total=total, completed=done, rate="")
        for count, text in enumerate(texts, 1):
            yield text
            characters += len(text.text) - len(text.prompt)
            seconds = max(time.monotonic() - started, 1e-9)
            progress.update(task, advance=1, rate=f"{count / seconds:,.1f} texts/s, {characters / seconds:,.0f} characters/s")


def _novelty(text: "Generation", novelty: str | None) -> dict[str, Any]:
    return {} if novelty is None or text.novelty is None else {"novelty": asdict(text.novelty)}
