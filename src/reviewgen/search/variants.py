"""Trainings that differ in some settings: the one way in which a sweep, a search and a comparison vary a plan.

The corpus is prepared once for all variants that need the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from reviewgen.config.options import TrainOptions, refuse_unknown_options
from reviewgen.errors import ConfigError, did_you_mean, quoted
from reviewgen.runs import TrainingRun
from reviewgen.runs.corpus import Corpora, PreparedCorpus
from reviewgen.runs.plan import TrainingPlan, make_plan
from reviewgen.runs.run import make_run

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
    groups = {} if settings is None else settings
    if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
        raise ConfigError(f"settings must be a dictionary by group, as in {{'model': {{'order': 4}}}}; got {quoted(settings)}.")
    for group in groups:
        if group not in GROUPS:
            raise ConfigError(f"{quoted(group)} is not a group of settings. {did_you_mean(str(group), GROUPS)}")
    return {group: dict(groups.get(group, {})) for group in GROUPS}


def check_values(setting: str, values: Any) -> None:
    """Raise unless there is a list of at least one value of a setting.

    Raises:
        ConfigError: There is not.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ConfigError(f"Give a list of at least one value of {setting}; got {quoted(values)}.")


class Variants:
    """Trainings of the same preset or model on the same source with different settings.

    Args:
        function: The public function, "sweep" or "tune", and its own arguments, for messages.
        start: A preset, or a trained model to train further.
        source: The reviews.
        settings: Settings of all trainings, by group; see ``check_groups``.
        options: Other arguments of ``reviewgen.train``, for all trainings.

    Attributes:
        settings: The settings of all trainings, by group.

    Raises:
        ConfigError: A keyword is unknown, or for a single training; or the preset is a blend.
    """

    def __init__(
        self,
        function: Sequence[str],
        start: Any,
        source: Any,
        settings: Mapping[str, Mapping[str, Any]] | None,
        options: TrainOptions,
    ) -> None:
        name, *arguments = function
        refuse_unknown_options(options, TrainOptions, name, others=arguments, hidden=[*GROUPS, "out", "resume"])
        for option in (*GROUPS, "out", "resume"):
            if option in GROUPS and option in options:
                raise ConfigError(f"{name} takes {option} settings in settings, as in settings={{{quoted(option)}: {{...}}}}.")
            if options.get(option) not in (None, False):
                raise ConfigError(f"{name} trains several models, and no model is saved, so it takes no {option}.")
        self.settings, self._start, self._source, self._options = check_groups(settings), start, source, options
        self._corpora = Corpora()

    def plan(self, changed: Mapping[str, Any]) -> TrainingPlan:
        """Return the plan of a training with some settings changed, as in {"model.order": 4}.

        Raises:
            ConfigError: A setting is unknown or out of range, or changed and fixed.
        """
        groups: Any = check_groups(self.settings)
        for setting, value in changed.items():
            group, name = split_name(setting)
            if name in groups[group]:
                raise ConfigError(f"{setting} is both set and varied; do one of the two.")
            groups[group][name] = value
        plan = make_plan(self._start, self._source, {**self._options, **groups})
        if plan.parts.models:
            raise ConfigError(f"{plan.preset} is a blend of several models: give one of them, {plan.parts.names}.")
        return plan

    def corpus(self, plan: TrainingPlan) -> PreparedCorpus:
        """Return the corpus of a plan; it is read and tokenized unless that was done for an earlier plan."""
        return self._corpora.get(plan)

    def start(self, plan: TrainingPlan) -> TrainingRun:
        """Return a run that is ready to train. All runs on one corpus have the size that was chosen for the first one.

        Raises:
            ReviewgenError: The corpus cannot be read, or the model cannot be built.
        """
        run = make_run(plan)
        run.start_on(self.corpus(plan))
        return run
