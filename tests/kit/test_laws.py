"""The laws: all installed plugins keep them, and of each faulty one the law that names the cause is
the first to fail.
"""

import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from reviewgen.errors import UnknownPlugin
from reviewgen.registry.plugins import (
    find_metric,
    find_stepper,
    list_plugins,
    register_model,
    register_tokenizer,
)
from reviewgen.testing import (
    MODEL_LAWS,
    STEPPER_LAWS,
    TOKENIZER_LAWS,
    TRAINING_TEXTS,
    check_metric,
    check_model,
    check_stepper,
    check_tokenizer,
    make_model,
    make_tokenizer,
)
from tests.support.faults import models, steppers, tokenizers
from tests.support.faults.models import Able, CopyTwin, CountTwin, LoadsTorch, Twin, broken
from tests.support.faults.steppers import Counting, SamplingStepper, TwinStepper
from tests.support.faults.tokenizers import Ascii, Bytes
from tests.support.plugin_models import GIVEN, make_network

Law = Callable[..., None]
SLOW = {"learns", "without_torch", "any_order"}
"""Laws that train or start processes."""
SHARING = broken(
    Able,
    stepper=lambda self: SamplingStepper(
        self.config, {name: tensor.numpy() for name, tensor in self.state_dict().items()}
    ),
)
STEPPERS = steppers.FAULTS | {
    "own_weights": [(SHARING, "must have a copy of them")],
    "without_torch": [(LoadsTorch, 'models.py", line')],
}


def by_name(laws: Iterable[Law]) -> list[Any]:
    return [
        pytest.param(law, id=law.__name__, marks=[pytest.mark.slow] * (law.__name__ in SLOW))
        for law in laws
    ]


def first_failure(laws: Iterable[Law], *arguments: Any, also: Law | None = None) -> tuple[str, str]:
    """Return the name of the first law that fails, and its message; of the slow laws, call only the
    one given.
    """
    for law in laws:
        try:
            if law is also or law.__name__ not in SLOW:
                law(*arguments)
        except AssertionError as error:
            return law.__name__, str(error)
    return "", ""


def check_named(laws: Iterable[Law], law: Law, words: str, *arguments: Any) -> None:
    name, message = first_failure(laws, *arguments, also=law)
    assert name == law.__name__ and words in message, (name, message)


@pytest.mark.parametrize("law", by_name(MODEL_LAWS))
def test_a_faulty_model_is_named_by_its_law(law):
    for fault, words in models.FAULTS[law.__name__]:
        check_named(MODEL_LAWS, law, words, models.make(fault))


@pytest.mark.parametrize("law", by_name(STEPPER_LAWS))
def test_a_faulty_stepper_is_named_by_its_law(law):
    for fault, words in STEPPERS[law.__name__]:
        arguments = (
            (models.make(fault), None) if issubclass(fault, Twin) else (models.make(Twin), fault)
        )
        check_named(STEPPER_LAWS, law, words, *arguments)


@pytest.mark.parametrize("law", by_name(TOKENIZER_LAWS))
def test_a_faulty_tokenizer_is_named_by_its_law(law, tmp_path, monkeypatch):
    for name in "work", "home", "temporary":  # where some of them write
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CI", "true")  # where pytest would compare long values line by line
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for fault, words in tokenizers.FAULTS[law.__name__]:
        check_named(TOKENIZER_LAWS, law, words, tokenizers.make(fault))


def test_a_fault_breaks_no_other_law():
    for name in (
        "explicit",
        "config",
        "rows",
        "strict",
        "meta",
        "score",
        "step",
        "implementations",
        "devices",
    ):
        others = [law for law in MODEL_LAWS if law.__name__ != name]
        assert first_failure(others, models.make(models.FAULTS[name][0][0])) == ("", ""), name


def test_correct_plugins_pass():
    for model in Twin, Able, CountTwin, CopyTwin:
        assert first_failure(MODEL_LAWS, models.make(model)) == ("", "")
    for model, factory in (
        (Twin, TwinStepper),
        (Twin, Counting),
        (Twin, SamplingStepper),
        (Able, None),
    ):
        assert first_failure(STEPPER_LAWS, models.make(model), factory) == ("", "")
    for tokenizer in Bytes, Ascii:
        assert first_failure(TOKENIZER_LAWS, tokenizers.make(tokenizer)) == ("", "")


