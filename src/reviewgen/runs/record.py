"""What training.json says of a run beside its curves: the corpus, and what is known of copying; all JSON values."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from reviewgen.conditions import Conditions
from reviewgen.data import SPLITS, Corpus, TokenStore
from reviewgen.novelty import CompactIndex, Index
from reviewgen.training import Report

__all__ = ["corpus_facts", "novelty_facts", "past_facts", "progress_facts"]

_PAST = ("preset", "data", "parts", "steps", "seconds", "held_out", "parent")


def corpus_facts(corpus: Corpus, stores: Mapping[str, TokenStore], conditions: Conditions) -> dict[str, Any]:
    """Return where the texts came from, how many there are, their conditions, and what cleaning did."""
    return {
        "source": corpus.stream.name,
        "validation_source": corpus.validation[0].name if corpus.validation else None,
        "validation_cleaning": asdict(corpus.validation[1]) if corpus.validation else None,
        "text_column": corpus.stream.text_column,
        "fingerprint": corpus.fingerprint,
        "reviews": {split: corpus.count(split) for split in SPLITS},
        "tokens": {split: stores[split].tokens for split in SPLITS},
        "conditions": conditions.to_json(),
        "cleaning": asdict(corpus.report),
    }


def progress_facts(last: Report | None, seconds: float) -> dict[str, Any]:
    """Return how far a run has come, by its last report, and what it ran on."""
    return {
        "steps": last.step if last else 0,
        "tokens_seen": last.tokens if last else 0,
        "seconds": round(seconds, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": last.device if last else None,
        "threads": last.threads if last else None,
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }


def past_facts(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of the training of a model that another one is made of."""
    return {name: training[name] for name in _PAST if name in training}


def novelty_facts(
    index: Index | None, corpus: str | None, evaluations: Sequence[Mapping[str, Any]], held_out_copy_rate: float | None
) -> dict[str, Any] | None:
    """Return what there is to say of the index, and how much of the model's own texts it knows, beside real reviews.

    ``corpus`` is the fingerprint of the one corpus that the index covers; a model that was trained further has seen others.
    """
    if index is None:
        return None
    kept = [evaluation for evaluation in evaluations if evaluation["is_best"]]
    facts = {
        "form": index.form,
        "corpus": corpus,
        "copy_rate": kept[-1]["copy_rate"] if kept else None,
        "held_out_copy_rate": held_out_copy_rate,
    }
    if isinstance(index, CompactIndex):
        rates = {str(length): rate for length, rate in index.false_positive_rates.items()}
        facts |= {"false_positive_rates": rates, "stride": index.stride}
    return facts
