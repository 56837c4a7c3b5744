"""``reviewgen sweep | ablate | tune | tune-sampling``: several trainings, or several ways to
generate, compared in a table.
"""

import math
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reviewgen import api
from reviewgen.cli.console import (
    FinishedResults,
    Result,
    keep_on_interrupt,
    make_table,
    note,
    refuse_outputs,
    show,
    show_status,
)
from reviewgen.cli.options import parse_data, start, takes
from reviewgen.config.options import (
    EvaluationOptions,
    ExperimentOptions,
    TrainingTextOptions,
    TrialOptions,
)
from reviewgen.config.settings import check_value, parse_settings
from reviewgen.errors import ConfigError, quoted
from reviewgen.rates import describe_copies
from reviewgen.storage import check_output, to_path

if TYPE_CHECKING:
    from rich.table import Table

    from reviewgen.evaluation.metrics import TextStatistics
    from reviewgen.model.review_model import ReviewModel
    from reviewgen.runs.ablate import AblationRow
    from reviewgen.runs.sweep import SweepRow
    from reviewgen.runs.trials import TrainedTrial
    from reviewgen.runs.tune import TuneTrial
    from reviewgen.runs.tune_sampling import SamplingTrial

# the options of ``train`` whose names differ from those of their fields
_FLAGS = {"clean": "--no-clean", "conditions": "--condition", "fields": "--field"}
# what the rows of ``ablate`` that do not leave out a single technique are trained without
_LEFT_OUT = {"whole": "nothing", "plain": "all of them (plain)"}
# what the best settings of each profile have in common
_GOALS = {
    "likeness": "Nearest to texts by people",
    "reading": "Fewest bits per character of texts that do not repeat themselves",
}


def _run_trials(
    begin: Callable[[], Iterable[Any]],
    describe: Callable[[Any], str],
    hint: str,
    total: int | None = None,
) -> FinishedResults:
    """Run the trials of a command, and return the finished ones. Show the progress, and note each
    finished trial. An interrupt ends the command only if no trial is finished.

    Args:
        begin: Returns the trials.
        describe: Returns the line on a trial.
        hint: What becomes of the finished trials after an interrupt.
        total: The number of trials, if it is known.
    """
    of_total = "" if total is None else f" of {total}"
    with (
        keep_on_interrupt(hint) as finished,
        show_status(f"Reading, then trial 1{of_total} ...") as say,
    ):
        for trial in begin():
            finished.append(trial)
            note(describe(trial))
            say(f"{len(finished)}{of_total} trials are finished ...")
    if not finished:
        sys.exit(finished.status or 1)
    return finished


def _describe_trial(trial: "TrainedTrial") -> str:
    """Return the line that is noted when a trial is trained: its result, and how long it took."""
    if trial.outcome == "unused":
        return f"{trial.name}: not used here"
    results = [] if trial.bits is None else [f"{trial.bits:.4f} bits per character"]
    if trial.outcome != "done":
        results.append(trial.outcome)
    problem = f" ({trial.problem})" if trial.problem else ""
    return f"{trial.name}: {', '.join(results) or 'no bits'}{problem}, {trial.seconds:.1f} s."


def _table(
    trials: Sequence[Any], columns: Mapping[str, Callable[[Any], Any]], left: Sequence[str] = ()
) -> "Table":
    """Return a table with a row for each trial.

    Args:
        trials: The trials.
        columns: The function that returns the cell of a trial, by the header of the column.
        left: The headers of the columns that hold texts.
    """
    rows = [[cell(trial) for cell in columns.values()] for trial in trials]
    return make_table(*columns, rows=rows, left=left, is_boxed=False)


def _result(facts: dict[str, Any], finished: FinishedResults, lines: Iterable[Any]) -> Result:
    """Return the result of a command. Its status is 1 if a trial has failed."""
    has_failed = any(trial.outcome == "failed" for trial in finished)
    return Result(facts | {"trials": finished}, lines, finished.status or int(has_failed))


def _bits_columns(trials: Sequence["TrainedTrial"], header: str) -> dict[str, Callable[[Any], Any]]:
    """Return the columns of the bits per character and, with several seeds, of their spread."""
    columns: dict[str, Callable[[Any], Any]] = {
        header: lambda trial: _bits_cell(trial.bits, trial.impossible)
    }
    if any(trial.spread is not None for trial in trials):
        columns["spread"] = lambda trial: _cell(trial.spread, ".4f")
    return columns


