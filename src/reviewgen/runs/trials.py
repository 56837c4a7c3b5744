"""Trials: trainings of one preset or model with different settings, whose results are the rows of a
table. ``sweep``, ``ablate`` and ``tune`` choose the settings, and what else is measured.

An ``Experiment`` trains each trial from one or more seeds, and scores them on the same held-out
texts. It prepares a corpus once for all trials that read and tokenize it in the same way, and it
does not train again what its ``TrialStore`` has.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch

from reviewgen.config.bounded import to_json
from reviewgen.config.options import ExperimentKwargs, refuse_unknown_options
from reviewgen.config.settings import check_count, check_mapping
from reviewgen.config.training import TrainingConfig
from reviewgen.errors import (
    ConfigError,
    DeviceError,
    NotADistribution,
    ProcessLost,
    TrainingError,
    did_you_mean,
    quoted,
)
from reviewgen.evaluation.differences import find_interval, find_seed_spread
from reviewgen.evaluation.evaluate import evaluate_totals, sample_documents
from reviewgen.evaluation.scoring import Document
from reviewgen.processes import process_state
from reviewgen.protocols.abilities import count_parameters
from reviewgen.protocols.model import LanguageModel
from reviewgen.runs.corpus import PreparedCorpus, read_plan, tokenize
from reviewgen.runs.plan import TrainingPlan, make_plan
from reviewgen.runs.run import Run
from reviewgen.runs.trial_store import TrialStore
from reviewgen.storage import to_path
from reviewgen.training.report import Report, StopReason

GROUPS = ("model", "tokenizer", "training")
_HELD_OUT_TOKENS = 50_000  # maximum number of held-out tokens that are scored
# the errors of a training that the experiment survives
_FAILURES = (TrainingError, ConfigError, DeviceError, torch.OutOfMemoryError)
# rows whose processor shares differ by more than this, relative to the largest, are not comparable
_UNEQUAL = 0.2


def split_name(setting: str) -> tuple[str, str]:
    """Return the group and the name of a setting.

    >>> split_name("model.order")
    ('model', 'order')

    Raises:
        ConfigError: The setting does not have the form GROUP.NAME, or there is no such group.
    """
    group, _, name = setting.partition(".") if isinstance(setting, str) else ("", "", "")
    if group not in GROUPS or not name:
        raise ConfigError(
            f"{quoted(setting)} is not a setting; name one as in model.order, tokenizer.vocab_size,"
            " training.bptt."
        )
    return group, name


def check_groups(settings: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Return the settings of each group; a group that is not given gets an empty dict.

    Raises:
        ConfigError: ``settings`` is not a mapping from groups to settings.
    """
    groups = (
        {} if settings is None else check_mapping("settings", settings, "{'model': {'order': 4}}")
    )
    for group in groups:
        if group not in GROUPS:
            raise ConfigError(
                f"{quoted(group)} is not a group of settings. {did_you_mean(group, GROUPS)}"
            )
    return {
        group: check_mapping(f"settings[{group!r}]", groups.get(group, {}), "{'order': 4}")
        for group in GROUPS
    }


