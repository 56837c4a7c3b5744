"""Generates the texts of a table, in one process or in several: the implementation of ``reviewgen.generate_dataset``.

Text i samples from the random stream of (seed, i), and its conditions are drawn from another stream of both. So parts of a few
hundred texts can be generated anywhere and in any order.
"""

import hashlib
import json
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.config import check_count, check_flags, check_seed, check_text, to_dict
from reviewgen.data import first_of_each
from reviewgen.errors import ConfigError, quoted
from reviewgen.generation import GenerateOptions, Request, make_request
from reviewgen.generation.request import device_facts
from reviewgen.model import ReviewModel
from reviewgen.processes import Processes, all_processes, everywhere, main_process_only, share_tasks
from reviewgen.receipts import library_versions
from reviewgen.writing.devices import move
from reviewgen.writing.inputs import load_saved
from reviewgen.writing.layout import SHARD_TEXTS, Layout, make_layout
from reviewgen.writing.rows import Rows, choose_type
from reviewgen.writing.schema import Schema, plain_value, read_schema
from reviewgen.writing.table import Progress, Table, WrittenTexts

_MAX_TEXTS = 1_000_000_000  # of a table
_MAX_DRAWS = 10  # texts that are drawn for one that is wanted, if repeats are left out
_MORE = 1.1  # a little more than what is missing
_MAX_PART, _MIN_PARTS = 512, 64  # texts of a part; parts of a table of many texts


