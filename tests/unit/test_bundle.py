"""The saved folder: whole round trips, every kind of damage refused, and writing that leaves all or nothing."""

import errno
import json
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import reviewgen
from reviewgen import ReviewModel, bundle, registry
from reviewgen.bundle.write import write_bundle
from reviewgen.errors import BrokenPlugin, BundleError, ConfigError, OutputExists, StorageError, UnknownPlugin
from reviewgen.registry import Plugin
from tests.support.fakes import (
    GRU,
    LETTERS,
    NGRAM,
    TEXTS,
    FakeConfig,
    LetterTokenizer,
    TableModel,
    review_model,
    table,
    train_tiny,
)
from tests.support.forked import run_python

WEIGHTS = "model.safetensors"
FILES = ["config.json", WEIGHTS, "generation_config.json", "training.json", "README.md", "characters.json"]


@pytest.fixture(scope="module")
def gru(tmp_path_factory: pytest.TempPathFactory) -> ReviewModel:
    return train_tiny("gru-char", tmp_path_factory.mktemp("cache"), **GRU)


@pytest.fixture(scope="module")
def ngram(tmp_path_factory: pytest.TempPathFactory) -> ReviewModel:
    return train_tiny("ngram-char", tmp_path_factory.mktemp("cache"), **NGRAM)


@pytest.fixture
def saved(gru: ReviewModel, tmp_path: Path) -> Path:
    gru.save_pretrained(tmp_path / "place" / "saved")
    return tmp_path / "place" / "saved"


@pytest.fixture
def saved_ngram(ngram: ReviewModel, tmp_path: Path) -> Path:
    ngram.save_pretrained(tmp_path / "place" / "ngram")
    return tmp_path / "place" / "ngram"


def change(file: Path, *path: str, value: Any) -> None:
    """Change one value inside a JSON file."""
    content = inner = json.loads(file.read_text(encoding="utf-8"))
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(content), encoding="utf-8")


def change_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    edit(tensors)
    (folder / WEIGHTS).unlink()
    save_file(tensors, folder / WEIGHTS)


def refused(folder: Path, said: str = "") -> str:
    """Load a damaged folder; it must fail with one sentence."""
    with pytest.raises(BundleError) as caught:
        reviewgen.load(folder)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    return message


