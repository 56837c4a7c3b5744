"""rnn, gru and lstm: against torch's own layers and cells, finite differences, and a table of
n-grams kept in Python.
"""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reviewgen.compiled.dropout import drop
from reviewgen.protocols.model import flatten_state
from reviewgen.testing.models import some_ids
from tests.support.plugin_models import make_network

NAMES = ("rnn", "gru", "lstm")
LAYERS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
CELLS: dict[str, Any] = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
KINDS = [
    kind
    for kind in itertools.product(NAMES, ("fused", "compiled", "reference"), ("tanh", "relu"))
    if kind[0] == "rnn" or kind[1:] != ("fused", "relu")
]
T = 9
B = 3
E = 5
H = 7
V = 11
every_model = pytest.mark.parametrize("name", NAMES)


def make(name: str, **settings: Any) -> Any:
    return make_network(name, **({"layers": 2} | settings))


def run(model: Any, seed: int = 0) -> tuple[Tensor, Any]:
    """Return the logits and the state of a call, each seed with its own dropout."""
    torch.manual_seed(seed)
    logits, state = model(some_ids(model, B, T), model.initial_state(B))
    return logits, state


def random_state(model: Any) -> Any:
    state = model.initial_state(B)
    torch.manual_seed(2)
    return (
        tuple(torch.randn_like(s) for s in state)
        if isinstance(state, tuple)
        else torch.randn_like(state)
    )


def by_torch(name: str, model: Any, ids: Tensor, state: Any) -> tuple[Tensor, Any, nn.Module]:
    """The same language model from torch's batch-first layer, with the weights of ours, written
    here.
    """
    config = model.config
    saved = model.state_dict()
    kind = {"nonlinearity": config.activation} if name == "rnn" else {}
    layers = LAYERS[name](
        config.embedding_size, config.hidden_size, config.layers, batch_first=True, **kind
    )
    layers.load_state_dict(model.recurrent.state_dict())
    before = tuple(part.transpose(0, 1).contiguous() for part in flatten_state(state))
    x, after = layers(saved["embedding.weight"][ids], before if len(before) > 1 else before[0])
    if "output.projection.weight" in saved:
        x = x @ saved["output.projection.weight"].T
    weight = saved["embedding.weight" if config.tied else "output.weight"]
    return (
        x @ weight.T + saved["output.bias"],
        [part.transpose(0, 1) for part in flatten_state(after)],
        layers,
    )


def loss_of(logits: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), ids.flatten())


@pytest.mark.parametrize(
    "name, layer, activation",
    [kind for kind in KINDS if kind[0] == "rnn" or kind[2] == "tanh"],
)
def test_logits_states_and_gradients_are_those_of_torch(name, layer, activation):
    for shape in (
        {"layers": 1, "embedding_size": 3, "hidden_size": 16},
        {"layers": 2, "embedding_size": 8, "hidden_size": 8, "tied": True},
        {"layers": 3, "embedding_size": 6, "hidden_size": 4, "tied": True},
    ):
        model = make(name, layer=layer, activation=activation, **shape).train()
        ids = some_ids(model, B, T)
        state = random_state(model)
        logits, after = model(ids, state)
        expected, expected_after, layers = by_torch(name, model, ids, state)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(list(flatten_state(after)), expected_after, atol=1e-5, rtol=0)
        for each in (logits, expected):
            loss_of(each, ids).backward()
        for key, weights in layers.named_parameters():
            torch.testing.assert_close(
                model.recurrent.get_parameter(key).grad, weights.grad, atol=1e-5, rtol=0
            )
        with torch.no_grad():  # which the compiled loops leave to another implementation
            torch.testing.assert_close(model(ids, state)[0], expected, atol=1e-5, rtol=0)
        assert model.to("meta")(ids.to("meta"), model.initial_state(B))[0].shape == logits.shape


