"""Runs that have saved their model: one that the launcher restarts has nothing left to do; the folder of one that was killed
before it could remove the folder is not needed.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_RECORD, read_json
from reviewgen.errors import ReviewgenError
from reviewgen.model import read_bundle
from reviewgen.model.layout import TRAINING
from reviewgen.storage import refuse_existing
from reviewgen.training import Checkpoints, StopReason

SETTINGS = "settings_digest"
"""Where the record of a training has the digest of what decides the run besides its corpus."""

_CUT_SHORT = (StopReason.INTERRUPTED.value, StopReason.PROCESS_ENDED.value)

_logger = logging.getLogger("reviewgen")


def run_folder_of(out: Path) -> Path:
    """Return the folder of the run that trains a model for an output folder."""
    return out.parent / f"{out.name}.run"  # of "." and "/", too, whose name is empty


def describe_result(training: Mapping[str, Any]) -> bytes:
    """Return the content of ``saved.json``: the digest of the record of a training, which no two trainings share."""
    return json.dumps({"training": _digest(training)}).encode()


def discard_finished(out: Path) -> bool:
    """Remove the folder of a run if it has saved its model in ``out`` and its process has ended; return whether it has."""
    folder = run_folder_of(out)
    try:
        expected = read_json(folder / Checkpoints.SAVED)["training"]
        if _digest(read_json(out / TRAINING, MAX_RECORD)) != expected:
            return False
        checkpoints = Checkpoints(folder, 0.0, 1)
        checkpoints.open()
    except (OSError, ValueError, KeyError, TypeError, ReviewgenError):  # another model, or a run in progress
        return False
    checkpoints.adopt()
    checkpoints.discard()
    _logger.warning("Removed %s: its run has saved the model, and was killed before it could remove it.", folder)
    return True


def find_finished(out: Path, settings: str) -> str | None:
    """Return the fingerprint of the corpus that a run of the same settings has trained the model in ``out`` on.

    Returns:
        None if nothing exists there.

    Raises:
        OutputExists: Something else exists there.
        BundleError: The model is damaged.
        StorageError: Nothing can be written there.
    """
    corpus: str | None = None
    try:
        training = read_json(out / TRAINING, MAX_RECORD)
        if training[SETTINGS] == settings and training["stopped"] not in _CUT_SHORT:
            corpus = str(training["data"]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):  # nothing, or another thing than a model
        pass
    if corpus is not None:
        read_bundle(out)
        return corpus
    refuse_existing(out)
    return None


def _digest(training: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()
