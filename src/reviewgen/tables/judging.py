"""Scores given texts, or says what they copy, in one process or in several: ``reviewgen.score_dataset``, ``novelty_dataset``.

Every process reads the whole source, which is faster than judging it, and judges its share. What is said of all texts does not
depend on who has judged which.
"""

import copy
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import xxhash

from reviewgen.conditions import Conditions
from reviewgen.config import EvaluateOptions, check_text, refuse_unknown_options
from reviewgen.data import (
    MAX_TEXT_CHARACTERS,
    DataConfig,
    Example,
    frame_texts,
    open_source,
    read_documents,
    read_texts,
    trained_on,
    workspace,
)
from reviewgen.errors import ConfigError, DataError, TrainingError
from reviewgen.evaluation import Evaluation, add_up, add_up_documents, batches, token_losses
from reviewgen.generation.generator import require_index
from reviewgen.generation.request import device_facts
from reviewgen.model import ReviewModel, check_model
from reviewgen.novelty import WINDOWS, Novelty
from reviewgen.processes import all_processes, process_state
from reviewgen.registry import find_model
from reviewgen.storage import is_pipe
from reviewgen.tables.receipts import library_versions
from reviewgen.tables.schema import plain_value
from reviewgen.tables.shards import SHARD_TEXTS, Layout, Row
from reviewgen.tables.table import Progress, Table, WrittenTexts

_SCORED = 1024  # texts that are scored together, as ``evaluate`` does
_SCORE_COLUMNS = {"characters": "int64", "tokens": "int64", "bits": "double", "bits_per_character": "double"}
NOVELTY_COLUMNS = {
    "longest_copy": "string",
    "longest_copy_characters": "int64",
    "longest_copy_tokens": "int64",
    **{f"copied_share_{length}": "double" for length in WINDOWS},
}
_SHARE = [*NOVELTY_COLUMNS][-1]
_DEFAULTS: dict[str, Any] = {"split": "all", "documents": "line", "max_text_characters": MAX_TEXT_CHARACTERS}
_LONG_COPY = 50  # characters
_logger = logging.getLogger("reviewgen")


def load_saved(model: Any, weight_bits: int = 32) -> tuple[ReviewModel, str | Path | None]:
    """Return a model, which may be moved to another device, and the source that it was loaded from.

    Args:
        model: A ReviewModel, or what ``load`` takes.
        weight_bits: The bits of a weight of a model that is loaded.

    Raises:
        ConfigError: It is neither, or a ReviewModel that is not saved as it is.
        ReviewgenError: It cannot be loaded; see ``load``.
    """
    if isinstance(model, str | Path):
        return ReviewModel.from_pretrained(model, weight_bits=weight_bits), model
    check_model("model", model)
    if model.digest is None:
        raise ConfigError("A table says which model it is from, and this one is not saved as it is: save and load it first.")
    folder = model.bundle.folder
    own = ReviewModel(replace(model.bundle, weights=copy.copy(model.bundle.weights)))  # the caller's stays on its device
    return own, model.bundle.source if folder is None else folder


def move(model: ReviewModel, device: str) -> None:
    """Move a model to a device.

    Args:
        model: The model. One that is on an accelerator already stays there if the device is "auto".
        device: "auto", or a device of torch. "auto" is the device that accelerate selects if the model is a network that is
            suited for it and has 32-bit weights, else the CPU.

    Raises:
        ConfigError: The device is not available, or the model cannot be moved to it.
        ProcessLost: The processes of a launcher cannot be connected.
    """
    check_text("device", device)
    if device != "auto":
        model.to(device)
        return
    import torch

    if model.device != "cpu" or model.weight_bits != 32 or not torch.accelerator.is_available():
        return
    model_class, _ = find_model(model.bundle.model_plugin.name)
    if issubclass(model_class, torch.nn.Module) and process_state().device.type != "cpu":
        from reviewgen.training import choose_device  # accelerate, half a second

        try:
            model.to(choose_device("auto", model_class)[0])
        except ConfigError as error:
            _logger.warning("%s The CPU computes instead.", error)


