"""The record of a run: what it has reported so far, and the parts of ``training.json``; all JSON values."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch

from reviewgen.conditions import Conditions
from reviewgen.config import MAX_RECORD, dump_json
from reviewgen.data import SPLITS, Corpus, TokenStore
from reviewgen.model import ReviewModel
from reviewgen.novelty import COPY_CHARACTERS, CompactIndex, Index
from reviewgen.runs.curves import Curves
from reviewgen.training import Report
from reviewgen.training.verdict import LAST

_PAST = ("preset", "data", "parts", "steps", "seconds", "held_out", "parent")
_CURVES = ("verdict", "evaluations", "curve")
_ANCESTORS = 16  # trainings before that of the parent


@dataclass(frozen=True)
class ChosenSize:
    """Settings that were chosen for a time budget, because the user has set no size."""

    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CopyRates:
    """Copy rates in characters; None if not measured.

    Attributes:
        generated: Of generated texts.
        held_out: Of about as many characters of held-out texts.
        texts: The number of the generated texts.
        characters: The number of their characters.
    """

    generated: float | None = None
    held_out: float | None = None
    texts: int = 0
    characters: int = 0


@dataclass
class RunRecord:
    """What a run has reported so far. Each checkpoint saves it as it is then, except for the last report.

    Attributes:
        curves: The learning curves.
        notes: Sentences for the user, each once.
        size: The size that was chosen for the run's time budget, if any.
        last: The last report.
    """

    curves: Curves
    notes: list[str] = field(default_factory=list)
    size: ChosenSize | None = None
    last: Report | None = None

    @classmethod
    def restore(cls, targets_per_character: float, saved: Mapping[str, Any]) -> "RunRecord":
        """Return the record that a checkpoint has saved; an empty one for an empty mapping.

        Args:
            targets_per_character: See ``Curves``.
            saved: What ``to_checkpoint`` has returned.
        """
        evaluations = list(saved.get("evaluations", ()))
        points = list(saved.get("points", ()))
        curves = Curves(targets_per_character, evaluations, points, [dict(mean) for mean in saved.get("means", ())])
        sizes = [ChosenSize(**size) for size in saved.get("size", ())]
        return cls(curves, list(saved.get("notes", ())), sizes[0] if sizes else None)

    def to_checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint saves: JSON values and, in ``means``, tensors."""
        return {
            "notes": self.notes,
            "size": [] if self.size is None else [{"model": dict(self.size.model), "training": dict(self.size.training)}],
            "evaluations": self.curves.evaluations,
            "points": self.curves.points,
            "means": self.curves.means,
        }

    def note(self, *notes: str) -> None:
        """Add notes, except those that a resumed run has had before."""
        self.notes += [note for note in notes if note not in self.notes]

    def add(self, report: Report) -> dict[str, Any] | None:
        """Add a report; return what the curves keep of it, if anything."""
        self.last = report
        self.note(*report.notes)
        return self.curves.add(report)


def corpus_facts(corpus: Corpus, stores: Mapping[str, TokenStore], conditions: Conditions) -> dict[str, Any]:
    """Return where the texts came from, how many there are, their conditions, and what cleaning did."""
    return {
        "source": corpus.source.name,
        "validation_source": corpus.validation[0].name if corpus.validation else None,
        "validation_cleaning": asdict(corpus.validation[1]) if corpus.validation else None,
        "text_column": corpus.source.text_column,
        "fingerprint": corpus.fingerprint,
        "split": {"method": corpus.split_method, "words": corpus.describe_held_out()},
        "reviews": {split: corpus.count(split) for split in SPLITS},
        "tokens": {split: stores[split].tokens for split in SPLITS},
        "conditions": conditions.to_json(),
        "cleaning": asdict(corpus.report),
    }


