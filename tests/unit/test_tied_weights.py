"""Tied weights of a third party's model: one tensor of the file, under all its names when it is read."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor, nn

import reviewgen
from reviewgen.bundle.write import copy_bundle
from reviewgen.errors import BundleError
from reviewgen.registry import plugins
from reviewgen.training.packing import pack, unpack
from tests.support.fakes import LETTERS, TEXTS, review_model

QUICK = {"batch_size": 4, "bptt": 16, "threads": 1, "precision": "no", "copy_tokens": 0, "evaluation_tokens": 300}


@dataclass(frozen=True, kw_only=True)
class TiedConfig:
    """The settings of ``Tied``."""

    vocab_size: int
    width: int = 64


class Tied(nn.Module):
    """The embedding is the output layer too, as torch ties them: one parameter with two names, both in ``state_dict``."""

    Config = TiedConfig

    def __init__(self, config: TiedConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.output = nn.Linear(config.width, config.vocab_size)
        self.output.weight = self.embedding.weight
        self.register_buffer("part", torch.arange(6.0)[:3])  # a view of a larger storage

    def initial_state(self, batch_size: int) -> tuple[()]:
        return ()

    def forward(self, ids: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return self.output(torch.tanh(self.embedding(ids))), ()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tied") / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_registered", {})
        reviewgen.register_model("tied", Tied)
        reviewgen.train("tied-char", TEXTS, steps=3, training=QUICK, out=folder)
    return folder


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {})
    reviewgen.register_model("tied", Tied)


def test_they_are_stored_once_as_the_safetensors_library_reads_them(trained: Path) -> None:
    stored = load_file(trained / "model.safetensors")
    assert stored.keys() == {"embedding.weight", "output.bias", "part"}
    model = reviewgen.load(trained).bundle.model
    numbers = sum(parameter.numel() for parameter in model.parameters()) + 3
    assert (trained / "model.safetensors").stat().st_size < 4 * numbers + 1000
    other = Tied(model.config)
    other.part = other.part.clone()  # the library refuses a view
    load_model(other, trained / "model.safetensors")  # strict
    assert torch.equal(other.output.weight, model.output.weight) and torch.equal(other.part, torch.tensor([0.0, 1.0, 2.0]))
    with safe_open(trained / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "output.weight": "embedding.weight"}


def test_the_file_of_a_large_model_has_four_bytes_for_each_of_its_parameters(tmp_path: Path) -> None:
    """1.29 million parameters, with the embedding twice, would be 10.3 MB."""
    model = Tied(TiedConfig(vocab_size=8000, width=160))
    parameters = sum(parameter.numel() for parameter in model.parameters())  # each once
    assert 1.28e6 < parameters < 1.30e6
    review_model(model, LETTERS).save_pretrained(tmp_path / "m")
    size = (tmp_path / "m" / "model.safetensors").stat().st_size
    assert 4 * parameters < size < 1.01 * 4 * parameters
    assert sum(file.stat().st_size for file in (tmp_path / "m").iterdir()) < 1.02 * 4 * parameters
    assert sum(tensor.nbytes for tensor in model.state_dict().values()) > 1.9 * 4 * parameters


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 1e-3), ("int8", 0.03)])
def test_they_load_and_are_tied_again_in_every_precision(trained: Path, tmp_path: Path, dtype: str, tolerance: float) -> None:
    model = reviewgen.load(trained)
    model.save_pretrained(tmp_path / "b", dtype=dtype)
    again = reviewgen.load(tmp_path / "b").bundle.model
    assert again.output.weight is again.embedding.weight
    torch.testing.assert_close(again.output.weight, model.bundle.model.output.weight, rtol=0, atol=tolerance)
    stored = load_file(tmp_path / "b" / "model.safetensors")
    assert "output.weight" not in stored and "output.weight.scale" not in stored
    assert ("embedding.weight.scale" in stored) == (dtype == "int8")
    copy_bundle(tmp_path / "b", tmp_path / "c")
    assert torch.equal(reviewgen.load(tmp_path / "c").bundle.model.output.weight, again.output.weight)


def test_a_folder_that_has_them_twice_loads(trained: Path) -> None:
    file = trained.with_name("twice")
    reviewgen.load(trained).save_pretrained(file)
    stored = {name: tensor.clone() for name, tensor in load_file(file / "model.safetensors").items()}  # it may map the file
    save_file(stored | {"output.weight": stored["embedding.weight"].clone()}, file / "model.safetensors", {"format": "pt"})
    assert torch.equal(reviewgen.load(file, accept_changes=True).bundle.model.output.weight, stored["embedding.weight"])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "missing tensors output.weight"),
        ({"output.weight": "unknown"}, "missing tensors output.weight"),
        ({"output.weight": "output.bias"}, "output.weight in model.safetensors is F32"),
        ({"output.weight": "embedding.weight", "more": "embedding.weight"}, "unknown tensors more"),
    ],
)
def test_wrong_further_names_are_refused(trained: Path, tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    reviewgen.load(trained).save_pretrained(tmp_path / "b")
    file = tmp_path / "b" / "model.safetensors"
    save_file(load_file(file), file, {"format": "pt"} | metadata)
    with pytest.raises(BundleError, match=message):
        reviewgen.load(tmp_path / "b")


def test_a_checkpoint_has_them_once_and_restores_them() -> None:
    model = Tied(TiedConfig(vocab_size=7))
    tree = {"model": dict(model.state_dict()), "best": {name: tensor.clone() for name, tensor in model.state_dict().items()}}
    packed, tensors = pack(tree)
    assert len(tensors) == 3 + 4
    restored = unpack(json.loads(json.dumps(packed)), tensors)
    for name, tensor in model.state_dict().items():
        assert torch.equal(restored["model"][name], tensor) and torch.equal(restored["best"][name], tensor)
    view = torch.arange(6.0).view(2, 3)
    packed, tensors = pack([view, view.T, view[0]])
    assert len(tensors) == 3  # not the same tensor, although they share memory
    assert [part.tolist() for part in unpack(packed, tensors)] == [view.tolist(), view.T.tolist(), [0, 1, 2]]
