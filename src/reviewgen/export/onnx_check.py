"""Compares an ONNX file, run by onnxruntime, with the model that it was made from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reviewgen.errors import PluginError
from reviewgen.export.onnx_graph import flatten_state, names_of
from reviewgen.protocols import LanguageModel

TOLERANCE = 1e-4  # of a logit
CHUNKS = 1, 2, 17  # tokens in the first pieces; the others come in one


def check_onnx(file: Path, model: LanguageModel, texts: Sequence[Sequence[int]]) -> float:
    """Return the largest difference between logits of the file and of the model, over texts whole and in chunks.

    Args:
        file: The ONNX file.
        model: The model.
        texts: Ids of texts of one length; they are run one by one, and all at once.

    Raises:
        PluginError: A difference exceeds ``TOLERANCE``, or onnxruntime cannot run the file.
    """
    together = torch.tensor([list(text) for text in texts])
    batches = [*(row[None] for row in together), together]
    try:
        differences = _compare(file, model, batches)
    except Exception as error:  # onnxruntime's own classes, without a common one
        raise PluginError(f"onnxruntime cannot run the exported model: {' '.join(str(error).split())[:250]}") from None
    worst = max(differences)
    if not worst <= TOLERANCE:  # NaN, too
        raise PluginError(
            f"The logits of the exported model differ by {worst:.2g} from those of the model; at most {TOLERANCE:g} is accepted."
        )
    return worst


def _compare(file: Path, model: LanguageModel, batches: Sequence[Tensor]) -> list[float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    differences = []
    for ids in batches:
        with torch.no_grad():
            logits, _ = model(ids, model.initial_state(len(ids)))
        state = [np.zeros(first.shape, first.numpy().dtype) for first in flatten_state(model.initial_state(len(ids)))]
        whole = _run(session, state, [ids.numpy()])
        chunks = _run(session, state, _cut(ids.numpy()))
        differences += [float(np.abs(given - logits.float().numpy()).max()) for given in (whole, chunks)]
    return differences


def _run(session: Any, state: list[np.ndarray], pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logits of pieces of texts, each run with the state after the one before."""
    names, logits = names_of(len(state))[0], []
    for ids in pieces:
        scores, *state = session.run(None, dict(zip(names, (ids, *state), strict=True)))
        logits.append(scores)
    return np.concatenate(logits, axis=1)


def _cut(ids: np.ndarray) -> list[np.ndarray]:
    pieces = np.split(ids, np.cumsum(CHUNKS), axis=1)
    return [piece for piece in pieces if piece.shape[1]]
