"""Generates the texts of a table, in one process or in several: the implementation of ``reviewgen.generate_dataset``.

Text i samples from the random stream of (seed, i), and its conditions are drawn from another stream of both. So shards can be
generated anywhere and in any order.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.config import check_count, check_flags, check_seed, check_text, to_dict
from reviewgen.data import first_of_each, hash_text
from reviewgen.errors import ConfigError, quoted
from reviewgen.generation import GenerateOptions, Request, make_request
from reviewgen.generation.request import device_facts
from reviewgen.model import Generation, ReviewModel
from reviewgen.processes import all_processes
from reviewgen.tables.judging import NOVELTY_COLUMNS, column_names, load_saved, move, novelty_row
from reviewgen.tables.receipts import library_versions, make_receipt, portable_source
from reviewgen.tables.schema import Schema, plain_value, read_schema
from reviewgen.tables.shards import SHARD_TEXTS, Layout, Row
from reviewgen.tables.table import Progress, Table, WrittenTexts

_OWN = {
    "text": "string",
    "number": "int64",
    "seed": "uint64",
    "prompt": "string",
    "finish_reason": "string",
    "new_tokens": "int64",
    "exceeds_max_copy": "bool",
}
_MAX_TEXTS = 1_000_000_000  # of a table
_MAX_DRAWS = 10  # texts that are drawn for one that is wanted, if repeats are left out
_MORE = 1.1  # a little more than what is missing


@dataclass(frozen=True)
class _Job:
    """What to generate.

    Attributes:
        model: The model.
        source: The model's source, without paths of this machine, for the receipts.
        prompts: The prompts; each begins ``number`` texts in a row.
        number: The number of texts of a prompt.
        request: The checked settings, without prompts.
        schema: What the conditions are drawn from.
        kinds: The type of the column of each condition.
        has_columns: Whether there are columns beside the text.
        has_receipts: Whether one of them is the receipt.
    """

    model: ReviewModel
    source: str | None
    prompts: Sequence[str]
    number: int
    request: Request
    schema: Schema
    kinds: Mapping[str, str]
    has_columns: bool
    has_receipts: bool

    @property
    def total(self) -> int:
        """The number of texts that are wanted."""
        return len(self.prompts) * self.number

    def columns(self) -> dict[str, str]:
        """Return the type of each column."""
        columns = {"text": "string"}
        if self.has_columns:
            columns = {**_OWN, **{self._names[name]: kind for name, kind in self.kinds.items()}}
        columns |= {"receipt": "string"} if self.has_receipts else {}
        return columns | (NOVELTY_COLUMNS if self.request.novelty is not None else {})

    def facts(self) -> dict[str, Any]:
        """Return what decides the rows besides the seed, as JSON values by name."""
        request = self.request
        arguments = {name: getattr(request, name) for name in ("novelty", "max_copy", "must_include")}
        return {
            "model": [self.model.digest, self.model.weight_bits],
            **device_facts(self.model.device),
            "prompt": hashlib.sha256(json.dumps(list(self.prompts)).encode()).hexdigest(),
            "n": self.number,
            "settings": {"generation_config": to_dict(request.config), **arguments},
            "schema": self.schema.digest(),
            "source": self.source if self.has_receipts else None,
            "versions": library_versions(self.model, request.plugins),
        }

    def rows(self, seed: int, first: int, last: int) -> Iterator[Row]:
        """Yield the rows of the texts ``first`` to ``last - 1``."""
        numbers, generator = range(first, last), self.model.generator
        drawn = [{**self.request.config.conditions, **self.schema.draw(seed, number)} for number in numbers]
        request = replace(
            self.request,
            prompts=[self.prompts[number // self.number % len(self.prompts)] for number in numbers],
            seed=seed,
            offset=first,
            prefixes=[self.model.conditions.encode(values) for values in drawn] if self.schema.groups else (),
        )
        for number, values, row in zip(numbers, drawn, generator.generate(request), strict=True):
            yield self._row(generator.output(row, request, number), values)

    @cached_property
    def _names(self) -> dict[str, str]:
        return column_names(self.model.conditions, [*_OWN, "receipt", *NOVELTY_COLUMNS])

    def _row(self, text: Generation, conditions: Mapping[str, Any]) -> Row:
        row: Row = {name: getattr(text, name) for name in (_OWN if self.has_columns else ("text",))}
        for condition in self.model.conditions if self.has_columns else ():
            value = plain_value(condition, conditions.get(condition.name))  # one that is given is not plain yet
            make = {"string": str, "double": float, "int64": int}[self.kinds[condition.name]]
            row[self._names[condition.name]] = None if value is None else make(value)
        if self.has_receipts:
            given = {name: value for name, value in conditions.items() if value is not None}
            row["receipt"] = json.dumps(make_receipt(self.model, text, self.source, conditions=given), ensure_ascii=False)
        return row | (novelty_row(text.novelty) if self.request.novelty is not None else {})


def generate_dataset(
    model: str | Path | ReviewModel,
    n: int,
    *,
    out: str | Path,
    prompt: str | Sequence[str] = "",
    seed: int | None = None,
    columns: bool = False,
    receipts: bool | Path | None = None,
    unique: bool = False,
    schema: Any = None,
    format: str | None = None,
    shard_texts: int = SHARD_TEXTS,
    progress: Progress | None = None,
    weight_bits: int = 32,
    device: str = "auto",
    options: GenerateOptions,
) -> WrittenTexts:
    """Generate a table of texts; under a launcher, all processes call this.

    Args are those of ``reviewgen.generate_dataset``, and:
        receipts: Whether there is a column of receipts, or the file that they will be written to; None is ``columns``.
        progress: Called with the progress.
        weight_bits: The bits of a weight of a model that is loaded.

    Raises:
        ReviewgenError: See ``reviewgen.generate_dataset``.
        ProcessLost: Another process has failed or ended.
    """
    tables: list[tuple[_Job, Table]] = []

    def check() -> None:
        """Check all arguments, and keep the job and its table."""
        check_count("n", n)
        check_flags(columns=columns, unique=unique)
        if seed is not None:
            check_seed(seed)
        layout = Layout.make(out, format, shard_texts, {})
        loaded, source = load_saved(model, weight_bits)
        check_text("device", device)
        request = _check_request(loaded, prompt, options)
        if device != "auto" or not request.must_include:  # of which few texts are generated at once
            move(loaded, device)
        total = n * len(request.prompts)
        if total > _MAX_TEXTS:
            raise ConfigError(f"A table has at most {_MAX_TEXTS:,} texts; these would be {quoted(total)}.")
        drawn = Schema() if schema is None else read_schema(schema, loaded.conditions, options.get("conditions") or {})
        kinds = _condition_types(loaded, request.config.conditions, drawn)
        file = receipts if isinstance(receipts, Path) else layout.out / "receipts.jsonl"
        name = None if source is None else portable_source(source, file)
        has_receipts = bool(columns if receipts is None else receipts)
        own = replace(request, prompts=(), device=loaded.device)
        job = _Job(loaded, name, request.prompts, n, own, drawn, kinds, columns, has_receipts)
        layout = replace(layout, columns=job.columns())
        layout.refuse_many(total)
        tables.append((job, Table(layout, {**job.facts(), "seed": seed, "unique": unique}, processes, progress)))

    with all_processes() as processes:
        processes.gather(check, out)
        job, table = tables[0]
        try:
            return table.open() or _run(job, table)
        finally:
            table.close()


def _check_request(model: ReviewModel, prompt: Any, options: GenerateOptions) -> Request:
    """Return the checked settings, with each prompt once.

    Raises:
        ReviewgenError: As ``ReviewModel.generate``; or a setting makes a text depend on others, on the time or on functions.
    """
    for name in ("seed", "num_return_sequences"):
        if options.get(name) is not None:
            raise ConfigError(f"{name} is not a generation setting here: n and seed are arguments of their own.")
    one: Any = {**options, "num_return_sequences": 1, "seed": 0}
    request = make_request(prompt, model.generation_config, one, model.tokenizer, model.conditions)
    if not request.prompts:
        raise ConfigError("There are no prompts: give at least one, or leave it out.")
    if request.config.max_time is not None:
        raise ConfigError("max_time would make the texts depend on the speed of this machine: leave it out.")
    if request.config.num_beams > 1:
        raise ConfigError("num_beams finds the texts of a prompt together, and here each is generated by itself: leave it out.")
    hooks = request.hooks
    if hooks is not None and (hooks.criteria or hooks.streamer or len(request.plugins) < len(hooks.processors)):
        raise ConfigError("Functions as logits_processor, stopping_criteria or streamer cannot be repeated: leave them out.")
    model.generator.guard(request)  # refuses a novelty filter that the model has no index for
    return request


def _condition_types(model: ReviewModel, given: Mapping[str, Any], schema: Schema) -> dict[str, str]:
    """Return the pyarrow type of the column of each condition: integers, numbers or text."""
    kinds = {}
    for condition in model.conditions:
        is_drawn = condition.name in schema.names
        values = schema.values(condition.name) if is_drawn else {plain_value(condition, given.get(condition.name))}
        types = {type(value) for value in values} - {type(None)}
        kinds[condition.name] = "int64" if types == {int} else "double" if types and types <= {int, float} else "string"
    return kinds


def _run(job: _Job, table: Table) -> WrittenTexts:
    """Generate shards in rounds; with ``unique``, until enough texts differ, or about ten times as many are drawn."""
    seed, processes, unique = table.facts["seed"], table.processes, table.facts["unique"]
    size = min(table.layout.shard_texts, job.total)
    wanted, count = job.total, 0
    hashes = np.empty(0, np.uint64)  # of the texts, if they must differ

    def work() -> np.ndarray:
        number = count + processes.rank
        first, last = number * size, min((number + 1) * size, job.total if not unique else math.ceil(wanted / size) * size)
        if first >= last:
            return np.empty(0, np.uint64)
        rows = table.write(number, job.rows(seed, first, last), "Generating", count * size, wanted)
        return np.array([hash_text(row["text"]) for row in rows] if unique else [], np.uint64)

    while True:
        while count * size < wanted:
            hashes = np.concatenate([hashes, *processes.gather(work, table.layout.out)])
            count += processes.world_size
        is_first = first_of_each(hashes)
        distinct, drawn = int(is_first.sum()), len(hashes)
        if not unique or distinct >= job.total or drawn >= _MAX_DRAWS * job.total:
            break
        missing = (job.total - distinct) * drawn / max(1, distinct) * _MORE
        wanted, count = min(_MAX_DRAWS * job.total, drawn + math.ceil(missing)), drawn // size
    summary = {"seed": seed, "asked": job.total, "drawn": job.total, "repeats": 0}
    if not unique:
        return table.finish(job.total, summary)
    kept = np.flatnonzero(is_first)[: job.total]
    drawn = int(kept[-1]) + 1 if len(kept) == job.total else drawn
    rows = islice(compress(table.rows(len(hashes) // size), is_first.tolist()), len(kept))
    return table.finish(len(kept), summary | {"drawn": drawn, "repeats": drawn - len(kept)}, rows)
