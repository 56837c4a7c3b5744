"""``reviewgen.tune`` and ``reviewgen.best_trial``: a search for settings with few bits per
character.

Optuna's tree-structured Parzen estimator suggests the settings of each trial: Bergstra et al. 2011,
"Algorithms for Hyper-Parameter Optimization". A trial is stopped early (pruned) if it is worse than
the median of the other trials at the same share of the run.

The sampler of each trial has its own seed, so an interrupted search resumes with the suggestions
that it would have made without the interruption: the finished trials of its file are given to
optuna again. This is the only file that imports optuna.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from reviewgen.config.options import ExperimentKwargs
from reviewgen.config.settings import check_count, check_list, check_mapping, check_seed, fields_of
from reviewgen.errors import ConfigError, TrainingError, counted, quoted
from reviewgen.model.review_model import ReviewModel
from reviewgen.processes import process_state
from reviewgen.runs.setup import TrainingSetup, merge_settings
from reviewgen.runs.trials import Experiment, TrainedTrial, name_settings, split_name, summarize
from reviewgen.training.report import Report

DEFAULT_BUDGET = "30s"
_PROGRESS_STEPS = 1_000  # optuna gets the progress of a run as an integer from 0 to this
# A trial can be stopped after this share of the run, not before: a high learning rate looks bad
# until it falls.
_MIN_SHARE = 0.4
# a range whose ends differ by this factor or more is searched on a logarithmic scale
_LOGARITHMIC_FACTOR = 10
# Of these settings, only the first that a model has is searched: twenty trials are too few for both
_DROPOUTS = ("output_dropout", "dropout")
# number of first trials that are sampled at random and run to the end; the sampler and the pruner
# learn from them
_STARTUP = 6
_DIGITS = 3  # significant digits of a suggested number, few since the user may want to type it


@dataclass(frozen=True, kw_only=True)
class TuneTrial(TrainedTrial):
    """The settings of one trial, as in {"model.hidden_size": 256}, and its result. Its bits are
    those of the validation texts; for a pruned trial, at its best evaluation.

    Attributes:
        number: The number of the trial, from 0.
    """

    number: int


def tune(
    start: str | ReviewModel,
    source: Any,
    *,
    trials: int = 20,
    search: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    storage: str | Path | None = None,
    **options: Unpack[ExperimentKwargs],
) -> Iterator[TuneTrial]:
    """Search for the settings with the fewest bits per character; yield each trial when it is done.

    The first trial has the preset's own settings, if the search space contains them. The corpus is
    read and tokenized once, or once for each value of a tokenizer setting.

    >>> trials = list(reviewgen.tune("lstm-char", "reviews.csv", trials=20))  # doctest: +SKIP
    >>> reviewgen.best_trial(trials).settings  # doctest: +SKIP

    Args:
        start: A preset, or a trained model to train further.
        source: The reviews.
        trials: The number of trials.
        search: The settings to search, by name; by default the learning rate, the size and the
            dropout of a network, and the order of an n-gram. Each has a range, as in "1e-3:2e-2" or
            a tuple of two numbers; or values, as in "2,4,8" or a list. A range whose ends differ by
            a factor of ten or more is searched on a logarithmic scale.
        settings: Settings of every trial, by group, as in {"model": {"layers": 2}}.
        storage: A file that saves the trials; with the same file, an interrupted search is resumed.
        options: The other keywords of ``train`` that make sense for several trainings: budget (for
            each trial; default 30 seconds), steps, epochs, seed (also used for the suggestions),
            log, initial_weights, min_texts, and those for reading and filtering a corpus.

    Raises:
        ConfigError: optuna is not installed, or a setting, a range or an argument is unusable;
            raised before any training.
        TrainingError: The budget is too short to learn anything.
        NotADistribution: The model's scores do not sum to one.
    """
    check_count("trials", trials)
    searched = (
        {}
        if search is None
        else check_mapping("search", search, "{'model.hidden_size': [128, 256]}")
    )
    if process_state().num_processes > 1:
        raise ConfigError("A search runs in one process: run it without a launcher.")
    if all(options.get(name) is None for name in ("budget", "steps", "epochs")):
        options["budget"] = DEFAULT_BUDGET
    options["seed"] = check_seed(options.get("seed", 0))
    function = ("tune", "trials", "search", "settings", "storage")
    experiment = Experiment(function, start, source, settings, options, split="validation")
    setup = experiment.plan({}).setup
    try:
        from optuna.distributions import distribution_to_json
    except ImportError:
        raise ConfigError("Tuning needs an extra: pip install 'reviewgen[tune]'.") from None
    space = {name: _parse_space(setup, name, entry) for name, entry in searched.items()}
    space = space or _usual_space(setup, experiment)
    for setting, distribution in space.items():
        choices = getattr(distribution, "choices", None)  # None for a range
        for value in choices or (distribution.low, distribution.high):
            experiment.plan({setting: value})  # a value out of range is refused before any work
    experiment.facts["search"] = {
        name: json.loads(distribution_to_json(distribution)) for name, distribution in space.items()
    }
    experiment.skip_copy_rates(setup.training)
    experiment.open_store("search", "storage", storage, resume=storage is not None, is_file=True)
    return _search(experiment, space, trials)


def best_trial(trials: Iterable[TuneTrial]) -> TuneTrial:
    """Return the trial with the fewest bits per character.

    Args:
        trials: The trials that ``tune`` has yielded.

    Raises:
        ConfigError: ``trials`` is not a list of these.
        TrainingError: No trial gave a model.
    """
    tried = check_list("trials", trials, "list(reviewgen.tune(...))")
    for trial in tried:
        if not isinstance(trial, TuneTrial):
            raise ConfigError(
                f"trials must be what reviewgen.tune has yielded; got {quoted(trial)} among them."
            )
    done = [trial for trial in tried if trial.outcome == "done" and trial.bits is not None]
    if not done:
        reason = f": {tried[-1].problem}" if tried and tried[-1].problem else "."
        raise TrainingError(f"None of {len(tried)} trials gave a model{reason}")
    best: TuneTrial = min(done, key=lambda trial: (trial.bits, trial.number))
    return best


# The search space has a distribution of optuna for each setting.


def _range(low: float, high: float, step: int | None = None) -> Any:
    """Return a distribution over the numbers from ``low`` to ``high``. If both are integers, it is
    over the integers between them.
    """
    from optuna.distributions import FloatDistribution, IntDistribution

    is_logarithmic = step is None and low > 0 and high >= _LOGARITHMIC_FACTOR * low
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=is_logarithmic, step=step or 1)
    return FloatDistribution(low, high, log=is_logarithmic)


def _usual_space(setup: TrainingSetup, experiment: Experiment) -> dict[str, Any]:
    """Return the default space: the learning rate, the size and the dropout of a network; the order
    of a model that is trained by counting.
    """
    fields = fields_of(setup.model_class.Config)
    # the lowest value, the highest one and the step of each setting
    ranges = dict[str, tuple[Any, Any, int | None]]()
    size_name = "order" if setup.is_counted else "hidden_size"
    if not setup.is_counted:
        rate = setup.training.learning_rate
        ranges["training.learning_rate"] = rate / 8, rate * 4, None
    if size_name in fields and setup.trained is None:
        value = _current_value(setup, f"model.{size_name}")
        step = 1 if setup.is_counted else max(1, value // 4)
        ranges[f"model.{size_name}"] = max(step, value - 2 * step), value + 4 * step, step
    for name in _DROPOUTS:
        if name in fields:
            setting = f"model.{name}"
            ranges[setting] = 0.0, max(0.5, _current_value(setup, setting)), None
            break

    def allowed(name: str, value: Any) -> Any:
        """Return a value, or the preset's value if it is out of the bounds of the setting."""
        try:
            experiment.plan({name: value})
        except ConfigError:
            return _current_value(setup, name)
        return value

    free = {name: ends for name, ends in ranges.items() if name not in setup.own}
    if not free:
        raise ConfigError(
            "Nothing is left to search: name settings and their values, as in --search"
            " training.bptt=16:128."
        )
    return {
        name: _range(allowed(name, low), allowed(name, high), step)
        for name, (low, high, step) in free.items()
    }


