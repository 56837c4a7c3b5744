"""The implementation of ``reviewgen.score_dataset`` and ``reviewgen.novelty_dataset``: scores
texts, or finds the passages that they copy, in one process or in several.

Reading is fast, so every process reads all texts, and then scores or examines only its share of
them. The result does not depend on how the texts are shared among the processes.
"""

import copy
import logging
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import xxhash

from reviewgen.conditions import Conditions
from reviewgen.config.options import (
    EvaluateKwargs,
    EvaluationOptions,
    ShardOptions,
    refuse_unknown_options,
)
from reviewgen.config.settings import check_text, to_dict
from reviewgen.data.cleaning import hash_text
from reviewgen.data.columns import Example
from reviewgen.data.texts import identify_texts, read_documents, read_texts
from reviewgen.data.tokens import frame_texts
from reviewgen.errors import ConfigError, TrainingError
from reviewgen.evaluation.evaluate import Evaluation, evaluate_totals, sum_totals
from reviewgen.evaluation.scoring import batches, keep_first, measure_gains, token_losses
from reviewgen.generation.generator import require_index
from reviewgen.generation.request import device_facts
from reviewgen.model.review_model import ReviewModel, check_model
from reviewgen.novelty import WINDOWS, Novelty
from reviewgen.processes import all_processes, process_state
from reviewgen.registry.plugins import find_model
from reviewgen.tables.receipts import library_versions
from reviewgen.tables.table import Progress, Row, TablePlan, write_table

_SCORED_TEXTS = 1024  # max number of texts that are scored together, as in ``evaluate``
_SCORE_COLUMNS = {
    "characters": "int64",
    "tokens": "int64",
    "bits": "double",
    "bits_per_character": "double",
}
NOVELTY_COLUMNS = {
    "longest_copy": "string",
    "longest_copy_characters": "int64",
    "longest_copy_tokens": "int64",
    **{f"copied_share_{length}": "double" for length in WINDOWS},
}
_REPORTED_SHARE = f"copied_share_{WINDOWS[-1]}"  # the column whose mean is reported
# the settings of reading that have a default other than None
_DEFAULTS = {
    name: value for name, value in to_dict(EvaluationOptions()).items() if value is not None
}
_LONG_COPY = 50  # a copy of at least this many characters counts as long
_MakeRows = Callable[[ReviewModel, Sequence[Example]], Iterable[Row]]
_Summarize = Callable[[Iterable[Row]], dict[str, Any]]
_logger = logging.getLogger("reviewgen")


def load_saved(model: Any, weight_bits: int = 32) -> tuple[ReviewModel, str | Path | None]:
    """Load a model that may then be moved to another device. Return the model, and the name or
    folder that it was loaded from.

    Args:
        model: A ReviewModel, or an argument of ``load``.
        weight_bits: The number of bits per weight, if this call loads the model.

    Raises:
        ConfigError: ``model`` is of another type, or is a ReviewModel with unsaved changes.
        ReviewgenError: The model cannot be loaded; see ``load``.
    """
    if isinstance(model, str | Path):
        return ReviewModel.from_pretrained(model, weight_bits=weight_bits), model
    check_model("model", model)
    if model.digest is None:
        raise ConfigError(
            "A table records its model by digest, and this model has unsaved changes: save and load"
            " it first."
        )
    bundle = model.bundle
    # a copy, so that the caller's model stays on its device
    clone = ReviewModel(replace(bundle, weights=copy.copy(bundle.weights)))
    return clone, bundle.folder or bundle.origin


