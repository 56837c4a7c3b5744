"""``reviewgen evaluate | score | novelty | blend``: measurements with trained models, and blends of
them.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from reviewgen import api
from reviewgen.cli.console import (
    Result,
    describe_written,
    exit_resumable,
    note,
    progress,
    refuse_outputs,
    show_status,
)
from reviewgen.cli.options import declared, parse_data, read_stdin, select, takes
from reviewgen.config.generation import GenerationConfig
from reviewgen.config.options import EvaluationOptions, ShardOptions
from reviewgen.errors import ConfigError, counted
from reviewgen.storage import check_output, to_path

_MAX_SPANS = 10  # max number of copied spans that are printed
_NO_WEIGHT = 5e-5  # a smaller weight is printed as 0.0000
# the options of a command that writes a table of texts
_TABLE_OPTIONS = [*declared(ShardOptions), *declared(EvaluationOptions, without=["split"])]


@takes(EvaluationOptions)
def evaluate(model: str, *, data: list[str], device: str = "auto", **options: Any) -> Result:
    """Evaluate a trained model on a corpus, in bits per character; under accelerate launch, in
    several processes.

    Args:
        device: The device that scores: cpu, cuda, mps, or auto (the device that accelerate finds,
            for networks).
    """
    from reviewgen.evaluation.scoring import suggest_next
    from reviewgen.tables.scoring import evaluate

    with progress() as show:
        trained, result = evaluate(model, parse_data(data), device, show, **options)
    if result.zero_probability_tokens:
        note(
            f"{counted(result.zero_probability_tokens, 'token')} with probability zero: the bits"
            " are infinite."
        )
    if "stopped" in trained.training and trained.training.get("held_out") is None:
        note(
            "The training of this model ended before its final measurement: training.json and the"
            " card have no bits per character and no copy rate. If --data is what it was trained"
            " on, --split test evaluates the texts it held out."
        )
    counts = {"review": result.reviews, "character": result.characters, "token": result.tokens}
    lines = [
        (
            f"{result.bits_per_character:.4f} bits per character ({result.nats_per_character:.4f}"
            " nats), end tokens included"
        ),
        f"{result.perplexity_per_token:.2f} perplexity per {trained.tokenizer_name} token",
        ", ".join(counted(number, noun) for noun, number in counts.items()),
        *(gain.describe() for gain in result.conditions),
        *suggest_next(result.conditions, trained.model),
    ]
    return Result(result.to_dict(), lines)


@takes(declared(GenerationConfig, only=["conditions"], unset=True), _TABLE_OPTIONS)
def score(
    model: str,
    *,
    text: str | None = None,
    prompt: str = "",
    data: str | None = None,
    out: Path | None = None,
    device: str | None = None,
    **options: Any,
) -> Result:
    """Score a text with a trained model, in bits, token by token; or each text of a corpus.

    Args:
        text: The text to look at; - reads standard input.
        prompt: A text that comes before the text and is not scored.
        data: Texts, as for `evaluate`; a row for each is written to --out.
        out: With --data: a folder for the table, or a .jsonl, .parquet or .csv file.
        device: The device that scores: cpu, cuda, mps, or auto (the device that accelerate finds,
            for networks).  [default: auto with --data, else cpu]
    """
    conditions = options.pop("conditions")
    if data is not None and (prompt or conditions):
        raise ConfigError(
            "--prompt and --condition are for --text; the conditions of --data are its columns of"
            " the same names."
        )
    options["device"] = device or "auto"
    text_or_result = _text_or_table("score", model, text, data, out, options)
    if isinstance(text_or_result, Result):
        return text_or_result
    trained = api.load(model)
    if device is not None:
        from reviewgen.tables.scoring import move

        move(trained, device)
    result = trained.score(text_or_result, prompt, conditions=conditions)
    tokens = [
        f"{token.bits:9.3f}  {repr(token.text) if token.text else '(end)'}"
        for token in result.tokens
    ]
    line = (
        f"{result.bits:.2f} bits, {result.bits_per_character:.4f} bits per character, end token"
        " included"
    )
    return Result(result, [line, *tokens])


@takes(_TABLE_OPTIONS)
def novelty(
    model: str,
    *,
    text: str | None = None,
    data: str | None = None,
    out: Path | None = None,
    **options: Any,
) -> Result:
    """Show which parts of a text, or of each text of a corpus, are copied from the text that a
    model was trained on.

    Args:
        text: The text to look at; - reads standard input.
        data: Texts, as for `evaluate`; a row for each is written to --out.
        out: With --data: a folder for the table, or a .jsonl, .parquet or .csv file.
    """
    text_or_result = _text_or_table("novelty", model, text, data, out, options)
    if isinstance(text_or_result, Result):
        return text_or_result
    report = api.load(model).novelty(text_or_result)
    spans = [
        f"{counted(len(span.text), 'character'):>17}: {span.text!r}"
        + ("" if span.review is None else f"  (training review {span.review})")
        for span in report.spans[1:_MAX_SPANS]  # the first one is in report.describe()
    ]
    return Result(report, [*report.describe(), *spans])


def _text_or_table(
    kind: Literal["score", "novelty"],
    model: str,
    text: str | None,
    data: str | None,
    out: Path | None,
    options: dict[str, Any],
) -> str | Result:
    """Return the text of --text; or, for --data, write a table and return the result of the
    command.

    Raises:
        ConfigError: Neither --text nor --data is given, or both are; --out is given with --text, or
            is missing with --data.
    """
    if (text is None) == (data is None):
        raise ConfigError("Give either --text TEXT, or --data CORPUS with --out for the table.")
    if text is not None:
        if out is not None:
            raise ConfigError("--out is for --data; the result of --text is printed.")
        return read_stdin() if text == "-" else text
    if out is None:
        raise ConfigError(
            "--data writes a table: give --out FOLDER, or a .jsonl, .parquet or .csv file."
        )
    return _write_table(kind, model, parse_data(data or ""), out, options)


def _write_table(
    kind: Literal["score", "novelty"], model: str, source: Any, out: Path, options: dict[str, Any]
) -> Result:
    """Write a table of scores or of copied spans, and return the result of the command."""
    from reviewgen.tables.scoring import score_texts

    started = time.monotonic()
    reading: Any = select(options, EvaluationOptions)
    shards = ShardOptions(**select(options, ShardOptions))
    device = options.get("device", "cpu")
    with exit_resumable(out), progress() as show:
        written = score_texts(
            kind, model, source, shards, out=out, progress=show, device=device, options=reading
        )
    describe = _describe_scores if kind == "score" else _describe_copies
    return describe_written(written, started, describe(written.summary))


def _describe_scores(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on a table of scores."""
    bits = summary["bits_per_character"]
    if bits is None:
        yield "infinite bits per character"
    else:
        yield f"{bits:.4f} bits per character, end tokens included"
    if impossible := summary["zero_probability_texts"]:
        yield f"{counted(impossible, 'text')} with probability zero: the bits are null."
    yield f"{counted(summary['characters'], 'character')}, {counted(summary['tokens'], 'token')}"