def _parse_space(setup: TrainingSetup, setting: str, searched: Any) -> Any:
    """Return the distribution that the user has given for a setting: a range, as "low:high" or a
    tuple, or values, as "a,b,c" or a list.

    Raises:
        ConfigError: The setting is unknown, a range is reversed or not of numbers, or a list is
            empty.
    """
    from optuna.distributions import CategoricalDistribution

    # from here on, a tuple is a range, and a list is values
    if isinstance(searched, str):
        searched = tuple(searched.split(":")) if ":" in searched else searched.split(",")
    if not isinstance(searched, list | tuple) or not searched:
        raise ConfigError(
            f"{setting} is searched in a range, as in 2:8, or a list, as in 2,4,8; got"
            f" {quoted(searched)}."
        )
    group, name = split_name(setting)
    stripped = [value.strip() if isinstance(value, str) else value for value in searched]
    # strings are converted to the type of the setting
    values = [
        merge_settings(type(setup.config_of(group)), {}, {name: value}, group)[name]
        for value in stripped
    ]
    if not all(value is None or isinstance(value, bool | int | float | str) for value in values):
        raise ConfigError(f"{setting} is neither a number nor a string, so it cannot be searched.")
    if isinstance(searched, list):
        return CategoricalDistribution(tuple(dict.fromkeys(values)))
    if len(values) != 2 or any(
        isinstance(value, bool) or not isinstance(value, int | float) for value in values
    ):
        raise ConfigError(
            f"A range of {setting} is two numbers, as in 2:8; got {':'.join(map(str, searched))}."
        )
    if not values[0] < values[1]:
        raise ConfigError(
            f"The range {values[0]}:{values[1]} of {setting} is reversed or empty: write the lower"
            " end first."
        )
    return _range(*values)


