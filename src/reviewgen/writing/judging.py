"""Judges the texts of a source, in one process or in several: ``reviewgen.score_dataset`` and ``novelty_dataset``.

Every process reads the source and takes its share of the parts, which have as many texts as an evaluation scores together. The
sums of each part are kept beside it, so that what is said of all texts does not depend on who has judged which.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reviewgen.config import EvaluateOptions, read_json, refuse_unknown_options
from reviewgen.data import MAX_TEXT_CHARACTERS, Example, frame_texts, read_texts, trained_on
from reviewgen.errors import CheckpointError
from reviewgen.evaluation import token_losses
from reviewgen.generation.generator import require_index
from reviewgen.generation.request import device_facts
from reviewgen.model import ReviewModel
from reviewgen.processes import Processes, all_processes, everywhere
from reviewgen.receipts import library_versions
from reviewgen.storage import write_file
from reviewgen.writing.devices import move
from reviewgen.writing.inputs import identify_source, load_saved, name_source, reading_errors, share_batches
from reviewgen.writing.layout import SHARD_TEXTS, Layout, make_layout
from reviewgen.writing.rows import NOVELTY_COLUMNS, column_names, novelty_row
from reviewgen.writing.schema import plain_value
from reviewgen.writing.table import Progress, Table, WrittenTexts

Row = dict[str, Any]
_PART_TEXTS = 1024  # as many as ``evaluate`` scores together
_SCORE_COLUMNS = {"characters": "int64", "tokens": "int64", "bits": "double", "bits_per_character": "double"}
_DEFAULTS: dict[str, Any] = {"split": "all", "documents": "line", "max_text_characters": MAX_TEXT_CHARACTERS}
_LONG_COPY = 50  # characters


@dataclass(frozen=True)
class Judge:
    """A way to judge texts.

    Attributes:
        columns: The type of each column that it adds.
        rows: Returns these columns of some texts.
        add_up: Returns the sums of some rows, by name.
        summarize: Returns what is said of all texts, given the sums of each part by name.
    """

    columns: Mapping[str, str]
    rows: Callable[[ReviewModel, Sequence[Example]], list[Row]]
    add_up: Callable[[Sequence[Row]], Mapping[str, float]]
    summarize: Callable[[Mapping[str, Sequence[float]]], dict[str, Any]]


def judge(
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
    judges = {
        "score": Judge(_SCORE_COLUMNS, _score, _add_up_scores, _summarize_scores),
        "novelty": Judge(NOVELTY_COLUMNS, _examine, _add_up_copies, _summarize_copies),
    }
    tables: list[tuple[ReviewModel, Table, Iterable[list[Example]]]] = []

    def check(processes: Processes) -> None:
        """Check all arguments, and keep the model and the table."""
        others = ("source", "out", "format", "shard_texts")
        refuse_unknown_options(options, EvaluateOptions, f"{kind}_dataset", others=others)
        with reading_errors(model):
            loaded, _ = load_saved(model)
        if kind == "score":
            move(loaded, device)
        if kind == "novelty":
            require_index(loaded.bundle.index)
        columns = {"text": "string", **dict.fromkeys(_condition_columns(loaded, kind).values(), "string")}
        layout = make_layout(out, format, shard_texts, {**columns, **judges[kind].columns}, may_be_file=True)
        names = ("text_column", "documents", "max_text_characters", "sql", "subset")
        reading: dict[str, Any] = {name: value for name, value in _given(options).items() if name in names}
        texts = read_texts(source, trained_on(loaded.training), conditions=loaded.conditions, **_given(options))
        batches = _in_parts(texts, layout)
        with reading_errors(name_source(source)):
            identity = identify_source(source, conditions=loaded.conditions.names, **reading)
            first = next(batches)  # before anything is written: it may be unusable
        facts = {
            "judge": kind,
            "model": loaded.digest,
            **device_facts(loaded.device),
            "source": name_source(source),
            "texts": identity,
            "options": _DEFAULTS | _given(options),
            "versions": library_versions(loaded, ()),
        }
        summary = judges[kind].summarize(defaultdict(lambda: (0,)))
        table = Table(layout, facts, processes, progress, summary=summary, can_resume=identity is not None)
        tables.append((loaded, table, chain([first], batches)))

    with all_processes() as processes:
        everywhere(processes, partial(check, processes), out)
        return _run(judges[kind], kind, *tables[0], source)


def _in_parts(texts: Iterator[Example], layout: Layout) -> Iterator[list[Example]]:
    """Yield the texts of each part.

    Raises:
        ConfigError: They are more than there are shards for; how many there are is not known before.
    """
    for number, batch in enumerate(iter(lambda: list(islice(texts, _PART_TEXTS)), [])):
        layout.refuse_many(number * _PART_TEXTS + len(batch))
        yield batch


def _content(batch: Sequence[Example]) -> bytes:
    return json.dumps(batch).encode()


def _condition_columns(model: ReviewModel, kind: str) -> dict[str, str]:
    return column_names(model.conditions, ["text", *_SCORE_COLUMNS, *NOVELTY_COLUMNS]) if kind == "score" else {}


def _run(
    judge: Judge, kind: str, model: ReviewModel, table: Table, batches: Iterable[list[Example]], source: Any
) -> WrittenTexts:
    processes, out = table.processes, table.layout.out
    everywhere(processes, lambda: processes.refuse_differences({**table.facts, "out": str(out)}), out)
    try:
        finished = table.open()
        if finished is not None:
            return finished
        names = _condition_columns(model, kind)

        def work(number: int, batch: list[Example]) -> None:
            _write_part(judge, model, table, number, batch, names)

        stage = "Scoring" if kind == "score" else "Looking for copies"
        report = partial(_report, table, stage)
        count = share_batches(processes, batches, work, source, content=_content, place=table.work.folder, report=report)
        sums: list[dict[str, Any]] = []
        everywhere(processes, lambda: sums.extend(_read_sums(table, count)), table.work.folder)
        summary = judge.summarize({name: [one[name] for one in sums] for name in (sums[0] if sums else {})})
        return table.finish([table.part(number) for number in range(count)], None, summary)
    finally:
        table.close()


def _given(options: EvaluateOptions) -> Any:
    return {name: value for name, value in options.items() if value is not None}


def _read_sums(table: Table, count: int) -> Iterator[dict[str, Any]]:
    """Yield the sums of each part.

    Raises:
        CheckpointError: Those of a part are damaged.
        OSError: They cannot be read.
    """
    for number in range(count):
        file = table.work.place("sums", number)
        try:
            yield read_json(file)
        except ValueError:
            raise table.work.damaged(file) from None


def _report(table: Table, stage: str, parts: int) -> None:
    table.report(stage, parts * _PART_TEXTS, None)


def _write_part(
    judge: Judge, model: ReviewModel, table: Table, number: int, batch: Sequence[Example], names: Mapping[str, str]
) -> None:
    """Write the rows of some texts and their sums, unless an earlier try has."""
    part, sums = table.part(number), table.work.place("sums", number)
    given = [
        {
            "text": text,
            **{names[one.name]: _label(one, value) for one, value in zip(model.conditions, values, strict=True) if names},
        }
        for text, values in batch
    ]
    if table.work.is_finished(sums) and part.is_finished(table.work.is_finished):
        if given != [{name: row[name] for name in ("text", *names.values())} for row in part.rows()]:
            raise CheckpointError(
                f"{table.work.folder} was begun with other texts: the source has changed. Remove it, or give another --out."
            )
        return
    rows = [own | judged for own, judged in zip(given, judge.rows(model, batch), strict=True)]
    sums.unlink(missing_ok=True)
    table.work.write(sums, lambda file: write_file(file, json.dumps(judge.add_up(rows)).encode()))
    part.write(rows, table.work.write)


def _label(condition: Any, value: Any) -> str | None:
    plain = plain_value(condition, value)
    return None if plain is None else str(plain)


def _score(model: ReviewModel, batch: Sequence[Example]) -> list[Row]:
    """Return the bits of each text, its end token included."""
    conditions, tokenizer = model.conditions, model.tokenizer
    framed = list(frame_texts(((text, conditions.encode_values(values)) for text, values in batch), tokenizer))
    weights, texts = model.bundle.weights, [ids for ids, _ in framed]
    losses = token_losses(weights.model_on_device, texts, tokenizer.vocab_size, weights.device, len(conditions))
    rows = []
    for (_, characters), own in zip(framed, losses, strict=True):
        bits = float(own.sum(dtype=np.float64)) / math.log(2)
        is_finite = math.isfinite(bits)
        per_character = bits / characters if is_finite and characters else None
        values = (characters, len(own), bits if is_finite else None, per_character)
        rows.append(dict(zip(_SCORE_COLUMNS, values, strict=True)))
    return rows


def _add_up_scores(rows: Sequence[Row]) -> dict[str, float]:
    known = [row["bits"] for row in rows if row["bits"] is not None]
    counts = {name: sum(row[name] for row in rows) for name in ("characters", "tokens")}
    return {"bits": math.fsum(known), "impossible": len(rows) - len(known), **counts}


def _summarize_scores(sums: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    characters, impossible = sum(sums["characters"]), sum(sums["impossible"])
    per_character = None if impossible or not characters else math.fsum(sums["bits"]) / characters
    counts = {"characters": characters, "tokens": sum(sums["tokens"]), "zero_probability_texts": impossible}
    return {"bits_per_character": per_character, **counts}


def _examine(model: ReviewModel, batch: Sequence[Example]) -> list[Row]:
    """Return what each text copies from the training text."""
    index, tokenizer = require_index(model.bundle.index), model.tokenizer
    return [novelty_row(index.examine(tokenizer.encode(text), tokenizer.decode)) for text, _ in batch]


def _add_up_copies(rows: Sequence[Row]) -> dict[str, float]:
    name = [*NOVELTY_COLUMNS][-1]
    shares = [row[name] for row in rows if row[name] is not None]
    lengths = [row["longest_copy_characters"] for row in rows]
    return {
        "longest": max(lengths, default=0),
        "long": sum(length >= _LONG_COPY for length in lengths),
        "shares": math.fsum(shares),
        "known": len(shares),
    }


def _summarize_copies(sums: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    known = sum(sums["known"])
    return {
        "longest_copy_characters": max(sums["longest"]),
        f"texts_with_copies_of_{_LONG_COPY}_characters": sum(sums["long"]),
        f"mean_{[*NOVELTY_COLUMNS][-1]}": math.fsum(sums["shares"]) / known if known else None,
    }
