"""Planted faults: of a faulty plugin, the law that names the cause is the first to fail; its correct twin passes them all."""

import pytest
import torch

from reviewgen.testing import MODEL_LAWS, check_model, train_by_counting
from tests.plugins.faults.models import MODELS, CountTwin, Twin, V


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