def _bits_cell(bits: float | None, impossible: float | None) -> str:
    """Return the cell for bits per character. If they are infinite, return the share ``impossible``
    of tokens with probability zero instead.
    """
    return f"{impossible:.1%} impossible" if bits == math.inf else _cell(bits, ".4f")


def _cell(value: Any, form: str) -> str:
    """Return the cell for a number, in the format ``form``; "-" if there is none."""
    return "-" if value is None else format(value, form)


def _unequal_notes(trials: Sequence["TrainedTrial"]) -> list[str]:
    """Return the sentence that warns of rows that are not comparable, as a list; an empty list if
    all rows are comparable.
    """
    from reviewgen.runs.trials import describe_unequal

    sentence = describe_unequal({trial.name: trial.processor_share for trial in trials})
    return [] if sentence is None else [sentence]


@takes(TrainingTextOptions, ExperimentOptions)
def sweep(
    preset: str,
    *,
    data: list[str],
    settings: list[str],
    plot: Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Result:
    """Train a preset with each of several values of one setting, and compare them in a table.

    Args:
        preset: <model>-<tokenizer>, as in ngram-char.
        settings: The setting to sweep with its values: model.order=2,4,6. A second setting with
            several values gives one series per value, model.smoothing=kneser-ney,none; other
            settings have one value each.
        plot: Plot the table to this file: .png, .svg or .pdf.
    """
    from reviewgen.runs.sweep import plot_sweep, sweep

    swept, varied, fixed = _split_settings(preset, settings)
    values = varied.pop(swept)
    refuse_outputs(plot=plot, overwrite=overwrite)
    if str(options["out"]).endswith((".svg", ".png", ".pdf")):
        raise ConfigError(
            f"--out is a folder for the finished trainings: draw the chart with --plot"
            f" {options['out']}."
        )
    source = parse_data(data, options["weights"])
    finished = _run_trials(
        partial(sweep, preset, source, swept, values, fixed, series=varied, **options),
        _describe_trial,
        "the table has the finished values.",
        len(values) * math.prod(map(len, varied.values())),
    )
    if plot is not None:
        plot_sweep(finished, swept, preset, plot, overwrite=overwrite)
        note(f"Plotted to {plot}")
    columns: dict[str, Callable[[SweepRow], Any]] = {
        **{name.partition(".")[2]: partial(_setting_cell, name) for name in (*varied, swept)},
        "train\nbits/char": lambda row: _bits_cell(row.train_bits, row.train_impossible),
        **_bits_columns(finished, "held-out\nbits/char"),
        "MB": lambda row: f"{row.megabytes:.2f}",
        "s": lambda row: f"{row.seconds:.1f}",
        "copy rate": lambda row: describe_copies(row.novelty) or "-",
    }
    if any(row.ngrams for row in finished):
        columns["n-grams, of\nV^n possible"] = _ngrams_cell
    table = _table(finished, columns)
    for column in table.columns:
        column.no_wrap = False  # in a narrow terminal, a row may take several lines
    facts = {"command": "sweep", "preset": preset, "setting": swept}
    return _result(facts, finished, [table, *_unequal_notes(finished)])


def _setting_cell(setting: str, trial: "TrainedTrial") -> Any:
    """Return the value of a setting of a trial."""
    return trial.settings[setting]


def _ngrams_cell(row: "SweepRow") -> str:
    """Return how many n-grams of the maximum length n the model has, of V ** n possible ones, where
    V is the number of its 1-grams. ``row.ngrams`` has the number of n-grams of each length.
    """
    if not row.ngrams:
        return "-"
    possible = f"{Decimal(row.ngrams[0]) ** len(row.ngrams):.1e}".replace("e+", "e")
    return f"{row.ngrams[-1]:,} of {possible}"


@takes(TrainingTextOptions, ExperimentOptions)
def ablate(
    preset: str,
    *,
    data: list[str],
    settings: list[str] | None = None,
    **options: Any,
) -> Result:
    """Run an ablation study: train the full preset, the preset without each technique, and the
    plain preset.

    Each training has the given length. All are scored on the same held-out texts.

    Args:
        preset: <model>-<tokenizer>, as in lstm-char.
        settings: A setting of all trainings: model.hidden_size=256.
    """
    from reviewgen.protocols.abilities import describe_parameters
    from reviewgen.runs.ablate import ablate

    source = parse_data(data, options["weights"])
    finished = _run_trials(
        partial(ablate, preset, source, settings=parse_settings(settings or []), **options),
        _describe_trial,
        "the table has the finished rows.",
    )
    trained = [row for row in finished if row.outcome != "unused"]
    columns: dict[str, Callable[[AblationRow], Any]] = {
        # the first column says what the preset is trained without in the row
        "without": lambda row: _LEFT_OUT.get(row.name, row.name),
        **_bits_columns(trained, "bits/char"),
        "gain": lambda row: "" if row.gain is None else f"{row.gain:+.4f}",
        "95 %": lambda row: (
            "" if row.gain_interval is None else "{:+.3f} to {:+.3f}".format(*row.gain_interval)
        ),
        "char/s": lambda row: _cell(row.characters_per_second, ",.0f"),
        "parameters": lambda row: f"{sum(row.parameters.values()):,}",
    }
    lines: list[Any] = [
        _table(trained, columns, left=["without"]),
        *(_unequal_notes(trained) or _describe_gains(trained)),
        f"Parameters of the whole preset: {describe_parameters(finished[0].parameters)}",
        *(f"{row.name}: {row.description}" for row in trained if row.description),
    ]
    if unused := [row.name for row in finished if row.outcome == "unused"]:
        lines.append(f"Not used in this training: {', '.join(unused)}")
    return _result({"command": "ablate", "preset": preset}, finished, lines)


def _describe_gains(rows: Sequence["AblationRow"]) -> list[str]:
    """Return lines that say with and without which techniques the preset is better; or a line that
    says that this is not known.
    """
    lines = []
    for title, is_better in (("Better with", False), ("Better without", True)):
        names = [row.name for row in rows if row.name != "plain" and row.is_better is is_better]
        if names:
            lines.append(f"{title}: {', '.join(names)}")
    if not lines and all(row.seeds == 1 for row in rows):
        return ["One training per row does not show which techniques help: use --seeds 3."]
    return lines or ["No technique makes a difference beyond the 95 % interval."]


def _split_settings(
    preset: str, settings: list[str]
) -> tuple[str, dict[str, list[str]], dict[str, dict[str, str]]]:
    """Split settings into those with several values and those with one value. A setting that is the
    only one counts as one with several values.

    Returns:
        The name of the first setting with several values, which is swept; the values of each
        setting with several values, by name; and the other settings, by group.

    Raises:
        ConfigError: Several settings are given, and none has several values; or a value is empty.
    """
    from reviewgen.runs.setup import resolve_setup

    fixed = parse_settings(settings)
    setup = resolve_setup(preset)
    names = dict.fromkeys(setting.partition("=")[0].strip() for setting in settings)
    varied: dict[str, list[str]] = {}
    for setting in names:
        group, _, name = setting.partition(".")
        value = fixed[group][name]
        if len(names) == 1 or ("," in value and not setup.takes_list(group, name)):
            varied[setting] = [each.strip() for each in fixed[group].pop(name).split(",")]
            if not all(varied[setting]):
                raise ConfigError(
                    f"A value of {setting} is empty. Separate the values by single commas."
                )
    if not varied:
        raise ConfigError(
            "Give a setting with several values, as in --set model.order=2,4,6; the others with one"
            " value each."
        )
    return next(iter(varied)), varied, fixed


@takes(TrainingTextOptions, TrialOptions)
def tune(
    preset: str | None = None,
    *,
    data: list[str],
    trained: str | None = None,
    trials: int = 20,
    search: list[str] | None = None,
    settings: list[str] | None = None,
    storage: Path | None = None,
    as_json: bool = False,
    **options: Any,
) -> Result:
    """Search for the settings with the lowest bits per character, and print the command that trains
    with them.

    Args:
        trials: The number of trials.
        search: A setting to search instead of learning rate, size and dropout:
            training.learning_rate=1e-3:2e-2, model.hidden_size=128,256.
        settings: A setting of every trial: model.layers=2.
        storage: A file for the trials; with it, the same command resumes an interrupted search.
    """
    from reviewgen.runs.tune import DEFAULT_BUDGET, best_trial, tune

    ranges: dict[str, str] = {}
    for group, names in parse_settings(search or []).items():
        ranges |= {f"{group}.{name}": values for name, values in names.items()}
    source = parse_data(data, options["weights"])
    fixed = parse_settings(settings or [])
    finished = _run_trials(
        partial(
            tune,
            start(preset, trained),
            source,
            trials=trials,
            search=ranges,
            settings=fixed,
            storage=storage,
            **options,
        ),
        _describe_trial,
        "the finished trials are kept.",
        trials,
    )
    columns: dict[str, Callable[[TuneTrial], Any]] = {
        "trial": attrgetter("number"),
        **{name.partition(".")[2]: partial(_setting_cell, name) for name in finished[0].settings},
        **_bits_columns(finished, "bits/char"),
        "steps": lambda trial: f"{trial.steps:,}",
        "seconds": lambda trial: f"{trial.seconds:.1f}",
        "outcome": attrgetter("outcome"),
    }
    if not as_json:
        # shown already here, since the search for the best trial fails if no trial has a result
        lines: list[Any] = [_table(finished, columns, left=["outcome"]), *_unequal_notes(finished)]
        show(None, False, lines)
    best = best_trial(finished)
    if not any(options[name] for name in ("budget", "steps", "epochs")):
        options["budget"] = DEFAULT_BUDGET
    best_settings = [f"{name}={value}" for name, value in best.settings.items()]
    command = _train_command(
        preset, {"--from": trained, "--data": data}, options, [*(settings or []), *best_settings]
    )
    line = (
        f"Lowest: trial {best.number}, {best.bits:.4f} bits per character of the validation texts."
        " Train with its settings:"
    )
    facts = {"command": "tune", "preset": preset, "trials": finished, "best": best}
    return Result(facts | {"train": command}, [line, command], finished.status)


def _train_command(
    preset: str | None, flags: dict[str, Any], options: Mapping[str, Any], settings: list[str]
) -> str:
    """Return the command that trains a model.

    Args:
        preset: The preset; None if a trained model is trained further.
        flags: Other options of the command, with their values; updated.
        options: The options of the trials. Those that differ from the defaults are added.
        settings: The settings for ``--set``.
    """
    defaults = vars(TrainingTextOptions()) | vars(TrialOptions())
    for name, value in options.items():
        if value != defaults[name]:
            flags[_FLAGS.get(name, f"--{name.replace('_', '-')}")] = value
    if weights := flags.get("--weights"):
        flags["--weights"] = ",".join(f"{weight:g}" for weight in weights)
    arguments = ["reviewgen", "train"] + ([preset] if preset else [])
    for flag, value in (flags | {"--set": settings, "--out": "my-model"}).items():
        if isinstance(value, bool):
            arguments.append(flag)
        elif value:
            for each in value if isinstance(value, list | tuple) else [value]:
                arguments += [flag, str(each)]
    return shlex.join(arguments)


@takes(EvaluationOptions)
def tune_sampling(
    model: str,
    *,
    data: str,
    search: list[str] | None = None,
    texts: int = 100,
    judge: str | None = None,
    goal: Literal["reading", "likeness"] = "likeness",
    out: Path | None = None,
    seed: int = 0,
    **options: Any,
) -> Result:
    """Compare the texts of several generation settings with texts by people, and print the settings
    that come nearest.

    Args:
        data: Texts by people that the model was not trained on, at least 40: a file or glob.
        search: A setting and its values: temperature=0.8,0.9 or top_p=0.9,1. [default: temperatures
            from 0.7 to 1.1 with top_p 1 and 0.95]
        texts: The number of texts generated for each combination, at least 20.
        judge: A model that scores all texts. [default: an n-gram trained on half of the data]
        goal: The profile to optimise: likeness (closest to human texts in all figures) or reading
            (lowest bits per character under the judge, without repetition).
        out: Save the best settings as the profile that --for names: in the model's own folder, or
            in a copy of it in a new folder.
        seed: The random seed of the texts.
    """
    from reviewgen.runs.tune_sampling import tune_sampling

    values = _parse_search(search or [])
    check_value("--for", goal, Literal["reading", "likeness"])
    loaded = api.load(model)
    if out is not None and not loaded.is_saved_in(out):
        check_output(to_path("out", out))
    # the attribute of trials that is lowest in the best trial, and what notes call it
    criterion = "distance" if goal == "likeness" else "reading"
    shown_name = "distance" if goal == "likeness" else "bits per character"
    finished = _run_trials(
        partial(
            tune_sampling,
            loaded,
            parse_data(data),
            search=values,
            texts=texts,
            judge=None if judge is None else api.load(judge),
            profile=goal,
            seed=seed,
            **options,
        ),
        lambda trial: f"{trial.name}: {shown_name} {getattr(trial, criterion):.2f}",
        "nothing was saved.",
    )
    best = min(finished, key=attrgetter(criterion))
    if goal == "reading" and math.isinf(best.reading):
        raise ConfigError(
            "With each setting, more than 2 % of the texts repeat a sentence, or are too similar:"
            " raise the temperatures of --search, or --texts. Nothing was saved."
        )
    if out is not None and not finished.status:
        _save_profile(loaded, goal, best.settings, out)
        then = f"Saved as the profile {goal} of {out}."
        command = f"reviewgen generate {out} --profile {goal}"
    else:
        then = "Generate with them:"
        profile = f" --profile {goal}" if loaded.generation_config.likeness else ""
        flags = [f"--{name.replace('_', '-')} {value}" for name, value in best.settings.items()]
        command = f"reviewgen generate {model}{profile} {' '.join(flags)}"
    line = f"{_GOALS[goal]}: {best.name}. {then}"
    facts = {"command": "tune-sampling", "model": model, "trials": finished, "best": best}
    return Result(facts, [_sampling_table(finished, best.human), line, command], finished.status)


def _save_profile(
    model: "ReviewModel", goal: Literal["reading", "likeness"], settings: dict[str, Any], out: Path
) -> None:
    """Save settings as those of the profile ``goal``. The other profile does not change."""
    saved = model.generation_config
    if goal == "likeness":
        model.save_generation_config(out, likeness={**saved.likeness, **settings})
        return
    # Where the profile likeness has no value of its own, the value of reading applies to it, too.
    # So the old values of reading are first copied to likeness, whose texts then stay the same.
    before = {name: getattr(saved, name) for name in settings} if saved.likeness else {}
    changes: Any = {**settings, "likeness": {**before, **saved.likeness}}
    model.save_generation_config(out, **changes)


def _sampling_table(trials: Sequence["SamplingTrial"], human: "TextStatistics") -> "Table":
    """Return a table with a row for the texts by people, and one for each trial."""
    columns = (
        "unknown",
        "distinct-1",
        "-2",
        "-3",
        "-4",
        "words/text",
        "repeated",
        "bits/char",
        "distance",
    )
    rows = [["texts by people", *_statistics_cells(human), "-"]]
    for trial in trials:
        distance = f"{trial.distance:.2f}"
        rows.append([trial.name, *_statistics_cells(trial.generated), distance])
    return make_table("", *columns, rows=rows, left=[""], is_boxed=False)


def _statistics_cells(figures: "TextStatistics") -> list[str]:
    """Return the cells on the statistics of some texts, by people or generated."""
    distinct = [f"{share:.3f}" for share in figures.distinct]
    texts = [
        f"{figures.words_per_text:.0f}",
        f"{figures.repetition:.2%}",
        _cell(figures.bits_per_character, ".3f"),
    ]
    return [_cell(figures.unknown_words, ".2%"), *distinct, *texts]


def _parse_search(search: list[str]) -> dict[str, list[Any]]:
    """Parse the values to search, of the form name=value,value; return them by setting.

    Raises:
        ConfigError: A setting does not have this form, or is given twice.
    """
    values: dict[str, list[Any]] = {}
    for text in search:
        name, _, listed = text.partition("=")
        if name in values:
            raise ConfigError(
                f"{name} is given twice; give all of its values at once, as in {name}=0.8,0.9."
            )
        try:
            # ``words`` is the only setting with values that are not numbers
            values[name] = [
                value if name == "words" else _number(value) for value in listed.split(",")
            ]
        except ValueError:
            raise ConfigError(
                f"Give a setting with its values, as in temperature=0.8,0.9; got {quoted(text)}."
            ) from None
    return values


def _number(text: str) -> int | float:
    """Return the number that a text spells: an int if it has digits only, else a float."""
    return int(text) if text.strip().isdigit() else float(text)
