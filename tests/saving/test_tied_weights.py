"""Tied weights of a third party's model: one tensor of the file, under all its names when it is
read.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model
from torch import Tensor, nn

import reviewgen
from reviewgen.registry.plugins import register_model, unregister_all
from tests.support.fakes import TEXTS, FakeConfig
from tests.support.models import TRAINING
from tests.support.saved import WEIGHTS


class Tied(nn.Module):
    """The embedding is the output layer too, as torch ties them: one parameter with two names, both
    in ``state_dict``.
    """

    Config = FakeConfig

    def __init__(self, config: FakeConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, 64)
        self.output = nn.Linear(64, config.vocab_size)
        self.output.weight = self.embedding.weight
        self.register_buffer("part", torch.arange(6.0)[:3])  # a view of a larger storage

    def initial_state(self, batch_size: int) -> tuple[()]:
        return ()

    def forward(self, ids: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return self.output(torch.tanh(self.embedding(ids))), ()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Iterator[Path]:
    unregister_all()
    register_model("tied", Tied)
    folder = tmp_path_factory.mktemp("tied") / "a"
    reviewgen.train("tied-char", TEXTS, steps=3, training=TRAINING | {"copy_tokens": 0}, out=folder)
    yield folder
    unregister_all()


def test_they_are_stored_once_as_the_safetensors_library_reads_them(trained):
    assert load_file(trained / WEIGHTS).keys() == {"embedding.weight", "output.bias", "part"}
    model = reviewgen.load(trained).bundle.model
    other = Tied(model.config)
    other.part = other.part.clone()  # the library refuses a view
    load_model(other, trained / WEIGHTS)  # strict
    assert torch.equal(other.output.weight, model.output.weight) and torch.equal(
        other.part, torch.tensor([0.0, 1.0, 2.0])
    )
    with safe_open(trained / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt", "output.weight": "embedding.weight"}


@pytest.mark.parametrize("dtype, tolerance", [("float32", 0.0), ("int8", 0.03)])
def test_they_are_tied_again_in_every_precision(trained, tmp_path, dtype, tolerance):
    model = reviewgen.load(trained)
    model.save_pretrained(tmp_path / "b", dtype=dtype)
    loaded = reviewgen.load(tmp_path / "b")
    again = loaded.bundle.model
    assert again.output.weight is again.embedding.weight
    torch.testing.assert_close(
        again.output.weight, model.bundle.model.output.weight, rtol=0, atol=tolerance
    )
    stored = load_file(tmp_path / "b" / WEIGHTS)
    assert not {"output.weight", "output.weight.scale"} & stored.keys()
    assert ("embedding.weight.scale" in stored) == (dtype == "int8")
