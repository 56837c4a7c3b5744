"""A transformer in files that other programs open, and back."""

import json
import shutil
import sys
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import reviewgen
from reviewgen.errors import BundleError, ConfigError
from reviewgen.export.pretrained import export_gguf, export_transformers
from reviewgen.registry.plugins import find_model
from tests.support.fakes import LETTERS, TEXTS, review_model
from tests.support.models import EXAMPLES
from tests.support.saved import edit_tensors

SMALL = {"hidden_size": 32, "layers": 2, "heads": 2, "window": 64, "ngrams": 1}
KINDS: dict[str, dict[str, Any]] = {
    "word": {},
    "char": {},
    "word, grouped heads": {"heads": 4, "key_value_heads": 2},
}
TOKENS = 200
# each has more tokens than that, so that the end of a text is improbable
LONG = [" ".join(TEXTS[n:] + TEXTS[:n]) for n in range(0, len(TEXTS), 3)]


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    preset = f"transformer-{request.param.split(',')[0]}"
    settings = SMALL | KINDS[request.param]
    return reviewgen.train(preset, LONG, steps=30, model=settings, progress=False)


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
    assert {file.suffix for file in folder.iterdir()} == {".json", ".md", ".safetensors"}
    loaded.save_pretrained(folder.parent / "again")
    tokenizer.save_pretrained(folder.parent / "again")
    third = reviewgen.load(folder.parent / "again")
    assert third.generate("A", **plain) == again.generate("A", **plain)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"hidden_size": 64, "head_dim": None}, "its config requires"),
        ({"head_dim": 2}, "head_dim is 2"),
        ({"sliding_window": 0}, "window must be at least 1 and at most 65536; got 0"),
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


@pytest.mark.parametrize("content", [b"null", b'["architectures"]', b'"architectures"'])
def test_files_that_are_not_objects_are_refused(folder, content):
    (folder / "generation_config.json").write_bytes(content)
    with pytest.raises(BundleError, match="should be a JSON object"):
        reviewgen.load(folder)
    (folder / "config.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"keys of config\.json should be"):
        reviewgen.load(folder)


def test_a_folder_has_a_digest_and_no_manifest(model, folder, run_command):
    loaded = reviewgen.load(folder)
    assert loaded.digest == reviewgen.load(folder).digest is not None
    status, output, _ = run_command("doctor", folder)
    assert status == 0 and "can be read" in output and "--accept" not in output
    status, _, problem = run_command("doctor", folder, "--accept")
    assert status == 1 and "nothing to accept" in problem
    assert not (folder / "manifest.json").exists()
    export_transformers(model, folder, overwrite=True)
    edit_tensors(folder, lambda tensors: tensors["model.norm.weight"].mul_(2))
    assert reviewgen.load(folder).digest != loaded.digest


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
    half = model.model.config.head_size // 2
    queries = state["layers.0.self_attn.q_proj.weight"].numpy().reshape(-1, 2, half, 32)
    expected = queries.swapaxes(1, 2).reshape(32, 32)
    assert np.array_equal(tensors["blk.0.attn_q.weight"], expected)


@torch.no_grad
def test_transformers_computes_the_same_from_the_gguf_file(model, tmp_path):
    """The library has its own reader of llama.cpp's names, settings and order of rows."""
    if model.tokenizer_name == "char":
        pytest.skip("GGUF has no form of it")
    gguf = pytest.importorskip("gguf")
    transformers = pytest.importorskip("transformers")
    file = export_gguf(model, tmp_path / "m.gguf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name)
    config = model.model.config
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert theirs.config.max_position_embeddings == config.window
    ids = [model.tokenizer.bos_id, *model.tokenizer.encode(" ".join(TEXTS[:6]))][: config.window]
    batch = torch.tensor([ids])
    own, _ = model.model(batch, model.model.initial_state(1))
    torch.testing.assert_close(theirs(batch).logits, own, atol=1e-4, rtol=0)
    # the vocabulary and the merges, in a tokenizer of the library tokenizers
    tokenizers = pytest.importorskip("tokenizers")
    fields = gguf.GGUFReader(file).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    parsed = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    parsed.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in (*TEXTS, "A  film,\n\tin 1999: très bon! 日本"):
        assert parsed.encode(text).ids == model.tokenizer.encode(text)
    special = [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("bos", "eos")]
    assert special == [model.tokenizer.bos_id, model.tokenizer.eos_id]
    types = fields["tokenizer.ggml.token_type"].contents()
    assert [number for number, kind in enumerate(types) if kind == 3] == sorted(special)


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}, {}])
def test_greedy_text_is_that_of_transformers(model, folder, settings):
    """The text is longer than the window, with the settings of the model and without them. There is
    no prompt: the last word of one may be encoded anew, together with what follows it.
    """
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    lengths = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS, "do_sample": False}
    prompt = tokenizer("", return_tensors="pt")
    with torch.no_grad():
        (ids,) = loaded.generate(**prompt, **lengths, **settings)
    assert len(ids) == 1 + TOKENS
    expected = tokenizer.decode(ids, skip_special_tokens=True)
    plain = {"words": "any", "finish": "anywhere"}
    assert model.generate_one(**plain, **lengths, **settings) == expected


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "examples, settings, said",
    [
        (TEXTS, {"ngrams": 3}, "n-gram vectors"),
        (EXAMPLES, {}, "conditions at every step"),
    ],
    ids=["n-grams", "conditions"],
)
def test_parts_that_the_class_lacks_are_refused(examples, settings, said, tmp_path, run_command):
    options = {"conditions": ["stars"]} if examples is EXAMPLES else {}
    reviewgen.train(
        "transformer-word", examples, steps=1, model=SMALL | settings, progress=False, **options
    ).save_pretrained(tmp_path / "model")
    for option, target in (("--transformers", "hf"), ("--gguf", "m.gguf")):
        words = ("export", tmp_path / "model", option, tmp_path / target)
        status, output, problem = run_command(*words)
        assert (status, output) == (2, "") and f"has no {said}" in problem
        assert "--onnx FOLDER" in problem and not (tmp_path / target).exists()
        assert ("model.ngrams=1" in problem) == (said == "n-gram vectors")