def move(model: ReviewModel, device: str) -> None:
    """Move a model to a device.

    Args:
        model: The model.
        device: A device of torch, or "auto". With "auto", a model that is already on an accelerator
            stays there. A network with 32-bit weights that is suited for an accelerator is moved to
            the device that accelerate selects. All other models stay on the CPU.

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
        from reviewgen.training.device import choose_device  # imports accelerate: half a second

        try:
            model.to(choose_device("auto", model_class)[0])
        except ConfigError as error:
            _logger.warning("%s The CPU computes instead.", error)


def evaluate(
    model: str | Any,
    source: Any,
    device: str = "auto",
    progress: Progress | None = None,
    **options: Unpack[EvaluateKwargs],
) -> tuple[ReviewModel, Evaluation]:
    """Evaluate a model, with all processes of a launcher. Return the model and its evaluation,
    which is bit for bit the same as with one process.

    Args:
        model: The argument of ``reviewgen.load``.
        source: The texts.
        device: As in ``reviewgen.score_dataset``.
        progress: Called after each batch with the number of texts that all processes have evaluated
            so far.
        options: See ``ReviewModel.evaluate``.

    Raises:
        ReviewgenError: See ``ReviewModel.evaluate`` and ``reviewgen.load``.
        ProcessLost: Another process has failed or ended.
    """

    def load() -> ReviewModel:
        loaded = load_saved(model)[0]
        move(loaded, device)
        return loaded

    def score_own_batches() -> tuple[dict[int, Any], str, Any]:
        """Score the batches of this process. Return the totals of each of these batches by the
        number of the batch, a digest of all texts, and the gain in bits of each condition.

        The gains are measured by the main process, on the first texts; in the other processes there
        are none.
        """
        totals = dict[int, Any]()
        digest = xxhash.xxh3_128()
        weights = loaded.bundle.weights
        device = weights.device
        network = weights.model_on_device
        documents = read_documents(source, loaded.bundle, **options)
        gain_texts = list[Any]()  # the texts on which the gains of conditions are measured
        nats = list[float]()  # the nats of these texts, as far as this process has scored them
        if loaded.conditions and not processes.rank:
            documents = keep_first(documents, gain_texts)  # also fills gain_texts
        done = 0
        for number, batch in enumerate(batches(documents)):
            processes.stop_if_interrupted()
            digest.update(b"".join(ids.tobytes() for ids, _ in batch))
            digest.update(str([length for _, length in batch]).encode())
            if number % processes.world_size == processes.rank:
                # evaluate_totals appends the nats of the batch to this list
                kept_nats = nats if len(nats) < len(gain_texts) else None
                totals[number] = evaluate_totals(
                    network, batch, loaded.tokenizer.vocab_size, device, kept_nats
                )
            done += len(batch)
            if progress is not None:
                progress("Evaluating", done, None)
        # the nats can be reused only if this process has scored all of these texts
        known = nats if processes.world_size == 1 else ()
        gains = measure_gains(network, gain_texts, loaded.conditions, device, known)
        return totals, digest.hexdigest(), gains

    with all_processes() as processes:
        loaded = processes.each(load, model)
        processes.refuse_differences(_facts(loaded, source, options))
        results = processes.gather(score_own_batches, _name(source))
        totals_by_process, digests, gains = zip(*results, strict=True)
        # this happens, for example, if the source is a pipe, of which each process reads a part
        if len({*digests}) > 1:
            raise TrainingError(
                "The processes have read different texts. Run the same command everywhere, with the"
                " same corpus."
            )
        totals = dict[int, Any]()
        for own_totals in totals_by_process:
            totals |= own_totals
        evaluation = sum_totals(totals[number] for number in range(len(totals))).evaluation()
        # those of the main process, whose rank is 0
        return loaded, replace(evaluation, conditions=gains[0])


def score_texts(
    kind: Literal["score", "novelty"],
    model: str | Path | ReviewModel,
    source: Any,
    shards: ShardOptions,
    *,
    out: str | Path | None,
    progress: Progress | None = None,
    device: str = "cpu",
    options: EvaluateKwargs,
) -> Any:
    """Write a table with a row for each text of a source. Under a launcher, all processes call
    this.

    Raises:
        ReviewgenError: See ``reviewgen.score_dataset`` and ``novelty_dataset``.
        ProcessLost: Another process has failed or ended.
    """
    settings: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    own_columns, make_rows, summarize, stage = _KINDS[kind]

    def plan(_: Path) -> TablePlan:
        """Check the arguments, and return the plan of the table."""
        refuse_unknown_options(
            options,
            EvaluateKwargs,
            f"{kind}_dataset",
            others=("source", "out", "format", "shard_texts"),
        )
        loaded = load_saved(model)[0]
        condition_columns = dict[str, str]()
        if kind == "score":
            condition_columns = dict.fromkeys(
                _condition_columns(loaded.conditions).values(), "string"
            )
            move(loaded, device)
        elif require_index(loaded.bundle.index).form == "compact":
            _logger.info(
                "These are upper bounds: the compact index of this model takes about 1 % of all new"
                " windows for copied ones, and joins spans of several training texts."
            )
        texts: Iterator[Example] = read_texts(source, loaded.bundle, **settings)
        first_text = next(texts)  # raises if the source cannot be read
        texts = chain([first_text], texts)
        identity = identify_texts(source, loaded.conditions, settings)
        facts = {"judge": kind, **_facts(loaded, source, _DEFAULTS | settings)}
        # The processes compare these facts, so all of them must have read the same texts. If the
        # source cannot be identified, its first text is compared.
        facts["texts"] = hash_text(first_text[0]) if identity is None else identity
        done = 0  # number of texts that were read so far, to be scored or skipped

        def rows(_: int, first: int, last: int) -> Iterator[Row]:
            """Yield the rows of the texts ``first`` to ``last - 1``. Texts before ``first`` that
            other processes score are read and skipped.
            """
            nonlocal done
            shard = islice(texts, first - done, last - done)
            done = last
            while part := list(islice(shard, _SCORED_TEXTS)):
                yield from make_rows(loaded, part)

        return TablePlan(
            columns={"text": "string"} | condition_columns | own_columns,
            facts=facts,
            stage=stage,
            rows=rows,
            summarize=summarize,
            can_resume=identity is not None,
        )

    return write_table(plan, out, shards, progress, source)


def _facts(model: ReviewModel, source: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that the results depend on, except the texts, as JSON values by name."""
    return {
        "model": model.digest,
        **device_facts(model.device),
        "source": _name(source),
        "options": options,
        "versions": library_versions(model, ()),
    }


