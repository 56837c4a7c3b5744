"""The record of a run: its reports as learning curves, and what was measured. ``training_facts``
makes ``training.json`` of it.

The loss of one step is noisy, so the record keeps mean losses: over the steps since the last
evaluation, and since the last point of a thinned curve. The sums stay on the device. To convert a
sum to a number, the CPU must wait for the device; this happens a few hundred times in a run.
"""

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import torch
from torch import Tensor

from reviewgen.compiled.jit import clock
from reviewgen.config.bounded import to_json
from reviewgen.config.settings import to_dict
from reviewgen.config.training import TrainingConfig
from reviewgen.errors import TrainingError
from reviewgen.evaluation.evaluate import Evaluation
from reviewgen.novelty import COPY_CHARACTERS, CompactIndex, Index
from reviewgen.processes import launch_name
from reviewgen.protocols.abilities import count_parameters
from reviewgen.protocols.model import LanguageModel
from reviewgen.runs.corpus import PreparedCorpus
from reviewgen.runs.plan import LAUNCH, SETTINGS, TrainingPlan
from reviewgen.runs.setup import PAST, parent_facts
from reviewgen.runs.tracking import TERM
from reviewgen.training.report import Report, StopReason, find_verdict

T = TypeVar("T")
# number of evenly spaced points of the thinned curve; the first and last step and the evaluations
# are added to them
_POINTS = 200
# the record of a blend keeps these entries of the record of each of its models
_OF_PART = (*PAST, "config", "verdict", "evaluations", "curve")
_MEANS = ("since_evaluation", "since_point")  # the fields that are a ``Mean``


@dataclass
class Mean:
    """Accumulates the losses of steps for their means: the plain loss under the name "", and the
    model's own loss terms under their names.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step."""
        self.sums = {
            name: loss + self.sums[name] if name in self.sums else loss
            for name, loss in losses.items()
        }
        self.steps += 1

    def take(self) -> dict[str, float]:
        """Return the mean losses by name, and reset the sums."""
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        self.sums = {}
        self.steps = 0
        return means