def listing(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


# Round trips.


@pytest.mark.parametrize("name", ["gru", "ngram"])
def test_save_and_load_give_the_same_logits_and_texts(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: ReviewModel = request.getfixturevalue(name)
    model.save_pretrained(tmp_path / "m")
    again = reviewgen.load(tmp_path / "m")
    ids = torch.tensor([[model.tokenizer.bos_id, *model.tokenizer.encode("the movie 👍")]])
    with torch.inference_mode():
        one, other = (m.model(ids, m.model.initial_state(1))[0] for m in (model, again))
    assert torch.equal(one, other)
    assert again.generate("the ", num_return_sequences=3, seed=1) == model.generate("the ", num_return_sequences=3, seed=1)
    assert (again.preset, again.generation_config, again.training) == (model.preset, model.generation_config, model.training)
    again.save_pretrained(tmp_path / "twice")
    assert listing(tmp_path / "twice") == listing(tmp_path / "m")


def test_a_network_in_16_bits_takes_half_the_room_and_is_read_as_32(gru: ReviewModel, ngram: ReviewModel, tmp_path: Path) -> None:
    gru.save_pretrained(tmp_path / "wide")
    gru.save_pretrained(tmp_path / "narrow", dtype="float16")
    wide, narrow = (load_file(tmp_path / name / WEIGHTS) for name in ("wide", "narrow"))
    assert {tensor.dtype for tensor in narrow.values()} == {torch.float16}
    assert all(torch.equal(tensor.half(), narrow[name]) for name, tensor in wide.items())
    again = reviewgen.load(tmp_path / "narrow")
    texts = again.generate("the ", num_return_sequences=3, seed=1)  # by the stepper, before torch has its form
    assert all(torch.equal(tensor, narrow[name].float()) for name, tensor in again.model.state_dict().items())
    assert reviewgen.load(tmp_path / "narrow").generate("the ", num_return_sequences=3, seed=1) == texts
    assert again.evaluate(TEXTS).bits_per_character == pytest.approx(gru.evaluate(TEXTS).bits_per_character, rel=1e-3)
    with pytest.raises(ConfigError, match="is for neural models, and ngram-char is not one"):
        ngram.save_pretrained(tmp_path / "no", dtype="float16")
    with pytest.raises(ConfigError, match="one of float32, float16, int8; got 'int4'"):
        write_bundle(gru.bundle, tmp_path / "no", dtype="int4")
    assert not (tmp_path / "no").exists() and list(tmp_path.glob(".*")) == []


def test_a_network_in_8_bits_takes_a_quarter_of_the_room_and_is_the_one_that_generates_in_8_bits(
    gru: ReviewModel, tmp_path: Path
) -> None:
    gru.save_pretrained(tmp_path / "wide")
    gru.save_pretrained(tmp_path / "narrow", dtype="int8")
    wide, narrow = (load_file(tmp_path / name / WEIGHTS) for name in ("wide", "narrow"))
    matrices = {name for name, tensor in wide.items() if tensor.dim() == 2}
    assert {narrow[name].dtype for name in matrices} == {torch.int8}
    assert {tensor.dtype for name, tensor in narrow.items() if name in set(wide) - matrices} == {torch.float16}
    for name in matrices:
        largest = wide[name].abs().amax(dim=1, keepdim=True)
        assert ((narrow[name] * narrow[f"{name}.scale"][:, None] - wide[name]).abs() <= largest / 254 * 1.001).all()
    again = reviewgen.load(tmp_path / "narrow")
    texts = again.generate("the ", num_return_sequences=3, seed=1)
    assert all(torch.equal(again.model.state_dict()[name], narrow[name] * narrow[f"{name}.scale"][:, None]) for name in matrices)
    assert reviewgen.load(tmp_path / "narrow").generate("the ", num_return_sequences=3, seed=1) == texts
    again.save_pretrained(tmp_path / "twice", dtype="int8")
    assert (tmp_path / "twice" / WEIGHTS).read_bytes() == (tmp_path / "narrow" / WEIGHTS).read_bytes()
    assert again.evaluate(TEXTS).bits_per_character == pytest.approx(gru.evaluate(TEXTS).bits_per_character, rel=1e-2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.pop("embedding.weight.scale"),
        lambda t: t.update({"embedding.weight.scale": t["embedding.weight.scale"][:-1]}),
        lambda t: t.update({"embedding.weight": t["embedding.weight"].float()}),
    ],
)
def test_damaged_scales_are_refused(gru: ReviewModel, tmp_path: Path, damage: Any) -> None:
    gru.save_pretrained(tmp_path / "m", dtype="int8")
    change_tensors(tmp_path / "m", damage)
    with pytest.raises(BundleError, match=r"embedding\.weight\.scale"):
        reviewgen.load(tmp_path / "m")


def test_a_weight_that_is_too_large_for_16_bits_is_named(gru: ReviewModel, tmp_path: Path) -> None:
    gru.save_pretrained(tmp_path / "m")
    change_tensors(tmp_path / "m", lambda tensors: tensors["embedding.weight"][3].fill_(1e6))
    with pytest.raises(ConfigError, match=r"^embedding\.weight holds weights that are too large for dtype=float16"):
        reviewgen.load(tmp_path / "m", accept_changes=True).save_pretrained(tmp_path / "no", dtype="float16")


@pytest.mark.parametrize("name", ["ngram", "gru"])
def test_other_dtypes_than_those_two_are_refused(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    request.getfixturevalue(name).save_pretrained(tmp_path / "m")
    change_tensors(tmp_path / "m", lambda tensors: tensors.update({key: tensor.double() for key, tensor in tensors.items()}))
    refused(tmp_path / "m", "its config requires")


def test_a_loaded_model_does_not_need_its_folder(saved: Path, gru: ReviewModel) -> None:
    model = reviewgen.load(saved)
    shutil.rmtree(saved)
    assert model.generate("the ", seed=2) == gru.generate("the ", seed=2)


def test_modes_are_what_the_umask_says(gru: ReviewModel, tmp_path: Path) -> None:
    for mask in (0o022, 0o027, 0o077):
        before = os.umask(mask)
        try:
            gru.save_pretrained(tmp_path / f"m{mask}")
        finally:
            os.umask(before)
        folder = tmp_path / f"m{mask}"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o666 & ~mask}


def test_what_the_hub_and_a_file_manager_leave_is_tolerated(saved: Path) -> None:
    (saved / ".gitattributes").write_text("*.safetensors filter=lfs")
    (saved / ".DS_Store").write_bytes(b"\0")
    assert reviewgen.load(saved)


def test_strings_that_utf_8_cannot_carry_are_saved(gru: ReviewModel, tmp_path: Path) -> None:
    odd = ReviewModel(
        bundle.Bundle(**(vars(gru._bundle) | {"training": {"source": "a\udc80"}, "card": "a\udc80", "index": None}))
    )
    odd.save_pretrained(tmp_path / "m")
    assert reviewgen.load(tmp_path / "m").training == {"source": "a\udc80"}


# Damage.


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -1])
@pytest.mark.parametrize("name", ["saved", "saved_ngram"])
def test_truncated_weights(name: str, keep: int, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:keep])
    refused(folder, "damaged or not a saved model")