def test_the_command_writes_each_format(model, tmp_path, run_command, monkeypatch):
    model.save_pretrained(tmp_path / "model")
    words = ["export", tmp_path / "model", "--transformers", tmp_path / "hf"]
    words += ["--tokenizer", tmp_path / "tokenizer"]
    status, output, _ = run_command(*words)
    assert status == 0 and "AutoModelForCausalLM" in output and "AutoTokenizer" in output
    assert reviewgen.load(tmp_path / "hf").score("good") == model.score("good")
    assert (tmp_path / "tokenizer" / "tokenizer.json").is_file()
    status, _, problem = run_command(*words)
    assert status == 1 and "already exists" in problem
    status, output, _ = run_command(*words, "--overwrite", "--json")
    assert status == 0 and json.loads(output)["transformers"]["folder"] == str(tmp_path / "hf")
    words = ("export", tmp_path / "model", "--gguf", tmp_path / "m.gguf")
    if model.tokenizer_name == "char":
        status, _, problem = run_command(*words)
        assert status == 2 and "GGUF has no form of the tokenizer 'char'" in problem
        return
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gguf", None)
        status, _, problem = run_command(*words)
        assert status == 2 and "pip install 'reviewgen[gguf]'" in problem
    pytest.importorskip("gguf")
    for more, expected, said in (
        ((), 0, "Wrote"),
        ((), 1, "already exists"),
        (("--overwrite",), 0, ""),
    ):
        status, output, problem = run_command(*words, *more)
        assert status == expected and said in output + problem
    status, _, problem = run_command("export", tmp_path / "model", "--gguf", tmp_path / "m.bin")
    assert status == 2 and ".gguf" in problem
    status, _, problem = run_command("generate", tmp_path / "m.gguf")
    assert status == 1 and "m.gguf" in problem


def test_the_tokenizer_of_a_third_party_is_refused(tmp_path):
    cls: Any = find_model("transformer")[0]
    model = review_model(cls(cls.Config(vocab_size=LETTERS.vocab_size, **SMALL)), LETTERS)
    for export, target in ((export_transformers, "hf"), (export_gguf, "m.gguf")):
        with pytest.raises(ConfigError, match="tokenizer 'fake'"):
            export(model, tmp_path / target)
        assert not (tmp_path / target).exists()
