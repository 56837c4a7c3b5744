"""The presets, and the trained weights that ship with them: there, within their size, complete, and
loaded with no network.
"""

import json
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

import reviewgen
from reviewgen.config import from_dict, parse_preset
from reviewgen.registry.plugins import find_model, find_preset, find_tokenizer, find_weights

ROOT = Path(__file__).parents[2]
MODELS = ("ngram", "nnlm", "rnn", "gru", "lstm", "blend")
NAMES = sorted(f"{model}-{tokenizer}" for model in MODELS for tokenizer in ("char", "word"))
MAX_EACH = 8e6
MAX_TOTAL = 60e6


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def folder_of(name: str) -> Path:
    folder = find_weights(name)
    assert folder is not None
    return folder


def test_there_are_twelve_presets_each_with_weights_that_fit_together() -> None:
    assert (
        sorted(plugin.name for plugin in reviewgen.list_presets() if plugin.package == "reviewgen")
        == NAMES
    )
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "reviewgen.weights"
    ]
    folders = {
        folder.name
        for folder in (ROOT / "plugins" / "reviewgen_weights").iterdir()
        if folder.name[:1] not in "._"
    }
    assert sorted(points) == NAMES and folders == {name.replace("-", "_") for name in NAMES}
    assert sum(size(folder_of(name)) for name in NAMES) <= MAX_TOTAL
    for name in NAMES:
        preset = find_preset(name)
        parts = parse_preset(name)
        assert (preset.model, preset.tokenizer) == parts
        (cls, model), (_, tokenizer) = find_model(preset.model), find_tokenizer(preset.tokenizer)
        assert model.package == tokenizer.package == "reviewgen"
        if preset.model != "blend":
            config = from_dict(cls.Config, {"vocab_size": 50, **preset.model_settings})
            expected = {"ngrams": 5} if preset.model in ("rnn", "gru", "lstm") else {}
            assert (
                preset.tokenizer == "word"
                or preset.model == "ngram"
                or config == cls.Config(vocab_size=50, **expected)
            )


def test_each_folder_is_complete() -> None:
    for name in NAMES:
        folder = folder_of(name)
        assert size(folder) <= MAX_EACH
        training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        assert training["preset"] == name and training["data"]["source"] == "reviews"
        assert (
            training["held_out"]["split"] == "test"
            and training["held_out"]["bits_per_character"] < 2.2
        )
        assert training.get("verdict", {}).get("name") not in ("diverged", "copying")
        card = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
        metrics = [
            metric["type"]
            for result in card["model-index"][0]["results"]
            for metric in result["metrics"]
        ]
        assert card["license"] == "apache-2.0" and metrics == ["bits_per_character", "copy_rate"]
        generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        assert generation["conditions"] == {"style": "review"}
        if name.startswith("blend"):  # it shares the files of its parts
            assert not (folder / "model.safetensors").exists()
            continue
        with safe_open(folder / "model.safetensors", framework="numpy") as tensors:
            dtypes = {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118, it is not a mapping
        assert ("I8" in dtypes) == (not name.startswith("ngram"))


@pytest.mark.install
def test_the_wheel_holds_them(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for name in NAMES:
        assert {
            f"reviewgen_weights/{name.replace('-', '_')}/{file.name}"
            for file in folder_of(name).iterdir()
        } <= inside
    points = [
        point
        for point in entry_points(group="reviewgen.web_steppers")
        if point.dist and point.dist.name == "reviewgen"
    ]
    steppers = {f"{point.load().parent.name}/{point.load().name}" for point in points}
    assert len(steppers) == 4 and all(
        any(name.endswith(stepper) for name in inside) for stepper in steppers
    )
