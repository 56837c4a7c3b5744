"""reviewgen's conformance suite, one test for each rule of the model contract, and a test of what
the model computes.
"""

import math

import pytest
import torch
from reviewgen_uniform import Uniform, UniformConfig

from reviewgen.testing import MODEL_LAWS


def make():
    """Return a model in evaluation mode; a small one keeps the tests fast."""
    return Uniform(UniformConfig(vocab_size=11)).eval()


@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_law(law):
    law(make)


def test_all_tokens_are_equally_probable():
    logits, _ = make()(torch.tensor([[3, 1, 4]]), ())
    assert torch.allclose(logits.log_softmax(-1), torch.tensor(-math.log(11)))
