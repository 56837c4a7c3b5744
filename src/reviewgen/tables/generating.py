"""The implementation of ``reviewgen.generate_dataset``: generates a table of texts, in one process
or in several.

A schema says how the values of conditions are drawn for each text. A schema is a distribution for
each condition, or a table from which whole rows are drawn. The values for text i depend only on the
seed and on i. So any process can generate any shard, in any order.
"""

import hashlib
import itertools
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.conditions import ANY, DRAW, Condition, Conditions, DrawGroup
from reviewgen.config.bounded import MAX_RECORD, read_json
from reviewgen.config.options import DatasetOptions
from reviewgen.config.settings import check_count, check_flags, to_dict
from reviewgen.data.texts import open_records
from reviewgen.errors import ConfigError, DataError, counted, did_you_mean, quoted
from reviewgen.generation.request import GenerateKwargs, Request, device_facts, make_request
from reviewgen.model.review_model import ReviewModel
from reviewgen.storage import to_path
from reviewgen.tables.receipts import has_functions, library_versions, make_receipt, portable_origin
from reviewgen.tables.scoring import NOVELTY_COLUMNS, column_names, load_saved, move, novelty_row
from reviewgen.tables.table import Progress, Row, TablePlan, write_table

_HEAD_ROWS = 1000  # the columns of a schema that is a table are those of its first 1000 rows
_MAX_TEXTS = 1_000_000_000  # maximum texts of a table
Value = str | int | float | None
_OWN_COLUMNS = {
    "text": "string",
    "number": "int64",
    "seed": "uint64",
    "prompt": "string",
    "finish_reason": "string",
    "new_tokens": "int64",
    "exceeds_max_copy": "bool",
}
_TO_TYPE: dict[str, Any] = {"int64": int, "double": float, "string": str}
_logger = logging.getLogger("reviewgen")


