"""Each law of the model contract; the scan, the models and the steppers against plain loops in
double precision.
"""

import numpy as np
import pytest
import torch
from reviewgen_mingru.config import MinGruConfig, MinLstmConfig
from reviewgen_mingru.model import MinGru, MinLstm
from reviewgen_mingru.scan import recur_in_chunks, scan, sequential_scan

from reviewgen.testing import MODEL_LAWS

MODELS = {"mingru": (MinGru, MinGruConfig), "minlstm": (MinLstm, MinLstmConfig)}


def make(name, seed=0, **settings):
    """Return a model in evaluation mode; a small one keeps the tests fast. 24 is no multiple of the
    stepper's panels.
    """
    model, config = MODELS[name]
    torch.manual_seed(seed)
    return model(config(**{"vocab_size": 11, "hidden_size": 24, **settings})).eval()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_law(law, name):
    law(lambda: make(name))


@pytest.mark.parametrize(
    "settings",
    [{"window": 1, "layers": 1}, {"hidden_size": 70, "layers": 3, "dropout": 0.5}],
    ids=str,
)
@pytest.mark.parametrize("name", MODELS)
def test_laws_of_other_settings(name, settings):
    for law in MODEL_LAWS:
        law(lambda: make(name, **settings))


@pytest.mark.parametrize("time", [1, 2, 3, 7, 16, 17, 250])
def test_the_scan_equals_a_loop(time):
    generator = torch.Generator().manual_seed(time)
    shape = (time, 3, 5)
    factors = torch.rand(shape, generator=generator)
    terms = torch.randn(shape, generator=generator)
    factors[factors < 0.2] = 0.0  # a logarithm would be infinite
    start = torch.randn(shape[1:], generator=generator)
    weights = torch.randn(shape, generator=generator)
    results = []
    for function, dtype in (scan, torch.float32), (sequential_scan, torch.float64):
        inputs = [tensor.clone().to(dtype).requires_grad_() for tensor in (factors, terms, start)]
        states = function(*inputs)
        (states * weights.to(dtype)).sum().backward()
        results.append([states, *(tensor.grad for tensor in inputs)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("time", [1, 2, 3, 7, 16, 17, 250])
def test_chunks_as_on_an_accelerator_equal_a_loop(time, backwards):
    factors = torch.rand(time, 5)
    terms = torch.randn(time, 5)
    start = torch.randn(5)
    states = torch.empty_like(terms)
    recur_in_chunks(factors, terms, start, states, backwards)
    order = [0] if backwards else []  # the dimension to flip
    expected = sequential_scan(
        factors.double().flip(order), terms.double().flip(order), start.double()
    ).flip(order)
    torch.testing.assert_close(states, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("in_chunks", [False, True])
def test_the_gradient_of_the_scan_is_that_of_finite_differences(monkeypatch, in_chunks):
    if in_chunks:  # as on an accelerator
        monkeypatch.setattr("reviewgen_mingru.scan._uses_loops", lambda tensor: False)
    generator = torch.Generator().manual_seed(0)
    factors, terms = (
        torch.rand(10, 2, 3, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    )
    start = torch.rand(2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(scan, (factors, terms, start))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(model, ids):
    """Return the logits (T, V) of one text, in double precision, token by token, from the equations
    of the paper.
    """
    config = model.config
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    size = config.hidden_size
    rows = config.vocab_size + 1
    h = np.zeros((config.layers, size))
    seen = [config.vocab_size] * config.window
    logits = []

    def norm(x, scales):
        return x / np.sqrt((x**2).mean() + 1e-6) * scales

    for token in ids:
        seen = [*seen[1:], token]
        x = sum(w["embedding.weight"][k * rows + seen[-1 - k]] for k in range(config.window))
        for n in range(config.layers):
            layer = f"layers.{n}"
            gates = (
                w[f"{layer}.gates.weight"] @ norm(x, w[f"{layer}.norm.weight"])
                + w[f"{layer}.gates.bias"]
            )
            if len(gates) == 2 * size:
                z = sigmoid(gates[:size])
                candidate = gates[size:]
                h[n] = (1 - z) * h[n] + z * candidate
            else:
                f = sigmoid(gates[:size])
                i = sigmoid(gates[size : 2 * size])
                candidate = gates[2 * size :]
                h[n] = f / (f + i) * h[n] + i / (f + i) * candidate
            x = x + w[f"{layer}.mix.weight"] @ h[n]
        logits.append(w["output.weight"] @ norm(x, w["norm.weight"]) + w["output.bias"])
    return np.stack(logits)


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_the_equations(name):
    model = make(name, seed=1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.3 * torch.randn_like(weights))  # so that no bias is 0 and no scale 1
    ids = torch.randint(11, (1, 40))
    expected = by_hand(model, ids[0].tolist())
    actual, _ = model(ids, model.initial_state(1))
    np.testing.assert_allclose(actual[0].detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    stepped, _ = model.stepper().forward(ids.numpy(), model.stepper().initial_state(1))
    np.testing.assert_allclose(stepped[0], expected[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_extreme_gates_give_no_nan(name):
    model = make(name)
    with torch.no_grad():
        for layer in model.layers:
            layer.gates.weight.mul_(1000)
    ids = torch.randint(11, (2, 50))
    logits, _ = model(ids, model.initial_state(2))
    logits.logsumexp(-1).sum().backward()
    assert all(weights.grad.isfinite().all() for weights in model.parameters())
    stepped, _ = model.stepper().forward(ids.numpy(), model.stepper().initial_state(2))
    np.testing.assert_allclose(stepped, logits[:, -1].detach().numpy(), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_the_stepper_expects_the_tensors_of_the_model(name):
    model = make(name)
    stored = {
        key: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for key, tensor in model.state_dict().items()
    }
    assert type(model.stepper()).expect(model.config) == stored


@pytest.mark.parametrize("name", MODELS)
def test_two_carried_chunks_in_bf16_reach_every_parameter(name):
    model = make(name).train()
    state = model.initial_state(2)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            logits, state = model(
                torch.randint(11, (2, 30)), tuple(part.detach() for part in state)
            )
            logits.float().logsumexp(-1).sum().backward()
    assert [part.dtype for part in state] == [torch.float32, torch.int64]
    assert all(
        weights.grad is not None and weights.grad.isfinite().all() for weights in model.parameters()
    )
