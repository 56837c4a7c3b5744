"""``reviewgen tune``: a search for good settings of a preset, and the command that trains with the best of them."""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import note, notes, print_json

if TYPE_CHECKING:
    from reviewgen.search import TuneTrial

__all__ = ["tune"]


def tune(
    data: options.Source,
    preset: options.Preset = None,
    trained: options.Trained = None,
    trials: Annotated[int, typer.Option(help="How many settings to try.")] = 20,
    budget: Annotated[str | None, typer.Option(help="Time for each trial: 90s, 2m, 1h.  [default: 30s]")] = None,
    steps: Annotated[int | None, typer.Option(help="Train so many steps each, instead of a budget.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Train so many passes each, instead of a budget.")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="What to search instead of learning rate, size and dropout: training.learning_rate=1e-3:2e-2, "
            "model.hidden_size=128,256. Repeatable."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of every trial: model.layers=2. Repeatable.")
    ] = None,
    storage: Annotated[
        Path | None, typer.Option(help="A file that keeps the trials; with it, an interrupted search goes on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the suggestions and of each training.")] = 0,
    text_column: options.TextColumn = None,
    condition: options.Condition = None,
    documents: options.Documents = "line",
    lowercase: options.Lowercase = False,
    strip_markdown: options.StripMarkdown = False,
    no_clean: options.NoClean = False,
    as_json: options.AsJson = False,
) -> None:
    """Search for the settings that learn most in the time given, and print the command that trains with them."""
    from reviewgen.config import parse_settings

    fixed, ranges = parse_settings(settings or []), parse_settings(search or [])
    from reviewgen.api import best_trial  # torch: a second or two
    from reviewgen.api import tune as search_for
    from reviewgen.search.tune import DEFAULT_BUDGET

    found = search_for(
        options.start(preset, trained),
        options.typed_source(data),
        trials=trials,
        search={f"{group}.{name}": value for group, names in ranges.items() for name, value in names.items()},
        settings=fixed,
        storage=storage,
        seed=seed,
        budget=budget,
        steps=steps,
        epochs=epochs,
        text_column=text_column,
        documents=documents,
        lowercase=lowercase,
        strip_markdown=strip_markdown,
        clean=not no_clean,
        conditions=condition or (),
    )
    tried, is_interrupted = _watch(found, trials)
    if is_interrupted and not tried:
        sys.exit(1)
    _print_table([] if as_json else tried)
    best = best_trial(tried)
    said = {
        "--from": trained,
        "--data": data,
        "--budget": budget or (None if steps or epochs else DEFAULT_BUDGET),
        "--steps": steps,
        "--epochs": epochs,
        "--seed": seed,
        "--text-column": text_column,
        "--condition": condition,
        "--documents": None if documents == "line" else documents,
        "--lowercase": lowercase,
        "--strip-markdown": strip_markdown,
        "--no-clean": no_clean,
    }
    command = _command(preset, said, [*(settings or []), *(f"{name}={value}" for name, value in best.settings.items())])
    if as_json:
        print_json({"trials": [asdict(trial) for trial in tried], "best": asdict(best), "command": command})
    else:
        typer.echo(f"Best: trial {best.number}, {best.bits:.4f} bits per character of the validation texts. Train with it:")
        typer.echo(command)
    sys.exit(1 if is_interrupted else 0)


def _watch(found: Iterator["TuneTrial"], trials: int) -> tuple[list["TuneTrial"], bool]:
    """Show the trials as they go; return those that were done, and whether an interrupt ended them."""
    tried: list[TuneTrial] = []
    try:
        with notes.status("Reading ...") as status:
            for trial in found:
                tried.append(trial)  # an interrupt keeps what is done
                note(f"{trial.number + 1} of {trials}: {_spell(trial.settings)}: {_outcome(trial)}, {trial.seconds:.1f} s.")
                status.update(f"Training, trial {len(tried) + 1} of {trials} ...")
    except KeyboardInterrupt:
        note("Interrupted; what was done is kept." if tried else "Interrupted before the first trial was done.")
        return tried, True
    return tried, False


def _spell(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name.partition('.')[2]} {value}" for name, value in settings.items())


def _outcome(trial: "TuneTrial") -> str:
    bits = "" if trial.bits is None else f"{trial.bits:.4f} bits per character"
    how = {"done": "", "pruned": "cut short", "failed": "failed"}[trial.outcome]
    return f"{bits}{', ' if bits and how else ''}{how}" + (f" ({trial.problem})" if trial.problem else "")


def _print_table(tried: list["TuneTrial"]) -> None:
    if not tried:
        return
    names = [name.partition(".")[2] for name in tried[0].settings]
    typer.echo("  ".join(["trial", *names, "bits/char", "   steps", "seconds", "outcome"]))
    for trial in tried:
        values = [f"{value!s:>{len(name)}}" for name, value in zip(names, trial.settings.values(), strict=True)]
        bits = f"{'-':>9}" if trial.bits is None else f"{trial.bits:9.4f}"
        numbers = [bits, f"{trial.steps:8,}", f"{trial.seconds:7.1f}", trial.outcome]
        typer.echo("  ".join([f"{trial.number:5}", *values, *numbers]))


def _command(preset: str | None, said: dict[str, Any], settings: list[str]) -> str:
    """Return the command that trains with settings, and with what was said of the trials."""
    words = ["reviewgen", "train"] + ([preset] if preset else [])
    for option, value in (said | {"--set": settings, "--out": "my-model"}).items():
        if value is True:
            words.append(option)
        elif value:
            words += [word for each in (value if isinstance(value, list) else [value]) for word in (option, str(each))]
    return shlex.join(words)
