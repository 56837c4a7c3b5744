"""``reviewgen.tune`` and ``reviewgen.best_trial``: a search for settings with few bits per
character.

Optuna's tree-structured Parzen estimator suggests the settings of each trial: Bergstra et al. 2011,
"Algorithms for Hyper-Parameter Optimization". A trial is stopped early (pruned) if it is worse than
the median of the other trials at the same share of the run.

The sampler of each trial has its own seed, so an interrupted search resumes with the suggestions
that it would have made without the interruption. This is the only file that imports optuna.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch

from reviewgen.config.bounded import parse_json
from reviewgen.config.options import TrainKwargs
from reviewgen.config.settings import check_count, check_list, check_mapping, check_seed, fields_of
from reviewgen.errors import (
    ConfigError,
    DeviceError,
    NotADistribution,
    TrainingError,
    counted,
    quoted,
    storage_errors,
)
from reviewgen.model.review_model import ReviewModel
from reviewgen.processes import process_state
from reviewgen.runs.setup import TrainingSetup, merge_settings
from reviewgen.runs.sweep import Variants, split_name
from reviewgen.storage import to_path
from reviewgen.training.report import StopReason

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
_ABOUT = "reviewgen"  # the key of the facts that identify a search, in optuna's study
_RECORD = "record"  # the key of a TuneTrial, in optuna's trial
# the errors that optuna raises when it reads a file that it has not written
_UNREADABLE = (LookupError, TypeError, AttributeError, ValueError, RecursionError)


@dataclass(frozen=True)
class TuneTrial:
    """The settings of one trial, as in {"model.hidden_size": 256}, and its result."""

    number: int
    settings: dict[str, Any]
    bits: float | None  # bits per character of the validation texts, at the best evaluation
    steps: int
    seconds: float  # duration of the training and its evaluations
    # "pruned": stopped early, because most trials were better at the same share of the run
    outcome: Literal["done", "pruned", "failed"]
    problem: str | None = None  # why the trial failed


def tune(
    start: str | ReviewModel,
    source: Any,
    *,
    trials: int = 20,
    search: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    storage: str | Path | None = None,
    **options: Unpack[TrainKwargs],
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
        options: The other keywords of ``train``, except out, resume, model, tokenizer and training:
            budget (for each trial; default 30 seconds), steps, epochs, seed (also used for the
            suggestions), log, initial_weights, min_texts, and those for reading and filtering a
            corpus.

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
    lengths = ("budget", "steps", "epochs")
    if all(options.get(name) is None for name in lengths):
        options["budget"] = DEFAULT_BUDGET
    options["seed"] = seed = check_seed(options.get("seed", 0))
    variants = Variants(
        ("tune", "trials", "search", "settings", "storage"), start, source, settings, options
    )
    setup = variants.plan({}).setup
    try:
        space = {
            name: _parse(setup, name, entry) for name, entry in searched.items()
        } or _usual_space(setup, variants)
    except ImportError:
        raise ConfigError("Tuning needs an extra: pip install 'reviewgen[tune]'.") from None
    for setting, distribution in space.items():
        choices = getattr(distribution, "choices", None)  # None for a range
        for value in choices or (distribution.low, distribution.high):
            variants.plan({setting: value})  # a value out of range is refused before any work
    about = {
        "preset": setup.preset,
        "search": str(space),
        "settings": str(variants.settings),
        "seed": seed,
    }
    about |= {name: str(options.get(name)) for name in lengths if options.get(name) is not None}
    variants.skip_copy_rates(setup.training)
    file = None if storage is None else to_path("storage", storage)
    return _search(_open_study(file), space, variants, trials, about, file)


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


def _usual_space(setup: TrainingSetup, variants: Variants) -> dict[str, Any]:
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
        value = _current(setup, f"model.{size_name}")
        step = 1 if setup.is_counted else max(1, value // 4)
        ranges[f"model.{size_name}"] = max(step, value - 2 * step), value + 4 * step, step
    for name in _DROPOUTS:
        if name in fields:
            setting = f"model.{name}"
            ranges[setting] = 0.0, max(0.5, _current(setup, setting)), None
            break

    def allowed(name: str, value: Any) -> Any:
        """Return a value, or the preset's value if it is out of the bounds of the setting."""
        try:
            variants.plan({name: value})
        except ConfigError:
            return _current(setup, name)
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


def _parse(setup: TrainingSetup, setting: str, searched: Any) -> Any:
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


def _current(setup: TrainingSetup, setting: str) -> Any:
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


@contextmanager
def _quiet(file: Path | None) -> Iterator[None]:
    """Silence optuna's log while the block of this context manager runs, and turn an error of
    writing its file into a StorageError.
    """
    from optuna import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with storage_errors(file):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _open_study(file: Path | None) -> Any:
    """Return optuna's study of the search. With a file, the study is loaded from it, or created in
    it, and its trials are saved there.

    Raises:
        ConfigError: The file does not hold a study.
        StorageError: The file cannot be written.
    """
    import optuna

    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=_STARTUP, n_warmup_steps=math.ceil(_MIN_SHARE * _PROGRESS_STEPS)
    )
    with _quiet(file):
        try:
            storage = None if file is None else _open_journal(file)
            return optuna.create_study(
                storage=storage, pruner=pruner, study_name="reviewgen", load_if_exists=True
            )
        except _UNREADABLE:
            raise ConfigError(
                f"{file} holds no search that can be read; give another file, or remove it."
            ) from None


