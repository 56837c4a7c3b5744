"""``ReviewModel.to`` and ``--device`` on a machine without an accelerator."""

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen.cli.file import write_file
from reviewgen.errors import ConfigError, DeviceError
from reviewgen.generation.model_stepper import _count_threads
from reviewgen.model import ReviewModel
from reviewgen.receipts import make_receipt
from reviewgen.writing.devices import move
from tests.support.fakes import GRU, TEXTS, run_command, train_tiny

CORES = [("1", 1, 8), ("4", 1, 2), ("16", 1, 1), ("4", 6, 6), ("x", 3, 3)]  # processes, threads of torch, and to sample
NO_DEVICE = pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")


@pytest.mark.parametrize("device", ["cuda:99", "meta", "rocket", "", "auto", "cuda:x"])
def test_a_device_that_is_not_there(device: str) -> None:
    model = reviewgen.load("gru-char")
    with pytest.raises(ConfigError, match=r"is not available|cannot be copied"):
        model.to(device)
    assert model.device == "cpu" and model.generate(max_new_tokens=3, seed=1)


def test_models_that_stay_on_the_cpu() -> None:
    for name in ("ngram-char", "blend-char"):
        with pytest.raises(ConfigError, match="models generate and score on the CPU only: leave out the device cuda"):
            reviewgen.load(name).to("cuda")
    with pytest.raises(ConfigError, match="8-bit weights are for the CPU"):
        reviewgen.load("gru-char", weight_bits=8).to("cuda")


def test_the_cpu_is_the_cpu() -> None:
    model = reviewgen.load("gru-char")
    texts = model.generate(num_return_sequences=3, max_new_tokens=20, seed=1)
    assert model.to(torch.device("cpu")) is model and model.device == "cpu"
    assert model.to("cpu:0").generate(num_return_sequences=3, max_new_tokens=20, seed=1) == texts


def test_what_is_saved_does_not_depend_on_the_device(tmp_path: Path) -> None:
    model = train_tiny("gru-char", tmp_path / "cache", **GRU)
    model.save_pretrained(tmp_path / "on-cpu")
    model.bundle.weights.to("cpu:0")  # by its number, the CPU is a device like any other
    model.save_pretrained(tmp_path / "on-device")
    assert (tmp_path / "on-cpu/model.safetensors").read_bytes() == (tmp_path / "on-device/model.safetensors").read_bytes()


def test_a_table_leaves_the_model_where_it_is(tmp_path: Path) -> None:
    model = train_tiny("gru-char", tmp_path / "cache", **GRU)
    model.save_pretrained(tmp_path / "model")
    model = reviewgen.load(tmp_path / "model")
    model.bundle.weights.to("cpu:0")
    reviewgen.novelty_dataset(model, TEXTS, out=tmp_path / "copies")
    reviewgen.score_dataset(model, TEXTS, out=tmp_path / "scored", device="cpu")
    assert model.device == "cpu:0"
    on_device = reviewgen.generate_dataset(model, 20, out=tmp_path / "texts", seed=1, max_new_tokens=9)
    assert model.device == "cpu:0" and json.loads((on_device.out / "manifest.json").read_text())
    with pytest.raises(ConfigError, match="texts of another job: device differ"):
        reviewgen.generate_dataset(model, 20, out=tmp_path / "texts", seed=1, max_new_tokens=9, device="cpu")


def test_a_file_is_not_continued_on_another_device(tmp_path: Path) -> None:
    model = train_tiny("gru-char", tmp_path / "cache", **GRU)
    settings = {"num_return_sequences": 3, "max_new_tokens": 5, "novelty": None}
    write_file(model, "model", "", settings, 1, tmp_path / "texts.jsonl", None)
    model.bundle.weights.to("cpu:0")
    with pytest.raises(ConfigError, match="was written with other settings"):
        write_file(model, "model", "", settings, 1, tmp_path / "texts.jsonl", None)


def test_a_receipt_has_the_device_of_its_text() -> None:
    model = reviewgen.load("gru-char")
    arguments: Any = {"max_new_tokens": 5, "seed": 1, "return_dict_in_generate": True}
    (on_cpu,) = model.generate(**arguments)
    model.bundle.weights.to("cpu:0")
    (elsewhere,) = model.generate(**arguments)
    assert (on_cpu.request.device, elsewhere.request.device) == ("cpu", "cpu:0")
    assert "device" not in make_receipt(model, on_cpu)["model"] and make_receipt(model, elsewhere)["model"]["device"] == "cpu"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to"), torch.AcceleratorError("no kernel")])
def test_a_device_that_fails_is_one_sentence(error: Exception, tmp_path: Path, monkeypatch: Any) -> None:
    model = reviewgen.load("gru-char")
    model.bundle.weights.to("cpu:0")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(model.bundle.weights.model_on_device, "forward", fail)
    for call in (lambda: model.generate(seed=1), lambda: model.evaluate(TEXTS), lambda: model.score("a record")):
        with pytest.raises(DeviceError, match=r"^The device cpu:0 has failed: .*The device cpu may take longer.$"):
            call()


def test_a_model_that_cannot_be_copied() -> None:
    model = reviewgen.load("gru-char")
    model.model.lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"cannot be copied to the device cpu:0: cannot pickle"):
        model.bundle.weights.to("cpu:0")


@pytest.mark.parametrize(("processes", "torch_threads", "threads"), CORES)
def test_the_threads_that_sample(processes: str, torch_threads: int, threads: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(torch, "get_num_threads", lambda: torch_threads)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert _count_threads() == threads


def test_what_auto_is_where_there_is_an_accelerator(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(reviewgen.training, "process_state", lambda: SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(reviewgen.training, "choose_device", lambda *_: (torch.device("cuda"), ()))
    moved: list[str] = []
    monkeypatch.setattr(ReviewModel, "to", lambda _, device: moved.append(str(device)))
    for name, bits in (("gru-char", 32), ("gru-char", 8), ("ngram-char", 32), ("blend-char", 32)):
        move(reviewgen.load(name, weight_bits=bits), "auto")
    assert moved == ["cuda"]


@NO_DEVICE
@pytest.mark.parametrize("words", [["generate", "gru-char"], ["score", "gru-char", "--text", "a"], ["evaluate", "gru-char"]])
def test_commands_name_what_is_missing(words: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "reviews.txt").write_text("a record\n")
    data = ["--data", str(tmp_path / "reviews.txt")] if words[0] == "evaluate" else []
    status, _, said = run_command(monkeypatch, capsys, *words, *data, "--device", "cuda")
    assert status == 2 and said.strip() == "error: The device 'cuda' is not available: PyTorch has cpu here."
    status, out, _ = run_command(monkeypatch, capsys, *words, *data, "--device", "auto")
    assert status == 0 and out


@NO_DEVICE
def test_tables_name_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'cuda' is not available"):
        reviewgen.generate_dataset("gru-char", 3, out=tmp_path / "texts", device="cuda")
    with pytest.raises(ConfigError, match="'mps' is not available"):
        reviewgen.score_dataset("gru-char", ["a", "b"], out=tmp_path / "scored", device="mps")
    assert list(tmp_path.iterdir()) == []
