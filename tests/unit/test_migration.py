"""Saved configs of an earlier version of a plugin: read by its own migration, wherever a saved config is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

import reviewgen
from reviewgen.blending.stepper import SavedBlend
from reviewgen.bundle import read_bundle
from reviewgen.config import from_dict
from reviewgen.errors import BundleError, CheckpointError
from reviewgen.registry import plugins
from reviewgen.runs import TrainingRun
from reviewgen.testing.migration_law import migration
from tests.support.fakes import TEXTS

QUICK = {"batch_size": 4, "bptt": 16, "threads": 1, "precision": "no", "copy_tokens": 0, "evaluation_tokens": 300}


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Until version 1 the setting ``width`` was called ``units``; a run of this process saves the version ""."""

    vocab_size: int
    width: int = 3

    @classmethod
    def migrate(cls, values: dict[str, Any], version: str) -> Mapping[str, Any]:
        if version == "0.0":
            raise ValueError("models of 0.0 are gone; train again")
        if version == "0.1":
            return ["odd"]  # type: ignore[return-value]
        if version == "0.2":
            return {**values, "depth": 2}
        if "units" in values:
            values["width"] = values.pop("units")
        return values


class Table(nn.Module):
    """Logits from the last token alone, through a vector."""

    Config = TableConfig

    def __init__(self, config: TableConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.output = nn.Linear(config.width, config.vocab_size)

    def initial_state(self, batch_size: int) -> tuple[()]:
        return ()

    def forward(self, ids: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return self.output(self.embedding(ids)), ()


class TableStepper:
    """The same with NumPy."""

    Config = TableConfig

    def __init__(self, config: TableConfig, tensors: Mapping[str, np.ndarray], weight_bits: int = 32) -> None:
        self.tensors = tensors

    @staticmethod
    def expect(config: TableConfig) -> dict[str, Any]:
        v, w = config.vocab_size, config.width
        return {
            "embedding.weight": ("float32", (v, w)),
            "output.weight": ("float32", (v, w)),
            "output.bias": ("float32", (v,)),
        }

    def initial_state(self, batch_size: int) -> tuple[()]:
        return ()

    def forward(self, ids: np.ndarray, state: tuple[()]) -> tuple[np.ndarray, tuple[()]]:
        last = self.tensors["embedding.weight"][ids[:, -1]]
        return last @ self.tensors["output.weight"].T + self.tensors["output.bias"], ()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {})
    reviewgen.register_model("table", Table)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder that was saved with the setting ``units``."""
    reviewgen.train("table-char", TEXTS, steps=2, training=QUICK, out=tmp_path / "old")
    change(tmp_path / "old", "")
    return tmp_path / "old"


def change(folder: Path, version: str) -> None:
    """Rename the setting in config.json to its earlier name, and set the version that saved it."""
    file = folder / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    config = content["model"]["config"]
    config["units"] = config.pop("width", config.get("units"))
    content["model"]["version"] = version
    file.write_text(json.dumps(content), encoding="utf-8")
    (folder / "manifest.json").unlink(missing_ok=True)  # earlier versions wrote none


@pytest.mark.parametrize("is_stepped", [False, True])
def test_a_folder_with_an_older_config_loads(old: Path, is_stepped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_stepped:
        monkeypatch.setattr("reviewgen.bundle.read.find_stepper", lambda *_, **__: TableStepper)
    model = reviewgen.load(old)
    assert model.bundle.weights._model is None or not is_stepped  # generates without torch
    assert model.generate_one(seed=1, max_new_tokens=5) is not None
    assert model.bundle.model.config == TableConfig(vocab_size=model.tokenizer.vocab_size, width=3)
    assert np.array_equal(model.bundle.model.state_dict()["output.bias"], load_file(old / "model.safetensors")["output.bias"])
    model.save_pretrained(old.with_name("new"))
    saved = json.loads((old.with_name("new") / "config.json").read_text(encoding="utf-8"))
    assert saved["model"]["config"] == {"vocab_size": model.tokenizer.vocab_size, "width": 3}


def test_a_blend_reads_the_older_config_of_a_part(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = reviewgen.load(old)
    reviewgen.blend([model, model]).save_pretrained(old.with_name("blend"))
    file = old.with_name("blend") / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for part in content["model"]["config"]["models"]:
        part["config"]["units"] = part["config"].pop("width")
    file.write_text(json.dumps(content), encoding="utf-8")
    blend = reviewgen.load(old.with_name("blend"), accept_changes=True)
    assert blend.score("the movie").bits == pytest.approx(model.score("the movie").bits, rel=1e-5)
    monkeypatch.setattr("reviewgen.blending.stepper.find_stepper", lambda *_, **__: TableStepper)
    config = blend.bundle.model.config
    assert SavedBlend.expect(config) is not None
    stepper = SavedBlend(config, {name: tensor.numpy() for name, tensor in blend.bundle.model.state_dict().items()})
    ids = np.array([[3, 4]])
    expected = blend.bundle.model(torch.from_numpy(ids), blend.bundle.model.initial_state(1))[0][:, -1]
    np.testing.assert_allclose(stepper.forward(ids, stepper.initial_state(1))[0], expected.detach(), atol=1e-5)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("0.0", "TableConfig.migrate cannot read the config that version 0.0 has saved: models of 0.0 are gone; train again"),
        ("0.1", "must return the settings by name, as a dict; for the config that version 0.1 has saved it returned a list"),
        ("0.2", "settings that the config does not take, for the config that version 0.2 has saved: 'units' is not a setting"),
    ],
)
def test_a_migration_that_fails_is_one_sentence(old: Path, version: str, message: str) -> None:
    change(old, version)
    with pytest.raises(BundleError) as caught:
        read_bundle(old)
    assert message in str(caught.value) and len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_a_run_that_an_earlier_version_has_started_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reviewgen.training.checkpoints._SHARE", 1e9)
    training = QUICK | {"checkpoint_seconds": 1e-9}

    def start(resume: bool) -> TrainingRun:
        run = TrainingRun("table-char", TEXTS, steps=6, training=training, out=tmp_path / "a", resume=resume)
        run.read()
        return run

    run = start(resume=False)
    run.tokenize()
    for report in run:
        if report.step == 3:
            break
    run._run_folder.checkpoints.close()  # type: ignore[union-attr]
    file = tmp_path / "a.run" / "run.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["settings"]["model"]["units"] = content["settings"]["model"].pop("width")
    file.write_text(json.dumps(content), encoding="utf-8")
    resumed = start(resume=True)
    resumed.tokenize()
    assert next(iter(resumed)).step > 1
    resumed._run_folder.checkpoints.close()  # type: ignore[union-attr]
    content["settings"]["model"]["units"] = 4
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="width=4, not"):
        start(resume=True)


class Dropping(TableConfig):
    """Loses a setting."""

    @classmethod
    def migrate(cls, values: dict[str, Any], version: str) -> Mapping[str, Any]:
        return {"vocab_size": values["vocab_size"]}


class Versioned(TableConfig):
    """Takes every version for a number."""

    @classmethod
    def migrate(cls, values: dict[str, Any], version: str) -> Mapping[str, Any]:
        return values if float(version) > 0 else {**values}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Dropping, "Dropping.migrate changes the values of a current config, saved by version 0: it returns"),
        (Versioned, r"Versioned.migrate cannot read the config that version \? has saved: could not convert string to float"),
    ],
)
def test_the_law_finds_planted_faults(config: type, message: str) -> None:
    class Other(Table):
        Config = config

    with pytest.raises(AssertionError, match=message):
        migration(lambda: Other(from_dict(config, {"vocab_size": 5, "width": 4})))


def test_the_law_finds_a_migration_of_the_model() -> None:
    class Misplaced(Table):
        Config = dataclass(frozen=True, kw_only=True)(
            type("PlainConfig", (), {"__annotations__": {"vocab_size": int}, "width": 3})
        )

        @classmethod
        def migrate(cls, values: dict[str, Any], version: str) -> Mapping[str, Any]:
            return values

    with pytest.raises(AssertionError, match="must be a class method of PlainConfig and not of the model"):
        migration(lambda: Misplaced(Misplaced.Config(vocab_size=5)))
    migration(lambda: Table(TableConfig(vocab_size=5)))
