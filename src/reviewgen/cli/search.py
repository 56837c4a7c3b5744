"""``reviewgen sweep | ablate | tune | tune-sampling``: several trainings, or several ways to
generate, compared in a table.
"""

import math
import shlex
import sys
from collections.abc import Mapping
from decimal import Decimal
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
    from reviewgen.evaluation import TextStatistics
    from reviewgen.runs.sweep import SweepRow
    from reviewgen.runs.tune import TuneTrial


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

    swept, series, fixed = _split_settings(preset, settings)
    values = series.pop(swept)
    refuse_outputs(plot=chart, overwrite=overwrite)
    from reviewgen.runs.sweep import plot_sweep, sweep

    rows = sweep(
        preset, parse_data(data, options["weights"]), swept, values, fixed, series=series, **options
    )
    total = len(values) * math.prod(map(len, series.values()))
    with (
        keep_on_interrupt("the table has the finished values.") as finished,
        show_status(f"Training 1 of {total} ...") as say,
    ):
        for row in rows:
            finished.append(row)
            trained = ", ".join(
                f"{name}={value}" for name, value in {**row.series, swept: row.value}.items()
            )
            note(f"{trained} done in {row.seconds:.1f} s.")
            say(f"Training {min(len(finished) + 1, total)} of {total} ...")
    names = [name.partition(".")[2] for name in (*series, swept)]
    names += ["train\nbits/char", "held-out\nbits/char", "MB", "s", "copy rate"]
    has_ngrams = any(row.ngrams for row in finished)
    cells = [_sweep_cells(row)[: None if has_ngrams else -1] for row in finished]
    facts = {"preset": preset, "setting": swept, "rows": finished}
    if chart is not None and finished:
        plot_sweep(finished, swept, preset, chart, overwrite=overwrite)
        note(f"Plotted to {chart}")
    names += ["n-grams, of\nV^n possible"] if has_ngrams else []
    table = make_table(*names, rows=cells, is_boxed=False)
    for column in table.columns:
        column.no_wrap = False  # a narrow terminal has several lines to a row
    return Result(facts, [table], finished.status)