@pytest.mark.parametrize(
    "data", [b"\xff" * 100, struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 2) + b"{}", b"<html>404</html>"]
)
def test_weights_that_are_none(saved: Path, data: bytes) -> None:
    (saved / WEIGHTS).write_bytes(data)
    refused(saved)


def test_weights_in_a_pickle_are_never_read(saved: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    for name in (WEIGHTS, "pytorch_model.bin"):
        (saved / name).write_bytes(pickle.dumps(Trap()))
        refused(saved)
    (saved / "pytorch_model.bin").unlink()
    torch.save({"a": torch.ones(1)}, saved / WEIGHTS)
    refused(saved)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_and_a_folder_in_its_place(saved: Path, file: str) -> None:
    (saved / file).unlink()
    refused(saved, file)
    (saved / file).mkdir()
    refused(saved, file)


@pytest.mark.parametrize("file", ["model.py", "pytorch_model.bin", "tokenizer.json", "x/y"])
def test_a_foreign_file(saved: Path, file: str) -> None:
    (saved / file).parent.mkdir(exist_ok=True)
    (saved / file).write_text("x")
    refused(saved, f"do not belong to a saved model: {file.split('/')[0]}")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "\ufeff{}", "[" * 100_000, "9" * 5000, '{"a": NaN}'])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "training.json", "characters.json"])
def test_not_the_json_it_should_be(saved: Path, file: str, text: str) -> None:
    (saved / file).write_text(text, encoding="utf-8")
    refused(saved)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "training.json", "characters.json", "README.md"])