def test_a_model_that_is_not_a_distribution_passes():
    def make():
        return make_model("ngram", smoothing="stupid-backoff")

    assert first_failure(MODEL_LAWS, make) == ("", "")


@pytest.mark.slow
def test_correct_plugins_pass_all_laws():
    check_model(models.make(Able))
    check_stepper(models.make(Able))
    check_stepper(models.make(Twin), SamplingStepper)
    check_tokenizer(tokenizers.make(Ascii))
    check_tokenizer(tokenizers.make(Bytes), lossless=True)
    for fault, words in tokenizers.LOSSY:
        with pytest.raises(AssertionError) as raised:
            check_tokenizer(tokenizers.make(fault), lossless=True)
        assert words in str(raised.value)


def test_a_check_stops_at_the_first_broken_law():
    with pytest.raises(AssertionError, match="Row 0 alone"):
        check_model(models.make(models.FAULTS["rows"][0][0]))
    with pytest.raises(AssertionError, match="after 12 tokens"):
        check_stepper(models.make(Twin), steppers.Scaled)
    with pytest.raises(AssertionError, match="has no method stepper; pass the factory"):
        check_stepper(models.make(Twin))
    with pytest.raises(AssertionError, match="encode_batch"):
        check_tokenizer(tokenizers.make(tokenizers.FAULTS["batch"][0][0]))


@pytest.fixture
def registered(untouched_registry: None) -> None:
    register_model("twin", Twin)
    register_model("counts", CountTwin)
    register_tokenizer("bytes", Bytes)


@pytest.mark.usefixtures("registered")
def test_plugins_are_made_by_name_from_settings_and_a_seed():
    before = torch.random.get_rng_state()
    first, again, other = (
        make_model("twin", vocab_size=7, seed=seed, hidden_size=5) for seed in (0, 0, 1)
    )
    assert first.config == Twin.Config(vocab_size=7, hidden_size=5) and not getattr(
        first, "training", True
    )
    weights = [model.state_dict()["output.weight"] for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert make_model("counts").state_dict()["counts"].sum() > 11  # it is trained
    assert make_tokenizer("bytes").encode("film") == Bytes.train(TRAINING_TEXTS, None).encode(
        "film"
    )
    with pytest.raises(UnknownPlugin):
        make_model("nothing")


@pytest.mark.usefixtures("registered")
def test_the_laws_hold_for_a_vocabulary_of_two_or_three():
    for size in 2, 3:
        assert first_failure(
            MODEL_LAWS, lambda size=size: make_model("counts", vocab_size=size)
        ) == ("", "")


# Every law over every installed model, stepper and tokenizer, by name from the registry, those of
# third parties included.

# each pair of values of two settings occurs, but for a few
PAIRS: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {"layers": 2, "activation": "relu", "embedding_size": 37, "tied": True, "ngrams": 2}),
    (
        "rnn",
        {
            "layers": 3,
            "activation": "tanh",
            "embedding_size": 7,
            "tied": True,
            "vocab_size": 300,
            "zoneout": 0.3,
        },
    ),
    (
        "rnn",
        {
            "layers": 1,
            "activation": "relu",
            "embedding_size": 19,
            "tied": True,
            "hidden_size": 64,
            "ngrams": 16,
        },
    ),
    (
        "gru",
        {"layers": 1, "activation": "tanh", "embedding_size": 37, "tied": True, "zoneout": 0.3},
    ),
    (
        "gru",
        {
            "layers": 3,
            "activation": "relu",
            "embedding_size": 7,
            "hidden_size": 100,
            "ngrams": 5,
            "ngram_buckets": 50,
        },
    ),
    (
        "gru",
        {
            "layers": 1,
            "activation": "relu",
            "embedding_size": 7,
            "tied": True,
            "vocab_size": 300,
            "zoneout": 0.3,
        },
    ),
    ("lstm", {"layers": 2, "activation": "tanh", "embedding_size": 7, "zoneout": 0.3, "ngrams": 3}),
    (
        "lstm",
        {
            "layers": 2,
            "activation": "relu",
            "embedding_size": 7,
            "tied": True,
            "vocab_size": 300,
            "zoneout": 0.1,
        },
    ),
    (
        "lstm",
        {
            "layers": 3,
            "activation": "tanh",
            "embedding_size": 19,
            "tied": True,
            "hidden_size": 64,
            "ngrams": 16,
        },
    ),
]
SETTINGS: list[Any] = [
    *(PAIRS[1], PAIRS[4], PAIRS[8]),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in PAIRS
        if case not in (PAIRS[1], PAIRS[4], PAIRS[8])
    ),
    ("rnn", {"layers": 2, "tied": True, "embedding_size": 37, **GIVEN}),
    ("gru", {"layers": 1, "embedding_size": 40, "ngrams": 3, **GIVEN}),
    ("lstm", {"layers": 2, "tied": True, "vocab_size": 300, "zoneout": 0.3, **GIVEN}),
    ("nnlm", {"order": 5, "embedding_size": 70, **GIVEN}),
    ("nnlm", {"activation": "tanh", "order": 2, "embedding_size": 5}),
    ("nnlm", {"activation": "relu", "order": 12, "embedding_size": 5}),
    ("rnn", {"ngrams": 3, "ngram_buckets": 50, "ngram_dropout": 0.5}),
    ("gru", {"layers": 2, "dropout": 0.5, "weight_dropout": 0.5, "locked_dropout": True}),
    ("lstm", {"layers": 2, "zoneout": 0.3, "layer": "reference"}),
    ("lstm", {"ngrams": 6, "layer": "reference"}),
    ("lstm", {"pointer": 5, "vocab_size": 300, "tied": True}),
    ("gru", {"pointer": 70, "layers": 2, "ngrams": 3, "ngram_buckets": 50, **GIVEN}),
    ("rnn", {"pointer": 1, "tied": True, "hidden_size": 5, "bos_id": 0}),
    (
        "lstm",
        {
            "token_dropout": 0.5,
            "embedding_dropout": 0.5,
            "output_dropout": 0.5,
            "locked_dropout": True,
        },
    ),
]


