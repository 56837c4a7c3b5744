"""``tune``: a search for the settings of a preset that give the fewest bits per character within a budget a trial.

Joins the training run and the study; the numbers are theirs.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from reviewgen.errors import ConfigError, NotADistribution, TrainingError
from reviewgen.model import ReviewModel
from reviewgen.runs.arguments import check_seed
from reviewgen.runs.start import Start, find_start
from reviewgen.runs.training_run import TrainingRun
from reviewgen.search.space import Space, current, parse_space, usual_space
from reviewgen.search.study import Study
from reviewgen.search.variants import GROUPS, prepare, variant
from reviewgen.training import process_state

__all__ = ["TuneTrial", "best_trial", "tune"]

DEFAULT_BUDGET = "30s"
_UNSEEN = {"novelty": "none", "copy_tokens": 0}  # what costs time and changes nothing that a trial is judged by
_WHOLE = 0.4  # of a run before it can be cut short: a high learning rate looks bad until it falls


@dataclass(frozen=True)
class TuneTrial:
    """One trial: its settings, as in {"model.hidden_size": 256}, and what came of them."""

    number: int
    settings: dict[str, Any]
    bits: float | None  # per character of the validation texts, the best of its evaluations
    steps: int
    seconds: float  # of training and its evaluations
    outcome: Literal["done", "pruned", "failed"]  # pruned: cut short, for it was worse than most at the same share of the run
    problem: str | None = None  # why it failed


def tune(
    start: str | ReviewModel,
    source: Any,
    *,
    trials: int = 20,
    search: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    storage: str | Path | None = None,
    seed: int = 0,
    **run: Any,
) -> Iterator[TuneTrial]:
    """Search for good settings; yield each trial as it is done. The first has the preset's own settings, where it can.

    >>> trials = list(reviewgen.tune("lstm-char", "reviews.csv", trials=20, budget="30s"))           # doctest: +SKIP
    >>> reviewgen.best_trial(trials).settings                                                        # doctest: +SKIP

    Args:
        start: A preset, or a trained model to train further.
        source: The reviews; they are read and tokenized once.
        trials: How many trials.
        search: What to search in place of learning rate, size and dropout (of an n-gram: order), by name: a range of numbers as
            "1e-3:2e-2" or a tuple of two, a list as "2,4,8" or a list. A range whose ends differ ten times or more is searched by
            orders of magnitude.
        settings: Settings of every trial, by group, as in {"model": {"layers": 2}}.
        storage: A file that keeps the trials; with the same one, an interrupted search goes on.
        seed: Of the suggestions and of each training.
        run: What else ``TrainingRun`` takes, but for ``out``: budget (of each trial; 30 seconds if nothing is said), steps,
            epochs, validation, lowercase, ...

    Raises:
        ConfigError: optuna is missing, or a setting, a range or a number unusable; nothing was trained by then.
        TrainingError: The budget is too short to learn anything.
        NotADistribution: The model's scores sum to anything.
    """
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 1:
        raise ConfigError(f"trials must be a whole number of at least 1; got {trials!r}.")
    if process_state().num_processes > 1:
        raise ConfigError("A search runs in one process: do without a launcher.")
    if all(run.get(name) is None for name in ("budget", "steps", "epochs")):
        run["budget"] = DEFAULT_BUDGET
    own = {group: dict((settings or {}).get(group, {})) for group in GROUPS}
    begun = find_start(start, **own)
    space = _space(begun, own, search)
    if begun.training.keep == "best":
        own["training"] = _UNSEEN | own["training"]
    run |= {"seed": check_seed(seed)}

    def make(changed: Mapping[str, Any]) -> TrainingRun:
        return variant(start, source, {**(settings or {}), **own}, changed, **run)

    for setting, found in space.items():
        for value in found.ends:
            make({setting: value})  # what is out of range is refused before any work
    patience = math.ceil(_WHOLE * begun.training.evaluations)
    file = None if storage is None else Path(storage).expanduser()
    study = Study(space, seed, _first(begun, space), patience, file)
    about = {"preset": begun.preset, "search": str(space), "settings": str(own), "seed": seed}
    about |= {name: str(run[name]) for name in ("budget", "steps", "epochs") if run.get(name) is not None}
    return _search(study, make, trials, about)


def best_trial(trials: Iterable[TuneTrial]) -> TuneTrial:
    """Return the trial with the fewest bits per character.

    Raises:
        TrainingError: None gave a model.
    """
    found = list(trials)
    done = [trial for trial in found if trial.outcome == "done" and trial.bits is not None]
    if not done:
        why = f": {found[-1].problem}" if found and found[-1].problem else "."
        raise TrainingError(f"None of {len(found)} trials gave a model{why}")
    return min(done, key=lambda trial: (trial.bits, trial.number))


def _space(start: Start, own: Mapping[str, Mapping[str, Any]], search: Mapping[str, Any] | None) -> Space:
    """Return what is searched."""
    fixed = [f"{group}.{name}" for group, names in own.items() for name in names]
    if not search:
        return usual_space(start, fixed)
    if twice := sorted(set(search) & set(fixed)):
        raise ConfigError(f"{twice[0]} is both set and searched; do one of the two.")
    return parse_space(start, search)


def _first(start: Start, space: Space) -> dict[str, Any]:
    """Return the preset's own settings, if the space holds them all."""
    own = {name: current(start, name) for name in space}
    return own if all(found.holds(own[name]) for name, found in space.items()) else {}