def test_not_utf_8(saved: Path, file: str) -> None:
    (saved / file).write_bytes(b'{"\xff\xfe": 1}')
    refused(saved)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["extra"], 1, "extra"),
        (["model", "extra"], 1, "extra"),
        (["model", "config", "hiden_size"], 1, "Did you mean 'hidden_size'"),
        (["tokenizer", "config", "extra"], 1, "extra"),
        (["schema"], 2, "schema 2"),
        (["schema"], "1", "schema '1'"),
        (["schema"], None, "schema None"),
        (["library"], "transformers", "transformers"),
        (["model"], "gru", "keys of model"),
        (["model", "config"], None, "of type dict"),
        (["model", "config"], [], ""),
        (["model", "name"], 5, "of type str"),
        (["model", "name"], ["gru"], "of type str"),
        (["preset"], 5, "of type str"),
        (["schema"], True, "of type int"),
        (["model", "name"], "lstm", WEIGHTS),
        (["model", "config", "hidden_size"], 9, "its config requires float32 [42, 9]"),
        (["model", "config", "layers"], 2, "missing"),
        (["model", "config", "layers"], 60, "more"),
        (["model", "config", "layer"], "other", "layer"),
        (["model", "config", "hidden_size"], 8.0, "damaged"),
        (["model", "config", "hidden_size"], 10**400, "it has a number of 401 digits"),
        (["tokenizer", "files"], ["characters.json", "../../secret.json"], "outside its folder"),
        (["tokenizer", "files"], ["/etc/passwd"], "outside its folder"),
        (["tokenizer", "files"], ["sub/characters.json"], "outside its folder"),
        (["tokenizer", "files"], [".."], ".."),
        (["tokenizer", "files"], [""], "outside its folder"),
        (["tokenizer", "files"], [3], "outside"),
        (["tokenizer", "files"], None, "should list"),
        (["tokenizer", "files"], {"characters.json": 1}, "should list"),
        (["tokenizer", "files"], [], "characters.json"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_values_of_the_config_that_are_refused(saved: Path, path: list[str], value: Any, said: str) -> None:
    change(saved / "config.json", *path, value=value)
    refused(saved, said)


def test_keys_of_the_config_that_are_missing(saved: Path) -> None:
    content = json.loads((saved / "config.json").read_text())
    for key in content:
        (saved / "config.json").write_text(json.dumps({k: v for k, v in content.items() if k != key}))
        refused(saved, "keys of config.json")
    for part in ("model", "tokenizer"):
        for key in content[part]:
            less = {k: v for k, v in content[part].items() if k != key}
            (saved / "config.json").write_text(json.dumps(content | {part: less}))
            refused(saved, f"keys of {part}")


@pytest.mark.parametrize("values", [{"temperature": 0}, {"temprature": 1.0}, {"top_k": "5"}, {"num_beams": 0}])
def test_generation_settings_that_are_none(saved: Path, values: dict[str, Any]) -> None:
    (saved / "generation_config.json").write_text(json.dumps(values))
    refused(saved, next(iter(values)))


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[sorted(tensors)[0]]


def _add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["extra"] = torch.ones(1)


def _rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["other"] = tensors.pop(sorted(tensors)[0])


def _reshape(tensors: dict[str, torch.Tensor]) -> None:
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].unsqueeze(0)


def _narrow(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name] = tensors[name].to(torch.bfloat16)


def _as_integers(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name] = tensors[name].to(torch.int64)