def _describe_copies(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on a table of copied spans."""
    longest, long_copies, share, unknown = summary.values()  # in the order of tables.scoring
    yield (
        f"The longest copied span has {counted(longest, 'character')}; there is one of at least 50"
        f" in {counted(long_copies, 'text')}."
    )
    if unknown:
        yield (
            f"Of {counted(unknown, 'text')} this is not known: the compact index stores too few"
            " windows of the training text."
        )
    mean = "unknown" if share is None else f"{100 * share:.1f} %"
    yield (
        f"Also in the training text: {mean} of the windows of 20 tokens, on average over the texts"
        " that have any."
    )


@takes(EvaluationOptions)
def blend(
    models: list[str],
    *,
    out: Path,
    weights: tuple[float, ...] | None = None,
    data: str | None = None,
    **options: Any,
) -> Result:
    """Combine trained models: the average of their probabilities at each token, or at each
    character if their tokenizers differ.

    Args:
        models: Saved folders, or owner/name on the Hub.
        out: The folder to save the blend in; it must not exist.
        weights: A number for each model: 0.3,0.7. [default: equal]
        data: Fit the weights on these texts, which no model was trained on: a file or glob.
    """
    from reviewgen.runs.blend import blend
    from reviewgen.runs.record import order_parts

    check_output(to_path("out", out))
    texts = None if data is None else parse_data(data)
    with show_status("Blending ..." if data is None else "Fitting the weights ..."):
        model = blend(models, weights, data=texts, **options)
        model.save_pretrained(out)
    fit = model.training["weights"]
    # bits per character of each model, and of the blend; empty if the weights were not fitted
    bits = fit.get("bits_per_character", {})
    bits_of_models = bits.get("parts", [None] * len(models))
    rows: list[dict[str, Any]] = []
    lines = []
    names = order_parts(models, fit)
    for name, part, own_bits in zip(names, model.training["parts"], bits_of_models, strict=True):
        weight = part["weight"]
        # the last model of a blend by mixing has no weight: it mixes the predictions of the others
        mixes = fit["method"] == "mixing" and len(rows) == len(names) - 1
        rows.append(
            {
                "model": name,
                "preset": part["preset"],
                "weight": weight,
                "bits_per_character": own_bits,
            }
        )
        if weight < _NO_WEIGHT and not mixes:
            note(f"{name} has weight 0: the blend predicts these texts as well without it.")
        shown_bits = f"  {_format_bits(own_bits)}" if bits else ""
        shown_weight = "mixes the others" if mixes else f"weight {weight:.4f}"
        lines.append(f"{name}  {shown_weight}{shown_bits}")
    if bits:
        fixed = _format_bits(bits["fixed_weights"])
        lines.append(
            f"the blend  {_format_bits(bits['fitted_weights'])} (with fixed weights {fixed}), end"
            " tokens included"
        )
    facts = {
        "models": rows,
        "fit": fit,
        "bits_per_character": bits.get("fitted_weights"),
        "saved": str(out),
    }
    return Result(facts, [*lines, f"Saved in {out}"])


def _format_bits(bits: float | None) -> str:
    """Return bits per character for a line; None stands for infinite bits."""
    return "infinite" if bits is None else f"{bits:.4f} bits per character"


@takes()
def report(
    synthetic: str | None = None,
    *,
    train: str | None = None,
    held_out: str | None = None,
    model: str | None = None,
    n: int = 2000,
    text_column: str | None = None,
    labels: list[str] | None = None,
    seed: int = 0,
    page: Path | None = None,
    overwrite: bool = False,
    as_json: bool = False,
) -> Result:
    """Report on synthetic texts, of any tool: can they be told from real ones, do they repeat each
    other, what are they good for, and what do they give away?

    Args:
        synthetic: The table of the synthetic texts: csv, parquet, jsonl and others. Without it,
            --model generates them.
        train: The real texts that they were made from.
        held_out: Other real texts, which show what is chance in the figures of privacy.
        model: A trained model. It knows its corpus, and generates texts if none are given.
        n: How many texts the model generates.
        text_column: The column of the texts in all tables. [default: guessed]
        labels: A column of labels, as in stars. [default: all that both tables have]
        seed: The seed of the texts that the model generates.
        page: The page to write. [default: ./NAME-report.html; with --json, none]
    """
    from reviewgen.assessment.report import report

    if not as_json:
        name = Path(str(synthetic or model or "texts").partition("@")[0]).stem
        page = page or Path(f"{name}-report.html")
    refuse_outputs(overwrite=overwrite, html=page)
    # a source that is not given stays None
    sources = [each and parse_data(each) for each in (synthetic, train, held_out)]
    with show_status("Measuring the texts ..."):
        result = report(
            *sources, model=model, n=n, text_column=text_column, labels=labels, seed=seed
        )
    if page:
        result.save_html(page, overwrite=overwrite)
        note(f"Page: {page}")
    return Result(result.to_dict(), result.render())
