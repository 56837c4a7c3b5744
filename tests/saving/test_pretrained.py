"""A transformer in files that other programs open, and back."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import reviewgen
from reviewgen.errors import BundleError, ConfigError
from reviewgen.export.pretrained import export_gguf, export_transformers
from tests.support.fakes import TEXTS

SMALL = {"hidden_size": 32, "layers": 2, "heads": 2, "window": 64, "ngrams": 1}


@pytest.fixture(scope="module", params=["word", "char"])
def model(request):
    return reviewgen.train(
        f"transformer-{request.param}", list(TEXTS) * 3, steps=30, model=SMALL, progress=False
    )


@pytest.fixture
def folder(model, tmp_path):
    export_transformers(model, tmp_path / "hf")
    return tmp_path / "hf"


def test_a_folder_is_the_model_in_both_libraries(model, folder):
    again = reviewgen.load(folder)
    plain = {"seed": 1, "words": "any", "finish": "anywhere"}  # the folder has no known words
    assert again.generate("A", **plain) == model.generate("A", **plain)
    assert again.score("A good film.") == model.score("A good film.")
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("A good film. é").input_ids
    assert ids == [model.tokenizer.bos_id, *model.tokenizer.encode("A good film. é")]
    batch = torch.tensor([ids + 9 * ids[1:]])  # one text: bos stands at its beginning only
    with torch.no_grad():
        own, _ = model.model(batch, model.model.initial_state(1))
        torch.testing.assert_close(loaded(batch).logits, own, atol=1e-4, rtol=0)
    write = transformers.pipeline("text-generation", str(folder))
    assert write("A", max_new_tokens=5)[0]["generated_text"].startswith("A")
    loaded.save_pretrained(folder.parent / "again")
    tokenizer.save_pretrained(folder.parent / "again")
    third = reviewgen.load(folder.parent / "again")
    assert third.generate("A", **plain) == again.generate("A", **plain)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"hidden_size": 64}, "its config requires"),
        ({"num_hidden_layers": 3}, "missing tensors"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"hidden_size": 1 << 20}, "at most 100,000,000"),
    ],
)
def test_another_config_is_refused(folder, changes, said):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(BundleError, match=said):
        reviewgen.load(folder)


def test_pickled_weights_are_refused(folder):
    shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")
    with pytest.raises(BundleError, match="pickled"):
        reviewgen.load(folder)


def test_gguf_has_the_tensors(model, tmp_path):
    if model.tokenizer_name == "char":
        with pytest.raises(ConfigError, match="no form of the tokenizer 'char'"):
            export_gguf(model, tmp_path / "m.gguf")
        return
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(export_gguf(model, tmp_path / "m.gguf"))
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    state = model.model.state_dict()
    assert len(tensors) == len(state)
    assert np.array_equal(tensors["token_embd.weight"], state["embedding.weight"].numpy())
    queries = state["layers.0.self_attn.q_proj.weight"].numpy().reshape(2, 2, 8, 32)
    expected = queries.swapaxes(1, 2).reshape(32, 32)
    assert np.array_equal(tensors["blk.0.attn_q.weight"], expected)


def test_other_models_are_refused(tmp_path):
    for preset in ("gru-word", "ngram-char"):
        with pytest.raises(ConfigError, match="--onnx FOLDER"):
            export_transformers(reviewgen.load(preset), tmp_path / "hf")


def test_a_missing_tensor_and_another_tokenizer_are_refused(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("model.norm.weight")
    save_file(tensors, file)
    with pytest.raises(BundleError, match=r"missing tensors norm\.weight"):
        reviewgen.load(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="another tokenizer"):
        reviewgen.load(folder)