def _sweep_cells(row: "SweepRow") -> list[str]:
    """Return the cells of a row; the last is of n-grams. V is the number of different tokens, the
    1-grams.
    """
    bits = [(row.train_bits, row.train_impossible), (row.held_out_bits, row.held_out_impossible)]
    scores = [
        f"{share:.1%} impossible" if score == math.inf else _cell(score, ".4f")
        for score, share in bits
    ]
    possible = (
        f"{Decimal(row.ngrams[0]) ** len(row.ngrams):.1e}".replace("e+", "e") if row.ngrams else ""
    )
    ngrams = f"{row.ngrams[-1]:,} of {possible}" if row.ngrams else "-"
    sizes = [f"{row.megabytes:.2f}", f"{row.seconds:.1f}", describe_copies(row.novelty) or "-"]
    return [*map(str, row.series.values()), str(row.value), *scores, *sizes, ngrams]


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
        seeds: The number of trainings of each row, from different seeds, whose results are
            averaged.
        settings: A setting of all trainings: model.hidden_size=256.
    """

    fixed = parse_settings(settings or [])
    from reviewgen.protocols.abilities import describe_parameters
    from reviewgen.runs.ablate import ablate

    rows = ablate(
        preset, parse_data(data, options["weights"]), seeds=seeds, settings=fixed, **options
    )
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
    table = make_table(
        "without",
        "bits/char",
        "gain",
        "95 %",
        "char/s",
        "parameters",
        left=["without"],
        is_boxed=False,
    )
    for row in finished:
        if row.bits is not None:
            name = {"whole": "nothing", "plain": "all of them (plain)"}.get(row.name, row.name)
            limits = "" if row.interval is None else "{:+.3f} to {:+.3f}".format(*row.interval)
            gain = "" if row.gain is None else f"{row.gain:+.4f}"
            costs = _cell(row.characters_per_second, ",.0f"), f"{sum(row.parameters.values()):,}"
            table.add_row(name, f"{row.bits:.4f}", gain, limits, *costs)
    lines: list[Any] = [
        table,
        f"Parameters of the whole preset: {describe_parameters(finished[0].parameters)}",
    ]
    lines += [
        f"{row.name}: {row.description}"
        for row in finished
        if row.description and row.bits is not None
    ]
    if unused := [row.name for row in finished if row.bits is None]:
        lines.append(f"Not used in this training: {', '.join(unused)}")
    return Result({"preset": preset, "rows": finished}, lines, finished.status)


def _split_settings(
    preset: str, settings: list[str]
) -> tuple[str, dict[str, list[str]], dict[str, dict[str, str]]]:
    """Return the setting to sweep, the values of all settings with several, and the settings with
    one value, by group.

    Raises:
        ConfigError: No setting has several values, and there is more than one.
    """

    fixed = parse_settings(settings)
    from reviewgen.runs.setup import resolve_setup

    setup = resolve_setup(preset)
    all_of_them = [(group, name) for group, names in fixed.items() for name in names]
    several = [
        (group, name)
        for group, name in all_of_them
        if "," in fixed[group][name] and not setup.takes_list(group, name)
    ]
    chosen = several or (all_of_them if len(all_of_them) == 1 else [])
    if not chosen:
        raise ConfigError(
            "Give a setting with several values, as in --set model.order=2,4,6; the others with one"
            " value each."
        )
    varied = {
        f"{group}.{name}": [value.strip() for value in fixed[group].pop(name).split(",")]
        for group, name in chosen
    }
    for setting, values in varied.items():
        if not all(values):
            raise ConfigError(
                f"A value of {setting} is empty. Separate the values by single commas."
            )
    order = [setting.partition("=")[0].strip() for setting in settings]
    return min(varied, key=order.index), varied, fixed


def _cell(value: Any, form: str) -> str:
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

    fixed = parse_settings(settings or [])
    ranges = parse_settings(search or [])
    space = {
        f"{group}.{name}": value for group, names in ranges.items() for name, value in names.items()
    }
    from reviewgen.runs.tune import DEFAULT_BUDGET, best_trial, tune

    results = tune(
        start(preset, trained),
        parse_data(data, options["weights"]),
        trials=trials,
        search=space,
        settings=fixed,
        storage=storage,
        **options,
    )
    with (
        keep_on_interrupt("the finished trials are kept.") as finished,
        show_status("Reading ...") as say,
    ):
        for trial in results:
            finished.append(trial)
            named = ", ".join(
                f"{name.partition('.')[2]} {value}" for name, value in trial.settings.items()
            )
            note(f"Trial {trial.number}: {named}: {_outcome(trial)}, {trial.seconds:.1f} s.")
            say(f"Training: {len(finished)} of {trials} trials are finished ...")
    if finished.status and not finished:
        sys.exit(finished.status)
    names = [name.partition(".")[2] for name in finished[0].settings]
    table = make_table(
        "trial",
        *names,
        "bits/char",
        "steps",
        "seconds",
        "outcome",
        left=["outcome"],
        is_boxed=False,
    )
    for trial in finished:
        numbers = (
            _cell(trial.bits, ".4f"),
            f"{trial.steps:,}",
            f"{trial.seconds:.1f}",
            trial.outcome,
        )
        table.add_row(str(trial.number), *map(str, trial.settings.values()), *numbers)
    if not as_json:
        show(None, False, [table])
    best = best_trial(finished)
    if not any(options[name] for name in ("budget", "steps", "epochs")):
        options["budget"] = DEFAULT_BUDGET
    values = [*(settings or []), *(f"{name}={value}" for name, value in best.settings.items())]
    command = _train_command(preset, {"--from": trained, "--data": data}, options, values)
    facts = {"trials": finished, "best": best, "command": command}
    line = (
        f"Best: trial {best.number}, {best.bits:.4f} bits per character of the validation texts."
        " Train with its settings:"
    )
    return Result(facts, [line, command], finished.status)


def _outcome(trial: "TuneTrial") -> str:
    bits = [] if trial.bits is None else [f"{trial.bits:.4f} bits per character"]
    outcome = [] if trial.outcome == "done" else [str(trial.outcome)]
    return ", ".join(bits + outcome) + (f" ({trial.problem})" if trial.problem else "")


def _train_command(
    preset: str | None, flags: dict[str, Any], options: Mapping[str, Any], settings: list[str]
) -> str:
    """Return the command that trains with settings, and with the options that were given for the
    trials.
    """
    plain = vars(TrainingTextOptions()) | vars(TrialOptions())
    changed = {name: value for name, value in options.items() if value != plain[name]}
    if changed.get("weights"):
        changed["weights"] = ",".join(f"{weight:g}" for weight in changed["weights"])
    names = {"clean": "--no-clean", "conditions": "--condition", "fields": "--field"}
    flags |= {
        names.get(name, f"--{name.replace('_', '-')}"): value for name, value in changed.items()
    }
    arguments = ["reviewgen", "train"] + ([preset] if preset else [])
    for option, value in (flags | {"--set": settings, "--out": "my-model"}).items():
        if isinstance(value, bool):
            arguments.append(option)
        elif value:
            for part in value if isinstance(value, list | tuple) else [value]:
                arguments += [option, str(part)]
    return shlex.join(arguments)


_GOALS = {
    "likeness": "Nearest to texts by people",
    "reading": "Fewest bits per character of texts that do not repeat themselves",
}


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

    values = _parse_search(search or [])
    check_value("--for", goal, Literal["reading", "likeness"])
    loaded = api.load(model)
    if out is not None and not loaded.is_saved_in(out):
        check_output(to_path("out", out))
    from reviewgen.runs.tune_sampling import tune_sampling

    with (
        keep_on_interrupt("nothing was saved.") as finished,
        show_status("Reading and generating ..."),
    ):
        by = None if judge is None else api.load(judge)
        call: Any = {"search": values, "texts": texts, "judge": by, "profile": goal, "seed": seed}
        for trial in tune_sampling(loaded, parse_data(data), **call, **options):
            finished.append(trial)
            figure = (
                f"distance {trial.distance:.2f}"
                if goal == "likeness"
                else f"bits per character {trial.reading:.2f}"
            )
            note(f"{_describe(trial.settings)}: {figure}")
    if not finished:
        sys.exit(finished.status or 1)
    best = min(finished, key=lambda trial: trial.distance if goal == "likeness" else trial.reading)
    if goal == "reading" and math.isinf(best.reading):
        raise ConfigError(
            "With each setting, more than 2 % of the texts repeat a sentence, or are too similar:"
            " raise the temperatures of --search, or --texts. Nothing was saved."
        )
    is_saved = out is not None and not finished.status
    saved = loaded.generation_config
    if out is not None and is_saved:
        # stay as they are
        unchanged = {name: getattr(saved, name) for name in best.settings} if saved.likeness else {}
        likeness = (
            {**unchanged, **saved.likeness}
            if goal == "reading"
            else {**saved.likeness, **best.settings}
        )
        settings: Any = best.settings if goal == "reading" else {}
        loaded.save_generation_config(out, **settings, likeness=likeness)
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
    rows = [["texts by people", *_figures(best.human), "-"]]
    rows += [
        [_describe(trial.settings), *_figures(trial.generated), f"{trial.distance:.2f}"]
        for trial in finished
    ]
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in best.settings.items())
    then = f"Saved as the profile {goal} of {out}." if is_saved else "Generate with them:"
    facts = {"trials": finished, "best": best}
    table = make_table("", *columns, rows=rows, left=[""], is_boxed=False)
    nearest = f"{_GOALS[goal]}: {_describe(best.settings)}. {then}"
    profile = f" --profile {goal}" if is_saved or saved.likeness else ""
    command = (
        f"reviewgen generate {out}{profile}"
        if is_saved
        else f"reviewgen generate {model}{profile} {flags}"
    )
    return Result(facts, [table, nearest, command], finished.status)


def _figures(figures: "TextStatistics") -> list[str]:
    distinct = [f"{share:.3f}" for share in figures.distinct]
    texts = [
        f"{figures.words_per_text:.0f}",
        f"{figures.repetition:.2%}",
        _cell(figures.bits_per_character, ".3f"),
    ]
    return [_cell(figures.unknown_words, ".2%"), *distinct, *texts]


def _describe(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _parse_search(search: list[str]) -> dict[str, list[Any]]:
    """Return the values of each setting.

    Raises:
        ConfigError: A setting has another form than name=value,value, or is given twice.
    """
    values: dict[str, list[Any]] = {}
    for text in search:
        name, _, listed = text.partition("=")
        if name in values:
            raise ConfigError(
                f"{name} is given twice; give all of its values at once, as in {name}=0.8,0.9."
            )
        try:
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
