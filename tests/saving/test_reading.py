"""Reading a saved folder is strict: every kind of damage is one sentence, before memory is taken
for what a file declares.
"""

import errno
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import reviewgen
from reviewgen.errors import BrokenPlugin, OutputExists, StorageError, UnknownPlugin
from reviewgen.storage import check_output
from tests.support.disks import peak_memory
from tests.support.fakes import LetterTokenizer
from tests.support.saved import WEIGHTS, edit_json, edit_tensors, letters, refusal

pytestmark = pytest.mark.usefixtures("untouched_registry")
CONFIG = "config.json"
GENERATION = "generation_config.json"
TRAINING = "training.json"
TOKENIZER = "characters.json"
DAMAGED = "damaged"


@pytest.fixture(scope="module")
def unlisted(model_folder, tmp_path_factory) -> Callable[[str], Path]:
    """Return a function that copies a micro model without its manifest, so that a change is refused
    for itself.
    """

    def copy(name: str) -> Path:
        folder = Path(
            shutil.copytree(model_folder(name), tmp_path_factory.mktemp("saved") / "model")
        )
        (folder / "manifest.json").unlink()
        return folder

    return copy


@pytest.fixture
def saved(unlisted: Callable[[str], Path]) -> Path:
    return unlisted("gru-char")


class Cases:
    """Collects the cases that were not refused with the expected word, so that a failure lists all
    of them.
    """

    def __init__(self) -> None:
        self.wrong: dict[str, str] = {}

    def expect(self, folder: Path, case: Any, word: str) -> None:
        if word not in (message := refusal(folder)):
            self.wrong[ascii(case)[:100]] = message


@pytest.fixture
def cases() -> Iterator[Cases]:
    found = Cases()
    yield found
    assert found.wrong == {}


# The files.


def test_every_file_but_the_optional_ones_must_be_there_and_be_a_file(saved, cases):
    for name in (CONFIG, WEIGHTS, GENERATION, TRAINING, TOKENIZER, "README.md"):
        content = (saved / name).read_bytes()
        (saved / name).unlink()
        cases.expect(saved, name, name)
        (saved / name).mkdir()
        cases.expect(saved, f"a folder {name}", name)
        (saved / name).rmdir()
        (saved / name).write_bytes(content)
    for name in ("novelty.safetensors", "lexicon.safetensors"):
        (saved / name).unlink(missing_ok=True)
    model = reviewgen.load(saved)
    assert model.bundle.index is None and model.bundle.lexicon is None


def test_other_files_are_refused_except_those_of_git_the_hub_and_file_managers(saved, cases):
    (saved / ".gitattributes").write_text("*.safetensors filter=lfs")
    (saved / ".DS_Store").write_bytes(b"\0")
    for name in (".git", ".cache"):
        (saved / name).mkdir()
    assert reviewgen.load(saved).preset == "gru-char"
    for name in ("model.py", "pytorch_model.bin", "tokenizer.json", "x"):
        (saved / name).write_text("x")
        cases.expect(saved, name, f"do not belong to a saved model: {name}")
        (saved / name).unlink()


def test_a_place_without_a_saved_model(saved, tmp_path, cases):
    for folder, word in (
        (saved / CONFIG, "it is a file"),
        (tmp_path / "nowhere", "no such folder"),
        # nothing that a terminal would obey
        (tmp_path / "a\x1b[31mb", "/a\\x1b[31mb: no such folder"),
        (tmp_path, f"no {CONFIG}"),
        (tmp_path / ("x" * 5000), ""),
        (tmp_path / "a\0b", ""),
        (saved / CONFIG / "x", ""),
    ):
        cases.expect(folder, folder, word)


