"""Settings under the names they had in earlier versions: saved models, blends, resumed runs and what users type."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from tests.support.fakes import TEXTS

OLD = {"compiled": "unrolled", "reference": "spelled"}


def of_an_earlier_version(folder: Path, to: Path, name: str) -> Path:
    """Copy a saved model and give each recurrent model in it an old name of its implementation."""
    shutil.copytree(folder, to)
    (to / "manifest.json").unlink()  # earlier versions wrote none

    def rename(value: dict[str, Any]) -> dict[str, Any]:
        return value | {"layer": name} if "layer" in value else value

    text = (to / "config.json").read_text(encoding="utf-8")
    changed = json.dumps(json.loads(text, object_hook=rename))
    assert f'"layer": "{name}"' in changed
    (to / "config.json").write_text(changed, encoding="utf-8")
    return to


@pytest.mark.parametrize("layer", OLD)
def test_a_saved_model_loads_is_saved_and_trained_further(
    layer: str, model_folder: Callable[[str], Path], micro: Callable[[str], Any], tmp_path: Path
) -> None:
    model = reviewgen.load(of_an_earlier_version(model_folder("gru-char"), tmp_path / "old", OLD[layer]))
    text = micro("gru-char").generate(seed=1, max_new_tokens=20)
    assert model.generate(seed=1, max_new_tokens=20) == text and model.model.config.layer == layer
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["model"]["config"]["layer"] == layer
    further = reviewgen.train(model, TEXTS, steps=2, training={"batch_size": 4})
    assert further.model.config.layer == layer
