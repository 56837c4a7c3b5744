"""Web steppers beside Python's: a model as a folder that ``tests/support/javascript`` reads in
Node.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.config import to_dict
from reviewgen.web.composing import static_files
from tests.support.node import run_node

JAVASCRIPT = Path(__file__).parent / "javascript"
Pieces = Sequence[Sequence[int]]
"""A text in pieces that are fed one after another."""


def sources() -> dict[str, str]:
    """Return the source of each installed web stepper, by the name of the model."""
    return {
        point.name: point.load().read_text(encoding="utf-8")
        for point in entry_points(group="reviewgen.web_steppers")
    }


def write_model(
    folder: Path, name: str, model: Any, steppers: Mapping[str, str] | None = None
) -> Path:
    """Write a model's config and tensors, and the web steppers, to a folder."""
    tensors = {}
    blob = bytearray()
    for key, tensor in model.state_dict().items():
        array = tensor.detach().numpy()
        tensors[key] = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": len(blob)}
        blob += array.tobytes() + bytes(-array.nbytes % 8)
    folder.mkdir(exist_ok=True)
    (folder / "tensors.bin").write_bytes(blob)
    (folder / "model.json").write_text(
        json.dumps({"name": name, "config": to_dict(model.config), "tensors": tensors})
    )
    shared = static_files()["tensors.js"].read_text(encoding="utf-8")
    (folder / "sources.json").write_text(
        json.dumps({"tensors.js": shared, **(steppers or sources())})
    )
    return folder


def ask_node(folder: Path, **request: Any) -> dict[str, Any]:
    """Run the model of a folder in Node, and return its answer: see ``run_steppers.mjs``."""
    (folder / "request.json").write_text(json.dumps(request))
    answer: dict[str, Any] = json.loads(run_node(JAVASCRIPT / "run_steppers.mjs", str(folder)))
    return answer


def logits_in_node(folder: Path, texts: Sequence[Pieces], vocab_size: int) -> np.ndarray:
    """Return the logits after each piece of each text, (N, V), as the web stepper computes them."""
    ask_node(folder, texts=texts)
    return np.fromfile(folder / "logits.bin").reshape(-1, vocab_size)


def logits_in_python(stepper: Any, texts: Iterable[Pieces]) -> np.ndarray:
    """Return the same of a stepper in Python."""
    rows = []
    for pieces in texts:
        state = stepper.initial_state(1)
        for ids in pieces:
            logits, state = stepper.forward(np.array([ids], np.int64), state)
            rows.append(logits[0])
    return np.stack(rows)