@pytest.mark.parametrize("name", [CONFIG, GENERATION, TRAINING, TOKENIZER, "README.md"])
def test_text_that_is_damaged_or_beyond_the_bounds(saved, name, cases):
    file = saved / name
    deep = '{"a": ' * 65 + "1" + "}" * 65
    texts: list[str | bytes] = [
        "",
        "{",
        "[]",
        "null",
        "3",
        '"x"',
        "\ufeff{}",
        "[" * 100_000,
        "9" * 5000,
        '{"a": NaN}',
        deep,
    ]
    for content in [b'{"\xff\xfe": 1}', *(texts if name.endswith("json") else [])]:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        cases.expect(saved, content, name if isinstance(content, bytes) else "")
    os.truncate(file, (1 << 26) + 1)
    cases.expect(saved, "64 MB and a byte", name)


def test_weights_that_are_cut_or_something_else(unlisted, tmp_path, cases):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "touched",)

    for name in ("gru-char", "ngram-char"):
        folder = unlisted(name)
        data = (folder / WEIGHTS).read_bytes()
        torch.save({"a": torch.ones(1)}, tmp_path / "torch")
        headers = [struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 2) + b"{}"]
        others = [
            b"\xff" * 100,
            b"<html>404</html>",
            pickle.dumps(Trap()),
            (tmp_path / "torch").read_bytes(),
        ]
        for content in (*(data[:keep] for keep in (0, 1, 7, 8, 9, 100, -1)), *headers, *others):
            (folder / WEIGHTS).write_bytes(content)
            cases.expect(folder, content[:20], "not" if content in headers else DAMAGED)
    assert not (tmp_path / "touched").exists(), "no pickle is read"


# config.json.

REFUSED: dict[str, list[tuple[Any, str]]] = {
    "extra": [(1, "extra")],
    "model.extra": [(1, "extra")],
    "tokenizer.extra": [(1, "extra")],
    "model.config.hiden_size": [(1, "Did you mean 'hidden_size'")],
    "tokenizer.config.extra": [(1, "extra")],
    "schema": [
        (2, "schema 2"),
        (0, "schema 0"),
        ("1", "schema '1'"),
        (None, "schema None"),
        (True, "of type int"),
    ],
    "library": [("transformers", "transformers")],
    "library_version": [(1, "of type str")],
    "model": [("gru", "keys of model")],
    "tokenizer": [("char", "keys of tokenizer")],
    "model.config": [(None, "of type dict"), ([], "of type dict")],
    "tokenizer.config": [([], "of type dict")],
    "model.name": [(5, "of type str"), (["gru"], "of type str"), ("lstm", WEIGHTS)],
    "model.version": [(1, "of type str")],
    "tokenizer.distribution": [(None, "of type str")],
    "model.config.hidden_size": [
        (9, "requires float32 ["),
        (8.0, DAMAGED),
        (10**400, "401 digits"),
    ],
    "model.config.layers": [(2, "missing"), (60, " ... ")],
    "model.config.layer": [("other", "layer")],
    "tokenizer.files": [
        *(
            ([name], "outside")
            for name in (
                "../../secret.json",
                "/etc/passwd",
                f"sub/{TOKENIZER}",
                "..",
                "",
                "x" * 256,
                3,
            )
        ),
        *(
            (["code.py"], "no programs"),
            (["Config.json"], "on Windows and macOS is the same"),
            ([], TOKENIZER),
        ),
        *((None, "of type list"), ({TOKENIZER: 1}, "of type list")),
    ],
    "weights": [
        *((odd, "weights in config.json") for odd in ({}, [], {"gru-char": 5})),
        ({"gru-char": "x"}, WEIGHTS),
    ],
    "conditions": [(5, "condition")],
    "preset": [(5, "of type str")]
    + [
        (name, "preset in config.json")
        for name in (
            "\x1b[2Jx",
            "lstm word",
            "lstm-word\n",
            "",
            "-",
            "../x",
            "a" * 100_000,
            "LSTM-WORD",
        )
    ],
}


