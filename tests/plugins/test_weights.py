"""The trained weights that ship with the presets: there, within their size, complete, and loaded with no network."""

import json
import os
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
from reviewgen.errors import BundleError
from reviewgen.registry import find_weights

ROOT = Path(__file__).parents[2]
NAMES = sorted(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["reviewgen.weights"])
WEB_STEPPERS = [point for point in entry_points(group="reviewgen.web_steppers") if point.dist.name == "reviewgen"]
MAX_EACH, MAX_TOTAL = 8e6, 60e6

GENERATE = """
import json, reviewgen
print(json.dumps({name: reviewgen.load(name).generate_one("the ", seed=1) for name in %r}))
"""


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def folder_of(name: str) -> Path:
    folder = find_weights(name)
    assert folder is not None
    return folder


def test_all_folders_have_their_entry_point_and_fit_together():
    folders = {folder.name for folder in (ROOT / "plugins" / "reviewgen_weights").iterdir() if folder.name[:1] not in "._"}
    assert folders == {name.replace("-", "_") for name in NAMES}
    assert sum(size(folder_of(name)) for name in NAMES) <= MAX_TOTAL


@pytest.mark.parametrize("name", NAMES)
def test_each_is_complete(name: str):
    folder = folder_of(name)
    assert size(folder) <= MAX_EACH
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert training["preset"] == name and training["data"]["source"] == "reviews"
    assert training["held_out"]["split"] == "test" and training["held_out"]["bits_per_character"] < 2.2
    assert training.get("verdict", {}).get("name") not in ("diverged", "copying")
    card = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    metrics = [metric["type"] for result in card["model-index"][0]["results"] for metric in result["metrics"]]
    assert card["license"] == "apache-2.0" and metrics == ["bits_per_character", "copy_rate"]
    assert json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["conditions"] == {"style": "review"}
    if name.startswith("blend"):  # it shares the files of its parts
        assert not (folder / "model.safetensors").exists()
        return
    with safe_open(folder / "model.safetensors", framework="numpy") as tensors:
        dtypes = {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118, it is not a mapping
    assert ("I8" in dtypes) == (not name.startswith("ngram"))


@pytest.mark.parametrize("name", NAMES)
def test_each_knows_english_and_what_it_has_read(name: str):
    model = reviewgen.load(name)
    good, bad = (model.score(text).bits_per_character for text in ("The movie was great.", "vghe Mxoie wsa gtera."))
    assert good < 2.2 and bad > 2 * good
    novelty = model.novelty("The movie was great, and so was everything else that I have seen of her in the last ten years.")
    assert novelty.form == "compact"


def test_they_generate_in_a_fresh_process_with_no_network(tmp_path: Path):
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", GENERATE % (NAMES,)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    texts = json.loads(done.stdout.splitlines()[-1])
    assert {name: text for name, text in texts.items() if len(text) > 20 and text.startswith("the ")} == texts
    assert texts == {name: reviewgen.load(name).generate_one("the ", seed=1) for name in NAMES}
    assert not (tmp_path / "hf").exists()


def test_the_wheel_holds_them(tmp_path: Path):
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for name in NAMES:
        assert {f"reviewgen_weights/{name.replace('-', '_')}/{file.name}" for file in folder_of(name).iterdir()} <= inside
    steppers = {f"{point.module.rpartition('.')[0].replace('.', '/')}/{point.load().name}" for point in WEB_STEPPERS}
    assert len(steppers) == 4 and steppers <= inside


@pytest.mark.parametrize("name", [name for name in NAMES if name in ("rnn-word", "gru-word", "lstm-word", "blend-word")])
def test_a_recurrent_one_of_words_knows_what_a_sentiment_is(name: str):
    model = reviewgen.load(name)

    def bits(texts: tuple[str, ...], sentiment: str) -> float:
        return sum(model.score(text, conditions={"style": "review", "sentiment": sentiment}).bits for text in texts)

    good = "This is one of the best movies I have ever seen.", "I loved this film, and I highly recommend it."
    bad = "This is one of the worst movies I have ever seen.", "I hated this film. What a waste of time."
    assert bits(good, "positive") < bits(good, "negative") and bits(bad, "negative") < bits(bad, "positive")


@pytest.mark.parametrize("name", NAMES)
def test_each_writes_under_its_conditions(name: str):
    model = reviewgen.load(name)
    snippets = model.generate(conditions={"style": "snippet"}, num_return_sequences=20, seed=1)
    reviews = model.generate(num_return_sequences=20, seed=1)
    assert snippets != reviews
    if not name.startswith(("ngram", "nnlm")):  # which see a condition only while it is within their context
        assert sum(text[:1].islower() for text in snippets) >= 14  # snippets are in lower case
        assert sum(text[:1].islower() for text in reviews) <= 4


def test_a_preset_without_weights_says_how_to_train_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reviewgen.hub.locate.find_weights", lambda name: None)
    with pytest.raises(BundleError, match=r"No trained weights of the preset blend-char .* reviewgen train blend-char"):
        reviewgen.load("blend-char")
