"""Trainings that differ in some settings, for a sweep or a search; the corpus is prepared once and fitted many times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reviewgen.config import refuse_unknown_options
from reviewgen.errors import ConfigError, did_you_mean, quoted
from reviewgen.runs.fit import Fit
from reviewgen.runs.options import TrainOptions
from reviewgen.runs.parts import TrainingParts
from reviewgen.runs.plan import TrainingPlan, make_plan
from reviewgen.runs.prepare import PreparedCorpus, have_same_corpus, prepare
from reviewgen.runs.record import ChosenSize
from reviewgen.runs.start import find_size, start_fit
from reviewgen.runs.tracking import RunLog

GROUPS = ("model", "tokenizer", "training")


def split_name(setting: str) -> tuple[str, str]:
    """Return the group and the name of a setting.

    >>> split_name("model.order")
    ('model', 'order')

    Raises:
        ConfigError: It has another form, or there is no such group.
    """
    group, _, name = setting.partition(".") if isinstance(setting, str) else ("", "", "")
    if group not in GROUPS or not name:
        raise ConfigError(f"{quoted(setting)} is not a setting; name one as in model.order, tokenizer.vocab_size, training.bptt.")
    return group, name


def check_groups(settings: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Return the settings of each group, empty for a group that is not given.

    Raises:
        ConfigError: It is not a mapping from groups to settings.
    """
    if not isinstance(settings, Mapping | None) or not all(isinstance(group, Mapping) for group in (settings or {}).values()):
        raise ConfigError(f"settings must be a dictionary by group, as in {{'model': {{'order': 4}}}}; got {quoted(settings)}.")
    groups = settings or {}
    for group in groups:
        if group not in GROUPS:
            raise ConfigError(f"{quoted(group)} is not a group of settings. {did_you_mean(str(group), GROUPS)}")
    return {group: dict(groups.get(group, {})) for group in GROUPS}


def refuse_options(options: TrainOptions, function: str, others: Sequence[str]) -> None:
    """Raise unless all keywords of ``sweep`` or ``tune`` are those of several trainings.

    Args:
        options: The keywords.
        function: "sweep" or "tune".
        others: The function's other arguments.

    Raises:
        ConfigError: A keyword is unknown, or for a single training.
    """
    refuse_unknown_options(options, TrainOptions, function, others=others, hidden=[*GROUPS, "out", "resume"])
    if given := [group for group in GROUPS if group in options]:
        raise ConfigError(f"{function} takes {given[0]} settings in settings, as in settings={{{quoted(given[0])}: {{...}}}}.")
    if given := [name for name in ("out", "resume") if not any(options.get(name) is each for each in (None, False))]:
        raise ConfigError(
            f"{function} trains several models, and no model is saved, so it takes no {given[0]}: train with the settings that "
            "you choose."
        )


def refuse_blend(parts: TrainingParts) -> None:
    """Raise if a preset is a blend, of which only whole trainings make sense.

    Raises:
        ConfigError: It is.
    """
    if parts.models:
        names = " or ".join(each.preset for each in parts.models)
        raise ConfigError(f"{parts.preset} is a blend of several models: give one of them, {names}.")


@dataclass
class _SharedCorpus:
    """A corpus, the plan that it was prepared for, and the size that was chosen for the time budget of its first fit."""

    plan: TrainingPlan
    corpus: PreparedCorpus
    size: ChosenSize | None = None


class Variants:
    """Trainings of the same preset or model on the same source with different settings.

    Args:
        start: A preset, or a trained model to train further.
        source: The reviews.
        settings: Settings of all trainings, by group; see ``check_groups``.
        options: Other arguments of ``reviewgen.train``, for all trainings; see ``refuse_options``.
    """

    def __init__(self, start: Any, source: Any, settings: Mapping[str, Mapping[str, Any]], options: TrainOptions) -> None:
        self._start, self._source, self._settings, self._options = start, source, settings, options
        self._corpora: list[_SharedCorpus] = []

    def plan(self, changed: Mapping[str, Any]) -> TrainingPlan:
        """Return the plan of a training with some settings changed, as in {"model.order": 4}.

        Raises:
            ConfigError: A setting is unknown or out of range.
        """
        groups = check_groups(self._settings)
        for setting, value in changed.items():
            group, name = split_name(setting)
            groups[group][name] = value
        model, tokenizer, training = groups.values()
        plan = make_plan(
            self._start, self._source, {**self._options, "model": model, "tokenizer": tokenizer, "training": training}
        )
        refuse_blend(plan.parts)
        return plan

    def prepare(self, plan: TrainingPlan) -> PreparedCorpus:
        """Return the corpus of a plan; it is read and tokenized unless that was done for an earlier plan.

        Raises:
            ReviewgenError: It cannot be read.
        """
        return self._share(plan).corpus

    def fit(self, plan: TrainingPlan) -> Fit:
        """Start the fit of a plan; its clock starts when the corpus is prepared and the size is chosen.

        All fits on one corpus have the same size, if it is chosen for the time budget.

        Raises:
            ReviewgenError: The corpus cannot be read, or the model cannot be built.
        """
        shared, seconds = self._share(plan), plan.length.seconds
        if shared.size is None and seconds is not None and (sizing := find_size(plan, shared.corpus, seconds)) is not None:
            shared.size = ChosenSize(sizing.model, sizing.training)
        return start_fit(plan, shared.corpus, size=shared.size, log=RunLog(plan.log, plan.out, plan.preset))

    def _share(self, plan: TrainingPlan) -> _SharedCorpus:
        for shared in self._corpora:
            if have_same_corpus(shared.plan, plan):
                return shared
        self._corpora.append(_SharedCorpus(plan, prepare(plan)))
        return self._corpora[-1]
