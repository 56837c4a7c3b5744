"""``reviewgen explain | graph | plot | probe | compare``, ``neighbours | contrast | classify``:
what models have learned.
"""

import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Group

from reviewgen import api
from reviewgen.cli.console import (
    Result,
    TerminalConsole,
    keep_on_interrupt,
    make_table,
    note,
    notes,
    refuse_outputs,
    show,
    show_status,
)
from reviewgen.cli.options import declared, parse_data, path_or_string, read_stdin, takes
from reviewgen.config.generation import GenerationConfig
from reviewgen.config.names import LOCAL
from reviewgen.config.options import EvaluationOptions, TrainingTextOptions, TrialOptions
from reviewgen.config.settings import check_count, parse_settings
from reviewgen.errors import ConfigError
from reviewgen.interrupts import raise_on_interrupt


@takes(declared(GenerationConfig, only=["conditions"], unset=True))
def explain(
    model: str,
    *,
    text: list[str] | None = None,
    tokens: int = 12,
    page: Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Result:
    """Explain what a model computes on a text: operations, loss, counts, gates.

    Args:
        text: A text to explain, - for standard input. [default: two short sentences]
        tokens: How many tokens of each table to print; --json and the page have all.
        page: Also write everything, with heat maps, as a page; or, as a .svg file, for the first
            text, the contexts that a mixing model uses or what the heads of a transformer read.
    """
    from reviewgen.analysis.explanation_run import explain
    from reviewgen.cli.explain_tables import render
    from reviewgen.web.rendering import PAGES, refuse_file

    check_count("--tokens", tokens)
    if page is not None:
        refuse_file(page, (*PAGES, ".svg"), overwrite)
    texts = [read_stdin() if each == "-" else each for each in text or ()]
    with show_status("Explaining ..."):
        explanation = explain(model, texts or None, **options)
    if page is not None:
        if page.suffix.lower() == ".svg":
            explanation.heat_map().save(page, overwrite=overwrite)
        else:
            explanation.save_html(page, overwrite=overwrite)
        note(f"Wrote {page}.")
    return Result(explanation.to_dict(), render(explanation, tokens))


@takes()
def graph(
    model: str,
    *,
    out: Path | None = None,
    unroll: int = 1,
    autograd: bool = False,
    overwrite: bool = False,
) -> Result:
    """Draw the computational graph of a model: its layers, the gates of its cell, and the shapes
    between them.

    Args:
        out: The file: .svg. [default: ./NAME.svg]
        unroll: The number of tokens to draw, up to 12; 1 draws one with its loop.
        autograd: Draw PyTorch's graph of the backward pass; needs torchviz and graphviz.
    """
    from reviewgen.analysis.graph_picture import graph

    file = out or Path(f"{Path(model).name.replace('@', '-').replace(':', '-')}.svg")
    picture = graph(model, file, unroll=unroll, autograd=autograd, overwrite=overwrite)
    sizes = picture.counted or {"parameters": picture.parameters}
    lines = [f"Saved as {file}"]
    if picture.parameters:
        counts = ", ".join(f"{size:,} {kind}" for kind, size in sizes.items())
        lines.insert(0, f"{picture.name}: {counts}")
    return Result({"file": str(file), **picture.to_dict()}, lines)


@takes()
def plot(
    runs: list[str],
    *,
    out: Path | None = None,
    against: str = "seconds",
    metric: list[str] | None = None,
    overwrite: bool = False,
) -> Result:
    """Plot a training run: bits per character and learning rate over time, with the verdict and the
    copy rate.

    Args:
        runs: Saved folders (./my-model) or owner/name on the Hub; several are compared.
        out: The file: .png, .svg or .pdf. [default: ./NAME.svg, or ./curves.svg for several]
        against: The x axis: seconds, steps or tokens.
        metric: A metric of generated texts that gets a panel, as in distinct-2.
    """
    from reviewgen.runs.plotting import picture_name, plot_training

    file = out or picture_name(runs)
    curves = plot_training(runs, file, against=against, metrics=metric or (), overwrite=overwrite)
    facts = {"file": str(file), "against": against, "runs": curves}
    lines = [f"{run.name}: {run.verdict}" for run in curves]
    return Result(facts, [*lines, f"Saved as {file}"])


@takes()
def probe(
    models: list[str],
    *,
    pairs: Path | None = None,
    texts: int = 100,
    seed: int = 0,
    plot: Path | None = None,
    page: Path | None = None,
    overwrite: bool = False,
) -> Result:
    """Probe what models have learned about structure: agreement, remembering a word, closing
    brackets and quotes.

    Args:
        models: Presets, saved folders (./my-model) or owner/name on the Hub.
        pairs: Minimal pairs to use instead: a .jsonl or .csv file with sentence_good and
            sentence_bad, as in BLiMP.
        texts: The number of texts that each model generates to count marks in; 0 for none.
        seed: The seed of these texts.
        plot: Also draw the shares: a .png, .svg or .pdf file.
        page: Also write a page with the table and the chart.
    """
    from reviewgen.analysis.probing import probe

    refuse_outputs(plot=plot, html=page, overwrite=overwrite)
    with show_status("Probing ..."):
        result = probe(models, pairs=pairs, texts=texts, seed=seed)
    if plot is not None:
        result.plot(plot, overwrite=overwrite)
        note(f"Chart: {plot}")
    if page is not None:
        result.save_html(page, overwrite=overwrite)
        note(f"Page: {page}")
    head, *rows = result.table()
    return Result(result.to_dict(), [make_table(*head, rows=rows, left=head)])


@takes(TrainingTextOptions, TrialOptions)
def compare(
    models: list[str],
    *,
    data: list[str],
    held_out: str | None = None,
    held_out_split: str | None = None,
    prompt: str = "the ",
    seeds: int = 1,
    html: Path | None = None,
    overwrite: bool = False,
    out: Path | None = None,
    resume: bool = False,
    settings: list[str] | None = None,
    as_json: bool = False,
    **options: Any,
) -> None:
    """Train or load several models, and compare them on the same held-out texts.

    Args:
        models: Presets to train (gru-char), saved folders (./my-model) or owner/name on the Hub;
            NAME=MODEL names a row.
        held_out: Another source of held-out texts. [default: the test split of the data]
        held_out_split: The split of a dataset with the held-out texts.
        prompt: The beginning of the samples.
        seeds: Train each preset from this number of seeds, to see which differences are more than
            chance.
        html: Write a page with tables, curves and samples: one .html file.
        out: Keep the trained models and finished rows in this folder.
        resume: Reuse finished rows from --out and continue with the others.
        settings: A setting of every preset: training.evaluations=20; of one row:
            NAME:model.hidden_size=512.
    """
    from reviewgen.analysis.comparison_report import draw_tables
    from reviewgen.analysis.comparison_run import ComparisonRun

    refuse_outputs(html=html, overwrite=overwrite)
    named_models: list[Any] = []  # models, or pairs of a name and a model
    for text in models:
        name, equals, model = text.partition("=")
        named_models.append((name, model) if equals and not text.startswith(LOCAL) else text)
    shared: list[str] = []  # the settings of all rows, without those of a single row
    by_row: dict[str, list[str]] = {}  # the settings of a single row, by the name of the row
    for text in settings or []:
        target, equals, value = text.partition("=")
        row_name, colon, setting = target.rpartition(":")
        chosen = by_row.setdefault(row_name, []) if colon else shared
        chosen.append(f"{setting}{equals}{value}")
    own_options: Any = {  # the options that only this command has
        "held_out": None if held_out is None else path_or_string(held_out),
        "held_out_split": held_out_split,
        "prompt": prompt,
        "seeds": seeds,
        "out": out,
        "resume": resume,
        "settings": parse_settings(shared),
        "row_settings": {name: parse_settings(given) for name, given in by_row.items()},
    }
    run = ComparisonRun(named_models, parse_data(data, options["weights"]), options | own_options)
    raise_on_interrupt()
    comparison = run.start(notes)
    note(comparison.describe_held_out())
    with keep_on_interrupt("the table has the finished models.") as finished:
        for measured in run.rows(comparison.held_out, notes):
            comparison.add(measured)
            row = measured.row
            bits = row.bits_per_character
            if row.failed:
                note(f"{row.name} failed: {row.failed}")
            else:
                shown = "no bits" if bits is None else f"{bits:.3f} bits"
                note(f"{row.name}: {shown} per character")
    comparison.is_interrupted = bool(finished.status)
    tables = Group(*draw_tables(comparison, TerminalConsole().width))
    show(comparison.to_dict(), as_json, [tables])
    if html is not None:  # after the table was printed, so that a full disk does not lose it
        comparison.save_html(html, overwrite=overwrite)
        note(f"Page: {html}")
    sys.exit(finished.status or int(comparison.has_failed))


@takes()
def neighbours(model: str, word: str, *, k: int = 10) -> Result:
    """Show the words whose embeddings are nearest to that of a word, with their cosine
    similarities.

    Args:
        word: The word; with a tokenizer of characters, a character.
        k: The number of words.
    """
    nearest = api.load(model).neighbours(word, k=k)
    lines = [f"{neighbour.cosine:6.3f}  {neighbour.word}" for neighbour in nearest]
    return Result({"word": word, "neighbours": nearest}, lines)


@takes()
def contrast(model: str, condition: str, *, k: int = 10, seed: int = 0) -> Result:
    """Show the words that each value of a condition prefers, with the log2 ratio of their
    probabilities.

    Args:
        condition: The name of a condition with categories or numbers, such as sentiment.
        k: The number of words of each value.
        seed: The seed of the texts that the model generates for the comparison.
    """
    with show_status("Writing and reading texts ..."):
        preferred = api.load(model).contrast(condition, k=k, seed=seed)
    columns = [
        [f"{entry.word} {entry.log_ratio:+.1f}" for entry in words] for words in preferred.values()
    ]
    answer: Any = (
        f"No effect: no value of {condition} makes a word more probable, beyond the 95 % interval"
        " over the texts."
    )
    if any(columns):
        rows = zip_longest(*columns, fillvalue="")
        answer = make_table(*preferred, rows=rows, left=preferred)
    return Result({"condition": condition, "values": preferred}, [answer])


@takes(EvaluationOptions)
def classify(
    model: str, *, condition: str, text: str | None = None, data: str | None = None, **options: Any
) -> Result:
    """Find the value of a condition that fits a text best, by Bayes' rule; or measure on a corpus
    how often that is correct.

    Args:
        condition: The name of a condition with categories or numbers, such as sentiment.
        text: The text; - reads standard input.
        data: Texts, as for `evaluate`, with a column of the condition's name.
    """
    if (text is None) == (data is None):
        raise ConfigError("Give a text with --text, or a corpus with --data.")
    if data is not None:
        with show_status("Classifying ..."):
            accuracy = api.load(model).accuracy(parse_data(data), condition, **options)
        return Result(accuracy, [accuracy.describe()])
    texts = [read_stdin() if text == "-" else str(text)]
    (result,) = api.load(model).classify(texts, condition)
    ranked = sorted(result.probabilities.items(), key=lambda pair: -pair[1])
    lines = [f"{probability:7.1%}  {value}" for value, probability in ranked]
    return Result({"condition": condition, **vars(result)}, lines)
