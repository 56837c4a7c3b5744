"""Settings under the names they had in earlier versions: saved models, blends, resumed runs and what users type."""

import gc
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import TrainingRun
from reviewgen.config import parse_settings
from reviewgen.training import Checkpoints
from tests.support.fakes import TEXTS
from tests.support.trainings import prepared

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


def test_a_blend_loads(model_folder: Callable[[str], Path], micro: Callable[[str], Any], tmp_path: Path) -> None:
    blend = reviewgen.blend([micro("gru-char"), micro("ngram-char")], weights=[0.5, 0.5])
    blend.save_pretrained(tmp_path / "new")
    loaded = reviewgen.load(of_an_earlier_version(tmp_path / "new", tmp_path / "old", "spelled"))
    assert loaded.generate(seed=1, max_new_tokens=20) == blend.generate(seed=1, max_new_tokens=20)
    assert loaded.model.parts[0].config.layer == "reference"


@pytest.mark.parametrize("layer", OLD)
def test_users_may_give_the_old_name(layer: str) -> None:
    typed = parse_settings(["model.hidden_size=8", f"model.layer={OLD[layer]}"])  # after --set
    for model in (typed["model"], {"layer": OLD[layer]}):
        assert prepared("gru-char", model=model).model.config.layer == layer


@pytest.mark.parametrize("layer", ["compiled", "auto"])
def test_a_run_of_an_earlier_version_resumes(layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings and its checkpoint, which names the implementation that was the fastest, have the old names."""
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: True)

    def start(out: Path, resume: bool = False) -> TrainingRun:
        return prepared("gru-char", out=out, steps=12, resume=resume, model={"layer": layer, "zoneout": 0.1})

    expected = [report.nats_per_token for report in start(tmp_path / "whole")]
    list(itertools.takewhile(lambda report: report.step < 6, start(tmp_path / "cut")))
    gc.collect()  # as if the process had ended
    run = tmp_path / "cut.run" / "run.json"
    assert layer == "auto" or '"compiled"' in run.read_text()
    run.write_text(run.read_text().replace('"compiled"', '"unrolled"'))
    for folder in (tmp_path / "cut.run").glob("step-*"):
        state, digests = (folder / "state.json").read_text(), json.loads((folder / "digests.json").read_text())
        assert '"compiled"' in state
        (folder / "state.json").write_text(state.replace('"compiled"', '"unrolled"'))
        digests["state.json"] = hashlib.blake2b((folder / "state.json").read_bytes(), digest_size=32).hexdigest()
        (folder / "digests.json").write_text(json.dumps(digests))
    resumed = [report.nats_per_token for report in start(tmp_path / "cut", resume=True)]
    assert 0 < len(resumed) < 12 and resumed == expected[-len(resumed) :]