@dataclass(kw_only=True)
class RunRecord:
    """What a run has done and measured so far. Each checkpoint saves the notes, the size, the
    learning curves and the sums of losses.

    Attributes:
        training: The training settings; for a blend, those of its network. With a time budget, some
            of them are chosen when the corpus is tokenized.
        notes: Sentences for the user, without repetitions.
        log: A sentence that says where the run is logged; None without a tracker.
        size: The model and training settings that were chosen for a time budget, by group ("model"
            and "training"); None if none were.
        last: The last report; before the first step, a report of zero tokens. Until a blend has its
            weights, the last report of the model that is trained.
        evaluations: The evaluations, as JSON values.
        points: A thinned curve of the training loss and the learning rate, as JSON values.
        is_interrupted: Whether the training, or the measuring after it, was interrupted.
        evaluation: The final evaluation; None before ``finish``, or if the model cannot be scored.
        copied: The copy rates of generated and held-out texts; empty if not measured.
        metrics: The facts on the metrics of generated texts, by name; their values are None until
            they are measured.
        token_copy_rate: The token copy rate of the held-out texts; None without a novelty index.
        bits_before: Bits per character on held-out texts of a model that is trained further, before
            the training; None for a new model.
        initial_tensors: Names of the tensors that come from a file of initial weights.
        weights: For a blend, how its weights were fitted; empty before that.
        parts: For a blend, the records of its models that have started so far, by preset.
        started: When the run was made, by ``clock``.
        seconds_before: Training time before the run was interrupted and resumed.
        measuring_seconds: Duration of the measuring after the training.
        split: The split of the final evaluation, and its number of texts.
        targets_per_character: Converts nats per token to nats per character.
        since_evaluation: The losses since the last evaluation.
        since_point: The losses since the last point.
    """

    training: TrainingConfig
    notes: list[str] = field(default_factory=list)
    log: str | None = None
    size: Mapping[str, Mapping[str, Any]] | None = None
    last: Report = field(default_factory=lambda: Report(0, 0.0, 0.0, 0))
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    is_interrupted: bool = False
    evaluation: Evaluation | None = None
    copied: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    token_copy_rate: float | None = None
    bits_before: float | None = None
    initial_tensors: list[str] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, "RunRecord"] = field(default_factory=dict)
    started: float = field(default_factory=clock)
    seconds_before: float = 0.0
    measuring_seconds: float = 0.0
    split: dict[str, Any] = field(default_factory=dict)
    targets_per_character: float = 1.0
    since_evaluation: Mean = field(default_factory=Mean)
    since_point: Mean = field(default_factory=Mean)

    def begin(self, corpus: PreparedCorpus, saved: Mapping[str, Any]) -> None:
        """Begin to record a training on a corpus, or continue from the fields that a checkpoint has
        saved, if there are any.
        """
        store = corpus.stores["train"]
        # every token is a target, except bos and the ids of conditions and fields
        targets = store.count - len(store) - int(store.given.sum())
        self.targets_per_character = targets / int(store.characters.sum())
        split = corpus.final_split
        self.split = {"split": split, "reviews_in_split": len(corpus.stores[split])}
        for name, value in saved.items():
            setattr(self, name, Mean(**value) if name in _MEANS else value)
        self.note(*corpus.notes)

    def to_checkpoint(self) -> dict[str, Any]:
        """Return the fields that a checkpoint saves: plain values and tensors."""
        return {
            "notes": [str(note) for note in self.notes],
            "size": self.size,
            "evaluations": self.evaluations,
            "points": self.points,
            **{name: vars(getattr(self, name)) for name in _MEANS},
        }

    @property
    def held_out(self) -> dict[str, Any] | None:
        """The final evaluation as JSON values, with the name of the split that was scored. None
        before ``finish``, or if the model cannot be scored.
        """
        return None if self.evaluation is None else self.split | self.evaluation.to_dict()

    def curve(self) -> dict[str, list[Any]]:
        """Return the points as columns: a list of values by name."""
        return {
            name: [point.get(name) for point in self.points]
            for name in (self.points[0] if self.points else ())
        }

    def note(self, *notes: str) -> None:
        """Add notes, except those that are recorded already, as in a resumed run."""
        self.notes += [note for note in notes if note not in self.notes]

    def add(self, report: Report) -> dict[str, Any] | None:
        """Add a report to the record. Return what the curves keep of it: a point, an evaluation, or
        both merged; None if they keep nothing.
        """
        self.last = report
        self.note(*report.notes)
        is_evaluated = report.sample is not None
        point = dict[str, Any]()
        position = {
            "step": report.step,
            "progress": report.progress,
            "seconds": round(report.seconds, 2),
            "tokens_seen": report.tokens,
            "learning_rate": report.learning_rate,
        }
        if report.loss is not None:
            losses = {"": report.loss, **report.losses}
            self.since_evaluation.add(losses)
            self.since_point.add(losses)
            # a run is divided into _POINTS equal intervals; the first step in each gives a point
            last_progress = self.points[-1]["progress"] if self.points else -1.0
            is_new = math.floor(report.progress * _POINTS) > math.floor(last_progress * _POINTS)
            if is_new or is_evaluated or report.stopped is not None:
                bptt = {} if report.bptt is None else {"bptt": report.bptt}
                point = position | bptt | self._losses(self.since_point)
                self.points.append(point)
        if not is_evaluated:
            return point or None
        evaluation = position | self._losses(self.since_evaluation)
        evaluation |= {
            "is_best": report.is_best,
            "token_copy_rate": report.token_copy_rate,
            "metrics": dict(report.metrics),
        }
        evaluation = to_json(evaluation)
        if report.evaluation is not None:
            evaluation |= report.evaluation.to_dict()
        self.evaluations.append(evaluation)
        # the merged entry has the loss of the point, the mean since the last point
        return {**evaluation, **point}

    def _losses(self, mean: Mean) -> dict[str, Any]:
        """Return the mean losses as entries of a curve, and reset the mean. An infinite number
        becomes None.
        """
        means = mean.take()
        nats = means.pop("", None)
        bits = None if nats is None else nats * self.targets_per_character / math.log(2)
        terms = {f"{TERM}{name}": value for name, value in means.items()}
        return dict(
            to_json({"train_nats_per_token": nats, "train_bits_per_character": bits, **terms})
        )


def novelty_facts(
    index: Index | None,
    corpus: str | None,
    copied: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]] = (),
    held_out_token_copy_rate: float | None = None,
) -> dict[str, Any] | None:
    """Return the facts on novelty for ``training.json``: on the index, and the copy rates of the
    model and of held-out texts. None if there is neither an index nor a copy rate.

    Args:
        index: The novelty index; None if there is none.
        corpus: The fingerprint of the corpus that the index and the rates refer to. A model that
            was trained further has seen other corpora too.
        copied: The copy rates in characters, as ``measure_texts`` returns them; empty if not
            measured.
        evaluations: The evaluations of the training. The last one that was the best so far gives
            the token copy rate: the share of 20-token windows of generated texts that the index
            contains.
        held_out_token_copy_rate: The token copy rate of held-out texts.
    """
    if index is None and copied.get("copy_rate") is None:
        return None
    token_copy_rates = [entry["token_copy_rate"] for entry in evaluations if entry["is_best"]]
    facts: dict[str, Any] = {
        "form": "none" if index is None else index.form,
        "corpus": corpus,
        "copy_characters": COPY_CHARACTERS,
        "copy_rate": None,
        "copy_rate_interval": None,
        "held_out_copy_rate": None,
        "copy_rate_texts": 0,
        "copy_rate_characters": 0,
        "token_copy_rate": token_copy_rates[-1] if token_copy_rates else None,
        "held_out_token_copy_rate": held_out_token_copy_rate,
    } | dict(copied)
    if isinstance(index, CompactIndex):
        rates = {str(length): rate for length, rate in index.false_positive_rates.items()}
        facts |= {"false_positive_rates": rates, "stride": index.stride}
    return facts


