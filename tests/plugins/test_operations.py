"""The operations that rnn, gru, lstm and nnlm show: against their equations written out here, and
formulas by hand.
"""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reviewgen.errors import ReviewgenError, ShapeError
from reviewgen.protocols import hold_given
from reviewgen.registry.plugins import find_model
from tests.support.plugin_models import make_network

B = 2
T = 5
V = 11
E = 3
H = 4
GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def make(name: str, **settings: Any) -> Any:
    return make_network(name, **({"embedding_size": E, "hidden_size": H} | settings))


def some_ids() -> torch.Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


@torch.no_grad
def show(model: Any, ids: Any = None, state: Any = None) -> dict[str, Any]:
    """Return the operations of a model by name."""
    ids = some_ids() if ids is None else ids
    return {
        each.name: each
        for each in model.operations(ids, model.initial_state(len(ids)) if state is None else state)
    }


def size_of(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def by_hand(name: str, model: Any) -> dict[str, torch.Tensor]:
    """Return each result of the equations in the model's docstring, (B, T, H), of one layer."""
    w_i, w_h, b_i, b_h = (weights.chunk(GATES[name]) for weights in model.recurrent.all_weights[0])
    squash = getattr(torch, model.config.activation)
    h = c = torch.zeros(B, H)
    results: list[dict[str, torch.Tensor]] = []
    for x in F.embedding(some_ids(), model.embedding.weight).unbind(1):
        gates = [
            (x @ wi.T + bi, h @ wh.T + bh)
            for wi, wh, bi, bh in zip(w_i, w_h, b_i, b_h, strict=True)
        ]
        if name == "rnn":
            h = squash(sum(gates[0]))
            results.append({"hidden state": h})
        elif name == "gru":
            r, z = (torch.sigmoid(sum(gate)) for gate in gates[:2])
            n = squash(gates[2][0] + r * gates[2][1])
            h = (1 - z) * n + z * h
            results.append({"reset gate": r, "update gate": z, "candidate": n, "hidden state": h})
        else:
            i, f, o = (torch.sigmoid(sum(gates[k])) for k in (0, 1, 3))
            g = squash(sum(gates[2]))
            c = f * c + i * g
            h = o * squash(c)
            names = (
                "input gate",
                "forget gate",
                "candidate",
                "output gate",
                "cell state",
                "hidden state",
            )
            results.append(dict(zip(names, (i, f, g, o, c, h), strict=True)))
    return {key: torch.stack([step[key] for step in results], dim=1) for key in results[0]}


@pytest.mark.parametrize("name", GATES)
@torch.no_grad
def test_values_are_those_of_the_equations_with_either_activation(name):
    for activation in ("tanh", "relu"):
        model = make(name, activation=activation, hidden_size=H)
        shown = show(model)
        expected = by_hand(name, model)
        assert list(shown) == ["embedding", *expected, "logits"]
        for key, values in expected.items():
            torch.testing.assert_close(shown[key].values, values, atol=1e-6, rtol=1e-5)
            assert shown[key].axes == "B T H"
            assert "tanh" not in shown[key].formula or activation == "tanh"
        assert torch.equal(shown["embedding"].values, model.embedding.weight[some_ids()])
        for layer in ("compiled", "reference"):  # what is trained and what is run
            again = make(name, activation=activation, layer=layer).train()
            with torch.enable_grad():
                logits, _ = again(some_ids(), again.initial_state(B))
            torch.testing.assert_close(logits, shown["logits"].values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings, names",
    [
        ({"tied": True}, ["projection", "logits"]),
        ({"ngrams": 3, "ngram_buckets": 20}, ["logits"]),
        ({"zoneout": 0.25}, ["zoneout of the cell state", "zoneout of the hidden state", "logits"]),
    ],
    ids=["tied", "n-grams", "zoneout"],
)
@torch.no_grad
def test_options_have_their_operations(settings, names):
    model = make("lstm", **settings)
    shown = show(model)
    assert list(shown)[-len(names) :] == names
    torch.testing.assert_close(
        shown["logits"].values, model(some_ids(), model.initial_state(B))[0], atol=1e-5, rtol=1e-5
    )
    assert sum(each.parameters for each in shown.values()) == size_of(model)


@torch.no_grad
def test_nnlm_shows_its_window():
    model = make("nnlm", order=4, activation="tanh")
    shown = show(model)
    padded = torch.cat([torch.full((B, 2), V), some_ids()], dim=1)
    window = torch.stack([padded[:, t : t + 3] for t in range(T)], dim=1)
    assert torch.equal(shown["window"].values, window) and shown["window"].kind == "window"
    x = model.embedding.weight[window].reshape(B, T, 3 * E)
    assert torch.equal(shown["concatenation"].values, x) and shown["concatenation"].axes == "B T KE"
    h = torch.tanh(x @ model.hidden.weight.T + model.hidden.bias)
    torch.testing.assert_close(shown["hidden layer"].values, h, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        shown["logits"].values, h @ model.output.weight.T + model.output.bias, atol=1e-6, rtol=1e-5
    )
    products = {name: each.multiplications for name, each in shown.items() if each.multiplications}
    assert products == {"hidden layer": B * T * 3 * E * H, "logits": B * T * H * V}
    assert sum(each.parameters for each in shown.values()) == size_of(model)


def test_what_is_held_is_added_to_the_input_of_the_output_layer_or_of_the_hidden_one():
    settings = {"bos_id": 0, "condition_ids": 2}
    ids = torch.tensor([[0, V - 2, 5, V - 1, 3], [4, 0, V - 2, 0, 7]])
    for model in make("gru", tied=True, **settings), make("nnlm", order=4, **settings):
        shown = show(model, ids)
        e = model.embedding.weight
        given, _ = hold_given(model.config, e, ids, torch.zeros(B, E + 2))
        torch.testing.assert_close(shown["given"].values, given)
        torch.testing.assert_close(shown["held"].values, given @ model.held.T)
        if "projection" in shown:
            p = shown["projection"].values + given @ model.held.T
            torch.testing.assert_close(
                shown["logits"].values, p @ e.T + model.output.bias, atol=1e-5, rtol=1e-5
            )


@pytest.mark.wrong_types
def test_a_wrong_shape_is_an_error_that_names_each_axis():
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    ngram_class = find_model("ngram")[0]
    ngram: Any = ngram_class(ngram_class.Config(vocab_size=9))  # type: ignore[call-arg]
    ngram.observe(np.array([0, 2, 1]))
    ngram.finish()
    gru = make("gru", hidden_size=5, layers=2)
    lstm = make("lstm", hidden_size=5)
    nnlm = make("nnlm", order=4)
    cases: list[tuple[Any, Any, Any, tuple[str, ...]]] = [
        (
            gru,
            ids,
            torch.zeros(2, 2, 7),
            ("state h", "(B, L, H)", "L=2 layers, H=5 hidden units", "H is 7"),
        ),
        (gru, ids, torch.zeros(2, 5), ("(B, L, H)", "float32 of the shape (2, 5)")),
        (gru, ids, torch.zeros(2, 2, 5).long(), ("int64",)),
        (lstm, ids, lstm.initial_state(2)[0], ("a tuple of 2 parts",)),
        (lstm, ids, (torch.zeros(2, 1, 5), torch.zeros(2, 5, 1)), ("state c",)),
        (nnlm, ids, torch.zeros(2, 2).long(), ("K=3 tokens before",)),
    ]
    for model in (gru, lstm, nnlm, ngram):
        state = model.initial_state(2)
        model(ids, state)  # what is right passes
        cases += [
            (model, ids[0], state, ("(B, T)", "int64 of the shape (3,)", "ids[None]")),
            (model, ids.float(), state, ("integers", "float32 of the shape (2, 3)")),
            (model, [[1, 2]], state, ("a list",)),
            (model, ids, model.initial_state(3), ("B=2 texts", "B is 3")),
        ]
    for model, wrong, state, words in cases:
        with pytest.raises(ShapeError) as error:
            model(wrong, state)
        assert isinstance(error.value, ReviewgenError) and all(
            word in str(error.value) for word in words
        ), error.value
