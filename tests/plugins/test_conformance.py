"""Every law of the suite over every installed model and tokenizer, by name from the registry, third-party plugins included."""

import pytest
import torch
from torch import nn

from reviewgen.registry import find_stepper, list_plugins
from reviewgen.testing import MODEL_LAWS, STEPPER_LAWS, TOKENIZER_LAWS, make_model, make_tokenizer
from reviewgen.testing.tokenizer_laws import lossless
from reviewgen.testing.training_laws import learns

OPTIONS = {
    "gru-layers": ("gru", {"layers": 2, "dropout": 0.5, "weight_dropout": 0.5, "locked_dropout": True}),
    "rnn-zoneout": ("rnn", {"layers": 2, "zoneout": 0.3}),
    "gru-zoneout": ("gru", {"zoneout": 0.3, "activation": "relu"}),
    "lstm-zoneout": ("lstm", {"layers": 2, "zoneout": 0.3, "layer": "reference"}),
    "rnn-ngrams": ("rnn", {"ngrams": 3, "ngram_buckets": 50, "ngram_dropout": 0.5}),
    "gru-ngrams": ("gru", {"ngrams": 2, "layers": 2, "tied": True}),
    "lstm-ngrams": ("lstm", {"ngrams": 6, "layer": "reference"}),
    "lstm-tokens": ("lstm", {"token_dropout": 0.5, "embedding_dropout": 0.5, "output_dropout": 0.5, "locked_dropout": True}),
}
MADE_OF_OTHERS = {"blend"}  # has no default settings; tests/unit/test_blend.py holds the laws over blends


def cases(kind, laws):
    """Return one case a law and plugin; listing imports no plugin."""
    names = [p.name for p in list_plugins(kind) if p.name not in MADE_OF_OTHERS]
    return [pytest.param(law, name, id=f"{law.__name__}-{name}") for name in names for law in laws]


@pytest.mark.parametrize(("law", "name"), cases("model", MODEL_LAWS))
def test_model(law, name):
    law(lambda: make_model(name))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_a_model_with_options(law, options):
    name, settings = OPTIONS[options]

    def make():
        model = make_model(name, hidden_size=16, **settings)
        if getattr(model, "ngrams", None) is not None:  # zeros, until they have learned something
            nn.init.normal_(model.ngrams.table.weight, generator=torch.Generator().manual_seed(0))
        return model

    law(make)


@pytest.mark.parametrize(("law", "name"), cases("stepper", STEPPER_LAWS))
def test_stepper(law, name):
    law(lambda: make_model(name), find_stepper(name))


@pytest.mark.parametrize(("law", "name"), cases("tokenizer", TOKENIZER_LAWS))
def test_tokenizer(law, name):
    law(lambda: make_tokenizer(name))


@pytest.mark.parametrize("name", ["char", "word"])
def test_the_tokenizers_in_the_tree_are_lossless(name):
    lossless(lambda: make_tokenizer(name))


@pytest.mark.parametrize("layer", ["fused", "compiled", "reference"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_every_layer_learns(name, layer, activation):
    if (layer, activation) == ("fused", "relu") and name != "rnn":
        pytest.skip("PyTorch has no such layer.")
    learns(lambda: make_model(name, hidden_size=32, layer=layer, activation=activation))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_every_nnlm_learns(activation):
    learns(lambda: make_model("nnlm", activation=activation))