def order_parts(parts: Iterable[T], weights: Mapping[str, Any]) -> list[T]:
    """Return the parts of a blend in the order of the blend, which differs from the given order if
    one of its models mixes the others. ``weights`` are the facts on the blend's weights.
    """
    listed = list(parts)
    return [listed[number] for number in weights.get("order", range(len(listed)))]


def list_parts(
    facts: Sequence[Mapping[str, Any]], blend: Any, weights: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the entry "parts" of a blend's ``training.json``: for each of its models, its preset,
    its weight, and what is kept of its own ``training.json``, ``facts``. ``weights`` are the facts
    on the blend's weights.
    """
    return [
        {"preset": entries["preset"], "weight": weight}
        | {name: entries[name] for name in _OF_PART if name in entries}
        for entries, weight in zip(order_parts(facts, weights), blend.config.weights, strict=True)
    ]


def training_facts(
    plan: TrainingPlan,
    corpus: PreparedCorpus,
    record: RunRecord,
    model: LanguageModel | None,
    log_failure: str | None = None,
) -> dict[str, Any]:
    """Return the content of ``training.json``. For a blend, steps, tokens and the verdict are those
    of its network.

    Args:
        plan: The plan of the run.
        corpus: Its corpus.
        record: Its record.
        model: Its model; None for a blend whose weights are not fitted yet, and for a model of a
            blend.
        log_failure: A sentence on why logging has failed, if it has.

    Raises:
        TrainingError: The training of a blend's network, its last model, has not started.
    """
    if len(record.parts) < len(plan.setup.components):
        raise TrainingError(
            f"There is no record of {plan.preset} yet: iterate over the run to train its models."
        )
    # for a blend, the records of its count models, and that of its network
    *counted, network = record.parts.values() or [record]
    last = record.last
    stopped = last.stopped
    if stopped is None and record.is_interrupted:
        stopped = StopReason.INTERRUPTED
    evaluation_seconds = last.evaluation_seconds + record.measuring_seconds
    evaluation_seconds += sum(part.last.evaluation_seconds for part in counted)
    novelty = novelty_facts(
        corpus.index,
        corpus.texts.fingerprint,
        record.copied,
        record.evaluations,
        record.token_copy_rate,
    )
    origin = parent_facts(plan.setup.trained, record.bits_before)
    weights = plan.setup.initial_weights
    if weights is not None:
        origin["initial_weights"] = {
            "file": weights.file.name,
            "sha256": weights.digest,
            "tensors": record.initial_tensors,
        }
    launch = launch_name()
    return {
        "preset": plan.preset,
        **(_blend_facts(plan, corpus, record, model) if record.weights else {}),
        **origin,
        "seed": plan.seed,
        SETTINGS: plan.digest(),
        **({LAUNCH: launch} if launch else {}),
        # the option split is called "dataset_split", since ``corpus.facts`` has another "split"
        "data": plan.data.facts() | {"dataset_split": plan.data.split} | corpus.facts(),
        "config": to_dict(record.training),
        "budget_seconds": plan.length.seconds,
        "stopped": None if stopped is None else stopped.value,
        "steps": last.step,
        "tokens_seen": last.tokens,
        "seconds": round(clock() - record.started + record.seconds_before, 2),
        "evaluation_seconds": round(evaluation_seconds, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": last.device,
        "threads": last.threads,
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "verdict": asdict(find_verdict(network.evaluations, stopped, novelty)),
        "evaluations": record.evaluations,
        "curve": record.curve(),
        "novelty": novelty,
        "metrics": record.metrics,
        "parameters": None if model is None else count_parameters(model),
        "held_out": record.held_out,
        "notes": [*record.notes, *filter(None, [log_failure])],
    }


def _blend_facts(
    plan: TrainingPlan, corpus: PreparedCorpus, record: RunRecord, blend: Any
) -> dict[str, Any]:
    """Return the facts on the models of a blend, and on its weights."""
    facts = [
        training_facts(replace(plan, setup=setup), corpus, part, None)
        | {"seconds": round(part.last.seconds, 2)}
        for setup, part in zip(plan.setup.components, record.parts.values(), strict=True)
    ]
    return {"parts": list_parts(facts, blend, record.weights), "weights": record.weights}
