"""``reviewgen sweep | ablate | tune | tune-sampling``: several trainings, or several ways to
generate, compared in a table.
"""

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reviewgen import api
from reviewgen.cli.console import (
    Result,
    keep_on_interrupt,
    make_table,
    note,
    refuse_outputs,
    show,
    show_status,
)
from reviewgen.cli.options import parse_data, start, takes
from reviewgen.config.options import EvaluationOptions, TrainingTextOptions, TrialOptions
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
    from reviewgen.runs.tune import TuneTrial
    from reviewgen.runs.tune_sampling import SamplingTrial

# The options of ``train`` whose names differ from those of their fields.
_FLAGS = {"clean": "--no-clean", "conditions": "--condition", "fields": "--field"}
_GOALS = {
    "likeness": "Nearest to texts by people",
    "reading": "Fewest bits per character of texts that do not repeat themselves",
}


@takes(TrainingTextOptions, TrialOptions)
def sweep(
    preset: str,
    *,
    data: list[str],
    settings: list[str],
    chart: Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Result:
    """Train a preset with each of several values of one setting, and compare them in a table.

    Args:
        preset: <model>-<tokenizer>, as in ngram-char.
        settings: The setting to sweep with its values: model.order=2,4,6. A second setting with
            several values gives one series per value, model.smoothing=kneser-ney,none; other
            settings have one value each.
        chart: Plot the table to this file: .png, .svg or .pdf.
    """
    from reviewgen.runs.sweep import plot_sweep, sweep

    swept, varied, fixed = _split_settings(preset, settings)
    values = varied.pop(swept)
    refuse_outputs(plot=chart, overwrite=overwrite)
    source = parse_data(data, options["weights"])
    rows = sweep(preset, source, swept, values, fixed, series=varied, **options)
    total = len(values) * math.prod(map(len, varied.values()))
    with (
        keep_on_interrupt("the table has the finished values.") as finished,
        show_status(f"Training 1 of {total} ...") as say,
    ):
        for row in rows:
            finished.append(row)
            note(f"{_describe({**row.series, swept: row.value}, '=')} done in {row.seconds:.1f} s.")
            say(f"Training {min(len(finished) + 1, total)} of {total} ...")
    if chart is not None and finished:
        plot_sweep(finished, swept, preset, chart, overwrite=overwrite)
        note(f"Plotted to {chart}")
    names = [name.partition(".")[2] for name in (*varied, swept)]  # without the group
    names += ["train\nbits/char", "held-out\nbits/char", "MB", "s", "copy rate"]
    has_ngrams = any(row.ngrams for row in finished)
    if has_ngrams:
        names.append("n-grams, of\nV^n possible")
    cells = [_sweep_cells(row, has_ngrams) for row in finished]
    table = make_table(*names, rows=cells, is_boxed=False)
    for column in table.columns:
        column.no_wrap = False  # in a narrow terminal, a row takes several lines
    facts = {"preset": preset, "setting": swept, "rows": finished}
    return Result(facts, [table], finished.status)


def _sweep_cells(row: "SweepRow", has_ngrams: bool) -> list[str]:
    """Return the cells of a row of the sweep's table. With ``has_ngrams``, the last cell shows how
    many n-grams of the maximum length n the model has, of V ** n possible ones. V is the number of
    the model's 1-grams.
    """
    # bits per character, and the share of tokens with probability zero
    splits = [(row.train_bits, row.train_impossible), (row.held_out_bits, row.held_out_impossible)]
    scores = [
        f"{share:.1%} impossible" if bits == math.inf else _cell(bits, ".4f")
        for bits, share in splits
    ]
    sizes = [f"{row.megabytes:.2f}", f"{row.seconds:.1f}", describe_copies(row.novelty) or "-"]
    cells = [*map(str, row.series.values()), str(row.value), *scores, *sizes]
    if row.ngrams:
        possible = f"{Decimal(row.ngrams[0]) ** len(row.ngrams):.1e}".replace("e+", "e")
        cells.append(f"{row.ngrams[-1]:,} of {possible}")
    elif has_ngrams:
        cells.append("-")
    return cells


@takes(TrainingTextOptions, TrialOptions)
def ablate(
    preset: str,
    *,
    data: list[str],
    seeds: int = 1,
    settings: list[str] | None = None,
    **options: Any,
) -> Result:
    """Run an ablation study: train the full preset, the preset without each technique, and the
    plain preset.

    Each training has the given length. All are scored on the same held-out texts.

    Args:
        preset: <model>-<tokenizer>, as in lstm-char.
        seeds: The number of trainings per row, from different seeds; their results are averaged.
        settings: A setting of all trainings: model.hidden_size=256.
    """
    from reviewgen.protocols.abilities import describe_parameters
    from reviewgen.runs.ablate import ablate

    source = parse_data(data, options["weights"])
    fixed = parse_settings(settings or [])
    rows = ablate(preset, source, seeds=seeds, settings=fixed, **options)
    with (
        keep_on_interrupt("the table has the finished rows.") as finished,
        show_status(f"Training {preset} whole ..."),
    ):
        for row in rows:
            finished.append(row)
            if row.bits is None:
                note(f"{row.name}: not used here")
            else:
                note(f"{row.name}: {row.bits:.4f} bits/char, {row.seconds:.1f} s")
    if not finished:
        sys.exit(finished.status or 1)
    measured = [row for row in finished if row.bits is not None]
    names = ("without", "bits/char", "gain", "95 %", "char/s", "parameters")
    cells = map(_ablation_cells, measured)
    lines: list[Any] = [
        make_table(*names, rows=cells, left=["without"], is_boxed=False),
        f"Parameters of the whole preset: {describe_parameters(finished[0].parameters)}",
        *(f"{row.name}: {row.description}" for row in measured if row.description),
    ]
    if unused := [row.name for row in finished if row.bits is None]:
        lines.append(f"Not used in this training: {', '.join(unused)}")
    return Result({"preset": preset, "rows": finished}, lines, finished.status)


def _ablation_cells(row: "AblationRow") -> list[str]:
    """Return the cells of a row of the ablation's table."""
    return [
        # the first column says what the preset is trained without
        {"whole": "nothing", "plain": "all of them (plain)"}.get(row.name, row.name),
        f"{row.bits:.4f}",
        "" if row.gain is None else f"{row.gain:+.4f}",
        "" if row.interval is None else "{:+.3f} to {:+.3f}".format(*row.interval),
        _cell(row.characters_per_second, ",.0f"),
        f"{sum(row.parameters.values()):,}",
    ]


def _split_settings(
    preset: str, settings: list[str]
) -> tuple[str, dict[str, list[str]], dict[str, dict[str, str]]]:
    """Split settings into those with several values and those with one value. Return the name of
    the first setting with several values, which is swept; the values of each setting with several
    values; and the other settings, by group. If only one setting is given, it counts among those
    with several values.

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


def _cell(value: Any, form: str) -> str:
    """Return a number in a format; - if there is none."""
    return "-" if value is None else format(value, form)


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
    results = tune(
        start(preset, trained),
        parse_data(data, options["weights"]),
        trials=trials,
        search=ranges,
        settings=parse_settings(settings or []),
        storage=storage,
        **options,
    )
    with (
        keep_on_interrupt("the finished trials are kept.") as finished,
        show_status("Reading ...") as say,
    ):
        for trial in results:
            finished.append(trial)
            note(_describe_trial(trial))
            say(f"Training: {len(finished)} of {trials} trials are finished ...")
    if finished.status and not finished:
        sys.exit(finished.status)
    if not as_json:
        show(None, False, [_trial_table(finished)])
    best = best_trial(finished)
    if not any(options[name] for name in ("budget", "steps", "epochs")):
        options["budget"] = DEFAULT_BUDGET
    best_settings = [f"{name}={value}" for name, value in best.settings.items()]
    command = _train_command(
        preset, {"--from": trained, "--data": data}, options, [*(settings or []), *best_settings]
    )
    line = (
        f"Best: trial {best.number}, {best.bits:.4f} bits per character of the validation texts."
        " Train with its settings:"
    )
    facts = {"trials": finished, "best": best, "command": command}
    return Result(facts, [line, command], finished.status)


def _trial_table(trials: Sequence["TuneTrial"]) -> "Table":
    """Return a table with a row for each trial."""
    rows = [
        [
            trial.number,
            *trial.settings.values(),
            _cell(trial.bits, ".4f"),
            f"{trial.steps:,}",
            f"{trial.seconds:.1f}",
            trial.outcome,
        ]
        for trial in trials
    ]
    settings = [name.partition(".")[2] for name in trials[0].settings]
    names = ("trial", *settings, "bits/char", "steps", "seconds", "outcome")
    return make_table(*names, rows=rows, left=["outcome"], is_boxed=False)


def _describe_trial(trial: "TuneTrial") -> str:
    """Return the line on a finished trial: its settings, its result, and how long it took."""
    settings = {name.partition(".")[2]: value for name, value in trial.settings.items()}
    outcome = [] if trial.bits is None else [f"{trial.bits:.4f} bits per character"]
    if trial.outcome != "done":
        outcome.append(str(trial.outcome))
    problem = f" ({trial.problem})" if trial.problem else ""
    return (
        f"Trial {trial.number}: {_describe(settings)}: {', '.join(outcome)}{problem},"
        f" {trial.seconds:.1f} s."
    )


def _train_command(
    preset: str | None, flags: dict[str, Any], options: Mapping[str, Any], settings: list[str]
) -> str:
    """Return the command that trains a model with ``settings``, with ``flags``, and with those
    ``options`` of the trials that differ from the defaults.
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
    with (
        keep_on_interrupt("nothing was saved.") as finished,
        show_status("Reading and generating ..."),
    ):
        trials = tune_sampling(
            loaded,
            parse_data(data),
            search=values,
            texts=texts,
            judge=None if judge is None else api.load(judge),
            profile=goal,
            seed=seed,
            **options,
        )
        for trial in trials:
            finished.append(trial)
            note(f"{_describe(trial.settings)}: {shown_name} {getattr(trial, criterion):.2f}")
    if not finished:
        sys.exit(finished.status or 1)
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
    line = f"{_GOALS[goal]}: {_describe(best.settings)}. {then}"
    facts = {"trials": finished, "best": best}
    return Result(facts, [_sampling_table(finished, best.human), line, command], finished.status)


def _save_profile(
    model: "ReviewModel", goal: Literal["reading", "likeness"], settings: dict[str, Any], out: Path
) -> None:
    """Save settings as those of the profile ``goal``. The other profile does not change."""
    saved = model.generation_config
    if goal == "likeness":
        model.save_generation_config(out, likeness={**saved.likeness, **settings})
        return
    # If the profile likeness has no value of a setting, the value of reading applies. So the old
    # values of reading are added to likeness, which then does not change.
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
    rows = [["texts by people", *_figures(human), "-"]]
    for trial in trials:
        distance = f"{trial.distance:.2f}"
        rows.append([_describe(trial.settings), *_figures(trial.generated), distance])
    return make_table("", *columns, rows=rows, left=[""], is_boxed=False)


def _figures(figures: "TextStatistics") -> list[str]:
    """Return the cells on the statistics of some texts, by people or generated."""
    distinct = [f"{share:.3f}" for share in figures.distinct]
    texts = [
        f"{figures.words_per_text:.0f}",
        f"{figures.repetition:.2%}",
        _cell(figures.bits_per_character, ".3f"),
    ]
    return [_cell(figures.unknown_words, ".2%"), *distinct, *texts]


def _describe(settings: Mapping[str, Any], sign: str = " ") -> str:
    """Return settings as in "temperature 0.8, top_p 1", with ``sign`` between name and value."""
    return ", ".join(f"{name}{sign}{value}" for name, value in settings.items())


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
    return int(text) if text.strip().isdigit() else float(text)
