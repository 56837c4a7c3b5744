"""Every law over every installed model, stepper and tokenizer, by name from the registry, those of third parties included."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from reviewgen.registry import find_metric, find_stepper, list_plugins
from reviewgen.testing import MODEL_LAWS, STEPPER_LAWS, TOKENIZER_LAWS, check_metric, check_tokenizer, make_model, make_tokenizer
from tests.support.plugin_models import GIVEN

SLOW = {"learns", "without_torch", "any_order"}
"""Laws that train or start processes."""
OPTIONS = {
    "gru-layers": ("gru", {"layers": 2, "dropout": 0.5, "weight_dropout": 0.5, "locked_dropout": True}),
    "rnn-zoneout": ("rnn", {"layers": 2, "zoneout": 0.3}),
    "gru-zoneout": ("gru", {"zoneout": 0.3, "activation": "relu"}),
    "lstm-zoneout": ("lstm", {"layers": 2, "zoneout": 0.3, "layer": "reference"}),
    "rnn-ngrams": ("rnn", {"ngrams": 3, "ngram_buckets": 50, "ngram_dropout": 0.5}),
    "gru-ngrams": ("gru", {"ngrams": 2, "layers": 2, "tied": True}),
    "lstm-ngrams": ("lstm", {"ngrams": 6, "layer": "reference"}),
    "lstm-tokens": ("lstm", {"token_dropout": 0.5, "embedding_dropout": 0.5, "output_dropout": 0.5, "locked_dropout": True}),
    "gru-given": ("gru", {"layers": 2, "tied": True, **GIVEN}),
    "lstm-given": ("lstm", {"ngrams": 3, **GIVEN}),
    "nnlm-given": ("nnlm", GIVEN),
}


def names(kind: str) -> list[str]:
    """Return the installed plugins of a kind; ``blend``, which has no default settings, has tests of its own."""
    return [plugin.name for plugin in list_plugins(kind) if plugin.name != "blend"]


def broken_laws(laws: Iterable[Callable[..., None]], *arguments: Any, slow: bool = False) -> dict[str, str]:
    """Return the message of each law that fails, by name; of the slow laws or of the others."""
    failed = {}
    for law in (law for law in laws if (law.__name__ in SLOW) == slow):
        try:
            law(*arguments)
        except AssertionError as error:
            failed[law.__name__] = str(error)
    return failed


@pytest.mark.parametrize("name", names("model"))
def test_a_model_and_its_stepper_keep_the_laws(name: str) -> None:
    assert broken_laws(MODEL_LAWS, lambda: make_model(name)) == {}
    assert broken_laws(STEPPER_LAWS, lambda: make_model(name), find_stepper(name)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", names("model"))
def test_a_model_learns_and_its_stepper_needs_no_torch(name: str) -> None:
    assert broken_laws(MODEL_LAWS, lambda: make_model(name), slow=True) == {}
    assert broken_laws(STEPPER_LAWS, lambda: make_model(name), find_stepper(name), slow=True) == {}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_model_with_options_keeps_the_laws(options: str) -> None:
    name, settings = OPTIONS[options]

    def make() -> Any:
        model: Any = make_model(name, hidden_size=16, **settings)
        for key, weights in model.named_parameters():  # zeros, until they have learned something
            if "ngrams" in key or "held" in key:
                nn.init.normal_(weights, generator=torch.Generator().manual_seed(0))
        return model

    assert broken_laws(MODEL_LAWS, make) == {}


@pytest.mark.parametrize("name", names("tokenizer"))
def test_a_tokenizer_keeps_the_laws(name: str) -> None:
    assert broken_laws(TOKENIZER_LAWS, lambda: make_tokenizer(name)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["char", "word"])
def test_the_tokenizers_in_the_tree_are_lossless(name: str) -> None:
    check_tokenizer(lambda: make_tokenizer(name), lossless=True)


def test_the_installed_metrics_keep_the_laws() -> None:
    assert len(names("metric")) >= 6
    for name in names("metric"):
        check_metric(find_metric(name)[0])
