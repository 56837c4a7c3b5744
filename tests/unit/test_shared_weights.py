"""A blend of installed weights has no file of its own: it reads those of its parts, and is the same model."""

import json
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.bundle import tensors as tensors_module
from reviewgen.bundle import write as write_module
from reviewgen.bundle.write import copy_bundle, share_weights
from reviewgen.errors import BundleError
from tests.support.fakes import GRU, NGRAM, TEXTS, train_tiny

PARTS = ("gru-char", "ngram-char")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with two installed presets, in 8 bits and as counted, and a saved blend of them."""
    for preset, settings, dtype in (("gru-char", GRU, "int8"), ("ngram-char", NGRAM, "float32")):
        options: Any = {"dtype": dtype} if dtype != "float32" else {}
        train_tiny(preset, tmp_path / "cache", **settings).save_pretrained(tmp_path / preset, **options)
    installed = {preset: tmp_path / preset for preset in PARTS}
    for module in (tensors_module, write_module):
        monkeypatch.setattr(module, "find_weights", installed.get)
    blend = reviewgen.blend([reviewgen.load(folder) for folder in installed.values()], [0.25, 0.75])
    blend.save_pretrained(tmp_path / "whole")
    blend.save_pretrained(tmp_path / "blend")
    return tmp_path


def test_a_blend_that_shares_weights_is_the_same_model_in_less_room(folders: Path) -> None:
    whole = reviewgen.load(folders / "whole")
    expected = whole.generate("the ", num_return_sequences=4, seed=1), whole.evaluate(TEXTS).bits_per_character
    share_weights(folders / "blend", PARTS)
    assert not (folders / "blend" / "model.safetensors").exists()
    shared = reviewgen.load(folders / "blend")
    assert (shared.generate("the ", num_return_sequences=4, seed=1), shared.evaluate(TEXTS).bits_per_character) == expected
    assert shared.digest is not None


def test_copies_and_saved_models_are_whole(folders: Path) -> None:
    share_weights(folders / "blend", PARTS)
    shared = reviewgen.load(folders / "blend")
    texts = shared.generate("the ", num_return_sequences=4, seed=1)
    copy_bundle(folders / "blend", folders / "copy")
    shared.save_pretrained(folders / "saved")
    shared.save_generation_config(folders / "colder", temperature=shared.generation_config.temperature)
    for name in ("copy", "saved", "colder"):
        assert (folders / name / "model.safetensors").is_file()
        assert "weights" not in json.loads((folders / name / "config.json").read_text())
        assert reviewgen.load(folders / name).generate("the ", num_return_sequences=4, seed=1) == texts


def test_a_cut_while_weights_are_shared_leaves_the_blend_whole(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in (folders / "blend").iterdir()}

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(write_module, "_write_json", cut)
    with pytest.raises(KeyboardInterrupt):
        share_weights(folders / "blend", PARTS)
    assert {file.name: file.read_bytes() for file in (folders / "blend").iterdir()} == before


def test_other_weights_are_refused(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (PARTS[::-1], PARTS[:1], ("gru-char", "lstm-char")):
        with pytest.raises(BundleError, match=r"are not the installed weights of|belongs to none"):
            share_weights(folders / "blend", wrong)
        assert (folders / "blend" / "model.safetensors").is_file(), "nothing is removed"
    share_weights(folders / "blend", PARTS)
    train_tiny("gru-char", folders / "cache", seed=1, **GRU).save_pretrained(folders / "gru-char", dtype="int8", overwrite=True)
    with pytest.raises(BundleError, match=r"uses the weights that ship with 'gru-char', which are other ones than"):
        reviewgen.load(folders / "blend")
    monkeypatch.setattr(tensors_module, "find_weights", {}.get)
    with pytest.raises(BundleError, match="uses the weights that ship with 'gru-char', which are not installed"):
        reviewgen.load(folders / "blend")


@pytest.mark.parametrize("name", ["blend", "gru-char"])
def test_weights_that_have_changed_are_not_shared(folders: Path, name: str) -> None:
    file = folders / name / "training.json"
    file.write_text(file.read_text() + " ")
    with pytest.raises(BundleError, match=r"training\.json of .* has changed since the model was saved"):
        share_weights(folders / "blend", PARTS)
    assert (folders / "blend" / "model.safetensors").is_file()


@pytest.mark.parametrize("parts", [[], {}, {"gru-char": 5}, "gru-char", {"gru-char": "x"}, {"../../etc": "x"}])
def test_a_damaged_list_of_parts_is_refused(folders: Path, parts: Any) -> None:
    share_weights(folders / "blend", PARTS)
    file = folders / "blend" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"weights": parts}))
    with pytest.raises(BundleError):
        reviewgen.load(folders / "blend")