def check_values(setting: str, values: Any) -> None:
    """Check that ``values`` is a list of at least one value of a setting.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ConfigError(f"Give a list of at least one value of {setting}; got {quoted(values)}.")


def combine(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the values of some settings, each with the settings' names.

    >>> combine({"a": [1, 2], "b": [3]})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    return [
        dict(zip(values, combination, strict=True))
        for combination in itertools.product(*values.values())
    ]


def name_settings(settings: Mapping[str, Any], sign: str = " ") -> str:
    """Return settings in words, without their groups.

    >>> name_settings({"model.order": 4, "model.smoothing": "none"}, "=")
    'order=4, smoothing=none'
    """
    return ", ".join(
        f"{setting.rpartition('.')[2]}{sign}{value}" for setting, value in settings.items()
    )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The results of a trial: a row of a table.

    Attributes:
        name: The name of the row; no other row of the table has it.
        settings: The settings that differ from those of the other trials, as in {"model.order": 4}.
        seconds: Duration of the trial, without reading and tokenizing.
    """

    name: str
    settings: Mapping[str, Any]
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values; an infinite number becomes None."""
        return dict(to_json(self))


@dataclass(frozen=True, kw_only=True)
class TrainedTrial(Trial):
    """The results of a trial that trains a model, once from each of its seeds. Figures are means
    over the seeds.

    Attributes:
        bits: Bits per character of held-out texts; infinite if a token has probability zero. None
            if they are not known: the training has failed, or the scores are not a probability
            distribution.
        interval: The 95 % interval of ``bits`` over the texts; None for a single text, or if
            ``bits`` is not a finite number.
        seeds: The number of trainings.
        spread: The standard deviation of the bits over the seeds; None for one seed.
        impossible: Share of the held-out tokens that have probability zero.
        steps: Optimizer steps of a training; texts, for a model that is trained by counting.
        characters_per_second: Characters trained on per second, without the time of evaluations.
            None if the training is too short, or the model is trained by counting.
        processor_share: Share of the time of a training in which its thread had a processor, 0 to
            1. None unless a time budget has ended the training, or on an accelerator.
        parameters: The number of parameters of each kind.
        megabytes: The size of the model's tensors.
        outcome: "pruned": ended early, since most trials were better at the same share of the run.
            "unused": not trained, since the preset does not use what this trial leaves out.
        problem: Why the trial has failed, or what is wrong with its training.
    """

    bits: float | None = None
    interval: tuple[float, float] | None = None
    seeds: int = 1
    spread: float | None = None
    impossible: float | None = None
    steps: int = 0
    characters_per_second: float | None = None
    processor_share: float | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    megabytes: float = 0.0
    outcome: Literal["done", "pruned", "failed", "unused"] = "done"
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Training(TrainedTrial):
    """The results of one training of a trial, from one seed, as the store has them.

    Attributes:
        nats: The nats of each held-out text; empty if they are not known.
        characters: The number of characters of each held-out text.
        figures: What only one kind of experiment measures, as JSON values.
        size: The settings of the model size that was chosen for the time budget, by group; all
            trainings on the same corpus have it. None without such a choice.
    """

    nats: Sequence[float] = ()
    characters: Sequence[int] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    size: dict[str, Any] | None = None


def mean(figures: Iterable[float | None]) -> float | None:
    """Return the mean of some figures; None if one of them is not known."""
    known = []
    for figure in figures:
        if figure is None:
            return None
        known.append(figure)
    return fmean(known)


def summarize(trainings: Sequence[Training]) -> dict[str, Any]:
    """Return the fields of ``TrainedTrial`` for trainings that differ in their seeds only."""
    last = trainings[-1]
    # a training that has failed stands for all
    shown = next((each for each in trainings if each.outcome == "failed"), last)
    interval = None
    spread = None
    if all(training.nats for training in trainings):
        nats = np.array([training.nats for training in trainings])  # (seeds, texts)
        characters = np.array(last.characters)
        interval = find_interval(nats.mean(axis=0), characters)
        spread = find_seed_spread(nats, characters)
    return {each.name: getattr(shown, each.name) for each in fields(TrainedTrial)} | {
        "bits": mean(training.bits for training in trainings),
        "interval": interval,
        "seeds": len(trainings),
        "spread": None if spread is None else spread.deviation,
        "seconds": math.fsum(training.seconds for training in trainings),
        "impossible": mean(training.impossible for training in trainings),
        "processor_share": mean(training.processor_share for training in trainings),
    }


def describe_unequal(shares: Mapping[str, float | None]) -> str | None:
    """Return a sentence on the rows of a table whose trainings had less processor time than others
    in the same time, as on a busy machine; None if all had about the same.

    Args:
        shares: The processor share of each row by its name; see ``TrainedTrial.processor_share``.

    >>> describe_unequal({"whole": 0.98, "Muon": 0.9}) is None
    True
    >>> describe_unequal({"whole": 0.98, "Muon": 0.4})[:64]
    'Not comparable with the other rows, since a processor worked les'
    """
    known = {name: share for name, share in shares.items() if share is not None}
    most = max(known.values(), default=0.0)
    slow = {name: share for name, share in known.items() if share < (1 - _UNEQUAL) * most}
    if not slow:
        return None
    rows = ", ".join(f"{name} ({share:.0%} of its time)" for name, share in slow.items())
    return (
        f"Not comparable with the other rows, since a processor worked less for them: {rows}; for"
        f" others up to {most:.0%}. On a busy machine, give steps instead of a time budget."
    )


def train_run(
    run: Run, watch: Callable[[Report], bool | None] | None = None
) -> tuple[Report, float | None]:
    """Train to the end, or until ``watch`` returns True for a report.

    Returns:
        The last report, and the processor share; see ``TrainedTrial.processor_share``.
    """
    started = time.monotonic()
    processor_started = time.thread_time()
    last = None
    for report in run:  # only the last one is kept: an hour of training gives very many
        last = report
        if watch is not None and watch(report):
            break
    if last is None:
        raise TrainingError("The training ended before its first step.")
    if last.stopped != StopReason.BUDGET_SPENT or not last.device.startswith("cpu"):
        return last, None
    processor_seconds = time.thread_time() - processor_started
    return last, min(1.0, processor_seconds / max(1e-9, time.monotonic() - started))


class Experiment:
    """Trainings of the same preset or model on the same source with different settings.

    Args:
        function: The name of the public function, such as "sweep", then the names of its own
            arguments; for messages.
        start: A preset, or a trained model to train further.
        source: The reviews.
        settings: Settings of all trainings, by group; see ``check_groups``.
        options: Other arguments of ``reviewgen.train``, for all trainings.
        seeds: The number of trainings of each trial.
        measure: Called with each trained run; returns what only this experiment measures, as JSON
            values.
        split: The split of the held-out texts to score; by default the test split, or the
            validation split if there are no test texts.
        needs_bits: Whether a model without bits per character is an error.

    Attributes:
        settings: The settings of all trainings, by group.
        facts: Further facts that all trials depend on, as JSON values.

    Raises:
        ConfigError: A keyword is unknown, or makes sense for a single training only.
    """

    def __init__(
        self,
        function: Sequence[str],
        start: Any,
        source: Any,
        settings: Any,
        options: ExperimentKwargs,
        *,
        seeds: int = 1,
        measure: Callable[[Run], dict[str, Any]] | None = None,
        split: str | None = None,
        needs_bits: bool = True,
    ) -> None:
        name, *arguments = function
        for group in GROUPS:
            if group in options:
                raise ConfigError(
                    f"{name} takes {group} settings in settings, as in"
                    f" settings={{{quoted(group)}: {{...}}}}."
                )
        refuse_unknown_options(options, ExperimentKwargs, name, others=arguments)
        check_count("seeds", seeds)
        self.settings = check_groups(settings)
        self.facts: dict[str, Any] = {}
        self._start = start
        self._source = source
        self._options = options
        self._seeds = seeds
        self._measure = measure
        self._split = split
        self._store = TrialStore(name, None)
        # errors of scoring that leave the bits unknown
        self._tolerated = () if needs_bits else (NotADistribution,)
        self._is_identified = False
        self._corpora: list[tuple[Any, PreparedCorpus]] = []  # each with its key; see ``corpus``

    def open_store(self, kind: str, name: str, path: Any, **how: bool) -> None:
        """Keep the results of finished trainings on disk, if the user has given a path.

        Args:
            kind: What the experiment is, for messages.
            name: The name of the argument with the path, for messages.
            path: The path.
            how: Flags of ``TrialStore``.

        Raises:
            ConfigError: There are several processes; or the path is not one.
            OutputExists, CheckpointError, StorageError: See ``TrialStore``.
        """
        target = None if path is None else to_path(name, path)
        if target is not None and process_state().num_processes > 1:
            raise ConfigError(
                f"The trials of several processes are not kept: leave out {name}, or run without a"
                " launcher."
            )
        self._store = TrialStore(kind, target, **how)

    def skip_copy_rates(self, training: TrainingConfig) -> None:
        """Switch the novelty index and copy rates off, since they take time. They stay on if the
        training needs them to choose which weights to keep.
        """
        if training.keep == "best":
            self.settings["training"] = {"novelty": "none", "copy_tokens": 0} | self.settings[
                "training"
            ]

    def plan(self, changed: Mapping[str, Any]) -> TrainingPlan:
        """Return the plan of a training with some settings changed, as in {"model.order": 4}.

        Raises:
            ConfigError: A setting is unknown or out of range, or is both changed and set for all
                trainings; or the preset is a blend.
        """
        groups: Any = check_groups(self.settings)
        for setting, value in changed.items():
            group, name = split_name(setting)
            if name in groups[group]:
                raise ConfigError(f"{setting} is both set and varied; do one of the two.")
            groups[group][name] = value
        options: Any = {**self._options, **groups}
        plan = make_plan(self._start, self._source, options)
        if plan.setup.components:
            raise ConfigError(
                f"{plan.preset} is a blend of several models: give one of them, {plan.setup.names}."
            )
        return plan

    def corpus(self, plan: TrainingPlan) -> PreparedCorpus:
        """Return the prepared corpus of a plan. It is read and tokenized once for all plans that
        prepare it in the same way.
        """
        setup = plan.setup
        # what the preparation of a corpus depends on
        key = (
            plan.data,
            setup.tokenizer_plugin,
            setup.tokenizer_config,
            setup.training.novelty,
            setup.training.novelty_mb,
        )
        for known_key, corpus in self._corpora:
            if known_key == key:
                return corpus
        corpus = tokenize(plan, read_plan(plan))
        self._corpora.append((key, corpus))
        return corpus

    def _identify(self, plan: TrainingPlan) -> None:
        """Check that the store belongs to the same facts, which all trials depend on. If the store
        is new, write the facts to it.

        Raises:
            CheckpointError: The store has trials with other facts.
        """
        if not self._is_identified:
            fingerprint = self.corpus(plan).texts.fingerprint
            # the plan of no varied settings has the facts that are the same for all trials
            self._store.identify({"corpus": fingerprint, **self.plan({}).facts(), **self.facts})
            self._is_identified = True

    def stored_figures(self, plan: TrainingPlan) -> list[dict[str, Any]]:
        """Return the figures of each finished training in the store, in the order of training.

        Args:
            plan: The plan of any training of the experiment, which the store must belong to.

        Raises:
            CheckpointError: The store has trials with other settings.
        """
        self._identify(plan)
        return [results["figures"] for results in self._store.results.values()]

    def train(
        self,
        name: str,
        changed: Mapping[str, Any],
        *,
        watch: Callable[[Report], bool | None] | None = None,
        figures: dict[str, Any] | None = None,
        may_fail: bool = False,
    ) -> list[Training]:
        """Train a trial from each seed, unless the store has the results; return the results.

        Args:
            name: The name of the trial.
            changed: Its settings, as in {"model.order": 4}.
            watch: Called with each report; if it returns True, the training is pruned.
            figures: Figures to store with the results; ``watch`` may add to them. A trial with
                figures is trained even if another trial had the same settings.
            may_fail: Whether the result of a training that ends with an error is "failed"; by
                default, the error is raised.

        Raises:
            CheckpointError: The store has trials with other settings.
            NotADistribution: The model has no bits per character, and they are needed.
        """
        trainings = []
        for number in range(self._seeds):
            plan = self.plan(changed)
            plan = replace(plan, seed=plan.seed + number)
            self._identify(plan)
            key = plan.digest() if figures is None else f"{name}: {plan.digest()}"
            size_key: Any = (plan.preset, plan.length.seconds)
            if key not in self._store.results:
                training = Training(name=name, settings=changed, figures=figures or {})
                try:
                    training = self._train(plan, training, watch)
                except _FAILURES as error:
                    if not may_fail or isinstance(error, ProcessLost):
                        raise
                    training = replace(training, outcome="failed", problem=str(error))
                training = replace(training, size=self.corpus(plan).sizes.get(size_key))
                self._store.add(key, asdict(training))
            stored = Training(**self._store.results[key])
            # another trial may have had the same settings under another name
            training = replace(stored, name=name, settings=changed)
            if training.size is not None:
                self.corpus(plan).sizes[size_key] = training.size
            trainings.append(training)
        return trainings

    def _train(
        self,
        plan: TrainingPlan,
        training: Training,
        watch: Callable[[Report], bool | None] | None,
    ) -> Training:
        """Train a run, and return ``training`` with the results; see ``train``."""
        corpus = self.corpus(plan)
        run = Run(plan)
        # all runs on a prepared corpus get the model size that was chosen for the first of them
        run.start_on(corpus)
        last, processor_share = train_run(run, watch)
        result = replace(
            training,
            steps=last.step,
            seconds=round(last.seconds, 2),
            processor_share=processor_share,
            outcome="done" if last.stopped else "pruned",
            problem=" ".join(last.notes) if last.stopped == StopReason.DIVERGED else None,
        )
        if not last.stopped:
            return result
        store = corpus.stores["train"]
        characters = last.tokens * int(store.characters.sum()) / store.count
        training_seconds = last.seconds - last.evaluation_seconds
        is_timed = training_seconds > 0.01 * last.seconds and not plan.setup.is_counted
        with suppress(*self._tolerated):
            tokens = plan.setup.training.evaluation_tokens if self._split else _HELD_OUT_TOKENS
            documents = sample_documents(corpus.stores[self._split or corpus.final_split], tokens)
            result = _with_bits(result, run.model, documents, corpus.tokenizer.vocab_size)
        return replace(
            result,
            characters_per_second=characters / training_seconds if is_timed else None,
            parameters={kind: int(size) for kind, size in count_parameters(run.model).items()},
            megabytes=sum(tensor.nbytes for tensor in run.model.state_dict().values()) / 1e6,
            figures=training.figures | (self._measure(run) if self._measure else {}),
        )


def _with_bits(
    training: Training, model: LanguageModel, documents: list[Document], vocab_size: int
) -> Training:
    """Return ``training`` with the bits of some documents under the model.

    Raises:
        NotADistribution: The model's scores do not sum to one.
    """
    nats = list[float]()
    totals = evaluate_totals(model, documents, vocab_size, nats=nats)
    return replace(
        training,
        nats=nats,
        characters=[characters for _, characters in documents],
        bits=math.fsum(nats) / math.log(2) / max(1, totals.characters),
        impossible=totals.zero_probability_tokens / totals.tokens,
    )
