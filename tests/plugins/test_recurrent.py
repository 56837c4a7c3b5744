"""rnn, gru and lstm: equal to torch's own layers built here by hand, lawful, and able to learn."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reviewgen_recurrent import presets
from reviewgen_recurrent.gru import Gru
from reviewgen_recurrent.lstm import Lstm
from reviewgen_recurrent.rnn import Rnn
from torch import Tensor, nn

from reviewgen.config import from_dict, to_dict
from reviewgen.errors import ConfigError
from reviewgen.protocols import LanguageModel

MODELS = {"rnn": Rnn, "gru": Gru, "lstm": Lstm}
TORCH = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
LAYERS = ("fused", "compiled", "reference")
every_model = pytest.mark.parametrize("name", MODELS)
every_layer = pytest.mark.parametrize("layer", LAYERS)
every_kind = pytest.mark.parametrize(
    ("name", "layer", "activation"),
    [(name, layer, "tanh") for name in MODELS for layer in LAYERS]
    + [(name, layer, "relu") for name in MODELS for layer in ("compiled", "reference")]
    + [("rnn", "fused", "relu")],
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products are far slower on several threads, above all where tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(name: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    small = {"vocab_size": 11, "embedding_size": 5, "hidden_size": 7, "layers": 2}
    model = MODELS[name]
    return model(model.Config(**{**small, **settings})).eval()


def random_ids(batch: int, time: int, vocab: int = 11, seed: int = 1) -> Tensor:
    return torch.randint(0, vocab, (batch, time), generator=torch.Generator().manual_seed(seed))


def random_state(model: Any, batch: int) -> Any:
    torch.manual_seed(2)
    state = model.initial_state(batch)
    return tuple(torch.randn_like(s) for s in state) if isinstance(state, tuple) else torch.randn_like(state)


def parts(state: Any) -> list[Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


def map_state(function: Any, state: Any) -> Any:
    return tuple(function(s) for s in state) if isinstance(state, tuple) else function(state)


def torch_says(name: str, model: Any, ids: Tensor, state: Any) -> tuple[Tensor, Any, nn.Module]:
    """The same language model from torch's batch-first layer, with the weights of ours, written here."""
    config = model.config
    kind = {"nonlinearity": config.activation} if name == "rnn" else {}
    layers = TORCH[name](config.embedding_size, config.hidden_size, config.layers, batch_first=True, **kind)
    layers.load_state_dict(model.recurrent.state_dict())
    x = model.embedding.weight.detach()[ids]
    x, after = layers(x, map_state(lambda s: s.transpose(0, 1).contiguous(), state))
    tensors = model.state_dict()
    if "output.projection.weight" in tensors:
        x = x @ tensors["output.projection.weight"].T
    weight = tensors["embedding.weight" if config.tied else "output.weight"]
    return x @ weight.T + tensors["output.bias"], map_state(lambda s: s.transpose(0, 1), after), layers


SHAPES = [
    {"layers": 1},
    {"layers": 2, "embedding_size": 8, "hidden_size": 8, "tied": True},
    {"layers": 3, "embedding_size": 6, "hidden_size": 4, "tied": True},
    {"layers": 1, "embedding_size": 3, "hidden_size": 16},
]


@every_model
@every_layer
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch(name: str, layer: str, shape: dict[str, Any]) -> None:
    model = make(name, layer=layer, **shape)
    ids, state = random_ids(3, 9), random_state(model, 3)
    logits, after = model(ids, state)
    expected, expected_after, _ = torch_says(name, model, ids, state)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts(after), parts(expected_after), atol=1e-5, rtol=0)


@every_layer
def test_relu_rnn_equals_torch(layer: str) -> None:
    model = make("rnn", layer=layer, activation="relu")
    ids, state = random_ids(3, 9), random_state(model, 3)
    torch.testing.assert_close(model(ids, state)[0], torch_says("rnn", model, ids, state)[0], atol=1e-5, rtol=0)


@every_model
@every_layer
def test_gradients_equal_torch(name: str, layer: str) -> None:
    model = make(name, layer=layer, layers=3)
    ids, state = random_ids(4, 9), random_state(model, 4)
    expected, _, layers = torch_says(name, model, ids, state)
    for logits in (model(ids, state)[0], expected):
        F.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
    for key, weights in layers.named_parameters():
        torch.testing.assert_close(model.recurrent.get_parameter(key).grad, weights.grad, atol=1e-5, rtol=0)


@every_model
@pytest.mark.parametrize("layer", ["compiled", "reference"])
def test_a_fused_models_weights_load_into_another(name: str, layer: str) -> None:
    fused = make(name, layer="fused", tied=True)
    other = make(name, layer=layer, tied=True)
    for weights in other.parameters():
        nn.init.zeros_(weights)
    other.load_state_dict(fused.state_dict())
    ids = random_ids(2, 20)
    torch.testing.assert_close(other(ids, other.initial_state(2))[0], fused(ids, fused.initial_state(2))[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "cell"), [("gru", "GRU"), ("lstm", "LSTM")])
def test_relu_with_fused_gru_and_lstm_is_an_error(name: str, cell: str) -> None:
    with pytest.raises(ConfigError, match=rf"torch's {cell} has no relu, but layer=\"compiled\" and layer=\"reference\" have"):
        make(name, activation="relu", layer="fused")


@every_model
def test_zoneout_with_fused_layers_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"zoneout=0.1 cannot be combined with layer=\"fused\".*Set layer to \"auto\""):
        make(name, zoneout=0.1, layer="fused")


