"""A saved folder from anyone: sizes, nesting, figures, weights and generation defaults within bounds; one sentence otherwise."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import reviewgen
from reviewgen.bundle import read, write
from reviewgen.errors import BundleError, ConfigError
from reviewgen.runs import record
from tests.support.fakes import GRU, NGRAM, TEXTS, train_tiny


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for preset, options in {"ngram-char": NGRAM, "gru-char": {"model": {"hidden_size": 8, "embedding_size": 8}}}.items():
        folders[preset] = tmp_path_factory.mktemp("saved") / preset
        train_tiny(preset, tmp_path_factory.mktemp("cache"), **options).save_pretrained(folders[preset])
    return folders


@pytest.fixture
def saved(originals: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals["ngram-char"], tmp_path / "model"))


def refused(folder: Path, said: str) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        reviewgen.load(folder)
    assert len(str(caught.value)) <= 500 + len(str(folder))
    assert "\n" not in str(caught.value)


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "training.json", "characters.json", "README.md"])
def test_a_sparse_file_of_three_gigabytes(saved: Path, name: str) -> None:
    os.truncate(saved / name, 3 << 30)
    refused(saved, name.replace(".", r"\."))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "training.json", "characters.json"])
@pytest.mark.parametrize("depth", [65, 985, 100_000])
def test_nesting(saved: Path, name: str, depth: int) -> None:
    (saved / name).write_text('{"a": ' * depth + "1" + "}" * depth)
    refused(saved, "damaged")


@pytest.mark.parametrize("bits", [10**90, -1, 1e300, "5", [1]])
def test_figures_that_are_not_plausible(saved: Path, bits: Any) -> None:
    change(saved / "training.json", held_out={"bits_per_character": bits})
    refused(saved, "bits_per_character should be a number from 0 to 1,000,000")


@pytest.mark.parametrize("preset", ["\x1b[2Jx", "lstm word", "lstm-word\n", "", "-", "../x", "a" * 100_000, "LSTM-WORD"])
def test_a_preset_that_is_not_a_name(saved: Path, preset: str) -> None:
    change(saved / "config.json", preset=preset)
    refused(saved, "preset in config.json cannot be read")


@pytest.mark.parametrize("preset", ["lstm-word", "lstm-word-large", "blend", "my-mingru:mingru-char", "lstm-my-bytes:bytes"])
def test_a_preset_that_is_a_name(saved: Path, preset: str) -> None:
    change(saved / "config.json", preset=preset)
    assert reviewgen.load(saved, accept_changes=True).preset == preset


@pytest.mark.parametrize("preset", ["ngram-char", "gru-char"])
@pytest.mark.parametrize("value", [3e38, -1e10, np.inf, np.nan])
def test_weights_that_are_not_plausible(originals: dict[str, Path], tmp_path: Path, preset: str, value: float) -> None:
    folder = Path(shutil.copytree(originals[preset], tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    name = max((name for name, array in tensors.items() if array.dtype == np.float32), key=lambda name: tensors[name].size)
    tensors[name] = tensors[name].copy()
    tensors[name].flat[0] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "is damaged")


@pytest.mark.parametrize("characters", [1e-320, 0.0, 1e300, -1.0])
def test_characters_per_token_of_an_index(saved: Path, characters: float) -> None:
    from safetensors import safe_open

    file = saved / "novelty.safetensors"
    with safe_open(file, framework="numpy") as tensors:
        header = json.loads(tensors.metadata()["reviewgen.novelty"])
    header["characters_per_token"] = characters
    save_file(load_file(file), file, metadata={"reviewgen.novelty": json.dumps(header)})
    refused(saved, "characters per token")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_new_tokens": 10**12, "min_new_tokens": 10**12}, "max_new_tokens is at most 100,000"),
        ({"max_new_tokens": 10**90}, "max_new_tokens is at most 100,000; got about 1e"),
        ({"max_new_tokens": 100_000, "min_new_tokens": 10_001}, "min_new_tokens is at most 10,000"),
        ({"max_new_tokens": 100_000, "num_beams": 11}, "max_new_tokens times num_beams is at most 1,000,000"),
        ({"no_repeat_ngram_size": 1_001}, "no_repeat_ngram_size is at most 1,000"),
        ({"temperature": [0.5] * 1_001}, "the number of temperatures is at most 1,000"),
        ({"stop_strings": ["a"] * 1_001}, "the number of stop_strings"),
        ({"stop_strings": ["a" * 1_001]}, "the length of a stop string"),
        ({"num_return_sequences": 10**12}, "num_return_sequences"),
    ],
)
def test_generation_defaults_that_would_hardly_end(saved: Path, settings: dict[str, Any], said: str) -> None:
    change(saved / "generation_config.json", **settings)
    refused(saved, said)


def test_the_number_of_texts_is_not_taken_from_a_folder(saved: Path) -> None:
    change(saved / "generation_config.json", num_return_sequences=10_000_000)
    model = reviewgen.load(saved, accept_changes=True)
    assert isinstance(model.generate_one("the ", seed=1), str)
    assert len(model.generate("the ", seed=1)) == 1
    assert model.generation_config.num_return_sequences == 1


def test_defaults_that_cannot_be_loaded_are_not_saved(saved: Path, tmp_path: Path) -> None:
    model = reviewgen.load(saved)
    for settings, said in (
        ({"num_return_sequences": 2}, "give it in each call"),
        ({"max_new_tokens": 100_001}, "at most 100,000"),
    ):
        with pytest.raises(ConfigError, match=said):
            model.save_generation_config(tmp_path / "new", **settings)
    assert len(model.generate("the ", max_new_tokens=3, num_return_sequences=2)) == 2


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("training.json", {"words": "x" * (1 << 24)}, "it would be larger than 16 MB"),
        ("training.json", {"empty": [[]] * 4_000_001}, "it has more than 4,000,000 values"),
        ("training.json", {"seconds": float("nan")}, "Out of range float values are not JSON compliant"),
        ("README.md", "x" * (1 << 20) + "x", "it would be larger than 1 MB"),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(saved: Path, tmp_path: Path, name: str, change: Any, said: str) -> None:
    model = reviewgen.load(saved)
    if name == "README.md":
        model.bundle.card = change
    else:
        model.bundle.training = {**model.training, **change}
    with pytest.raises(BundleError, match=rf"^{name} of the model cannot be saved: {said}"):
        model.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_the_curves_of_a_long_training_are_thinned_until_they_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (record, write, read):
        monkeypatch.setattr(room, "MAX_RECORD", 20_000)
    settings = {"batch_size": 4, "bptt": 8, "evaluations": 100, "copy_tokens": 0}
    run = reviewgen.TrainingRun("gru-char", TEXTS, steps=150, out=tmp_path / "long", training=settings, model=GRU["model"])
    run.read()
    run.tokenize()
    steps = [report.step for report in run if report.evaluation]
    model = run.finish()
    kept = reviewgen.load(tmp_path / "long").training
    assert kept == model.training and len((tmp_path / "long/training.json").read_bytes()) <= 20_000
    evaluated = [each["step"] for each in kept["evaluations"]]
    assert len(steps) > 50 > len(evaluated) > 4 and set(evaluated) < set(steps)
    assert evaluated[0] == steps[0] and evaluated[-3:] == steps[-3:]
    best = max(each["step"] for each in run.facts()["evaluations"] if each["is_best"])
    assert best in evaluated and kept["curve"]["step"][-1] == 150
    assert not (tmp_path / "long.run").exists()
