"""All presets, end to end: train, save, load in a fresh process, generate the same texts there."""

import json
import subprocess
import sys

import pytest

import reviewgen
from reviewgen import registry
from reviewgen.names import parse_preset

NOUNS, KINDS, ENDS = ("food", "band", "film", "beer"), ("good", "bad", "loud", "long"), ("sadly.", "again!", "they say.", "so?")
TEXTS = [f"The {noun} was {kind}, {end}" for noun in NOUNS for kind in KINDS for end in ENDS]
NAMES = [plugin.name for plugin in reviewgen.list_presets() if plugin.package == "reviewgen"]

FRESH = """
import json, sys, reviewgen
models = {name: reviewgen.load(folder) for name, folder in json.loads(sys.stdin.read()).items()}
print(json.dumps({name: model.generate("The ", num_return_sequences=2, seed=1) for name, model in models.items()}))
"""


def small(name):
    """Return settings that make a preset's run short; its shape stays."""
    if name.startswith("ngram"):
        return {}
    return {"steps": 3, "training": {"batch_size": 4, "bptt": 8, "evaluations": 1}}


def test_there_are_twelve():
    models = ("ngram", "nnlm", "rnn", "gru", "lstm", "blend")
    assert sorted(NAMES) == sorted(f"{model}-{tokenizer}" for model in models for tokenizer in ("char", "word"))


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_s_name_is_its_parts(name):
    preset, parts = registry.find_preset(name), parse_preset(name)
    assert (preset.model, preset.tokenizer) == (parts.model, parts.tokenizer)
    assert registry.find_model(preset.model)[1].package == registry.find_tokenizer(preset.tokenizer)[1].package == "reviewgen"


def test_all_train_save_load_in_a_fresh_process_and_generate(tmp_path):
    texts = {}
    for name in NAMES:
        model = reviewgen.train(name, TEXTS, out=tmp_path / name, **small(name))
        assert model.preset == name
        texts[name] = model.generate("The ", num_return_sequences=2, seed=1)
        assert all(text.startswith("The ") for text in texts[name])
    folders = json.dumps({name: str(tmp_path / name) for name in NAMES})
    done = subprocess.run([sys.executable, "-c", FRESH], input=folders, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == texts


@pytest.mark.parametrize("layer", ["fused", "compiled", "reference"])
def test_any_setting_can_be_changed(layer):
    settings = {"layer": layer, "layers": 2, "hidden_size": 16, "embedding_size": 8, "dropout": 0.2, "tied": True}
    model = reviewgen.train("lstm-word", TEXTS, steps=2, model=settings, tokenizer={"vocab_size": 300})
    assert model.model.config.layer == layer
    assert model.tokenizer.vocab_size <= 300
