"""A model that is pickled is the same model again; one that was just trained packs its weights once."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from reviewgen import ReviewModel
from reviewgen.model import Weights
from reviewgen.registry import unregister_all


@pytest.fixture(autouse=True)
def nothing_registered() -> None:
    unregister_all()


@pytest.mark.parametrize("name", ["gru-char", "ngram-char", "conditional", "blend-char"])
def test_a_pickled_model_generates_and_scores_the_same(micro: Callable[[str], ReviewModel], name: str) -> None:
    model = micro(name)
    again = pickle.loads(pickle.dumps(model))
    assert again.generate("the ", seed=1) == model.generate("the ", seed=1)
    assert again.score("a good band") == model.score("a good band")
    assert (again.preset, again.training, again.generation_config) == (model.preset, model.training, model.generation_config)


def test_the_stepper_is_kept_until_the_weights_may_have_changed(micro: Callable[[str], ReviewModel]) -> None:
    bundle = micro("gru-char").bundle
    model = ReviewModel(replace(bundle, weights=Weights(copy.deepcopy(bundle.model))))  # as one that was just trained
    first = model.generator.stepper
    assert model.generator.stepper is first
    text = model.generate("the ", seed=1)
    for parameter in model.model.parameters():
        parameter.data.zero_()
    assert model.generate("the ", seed=1) != text