@every_model
@pytest.mark.parametrize("wrong", [{"dropout": 1.0}, {"output_dropout": -0.1}, {"layers": 0}])
def test_a_setting_out_of_range_is_an_error(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make(name, **wrong)


@every_kind
def test_keeps_the_contract(name: str, layer: str, activation: str) -> None:
    model = make(name, layer=layer, activation=activation, tied=True)
    assert isinstance(model, LanguageModel)
    assert from_dict(model.Config, to_dict(model.config)) == model.config
    ids = random_ids(3, 12)
    state = random_state(model, 3)
    kept = copy.deepcopy(state)
    whole, after = model(ids, state)
    assert whole.shape == (3, 12, 11)
    assert [s.shape for s in parts(after)] == [(3, 2, 7)] * len(parts(after))
    torch.testing.assert_close(state, kept, atol=0, rtol=0)  # no mutation

    pieces, carried = [], state  # chunks
    for piece in ids.split([1, 4, 7], dim=1):
        logits, carried = model(piece, carried)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
    torch.testing.assert_close(carried, after)

    one_row = model(ids[1:2], map_state(lambda s: s[1:2], state))[0]  # rows
    torch.testing.assert_close(one_row, whole[1:2])

    changed = ids.clone()  # causal
    changed[:, 6] = (changed[:, 6] + 1) % 11
    later = model(changed, state)[0]
    torch.testing.assert_close(later[:, :6], whole[:, :6], atol=0, rtol=0)
    assert not torch.equal(later[:, 6], whole[:, 6])


@every_kind
def test_a_long_text_stays_finite(name: str, layer: str, activation: str) -> None:
    model = make(name, layer=layer, activation=activation, hidden_size=32, layers=2)
    with torch.no_grad():
        logits, state = model(random_ids(2, 500), model.initial_state(2))
    assert logits.abs().max() < 100
    assert max(float(s.abs().max()) for s in parts(state)) < 1000


@every_model
def test_tied_weights_are_saved_once(name: str) -> None:
    tied = make(name, tied=True).state_dict()
    assert "output.weight" not in tied
    assert len({tensor.data_ptr() for tensor in tied.values()}) == len(tied)
    assert "output.projection.weight" not in make(name, tied=True, embedding_size=7).state_dict()


@every_model
@every_layer
@pytest.mark.parametrize("kind", ["dropout", "embedding_dropout", "output_dropout"])
def test_dropout_is_for_training_only(name: str, layer: str, kind: str) -> None:
    model, plain = make(name, layer=layer, **{kind: 0.5}), make(name, layer=layer)
    ids, state = random_ids(2, 6), model.initial_state(2)
    torch.testing.assert_close(model(ids, state)[0], plain(ids, state)[0])
    model.train()
    assert not torch.equal(model(ids, state)[0], model(ids, state)[0])


@every_kind
def test_can_be_made_without_memory(name: str, layer: str, activation: str) -> None:
    with torch.device("meta"):
        model = make(name, layer=layer, activation=activation, tied=True)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    real = make(name, layer=layer, activation=activation, tied=True)
    model.load_state_dict(real.state_dict(), assign=True)
    ids = random_ids(2, 3)
    torch.testing.assert_close(model(ids, model.initial_state(2))[0], real(ids, real.initial_state(2))[0])


@every_kind
def test_bfloat16_autocast_carries_a_state_in_and_out(name: str, layer: str, activation: str) -> None:
    model = make(name, layer=layer, activation=activation).train()
    ids, state = random_ids(2, 8), model.initial_state(2)
    exact = model(ids, state)[0]
    with torch.autocast("cpu", torch.bfloat16):
        first, state = model(ids[:, :3], state)
        second, state = model(ids[:, 3:], state)
    logits = torch.cat([first, second], dim=1)
    torch.testing.assert_close(logits.float(), exact, atol=0.1, rtol=0.1)
    F.cross_entropy(logits.float().flatten(0, 1), ids.flatten()).backward()
    assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in model.parameters())
    assert model(ids, state)[0].dtype == torch.float32


@every_model
@every_layer
def test_starts_near_the_uniform_guess(name: str, layer: str) -> None:
    for tied in (False, True):
        model = make(name, layer=layer, tied=tied, vocab_size=100, embedding_size=64, hidden_size=64)
        ids = random_ids(4, 32, vocab=100)
        loss = F.cross_entropy(model(ids, model.initial_state(4))[0].flatten(0, 1), ids.flatten().roll(1))
        assert loss < torch.tensor(100.0).log() + 0.5


def test_a_fresh_lstm_remembers() -> None:
    bias = make("lstm").recurrent.bias_ih_l1
    assert bias.tolist() == [0.0] * 7 + [1.0] * 7 + [0.0] * 14


@every_kind
def test_learns_a_periodic_sequence(name: str, layer: str, activation: str) -> None:
    model = make(name, layer=layer, activation=activation, vocab_size=4, embedding_size=8, hidden_size=32, layers=1).train()
    ids = torch.tensor([0, 1, 0, 2, 0, 3] * 5).expand(2, -1)  # what follows a 0 depends on the token before it
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    state = model.initial_state(2)
    for _ in range(120):
        logits, _ = model(ids[:, :-1], state)
        loss = F.cross_entropy(logits[:, 6:].flatten(0, 1), ids[:, 7:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


@pytest.mark.parametrize("preset", presets.__all__)
def test_the_presets_make_models(preset: str) -> None:
    name, tokenizer = preset.lower().split("_")
    data = getattr(presets, preset)
    assert (data.model, data.tokenizer) == (name, tokenizer)
    config = from_dict(MODELS[name].Config, {"vocab_size": 50, **data.model_settings})
    if tokenizer == "char":
        assert config == MODELS[name].Config(vocab_size=50, ngrams=5)
    with torch.device("meta"):
        MODELS[name](config)