def names(kind: str) -> list[str]:
    """Return the installed plugins of a kind; ``blend``, which has no default settings, has tests
    of its own.
    """
    return [plugin.name for plugin in list_plugins(kind) if plugin.name != "blend"]


@pytest.mark.parametrize("name", names("model"))
def test_a_model_and_its_stepper_keep_the_laws(name):
    assert first_failure(MODEL_LAWS, lambda: make_model(name)) == ("", "")
    assert first_failure(STEPPER_LAWS, lambda: make_model(name), find_stepper(name)) == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", names("model"))
def test_a_model_learns_and_its_stepper_needs_no_torch(name):
    for law in (law for law in MODEL_LAWS if law.__name__ in SLOW):
        law(lambda: make_model(name))
    for law in (law for law in STEPPER_LAWS if law.__name__ in SLOW):
        law(lambda: make_model(name), find_stepper(name))


@pytest.mark.parametrize("name, settings", SETTINGS, ids=str)
def test_a_model_with_settings_and_its_stepper_keep_the_laws(name, settings):
    assert first_failure(MODEL_LAWS, lambda: make_network(name, **settings)) == ("", "")
    assert first_failure(
        STEPPER_LAWS, lambda: make_network(name, **settings), find_stepper(name)
    ) == ("", "")


@pytest.mark.parametrize("name", names("tokenizer"))
def test_a_tokenizer_keeps_the_laws(name):
    assert first_failure(TOKENIZER_LAWS, lambda: make_tokenizer(name)) == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["char", "word"])
def test_the_tokenizers_in_the_tree_are_lossless(name):
    check_tokenizer(lambda: make_tokenizer(name), lossless=True)


def test_the_installed_metrics_keep_the_laws():
    assert len(names("metric")) >= 6
    for name in names("metric"):
        check_metric(find_metric(name)[0])
