"""The implementation of ``reviewgen.tune`` and ``reviewgen.best_trial``: a search for settings with few bits per character.

Connects the fits with the study, which suggests the settings.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Unpack

import torch

from reviewgen.config import check_list, check_seed
from reviewgen.errors import ConfigError, DeviceError, NotADistribution, TrainingError, counted, quoted
from reviewgen.model import ReviewModel
from reviewgen.processes import process_state
from reviewgen.runs.fit import Fit
from reviewgen.runs.options import TrainOptions
from reviewgen.runs.parts import TrainingParts, resolve_parts
from reviewgen.search.space import Space, current, parse_space, usual_space
from reviewgen.search.study import Study
from reviewgen.search.variants import Variants, check_groups, refuse_blend, refuse_options
from reviewgen.storage import to_path
from reviewgen.training import StopReason

DEFAULT_BUDGET = "30s"
_FASTER = {"novelty": "none", "copy_tokens": 0}  # training settings that save time and do not change a trial's result
_PROGRESS_STEPS = 1_000  # a run's progress in whole numbers
_MIN_SHARE = 0.4  # of a run before it can be stopped: a high learning rate looks bad until it falls


@dataclass(frozen=True)
class TuneTrial:
    """The settings of one trial, as in {"model.hidden_size": 256}, and its result."""

    number: int
    settings: dict[str, Any]
    bits: float | None  # per character of the validation texts, the fewest of its evaluations
    steps: int
    seconds: float  # of training and its evaluations
    outcome: Literal["done", "pruned", "failed"]  # pruned: stopped, because most trials were better at this share of the run
    problem: str | None = None  # why it failed


def tune(
    start: str | ReviewModel,
    source: Any,
    *,
    trials: int = 20,
    search: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    storage: str | Path | None = None,
    **options: Unpack[TrainOptions],
) -> Iterator[TuneTrial]:
    """Search for good settings; see ``reviewgen.tune``."""
    refuse_options(options, "tune", ("trials", "search", "settings", "storage"))
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 1:
        raise ConfigError(f"trials must be a whole number of at least 1; got {quoted(trials)}.")
    if process_state().num_processes > 1:
        raise ConfigError("A search runs in one process: run it without a launcher.")
    if all(options.get(name) is None for name in ("budget", "steps", "epochs")):
        options["budget"] = DEFAULT_BUDGET
    options["seed"] = seed = check_seed(options.get("seed", 0))
    own = check_groups(settings)
    parts = resolve_parts(start, **own)
    refuse_blend(parts)
    space = _make_space(parts, own, search)
    if parts.training.keep == "best":
        own["training"] = _FASTER | own["training"]
    variants = Variants(start, source, own, options)
    for setting, values in space.items():
        for value in values.ends:
            variants.plan({setting: value})  # what is out of range is refused before any work
    patience = math.ceil(_MIN_SHARE * _PROGRESS_STEPS)
    file = None if storage is None else to_path("storage", storage)
    study = Study(space, seed, _first_settings(parts, space), patience, file)
    about = {"preset": parts.preset, "search": str(space), "settings": str(own), "seed": seed}
    about |= {name: str(value) for name in ("budget", "steps", "epochs") if (value := options.get(name)) is not None}
    return _search(study, variants, trials, about)


def best_trial(trials: Iterable[TuneTrial]) -> TuneTrial:
    """Return the trial with the fewest bits per character; see ``reviewgen.best_trial``."""
    tried = check_list("trials", trials, "list(reviewgen.tune(...))")
    if wrong := [trial for trial in tried if not isinstance(trial, TuneTrial)]:
        raise ConfigError(f"trials must be what reviewgen.tune has yielded; got {quoted(wrong[0])} among them.")
    done = [trial for trial in tried if trial.outcome == "done" and trial.bits is not None]
    if not done:
        reason = f": {tried[-1].problem}" if tried and tried[-1].problem else "."
        raise TrainingError(f"None of {len(tried)} trials gave a model{reason}")
    best: TuneTrial = min(done, key=lambda trial: (trial.bits, trial.number))
    return best


def _make_space(parts: TrainingParts, own: Mapping[str, Mapping[str, Any]], search: Mapping[str, Any] | None) -> Space:
    """Return what is searched: what the user names, else what is usual for the model."""
    fixed = [f"{group}.{name}" for group, names in own.items() for name in names]
    if not isinstance(search, Mapping | None):
        raise ConfigError(f"search must be a dictionary, as in {{'model.hidden_size': [128, 256]}}; got {quoted(search)}.")
    if not search:
        return usual_space(parts, fixed)
    if twice := sorted(set(search) & set(fixed)):
        raise ConfigError(f"{twice[0]} is both set and searched; do one of the two.")
    return parse_space(parts, search)


def _first_settings(parts: TrainingParts, space: Space) -> dict[str, Any]:
    """Return the preset's own settings, if the space contains all of them."""
    own = {name: current(parts, name) for name in space}
    return own if all(values.holds(own[name]) for name, values in space.items()) else {}


def _search(study: Study, variants: Variants, trials: int, about: Mapping[str, Any]) -> Iterator[TuneTrial]:
    corpus = variants.prepare(variants.plan({})).corpus
    before = [TuneTrial(**record) for record in study.resume({**about, "corpus": corpus.fingerprint})]
    yield from before[:trials]
    for number in range(len(before), trials):
        trial, settings = study.ask(number)
        blank = TuneTrial(number=number, settings=settings, bits=None, steps=0, seconds=0.0, outcome="failed")
        try:
            result = _try(study, trial, variants, blank)
        except BaseException:
            study.forget(trial)
            raise
        study.tell(trial, result.bits if result.outcome == "done" else None, asdict(result))
        yield result


def _try(study: Study, trial: Any, variants: Variants, blank: TuneTrial) -> TuneTrial:
    """Train with a trial's settings and return its result.

    Raises:
        TrainingError: It is the first, and its budget was over before it could learn anything.
        NotADistribution: The model cannot be scored.
    """
    try:
        fit = variants.fit(variants.plan(blank.settings))
        result = _train(study, trial, fit, blank)
    except (TrainingError, ConfigError, DeviceError, torch.OutOfMemoryError) as error:
        return replace(blank, problem=str(error))
    facts = fit.facts()
    is_budget_spent = facts["stopped"] == StopReason.BUDGET_SPENT
    if blank.number == 0 and is_budget_spent and facts["steps"] < fit.config.evaluations:
        steps = counted(facts["steps"], "step")
        raise TrainingError(
            f"A budget of {facts['budget_seconds']:g} s for a trial is too short: the first took {steps} in it. "
            "Increase the budget, or give a number of steps."
        )
    return result


def _train(study: Study, trial: Any, fit: Fit, result: TuneTrial) -> TuneTrial:
    """Train until the end of the run, or until the trial is hopeless."""
    best = math.inf
    for report in fit:
        result = replace(result, steps=report.step, seconds=round(report.seconds, 2))
        if report.stopped == StopReason.DIVERGED:
            return replace(result, problem=" ".join(report.notes))
        if report.sample is None:
            continue
        if report.evaluation is None:
            raise NotADistribution("The scores of this model are not a probability distribution, so there is nothing to tune by.")
        bits = report.evaluation.bits_per_character
        best = min(best, bits)
        if report.stopped is None and study.is_hopeless(trial, bits, int(report.progress * _PROGRESS_STEPS)):
            return replace(result, outcome="pruned", bits=best if math.isfinite(best) else None)
    if not math.isfinite(best):
        return replace(result, problem="It gives some held-out tokens probability zero.")
    return replace(result, outcome="done", bits=best)