@pytest.mark.wrong_types
def test_config_values_that_are_refused(saved, cases):
    file = saved / CONFIG
    original = file.read_bytes()
    for path, values in REFUSED.items():
        for value, word in values:
            edit_json(file, *path.split("."), value=value)
            cases.expect(saved, (path, value), word)
            file.write_bytes(original)
    content = json.loads(original)
    for key in content:
        file.write_text(json.dumps({name: value for name, value in content.items() if name != key}))
        cases.expect(saved, f"without {key}", f"keys of {CONFIG}")
    for part in ("model", "tokenizer"):
        for key in content[part]:
            less = {name: value for name, value in content[part].items() if name != key}
            file.write_text(json.dumps(content | {part: less}))
            cases.expect(saved, f"without {part}.{key}", f"keys of {part}")
    for preset in ("lstm-word-large", "blend", "my-mingru:mingru-char"):  # the forms of a name
        file.write_text(json.dumps(content | {"preset": preset}))
        assert reviewgen.load(saved).preset == preset


def test_a_missing_plugin_names_the_package_to_install_and_hostile_names_are_not_repeated(saved):
    file = saved / CONFIG
    original = file.read_bytes()
    for part in ("model", "tokenizer"):
        for key, value in (
            ("name", "other"),
            ("distribution", "reviewgen-other"),
            ("version", "7.8.9"),
        ):
            edit_json(file, part, key, value=value)
        with pytest.raises(
            UnknownPlugin, match=r"reviewgen-other 7\.8\.9.*pip install reviewgen-other"
        ) as caught:
            reviewgen.load(saved)
        assert "\n" not in str(caught.value)
        file.write_bytes(original)
    edit_json(file, "model", "distribution", value="x --index-url http://evil ; sh\n\x1b[31m")
    message = refusal(saved)
    assert "not valid" in message and "evil" not in message


# Tensors.


def _change_first(
    change: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if tensors[name].is_floating_point())
        tensors[name] = change(tensors[name])

    return edit


EDITS: list[Callable[[dict[str, torch.Tensor]], object]] = [
    lambda tensors: tensors.pop(sorted(tensors)[0]),
    lambda tensors: tensors.update(extra=torch.ones(1)),
    lambda tensors: tensors.update(other=tensors.pop(sorted(tensors)[0])),
    _change_first(lambda tensor: tensor.unsqueeze(0)),
    _change_first(lambda tensor: tensor[:-1].clone()),
    _change_first(lambda tensor: torch.cat([tensor, tensor[-1:]])),
    _change_first(lambda tensor: tensor.bfloat16()),
    _change_first(lambda tensor: tensor.double()),
    _change_first(lambda tensor: tensor.long()),
]


@pytest.mark.parametrize("name", ["gru-char", "ngram-char"])
def test_missing_extra_and_wrong_tensors(unlisted, name, cases):
    folder = unlisted(name)
    original = (folder / WEIGHTS).read_bytes()
    for number, edit in enumerate(EDITS):
        edit_tensors(folder, edit)
        cases.expect(folder, number, "tensors")
        (folder / WEIGHTS).write_bytes(original)


@pytest.mark.parametrize("name", ["gru-char", "ngram-char"])
def test_weights_that_are_nan_infinite_or_above_a_billion(unlisted, name, cases):
    folder = unlisted(name)
    tensors = load_file(folder / WEIGHTS)
    largest = max(
        (name for name, array in tensors.items() if array.dtype == np.float32),
        key=lambda name: tensors[name].size,
    )
    for value in (3e38, -1e10, 1.1e9, np.inf, np.nan):
        changed = {largest: tensors[largest].copy()}
        changed[largest].flat[0] = value
        save_file(tensors | changed, folder / WEIGHTS, metadata={"format": "pt"})
        cases.expect(folder, value, DAMAGED)