def progress_facts(last: Report | None, seconds: float, final_evaluation_seconds: float) -> dict[str, Any]:
    """Return how far a run has come, by its last report, how its time was spent, and the hardware."""
    return {
        "steps": last.step if last else 0,
        "tokens_seen": last.tokens if last else 0,
        "seconds": round(seconds, 2),
        "evaluation_seconds": round((last.evaluation_seconds if last else 0.0) + final_evaluation_seconds, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": last.device if last else None,
        "threads": last.threads if last else None,
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }


def part_facts(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record of a blend keeps of the training of one of its models: also its settings and its curves."""
    return {name: training[name] for name in (*_PAST, "config", *_CURVES) if name in training}


def parent_facts(trained: ReviewModel | None, held_out_bits: float | None) -> dict[str, Any]:
    """Return what is known of the model that is trained further, and of those before it; nothing for a new model.

    Args:
        trained: The model.
        held_out_bits: Its bits per character on the new held-out texts before the training.
    """
    if trained is None:
        return {}
    parent = {"source": trained.bundle.source, "digest": trained.digest, "bits_per_character": held_out_bits}
    kept = {name: trained.training[name] for name in _PAST if name in trained.training}
    return {"parent": _forget(parent | kept, _ANCESTORS)}


def _forget(record: Mapping[str, Any], ancestors: int) -> dict[str, Any]:
    """Return a record with at most ``ancestors`` earlier trainings: JSON that is nested too deeply cannot be read again."""
    if "parent" in record and ancestors:
        return {**record, "parent": _forget(record["parent"], ancestors - 1)}
    return {name: value for name, value in record.items() if name != "parent"}


def thin_record(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record that can be saved and read again: every other point of its curves is left out as often as needed.

    The first evaluation, the best one and the last ones stay, and so in the records of a blend's models.
    """
    record = dict(training)
    while not _can_be_saved(record) and (thinner := _thin(record)) != record:
        record = thinner
    return record


def _can_be_saved(record: Mapping[str, Any]) -> bool:
    try:
        dump_json(record, MAX_RECORD)
    except ValueError:
        return False
    return True


def _thin(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without every other point of its curves."""
    evaluations = list(record.get("evaluations", ()))
    last = len(evaluations) - LAST - 1
    best = max((number for number, each in enumerate(evaluations) if each["is_best"]), default=0)
    thin = {
        "evaluations": [each for number, each in enumerate(evaluations) if number % 2 == 0 or number >= last or number == best],
        "curve": {name: values[::-2][::-1] for name, values in record.get("curve", {}).items()},
        "parts": [_thin(part) for part in record.get("parts", ())],
    }
    return {name: thin.get(name, value) for name, value in record.items()}


def novelty_facts(
    index: Index | None,
    corpus: str | None,
    copied: CopyRates,
    evaluations: Sequence[Mapping[str, Any]] = (),
    held_out_token_copy_rate: float | None = None,
) -> dict[str, Any] | None:
    """Return the facts on the novelty index, and the copy rates of the kept model and of held-out texts.

    Args:
        index: The index; None without one.
        corpus: The fingerprint of the one corpus that all of this is about; a model that was trained further has seen others.
        copied: The copy rates in characters.
        evaluations: Those of the training, for the share of 20-token windows that the index has found.
        held_out_token_copy_rate: The same share for held-out texts.
    """
    if index is None and copied.generated is None:
        return None
    kept = [evaluation for evaluation in evaluations if evaluation["is_best"]]
    facts = {
        "form": "none" if index is None else index.form,
        "corpus": corpus,
        "copy_characters": COPY_CHARACTERS,
        "copy_rate": copied.generated,
        "held_out_copy_rate": copied.held_out,
        "copy_rate_texts": copied.texts,
        "copy_rate_characters": copied.characters,
        "token_copy_rate": kept[-1]["token_copy_rate"] if kept else None,
        "held_out_token_copy_rate": held_out_token_copy_rate,
    }
    if isinstance(index, CompactIndex):
        rates = {str(length): rate for length, rate in index.false_positive_rates.items()}
        facts |= {"false_positive_rates": rates, "stride": index.stride}
    return facts
