"""The manifest of a saved folder: changes are found and named, accepted on demand, and what writes a folder keeps it true."""

import contextlib
import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen import ReviewModel
from reviewgen.bundle import read_bundle
from reviewgen.bundle import write as bundle_write
from reviewgen.bundle.manifest import write_manifest
from reviewgen.bundle.write import copy_bundle
from reviewgen.errors import BundleError, ConfigError, OutputExists
from tests.support.fakes import NGRAM, TEXTS, run_command, train_tiny

SMALL = {"model": {"hidden_size": 8}, "training": {"batch_size": 4, "bptt": 8, "threads": 1}}
LISTED = ["characters.json", "config.json", "generation_config.json", "lexicon.safetensors", "model.safetensors"]
LISTED += ["novelty.safetensors", "training.json"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    train_tiny("lstm-char", folder / "cache", TEXTS * 2, **SMALL).save_pretrained(folder / "lstm")
    train_tiny("ngram-char", folder / "cache", TEXTS * 2, **NGRAM).save_pretrained(folder / "ngram")
    return folder


@pytest.fixture
def saved(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "lstm", tmp_path / "m"))


def by_hand(folder: Path, names: list[str]) -> dict[str, Any]:
    """Return what the manifest should say, without the code that wrote it."""
    return {
        name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(), "size": (folder / name).stat().st_size}
        for name in names
    }


def manifest(folder: Path) -> dict[str, Any]:
    files: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["files"]
    return files


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["lstm", "ngram"])
def test_each_file_but_the_card_is_listed(models: Path, name: str) -> None:
    names = [file for file in LISTED if (models / name / file).exists()]
    assert {"novelty.safetensors", "model.safetensors"} <= set(names)
    assert manifest(models / name) == by_hand(models / name, names)
    assert {path.name for path in (models / name).iterdir()} == {*names, "README.md", "manifest.json"}


