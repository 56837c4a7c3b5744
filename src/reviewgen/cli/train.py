"""``reviewgen train``: trains a preset, or a trained model further, on a corpus, and shows the progress."""

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, note, notes, print_json
from reviewgen.errors import AlreadyTrained
from reviewgen.interrupts import INTERRUPTED, begin

if TYPE_CHECKING:
    from reviewgen.data import Corpus
    from reviewgen.model import ReviewModel
    from reviewgen.runs import TrainingRun
    from reviewgen.training import Report

_SAMPLE_CHARACTERS = 160  # of the generated text that is shown at an evaluation


def train(
    data: options.Source,
    out: Annotated[Path, typer.Option("--out", help="The folder to save the model in; it must not exist.")],
    preset: options.Preset = None,
    trained: options.Trained = None,
    validation: Annotated[
        str | None, typer.Option(help="Another source of validation texts, instead of a part of --data.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Training time after the first step: 90s, 2m, 1h.  [default: 2m]")] = None,
    steps: Annotated[int | None, typer.Option(help="Train for this many steps instead of a budget.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Train for this many passes over the corpus instead of a budget.")] = None,
    seed: Annotated[int, typer.Option(help="The random seed of the initial weights, the order of the texts and dropout.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting that differs from the preset's: model.hidden_size=256. Repeatable. "
            "`reviewgen settings PRESET` lists all settings.",
        ),
    ] = None,
    initial_weights: Annotated[
        Path | None,
        typer.Option(
            "--initial-weights", help="A safetensors file that a new model starts from: its embedding table, its layers or both."
        ),
    ] = None,
    text_column: options.TextColumn = None,
    sql: options.Sql = None,
    subset: options.Subset = None,
    split: options.Split = None,
    validation_split: options.ValidationSplit = None,
    near_duplicates: options.NearDuplicates = None,
    decontaminate: options.Decontaminate = None,
    condition: options.Condition = None,
    documents: options.Documents = "line",
    max_text_characters: options.MaxTextCharacters = 10_000_000,
    lowercase: options.Lowercase = False,
    strip_markdown: options.StripMarkdown = False,
    fix_encoding: options.FixEncoding = False,
    no_clean: options.NoClean = False,
    log: Annotated[
        str | None,
        typer.Option(
            help="Also log to tensorboard, wandb, trackio, mlflow, aim, clearml, comet_ml, dvclive or swanlab, if installed."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the same command after it was interrupted or killed.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Train a model on a corpus of reviews and save it as a folder."""
    from reviewgen.config import parse_settings

    groups = parse_settings(settings or [])
    from reviewgen.processes import process_state
    from reviewgen.runs import TrainingRun  # torch: a second or two
    from reviewgen.training import StopReason

    def make_run() -> TrainingRun:
        return TrainingRun(
            options.start(preset, trained),
            options.typed_data(data),
            validation=None if validation is None else options.typed_data(validation),
            out=out,
            budget=budget,
            steps=steps,
            epochs=epochs,
            seed=seed,
            **groups,
            initial_weights=initial_weights,
            text_column=text_column,
            sql=sql,
            subset=subset,
            split=split,
            validation_split=validation_split,
            near_duplicates=near_duplicates,
            decontaminate=decontaminate,
            documents=documents,
            max_text_characters=max_text_characters,
            lowercase=lowercase,
            strip_markdown=strip_markdown,
            fix_encoding=fix_encoding,
            clean=not no_clean,
            conditions=condition or (),
            log=log,
            resume=resume,
        )

    notes.quiet = os.environ.get("RANK", "0") != "0"  # under a launcher, the other processes print nothing
    run = _make(make_run, out)
    begin()
    try:
        _prepare(run)
    except AlreadyTrained as finished:
        _report_finished(finished, out, as_json=as_json)
        return
    model = _train(run)
    is_first = process_state().is_main_process
    if as_json and is_first:
        print_json(model.training | (run.held_out or {}) | {"out": str(out)})
    elif is_first:
        _print_result(run, model.training, out)
    has_lost = model.training["stopped"] == StopReason.PROCESS_ENDED.value
    sys.exit(INTERRUPTED if run.is_interrupted else int(has_lost))


def _report_finished(finished: AlreadyTrained, out: Path, *, as_json: bool) -> None:
    """Say that a job that was restarted has nothing left to do."""
    from reviewgen.processes import process_state

    note(str(finished))
    if as_json and process_state().is_main_process:
        from reviewgen.config import MAX_RECORD, read_json
        from reviewgen.model.layout import TRAINING

        training = read_json(out / TRAINING, MAX_RECORD)
        print_json(training | (training["held_out"] or {}) | {"out": str(out)})


def _make(make_run: Callable[[], "TrainingRun"], out: Path) -> "TrainingRun":
    """Make the run, or raise in all processes of a launcher if one cannot make its own."""
    from reviewgen.processes import all_processes

    runs: list[TrainingRun] = []
    with all_processes() as processes:
        processes.gather(lambda: runs.append(make_run()), out)
    return runs[0]


def _prepare(run: "TrainingRun") -> None:
    """Read and tokenize the corpus, and show facts about it."""
    try:
        with notes.status("Reading ..."):
            corpus = run.read()
        _show_corpus(corpus)
        for line in run.conditions.describe():
            note(f"Condition {line}")
        with notes.status("Training the tokenizer and encoding the texts ..."):
            run.tokenize()
    except KeyboardInterrupt:
        note("Interrupted before training began; nothing was saved.")
        sys.exit(INTERRUPTED)
    note(f"Tokens: {run.stores['train'].tokens:,} to train on, {run.tokenizer.vocab_size:,} kinds.")
    for line in (*run.notes, *filter(None, [run.log.describe()])):
        note(line)


def _show_corpus(corpus: "Corpus") -> None:
    from reviewgen.data import describe

    for line in describe(corpus.source, corpus.report):
        note(line)
    if corpus.validation is not None:
        note("Validation:")
        for line in describe(*corpus.validation):
            note(line)
    counts = ", ".join(f"{split} {corpus.count(split):,}" for split in ("train", "validation", "test"))
    note(f"Split: {counts}. Held out: {corpus.describe_held_out()}.")
    for line in corpus.notes:
        if line not in corpus.source.notes:  # shown by describe
            note(line)


def _train(run: "TrainingRun") -> "ReviewModel":
    """Train, save and measure the model; Ctrl-C and SIGTERM cut training and measuring short, and cannot stop the saving."""
    from reviewgen.interrupts import uninterrupted

    shown = 0
    try:
        _watch(run)
        shown = len(run.notes)
        with notes.status("Saving the model, then measuring it ..."):
            model = run.finish()
    except KeyboardInterrupt:
        with uninterrupted():
            note("Interrupted; saving the best weights so far.")
            run.interrupt()
            shown = len(run.notes)
            model = run.finish()
    for line in run.notes[shown:]:
        note(line)
    return model


def _watch(run: "TrainingRun") -> None:
    """Show the progress of training."""
    from reviewgen.runs.progress import training_bar

    with training_bar(notes) as show:
        for report in run:
            show(report)
            if report.sample is not None:
                _show_evaluation(report)
            for text in report.notes:
                note(f"  {text}")


def _show_evaluation(report: "Report") -> None:
    score = (
        "not scored" if report.evaluation is None else f"{report.evaluation.bits_per_character:.4f} bits per character held out"
    )
    copied = "" if report.token_copy_rate is None else f", token copy rate {report.token_copy_rate:.1%}"
    note(f"{report.seconds:6.1f} s  {_name(report)}step {report.step:,}: {score}{copied}" + (" (best)" if report.is_best else ""))
    if report.sample:
        for line in _wrap_sample(report.sample, notes.width):
            note(line, "dim")


def _wrap_sample(sample: str, width: int) -> list[str]:
    """Return the beginning of a generated text in lines of a terminal, which end at words, as the text does."""
    from reviewgen.data import shorten

    return textwrap.wrap(shorten(sample, _SAMPLE_CHARACTERS), width, initial_indent="  | ", subsequent_indent="  | ")


def _name(report: "Report") -> str:
    """Return which model of a blend a report is about."""
    return "" if report.part is None else f"{report.part}, "


def _print_result(run: "TrainingRun", facts: dict[str, Any], out: Path) -> None:
    if run.held_out is not None and run.evaluation is not None:
        held_out = run.held_out
        reviews, total = held_out["reviews"], held_out["reviews_in_split"]
        part = f"{reviews:,}" + (f" of {total:,}" if reviews < total else "")
        bits, noun = run.evaluation.bits_per_character, "review" if total == 1 else "reviews"
        echo(f"Held out ({held_out['split']} split, {part} {noun}): {bits:.4f} bits per character")
    if alone := [f"{part['preset']} {_bits(part['held_out'])}" for part in facts.get("parts", ()) if part.get("held_out")]:
        echo(f"Its models alone: {', '.join(alone)}")
    if (before := facts.get("parent", {}).get("bits_per_character")) is not None:
        _print_gain(before, facts["evaluations"])
    novelty = facts["novelty"]
    if novelty is not None and novelty["copy_rate"] is not None:
        held_out_rate, spans = novelty["held_out_copy_rate"], f"spans of {novelty['copy_characters']} characters or more"
        compared = "" if held_out_rate is None else f"; of held-out reviews {held_out_rate:.1%}"
        sample = f"{novelty['copy_rate_texts']:,} texts, {novelty['copy_rate_characters']:,} characters"
        echo(f"Copy rate: {novelty['copy_rate']:.1%} of its text ({sample}) stands in {spans} of the training text{compared}")
    if described := _describe_metrics(facts.get("metrics", {})):
        echo(f"Metrics of its texts: {described}")
    echo(_describe_time(facts["seconds"], facts["evaluation_seconds"]))
    echo(facts["verdict"]["words"])
    echo(f"Saved in {out}")


def _describe_metrics(metrics: dict[str, dict[str, Any]]) -> str:
    """Return the metrics of the generated texts, each beside that of held-out reviews."""
    return ", ".join(
        f"{name} {each['generated']:.4g}" + ("" if each["held_out"] is None else f" (held out {each['held_out']:.4g})")
        for name, each in metrics.items()
        if each["generated"] is not None
    )


def _describe_time(seconds: float, evaluating: float) -> str:
    share = evaluating / max(seconds, 1e-9)
    return f"Time: {seconds:.1f} s with reading and the final evaluation; {share:.1%} of it went into evaluations."


def _bits(held_out: dict[str, Any]) -> str:
    bits = held_out["bits_per_character"]
    return "infinite" if bits is None else f"{bits:.4f}"


def _print_gain(before: float, evaluations: list[dict[str, Any]]) -> None:
    """Print bits per character before and after training a model further."""
    after = [evaluation["bits_per_character"] for evaluation in evaluations if evaluation["is_best"]]
    if after:
        echo(f"Validation texts: {before:.4f} bits per character before this training, {after[-1]:.4f} after it")
        if after[-1] >= before:
            note("This training gained nothing on them: the model that it started from is better.")
