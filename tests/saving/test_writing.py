"""Writing a saved folder: the same model again, whole or not at all, and no file of the user's is
lost.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import BrokenPlugin, OutputExists, StorageError
from reviewgen.storage import check_output
from tests.support.disks import largest_file, listing
from tests.support.fakes import TEXTS, LetterTokenizer
from tests.support.saved import WEIGHTS, edit_json, letters

pytestmark = pytest.mark.usefixtures("untouched_registry")
Micro = Callable[[str], ReviewModel]


def texts_of(model: ReviewModel) -> list[str]:
    return model.generate("the ", num_return_sequences=3, seed=1, max_new_tokens=60)


# The same model again.


@pytest.mark.parametrize("name", ["gru-char", "ngram-char", "conditional", "blend-char"])
def test_what_is_saved_and_loaded_is_the_same_model(name, micro, tmp_path):
    model = micro(name)
    model.save_pretrained(str(tmp_path / "a" / "b" / "m"))
    again = reviewgen.load(str(tmp_path / "a" / "b" / "m"))
    ids = torch.tensor([[model.tokenizer.bos_id, *model.tokenizer.encode("the movie 👍")]])
    with torch.inference_mode():
        one, other = (
            each.bundle.model(ids, each.bundle.model.initial_state(1))[0] for each in (model, again)
        )
    assert torch.equal(one, other) and texts_of(again) == texts_of(model)
    assert (again.preset, again.generation_config, again.training) == (
        model.preset,
        model.generation_config,
        model.training,
    )
    again.save_pretrained(tmp_path / "twice")
    assert listing(tmp_path / "twice") == listing(tmp_path / "a" / "b" / "m")


def test_int8_has_a_scale_for_each_row(micro, tmp_path):
    model = micro("gru-char")
    model.save_pretrained(tmp_path / "narrow", dtype="int8")
    wide = model.bundle.model.state_dict()
    narrow = load_file(tmp_path / "narrow" / WEIGHTS)
    again = reviewgen.load(tmp_path / "narrow")
    for name, tensor in wide.items():
        if tensor.dim() != 2:
            assert narrow[name].dtype == torch.float16
            continue
        used = narrow[name] * narrow[f"{name}.scale"][:, None]
        assert narrow[name].dtype == torch.int8 and torch.equal(
            again.model.state_dict()[name], used
        )
        assert ((used - tensor).abs() <= tensor.abs().amax(dim=1, keepdim=True) / 254 * 1.001).all()
    assert again.evaluate(TEXTS).bits_per_character == pytest.approx(
        model.evaluate(TEXTS).bits_per_character, rel=1e-2
    )


def test_int8_is_saved_again_as_it_is(micro, tmp_path):
    micro("gru-char").save_pretrained(tmp_path / "narrow", dtype="int8")
    again = reviewgen.load(tmp_path / "narrow")
    again.save_pretrained(tmp_path / "twice", dtype="int8")
    assert (tmp_path / "twice" / WEIGHTS).read_bytes() == (
        tmp_path / "narrow" / WEIGHTS
    ).read_bytes()
    assert texts_of(again) == texts_of(reviewgen.load(tmp_path / "twice"))


# All or nothing.


class Faulty(LetterTokenizer):
    """Saves its letters, and then raises an error."""

    error: ClassVar[BaseException]

    def save(self, folder: Path) -> None:
        super().save(folder)
        raise self.error


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("old", [False, True])
def test_an_exception_while_a_model_is_saved_leaves_what_was_there(tmp_path, old, monkeypatch):
    target = tmp_path / "m"
    if old:
        letters().save_pretrained(target)
    before = listing(tmp_path)
    for error, raised in (
        (FULL, StorageError),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (RuntimeError("bug"), BrokenPlugin),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        monkeypatch.setattr(Faulty, "error", error, raising=False)
        with pytest.raises(raised):
            letters(1, Faulty).save_pretrained(target, overwrite=old)
        assert listing(tmp_path) == before


def test_a_full_disk_leaves_what_was_there(model_folder, tmp_path):
    """A limit on the size of files stands in for the disk; each limit breaks another file."""
    model = reviewgen.load(model_folder("gru-char"))
    shutil.copytree(model_folder("gru-char"), tmp_path / "m")
    before = listing(tmp_path)
    for limit in sorted(
        {0, 10, *(file.stat().st_size - 1 for file in model_folder("gru-char").iterdir())}
    ):
        with pytest.raises(StorageError, match="No room"), largest_file(limit):
            model.save_pretrained(tmp_path / "m", overwrite=True)
        assert listing(tmp_path) == before


def test_a_drive_that_does_not_exist_is_refused(tmp_path, monkeypatch):
    for name in ("exists", "is_dir"):
        monkeypatch.setattr(Path, name, lambda *_, **__: False)  # as all of Z: on Windows
    with pytest.raises(StorageError, match="is not a writable folder"):
        check_output(tmp_path / "m")


# Targets that exist.


@pytest.mark.posix
def test_an_existing_target_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "link"):
        with pytest.raises(OutputExists):
            letters().save_pretrained(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 2 and issubclass(OutputExists, FileExistsError)
    with pytest.raises(StorageError, match="written"):
        letters().save_pretrained(tmp_path / ("x" * 300))


@pytest.mark.posix
@pytest.mark.parametrize("what", ["model", "empty folder", "link"])
def test_overwrite_replaces_a_model_an_empty_folder_and_a_link(what, tmp_path):
    target = tmp_path / "home" / "m"
    target.parent.mkdir()
    if what == "model":
        letters().save_pretrained(target)
    elif what == "empty folder":
        target.mkdir()
    else:
        letters().save_pretrained(tmp_path / "elsewhere")
        target.symlink_to(tmp_path / "elsewhere")
    model = letters(1)
    model.save_pretrained(target, overwrite=True)
    assert [file.name for file in target.parent.iterdir()] == ["m"] and not target.is_symlink()
    assert texts_of(reviewgen.load(target)) == texts_of(model)
    if what == "link":
        assert texts_of(reviewgen.load(tmp_path / "elsewhere")) == texts_of(letters())


def test_overwrite_removes_nothing_but_a_saved_model(tmp_path):
    letters().save_pretrained(tmp_path / "m")
    shutil.copytree(tmp_path / "m", tmp_path / "clone")
    (tmp_path / "clone" / ".git").mkdir()
    for name, content in (
        ("photos/cat.jpg", "cat"),
        ("file", "mine"),
        ("m/notes.txt", "mine"),
        ("project/config.json", "{}"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    before = listing(tmp_path)
    for name in ("photos", "file", "m", "clone", "project"):
        with pytest.raises(OutputExists, match=r"not a saved model|files that are not"):
            letters(1).save_pretrained(tmp_path / name, overwrite=True)
    assert listing(tmp_path) == before


# A blend that shares the weights of installed presets.

PARTS = ("gru-char", "ngram-char")


@pytest.fixture
def blend(micro, tmp_path, install) -> Path:
    """Return a saved blend of two presets whose weights a package provides, in 8 bits and as
    counted.
    """
    points = {"weights": {f"{name}-mine": f"fakeshared.{name[:3]}" for name in PARTS}}
    site = install("fake-weights", points, {"fakeshared/__init__": ""})
    for name, options in zip(PARTS, ({"dtype": "int8"}, {}), strict=True):
        micro(name).save_pretrained(site / "fakeshared" / name[:3], **options)
    parts = [reviewgen.load(site / "fakeshared" / name[:3]) for name in PARTS]
    reviewgen.blend(parts, [0.25, 0.75]).save_pretrained(tmp_path / "blend")
    return tmp_path / "blend"


def test_a_blend_that_shares_weights_is_the_same_model_and_its_copies_are_whole(blend, tmp_path):
    whole = reviewgen.load(blend)
    expected = texts_of(whole), whole.evaluate(TEXTS).bits_per_character
    (blend / WEIGHTS).unlink()
    site = tmp_path / "fake-weights" / "fakeshared"
    digests = {
        name: hashlib.sha256((site / name[:3] / WEIGHTS).read_bytes()).hexdigest() for name in PARTS
    }
    edit_json(
        blend / "config.json",
        "weights",
        value={f"{name}-mine": digest for name, digest in digests.items()},
    )
    (blend / "manifest.json").unlink()
    shared = reviewgen.load(blend)
    assert (
        texts_of(shared),
        shared.evaluate(TEXTS).bits_per_character,
    ) == expected and shared.digest is not None
    shared.save_pretrained(blend.with_name("saved"))
    shared.save_generation_config(blend.with_name("copied"), top_k=40)
    for name in ("saved", "copied"):
        assert "weights" not in json.loads((blend.with_name(name) / "config.json").read_text())
        assert texts_of(reviewgen.load(blend.with_name(name))) == expected[0] or name == "copied"
        assert (blend.with_name(name) / WEIGHTS).is_file()
