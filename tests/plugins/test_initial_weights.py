"""Neural models that start from tensors of another source: an embedding table, or the state dict of torch's own layers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import reviewgen
from reviewgen.config import from_dict
from reviewgen.errors import BrokenPlugin, ConfigError
from reviewgen.registry import find_model
from reviewgen.runs import TrainingRun
from reviewgen.runs.initial_weights import InitialWeights, set_initial_weights
from reviewgen.testing import make_model
from reviewgen.testing.initial_weights_law import initial_weights
from tests.support.fakes import GRU, TEXTS, run_command

SIZES = {"embedding_size": 4, "hidden_size": 6, "layers": 2}
QUICK = {"batch_size": 4, "bptt": 16, "threads": 1, "precision": "no", "copy_tokens": 0, "evaluation_tokens": 300}


@pytest.mark.parametrize(("name", "kind"), [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn", nn.RNN)])
def test_a_model_computes_what_the_modules_that_it_starts_from_compute(name: str, kind: Any, tmp_path: Path) -> None:
    table, layers, output = nn.Embedding(11, 4), kind(4, 6, num_layers=2, batch_first=True), nn.Linear(6, 11)
    parts = nn.ModuleDict({"encoder": table, "rnn": layers, "output": output})
    save_file(dict(parts.state_dict()), tmp_path / "foreign.safetensors")
    model = make_model(name, **SIZES)
    changed = set_initial_weights(model, InitialWeights.find(tmp_path / "foreign.safetensors", type(model), name))
    assert set(changed) == set(model.state_dict())
    ids = torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = output(layers(table(ids))[0])
        logits, _ = model(ids, model.initial_state(3))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_part_is_enough_and_the_rest_stays_random(tmp_path: Path) -> None:
    """The state dict of an nn.Embedding has the one name ``weight``; that of an nn.LSTM has no prefix."""
    random, table, layers = make_model("lstm", **SIZES).state_dict(), nn.Embedding(11, 4), nn.LSTM(4, 6, 2)
    for file, module, changed in (
        ("a", table, {"embedding.weight"}),
        ("b", layers, {f"recurrent.{n}" for n in layers.state_dict()}),
    ):
        save_file(dict(module.state_dict()), tmp_path / file)
        model = make_model("lstm", **SIZES)
        assert set(set_initial_weights(model, InitialWeights.find(tmp_path / file, type(model), "lstm"))) == changed
        differs = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, random[name])}
        assert differs == changed


def test_nnlm_starts_from_a_foreign_table_and_keeps_its_vector_before_the_beginning(tmp_path: Path) -> None:
    random, table = make_model("nnlm", embedding_size=4, hidden_size=6).state_dict(), nn.Embedding(11, 4)
    save_file({"transformer.embed.weight": table.weight.detach().half()}, tmp_path / "foreign.safetensors")
    model = make_model("nnlm", embedding_size=4, hidden_size=6)
    weights = InitialWeights.find(tmp_path / "foreign.safetensors", type(model), "nnlm")
    assert set_initial_weights(model, weights) == ["embedding.weight"]
    after = model.state_dict()
    torch.testing.assert_close(after["embedding.weight"][:-1], table.weight.detach(), rtol=0, atol=1e-3)
    assert torch.equal(after["embedding.weight"][-1], random["embedding.weight"][-1])
    assert all(torch.equal(after[name], random[name]) for name in random if name != "embedding.weight")
    for name, tensor, message in (
        ("weight", torch.zeros(10, 4), "has the shape 10 x 4, and that of the model 12 x 4"),
        (
            "weight_ih_l0",
            torch.zeros(4),
            r"weight_ih_l0 has no place in a Nnlm; accepted are weight or embedding.weight \(V, E\)",
        ),
    ):
        save_file({name: tensor}, tmp_path / "bad.safetensors")
        with pytest.raises(ConfigError, match=message):
            set_initial_weights(model, InitialWeights.find(tmp_path / "bad.safetensors", type(model), "nnlm"))


@pytest.mark.parametrize("preset", ["nnlm-char", "nnlm-word"])
def test_nnlm_trains_from_the_table_of_a_recurrent_model(preset: str, tmp_path: Path) -> None:
    donor = reviewgen.train(preset.replace("nnlm", "gru"), TEXTS, steps=1, **GRU).bundle.model.state_dict()["embedding.weight"]
    save_file({"weight": donor}, tmp_path / "table.safetensors")
    options: Any = {"model": {"embedding_size": 4, "hidden_size": 6}, "training": QUICK}
    run = TrainingRun(preset, TEXTS, steps=1, initial_weights=tmp_path / "table.safetensors", **options)
    run.read()
    run.tokenize()
    assert torch.equal(run.model.state_dict()["embedding.weight"][:-1], donor)


def test_training_starts_from_the_file_and_records_it(tmp_path: Path) -> None:
    probe = TrainingRun("gru-char", TEXTS, steps=1, **GRU)
    probe.read()
    probe.tokenize()
    table = torch.randn(probe.tokenizer.vocab_size, 4)
    file = tmp_path / "table.safetensors"
    save_file({"weight": table}, file)
    run = TrainingRun("gru-char", TEXTS, steps=1, out=tmp_path / "a", initial_weights=file, **GRU)
    run.read()
    run.tokenize()
    assert torch.equal(run.model.state_dict()["embedding.weight"], table)
    assert any("Initial weights from table.safetensors: embedding.weight" in note for note in run.notes)
    for _ in run:
        pass
    run.finish()
    record = json.loads((tmp_path / "a" / "training.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["initial_weights"] == {"file": "table.safetensors", "sha256": digest, "tensors": ["embedding.weight"]}
    assert str(tmp_path) not in json.dumps(record["initial_weights"])
    save_file({"weight": table[:, :3].contiguous()}, file)
    with pytest.raises(
        ConfigError, match=rf"embedding.weight of table.safetensors has the shape {len(table)} x 3, and that of the model"
    ):
        reviewgen.train("gru-char", TEXTS, steps=1, initial_weights=file, **GRU)


def test_what_cannot_be_used_is_refused_before_the_corpus_is_read(tmp_path: Path) -> None:
    good, pickled = tmp_path / "good.safetensors", tmp_path / "weights.pt"
    save_file({"weight": torch.zeros(11, 4)}, good)
    torch.save({"weight": torch.zeros(11, 4)}, pickled)
    for preset, file, message in (
        ("gru-char", tmp_path / "none.safetensors", "cannot be read: there is no such file"),
        ("gru-char", pickled, r"weights.pt is not one; a pickle \(.pt, .bin\) is never read"),
        ("ngram-char", good, "ngram-char cannot start from tensors of another source"),
        ("blend-char", good, "blend-char is a blend of several models: give initial_weights to one of them"),
        (reviewgen.load("gru-char"), good, "trained further has its weights already"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            TrainingRun(preset, "there-is-no-such-corpus.csv", initial_weights=file)
        assert len(str(caught.value)) < 500


def test_tensors_without_a_place_are_refused() -> None:
    model = make_model("lstm", **SIZES)
    for name in ("weight_ih_l2", "weight_ih_l0_reverse", "decoder.weight", "anything"):
        with pytest.raises(ConfigError, match=f"{name} has no place in a Lstm of 2 layers"):
            model.initial_weights({name: torch.zeros(2)})
    with pytest.raises(ConfigError, match=r"two tensors are for embedding\.weight, one of which is encoder.weight"):
        model.initial_weights({"weight": torch.zeros(11, 4), "encoder.weight": torch.zeros(11, 4)})


def test_the_command_line_takes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    words = ["train", "gru-char", "--data", tmp_path / "texts.txt", "--out", tmp_path / "a", "--steps", 1, "--initial-weights"]
    (tmp_path / "bad").write_bytes(b"not tensors")
    status, _, err = run_command(monkeypatch, capsys, *words, tmp_path / "bad")
    assert status == 2 and "must be a safetensors file, and bad is not one" in " ".join(err.split())
    save_file(dict(nn.GRU(4, 8).state_dict()), tmp_path / "layers")
    sizes = ["--set", "model.embedding_size=4", "--set", "model.hidden_size=8"]
    status, _, err = run_command(monkeypatch, capsys, *words, tmp_path / "layers", *sizes)
    said = " ".join(err.split())
    assert status == 0 and "Initial weights from layers: " in said and "recurrent.weight_ih_l0" in said


@pytest.mark.parametrize(
    ("mapped", "message"),
    [
        (lambda model, tensors: dict(tensors), "accepts a tensor that it does not know"),
        (lambda model, tensors: {}, "leaves out"),
        (lambda model, tensors: {name: tensor[None] for name, tensor in tensors.items()}, "of the shape"),
        (lambda model, tensors: {f"my.{name}": tensor for name, tensor in tensors.items()}, "not a name of state_dict"),
        (lambda model, tensors: (model.load_state_dict(tensors), dict(tensors))[1], "changes the model"),
    ],
)
def test_the_law_finds_planted_faults(mapped: Any, message: str) -> None:
    kind, _ = find_model("gru")

    class Faulty(kind):  # type: ignore[misc,valid-type]
        def initial_weights(self, tensors: Any) -> dict[str, Tensor]:
            return mapped(self, tensors)  # type: ignore[no-any-return]

    with pytest.raises(AssertionError, match=message):
        initial_weights(lambda: Faulty(from_dict(kind.Config, {"vocab_size": 11, **SIZES})))


def test_a_model_that_names_another_tensor_is_refused(tmp_path: Path) -> None:
    kind, _ = find_model("gru")

    class Faulty(kind):  # type: ignore[misc,valid-type]
        def initial_weights(self, tensors: Any) -> dict[str, Tensor]:
            return {"other": torch.zeros(1)}

    save_file({"weight": torch.zeros(11, 4)}, tmp_path / "a")
    with pytest.raises(BrokenPlugin, match="returns 'other', which is not one of the model's tensors"):
        set_initial_weights(
            Faulty(from_dict(kind.Config, {"vocab_size": 11, **SIZES})), InitialWeights.find(tmp_path / "a", Faulty, "x")
        )
