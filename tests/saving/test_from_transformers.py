"""Folders that the library transformers has written with random weights: ``reviewgen.load`` reads
them as models that do everything, or refuses them before it takes memory for them.
"""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen.export.folders import write_pretrained
from reviewgen.registry.plugins import find_tokenizer
from tests.support.fakes import TEXTS, TableModel, review_model, table
from tests.support.saved import edit_json, edit_tensors, refusal

transformers = pytest.importorskip("transformers")
WINDOW = 48
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-3,
    "initializer_range": 0.3,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", {"num_key_value_heads": 4, "max_position_embeddings": WINDOW}),
    "Llama, grouped heads": ("Llama", {"num_key_value_heads": 2, "max_position_embeddings": 64}),
    "Mistral, one head": ("Mistral", {"num_key_value_heads": 1, "sliding_window": 9}),
    "Mistral, no window": (
        "Mistral",
        {"num_key_value_heads": 4, "sliding_window": None, "max_position_embeddings": WINDOW},
    ),
}


def write(folder: Path, kind: str = "Llama, grouped heads", **changes: Any) -> Any:
    """Write a model with save_pretrained, and the tokenizer of an export; return the model."""
    name, settings = KINDS[kind]
    cls, _ = find_tokenizer("word")
    tokenizer = cls.train(TEXTS, cls.Config(vocab_size=300, min_frequency=2))
    own = review_model(TableModel(table(tokenizer.vocab_size)), tokenizer)
    folder.mkdir()
    write_pretrained(own.bundle, folder)
    config = getattr(transformers, f"{name}Config")(
        **SIZES,
        **(settings | changes),
        vocab_size=tokenizer.vocab_size,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad
def test_logits_are_those_of_the_class_that_wrote_the_folder(kind, tmp_path):
    theirs = write(tmp_path / "theirs", kind)
    ours = reviewgen.load(tmp_path / "theirs")
    ids = torch.tensor([[ours.tokenizer.bos_id, *ours.tokenizer.encode(" ".join(TEXTS[:9]))]])
    ids = ids[:, :WINDOW]
    expected = theirs(ids).logits
    logits, _ = ours.model(ids, ours.model.initial_state(1))
    assert expected.std() > 0.5
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    stepper = ours.model.stepper()
    last, _ = stepper.forward(ids.numpy(), stepper.initial_state(1))
    torch.testing.assert_close(torch.from_numpy(last), expected[:, -1], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_folder_evaluates_compares_probes_explains_and_generates(folder, tmp_path, run_command):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    said = []
    for words in (
        ("evaluate", folder, "--data", texts),
        ("compare", folder, "ngram-word", "--data", texts),
        ("probe", folder, "--texts", 2),
        ("generate", folder, "-n", 2, "--seed", 1, "--max-new-tokens", 20),
        ("explain", folder, "--text", TEXTS[0]),
    ):
        status, output, problem = run_command(*words, *(["--json"] if "generate" in words else []))
        assert status == 0, problem
        said.append(output)
    evaluated, compared, probed, generated, explained = said
    model = reviewgen.load(folder)
    bits = model.evaluate(TEXTS).bits_per_character
    assert f"{bits:.4f} bits per character" in evaluated
    assert "theirs" in compared and "a word remembered" in probed
    assert len(json.loads(generated)["texts"]) == 2 and "queries, layer 2" in explained
    # it is saved in the format of reviewgen, too
    model.save_pretrained(tmp_path / "ours")
    assert reviewgen.load(tmp_path / "ours").evaluate(TEXTS).bits_per_character == bits


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"sliding_window": 0}, "got 0"),
        ({"num_attention_heads": 5}, "cannot be divided among heads=5"),
        ({"num_key_value_heads": 3}, "cannot be divided among key_value_heads=3"),
        ({"intermediate_size": 41}, "gate_proj"),
        ({"intermediate_size": 200_000}, "gate_proj"),
        ({"vocab_size": 299}, "its tokenizer 300"),
        ({"num_hidden_layers": 1 << 40}, "at most 64"),
        ({"intermediate_size": 1 << 40}, "at most 100,000,000"),
        ({"sliding_window": 1 << 16, "num_key_value_heads": 4, "num_hidden_layers": 64}, "cached"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"architectures": "LlamaForCausalLM"}, "is not read"),
        ({"vocab_size": "300"}, "vocab_size"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}, "auto_map"),
    ],
)
def test_a_config_is_refused_before_memory_is_taken_for_it(changes, said, tmp_path):
    folder = tmp_path / "theirs"
    write(folder, "Mistral, one head")
    for key, value in changes.items():
        edit_json(folder / "config.json", key, value=value)
    refusal(folder)  # imports and compiles
    tracemalloc.start()
    assert said in refusal(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000  # two thirds are the buffer that tokenizer.json is read into


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "rms_norm_eps"])
def test_a_missing_key_is_named(key, folder):
    content = json.loads((folder / "config.json").read_text())
    del content[key]
    (folder / "config.json").write_text(json.dumps(content))
    assert f"a key is missing: '{key}'" in refusal(folder)


def test_tensors_that_do_not_fit_are_named(folder):
    edit_tensors(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "missing tensors layers.1.mlp.up_proj.weight" in refusal(folder)
    edit_tensors(
        folder,
        lambda tensors: tensors.update({"lm_head.weight": torch.zeros(2, 2)}),
    )
    assert "lm_head.weight" in refusal(folder)


def test_sharded_and_pickled_weights_are_refused(tmp_path):
    model = write(tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert "sharded" in refusal(tmp_path / "theirs")
    for file in (tmp_path / "theirs").glob("model*"):
        file.unlink()
    torch.save(model.state_dict(), tmp_path / "theirs" / "pytorch_model.bin")
    assert "pickled" in refusal(tmp_path / "theirs")


def test_the_tokenizer_of_another_program_is_refused(folder):
    file = folder / "tokenizer.json"
    edit_json(file, "normalizer", value={"type": "Lowercase"})
    assert "another tokenizer" in refusal(folder)
    file.unlink()
    assert "has no tokenizer.json" in refusal(folder)


def test_a_mistral_without_a_window_in_its_config_has_the_window_of_the_class(tmp_path):
    folder = tmp_path / "theirs"
    write(folder, "Mistral, one head")
    config = json.loads((folder / "config.json").read_text())
    del config["sliding_window"]
    (folder / "config.json").write_text(json.dumps(config))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).config.sliding_window
    assert reviewgen.load(folder).model.config.window == theirs == 4096