def _open_journal(file: Path) -> Any:
    """Open a file as optuna's journal. An incomplete last line, left by a killed process, is
    removed.

    Raises:
        ValueError: The first line is not a line of optuna's; optuna itself does not check this.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    content = file.read_bytes() if file.exists() else b""
    if content:
        entry = parse_json(str(content.splitlines()[0], "utf-8"))
        if not isinstance(entry, dict) or not {"op_code", "worker_id"} <= entry.keys():
            raise ValueError
        os.truncate(file, content.rfind(b"\n") + 1)
    # not optuna's default lock, which is a symlink
    return JournalStorage(JournalFileBackend(str(file), JournalFileOpenLock(str(file))))


def _search(
    study: Any,
    space: dict[str, Any],
    variants: Variants,
    trials: int,
    about: dict[str, Any],
    file: Path | None,
) -> Iterator[TuneTrial]:
    """Yield the finished trials of the study, then run and yield new ones. An interrupted trial
    does not affect later ones.

    Raises:
        ConfigError: The study belongs to another search.
    """
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    plan = variants.plan({})
    about |= {"corpus": variants.corpus(plan).texts.fingerprint}
    with _quiet(file):
        saved = study.user_attrs.get(_ABOUT, about)
        for name in {**about, **saved}:
            if about.get(name) != saved.get(name):
                raise ConfigError(
                    f"{file} holds another search, of {name} {saved.get(name)}, not"
                    f" {about.get(name)}: give another file."
                )
        study.set_user_attr(_ABOUT, about)
        finished = [
            TuneTrial(**trial.user_attrs[_RECORD])
            for trial in study.trials
            if _RECORD in trial.user_attrs
        ]
    yield from finished[:trials]
    current = {name: _current(plan.setup, name) for name in space}
    for number in range(len(finished), trials):
        with _quiet(file):
            seed = int(np.random.SeedSequence([about["seed"], number]).generate_state(1)[0])
            study.sampler = TPESampler(seed=seed, n_startup_trials=_STARTUP, constant_liar=False)
            if number == 0 and all(_holds(space[name], value) for name, value in current.items()):
                study.enqueue_trial(current)  # the first trial has the preset's own settings
            trial = study.ask(space)
        settings = {
            name: float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
            for name, value in trial.params.items()
        }
        unfinished = TuneTrial(
            number=number, settings=settings, bits=None, steps=0, seconds=0.0, outcome="failed"
        )
        result = _try(trial, variants, unfinished, file)
        with _quiet(file):
            trial.set_user_attr(_RECORD, asdict(result))
            if result.outcome == "done":
                study.tell(trial, result.bits)
            else:
                study.tell(trial, state=TrialState.PRUNED)
        yield result


def _try(trial: Any, variants: Variants, result: TuneTrial, file: Path | None) -> TuneTrial:
    """Train with a trial's settings, until the run ends or the trial is pruned; return its result.

    Args:
        trial: The trial of optuna, which decides on pruning.
        variants: Starts the training.
        result: The number and the settings of the trial, with the outcome "failed".
        file: The file of the search.

    Raises:
        TrainingError: This is the first trial, and its time budget ran out after a few steps.
        NotADistribution: The model's scores are not a probability distribution.
    """
    best_bits = math.inf
    stopped = None
    try:
        run = variants.start(variants.plan(result.settings))
        for report in run:
            result = replace(result, steps=report.step, seconds=round(report.seconds, 2))
            stopped = report.stopped
            if stopped == StopReason.DIVERGED:
                return replace(result, problem=" ".join(report.notes))
            if report.sample is None:  # the step was not evaluated
                continue
            if report.evaluation is None:
                raise NotADistribution(
                    "The scores of this model are not a probability distribution, so there is"
                    " nothing to tune by."
                )
            bits = report.evaluation.bits_per_character
            best_bits = min(best_bits, bits)
            if stopped is None:
                with _quiet(file):
                    trial.report(bits, int(report.progress * _PROGRESS_STEPS))
                    if trial.should_prune():
                        finite_bits = best_bits if math.isfinite(best_bits) else None
                        return replace(result, outcome="pruned", bits=finite_bits)
    except (TrainingError, ConfigError, DeviceError, torch.OutOfMemoryError) as error:
        return replace(result, steps=0, seconds=0.0, problem=str(error))
    if (
        result.number == 0
        and stopped == StopReason.BUDGET_SPENT
        and result.steps < run.record.training.evaluations
    ):
        raise TrainingError(
            f"A budget of {run.plan.length.seconds:g} s for a trial is too short: the first took"
            f" {counted(result.steps, 'step')} in it. Increase the budget, or give a number of"
            " steps."
        )
    if not math.isfinite(best_bits):
        return replace(result, problem="It gives some held-out tokens probability zero.")
    return replace(result, outcome="done", bits=best_bits)