def _make_plan(
    model: ReviewModel,
    origin: str | None,
    n: int,
    request: Request,
    seed: int | None,
    shards: DatasetOptions,
    receipts: bool | Path,
) -> TablePlan:
    """Return the plan of a table.

    Args:
        model: The model.
        origin: The argument of ``load`` for the receipts, without paths of this machine.
        n: The number of texts for each prompt.
        request: The checked settings, with each prompt once, and the conditions to draw for each
            text.
        seed: The seed that the user gave, if any.
        shards: How the table is written.
        receipts: Whether the table has a column of receipts; or a file to write the receipts to as
            well.
    """
    prompts = request.prompts
    conditions = model.conditions
    text_columns = _OWN_COLUMNS if shards.columns else {"text": "string"}
    column_of = column_names(conditions, [*_OWN_COLUMNS, "receipt", *NOVELTY_COLUMNS])
    condition_columns = {
        column_of[condition.name]: _column_type(condition, request) for condition in conditions
    }
    novelty_columns = NOVELTY_COLUMNS if request.novelty is not None else {}

    def rows(seed: int, first: int, last: int) -> Iterator[Row]:
        """Yield the rows of the texts ``first`` to ``last - 1``."""
        numbers = range(first, last)
        # n texts of each prompt in turn; texts that replace repeats start with the first prompt
        shard_prompts = [prompts[number // n % len(prompts)] for number in numbers]
        shard_request = replace(request, prompts=shard_prompts, seed=seed, offset=first)
        for number, generated in zip(numbers, model.generator.generate(shard_request), strict=True):
            text = model.generator.output(generated, shard_request, number)
            row: Row = {name: getattr(text, name) for name in text_columns}
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
        columns=text_columns | condition_columns | receipt_column | novelty_columns,
        facts=facts,
        stage="Generating",
        rows=rows,
        receipts=receipts if isinstance(receipts, Path) else None,
        total=n * len(prompts),
    )


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
        request = _check_request(loaded, prompt, options)
        move(loaded, device)
        if (total := n * len(request.prompts)) > _MAX_TEXTS:
            raise ConfigError(
                f"A table has at most {_MAX_TEXTS:,} texts; these would be {quoted(total)}."
            )
        groups: list[DrawGroup] = []
        if shards.schema is not None:
            given = dict(options.get("conditions") or {})
            for group in request.draws:
                given.pop(group.names[0], None)  # the user gave no value, or "draw"
            groups = read_schema(shards.schema, loaded.conditions, given)
        by_schema = {*itertools.chain.from_iterable(group.names for group in groups)}
        _warn_if_forgotten(loaded, by_schema)
        groups += [group for group in request.draws if not by_schema.intersection(group.names)]
        request = replace(request, device=loaded.device, draws=groups)
        file = receipts if isinstance(receipts, Path) else path / "receipts.jsonl"
        portable = None if origin is None else portable_origin(origin, file)
        seed = None if options.get("seed") is None else request.seed
        return _make_plan(loaded, portable, n, request, seed, shards, receipts)

    return write_table(plan, out, shards, progress, shards.schema)


def _warn_if_forgotten(model: ReviewModel, drawn: set[str]) -> None:
    """Tell the user if values of conditions are drawn for a model that was trained by counting."""
    evaluations = model.training.get("evaluations") or ()
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
        ReviewgenError: See ``ReviewModel.generate``. Also raised for settings with which a text
            would depend on other texts, on the time or on functions.
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
    # raises if a novelty filter needs an index that the model does not have
    model.generator.guard(request)
    return request


def _digest(groups: Sequence[DrawGroup]) -> str | None:
    """Return a digest of the distributions of a schema; None if nothing is drawn."""
    facts = [[group.names, group.rows, group.weights.tolist()] for group in groups]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest() if facts else None


def read_schema(source: Any, conditions: Conditions, given: Mapping[str, Any]) -> list[DrawGroup]:
    """Read a schema. Return the groups of conditions that it draws; the conditions of a group are
    drawn together.

    Args:
        source: A mapping of each condition to {value: weight}, which may also be a JSON string or a
            .json file; or a table whose columns are conditions: a csv, jsonl or parquet file, or
            another source that ``train`` accepts. The empty value stands for "not given".
        conditions: The conditions of the model.
        given: Conditions with the same value for all texts.

    Raises:
        ConfigError: The model has no conditions, or a condition, a value or a weight is unusable.
        DataError: The source cannot be read.
    """
    if not conditions:
        raise ConfigError(
            "This model was trained without conditions, so a schema has nothing to draw: leave it"
            " out."
        )
    schema = source
    is_json = isinstance(source, str) and source.lstrip().startswith("{")
    try:
        if is_json:
            schema = json.loads(source)
        elif isinstance(source, str | Path) and Path(source).suffix.lower() == ".json":
            schema = read_json(to_path("schema", source), MAX_RECORD)
    except (OSError, ValueError) as error:
        raise DataError(
            f"The schema {quoted(source) if is_json else source} cannot be read:"
            f" {getattr(error, 'strerror', None) or error}."
        ) from None
    if not isinstance(schema, Mapping):
        groups = [_read_table(open_records(source), conditions)]
    elif schema:
        groups = [_read_weights(name, weights, conditions) for name, weights in schema.items()]
    else:
        raise ConfigError('The schema is empty: give {"condition": {"value": weight}}.')
    for name in itertools.chain.from_iterable(group.names for group in groups):
        if given.get(name) is not None:
            raise ConfigError(
                f"The condition {quoted(name)} is given and also drawn by the schema: leave out one"
                " of them."
            )
    return groups


def _read_weights(name: Any, weights: Any, conditions: Conditions) -> DrawGroup:
    """Return the group of a single condition. ``weights`` maps each value to its weight."""
    condition = next((condition for condition in conditions if condition.name == name), None)
    if condition is None:
        raise ConfigError(
            f"{quoted(name)} is not a condition of this model."
            f" {did_you_mean(str(name), conditions.names)}"
        )
    numbers = list(weights.values()) if isinstance(weights, Mapping) else []
    are_weights = all(type(weight) in (int, float) and weight >= 0 for weight in numbers)
    if not are_weights or not 0 < sum(numbers) <= sys.float_info.max:
        raise ConfigError(
            f"The schema must give {quoted(name)} weights of at least 0, {{value: weight}}, with a"
            f" finite sum above 0; got {quoted(weights)}."
        )
    rows = [(_checked(condition, value),) for value in weights]
    return DrawGroup((condition.name,), rows, np.cumsum(numbers, dtype=np.float64))


def _read_table(records: Iterable[Mapping[str, Any]], conditions: Conditions) -> DrawGroup:
    """Return the group of all conditions of the model that are columns of a table."""
    rest = iter(records)
    head = list(itertools.islice(rest, _HEAD_ROWS))
    columns = dict.fromkeys(map(str, itertools.chain.from_iterable(head)))
    chosen = [condition for condition in conditions if condition.name in columns]
    records = itertools.chain(head, rest) if chosen else ()
    rows = list[tuple[Value, ...]]()
    rare: Counter[str] = Counter()  # rows with a rare value, by condition
    for number, record in enumerate(records, 1):
        try:
            values = [_table_value(each, record.get(each.name), rare) for each in chosen]
            rows.append(tuple(values))
        except ConfigError as problem:
            raise ConfigError(f"Row {number:,} of the schema: {problem}") from None
    if not rows:
        reason = f"its columns are {', '.join(columns)}" if columns else "it has no rows"
        raise ConfigError(
            "The schema has no column of a condition of this model"
            f" ({', '.join(conditions.names)}); {reason}."
        )
    for name, count in rare.items():
        _logger.info(
            "%s of the schema: a rare value of %r counts as not given, as in training.",
            counted(count, "row"),
            name,
        )
    return DrawGroup(
        tuple(condition.name for condition in chosen), rows, np.arange(1.0, len(rows) + 1)
    )


def _table_value(condition: Condition, value: Any, rare: Counter[str]) -> Value:
    """Check and convert a value of a table. A rare category that the training left out counts as
    not given, as in training; ``rare`` counts such rows.
    """
    if condition.left_out and _is_unknown(condition, condition.plain(value)):
        rare[condition.name] += 1
        return None
    return _checked(condition, value)


def _checked(condition: Condition, value: Any) -> Value:
    """Check and convert a value of a schema. None stands for "not given"."""
    plain = condition.plain(value)
    if plain is None or (plain == ANY and _is_unknown(condition, plain)):
        return None
    if plain == DRAW and _is_unknown(condition, plain):
        raise ConfigError(
            f"A schema says what is drawn: {DRAW!r} is not a value of {condition.name!r} in it."
            " Leave it out."
        )
    condition.refuse(plain)
    return plain


def _is_unknown(condition: Condition, plain: Value) -> bool:
    """Return whether a value is unknown to a condition. A field, which takes any text, has no
    unknown values.
    """
    return plain is not None and not condition.is_field and condition.find(plain) is None
