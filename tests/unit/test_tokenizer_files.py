"""A tokenizer that writes what is not its own is refused before training and before saving, and nothing of a model is lost."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.bundle.layout import OPTIONAL_FILES, OWN_FILES
from reviewgen.bundle.tokenizer_files import check_tokenizer_files, save_tokenizer
from reviewgen.errors import BrokenPlugin, StorageError
from reviewgen.registry import plugins
from tests.support.fakes import TEXTS, LetterTokenizer, TableModel, review_model, table

Write = Callable[[Path], object]


class Faulty(LetterTokenizer):
    """Saves its letters, and something else."""

    write: Write = staticmethod(lambda folder: None)

    def save(self, folder: Path) -> None:
        super().save(folder)
        type(self).write(folder)


def link(folder: Path) -> None:
    (folder / "vocabulary.txt").symlink_to(__file__)


def fail(folder: Path) -> None:
    raise KeyError("letters")


FAULTS: list[tuple[Write, str]] = [
    *((lambda folder, name=name: (folder / name).write_text("mine"), f"saves {name}, a name that a saved model uses itself")
      for name in sorted(OWN_FILES | OPTIONAL_FILES | {"learning_curve.png"})),
    (lambda folder: (folder / "Config.json").write_text("{}"), "saves Config.json, which is the same file as config.json on"),
    (lambda folder: (folder / "sub").mkdir(), "saves 'sub', which is not a plain file: a saved model has no subfolders"),
    (lambda folder: (folder.parent / "model.safetensors").write_text("x"), "saves 'model.safetensors' outside the folder"),
    (lambda folder: (folder.parents[1] / "model.safetensors").write_text("x"), "saves 'model.safetensors' outside the folder"),
    (lambda folder: (folder / "vocabulary.pkl").write_bytes(pickle.dumps({})), "lists vocabulary.pkl as a tokenizer file"),
    (lambda folder: (folder / ".hidden").write_text(""), "lists tokenizer files outside its folder: '.hidden'"),
    (fail, "cannot be saved: KeyError: 'letters'"),
]  # fmt: skip
if os.name == "posix":
    FAULTS.append((link, "saves 'vocabulary.txt', which is not a plain file"))


def listing(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    review_model(TableModel(table(11)), LetterTokenizer("abcdefgh ")).save_pretrained(tmp_path / "place" / "m")
    return tmp_path / "place" / "m"


@pytest.mark.parametrize(("write", "said"), FAULTS)
def test_it_is_refused_when_a_model_is_saved_and_the_model_before_it_stays(
    write: Write, said: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "write", staticmethod(write))
    before, model = listing(saved.parent), review_model(TableModel(table(11)), Faulty("abcdefgh "))
    for target, options in ((saved, {"overwrite": True}), (saved.with_name("new"), {})):
        with pytest.raises(BrokenPlugin) as caught:
            model.save_pretrained(target, **options)
        message = str(caught.value)
        assert "The tokenizer 'fake' " in message and said in message
        assert len(message) < 500 and "\n" not in message
    assert listing(saved.parent) == before and [path.name for path in saved.parent.iterdir()] == ["m"]


@pytest.mark.parametrize("preset", ["ngram-faulty", "gru-faulty"])
def test_it_is_refused_before_a_model_is_trained_with_it(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {})
    monkeypatch.setattr(Faulty, "write", staticmethod(FAULTS[0][0]))
    reviewgen.register_tokenizer("faulty", Faulty)
    run = reviewgen.TrainingRun(preset, TEXTS, steps=3, out=tmp_path / "out")
    run.read()
    with pytest.raises(BrokenPlugin, match=r"The tokenizer 'faulty' saves README\.md, a name that a saved model uses itself"):
        run.tokenize()
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_not_the_tokenizer_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Faulty, "write", staticmethod(full))
    with pytest.raises(StorageError, match="No space left"):
        review_model(TableModel(table(11)), Faulty("abcdefgh ")).save_pretrained(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_files_are_moved_as_they_were_written_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content: Any = {"merges.txt": b"a b\r\n", "vocabulary.json": b"{}\n"}
    monkeypatch.setattr(
        Faulty, "write", staticmethod(lambda folder: [(folder / name).write_bytes(data) for name, data in content.items()])
    )
    tokenizer = Faulty("ab")
    check_tokenizer_files(tokenizer, "two")
    assert save_tokenizer(tokenizer, "two", tmp_path) == ["letters.txt", "merges.txt", "vocabulary.json"]
    assert listing(tmp_path) == content | {"letters.txt": b"ab"} and len(list(tmp_path.iterdir())) == 3
