"""Calibration: the fitted scale against a search over scales, and models whose logits were scaled
on purpose.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reviewgen.registry.plugins import find_model
from reviewgen.training.calibration import calibrate, fit_scale

VOCABULARY = 12


def sampled(scale: float, count: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits that are ``scale`` times those from which the tokens were drawn."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, VOCABULARY, generator=generator)
    return scale * logits, torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_the_scale_undoes_a_temperature(scale):
    logits, tokens = sampled(scale)
    found = fit_scale([(logits[:1000], tokens[:1000]), (logits[1000:], tokens[1000:])])
    tried = np.linspace(0.2, 3, 561)  # by brute force
    losses = [float(F.cross_entropy(logits * number, tokens)) for number in tried]
    assert found == pytest.approx(tried[int(np.argmin(losses))], abs=0.006)
    assert found * scale == pytest.approx(1, abs=0.05)


def documents(model: torch.nn.Module, count: int = 40) -> list[tuple[np.ndarray, int]]:
    """Return texts that a model has written, id by id; 0 is bos."""
    generator = torch.Generator().manual_seed(1)
    texts = []
    for _ in range(count):
        ids = [0]
        state = model.initial_state(1)
        after = torch.zeros(1, 1, dtype=torch.int64)
        for _ in range(60):
            logits, state = model(after, state)
            after = torch.multinomial(logits[0].softmax(-1), 1, generator=generator)
            ids.append(int(after))
        texts.append((np.array(ids, np.uint8), 60))
    return texts


@pytest.mark.parametrize("tied", [{}, {"tied": True}])
@torch.no_grad()
def test_an_overconfident_model_is_calibrated(tied):
    torch.manual_seed(0)
    kind, _ = find_model("gru")
    model = kind(
        kind.Config(vocab_size=VOCABULARY, embedding_size=8, hidden_size=16, **tied)
    ).eval()
    model.output.bias += torch.randn(VOCABULARY)
    texts = documents(model)
    before = model(torch.arange(10)[None], model.initial_state(1))[0]
    assert model.scale_logits(1.8)
    note = calibrate(model, texts, VOCABULARY)
    assert note is not None and "temperature of 1." in note and "nats per token" in note
    torch.testing.assert_close(
        model(torch.arange(10)[None], model.initial_state(1))[0], before, rtol=0.15, atol=0.02
    )


@torch.no_grad()
def test_a_model_that_is_its_embedding_is_left_as_it_is():
    kind, _ = find_model("gru")
    model = kind(
        kind.Config(vocab_size=VOCABULARY, embedding_size=8, hidden_size=8, tied=True)
    ).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert calibrate(model, documents(model, 3), VOCABULARY) is None
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