@pytest.mark.posix
def test_sizes_that_a_config_declares_take_no_memory(saved, cases):
    original = (saved / CONFIG).read_bytes()
    before = peak_memory()
    for settings in (
        {"hidden_size": 10**9},
        {"hidden_size": 40_000},  # 19 GB of weights
        {"vocab_size": 10**9},
        {"embedding_size": 10**9, "tied": True},
    ):
        for key, value in settings.items():
            edit_json(saved / CONFIG, "model", "config", key, value=value)
        cases.expect(saved, settings, "")
        (saved / CONFIG).write_bytes(original)
    assert peak_memory() - before < 100 << 20


# Parts that do not belong together.


@pytest.mark.parametrize("name", ["gru-char", "conditional"])
def test_the_tokenizer_of_another_model(unlisted, name):
    folder = unlisted(name)
    whole = reviewgen.load(folder)
    (folder / TOKENIZER).write_text(json.dumps({"schema": 1, "characters": "abc"}))
    ids = whole.conditions.vocab_size - whole.tokenizer.vocab_size
    message = refusal(folder)
    assert "do not belong together" in message and (f"and its conditions {ids}:" in message) == (
        ids > 4
    ) == (name != "gru-char")


# training.json and generation_config.json.


def test_the_training_record_is_checked(saved, cases):
    good = {"unit": "%", "lower_is_better": None, "generated": 1, "held_out": 0.5}
    file = saved / TRAINING
    original = json.loads(file.read_text())

    def write(**values: Any) -> None:
        file.write_text(json.dumps(original | values))

    for name in ("data", "config", "held_out", "novelty", "metrics", "verdict", "parent"):
        for value in ([], 5, "x"):
            write(**{name: value})
            cases.expect(saved, (name, value), f"{name} in training.json must be an object")
    for part, name in (
        ("held_out", "bits_per_character"),
        ("novelty", "copy_rate"),
        ("novelty", "token_copy_rate"),
    ):
        new = {"token_copy_rate": 0, "copy_characters": 5} if name == "copy_rate" else {}
        for value in (10**90, 1_000_000.5, -1, -1e-9, 1e300, "5", [1]):
            write(**{part: new | {name: value}})
            cases.expect(saved, (name, value), f"{name} in {part} in training.json must be ")
        for value in (0, 0.0, 1_000_000, None):
            write(**{part: new | {name: value}})
            assert reviewgen.load(saved).training[part][name] == value
    for odd in (
        *(
            good | change
            for change in (
                {"unit": 5},
                {"lower_is_better": 1},
                {"generated": "1"},
                {"held_out": [1]},
            )
        ),
        *({name: value for name, value in good.items() if name != gone} for gone in good),
        [*good],
        None,
    ):
        write(metrics={"good": good, "odd": odd})
        is_short = isinstance(odd, dict) and odd.keys() < good.keys()
        cases.expect(
            saved, odd, "odd in metrics in training.json is missing" if is_short else "metrics"
        )
    write(metrics={"good": good, "other": good | {"lower_is_better": True, "held_out": None}})
    assert reviewgen.load(saved).training["metrics"]["good"] == good
    (saved / "novelty.safetensors").unlink()  # it belongs to the corpus of the record
    file.write_text("{}")
    assert reviewgen.load(saved).training == {}