@every_model
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gradients_of_the_compiled_layers_are_finite_differences(name, activation):
    for zoneout in (0.0, 0.4):
        model = (
            make(
                name,
                layer="compiled",
                activation=activation,
                zoneout=zoneout,
                layers=1,
                hidden_size=5,
            )
            .double()
            .train()
        )
        state = tuple(
            torch.randn(1, 2, 5, dtype=torch.double, requires_grad=True)
            for _ in flatten_state(model.initial_state(2))
        )
        inputs = [
            torch.randn(4, 2, E, dtype=torch.double, requires_grad=True),
            *state,
            *model.recurrent.parameters(),
        ]

        def function(x: Tensor, *rest: Tensor, model: Any = model, parts: int = len(state)) -> Any:
            torch.manual_seed(0)  # the same units keep their value
            outputs, last = model.layers(model.recurrent, x, rest[:parts])
            return outputs, *last

        assert torch.autograd.gradcheck(function, inputs)


@every_model
def test_compiled_layers_of_any_size_are_those_of_torch_in_bfloat16_and_float32(name):
    for hidden, batch, time in [(1, 1, 1), (70, 3, 5), (129, 17, 2)]:
        models = [
            make(name, layer=layer, hidden_size=hidden, embedding_size=9).train()
            for layer in ("fused", "compiled")
        ]
        ids = some_ids(models[0], batch, time)
        targets = some_ids(models[0], batch, time, seed=1)
        for is_mixed, tolerance in (False, 1e-5), (True, 2e-2):
            results = []
            for model in models:
                with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                    logits, state = model(ids, model.initial_state(batch))
                assert logits.dtype == (torch.bfloat16 if is_mixed else torch.float32)
                loss = loss_of(logits, targets) + sum(
                    part.square().mean() for part in flatten_state(state)
                )
                results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
            for expected, found in zip(*results, strict=True):
                assert (found - expected).abs().max() <= tolerance * expected.abs().max().clamp(
                    min=1
                )


@every_model
def test_a_seed_drops_and_keeps_the_same_in_every_implementation(name):
    everything = {
        "embedding_dropout": 0.5,
        "dropout": 0.5,
        "weight_dropout": 0.5,
        "token_dropout": 0.2,
        "output_dropout": 0.1,
    }
    for settings, other in (
        (everything, "compiled"),
        (everything | {"locked_dropout": True}, "compiled"),
        ({"zoneout": 0.4, "activation": "relu"}, "reference"),
    ):
        model = make(name, **settings).train()
        expected = run(model, seed=3)[0]
        model.use_implementation(other)
        torch.testing.assert_close(run(model, seed=3)[0], expected, atol=1e-5, rtol=0)
        assert not torch.equal(run(model, seed=4)[0], expected)


def cell_of(name: str, model: Any, layer: int) -> Any:
    """Return torch's cell with the weights of a layer."""
    cell = CELLS[name](H if layer else E, H)
    cell.load_state_dict(
        {key: model.recurrent.get_parameter(f"{key}_l{layer}") for key in cell.state_dict()}
    )
    return cell