@pytest.mark.parametrize("name", ["saved", "saved_ngram"])
@pytest.mark.parametrize("edit", [_drop, _add, _rename, _reshape, _narrow, _as_integers])
def test_tensors_that_do_not_fit(name: str, edit: Callable[..., None], request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    change_tensors(folder, edit)
    refused(folder, WEIGHTS)


@pytest.mark.parametrize("setting", [{"order": 3}, {"order": 5}, {"vocab_size": 5}, {"vocab_size": 10**9}])
def test_an_ngram_s_config_that_its_arrays_do_not_fit(saved_ngram: Path, setting: dict[str, int]) -> None:
    ((key, value),) = setting.items()
    change(saved_ngram / "config.json", "model", "config", key, value=value)
    refused(saved_ngram)


def test_arrays_of_an_ngram_that_are_cut(saved_ngram: Path) -> None:
    for name in load_file(saved_ngram / WEIGHTS):
        copy = saved_ngram.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(saved_ngram, copy)

        def cut(tensors: dict[str, torch.Tensor], name: str = name) -> None:
            tensors[name] = tensors[name][:-1].clone()

        if load_file(copy / WEIGHTS)[name].dim() and len(load_file(copy / WEIGHTS)[name]):
            change_tensors(copy, cut)
            refused(copy)


def test_the_tokenizer_of_another_model(saved: Path) -> None:
    (saved / "characters.json").write_text(json.dumps({"schema": 1, "characters": "abc"}))
    refused(saved, "do not belong together")


HUGE: list[dict[str, Any]] = [
    {"hidden_size": 10**9},
    {"hidden_size": 40_000},  # 19 GB of weights
    {"hidden_size": 10**6, "layer": "reference"},
    {"vocab_size": 10**9},
    {"embedding_size": 10**9, "tied": True},
]


def test_a_claim_to_be_huge_is_refused_without_allocating(saved: Path) -> None:
    for number, settings in enumerate(HUGE):
        shutil.copytree(saved, saved.with_name(f"huge{number}"))
        for key, value in settings.items():
            change(saved.with_name(f"huge{number}") / "config.json", "model", "config", key, value=value)
    script = f"""
import resource, reviewgen
from pathlib import Path
reviewgen.load({str(saved)!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range({len(HUGE)}):
    try:
        reviewgen.load(Path({str(saved)!r}).with_name(f"huge{{number}}"))
    except reviewgen.ReviewgenError as error:
        print(type(error).__name__, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == ["BundleError"] * len(HUGE)
    assert all(int(mebibytes) < 50 for _, mebibytes in lines)


def test_a_file_no_folder_and_an_odd_path(saved: Path, tmp_path: Path) -> None:
    refused(saved / "config.json", "it is a file")
    refused(tmp_path / "nowhere", "no such folder")
    refused(tmp_path, "no config.json")
    refused(tmp_path / ("x" * 5000))
    refused(tmp_path / "a\0b")
    refused(saved / "config.json" / "x")


def test_a_missing_plugin_names_the_package_to_install(saved: Path) -> None:
    for part in ("model", "tokenizer"):
        content = (saved / "config.json").read_text()
        change(saved / "config.json", part, "name", value="stranger")
        change(saved / "config.json", part, "distribution", value="reviewgen-stranger")
        change(saved / "config.json", part, "version", value="7.8.9")
        with pytest.raises(UnknownPlugin, match=r"reviewgen-stranger 7\.8\.9.*pip install reviewgen-stranger") as caught:
            reviewgen.load(saved)
        assert "\n" not in str(caught.value)
        (saved / "config.json").write_text(content)


# Writing.


class Exploding(LetterTokenizer):
    """Fails when it is saved, after having written something."""

    error: BaseException = OSError(errno.ENOSPC, "No space left on device")

    def save(self, folder: Path) -> None:
        super().save(folder)
        raise self.error


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (RuntimeError("bug"), BrokenPlugin),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_an_exception_in_the_middle_leaves_what_was_there(
    tmp_path: Path, error: BaseException, raised: type[BaseException], old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Exploding, "error", error)
    target = tmp_path / "m"
    if old:
        letters().save_pretrained(target)
    before = listing(tmp_path)
    failing = review_model(TableModel(table(LETTERS.vocab_size)), Exploding(LETTERS.characters))
    with pytest.raises(raised):
        failing.save_pretrained(target, overwrite=old)
    assert listing(tmp_path) == before
    assert [file.name for file in tmp_path.iterdir()] == (["m"] if old else [])


def letters(seed: int = 0) -> ReviewModel:
    return review_model(TableModel(table(LETTERS.vocab_size, seed)), LETTERS)


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
def test_an_exception_at_the_last_rename_puts_the_old_one_back(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters().save_pretrained(tmp_path / "m")
    before = listing(tmp_path)
    rename, calls = Path.rename, []

    def fail_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise error
        return rename(self, target)

    monkeypatch.setattr("reviewgen.storage._renameat2", lambda: None)  # a system that cannot exchange two names
    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises((StorageError, KeyboardInterrupt)):
        letters(1).save_pretrained(tmp_path / "m", overwrite=True)
    assert listing(tmp_path) == before
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("old", [False, True])
def test_a_full_disk_in_the_middle_leaves_nothing(saved: Path, tmp_path: Path, old: bool) -> None:
    """RLIMIT_FSIZE stands in for the disk, in a process of its own; each limit breaks another file."""
    target = tmp_path / "out" / "m"
    target.parent.mkdir()
    if old:
        shutil.copytree(saved, target)
    limits = sorted({0, 10, *(file.stat().st_size - 1 for file in saved.iterdir())})
    before = listing(tmp_path)
    script = f"""
import os, resource, reviewgen, torch
from reviewgen.errors import StorageError
model = reviewgen.load({str(saved)!r})
for limit in {limits}:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        model.save_pretrained({str(target)!r}, overwrite={old})
    except StorageError as error:
        message = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(os.listdir({str(target.parent)!r}), message)
"""
    done = run_python(["-c", script])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(limits)
    assert all(line.startswith(f"{['m'] if old else []} No room to write") for line in lines)
    assert listing(tmp_path) == before


def test_an_existing_target_is_refused(gru: ReviewModel, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(OutputExists, match="already exists"):
            gru.save_pretrained(tmp_path / name)
        with pytest.raises(FileExistsError):
            gru.save_pretrained(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert {file.name for file in tmp_path.iterdir()} == {"folder", "file", "link"}


@pytest.mark.parametrize("what", ["model", "empty folder", "link", "dangling link"])
def test_overwrite_replaces_and_leaves_nothing_beside(what: str, gru: ReviewModel, ngram: ReviewModel, tmp_path: Path) -> None:
    home = tmp_path / "home"
    target = home / "m"
    home.mkdir()
    if what == "model":
        ngram.save_pretrained(target)
    elif what == "empty folder":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / "elsewhere")
        if what == "link":
            ngram.save_pretrained(tmp_path / "elsewhere")
    gru.save_pretrained(target, overwrite=True)
    assert [file.name for file in home.iterdir()] == ["m"]
    assert reviewgen.load(target).generate("the ", seed=1) == gru.generate("the ", seed=1)
    assert not target.is_symlink()
    if what == "link":
        assert reviewgen.load(tmp_path / "elsewhere").preset == "ngram-char"


def test_overwrite_does_not_remove_what_is_no_saved_model(gru: ReviewModel, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "file").write_text("mine")
    before = listing(tmp_path)
    for name in ("photos", "file"):
        with pytest.raises(OutputExists, match="not a saved model"):
            gru.save_pretrained(tmp_path / name, overwrite=True)
    assert listing(tmp_path) == before


def test_overwrite_removes_no_files_beside_a_model(gru: ReviewModel, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "m")
    (tmp_path / "m" / ".git").mkdir()
    (tmp_path / "m" / "notes.txt").write_text("mine")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "config.json").write_text('{"mine": 1}')
    before = listing(tmp_path)
    for name, said in (("m", "has other files than a saved model, '.git' and 1 more"), ("project", "is not a saved model")):
        with pytest.raises(OutputExists, match=said):
            gru.save_pretrained(tmp_path / name, overwrite=True)
    assert listing(tmp_path) == before


def test_places_that_may_not_be_written(gru: ReviewModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "m", tmp_path / "file" / "x" / "m", tmp_path / ("x" * 300)):
        with pytest.raises(StorageError, match=r"(may not|cannot) be written"):
            gru.save_pretrained(place)
    assert [file.name for file in tmp_path.iterdir() if file.name != "cache"] == ["file"]


def test_parents_are_made(gru: ReviewModel, tmp_path: Path) -> None:
    gru.save_pretrained(str(tmp_path / "a" / "b" / "m"))
    assert reviewgen.load(str(tmp_path / "a" / "b" / "m"))


def test_a_stranger_s_parts_are_saved_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Table(TableModel):
        def __init__(self, config: FakeConfig) -> None:
            super().__init__(torch.zeros(config.vocab_size, config.vocab_size))

    model = letters(3)
    model._bundle.model_plugin = Plugin("model", "table", "(this process)", "")
    model._bundle.tokenizer_plugin = Plugin("tokenizer", "letters", "(this process)", "")
    monkeypatch.setattr(registry.plugins, "_registered", {("model", "table"): Table, ("tokenizer", "letters"): LetterTokenizer})
    model.save_pretrained(tmp_path / "m")
    assert reviewgen.load(tmp_path / "m").generate("ab", num_return_sequences=3, seed=1) == model.generate(
        "ab", num_return_sequences=3, seed=1
    )
