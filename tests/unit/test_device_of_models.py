"""``ReviewModel.to`` and ``--device`` where there is no accelerator; tests/device has the rest."""

from pathlib import Path
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen.errors import ConfigError
from tests.unit.fakes import GRU, run_command, train_tiny

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
