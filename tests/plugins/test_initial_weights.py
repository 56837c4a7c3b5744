"""Neural models that start from tensors of another source: an embedding table, or the state dict of
torch's own layers.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import reviewgen
from reviewgen import TrainingRun
from reviewgen.errors import BrokenPlugin, ConfigError
from reviewgen.registry.plugins import find_model, register_model
from tests.support.fakes import TEXTS
from tests.support.trainings import ready

GRU = {
    "model": {"hidden_size": 8, "embedding_size": 4, "layer": "fused"},
    "training": {"batch_size": 4},
}
SIZES = {"embedding_size": 4, "hidden_size": 6, "layers": 2}


def begun(preset: Any, file: Path | None, **options: Any) -> TrainingRun:
    """Return a run whose model was made."""
    return ready(preset, TEXTS, steps=1, initial_weights=file, **({"model": SIZES} | options))


@pytest.mark.parametrize("name, kind", [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn", nn.RNN)])
def test_a_model_computes_what_the_modules_that_it_starts_from_compute(name, kind, tmp_path):
    size = begun(f"{name}-char", None).corpus.tokenizer.vocab_size
    settings = {"model": SIZES | {"ngrams": 1}}
    table = nn.Embedding(size, 4)
    layers = kind(4, 6, num_layers=2, batch_first=True)
    output = nn.Linear(6, size)
    save_file(
        dict(nn.ModuleDict({"encoder": table, "rnn": layers, "output": output}).state_dict()),
        tmp_path / "foreign",
    )
    with pytest.raises(ConfigError, match="safetensors"):
        begun(f"{name}-char", tmp_path / "missing.safetensors", **settings)
    (tmp_path / "foreign").rename(tmp_path / "foreign.safetensors")
    model: Any = begun(f"{name}-char", tmp_path / "foreign.safetensors", **settings).model
    ids = torch.randint(size, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = output(layers(table(ids))[0])
        logits, _ = model.eval()(ids, model.initial_state(3))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_training_starts_from_the_file_and_records_it(tmp_path):
    table = torch.randn(begun("gru-char", None, **GRU).corpus.tokenizer.vocab_size, 4)
    file = tmp_path / "table.safetensors"
    save_file({"weight": table}, file)
    run = begun("gru-char", file, out=tmp_path / "a", **GRU)
    assert torch.equal(run.model.state_dict()["embedding.weight"], table)
    assert any(
        "Initial weights from table.safetensors: embedding.weight" in note
        for note in run.record.notes
    )
    for _ in run:
        pass
    run.finish()
    record = json.loads((tmp_path / "a" / "training.json").read_text(encoding="utf-8"))[
        "initial_weights"
    ]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert record == {
        "file": "table.safetensors",
        "sha256": digest,
        "tensors": ["embedding.weight"],
    }


def test_what_cannot_be_used_is_refused_before_the_corpus_is_read(tmp_path):
    good = tmp_path / "good.safetensors"
    pickled = tmp_path / "weights.pt"
    save_file({"weight": torch.zeros(11, 4)}, good)
    torch.save({"weight": torch.zeros(11, 4)}, pickled)
    for preset, file, message in (
        ("gru-char", tmp_path / "none.safetensors", "there is no such file"),
        ("gru-char", pickled, r"a pickle \(.pt, .bin\) is never read"),
        ("ngram-char", good, "ngram-char cannot start from tensors"),
        ("blend-char", good, "give initial_weights to one of them"),
        (reviewgen.load("gru-char"), good, "has its weights already"),
    ):
        with pytest.raises(ConfigError, match=message):
            TrainingRun(preset, "there-is-no-such-corpus.csv", initial_weights=file)


def test_training_names_a_broken_plugin(untouched_registry, tmp_path):
    faulty = type(
        "Faulty",
        (find_model("gru")[0],),
        {"initial_weights": lambda model, given: {"other": torch.zeros(1)}},
    )
    save_file({"weight": torch.zeros(11, 4)}, tmp_path / "a")
    register_model("faulty", faulty)
    with pytest.raises(BrokenPlugin, match="'other'"):
        begun("faulty-char", tmp_path / "a")
