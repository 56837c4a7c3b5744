"""The compiled layers: gradients equal to finite differences and to torch's layers; zoneout equal to a loop written here."""

import gc
import weakref

import pytest
import torch
from reviewgen_recurrent import layers as layers_module
from reviewgen_recurrent.compiled_layer import can_run_compiled, run_compiled
from reviewgen_recurrent.gru import Gru
from reviewgen_recurrent.kernels import GATES, GRU, LSTM, RNN
from reviewgen_recurrent.lstm import Lstm
from reviewgen_recurrent.rnn import Rnn
from torch import nn
from torch.nn import functional as F

from reviewgen.errors import ConfigError
from reviewgen.testing.models import some_ids, tensors

MODELS = {"rnn": Rnn, "gru": Gru, "lstm": Lstm}
KERNELS = {"rnn": (RNN, 1), "gru": (GRU, 1), "lstm": (LSTM, 2)}  # number of the cell, parts of the state
CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
every_model = pytest.mark.parametrize("name", MODELS)
T, B, E, H, V = 4, 2, 3, 5, 11


def make(name, **settings):
    torch.manual_seed(0)
    cls = MODELS[name]
    return cls(cls.Config(**{"vocab_size": V, "embedding_size": E, "hidden_size": H, "layers": 2, **settings})).train()


def run(model, seed=0, batch=B, time=T):
    torch.manual_seed(seed)
    return model(some_ids(model, batch, time), model.initial_state(batch))


@every_model
@pytest.mark.parametrize("is_relu", [False, True])
@pytest.mark.parametrize("is_zoned", [False, True])
def test_the_gradient_is_that_of_finite_differences(name, is_relu, is_zoned):
    torch.manual_seed(0)
    kernel, parts = KERNELS[name]
    gates = GATES[kernel]
    shapes = (T, B, E), (gates * H, E), (gates * H, H), (gates * H,), (gates * H,), *[(1, B, H)] * parts
    inputs = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]
    zoned = torch.rand(T, parts, B, H) < 0.4 if is_zoned else None

    def function(x, weight_ih, weight_hh, bias_ih, bias_hh, *state):
        outputs, last = run_compiled(x, state, (weight_ih, weight_hh, bias_ih, bias_hh), kernel, is_relu, zoned)
        return outputs, *last

    assert torch.autograd.gradcheck(function, inputs)


@every_model
@pytest.mark.parametrize(("hidden", "batch", "time"), [(1, 1, 1), (70, 3, 5), (129, 17, 2)])
def test_any_size_equals_torch_in_bfloat16_and_float32(name, hidden, batch, time):
    fused, compiled = (make(name, layer=layer, hidden_size=hidden, embedding_size=9) for layer in ("fused", "compiled"))
    for is_mixed, tolerance in (False, 1e-5), (True, 2e-2):
        gradients = []
        for model in fused, compiled:
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                logits, state = run(model, batch=batch, time=time)
            assert logits.dtype == (torch.bfloat16 if is_mixed else torch.float32)
            loss = F.cross_entropy(logits.float().flatten(0, 1), some_ids(model, batch, time, seed=1).flatten())
            loss = loss + sum(part.square().mean() for part in tensors(state))
            gradients.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
        for expected, found in zip(*gradients, strict=True):
            assert (found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1)


@every_model
def test_unsupported_input_uses_another_implementation(name, monkeypatch):
    calls = []
    monkeypatch.setattr(layers_module, "run_compiled", lambda *given: calls.append(given) or run_compiled(*given))
    model = make(name, layer="compiled")
    with torch.no_grad():
        expected, _ = run(model)
    assert calls == []
    with torch.autocast("cpu", torch.float16):  # which torch's lstm does not support on every CPU
        assert not can_run_compiled(torch.zeros(T, B, E))
    assert not can_run_compiled(torch.zeros(T, B, E, device="meta"))
    torch.testing.assert_close(run(model)[0], expected, atol=1e-5, rtol=0)
    assert len(calls) == 2  # layers


@every_model
def test_auto_takes_the_first_two_supported_implementations(name):
    assert make(name).implementations() == ("fused", "compiled")
    assert make(name, zoneout=0.1).implementations() == ("compiled", "reference")
    assert make(name, activation="relu").implementations() == (
        ("fused", "compiled") if name == "rnn" else ("compiled", "reference")
    )
    for layer in "fused", "compiled", "reference":
        assert make(name, layer=layer).implementations() == (layer,)


