"""Settings under the names they had in earlier versions: saved models, blends, resumed runs and what users type."""

import hashlib
import itertools
import json

import pytest

import reviewgen
from reviewgen import TrainingRun
from reviewgen.config import parse_settings
from reviewgen.training import checkpoints
from tests.support.fakes import TEXTS

OLD = {"compiled": "unrolled", "reference": "spelled"}
SMALL = {"hidden_size": 12, "embedding_size": 6}
TRAINING = {"batch_size": 4, "bptt": 8, "threads": 1, "precision": "no", "copy_tokens": 0, "evaluation_tokens": 500}


def train(layer, **options):
    return reviewgen.train("gru-char", TEXTS, steps=4, model=SMALL | {"layer": layer}, training=TRAINING, **options)


def replace_in(file, old, new):
    """Replace a quoted word in a file."""
    text = file.read_text(encoding="utf-8")
    assert f'"{old}"' in text
    file.write_text(text.replace(f'"{old}"', f'"{new}"'), encoding="utf-8")
    (file.parent / "manifest.json").unlink(missing_ok=True)  # earlier versions wrote none


@pytest.fixture(params=OLD)
def saved(request, tmp_path):
    """A saved model as an earlier version wrote it: its folder, the new name of its layer and a text of it."""
    model = train(request.param, out=tmp_path / "model")
    replace_in(tmp_path / "model" / "config.json", request.param, OLD[request.param])
    return tmp_path / "model", request.param, model.generate(seed=1, max_new_tokens=20)


def test_a_saved_model_loads_and_is_saved_under_the_new_name(saved, tmp_path):
    folder, layer, text = saved
    assert reviewgen.load(folder).generate(seed=1, max_new_tokens=20) == text
    model = reviewgen.load(folder)
    assert model.model.config.layer == layer
    assert model.generate(seed=1, max_new_tokens=20) == text
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["model"]["config"]["layer"] == layer


def test_a_saved_model_is_trained_further(saved):
    folder, layer, _ = saved
    model = reviewgen.train(reviewgen.load(folder), TEXTS, steps=2, training=TRAINING)
    assert model.model.config.layer == layer


def test_a_blend_of_old_models_and_an_old_blend_load(saved, tmp_path):
    folder, layer, _ = saved
    count = reviewgen.train("ngram-char", TEXTS, model={"order": 3})
    blend = reviewgen.blend([reviewgen.load(folder), count], weights=[0.5, 0.5])
    blend.save_pretrained(tmp_path / "blend")
    text = reviewgen.load(tmp_path / "blend").generate(seed=1, max_new_tokens=20)
    replace_in(tmp_path / "blend" / "config.json", layer, OLD[layer])
    assert reviewgen.load(tmp_path / "blend").generate(seed=1, max_new_tokens=20) == text
    assert reviewgen.load(tmp_path / "blend").model.parts[0].config.layer == layer


@pytest.mark.parametrize("layer", OLD)
def test_users_may_give_the_old_name(layer):
    assert train(OLD[layer]).model.config.layer == layer
    typed = parse_settings([f"model.{name}={value}" for name, value in (SMALL | {"layer": OLD[layer]}).items()])  # after --set
    run = TrainingRun("gru-char", TEXTS, steps=1, model=typed["model"], training=TRAINING)
    run.read()
    run.tokenize()
    assert run.model.config.layer == layer


@pytest.mark.parametrize("layer", ["compiled", "auto"])
def test_a_run_of_an_earlier_version_is_resumed(layer, tmp_path, monkeypatch):
    """Its settings and its checkpoint, which names the implementation that was the fastest, have the old names."""
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)  # a checkpoint at every step
    settings = {"model": SMALL | {"layer": layer, "zoneout": 0.1}, "training": TRAINING | {"checkpoint_seconds": 1e-9}}

    def begin(out, resume=False):
        run = TrainingRun("gru-char", TEXTS, out=out, steps=20, resume=resume, **settings)
        run.read()
        run.tokenize()
        return run

    expected = [report.nats_per_token for report in begin(tmp_path / "whole")]
    run = begin(tmp_path / "cut")
    list(itertools.takewhile(lambda report: report.step < 10, run))
    run._run_folder.checkpoints.close()
    if layer != "auto":
        replace_in(tmp_path / "cut.run" / "run.json", "compiled", "unrolled")
    for folder in (tmp_path / "cut.run").glob("step-*"):
        state, digests = json.loads((folder / "state.json").read_text()), json.loads((folder / "digests.json").read_text())
        assert '"compiled"' in json.dumps(state)
        (folder / "state.json").write_text(json.dumps(state).replace('"compiled"', '"unrolled"'))
        digests["state.json"] = hashlib.blake2b((folder / "state.json").read_bytes(), digest_size=32).hexdigest()
        (folder / "digests.json").write_text(json.dumps(digests))
    resumed = list(begin(tmp_path / "cut", resume=True))
    assert 0 < len(resumed) < 20
    assert [report.nats_per_token for report in resumed] == expected[-len(resumed) :]