@dataclass(frozen=True)
class _Job:
    """What to generate.

    Attributes:
        model: The model.
        prompts: The prompts; each begins ``number`` texts in a row.
        number: The number of texts of a prompt.
        request: The checked settings, without prompts.
        seed: The seed; None until the working folder is open.
        schema: What the conditions are drawn from.
        unique: Whether repeats are left out.
        rows: Makes the rows.
        layout: How they are written.
    """

    model: ReviewModel
    prompts: Sequence[str]
    number: int
    request: Request
    seed: int | None
    schema: Schema
    unique: bool
    rows: Rows
    layout: Layout

    @property
    def total(self) -> int:
        """The number of texts that are wanted."""
        return len(self.prompts) * self.number

    @property
    def part_texts(self) -> int:
        """The number of texts of a part: whole batches, and on the CPU enough parts for many processes."""
        batch = self.model.bundle.weights.batch_size
        return min(_MAX_PART, batch * math.ceil(self.total / batch / _MIN_PARTS))

    def facts(self) -> dict[str, Any]:
        """Return what decides the rows, as JSON values by name."""
        request = self.request
        arguments = {name: getattr(request, name) for name in ("novelty", "max_copy", "must_include")}
        return {
            "model": [self.model.digest, self.model.weight_bits],
            **device_facts(self.model.device),
            "prompt": hashlib.sha256(json.dumps(list(self.prompts)).encode()).hexdigest(),
            "n": self.number,
            "seed": self.seed,
            "settings": {"generation_config": to_dict(request.config), **arguments},
            "unique": self.unique,
            "schema": self.schema.digest(),
            "source": str(self.rows.source) if self.rows.has_columns else None,
            "versions": library_versions(self.model, request.plugins),
        }

    def generate(self, generator: Any, seed: int, first: int, last: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of the texts ``first`` to ``last - 1``."""
        numbers = range(first, last)
        drawn = [{**self.request.config.conditions, **self.schema.draw(seed, number)} for number in numbers]
        request = replace(
            self.request,
            prompts=[self.prompts[number // self.number % len(self.prompts)] for number in numbers],
            seed=seed,
            offset=first,
            prefixes=[self.model.conditions.encode(values) for values in drawn] if self.schema.groups else (),
        )
        for number, values, row in zip(numbers, drawn, generator.generate(request), strict=True):
            yield self.rows.make(generator.output(row, request, number), values)


def generate_dataset(
    model: str | Path | ReviewModel,
    n: int,
    *,
    out: str | Path,
    prompt: str | Sequence[str] = "",
    seed: int | None = None,
    columns: bool = False,
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

    Raises:
        ReviewgenError: See ``reviewgen.generate_dataset``.
        ProcessLost: Another process has failed or ended.
    """
    jobs: list[_Job] = []

    def check() -> None:
        """Check all arguments, and keep the job."""
        check_count("n", n)
        check_flags(columns=columns, unique=unique)
        if seed is not None:
            check_seed(seed)
        layout = make_layout(out, format, shard_texts, {}, may_be_file=False)
        loaded, source = load_saved(model, weight_bits)
        check_text("device", device)
        request = _check_request(loaded, prompt, options)
        if device != "auto" or not request.must_include:  # of which few texts are generated at once
            move(loaded, device)
        if n * len(request.prompts) > _MAX_TEXTS:
            raise ConfigError(f"A table has at most {_MAX_TEXTS:,} texts; these would be {quoted(n * len(request.prompts))}.")
        drawn = Schema() if schema is None else read_schema(schema, loaded.conditions, options.get("conditions") or {})
        kinds = _condition_types(loaded, request.config.conditions, drawn)
        rows = Rows(loaded, source, layout.out, kinds, columns, request.novelty is not None)
        layout = replace(layout, columns=rows.columns)
        layout.refuse_many(n * len(request.prompts))
        jobs.append(
            _Job(
                loaded, request.prompts, n, replace(request, prompts=(), device=loaded.device), seed, drawn, unique, rows, layout
            )
        )

    with all_processes() as processes:
        everywhere(processes, check, out)
        return _run(jobs[0], processes, progress)


def _check_request(model: ReviewModel, prompt: Any, options: GenerateOptions) -> Request:
    """Return the checked settings, with each prompt once.

    Raises:
        ReviewgenError: As ``ReviewModel.generate``; or a setting makes a text depend on others, on the time or on functions.
    """
    if isinstance(prompt, str):
        prompt = [prompt]
    for name in ("seed", "num_return_sequences"):
        if options.get(name) is not None:
            raise ConfigError(f"{name} is not a generation setting here: n and seed are arguments of their own.")
    one: Any = {**options, "num_return_sequences": 1, "seed": 0}
    request = make_request(prompt, model.generation_config, one, model.tokenizer, model.conditions)
    for text in request.prompts:
        check_text("prompt", text)
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
    """Return the type of the column of each condition."""
    kinds = {}
    for condition in model.conditions:
        is_drawn = condition.name in schema.names
        values = schema.values(condition.name) if is_drawn else [plain_value(condition, given.get(condition.name))]
        kinds[condition.name] = choose_type(values)
    return kinds


def _run(job: _Job, processes: Processes, progress: Progress | None) -> WrittenTexts:
    table = Table(job.layout, job.facts(), processes, progress)
    everywhere(processes, lambda: processes.refuse_differences({**table.facts, "out": str(job.layout.out)}), job.layout.out)
    try:
        finished = table.open(secrets.randbits(32))
        if finished is not None:
            return finished
        seed = table.facts["seed"]
        count, kept = _draw(job, table, seed)
        texts, drawn = job.total if kept is None else len(kept), job.total
        summary = {"seed": seed, "asked": job.total, "drawn": drawn, "repeats": 0}
        if kept is not None:
            drawn = int(kept[-1]) + 1 if len(kept) == job.total else count * job.part_texts
            summary |= {"drawn": drawn, "repeats": drawn - texts}
        return table.finish([table.part(number) for number in range(count)], kept, summary)
    finally:
        table.close()


def _draw(job: _Job, table: Table, seed: int) -> tuple[int, np.ndarray | None]:
    """Generate parts; return their number, and of unique texts the rows that are kept.

    With ``unique``, texts are drawn until there are enough distinct ones, or about ten times as many: whole parts are drawn.
    """
    generator, size = job.model.generator, job.part_texts
    before, total = 0, job.total

    def generate(number: int) -> None:
        part, last = table.part(number), (number + 1) * size
        if not part.is_finished(table.work.is_finished):
            rows = job.generate(generator, seed, number * size, last if job.unique else min(last, job.total))
            part.write(rows, table.work.write_later)

    while True:
        count = math.ceil(total / size)
        report = partial(_report, table, before, size, count * size if job.unique else total)
        share_tasks(table.processes, range(before, count), generate, table.work.folder, report, table.work.flush)
        if not job.unique:
            return count, None
        repeats = main_process_only(table.processes, partial(_find_repeats, table, count), table.work.folder)
        distinct = count * size - len(repeats)
        if distinct >= job.total or count * size >= _MAX_DRAWS * job.total:
            mask = np.ones(count * size, np.bool_)
            mask[repeats] = False
            return count, np.flatnonzero(mask)[: job.total]
        missing = (job.total - distinct) * count * size / max(1, distinct) * _MORE
        before, total = count, min(_MAX_DRAWS * job.total, count * size + math.ceil(missing))


def _report(table: Table, first: int, size: int, wanted: int, done: int) -> None:
    table.report("Generating", min((first + done) * size, wanted), wanted)


def _find_repeats(table: Table, count: int) -> np.ndarray:
    """Return the rows whose text an earlier one has, sorted."""
    parts = [table.part(number) for number in range(count)]
    hashes = np.concatenate([np.empty(0, np.uint64), *(part.index()[:, 0] for part in parts)])
    return np.flatnonzero(~first_of_each(hashes))
