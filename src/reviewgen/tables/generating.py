"""The implementation of ``reviewgen.generate_dataset``: generates a table of texts, in one process
or in several.

The values of the conditions of text i, which a schema may draw, depend only on the seed and on i.
So any process can generate any shard, in any order.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reviewgen.conditions import Condition, DrawGroup
from reviewgen.config.options import DatasetOptions
from reviewgen.config.settings import check_count, check_flags, to_dict
from reviewgen.errors import ConfigError, quoted
from reviewgen.generation.generator import Generation
from reviewgen.generation.request import GenerateKwargs, Request, device_facts, make_request
from reviewgen.model.review_model import ReviewModel
from reviewgen.tables.receipts import has_functions, library_versions, make_receipt, portable_origin
from reviewgen.tables.schema import Schema, read_schema
from reviewgen.tables.scoring import NOVELTY_COLUMNS, column_names, load_saved, move, novelty_row
from reviewgen.tables.table import Progress, Row, TablePlan, write_table

_MAX_TEXTS = 1_000_000_000  # max number of texts of a table
_MAX_ATTEMPTS = 10  # max number of texts that are generated for a row until one fits the schema
_OWN_COLUMNS = {
    "number": "int64",
    "seed": "uint64",
    "prompt": "string",
    "finish_reason": "string",
    "new_tokens": "int64",
    "exceeds_max_copy": "bool",
}
_TO_TYPE: dict[str, Any] = {"int64": int, "double": float, "string": str}
# the names that a column of the user cannot have
_RESERVED = (
    *_OWN_COLUMNS,
    "receipt",
    "synthetic",
    *NOVELTY_COLUMNS,
)
_logger = logging.getLogger("reviewgen")


def _make_plan(
    model: ReviewModel,
    origin: str | None,
    n: int,
    request: Request,
    seed: int | None,
    shards: DatasetOptions,
    schema: Schema,
    receipts: bool | Path,
) -> TablePlan:
    """Return the plan of a table.

    Args:
        model: The model.
        origin: The argument of ``load`` that receipts record, without absolute paths of this
            machine.
        n: The number of texts for each prompt.
        request: The checked settings, with each prompt once, and the conditions to draw for each
            text.
        seed: The seed that the user gave, if any.
        shards: How the table is written.
        schema: The generated columns.
        receipts: Whether the table has a column of receipts; or a file to write the receipts to as
            well.
    """
    prompts = request.prompts
    conditions = model.conditions
    own_columns = _OWN_COLUMNS if shards.columns else {}
    column_of = column_names(conditions, [*_RESERVED, *schema.columns])
    condition_columns = {
        column_of[condition.name]: _column_type(condition, request) for condition in conditions
    }
    novelty_columns = NOVELTY_COLUMNS if request.novelty is not None else {}

    def rows(seed: int, first: int, last: int) -> Iterator[Row]:
        """Yield the rows of the texts ``first`` to ``last - 1``."""
        numbers = range(first, last)
        # The first n texts have the first prompt, the next n texts have the second prompt, and so
        # on. Further texts, which replace repeats, start again with the first prompt.
        shard_prompts = [prompts[number // n % len(prompts)] for number in numbers]
        shard_request = replace(request, prompts=shard_prompts, seed=seed, offset=first)
        for number, generated in zip(numbers, model.generator.generate(shard_request), strict=True):
            text = model.generator.output(generated, shard_request, number)
            if schema.settings:
                text = _without_problem(model, text)
            row: Row = schema.values(text)
            row |= {name: getattr(text, name) for name in own_columns}
            for condition in conditions:
                # converts a value that the user gave; a drawn value is converted already
                value = condition.plain(text.conditions.get(condition.name))
                column = column_of[condition.name]
                to_type = _TO_TYPE[condition_columns[column]]
                row[column] = None if value is None else to_type(value)
            if receipts:
                row["receipt"] = json.dumps(make_receipt(model, text, origin), ensure_ascii=False)
            if novelty_columns:
                row |= novelty_row(text.novelty)
            yield row

    receipt_column = {"receipt": "string"} if receipts else {}
    settings = {name: getattr(request, name) for name in ("novelty", "max_copy")}
    facts = {
        "model": [model.digest, model.weight_bits],
        **device_facts(model.device),
        "prompt": hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest(),
        "n": n,
        "settings": {"generation_config": to_dict(request.config), **settings},
        "schema": _digest(request.draws),
        "source": origin if receipts else None,
        "versions": library_versions(model, request.plugins),
        "seed": seed,
        "unique": shards.unique,
    }
    return TablePlan(
        columns=schema.columns | own_columns | condition_columns | receipt_column | novelty_columns,
        facts=facts,
        stage="Generating",
        rows=rows,
        compared=tuple(schema.columns),
        receipts=receipts if isinstance(receipts, Path) else None,
        total=n * len(prompts),
    )


def _without_problem(model: ReviewModel, text: Generation) -> Generation:
    """Return the text if it fits the schema. Otherwise, generate others in its place, and return
    the first one that fits; or the last one, if none of ``_MAX_ATTEMPTS`` texts fits.

    The others get numbers that no text of a table has, and so random streams of their own.
    """
    number = text.number
    for attempt in range(1, _MAX_ATTEMPTS):
        if not text.problem:
            break
        other = number + attempt * _MAX_TEXTS
        request = replace(text.request, prompts=[text.prompt], offset=other)
        (generated,) = model.generator.generate(request)
        text = model.generator.output(generated, request, other)
    return text


def _column_type(condition: Condition, request: Request) -> str:
    """Return the pyarrow type of the column of a condition: "int64", "double" or "string"."""
    values = {condition.plain(request.fixed.get(condition.name))}
    for group in request.draws:
        if condition.name in group.names:
            values |= group.values(condition.name)
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int}:
        return "int64"
    return "double" if kinds and kinds <= {int, float} else "string"


def generate_dataset(
    model: str | Path | ReviewModel,
    n: int,
    shards: DatasetOptions,
    *,
    out: str | Path | None,
    prompt: str | Sequence[str] = "",
    receipts: bool | Path = False,
    progress: Progress | None = None,
    weight_bits: int = 32,
    device: str = "auto",
    options: GenerateKwargs,
) -> Any:
    """Generate a table of texts. Under a launcher, all processes call this.

    The arguments are those of ``reviewgen.generate_dataset``, and:
        shards: How the table is written.
        receipts: Whether the table has a column of receipts; or a file to write the receipts to as
            well.
        progress: Called with the progress.
        weight_bits: The number of bits per weight, if this call loads the model.

    Raises:
        ReviewgenError: See ``reviewgen.generate_dataset``.
        ProcessLost: Another process has failed or ended.
    """

    def plan(path: Path) -> TablePlan:
        """Check the arguments, and return the plan of the table."""
        check_count("n", n)
        check_flags(columns=shards.columns, unique=shards.unique)
        loaded, origin = load_saved(model, weight_bits)
        schema = Schema()
        if shards.schema is not None:
            schema = read_schema(shards.schema, loaded.conditions, _RESERVED)
        request = _check_request(loaded, prompt, _with_formats(options, schema))
        move(loaded, device)
        if (total := n * len(request.prompts)) > _MAX_TEXTS:
            raise ConfigError(
                f"A table has at most {_MAX_TEXTS:,} texts; these would be {quoted(total)}."
            )
        # the conditions that are drawn without a schema, too: not given, or given as "draw"
        by_default = {group.names[0] for group in request.draws}
        asked = options.get("conditions") or {}
        given = {name for name, value in asked.items() if value is not None}
        if both := (given - by_default) & schema.drawn:
            raise ConfigError(
                f"The condition {quoted(min(both))} is given and also drawn by the schema: leave"
                " out one of them."
            )
        _warn_if_forgotten(loaded, schema.drawn)
        # a group of the schema replaces the default groups of its conditions
        groups = list(schema.draws)
        groups += [group for group in request.draws if not schema.drawn.intersection(group.names)]
        request = replace(request, device=loaded.device, draws=groups)
        file = receipts if isinstance(receipts, Path) else path / "receipts.jsonl"
        portable = None if origin is None else portable_origin(origin, file)
        seed = None if options.get("seed") is None else request.seed
        return _make_plan(loaded, portable, n, request, seed, shards, schema, receipts)

    return write_table(plan, out, shards, progress, shards.schema)


def _warn_if_forgotten(model: ReviewModel, drawn: set[str]) -> None:
    """Tell the user if values of conditions are drawn for a model that was trained by counting,
    which soon forgets them.
    """
    evaluations = model.training.get("evaluations") or ()
    # only the training of a network has a training loss
    is_counted = evaluations and all(
        entry.get("train_nats_per_token") is None for entry in evaluations
    )
    if is_counted and any(condition.name in drawn for condition in model.conditions.fixed):
        _logger.info(
            "This model was trained by counting, so it forgets a condition after a few tokens;"
            " networks do not."
        )


def _check_request(model: ReviewModel, prompt: Any, options: GenerateKwargs) -> Request:
    """Check the settings of a call, and return them as a request that has each prompt once.

    Raises:
        ReviewgenError: See ``ReviewModel.generate``. It is also raised for settings that would make
            a text depend on other texts, on the time or on functions.
    """
    if options.get("num_return_sequences") is not None:
        raise ConfigError(
            "num_return_sequences is not a generation setting here: n and seed are arguments of"
            " their own."
        )
    settings: Any = {**options, "num_return_sequences": 1}
    request = make_request(
        prompt, model.generation_config, settings, model.tokenizer, model.conditions
    )
    if not request.prompts:
        raise ConfigError("There are no prompts: give at least one, or leave prompt out.")
    if request.config.max_time is not None:
        raise ConfigError(
            "max_time would make the texts depend on the speed of this machine: leave it out."
        )
    if request.best_of:
        raise ConfigError(
            "best_of chooses among the texts of a prompt, and here each is generated by itself:"
            " leave it out."
        )
    if request.config.num_beams > 1:
        raise ConfigError(
            "num_beams finds the texts of a prompt together, and here each is generated by itself:"
            " leave it out."
        )
    if has_functions(request) or (request.hooks is not None and request.hooks.streamer):
        raise ConfigError(
            "Functions as logits_processor, stopping_criteria or streamer cannot be repeated: leave"
            " them out."
        )
    # these raise if a novelty filter has no index, or no text fits a format
    model.generator.guard(request)
    model.generator.formats(request)
    return request


def _with_formats(options: GenerateKwargs, schema: Schema) -> GenerateKwargs:
    """Return the settings of a call, together with the formats of its schema.

    Raises:
        ConfigError: A format is given in both.
    """
    for name in schema.settings:
        if options.get(name) is not None:
            raise ConfigError(f"{name} is given and also in the schema: leave out one of them.")
    # type checkers do not know the keys of a joined dict, so its type is stated by hand
    with_formats: Any = {**options, **schema.settings}
    checked: GenerateKwargs = with_formats
    return checked


def _digest(groups: Sequence[DrawGroup]) -> str | None:
    """Return a digest of the distributions from which conditions are drawn; None if there are no
    groups.
    """
    facts = [[group.names, group.rows, group.weights.tolist()] for group in groups]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest() if facts else None
