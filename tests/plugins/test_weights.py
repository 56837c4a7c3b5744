"""The presets, and the trained weights that ship with them: there, within their size, complete, and
loaded with no network.
"""

import itertools
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
from reviewgen.config import from_dict
from reviewgen.config.names import parse_preset
from reviewgen.registry.plugins import find_model, find_preset, find_tokenizer, find_weights

ROOT = Path(__file__).parents[2]
MODELS = ("ngram", "nnlm", "rnn", "gru", "lstm", "blend")
NAMES = sorted("-".join(pair) for pair in itertools.product(MODELS, ("char", "word")))
MAX_EACH = 8e6
MAX_TOTAL = 60e6


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def folder_of(name: str) -> Path:
    folder = find_weights(name)
    assert folder is not None
    return folder


def test_there_are_twelve_presets_with_weights():
    own = {plugin.name for plugin in reviewgen.list_presets() if plugin.package == "reviewgen"}
    assert own == {*NAMES, "mixing-char", "transformer-char", "transformer-word"}
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


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_named_for_its_model_and_tokenizer(name):
    preset = find_preset(name)
    assert (preset.model, preset.tokenizer) == parse_preset(name)
    cls, model = find_model(preset.model)
    _, tokenizer = find_tokenizer(preset.tokenizer)
    assert model.package == tokenizer.package == "reviewgen"
    if preset.model != "blend":
        config = from_dict(cls.Config, {"vocab_size": 50, **preset.model_settings})
        expected = {"ngrams": 5} if preset.model in ("rnn", "gru", "lstm") else {}
        assert (
            preset.tokenizer == "word"
            or preset.model == "ngram"
            or config == cls.Config(vocab_size=50, **expected)
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_weights_is_complete(name):
    folder = folder_of(name)
    assert size(folder) <= MAX_EACH
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert training["preset"] == name and training["data"]["source"] == "reviews"
    assert training["held_out"]["split"] == "test"
    assert training["held_out"]["bits_per_character"] < 2.2
    assert training.get("verdict", {}).get("name") not in ("diverged", "copying")
    card = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    results = itertools.chain.from_iterable(
        result["metrics"] for result in card["model-index"][0]["results"]
    )
    metrics = [metric["type"] for metric in results]
    assert card["license"] == "apache-2.0" and metrics == ["bits_per_character", "copy_rate"]
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["conditions"] == {"style": "review"}


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_stored_in_8_bits_and_a_blend_shares_its_models(name):
    file = folder_of(name) / "model.safetensors"
    if name.startswith("blend"):
        assert not file.exists()
        return
    with safe_open(file, framework="numpy") as tensors:
        dtypes = {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118, it is not a mapping
    assert ("I8" in dtypes) == (not name.startswith("ngram"))


@pytest.mark.install
def test_the_wheel_holds_them(tmp_path):
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
    assert len(steppers) == 6 and all(
        any(name.endswith(stepper) for name in inside) for stepper in steppers
    )