def step(cell: Any, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    new = cell(x, state if len(state) > 1 else state[0])
    return new if isinstance(new, tuple) else (new,)


@every_model
@pytest.mark.parametrize("layer", ["compiled", "reference"])
@torch.no_grad
def test_zoneout(name, layer):
    """In training some units keep their old value, each with its probability at each step;
    otherwise the expectation is kept.
    """
    model = make(name, layer=layer, zoneout=0.4, layers=1).train()
    cell = cell_of(name, model, 0)
    ids = some_ids(model, 500, 6)
    batch = 500
    state = model.initial_state(batch)
    seen = []
    for token in ids.T:
        with torch.enable_grad():  # which the compiled layer asks for
            _, after = model(token[:, None], state)
        old = tuple(part[:, 0] for part in flatten_state(state))
        for before, now, new in zip(
            old, flatten_state(after), step(cell, model.embedding(token), old), strict=True
        ):
            kept = now[:, 0] == before
            torch.testing.assert_close(now[:, 0][~kept], new[~kept], atol=1e-5, rtol=0)
            assert abs(kept.double().mean() - 0.4) < 0.04 + 0.6 * float(
                (new == before).double().mean()
            )
            seen.append(kept)
        state = after
    assert all(
        0.3 < (one != other).double().mean() < 0.65
        for one, other in itertools.combinations(seen, 2)
    )
    with torch.enable_grad():
        outputs, _ = model.layers(
            model.recurrent, model.embedding(ids.T), tuple(torch.zeros(1, batch, H) for _ in old)
        )
    kept = outputs[1:] == outputs[:-1]  # in a call of several steps
    assert abs(kept.double().mean() - 0.4) < 0.02 and not torch.equal(kept[0], kept[1])
    deep = make(name, layer=layer, zoneout=0.4)
    x = list(deep.embedding(some_ids(deep, B, T).T))
    for number in (0, 1):
        state = tuple(torch.zeros(B, H) for _ in old)
        for t in range(T):
            new = step(cell_of(name, deep, number), x[t], state)
            state = tuple(
                0.4 * before + 0.6 * after for before, after in zip(state, new, strict=True)
            )
            x[t] = state[0]
    expected = logits_of(deep, torch.stack(x))
    torch.testing.assert_close(run(deep)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_zeroes_a_share_and_scales_the_rest(share):
    count = 200_000
    x = torch.rand(200_000) + 1
    torch.manual_seed(0)
    dropped = drop(x, share, training=True)
    gone = dropped == 0
    torch.testing.assert_close(dropped[~gone], x[~gone] / (1 - share))
    sigma = (share * (1 - share) / count) ** 0.5
    assert abs(gone.double().mean() - share) < 4 * sigma
    other = drop(x, share, training=True) == 0
    # masks are independent, and so are neighbours
    assert abs((gone & other).double().mean() - share**2) < 6 * sigma
    for distance in 1, 2, 3, 8, 16, 64, 1024:
        assert abs((gone[distance:] & gone[:-distance]).double().mean() - share**2) < 6 * sigma
    torch.manual_seed(0)
    assert torch.equal(drop(x, share, training=True), dropped)


def factors(*shapes: Any, share: float = 0.5, seed: int = 0) -> list[Tensor]:
    """Return what a call with this seed multiplies by, in the order in which it draws the masks."""
    torch.manual_seed(seed)
    return [drop(torch.ones(shape), share, training=True) for shape in shapes]


def after_layers(model: Any, x: Tensor) -> Tensor:
    """Return the outputs of the layers, (T, B, H), of torch's own module."""
    return model.recurrent(x)[0]  # type: ignore[no-any-return]


def logits_of(model: Any, x: Tensor) -> Tensor:
    return torch.nn.functional.linear(model.output(x, None), *model.output_layer()).transpose(0, 1)


@pytest.mark.parametrize(
    "name, layer",
    [("rnn", "fused"), ("gru", "reference"), ("lstm", "fused"), ("lstm", "compiled")],
)
class TestDropoutOfModels:
    """Equal to torch's own layers with the same masks."""

    def test_of_recurrent_matrices(self, name, layer):
        model = make(name, layer=layer, weight_dropout=0.5).train()
        logits, after = run(model)
        logits.square().sum().backward()
        masks = factors(*[model.recurrent.weight_hh_l0.shape] * 2)
        reference = copy.deepcopy(model).eval()
        reference.zero_grad()
        with torch.no_grad():
            for weights, mask in zip(
                (reference.recurrent.weight_hh_l0, reference.recurrent.weight_hh_l1),
                masks,
                strict=True,
            ):
                weights.mul_(mask)
        expected, expected_after = run(reference)
        expected.square().sum().backward()
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(list(flatten_state(after)), list(flatten_state(expected_after)))
        # the whole matrix learns, by what was left of it
        for key, weights in model.recurrent.named_parameters():
            gradient = reference.recurrent.get_parameter(key).grad
            gradient = gradient * masks[int(key[-1])] if key.startswith("weight_hh") else gradient
            torch.testing.assert_close(weights.grad, gradient, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("is_locked", [False, True])
    def test_of_embeddings_between_layers_and_of_outputs(self, name, layer, is_locked):
        time = 1 if is_locked else T
        model = make(
            name, layer=layer, embedding_dropout=0.5, output_dropout=0.5, locked_dropout=is_locked
        ).train()
        inputs = model.embedding(some_ids(model, B, T).T)
        logits = run(model)[0]
        first, second = factors((time, B, E), (time, B, H))
        torch.testing.assert_close(
            logits, logits_of(model, after_layers(model, inputs * first) * second)
        )
        model = make(name, layer=layer, dropout=0.5, locked_dropout=is_locked).train()
        logits = run(model)[0]
        (mask,) = factors((time, B, H))
        below = LAYERS[name](E, H)
        above = LAYERS[name](H, H)
        below.load_state_dict(
            {key: t for key, t in model.recurrent.state_dict().items() if key.endswith("l0")}
        )
        above.load_state_dict(
            {
                f"{key[:-1]}0": t
                for key, t in model.recurrent.state_dict().items()
                if key.endswith("l1")
            }
        )
        torch.testing.assert_close(logits, logits_of(model, above(below(inputs)[0] * mask)[0]))

    def test_of_tokens_wherever_they_stand(self, name, layer):
        for is_tied in (False, True):
            model = make(name, layer=layer, token_dropout=0.5, tied=is_tied).train()
            logits = run(model)[0]
            (mask,) = factors((V, 1))
            assert 0 < (mask == 0).sum() < V
            x = (model.embedding.weight * mask)[some_ids(model, B, T).T]
            # the output layer keeps every token
            torch.testing.assert_close(logits, logits_of(model, after_layers(model, x)))

    def test_in_evaluation_mode_there_is_none(self, name, layer):
        every = dict.fromkeys(
            ("dropout", "embedding_dropout", "output_dropout", "token_dropout", "weight_dropout"),
            0.5,
        )
        model = make(name, layer=layer, **every)
        plain = make(name, layer=layer)
        assert torch.equal(run(model, seed=0)[0], run(plain, seed=1)[0])


def bucket(tokens: tuple[int, ...], buckets: int) -> int:
    """The hash of an n-gram, in Python's integers, which never overflow."""
    key = 0
    for token in reversed(tokens):
        key = ((key + token + 1) * 0x9E3779B1) % 2**32
        key ^= key >> 15
    return key * buckets // 2**32


def test_vectors_of_ngrams_are_those_of_a_table_kept_by_hand(monkeypatch):
    layer = make("lstm", ngrams=4, ngram_buckets=100).ngrams
    past = torch.randint(0, 12, (3, 2))
    ids = torch.randint(0, 11, (6, 2))
    ids[2:5, 1] = torch.tensor([2**20, 2**31, 2**40])  # any number is hashed
    table = layer.table.weight.unflatten(0, (3, 100))
    expected = torch.zeros(6, 2, E)
    for row, t, n in itertools.product(range(2), range(6), (2, 3, 4)):
        text = [*past[:, row].tolist(), *ids[:, row].tolist()]
        expected[t, row] += table[n - 2, bucket(tuple(text[t + 4 - n : t + 4]), 100)]
    torch.testing.assert_close(layer(ids, past), expected)
    dropping = make("lstm", ngrams=4, ngram_buckets=100, ngram_dropout=0.5).ngrams.train()

    def learned(layer: Callable[..., Tensor], table: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(5)
        found = layer(ids, past)
        # sparse with bags, dense without
        return found, torch.autograd.grad(found.square().sum(), table)[0].to_dense()

    bags = [learned(layer, layer.table.weight), learned(dropping, dropping.table.weight)]
    # then, and on some devices, there are no bags
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(
        [learned(layer, layer.table.weight), learned(dropping, dropping.table.weight)], bags
    )


def test_dropped_ngrams_are_as_if_never_met():
    layer = make("lstm", ngrams=2, ngram_dropout=0.5).ngrams.train()
    ids = torch.randint(0, 11, (200, 10))
    past = torch.randint(0, 11, (1, 10))
    found = layer(ids, past)
    whole = layer.eval()(ids, past)
    is_out = (found == 0).all(dim=-1)
    assert 0.45 < is_out.float().mean() < 0.55 and torch.equal(found[~is_out], whole[~is_out])
