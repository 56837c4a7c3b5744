"""A tokenizer whose config has changed since it was saved: the model loads with its novelty index, and so does what it saves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.errors import BundleError, CheckpointError
from reviewgen.registry import plugins
from reviewgen.runs import TrainingRun
from tests.support.fakes import TEXTS, LetterTokenizer

QUICK = {"batch_size": 4, "bptt": 16, "threads": 1, "precision": "no", "copy_tokens": 0, "evaluation_tokens": 300}
SIZES = {"hidden_size": 8, "embedding_size": 4, "layer": "fused"}


@dataclass(frozen=True, kw_only=True)
class FirstConfig:
    """The settings of version 1."""

    letters: int = 100


@dataclass(frozen=True, kw_only=True)
class SecondConfig:
    """The settings of version 2: one has another name, and one is new."""

    characters: int = 100
    normalise: bool = False

    @classmethod
    def migrate(cls, values: dict[str, Any], version: str) -> Mapping[str, Any]:
        if "letters" in values:
            values["characters"] = values.pop("letters")
        return {"normalise": False, **values}


class First(LetterTokenizer):
    """Version 1."""

    Config = FirstConfig  # type: ignore[assignment]


class Second(LetterTokenizer):
    """Version 2."""

    Config = SecondConfig  # type: ignore[assignment]


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {})
    reviewgen.register_tokenizer("changing", First)


@pytest.fixture
def saved(first: None, tmp_path: Path) -> Path:
    """A model of version 1, in a process with version 2."""
    reviewgen.train("gru-changing", TEXTS, steps=2, model=SIZES, training=QUICK, out=tmp_path / "old")
    reviewgen.register_tokenizer("changing", Second)
    return tmp_path / "old"


def test_a_model_with_an_index_loads_and_what_it_saves_loads_again(saved: Path, tmp_path: Path) -> None:
    model = reviewgen.load(saved)
    assert model.bundle.tokenizer_config == SecondConfig(characters=100) and model.bundle.index is not None
    model.save_pretrained(tmp_path / "new")
    again = reviewgen.load(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))["tokenizer"]["config"] == {
        "characters": 100,
        "normalise": False,
    }
    for each in model, again:
        report = each.novelty(TEXTS[0])
        assert report.longest_text in TEXTS[0] and report.longest_text
    again.save_pretrained(tmp_path / "third")
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("new", "third")]
    assert files[0] == files[1]


def test_an_index_of_another_corpus_is_refused_still(saved: Path, tmp_path: Path) -> None:
    reviewgen.load(saved).save_pretrained(tmp_path / "new")
    reviewgen.train("gru-changing", TEXTS[:30], steps=2, model=SIZES, training=QUICK, out=tmp_path / "other")
    (tmp_path / "new" / "novelty.safetensors").write_bytes((tmp_path / "other" / "novelty.safetensors").read_bytes())
    with pytest.raises(BundleError, match="belongs to another model"):
        reviewgen.load(tmp_path / "new")


def test_it_is_trained_further_and_blended(saved: Path, tmp_path: Path) -> None:
    model = reviewgen.load(saved)
    further = reviewgen.train(model, TEXTS, steps=2, training=QUICK, out=tmp_path / "further")
    assert further.bundle.tokenizer_config == SecondConfig() and reviewgen.load(tmp_path / "further").bundle.index is not None
    reviewgen.blend([model, reviewgen.load(tmp_path / "further")]).save_pretrained(tmp_path / "blend")
    assert reviewgen.load(tmp_path / "blend").bundle.index is not None


def test_a_run_that_an_earlier_version_has_started_resumes(first: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reviewgen.training.checkpoints._SHARE", 1e9)

    def start(resume: bool, **tokenizer: Any) -> TrainingRun:
        training = QUICK | {"checkpoint_seconds": 1e-9}
        run = TrainingRun(
            "gru-changing", TEXTS, steps=6, model=SIZES, tokenizer=tokenizer, training=training, out=tmp_path / "a", resume=resume
        )
        run.read()
        return run

    run = start(resume=False, letters=50)
    run.tokenize()
    for report in run:
        if report.step == 3:
            break
    run._run_folder.checkpoints.close()  # type: ignore[union-attr]
    reviewgen.register_tokenizer("changing", Second)
    with pytest.raises(CheckpointError, match=r"was started with tokenizer\.characters=50, not tokenizer\.characters=40"):
        start(resume=True, characters=40)
    resumed = start(resume=True, characters=50)
    resumed.tokenize()
    assert next(iter(resumed)).step > 1
    resumed._run_folder.checkpoints.close()  # type: ignore[union-attr]
