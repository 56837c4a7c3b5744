"""Generates the texts of a table, in one process or in several: the implementation of ``reviewgen.generate_dataset``.

Text i samples from the random stream of (seed, i), and its conditions are drawn from another stream of both. So shards can be
generated anywhere and in any order.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from reviewgen.config import check_count, check_flags, check_seed, check_text, to_dict
from reviewgen.errors import ConfigError, quoted
from reviewgen.generation import GenerateOptions, Generation, Request, device_facts, make_request
from reviewgen.model import ReviewModel
from reviewgen.tables.judging import NOVELTY_COLUMNS, column_names, load_saved, move, novelty_row
from reviewgen.tables.receipts import library_versions, make_receipt, portable_source
from reviewgen.tables.schema import Schema, read_schema
from reviewgen.tables.table import SHARD_TEXTS, Plan, Progress, Row, WrittenTexts, write_table

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


@dataclass(frozen=True)
class _Texts:
    """What to generate.

    Attributes:
        model: The model.
        source: The model's source, without paths of this machine, for the receipts.
        number: The number of texts of each prompt.
        request: The checked settings, with each prompt once.
        schema: What the conditions are drawn from.
        has_columns: Whether there are columns beside the text.
        has_receipts: Whether one of them is the receipt.
    """

    model: ReviewModel
    source: str | None
    number: int
    request: Request
    schema: Schema
    has_columns: bool
    has_receipts: bool

    def columns(self) -> dict[str, str]:
        """Return the type of each column."""
        columns = {"text": "string"}
        if self.has_columns:
            columns = {**_OWN, **{self._names[name]: kind for name, kind in self._kinds.items()}}
        columns |= {"receipt": "string"} if self.has_receipts else {}
        return columns | (NOVELTY_COLUMNS if self.request.novelty is not None else {})

    def facts(self) -> dict[str, Any]:
        """Return what decides the rows besides the seed, as JSON values by name."""
        request = self.request
        arguments = {name: getattr(request, name) for name in ("novelty", "max_copy", "must_include")}
        return {
            "model": [self.model.digest, self.model.weight_bits],
            **device_facts(self.model.device),
            "prompt": hashlib.sha256(json.dumps(list(request.prompts)).encode()).hexdigest(),
            "n": self.number,
            "settings": {"generation_config": to_dict(request.config), **arguments},
            "schema": self.schema.digest(),
            "source": self.source if self.has_receipts else None,
            "versions": library_versions(self.model, request.plugins),
        }

    def rows(self, seed: int, first: int, last: int) -> Iterator[Row]:
        """Yield the rows of the texts ``first`` to ``last - 1``."""
        numbers, generator, prompts = range(first, last), self.model.generator, self.request.prompts
        drawn = [{**self.request.config.conditions, **self.schema.draw(seed, number)} for number in numbers]
        request = replace(
            self.request,
            prompts=[prompts[number // self.number % len(prompts)] for number in numbers],
            seed=seed,
            offset=first,
            prefixes=[self.model.conditions.encode(values) for values in drawn] if self.schema.groups else (),
        )
        for number, values, row in zip(numbers, drawn, generator.generate(request), strict=True):
            yield self._row(generator.output(row, request, number), values)

    @cached_property
    def _kinds(self) -> dict[str, str]:
        """The pyarrow type of the column of each condition: integers, numbers or text."""
        kinds = {}
        for condition in self.model.conditions:
            values = {condition.plain(self.request.config.conditions.get(condition.name))}
            if condition.name in self.schema.names:
                values = self.schema.values(condition.name)
            types = {type(value) for value in values} - {type(None)}
            kinds[condition.name] = "int64" if types == {int} else "double" if types and types <= {int, float} else "string"
        return kinds

    @cached_property
    def _names(self) -> dict[str, str]:
        return column_names(self.model.conditions, [*_OWN, "receipt", *NOVELTY_COLUMNS])

    def _row(self, text: Generation, conditions: Mapping[str, Any]) -> Row:
        row: Row = {name: getattr(text, name) for name in (_OWN if self.has_columns else ("text",))}
        for condition in self.model.conditions if self.has_columns else ():
            value = condition.plain(conditions.get(condition.name))  # one that is given is not plain yet
            make = {"string": str, "double": float, "int64": int}[self._kinds[condition.name]]
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

    def plan(path: Path) -> Plan:
        """Check the call, and return the plan of its table."""
        check_count("n", n)
        check_flags(columns=columns, unique=unique)
        if seed is not None:
            check_seed(seed)
        loaded, source = load_saved(model, weight_bits)
        check_text("device", device)
        request = _check_request(loaded, prompt, options)
        if device != "auto" or not request.must_include:  # of which few texts are generated at once
            move(loaded, device)
        total = n * len(request.prompts)
        if total > _MAX_TEXTS:
            raise ConfigError(f"A table has at most {_MAX_TEXTS:,} texts; these would be {quoted(total)}.")
        drawn = Schema() if schema is None else read_schema(schema, loaded.conditions, options.get("conditions") or {})
        file = receipts if isinstance(receipts, Path) else path / "receipts.jsonl"
        name = None if source is None else portable_source(source, file)
        has_receipts = bool(columns if receipts is None else receipts)
        texts = _Texts(loaded, name, n, replace(request, device=loaded.device), drawn, columns, has_receipts)
        facts = {**texts.facts(), "seed": seed, "unique": unique}
        return Plan(columns=texts.columns(), facts=facts, stage="Generating", rows=texts.rows, total=total)

    return write_table(plan, out, format, shard_texts, progress)


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