def _current_value(setup: TrainingSetup, setting: str) -> Any:
    """Return the value that a setting has without the search."""
    group, name = split_name(setting)
    return getattr(setup.config_of(group), name)


def _holds(distribution: Any, value: Any) -> bool:
    """Return whether a distribution contains a value."""
    if hasattr(distribution, "choices"):
        return value in distribution.choices
    low = distribution.low
    if not isinstance(value, int | float) or not low <= value <= distribution.high:
        return False
    return distribution.step is None or (value - low) % distribution.step == 0


# The following functions run the trials.


def _search(experiment: Experiment, space: dict[str, Any], trials: int) -> Iterator[TuneTrial]:
    """Run the trials; yield each when it is done. Those that the store has are not trained again.
    An interrupted trial does not affect later ones.
    """
    import optuna
    from optuna.trial import TrialState

    plan = experiment.plan({})
    current = {name: _current_value(plan.setup, name) for name in space}
    with _quiet():
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=_STARTUP, n_warmup_steps=math.ceil(_MIN_SHARE * _PROGRESS_STEPS)
        )
        study = optuna.create_study(pruner=pruner)
        stored = experiment.stored_figures(plan)
        # the trials of an interrupted search are suggested again, and then found in the store
        for figures in stored:
            study.enqueue_trial(figures["suggested"])
        # the first trial has the preset's own settings
        if not stored and all(_holds(space[name], value) for name, value in current.items()):
            study.enqueue_trial(current)
    for number in range(trials):
        with _quiet():
            seed = int(np.random.SeedSequence([plan.seed, number]).generate_state(1)[0])
            study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=_STARTUP, constant_liar=False
            )
            asked = study.ask(space)
        trial = _run_trial(experiment, asked, number)
        with _quiet():
            if trial.outcome == "done":
                study.tell(asked, trial.bits)
            else:
                study.tell(asked, state=TrialState.PRUNED)
        yield trial


def _run_trial(experiment: Experiment, asked: Any, number: int) -> TuneTrial:
    """Train with the settings that a trial of optuna suggests, until the run ends or the trial is
    pruned; return the result.

    Raises:
        TrainingError: This is the first trial, and its time budget ran out after a few steps.
        NotADistribution: The model's scores are not a probability distribution.
    """
    settings = {
        name: float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
        for name, value in asked.params.items()
    }
    evaluated = list[tuple[int, float]]()  # (progress, bits) of each evaluation but the last

    def watch(report: Report) -> bool:
        """Report an evaluation to optuna; return whether the trial is pruned."""
        if report.evaluation is None or report.stopped is not None:
            return False
        bits = report.evaluation.bits_per_character
        evaluated.append((int(report.progress * _PROGRESS_STEPS), bits))
        with _quiet():
            asked.report(bits, evaluated[-1][0])
            return bool(asked.should_prune())

    [training] = experiment.train(
        f"trial {number} ({name_settings(settings)})",
        settings,
        watch=watch,
        figures={"suggested": asked.params, "evaluated": evaluated},
        may_fail=True,
    )
    plan = experiment.plan({})
    is_timed = plan.length.seconds is not None and not plan.setup.is_counted
    if number == 0 and is_timed and 0 < training.steps < plan.setup.training.evaluations:
        raise TrainingError(
            f"The budget of a trial is too short: the first took {counted(training.steps, 'step')}"
            " in it. Increase the budget, or give a number of steps."
        )
    # a trial that the store had was not watched, so optuna does not know its evaluations yet
    if not evaluated:
        for progress, bits in training.figures["evaluated"]:
            asked.report(bits, progress)
    row = summarize([training])
    # the bits of a pruned trial are those of its best evaluation
    if training.outcome == "pruned":
        row["bits"] = min((bits for _, bits in training.figures["evaluated"]), default=math.inf)
    elif training.bits == math.inf:
        row["problem"] = "It gives some held-out tokens probability zero."
    if row["problem"]:
        row["outcome"] = "failed"
    if row["problem"] or row["bits"] == math.inf:
        row["bits"] = None
    return TuneTrial(**row, number=number)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence optuna's log while the block of this context manager runs."""
    from optuna import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