def evaluate(
    model: str | Any, source: Any, device: str = "auto", **options: Unpack[EvaluateOptions]
) -> tuple[ReviewModel, Evaluation]:
    """Evaluate a model that all processes of a launcher load, bit for bit as one does; return the model and its evaluation.

    Args:
        model: What ``reviewgen.load`` takes.
        source: The texts.
        device: As in ``reviewgen.score_dataset``.
        options: As in ``ReviewModel.evaluate``.

    Raises:
        ReviewgenError: See ``ReviewModel.evaluate`` and ``reviewgen.load``.
        ProcessLost: Another process has failed or ended.
    """
    models: list[ReviewModel] = []

    def check() -> None:
        refuse_unknown_options(options, EvaluateOptions, "evaluate")
        models.append(_load(model))
        move(models[0], device)

    def work() -> tuple[dict[int, Any], str]:
        loaded, totals, digest = models[0], dict[int, Any](), xxhash.xxh3_128()
        weights, given = loaded.bundle.weights, (loaded.tokenizer.vocab_size, loaded.bundle.weights.device)
        trained, conditions = trained_on(loaded.training), loaded.conditions
        documents = read_documents(source, loaded.tokenizer, trained, conditions=conditions, **options)
        for number, batch in enumerate(batches(documents)):
            processes.stop_if_interrupted()
            digest.update(b"".join(ids.tobytes() for ids, _ in batch) + str([length for _, length in batch]).encode())
            if number % processes.world_size == processes.rank:
                totals[number] = add_up_documents(weights.model_on_device, batch, *given, len(conditions))
        return totals, digest.hexdigest()

    with all_processes() as processes:
        processes.gather(check, model)
        facts: dict[str, Any] = {"model": models[0].digest, "source": _name(source), "options": dict(options)}
        facts |= {**device_facts(models[0].device), "versions": library_versions(models[0], ())}
        processes.refuse_differences(facts)
        everyone = _same_texts(processes.gather(work, _name(source)))
        totals = {number: each for own in everyone for number, each in own.items()}
        return models[0], add_up(totals[number] for number in range(len(totals))).evaluation()


def judge_texts(
    kind: Literal["score", "novelty"],
    model: str | Path | ReviewModel,
    source: Any,
    *,
    out: str | Path,
    format: str | None = None,
    shard_texts: int = SHARD_TEXTS,
    progress: Progress | None = None,
    device: str = "cpu",
    options: EvaluateOptions,
) -> WrittenTexts:
    """Write a table with a row for each text of a source; under a launcher, all processes call this.

    Raises:
        ReviewgenError: See ``reviewgen.score_dataset`` and ``novelty_dataset``.
        ProcessLost: Another process has failed or ended.
    """
    is_score, given = kind == "score", {name: value for name, value in options.items() if value is not None}
    tables: list[tuple[ReviewModel, Table, Iterator[Example]]] = []

    def check() -> None:
        """Check all arguments, and keep the model, the table and the texts."""
        refuse_unknown_options(options, EvaluateOptions, f"{kind}_dataset", others=("source", "out", "format", "shard_texts"))
        loaded = _load(model)
        if is_score:
            move(loaded, device)
        else:
            require_index(loaded.bundle.index)
        columns = {"text": "string"}
        if is_score:
            columns |= dict.fromkeys(_condition_columns(loaded.conditions).values(), "string")
        layout = Layout.make(out, format, shard_texts, columns | (_SCORE_COLUMNS if is_score else NOVELTY_COLUMNS))
        texts: Iterator[Example] = read_texts(source, trained_on(loaded.training), conditions=loaded.conditions, **given)  # type: ignore[arg-type]
        identity = _identify(source, loaded.conditions, given)
        texts = chain([next(texts)], texts)  # before anything is written: the first may be unusable
        facts = {
            "judge": kind,
            "model": loaded.digest,
            **device_facts(loaded.device),
            "source": _name(source),
            "texts": identity,
            "options": _DEFAULTS | given,
            "versions": library_versions(loaded, ()),
        }
        tables.append((loaded, Table(layout, facts, processes, progress, can_resume=identity is not None), texts))

    with all_processes() as processes:
        processes.gather(check, out)
        loaded, table, texts = tables[0]
        try:
            return table.open() or _run(_score if is_score else _examine, loaded, table, texts)
        finally:
            table.close()


