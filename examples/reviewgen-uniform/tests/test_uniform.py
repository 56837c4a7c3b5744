"""reviewgen's conformance suite over the model: one test a law. Then what the suite cannot know, the model's own promise."""

import math

import pytest
import torch
from reviewgen_uniform import Uniform, UniformConfig

from reviewgen.testing import MODEL_LAWS


def make():
    """Return a model as the laws want it: ready to predict. Make it small, and the tests are fast."""
    return Uniform(UniformConfig(vocab_size=11)).eval()


@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_law(law):
    law(make)


def test_every_token_is_as_probable_as_any_other():
    logits, _ = make()(torch.tensor([[3, 1, 4]]), ())
    assert torch.allclose(logits.log_softmax(-1), torch.tensor(-math.log(11)))