@every_model
def test_an_unavailable_implementation_is_an_error(name):
    with pytest.raises(ConfigError, match=r"'fusd'.*fused"):
        make(name).use_implementation("fusd")
    with pytest.raises(ConfigError, match="'fused'"):
        make(name, layer="reference").use_implementation("fused")


@every_model
def test_old_names_of_implementations_are_accepted(name):
    model = make(name, zoneout=0.1)
    for old, new in ("spelled", "reference"), ("unrolled", "compiled"):
        model.use_implementation(old)
        assert model.layers._implementation == new


@every_model
@pytest.mark.parametrize("dropouts", [{"dropout": 0.5}, {"dropout": 0.5, "locked_dropout": True}, {"weight_dropout": 0.5}])
def test_a_seed_drops_the_same_in_every_implementation(name, dropouts):
    model = make(name, embedding_dropout=0.5, **dropouts)
    expected = run(model, seed=3)[0]
    model.use_implementation("compiled")
    torch.testing.assert_close(run(model, seed=3)[0], expected, atol=1e-5, rtol=0)


def test_backward_can_run_twice_and_the_graph_is_freed():
    model = make("gru", layer="compiled")
    loss = run(model)[0].square().sum()
    first, second = (torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    logits, _ = run(model)
    watched = weakref.ref(logits)
    gc.disable()  # no reference cycles
    try:
        del logits, loss
        assert watched() is None
    finally:
        gc.enable()


def cells(model, name):
    """Return torch's cells with the model's weights."""
    made = []
    for layer in range(2):
        cell = CELLS[name](H if layer else E, H)
        state = {key: model.recurrent.get_parameter(f"{key}_l{layer}").detach() for key in cell.state_dict()}
        cell.load_state_dict(state)
        made.append(cell)
    return made


def by_hand(model, name, keep):
    """Return the logits of a loop over torch's cells; ``keep(layer, t, part, old, new)`` is what a part of a state becomes."""
    x = list(model.embedding(some_ids(model, B, T).T))
    for layer, cell in enumerate(cells(model, name)):
        state = tuple(torch.zeros(B, H) for _ in range(KERNELS[name][1]))
        for t in range(T):
            new = cell(x[t], state if len(state) > 1 else state[0])
            new = new if isinstance(new, tuple) else (new,)
            state = tuple(keep(layer, t, part, *both) for part, both in enumerate(zip(state, new, strict=True)))
            x[t] = state[0]
    return model.output(torch.stack(x), model.embedding.weight).transpose(0, 1)


@every_model
@pytest.mark.parametrize("layer", ["auto", "compiled", "reference"])
class TestZoneout:
    def test_in_training_units_keep_their_old_value(self, name, layer, monkeypatch):
        masks, make_mask = [], layers_module.make_zoneout_mask
        monkeypatch.setattr(layers_module, "make_zoneout_mask", lambda *given: masks.append(make_mask(*given)) or masks[-1])
        model = make(name, layer=layer, zoneout=0.4)
        logits, _ = run(model)
        assert [mask.shape for mask in masks] == [(T, KERNELS[name][1], B, H)] * 2
        expected = by_hand(model, name, lambda layer, t, part, old, new: torch.where(masks[layer][t, part], old, new))
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)

    def test_in_evaluation_mode_the_expectation_is_kept(self, name, layer):
        model = make(name, layer=layer, zoneout=0.4).eval()
        expected = by_hand(model, name, lambda layer, t, part, old, new: 0.4 * old + 0.6 * new)
        torch.testing.assert_close(run(model)[0], expected, atol=1e-5, rtol=0)
        with torch.no_grad():
            torch.testing.assert_close(run(model)[0], expected, atol=1e-5, rtol=0)

    def test_in_mixed_precision(self, name, layer):
        model = make(name, layer=layer, zoneout=0.4)
        expected, _ = run(model, seed=5)
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = run(model, seed=5)
        torch.testing.assert_close(logits.float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_zoneout_masks_are_random_at_every_step(share):
    torch.manual_seed(0)
    mask = layers_module.make_zoneout_mask((50, 2, 20, 100), share, True, torch.device("cpu"))
    assert abs(mask.double().mean() - share) < 0.01
    assert not torch.equal(mask[0], mask[1])
    assert not torch.equal(mask[:, 0], mask[:, 1])
    assert layers_module.make_zoneout_mask((50, 2, 20, 100), share, False, torch.device("cpu")) is None