def _run(
    judge: Callable[[ReviewModel, Sequence[Example]], Iterable[Row]], model: ReviewModel, table: Table, texts: Iterator[Example]
) -> WrittenTexts:
    """Judge the texts in rounds, a shard in each process."""
    processes, size = table.processes, table.layout.shard_texts
    add_up, summarize = (_add_up_scores, _summarize_scores) if judge is _score else (_add_up_copies, _summarize_copies)
    stage, count = "Scoring" if judge is _score else "Looking for copies", 0
    sums: list[Mapping[str, float]] = []

    def work() -> tuple[tuple[int, Mapping[str, float]], str]:
        digest, length, own = xxhash.xxh3_128(), 0, add_up([])
        for rank in range(processes.world_size):
            shard = list(islice(texts, size))
            table.layout.refuse_many(count + length + len(shard))
            digest.update(json.dumps(shard).encode())
            length += len(shard)
            if rank == processes.rank and shard:
                parts = (shard[first : first + _SCORED] for first in range(0, len(shard), _SCORED))
                rows = chain.from_iterable(judge(model, part) for part in parts)
                own = add_up(table.write(count // size + rank, rows, stage, count))
        return (length, own), digest.hexdigest()

    while not count % (processes.world_size * size):
        results = _same_texts(processes.gather(work, table.layout.out))
        sums += [own for _, own in results]
        count += (length := results[0][0])
        if not length:
            break
    return table.finish(count, summarize({name: [each[name] for each in sums] for name in sums[0]}))


def _load(model: Any) -> ReviewModel:
    """Return a model; that its folder cannot be read is a DataError, as nothing is written there."""
    try:
        return load_saved(model)[0]
    except OSError as error:
        raise DataError(f"{error.filename or model} cannot be read: {error.strerror or error}.") from None


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def _identify(source: Any, conditions: Conditions, options: Mapping[str, Any]) -> list[Any] | None:
    """Return what identifies the texts of a source; None of one that is not read from files, or from a pipe."""
    if not isinstance(source, str | Path) and not (isinstance(source, list) and all(isinstance(one, Path) for one in source)):
        return None
    if isinstance(source, str | Path) and is_pipe(Path(source).expanduser()):
        return None
    names = ("text_column", "documents", "max_text_characters", "sql", "subset")
    config = DataConfig(conditions=conditions.names, **{name: options[name] for name in names if name in options})
    with workspace() as folder:
        facts: list[Any] | None = open_source(source, config, folder, allow_missing=True).facts
        return facts


def _same_texts(results: Sequence[tuple[Any, str]]) -> list[Any]:
    """Return the results of all processes, given with a digest of the texts that each has read.

    Raises:
        TrainingError: The processes have read different texts, as sources without an identity may be.
    """
    if len({digest for _, digest in results}) > 1:
        raise TrainingError("The processes have read different texts. Run the same command everywhere, with the same corpus.")
    return [result for result, _ in results]


def _condition_columns(conditions: Conditions) -> dict[str, str]:
    return column_names(conditions, ["text", *_SCORE_COLUMNS, *NOVELTY_COLUMNS])


def column_names(conditions: Conditions, others: Sequence[str]) -> dict[str, str]:
    """Return the column of each condition: its name, after ``condition_`` if another column has it."""
    names, taken = {}, {*others, *conditions.names}
    for name in conditions.names:
        column = name
        if name in others:
            while column in taken:
                column = f"condition_{column}"
            taken.add(column)
        names[name] = column
    return names


def novelty_row(novelty: Novelty | None) -> Row:
    """Return the values of ``NOVELTY_COLUMNS``: the longest copied span, and the shares of windows that are copied."""
    if novelty is None:
        return dict.fromkeys(NOVELTY_COLUMNS)
    longest = (novelty.longest_text, novelty.longest_characters, novelty.longest_tokens)
    return dict(zip(NOVELTY_COLUMNS, (*longest, *(novelty.windows.get(length) for length in WINDOWS)), strict=True))


def _score(model: ReviewModel, texts: Sequence[Example]) -> Iterator[Row]:
    """Yield the row of each text: its conditions and its bits, the end token included."""
    conditions, tokenizer, names = model.conditions, model.tokenizer, _condition_columns(model.conditions)
    framed = list(frame_texts(((text, conditions.encode_values(values)) for text, values in texts), tokenizer))
    weights, ids = model.bundle.weights, [ids for ids, _ in framed]
    losses = token_losses(weights.model_on_device, ids, tokenizer.vocab_size, weights.device, len(conditions))
    for (text, values), (_, characters), own in zip(texts, framed, losses, strict=True):
        plain = {names[each.name]: plain_value(each, value) for each, value in zip(conditions, values, strict=True)}
        bits = float(own.sum(dtype=np.float64)) / math.log(2)
        known = bits if math.isfinite(bits) else None
        scores = (characters, len(own), known, None if known is None or not characters else known / characters)
        labels = {name: None if value is None else str(value) for name, value in plain.items()}
        yield {"text": text, **labels, **dict(zip(_SCORE_COLUMNS, scores, strict=True))}


def _add_up_scores(rows: Sequence[Row]) -> dict[str, float]:
    known = [row["bits"] for row in rows if row["bits"] is not None]
    counts = {name: sum(row[name] for row in rows) for name in ("characters", "tokens")}
    return {"bits": math.fsum(known), "impossible": len(rows) - len(known), **counts}


def _summarize_scores(sums: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    characters, impossible = sum(sums["characters"]), sum(sums["impossible"])
    per_character = None if impossible or not characters else math.fsum(sums["bits"]) / characters
    counts = {"characters": characters, "tokens": sum(sums["tokens"]), "zero_probability_texts": impossible}
    return {"bits_per_character": per_character, **counts}


def _examine(model: ReviewModel, texts: Sequence[Example]) -> Iterator[Row]:
    """Yield the row of each text: what it copies from the training text."""
    index, tokenizer = require_index(model.bundle.index), model.tokenizer
    for text, _ in texts:
        yield {"text": text, **novelty_row(index.examine(tokenizer.encode(text), tokenizer.decode))}


def _add_up_copies(rows: Sequence[Row]) -> dict[str, float]:
    shares = [row[_SHARE] for row in rows if row[_SHARE] is not None]
    lengths = [row["longest_copy_characters"] for row in rows]
    long = sum(length >= _LONG_COPY for length in lengths)
    return {"longest": max(lengths, default=0), "long": long, "shares": math.fsum(shares), "known": len(shares)}


def _summarize_copies(sums: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    known = sum(sums["known"])
    return {
        "longest_copy_characters": max(sums["longest"]),
        f"texts_with_copies_of_{_LONG_COPY}_characters": sum(sums["long"]),
        f"mean_{_SHARE}": math.fsum(sums["shares"]) / known if known else None,
    }