@pytest.mark.parametrize("name", ["lstm", "ngram"])
def test_every_flipped_bit_is_found(models: Path, tmp_path: Path, name: str) -> None:
    """Of weights, index, words, tokenizer and settings: 6 bits each, from the beginning to the end of the file."""
    folder = Path(shutil.copytree(models / name, tmp_path / "m"))
    for file in manifest(folder):
        data = (folder / file).read_bytes()
        for bit in range(3, 8 * len(data), max(1, 8 * len(data) // 5)):
            flip(folder / file, bit)
            with pytest.raises(BundleError) as caught:
                reviewgen.load(folder)
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
            (folder / file).write_bytes(data)
    assert reviewgen.load(folder).generate_one(seed=1)


def test_a_change_is_named_and_what_to_do(saved: Path) -> None:
    flip(saved / "model.safetensors", 8 * (saved / "model.safetensors").stat().st_size - 20)
    with pytest.raises(BundleError) as caught:
        reviewgen.load(saved)
    assert str(caught.value) == (
        f"model.safetensors of {saved} has changed since the model was saved. Restore it, or take the change: "
        f"reviewgen doctor {saved} --accept, or load(..., accept_changes=True)."
    )
    assert reviewgen.load(saved, accept_changes=True).generate_one(seed=1)
    with pytest.raises(ConfigError, match="accept_changes must be true or false"):
        reviewgen.load(saved, accept_changes=1)  # type: ignore[arg-type]


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    change(values)
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def test_an_edited_activation_and_an_exchanged_tokenizer_are_found(models: Path, tmp_path: Path) -> None:
    train_tiny("nnlm-char", tmp_path / "cache", **SMALL).save_pretrained(tmp_path / "m")
    names = json.loads((tmp_path / "m" / "config.json").read_text())["model"]["config"]
    assert names["activation"] == "relu", "the test needs another value"
    edit(tmp_path / "m" / "config.json", lambda values: values["model"]["config"].update(activation="tanh"))
    with pytest.raises(BundleError, match=r"^config\.json of .* has changed since the model was saved"):
        reviewgen.load(tmp_path / "m")
    folder = Path(shutil.copytree(models / "lstm", tmp_path / "n"))
    symbols = json.loads((folder / "characters.json").read_text(encoding="utf-8"))
    text = (folder / "characters.json").read_text(encoding="utf-8")
    (folder / "characters.json").write_text(text.replace("m", "\0").replace("t", "m").replace("\0", "t"), encoding="utf-8")
    assert json.loads((folder / "characters.json").read_text(encoding="utf-8")).keys() != {} and symbols
    with pytest.raises(BundleError):
        reviewgen.load(folder)


def test_the_card_can_be_edited_and_removed_files_are_missed(saved: Path, models: Path) -> None:
    (saved / "README.md").write_text("My model.")
    assert reviewgen.load(saved).bundle.card == "My model."
    (saved / "novelty.safetensors").unlink()
    with pytest.raises(BundleError, match=r"^novelty\.safetensors of .* is missing, but was saved with the model"):
        reviewgen.load(saved)
    edit(saved / "manifest.json", lambda values: values["files"].pop("novelty.safetensors"))
    assert reviewgen.load(saved).bundle.index is None
    shutil.copyfile(models / "lstm" / "novelty.safetensors", saved / "novelty.safetensors")
    with pytest.raises(BundleError, match=r"^novelty\.safetensors of .* was not saved with the model"):
        reviewgen.load(saved)


def test_a_clone_of_a_repository_loads_and_is_not_replaced(saved: Path) -> None:
    for name in (".git", ".cache"):
        (saved / name).mkdir()
    model = reviewgen.load(saved)
    with pytest.raises(OutputExists, match=r"has other files than a saved model, '\.cache' and 1 more"):
        model.save_pretrained(saved, overwrite=True)
    assert (saved / ".git").is_dir()


def test_a_folder_without_a_manifest_loads_and_a_copy_of_it_has_one(saved: Path, tmp_path: Path) -> None:
    digest = reviewgen.load(saved).digest
    (saved / "manifest.json").unlink()
    flip(saved / "training.json", 8 * 3)
    (saved / "training.json").write_bytes((saved / "training.json").read_bytes().replace(b"\n\n", b"\n"))
    flip(saved / "training.json", 8 * 3)
    assert reviewgen.load(saved).digest == digest
    copy_bundle(saved, tmp_path / "copy")
    assert manifest(tmp_path / "copy") == by_hand(tmp_path / "copy", listed_of(tmp_path / "copy"))


def listed_of(folder: Path) -> list[str]:
    return [name for name in LISTED if (folder / name).exists()]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"files": []}',
        '{"files": {}, "more": 1}',
        '{"files": {"../config.json": {"sha256": "", "size": 1}}}',
        '{"files": {"config.json": {"sha256": 1, "size": 1}}}',
        '{"files": {"config.json": {"sha256": "", "size": true}}}',
        '{"files": ' + "[" * 100_000,
        " " * 1_000_001,
    ],
)
def test_a_damaged_manifest_is_refused_in_a_sentence(saved: Path, content: str) -> None:
    (saved / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest\.json is damaged: .* --accept") as caught:
        reviewgen.load(saved)
    assert len(str(caught.value)) < 500
    assert reviewgen.load(saved, accept_changes=True).preset == "lstm-char"


def test_an_edit_on_the_hub_is_taken_into_a_folder(saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from reviewgen.hub import pull

    monkeypatch.setattr(pull, "download", lambda *args, **options: saved)
    edit(saved / "generation_config.json", lambda values: values.update(temperature=0.25))
    out = saved.with_name("mine")
    status, _, said = run_command(monkeypatch, capsys, "pull", "ana/reviews", "--out", out)
    assert status == 1 and "reviewgen pull OWNER/NAME --out ./my-model --accept-changes" in said and not out.exists()
    status, _, said = run_command(monkeypatch, capsys, "pull", "ana/reviews", "--accept-changes")
    assert status == 2 and "give it with --out" in said
    assert run_command(monkeypatch, capsys, "pull", "ana/reviews", "--out", out, "--accept-changes")[0] == 0
    assert reviewgen.load(out).generation_config.temperature == 0.25


def test_doctor_accepts_an_edit_by_hand(saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    edit(saved / "generation_config.json", lambda values: values.update(temperature=0.25))
    status, out, said = run_command(monkeypatch, capsys, "doctor", saved)
    assert status == 1 and "generation_config.json" in said and not out
    status, out, _ = run_command(monkeypatch, capsys, "doctor", saved, "--accept", "--json")
    assert status == 0 and json.loads(out)["accepted"] == ["generation_config.json"]
    assert reviewgen.load(saved).generation_config.temperature == 0.25
    status, out, _ = run_command(monkeypatch, capsys, "doctor", saved)
    assert status == 0 and "no file has changed" in out
    edit(saved / "generation_config.json", lambda values: values.update(temperature="warm"))
    status, _, said = run_command(monkeypatch, capsys, "doctor", saved, "--accept")
    assert status == 1 and "temperature" in said, "what cannot be read is not accepted"


def test_saved_defaults_keep_the_manifest_true_wherever_the_saving_is_cut(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(BaseException):
        pass

    plain = Path.replace
    steps = iter(["cut", "", "cut", "", ""])  # the manifest, then the file

    def replace(self: Path, target: Path) -> Path:
        if next(steps) == "cut":
            raise Cut
        return plain(self, target)

    for temperature, cut in ((0.1, True), (0.2, True), (0.3, False)):
        model = reviewgen.load(saved)
        with monkeypatch.context() as patch, pytest.raises(Cut) if cut else contextlib.nullcontext():
            patch.setattr(Path, "replace", replace)
            model.save_generation_config(saved, temperature=temperature)
        assert reviewgen.load(saved).generation_config.temperature in (model.generation_config.temperature, temperature)
    assert reviewgen.load(saved).generation_config.temperature == 0.3
    assert manifest(saved) == by_hand(saved, listed_of(saved))


def test_the_digest_is_that_of_what_was_loaded(saved: Path, models: Path) -> None:
    files = ["characters.json", "config.json", "lexicon.safetensors", "model.safetensors", "novelty.safetensors"]
    lines = [f"{name} {hashlib.sha256((saved / name).read_bytes()).hexdigest()}\n" for name in files if (saved / name).exists()]
    expected = f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    model = reviewgen.load(saved)
    reviewgen.load(models / "ngram").save_pretrained(saved, overwrite=True)
    assert model.digest == expected != reviewgen.load(saved).digest
    for act in (lambda: model.save_generation_config(saved, top_k=3), lambda: model.save_generation_config(saved.parent / "x")):
        with pytest.raises(BundleError, match="has changed since the model was loaded"):
            act()
    shutil.rmtree(saved)
    gone = reviewgen.load(models / "lstm")
    gone.bundle.folder = saved
    assert gone.digest == expected
    for act in (lambda: gone.save_generation_config(saved, top_k=3), lambda: gone.save_generation_config(saved.parent / "x")):
        with pytest.raises(BundleError, match=r"from which the model was loaded, no longer exists"):
            act()


def test_a_folder_that_is_replaced_all_the_time_is_read_whole(models: Path, tmp_path: Path) -> None:
    both = {name: reviewgen.load(models / name) for name in ("lstm", "ngram")}
    both["lstm"].save_pretrained(tmp_path / "m")
    is_over = threading.Event()

    def replace() -> None:
        while not is_over.is_set():
            for model in both.values():
                model.save_pretrained(tmp_path / "m", overwrite=True)

    writer = threading.Thread(target=replace)
    writer.start()
    digests = set()
    try:
        for _ in range(10):
            try:
                model: ReviewModel = reviewgen.load(tmp_path / "m")
            except BundleError as error:
                assert "was changed by another process while it was read" in str(error)
                continue
            digests.add(model.preset)
            assert model.digest is not None and model.generate_one(seed=1, max_new_tokens=5)
    finally:
        is_over.set()
        writer.join()
    assert digests <= {"lstm-char", "ngram-char"} and digests


def test_a_change_while_it_is_copied_is_found(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, plain = read_bundle(saved), shutil.copyfile

    def copy(source: Path, target: Path) -> None:
        plain(source, target)
        if target.name == "model.safetensors":
            flip(target, 8 * target.stat().st_size - 20)

    monkeypatch.setattr(bundle_write.shutil, "copyfile", copy)
    with pytest.raises(BundleError, match="has changed since the model was loaded"):
        copy_bundle(saved, tmp_path / "copy", digests=bundle.digests)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("name", ["lstm-char", "blend-word", "ngram-word"])
def test_the_shipped_weights_have_manifests(name: str) -> None:
    folder = reviewgen.load(name).bundle.folder
    assert folder is not None
    files = [path.name for path in folder.iterdir() if path.name[:1] not in "._" and path.suffix in (".json", ".safetensors")]
    assert manifest(folder) == by_hand(folder, [name for name in files if name != "manifest.json"])


def test_a_plot_reads_the_record_as_it_was_saved(saved: Path, tmp_path: Path) -> None:
    """It loads neither weights nor tokenizer, so it compares the one file that it reads."""
    picture = tmp_path / "curves.svg"
    flip(saved / "model.safetensors", 1_000)
    assert reviewgen.plot_training([saved], picture)
    file = saved / "training.json"
    file.write_text(file.read_text().replace('"steps": ', '"steps": 1'))
    with pytest.raises(BundleError, match=r"training\.json of .* has changed since the model was saved"):
        reviewgen.plot_training([saved], picture, overwrite=True)
    write_manifest(saved)
    assert reviewgen.plot_training([saved], picture, overwrite=True)
