"""Steps of generation on the accelerator: what the CPU computes, for a row and for thousands of rows at once."""

import numpy as np
import pytest
import torch

from reviewgen.generation.model_stepper import ModelStepper
from reviewgen.registry import find_model
from tests.device.places import EACH_PLACE


@pytest.mark.parametrize("rows", [1, 4096])
@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "nnlm"])
@pytest.mark.parametrize("place", EACH_PLACE)
def test_a_step_of_many_rows_is_that_of_the_cpu(place: str, name: str, rows: int) -> None:
    torch.manual_seed(0)
    kind, _ = find_model(name)
    model = kind(kind.Config(vocab_size=50)).eval()
    ids = np.random.default_rng(0).integers(0, 50, (rows, 3))
    stepper = ModelStepper(model, "cpu")
    expected, _ = stepper.forward(ids[:64], stepper.initial_state(len(ids[:64])))  # (64, V)
    on_device = ModelStepper(model.to(place), place)
    logits, state = on_device.forward(ids[:, :2], on_device.initial_state(rows))
    logits, _ = on_device.forward(ids[:, 2:], state)  # the state goes to the host and back
    assert logits.shape == (rows, 50) and logits.dtype == np.float32
    np.testing.assert_allclose(logits[:64], expected, rtol=0, atol=1e-5 if place == "cpu" else 5e-3)  # TF32


@pytest.mark.parametrize("place", EACH_PLACE)
def test_greedy_tokens_do_not_depend_on_the_rows_beside(place: str) -> None:
    torch.manual_seed(0)
    kind, _ = find_model("lstm")
    model = kind(kind.Config(vocab_size=50, hidden_size=64, embedding_size=16)).eval().to(place)
    stepper = ModelStepper(model, place)

    def generate(rows: int) -> np.ndarray:
        tokens, state, ids = [], stepper.initial_state(rows), np.arange(rows)[:, None] % 50
        for _ in range(20):
            logits, state = stepper.forward(ids, state)
            ids = logits.argmax(1)[:, None]
            tokens.append(ids)
        return np.concatenate(tokens, axis=1)  # (B, T)

    many = generate(1000)
    agreeing = (many[:50] == many[950:]).all(1).mean()  # the same first token
    assert agreeing > 0.99 and (generate(50) == many[:50]).all(1).mean() > 0.95
