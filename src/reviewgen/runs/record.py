"""The record of a run: what it has reported so far, its learning curves, and ``training.json``; all JSON values.

The loss of one step is noisy, so means are kept: over the steps since the last evaluation, and since the last point of a
thinned curve. Their sums stay on the device; converting one to a number waits for the device, a few hundred times a run.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from reviewgen.data import TokenStore
from reviewgen.evaluation import finite
from reviewgen.model import ReviewModel
from reviewgen.novelty import COPY_CHARACTERS, CompactIndex, Index
from reviewgen.runs.showing import TERM
from reviewgen.training import Report

_POINTS = 200  # of the thinned curve, spread evenly; the first step, the last one and the evaluations come on top
_SAVED = ("notes", "size", "evaluations", "points")  # in a checkpoint
_PAST = ("preset", "data", "parts", "steps", "seconds", "held_out", "parent")
_OF_PART = (*_PAST, "config", "verdict", "evaluations", "curve")
_ANCESTORS = 16  # trainings before that of the parent


@dataclass
class Mean:
    """The mean loss of some steps, and that of each of the model's own loss terms, by name; the plain loss has no name."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step."""
        self.sums = {name: loss + self.sums[name] if name in self.sums else loss for name, loss in losses.items()}
        self.steps += 1

    def take(self) -> dict[str, float]:
        """Return the means, and start again."""
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        self.sums, self.steps = {}, 0
        return means


@dataclass
class Curves:
    """The learning curves of a run: its evaluations, and a thinned curve of the loss and the learning rate between them."""

    targets_per_character: float = 1.0  # nats per token times this are nats per character
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)

    def curve(self) -> dict[str, list[Any]]:
        """Return the points as a list per name."""
        return {name: [point.get(name) for point in self.points] for name in (self.points[0] if self.points else ())}


@dataclass
class RunRecord(Curves):
    """What a run has reported so far. Each checkpoint saves a copy, without the last report.

    Attributes:
        notes: Sentences for the user, each once.
        size: The settings that were chosen for the run's time budget, if any, by group: "model" and "training".
        last: The last report; before the first step one of no tokens.
        means: The losses since the last evaluation, and since the last point.
    """

    notes: list[str] = field(default_factory=list)
    size: Mapping[str, Mapping[str, Any]] | None = None
    last: Report = field(default_factory=lambda: Report(0, 0.0, 0.0, 0))
    means: tuple[Mean, Mean] = field(default_factory=lambda: (Mean(), Mean()))

    @classmethod
    def of(cls, store: TokenStore, conditions: int, saved: Mapping[str, Any]) -> "RunRecord":
        """Return the record of a training on some texts: what a checkpoint has saved, or an empty one for an empty mapping."""
        targets_per_character = (store.tokens - len(store) * (1 + conditions)) / int(store.characters.sum())
        if not saved:
            return cls(targets_per_character)
        first, second = (Mean(**each) for each in saved["means"])
        return cls(targets_per_character, **{name: saved[name] for name in _SAVED}, means=(first, second))

    def to_checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint saves: JSON values and, in ``means``, tensors."""
        return {name: getattr(self, name) for name in _SAVED} | {"means": [vars(mean) for mean in self.means]}

    def note(self, *notes: str) -> None:
        """Add notes, except those that a resumed run has had before."""
        self.notes += [note for note in notes if note not in self.notes]

    def add(self, report: Report) -> dict[str, Any] | None:
        """Add a report; return what the curves keep of it, an evaluation, a point or both, if anything."""
        self.last = report
        self.note(*report.notes)
        kept: dict[str, Any] = {}
        position = {
            "step": report.step,
            "progress": report.progress,
            "seconds": round(report.seconds, 2),
            "tokens_seen": report.tokens,
            "learning_rate": report.learning_rate,
        }
        if report.loss is not None:
            for mean in self.means:
                mean.add({"": report.loss, **report.losses})
            before = self.points[-1]["progress"] if self.points else -1.0
            is_notable = report.sample is not None or report.stopped is not None
            if is_notable or math.floor(report.progress * _POINTS) > math.floor(before * _POINTS):
                length = {} if report.bptt is None else {"bptt": report.bptt}
                kept = position | length | self._losses(self.means[1])
                self.points.append(kept)
        if report.sample is not None:
            numbers = position | self._losses(self.means[0])
            numbers |= {"is_best": report.is_best, "token_copy_rate": report.token_copy_rate, "metrics": dict(report.metrics)}
            self.evaluations.append(finite(numbers | (asdict(report.evaluation) if report.evaluation else {})))
            kept = self.evaluations[-1] | kept  # the loss is that since the last point, as at the others
        return kept or None

    def _losses(self, mean: Mean) -> dict[str, Any]:
        """Return the mean losses since the last time, and take them from the mean; an infinite number becomes None."""
        means = mean.take()
        nats = means.pop("", None)
        bits = None if nats is None else nats * self.targets_per_character / math.log(2)
        own = {f"{TERM}{name}": value for name, value in means.items()}
        return finite({"train_nats_per_token": nats, "train_bits_per_character": bits, **own})


def part_facts(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of a blend keeps of the training of one of its models: also its settings and its curves."""
    return {name: training[name] for name in _OF_PART if name in training}


def parent_facts(trained: ReviewModel | None, held_out_bits: float | None) -> dict[str, Any]:
    """Return what is known of the model that is trained further, and of those before it; nothing for a new model.

    Args:
        trained: The model.
        held_out_bits: Its bits per character on the new held-out texts before the training.
    """
    if trained is None:
        return {}
    parent: dict[str, Any] = {"source": trained.bundle.source, "digest": trained.digest, "bits_per_character": held_out_bits}
    parent |= {name: copy.deepcopy(trained.training[name]) for name in _PAST if name in trained.training}
    oldest: dict[str, Any] = parent
    for _ in range(_ANCESTORS):  # JSON that is nested too deeply cannot be read again
        oldest = oldest.get("parent", {})
    oldest.pop("parent", None)
    return {"parent": parent}


def novelty_facts(
    index: Index | None,
    corpus: str | None,
    copied: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]] = (),
    held_out_token_copy_rate: float | None = None,
) -> dict[str, Any] | None:
    """Return the facts on the novelty index, and the copy rates of the kept model and of held-out texts.

    Args:
        index: The index; None without one.
        corpus: The fingerprint of the one corpus that all of this is about; a model that was trained further has seen others.
        copied: The copy rates in characters, as ``measure_texts`` returns them; empty if not measured.
        evaluations: Those of the training, for the share of 20-token windows that the index has found.
        held_out_token_copy_rate: The same share for held-out texts.
    """
    if index is None and copied.get("copy_rate") is None:
        return None
    kept = [evaluation for evaluation in evaluations if evaluation["is_best"]]
    facts: dict[str, Any] = {
        "form": "none" if index is None else index.form,
        "corpus": corpus,
        "copy_characters": COPY_CHARACTERS,
        "copy_rate": None,
        "copy_rate_interval": None,
        "held_out_copy_rate": None,
        "copy_rate_texts": 0,
        "copy_rate_characters": 0,
        "token_copy_rate": kept[-1]["token_copy_rate"] if kept else None,
        "held_out_token_copy_rate": held_out_token_copy_rate,
    } | dict(copied)
    if isinstance(index, CompactIndex):
        rates = {str(length): rate for length, rate in index.false_positive_rates.items()}
        facts |= {"false_positive_rates": rates, "stride": index.stride}
    return facts
