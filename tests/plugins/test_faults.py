"""Planted faults: of a faulty plugin, the law that names the cause is the first to fail; its correct twin passes them all."""

import tempfile

import pytest
import torch

from reviewgen.testing import (
    MODEL_LAWS,
    STEPPER_LAWS,
    TOKENIZER_LAWS,
    TRAINING_TEXTS,
    check_model,
    check_stepper,
    check_tokenizer,
    train_by_counting,
)
from tests.plugins.faults.models import MODELS, CountTwin, Twin, V
from tests.plugins.faults.steppers import STEPPERS, Counting, TwinStepper
from tests.plugins.faults.tokenizers import LOSSY, TOKENIZERS, Ascii, Bytes
from tests.plugins.faults.torch_stepper import LoadsTorch


def make_model(cls):
    def make():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = cls(cls.Config(vocab_size=V))
        if isinstance(model, CountTwin):
            train_by_counting(model, V)
            return model
        return model.eval()

    return make


def first_failure(laws, *arguments):
    """Return the name of the first law that fails, and its message."""
    for law in laws:
        try:
            law(*arguments)
        except AssertionError as error:
            return law.__name__, str(error)
    return None, ""


def assert_named(failure, law, words):
    name, message = failure
    assert name == law, message
    assert words in message
    assert len(message) < 500


@pytest.mark.parametrize("twin", [Twin, CountTwin])
def test_a_correct_model_passes(twin):
    check_model(make_model(twin))


@pytest.mark.parametrize(("fault", "law", "words"), MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_faulty_model_is_named(fault, law, words):
    assert_named(first_failure(MODEL_LAWS, make_model(fault)), law, words)


class Stepping(Twin):
    """A correct model with a stepper of its own."""

    def stepper(self, weight_bits=32):
        return TwinStepper(self.config, {name: tensor.numpy().copy() for name, tensor in self.state_dict().items()})


class SharingStepping(Twin):
    """Its stepper reads the model's own memory."""

    def stepper(self, weight_bits=32):
        return TwinStepper(self.config, {name: tensor.numpy() for name, tensor in self.state_dict().items()})


@pytest.mark.parametrize("factory", [TwinStepper, Counting])
def test_a_correct_stepper_passes(factory):
    check_stepper(make_model(Twin), factory)


def test_a_correct_stepper_of_a_model_passes():
    check_stepper(make_model(Stepping))
    check_model(make_model(Stepping))


@pytest.mark.parametrize(
    ("fault", "law", "words"),
    [*STEPPERS, (LoadsTorch, "without_torch", "torch_stepper.py, line 3: import torch")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_faulty_stepper_is_named(fault, law, words):
    assert_named(first_failure(STEPPER_LAWS, make_model(Twin), fault), law, words)


def test_a_stepper_that_shares_its_models_weights_is_named():
    failure = first_failure(STEPPER_LAWS, make_model(SharingStepping), None)
    assert_named(failure, "own_weights", "Changing the model's weights changes a stepper made before")


def test_a_model_without_a_stepper_is_named():
    with pytest.raises(AssertionError, match="has no method stepper; pass the factory"):
        check_stepper(make_model(Twin))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Keep what faulty tokenizers write outside their folder in a folder of the test."""
    for name in "work", "home", "temporary":
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def make_tokenizer(cls):
    return lambda: cls.train(TRAINING_TEXTS, cls.Config())


def test_a_correct_tokenizer_passes():
    check_tokenizer(make_tokenizer(Bytes), lossless=True)
    check_tokenizer(make_tokenizer(Ascii))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("fault", "law", "words"), TOKENIZERS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_faulty_tokenizer_is_named(fault, law, words):
    assert_named(first_failure(TOKENIZER_LAWS, make_tokenizer(fault)), law, words)


@pytest.mark.parametrize(("fault", "words"), LOSSY)
def test_a_lossy_tokenizer_is_named_where_it_must_be_lossless(fault, words):
    with pytest.raises(AssertionError) as raised:
        check_tokenizer(make_tokenizer(fault), lossless=True)
    assert words in str(raised.value)
