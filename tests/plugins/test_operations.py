"""The operations that rnn, gru, lstm and nnlm show: against their equations written out here with torch, and formulas by hand."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from reviewgen_nnlm.model import Nnlm
from reviewgen_recurrent.gru import Gru
from reviewgen_recurrent.lstm import Lstm
from reviewgen_recurrent.rnn import Rnn

B, T, V, E, H = 2, 5, 11, 3, 4
MODELS = {"rnn": Rnn, "gru": Gru, "lstm": Lstm}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def make(cls, **settings):
    """Return a model with random weights in every tensor, biases included."""
    model = cls(cls.Config(vocab_size=V, embedding_size=E, hidden_size=H, **settings)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)
    return model


def some_ids():
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


def show(model, ids=None, state=None):
    """Return the operations of a model by name."""
    ids = some_ids() if ids is None else ids
    with torch.no_grad():
        return {each.name: each for each in model.operations(ids, model.initial_state(len(ids)) if state is None else state)}


def parts(model, layer=0):
    """Return the matrices and biases of a layer, gate by gate."""
    return [weights.chunk(model.recurrent.weight_hh_l0.size(0) // H) for weights in model.recurrent.all_weights[layer]]


def by_hand(name, model):
    """Return each result of the equations in the model's docstring, (B, T, H), of one layer with tanh."""
    w_i, w_h, b_i, b_h = parts(model)
    h = c = torch.zeros(B, H)
    results = []
    for x in F.embedding(some_ids(), model.embedding.weight).unbind(1):
        gates = [(x @ wi.T + bi, h @ wh.T + bh) for wi, wh, bi, bh in zip(w_i, w_h, b_i, b_h, strict=True)]
        if name == "rnn":
            h = torch.tanh(sum(gates[0]))
            results.append({"hidden state": h})
        elif name == "gru":
            r, z = (torch.sigmoid(sum(gate)) for gate in gates[:2])
            n = torch.tanh(gates[2][0] + r * gates[2][1])
            h = (1 - z) * n + z * h
            results.append({"reset gate": r, "update gate": z, "candidate": n, "hidden state": h})
        else:
            i, f, o = (torch.sigmoid(sum(gates[k])) for k in (0, 1, 3))
            g = torch.tanh(sum(gates[2]))
            c = f * c + i * g
            h = o * torch.tanh(c)
            names = ("input gate", "forget gate", "candidate", "output gate", "cell state", "hidden state")
            results.append(dict(zip(names, (i, f, g, o, c, h), strict=True)))
    return {key: torch.stack([step[key] for step in results], dim=1) for key in results[0]}


