"""Micro models that tests share: trained once for all workers on ``TEXTS``, in a second each, and
read only.
"""

from pathlib import Path
from typing import Any

import reviewgen
from tests.support.fakes import TEXTS

__all__ = ["EXAMPLES", "MODELS", "SMALL", "TRAINING", "make_model"]

TRAINING: dict[str, Any] = {"evaluations": 1, "batch_size": 4}
SMALL: dict[str, Any] = {
    "steps": 5,
    "model": {"hidden_size": 8, "embedding_size": 4},
    "training": TRAINING,
}
"""Options of a training that must happen: five steps of a network with 8 hidden units."""
NGRAM: dict[str, Any] = {"model": {"order": 4}}
EXAMPLES = [{"text": text, "stars": str(1 + number % 5)} for number, text in enumerate(TEXTS)]
"""``TEXTS`` with a condition."""

MODELS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "ngram-char": ("ngram-char", TEXTS, NGRAM),
    "ngram-word": ("ngram-word", TEXTS, NGRAM),
    "nnlm-char": ("nnlm-char", TEXTS, SMALL),
    "rnn-char": ("rnn-char", TEXTS, SMALL),
    "gru-char": ("gru-char", TEXTS, SMALL),
    "gru-word": ("gru-word", TEXTS, SMALL),
    "lstm-char": ("lstm-char", TEXTS, SMALL),
    "lstm-word": ("lstm-word", TEXTS, SMALL),
    "blend-char": ("blend-char", TEXTS, {"steps": 5}),
    "conditional": ("gru-char", EXAMPLES, SMALL | {"conditions": ["stars"]}),
    "exact": ("ngram-char", TEXTS, NGRAM | {"training": {"novelty": "exact"}}),
}


def make_model(name: str, folder: Path) -> None:
    """Train one of ``MODELS`` and save it as ``folder/model``."""
    preset, data, options = MODELS[name]
    reviewgen.train(preset, data, **options).save_pretrained(folder / "model")