def _search(study: Study, make: Callable[..., TrainingRun], trials: int, about: Mapping[str, Any]) -> Iterator[TuneTrial]:
    readers: list[TrainingRun] = []
    corpus = prepare(partial(make, {}), readers).corpus
    before = [TuneTrial(**record) for record in study.begin({**about, "corpus": corpus.fingerprint})]
    yield from before[:trials]
    for number in range(len(before), trials):
        trial, settings = study.ask(number)
        blank = TuneTrial(number=number, settings=settings, bits=None, steps=0, seconds=0.0, outcome="failed")
        try:
            found = _try(study, trial, partial(make, settings), readers, blank)
        except BaseException:
            study.forget(trial)
            raise
        study.tell(trial, found.bits if found.outcome == "done" else None, asdict(found))
        yield found


def _try(study: Study, trial: Any, make: Callable[[], TrainingRun], readers: list[TrainingRun], blank: TuneTrial) -> TuneTrial:
    """Train with a trial's settings and return what came of it.

    Raises:
        TrainingError: It is the first, and its budget was over before it could learn anything.
        NotADistribution: The model cannot be measured.
    """
    try:
        run = prepare(make, readers)
        found = _train(study, trial, run, blank)
    except (TrainingError, ConfigError, torch.OutOfMemoryError) as error:
        return replace(blank, problem=str(error))
    facts = run.facts()
    if blank.number == 0 and facts["stopped"] == "budget spent" and facts["steps"] < run.config.evaluations:
        raise TrainingError(
            f"A budget of {facts['budget_seconds']:g} s for a trial is too short: the first took {facts['steps']} steps in it. "
            "Give more, or say how many steps."
        )
    return found


def _train(study: Study, trial: Any, run: TrainingRun, found: TuneTrial) -> TuneTrial:
    """Train until the budget is spent or the trial is hopeless."""
    best = math.inf
    for report in run:
        found = replace(found, steps=report.step, seconds=round(report.seconds, 2))
        if report.stopped == "diverged":
            return replace(found, problem=" ".join(report.notes))
        if report.sample is None:
            continue
        if report.evaluation is None:
            raise NotADistribution("The scores of this model are no distribution, so there is nothing to tune by.")
        bits = report.evaluation.bits_per_character
        best = min(best, bits)
        place = int(report.progress * run.config.evaluations)
        if report.stopped is None and study.is_hopeless(trial, bits, place):
            return replace(found, outcome="pruned", bits=best if math.isfinite(best) else None)
    if not math.isfinite(best):
        return replace(found, problem="It gives some held-out tokens probability zero.")
    return replace(found, outcome="done", bits=best)
