"""``ReviewModel.to`` and ``--device`` on a machine without an accelerator."""

from typing import Any

import pytest
import torch

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import ConfigError, DeviceError
from reviewgen.tables.receipts import make_receipt
from tests.support.fakes import TEXTS, raising


@pytest.fixture
def gru(model_folder) -> ReviewModel:
    """A network of its own for each test."""
    return reviewgen.load(model_folder("gru-char"))


OPTIONS: dict[str, Any] = {
    "max_new_tokens": 20,
    "seed": 1,
    "num_return_sequences": 3,
    "return_dict_in_generate": True,
}


def test_the_device_of_a_text_is_in_its_request_and_its_receipt(gru):
    """The CPU by its number is a device like any other."""
    on_cpu = gru.generate("the ", **OPTIONS)
    gru.bundle.weights.to("cpu:0")
    on_device = gru.generate("the ", **OPTIONS)
    assert all(text.text.startswith("the ") for text in on_device)
    assert (on_cpu[0].request.device, on_device[0].request.device) == ("cpu", "cpu:0")
    assert (
        "device" not in make_receipt(gru, on_cpu[0])["model"]
        and make_receipt(gru, on_device[0])["model"]["device"] == "cpu"
    )


def test_what_is_saved_does_not_depend_on_the_device(gru, tmp_path):
    gru.save_pretrained(tmp_path / "on-cpu")
    gru.bundle.weights.to("cpu:0")
    bits = reviewgen.load(tmp_path / "on-cpu").evaluate(TEXTS).bits_per_character
    assert gru.evaluate(TEXTS).bits_per_character == pytest.approx(bits)
    gru.save_pretrained(tmp_path / "on-device")
    assert (tmp_path / "on-cpu/model.safetensors").read_bytes() == (
        tmp_path / "on-device/model.safetensors"
    ).read_bytes()


def test_a_table_leaves_the_model_on_its_device(gru, tmp_path):
    gru.bundle.weights.to("cpu:0")
    reviewgen.generate_dataset(gru, 5, out=tmp_path / "texts", seed=1, max_new_tokens=9)
    assert gru.device == "cpu:0"
    with pytest.raises(ConfigError, match="device differ"):
        reviewgen.generate_dataset(
            gru, 5, out=tmp_path / "texts", seed=1, max_new_tokens=9, device="cpu"
        )


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to"), torch.AcceleratorError("no kernel")],
)
def test_a_device_that_fails_is_named(error, gru, monkeypatch):
    gru.bundle.weights.to("cpu:0")
    monkeypatch.setattr(gru.bundle.weights.model_on_device, "forward", raising(error))
    for call in (
        lambda: gru.generate(seed=1),
        lambda: gru.evaluate(TEXTS),
        lambda: gru.score("a record"),
    ):
        with pytest.raises(DeviceError, match=r"cpu:0 has failed"):
            call()
