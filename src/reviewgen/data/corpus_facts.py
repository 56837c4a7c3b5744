"""What is known of a corpus once its texts are tokenized, as JSON values: a token store keeps it and gives it back."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.data.cleaning import CleaningReport
from reviewgen.data.columns import TextStream
from reviewgen.data.corpus import SPLITS, Corpus

__all__ = ["corpus_from_json", "corpus_to_json"]

_STREAM = ("name", "text_column", "columns", "guessed", "preview", "decode_errors", "notes", "is_one_text")


def corpus_to_json(corpus: Corpus) -> dict[str, Any]:
    """Return the facts about a corpus, without its texts."""
    return {
        "fingerprint": corpus.fingerprint,
        "texts": {split: corpus.count(split) for split in SPLITS},
        "source": _describe(corpus.stream, corpus.report),
        "validation": None if corpus.validation is None else _describe(*corpus.validation),
        "notes": corpus.notes,
    }


def corpus_from_json(facts: Mapping[str, Any], folder: Path) -> Corpus:
    """Return the corpus that ``corpus_to_json`` described; its texts cannot be read."""
    counts = [facts["texts"][split] for split in SPLITS]
    splits = np.repeat(np.arange(len(SPLITS), dtype=np.uint8), counts)
    stream, report = _restore(facts["source"])
    validation = None if facts["validation"] is None else _restore(facts["validation"])
    return Corpus(folder / "texts", None, splits, facts["fingerprint"], stream, report, validation, list(facts["notes"]))


def _describe(stream: TextStream, report: CleaningReport) -> dict[str, Any]:
    return {"stream": {name: getattr(stream, name) for name in _STREAM}, "cleaning": asdict(report)}


def _restore(facts: Mapping[str, Any]) -> tuple[TextStream, CleaningReport]:
    return TextStream(examples=iter(()), **facts["stream"]), CleaningReport(**facts["cleaning"])