@pytest.mark.parametrize("name", MODELS)
def test_the_values_are_those_of_the_equations(name):
    model = make(MODELS[name])
    shown, expected = show(model), by_hand(name, model)
    assert list(shown) == ["embedding", *expected, "logits"]
    for key, values in expected.items():
        assert torch.allclose(shown[key].values, values, atol=1e-6), key
        assert shown[key].axes == "B T H"
    assert torch.equal(shown["embedding"].values, model.embedding.weight[some_ids()])
    logits, _ = model(some_ids(), model.initial_state(B))
    assert torch.allclose(shown["logits"].values, logits, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_state_that_was_carried_continues_the_text(name):
    model = make(MODELS[name], layers=2)
    ids = some_ids()
    _, state = model(ids[:, :2], model.initial_state(B))
    whole, rest = show(model, ids), show(model, ids[:, 2:], state)
    for key in whole:
        assert torch.allclose(whole[key].values[:, 2:], rest[key].values, atol=1e-6), key


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_torchs_and_multiplications_those_of_a_formula(name):
    model = make(MODELS[name], layers=2)
    shown = show(model)
    layer = {"rnn": 0, "gru": 3 * H, "lstm": 3 * H}[name]  # elementwise products of a token: r*, (1-z)*, z* or f*, i*, o*
    expected = [B * T * (GATES[name] * (inputs * H + H * H) + layer) for inputs in (E, H)]
    for number in (1, 2):
        of_layer = [each for each in shown.values() if each.name.endswith(f", layer {number}")]
        torchs = [weights for key, weights in model.recurrent.named_parameters() if key.endswith(f"_l{number - 1}")]
        assert sum(each.parameters for each in of_layer) == sum(map(torch.Tensor.numel, torchs))
        assert sum(each.multiplications for each in of_layer) == expected[number - 1]
    assert shown["logits"].multiplications == B * T * H * V
    assert sum(each.parameters for each in shown.values()) == sum(map(torch.Tensor.numel, model.parameters()))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"tied": True}, ["projection", "logits"]),
        ({"ngrams": 3, "ngram_buckets": 20}, ["logits"]),
        ({"zoneout": 0.25}, ["zoneout of the cell state", "zoneout of the hidden state", "logits"]),
        ({"activation": "relu"}, ["hidden state", "logits"]),
    ],
    ids=["tied", "n-grams", "zoneout", "relu"],
)
def test_options_have_their_operations(settings, names):
    model = make(Lstm, **settings)
    shown = show(model)
    assert list(shown)[-len(names) :] == names
    logits, _ = model(some_ids(), model.initial_state(B))
    assert torch.allclose(shown["logits"].values, logits, atol=1e-5)
    assert sum(each.parameters for each in shown.values()) == sum(map(torch.Tensor.numel, model.parameters()))
    if "activation" in settings:
        assert shown["candidate"].formula.startswith("g_t = relu(")


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_nnlm_shows_its_window(activation):
    model = make(Nnlm, order=4, activation=activation)
    shown, ids = show(model), some_ids()
    padded = torch.cat([torch.full((B, 2), V), ids], dim=1)
    window = torch.stack([padded[:, t : t + 3] for t in range(T)], dim=1)
    assert torch.equal(shown["window"].values, window) and shown["window"].kind == "window"
    x = model.embedding.weight[window].reshape(B, T, 3 * E)
    assert torch.equal(shown["concatenation"].values, x) and shown["concatenation"].axes == "B T KE"
    h = getattr(torch, activation)(x @ model.hidden.weight.T + model.hidden.bias)
    assert torch.allclose(shown["hidden layer"].values, h, atol=1e-6)
    assert torch.allclose(shown["logits"].values, h @ model.output.weight.T + model.output.bias, atol=1e-6)
    products = {name: each.multiplications for name, each in shown.items() if each.multiplications}
    assert products == {"hidden layer": B * T * 3 * E * H, "logits": B * T * H * V}
    assert sum(each.parameters for each in shown.values()) == sum(map(torch.Tensor.numel, model.parameters()))


WRONG_SHAPES = """
import numpy as np, torch
from reviewgen.errors import ReviewgenError, ShapeError
from reviewgen_ngram.model import Ngram
from reviewgen_nnlm.model import Nnlm
from reviewgen_recurrent.gru import Gru
from reviewgen_recurrent.lstm import Lstm

def said(model, ids, state):
    try:
        model(ids, state)
    except ShapeError as error:
        assert isinstance(error, ReviewgenError) and isinstance(error, ValueError) and len(str(error)) < 500
        return str(error)
    raise AssertionError("no error")

ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
gru, lstm = Gru(Gru.Config(vocab_size=9, hidden_size=5, layers=2)), Lstm(Lstm.Config(vocab_size=9, hidden_size=5))
nnlm, ngram = Nnlm(Nnlm.Config(vocab_size=9, order=4)), Ngram(Ngram.Config(vocab_size=9))
ngram.observe(np.array([0, 2, 1])); ngram.finish()
for model in gru, lstm, nnlm, ngram:
    state = model.initial_state(2)
    model(ids, state)  # what is right passes
    one = said(model, ids[0], state)
    assert "(B, T)" in one and "int64 of the shape (3,)" in one and "ids[None]" in one, one
    floats = said(model, ids.float(), state)
    assert "integers" in floats and "float32 of the shape (2, 3)" in floats, floats
    assert "a list" in said(model, [[1, 2]], state)
    rows = said(model, ids, model.initial_state(3))
    assert "B=2 texts" in rows and "B is 3" in rows, rows
wide = said(gru, ids, torch.zeros(2, 2, 7))
assert "state h" in wide and "(B, L, H)" in wide and "L=2 layers, H=5 hidden units" in wide and "H is 7" in wide, wide
assert "2 axes instead of 3" in said(gru, ids, torch.zeros(2, 5))
assert "int64" in said(gru, ids, torch.zeros(2, 2, 5).long())
assert "a tuple of 2 parts" in said(lstm, ids, lstm.initial_state(2)[0])
assert "state c" in said(lstm, ids, (torch.zeros(2, 1, 5), torch.zeros(2, 5, 1)))
assert "K=3 tokens before" in said(nnlm, ids, torch.zeros(2, 2).long())
print("right")
"""


def test_a_wrong_shape_is_an_error_that_names_each_axis():
    """In a process of its own: the tests' hook checks annotations before a model can."""
    done = subprocess.run([sys.executable, "-c", WRONG_SHAPES], capture_output=True, text=True)
    assert done.stdout == "right\n", done.stderr
