"""``reviewgen tune``: searches for good settings of a preset, and prints the command that trains with the best."""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, note, notes, print_json
from reviewgen.interrupts import INTERRUPTED, begin

if TYPE_CHECKING:
    from reviewgen.search import TuneTrial


def tune(
    data: options.Source,
    preset: options.Preset = None,
    trained: options.Trained = None,
    trials: Annotated[int, typer.Option(help="The number of trials.")] = 20,
    budget: Annotated[str | None, typer.Option(help="Time for each trial: 90s, 2m, 1h.  [default: 30s]")] = None,
    steps: Annotated[int | None, typer.Option(help="Train each for this many steps instead of a budget.")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Train each for this many passes over the corpus instead of a budget.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting to search instead of learning rate, size and dropout: training.learning_rate=1e-3:2e-2, "
            "model.hidden_size=128,256. Repeatable."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of every trial: model.layers=2. Repeatable.")
    ] = None,
    storage: Annotated[
        Path | None, typer.Option(help="A file for the trials; with it, the same command resumes an interrupted search.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The random seed of the search and of each training.")] = 0,
    text_column: options.TextColumn = None,
    sql: options.Sql = None,
    subset: options.Subset = None,
    split: options.Split = None,
    condition: options.Condition = None,
    documents: options.Documents = "line",
    max_text_characters: options.MaxTextCharacters = 10_000_000,
    lowercase: options.Lowercase = False,
    strip_markdown: options.StripMarkdown = False,
    fix_encoding: options.FixEncoding = False,
    no_clean: options.NoClean = False,
    as_json: options.AsJson = False,
) -> None:
    """Search for the settings with the lowest bits per character, and print the command that trains with them."""
    from reviewgen.config import parse_settings

    fixed, ranges = parse_settings(settings or []), parse_settings(search or [])
    from reviewgen.api import best_trial  # torch: a second or two
    from reviewgen.api import tune as run_trials
    from reviewgen.search.tune import DEFAULT_BUDGET

    tune_trials = run_trials(
        options.start(preset, trained),
        options.typed_data(data),
        trials=trials,
        search={f"{group}.{name}": value for group, names in ranges.items() for name, value in names.items()},
        settings=fixed,
        storage=storage,
        seed=seed,
        budget=budget,
        steps=steps,
        epochs=epochs,
        text_column=text_column,
        sql=sql,
        subset=subset,
        split=split,
        documents=documents,
        max_text_characters=max_text_characters,
        lowercase=lowercase,
        strip_markdown=strip_markdown,
        fix_encoding=fix_encoding,
        clean=not no_clean,
        conditions=condition or (),
    )
    begin()
    finished, is_interrupted = _watch(tune_trials, trials)
    if is_interrupted and not finished:
        sys.exit(INTERRUPTED)
    _print_table([] if as_json else finished)
    best = best_trial(finished)
    given = {
        "--from": trained,
        "--data": data,
        "--budget": budget or (None if steps or epochs else DEFAULT_BUDGET),
        "--steps": steps,
        "--epochs": epochs,
        "--seed": seed,
        "--text-column": text_column,
        "--sql": sql,
        "--subset": subset,
        "--split": split,
        "--condition": condition,
        "--documents": None if documents == "line" else documents,
        "--max-text-characters": None if max_text_characters == 10_000_000 else max_text_characters,
        "--lowercase": lowercase,
        "--strip-markdown": strip_markdown,
        "--fix-encoding": fix_encoding,
        "--no-clean": no_clean,
    }
    command = _train_command(preset, given, [*(settings or []), *(f"{name}={value}" for name, value in best.settings.items())])
    if as_json:
        print_json({"trials": [asdict(trial) for trial in finished], "best": asdict(best), "command": command})
    else:
        echo(f"Best: trial {best.number}, {best.bits:.4f} bits per character of the validation texts. Train with its settings:")
        echo(command)
    sys.exit(INTERRUPTED if is_interrupted else 0)


def _watch(tune_trials: Iterator["TuneTrial"], trials: int) -> tuple[list["TuneTrial"], bool]:
    """Show progress; return the finished trials, and whether an interrupt ended the search."""
    finished: list[TuneTrial] = []
    try:
        with notes.status("Reading ...") as status:
            for trial in tune_trials:
                finished.append(trial)  # so that an interrupt keeps the finished trials
                outcome = f"{_outcome(trial)}, {trial.seconds:.1f} s"
                note(f"Trial {trial.number}: {_format_settings(trial.settings)}: {outcome}.")
                if len(finished) < trials:
                    status.update(f"Training: {len(finished)} of {trials} trials are finished ...")
    except KeyboardInterrupt:
        note("Interrupted; the finished trials are kept." if finished else "Interrupted before the first trial was finished.")
        return finished, True
    return finished, False


def _format_settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name.partition('.')[2]} {value}" for name, value in settings.items())


def _outcome(trial: "TuneTrial") -> str:
    bits = "" if trial.bits is None else f"{trial.bits:.4f} bits per character"
    how = {"done": "", "pruned": "pruned", "failed": "failed"}[trial.outcome]
    return f"{bits}{', ' if bits and how else ''}{how}" + (f" ({trial.problem})" if trial.problem else "")


def _print_table(finished: list["TuneTrial"]) -> None:
    if not finished:
        return
    names = [name.partition(".")[2] for name in finished[0].settings]
    echo("  ".join(["trial", *names, "bits/char", "   steps", "seconds", "outcome"]))
    for trial in finished:
        values = [f"{value!s:>{len(name)}}" for name, value in zip(names, trial.settings.values(), strict=True)]
        bits = f"{'-':>9}" if trial.bits is None else f"{trial.bits:9.4f}"
        numbers = [bits, f"{trial.steps:8,}", f"{trial.seconds:7.1f}", trial.outcome]
        echo("  ".join([f"{trial.number:5}", *values, *numbers]))


def _train_command(preset: str | None, given: dict[str, Any], settings: list[str]) -> str:
    """Return the command that trains with settings, and with the options that were given for the trials."""
    arguments = ["reviewgen", "train"] + ([preset] if preset else [])
    for option, value in (given | {"--set": settings, "--out": "my-model"}).items():
        if value is True:
            arguments.append(option)
        elif value:
            for part in value if isinstance(value, list) else [value]:
                arguments += [option, str(part)]
    return shlex.join(arguments)
