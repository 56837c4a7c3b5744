"""The manifest of a saved folder: changes are found and named, accepted on demand, and what writes
a folder keeps it true.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.errors import BundleError
from tests.support.saved import WEIGHTS, edit_json, refusal

INDEX = "novelty.safetensors"
GENERATION = "generation_config.json"
LISTED = [
    "characters.json",
    "config.json",
    GENERATION,
    "bigrams.safetensors",
    "lexicon.safetensors",
    WEIGHTS,
    INDEX,
    "training.json",
]


@pytest.fixture
def saved(model_folder, tmp_path) -> Path:
    return Path(shutil.copytree(model_folder("gru-char"), tmp_path / "m"))


def by_hand(folder: Path) -> dict[str, Any]:
    """Return what the manifest should say, without the code that writes it."""
    return {
        name: {
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            "size": (folder / name).stat().st_size,
        }
        for name in LISTED
        if (folder / name).exists()
    }


def manifest(folder: Path) -> dict[str, Any]:
    files: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["files"]
    return files


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["gru-char", "ngram-char"])
def test_each_file_but_the_card_is_listed_and_every_flipped_bit_is_found(
    model_folder, tmp_path, name
):
    folder = Path(shutil.copytree(model_folder(name), tmp_path / "m"))
    assert manifest(folder) == by_hand(folder) and {INDEX, WEIGHTS} < manifest(folder).keys()
    assert {path.name for path in folder.iterdir()} == {
        *manifest(folder),
        "README.md",
        "manifest.json",
    }
    for file in manifest(folder):
        data = (folder / file).read_bytes()
        for bit in range(3, 8 * len(data), max(1, 8 * len(data) // 5)):
            flip(folder / file, bit)
            assert refusal(folder) != "it was read", (file, bit)
            (folder / file).write_bytes(data)
    assert reviewgen.load(folder).generate_one(seed=1)


def test_a_change_is_named_with_what_to_do(saved):
    flip(saved / WEIGHTS, 8 * (saved / WEIGHTS).stat().st_size - 20)
    message = refusal(saved)
    assert (
        message.startswith(f"{WEIGHTS} of {saved} has changed")
        and f"reviewgen doctor {saved} --accept" in message
    )
    assert reviewgen.load(saved, accept_changes=True).generate_one(seed=1)


def test_curves_are_not_plotted_from_a_record_that_has_changed(saved, tmp_path):
    edit_json(saved / "training.json", "seed", value=5)
    with pytest.raises(BundleError, match="changed"):
        reviewgen.plot_training([saved], tmp_path / "a.svg")


def test_the_card_can_be_edited_and_added_and_removed_files_are_named(saved):
    (saved / "README.md").write_text("My model.")
    assert reviewgen.load(saved).bundle.card == "My model."
    index = (saved / INDEX).read_bytes()
    (saved / INDEX).unlink()
    assert refusal(saved).startswith(f"{INDEX} of {saved} is missing")
    files = manifest(saved)
    del files[INDEX]
    edit_json(saved / "manifest.json", "files", value=files)
    assert reviewgen.load(saved).bundle.index is None
    (saved / INDEX).write_bytes(index)
    assert refusal(saved).startswith(f"{INDEX} of {saved} was not saved with the model")


@pytest.mark.wrong_types
def test_doctor_accepts_an_edit_that_can_be_read(saved, run_command):
    edit_json(saved / GENERATION, "temperature", value=0.25)
    status, out, said = run_command("doctor", saved)
    assert status == 1 and GENERATION in said and not out
    status, out, _ = run_command("doctor", saved, "--accept", "--json")
    assert status == 0 and json.loads(out)["accepted"] == [GENERATION]
    assert reviewgen.load(saved).generation_config.temperature == 0.25
    assert "no file has changed" in run_command("doctor", saved)[1]
    edit_json(saved / GENERATION, "temperature", value="warm")
    status, _, said = run_command("doctor", saved, "--accept")
    assert status == 1 and "temperature" in said


def test_saved_defaults_and_the_manifest_agree_and_a_copy_of_a_folder_without_one_has_one(
    saved, tmp_path
):
    reviewgen.load(saved).save_generation_config(saved, temperature=0.3)
    assert reviewgen.load(saved).generation_config.temperature == 0.3 and manifest(
        saved
    ) == by_hand(saved)
    assert {path.name for path in saved.iterdir()} == {*LISTED, "README.md", "manifest.json"}
    (saved / "manifest.json").unlink()
    reviewgen.load(saved).save_generation_config(tmp_path / "copy", top_k=3)
    assert manifest(tmp_path / "copy") == by_hand(tmp_path / "copy")


def test_the_digest_is_that_of_what_was_loaded(saved, model_folder, tmp_path):
    names = sorted(set(manifest(saved)) - {GENERATION, "training.json"})  # which change no texts
    lines = [
        f"{name} {hashlib.sha256((saved / name).read_bytes()).hexdigest()}\n" for name in names
    ]
    expected = f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    model = reviewgen.load(saved)
    reviewgen.load(model_folder("ngram-char")).save_pretrained(saved, overwrite=True)
    assert model.digest == expected != reviewgen.load(saved).digest