@pytest.mark.wrong_types
def test_generation_defaults_are_checked_and_bounded(saved, cases):
    file = saved / GENERATION
    for settings, word in (
        *(
            ([], "JSON object"),
            ({"temprature": 1.0}, "temprature"),
            ({"temperature": 0}, "temperature"),
        ),
        *(
            ({"top_k": "5"}, "top_k"),
            ({"num_beams": 0}, "num_beams"),
            ({"num_return_sequences": 10**12}, "num_return"),
        ),
        ({"max_new_tokens": 100_001}, "max_new_tokens is at most 100,000"),
        ({"max_new_tokens": 10**90}, "at most 100,000; got about 1e"),
        ({"max_new_tokens": 100_000, "min_new_tokens": 10_001}, "min_new_tokens is at most 10,000"),
        (
            {"max_new_tokens": 100_000, "num_beams": 11},
            "max_new_tokens times num_beams is at most 1,000,000",
        ),
        ({"no_repeat_ngram_size": 1_001}, "no_repeat_ngram_size is at most 1,000"),
        ({"temperature": [0.5] * 1_001}, "the number of temperatures is at most 1,000"),
        ({"stop_strings": ["a"] * 1_001}, "the number of stop_strings"),
        ({"stop_strings": ["a" * 1_001]}, "the length of a stop string"),
    ):
        file.write_text(json.dumps(settings))
        cases.expect(saved, settings, word)
    most = {
        "max_new_tokens": 100_000,
        "min_new_tokens": 10_000,
        "num_beams": 10,
        "no_repeat_ngram_size": 1_000,
    }
    file.write_text(
        json.dumps(most | {"stop_strings": ["a" * 1_000] * 1_000, "temperature": [0.5] * 1_000})
    )
    assert reviewgen.load(saved).generation_config.max_new_tokens == 100_000
    # a call says how many
    file.write_text(json.dumps({"num_return_sequences": 10_000_000, "max_new_tokens": 5}))
    assert len(reviewgen.load(saved).generate("the ", seed=1)) == 1


# Plugins, while the folder is read.


class Loading(LetterTokenizer):
    """A tokenizer that cannot be loaded."""

    error: ClassVar[Exception]
    calls: ClassVar[int] = 0

    @classmethod
    def load(cls, folder: Path) -> LetterTokenizer:
        cls.calls += 1
        raise cls.error


def test_errors_of_a_tokenizer_that_is_loaded_are_one_sentence(tmp_path, monkeypatch):
    letters(3, Loading).save_pretrained(tmp_path / "m")
    monkeypatch.setattr(Loading, "calls", 0)

    def after(error: Exception) -> Path:
        monkeypatch.setattr(Loading, "error", error, raising=False)
        return tmp_path / "m"

    assert "a key is missing: 'letters'" in refusal(after(KeyError("letters")))
    message = refusal(after(TypeError("one\n two\n three\nfour")))
    assert "saved model: one" in message and "two" not in message and "key" not in message
    assert "TypeError" in refusal(after(TypeError()))
    assert "cannot be read: Permission denied" in refusal(
        after(PermissionError(errno.EACCES, "Permission denied"))
    )
    for number in (errno.ENOSPC, errno.EDQUOT):  # loops are compiled while a model is read
        with pytest.raises(StorageError, match="NUMBA_CACHE_DIR"):
            reviewgen.load(after(OSError(number, os.strerror(number))))
    assert Loading.calls == 6
    for error in (BrokenPlugin("as it is"), RuntimeError("as it is")):
        with pytest.raises(type(error), match=r"^as it is$"):
            reviewgen.load(after(error))
    assert Loading.calls == 8, "each is read once"


def test_a_replacement_that_was_cut_off_is_said(model_folder, tmp_path, monkeypatch):
    """A process that was killed between its two renames: the old folder is aside, and the new one
    has no name yet.
    """
    for name, preset in ((".m.old", "gru-char"), (".m.new", "ngram-char")):
        shutil.copytree(model_folder(preset), tmp_path / name)
    monkeypatch.chdir(tmp_path.parent)
    for source in (tmp_path / "m", f"{tmp_path.name}/m"):  # which is also the name of a repository
        assert all(part in refusal(source) for part in ("was cut off", ".m.old", ".m.new"))
    for write in (
        lambda: letters().save_pretrained(tmp_path / "m", overwrite=True),
        lambda: check_output(tmp_path / "m"),
    ):
        with pytest.raises(OutputExists, match=r"cut off.*\.m\.old.*\.m\.new"):
            write()
    assert reviewgen.load(tmp_path / ".m.old") and reviewgen.load(tmp_path / ".m.new")