def _name(source: Any) -> str:
    """Return the path or name of a source of texts, or else the name of its type."""
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def _condition_columns(conditions: Conditions) -> dict[str, str]:
    """Return the name of the column for each condition, in a table of scores."""
    return column_names(conditions, ["text", *_SCORE_COLUMNS, *NOVELTY_COLUMNS])


def column_names(conditions: Conditions, others: Sequence[str]) -> dict[str, str]:
    """Return the name of the column for each condition, by the name of the condition: the same
    name, or, if another column has this name, the name with the prefix ``condition_``.
    """
    names = {}
    for name in conditions.names:
        column = name
        while column in others or (column != name and column in conditions.names):
            column = f"condition_{column}"
        names[name] = column
    return names


def novelty_row(novelty: Novelty | None) -> Row:
    """Return the values of ``NOVELTY_COLUMNS`` for a text: its longest copied span, and the shares
    of its windows of each length that are copied. If ``novelty`` is None, all values are None.
    """
    if novelty is None:
        return dict.fromkeys(NOVELTY_COLUMNS)
    text = novelty.longest_text
    longest: list[Any] = [text, novelty.longest_characters, novelty.longest_tokens]
    if novelty.form == "compact" and novelty.longest_tokens and not text:
        longest = [None] * len(longest)  # a compact index does not always know the copied text
    shares = [novelty.windows.get(length) for length in WINDOWS]
    return dict(zip(NOVELTY_COLUMNS, longest + shares, strict=True))


def _score_rows(model: ReviewModel, texts: Sequence[Example]) -> Iterator[Row]:
    """Yield the row of each text: the text, its conditions and its scores. The tokens and the bits
    include the end token.
    """
    conditions = model.conditions
    tokenizer = model.tokenizer
    columns = _condition_columns(conditions)
    encoded = ((text, conditions.encode_values(values)) for text, values in texts)
    framed = list(frame_texts(encoded, tokenizer))
    weights = model.bundle.weights
    all_ids = [ids for ids, _ in framed]
    # for each text, the nats of each of its tokens
    losses = token_losses(weights.model_on_device, all_ids, tokenizer.vocab_size, weights.device)
    for (text, values), (_, characters), nats in zip(texts, framed, losses, strict=True):
        row: Row = {"text": text}
        for condition, value in zip(conditions, values, strict=True):
            plain = condition.plain(value)
            row[columns[condition.name]] = None if plain is None else str(plain)
        bits = float(nats.sum(dtype=np.float64)) / math.log(2)
        is_finite = math.isfinite(bits)
        scores = {
            "characters": characters,
            "tokens": len(nats),
            "bits": bits if is_finite else None,
            "bits_per_character": bits / characters if is_finite and characters else None,
        }
        yield row | scores


def _summarize_scores(rows: Iterable[Row]) -> dict[str, Any]:
    """Return the bits per character of all texts, with their end tokens; and the numbers of
    characters, of tokens, and of texts with probability zero.
    """
    bits = array("d")
    characters = 0
    tokens = 0
    impossible = 0
    for row in rows:
        characters += row["characters"]
        tokens += row["tokens"]
        if row["bits"] is None:
            impossible += 1
        else:
            bits.append(row["bits"])
    per_character = None if impossible or not characters else math.fsum(bits) / characters
    return {
        "bits_per_character": per_character,
        "characters": characters,
        "tokens": tokens,
        "zero_probability_texts": impossible,
    }


def _copy_rows(model: ReviewModel, texts: Sequence[Example]) -> Iterator[Row]:
    """Yield the row of each text: the text, and what it copies from the training text."""
    index = require_index(model.bundle.index)
    tokenizer = model.tokenizer
    for text, _ in texts:
        yield {"text": text, **novelty_row(index.examine(tokenizer.encode(text), tokenizer.decode))}


def _summarize_copies(rows: Iterable[Row]) -> dict[str, Any]:
    """Return the length of the longest copy, the number of texts with a long copy, the mean share
    of copied windows, and the number of texts whose longest copy is unknown.
    """
    shares = array("d")
    longest = 0
    long_copies = 0
    unknown = 0
    for row in rows:
        length = row["longest_copy_characters"]
        if length is None:
            unknown += 1
        else:
            longest = max(longest, length)
            long_copies += length >= _LONG_COPY
        if row[_REPORTED_SHARE] is not None:
            shares.append(row[_REPORTED_SHARE])
    return {
        "longest_copy_characters": longest,
        f"texts_with_copies_of_{_LONG_COPY}_characters": long_copies,
        f"mean_{_REPORTED_SHARE}": math.fsum(shares) / len(shares) if shares else None,
        "texts_with_unknown_copies": unknown,
    }


# For each kind of table: its columns after those of the text and the conditions, the function that
# makes the rows of some texts, the function that makes the summary, and the name of the work.
_KINDS: dict[str, tuple[dict[str, str], _MakeRows, _Summarize, str]] = {
    "score": (_SCORE_COLUMNS, _score_rows, _summarize_scores, "Scoring"),
    "novelty": (NOVELTY_COLUMNS, _copy_rows, _summarize_copies, "Looking for copies"),
}
