"""nnlm: equal to a plain Python loop over positions, lawful, and able to learn."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reviewgen_nnlm import presets
from reviewgen_nnlm.model import Nnlm, NnlmConfig
from torch import Tensor

from reviewgen.config import from_dict, to_dict
from reviewgen.errors import ConfigError
from reviewgen.protocols import LanguageModel

ORDERS = pytest.mark.parametrize("order", [2, 3, 6])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products are far slower on several threads, above all where tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(**settings: Any) -> Nnlm:
    torch.manual_seed(0)
    small = {"vocab_size": 11, "order": 4, "embedding_size": 5, "hidden_size": 7}
    return Nnlm(NnlmConfig(**{**small, **settings})).eval()


def random_ids(batch: int, time: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 11, (batch, time), generator=torch.Generator().manual_seed(seed))


@ORDERS
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_equals_a_plain_loop(order: int, activation: str) -> None:
    model = make(order=order, activation=activation)
    ids = random_ids(3, 8)
    logits, _ = model(ids, model.initial_state(3))
    squash = getattr(torch, activation)
    for b in range(3):
        text = [11] * (order - 1) + ids[b].tolist()  # 11, one past the vocabulary, is "before the beginning"
        for t in range(8):
            context = text[t + 1 : t + order]  # the last order-1 ids, ids[b, t] among them
            x = torch.cat([model.embedding.weight[i] for i in context])
            expected = model.output.weight @ squash(model.hidden.weight @ x + model.hidden.bias) + model.output.bias
            torch.testing.assert_close(logits[b, t], expected)


@ORDERS
def test_keeps_the_contract(order: int) -> None:
    model = make(order=order)
    assert isinstance(model, LanguageModel)
    assert from_dict(model.Config, to_dict(model.config)) == model.config
    ids, state = random_ids(3, 12), random_ids(3, order - 1, seed=2)
    kept = state.clone()
    whole, after = model(ids, state)
    assert whole.shape == (3, 12, 11)
    assert torch.equal(state, kept)  # no mutation
    assert torch.equal(after, ids[:, -(order - 1) :])

    pieces, carried = [], state  # chunks; a piece may be shorter than the context
    for piece in ids.split([1, 1, 3, 7], dim=1):
        logits, carried = model(piece, carried)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
    assert torch.equal(carried, after)

    torch.testing.assert_close(model(ids[1:2], state[1:2])[0], whole[1:2])  # rows

    changed = ids.clone()  # causal, and no memory beyond order-1 tokens
    changed[:, 4] = (changed[:, 4] + 1) % 11
    later = model(changed, state)[0]
    torch.testing.assert_close(later[:, :4], whole[:, :4])
    torch.testing.assert_close(later[:, 4 + order - 1 :], whole[:, 4 + order - 1 :])
    assert not torch.equal(later[:, 4], whole[:, 4])


@pytest.mark.parametrize("wrong", [{"order": 1}, {"dropout": 1.0}, {"hidden_size": 0}])
def test_a_setting_out_of_range_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make(**wrong)


def test_dropout_is_for_training_only() -> None:
    model, plain = make(dropout=0.5), make()
    ids, state = random_ids(2, 6), model.initial_state(2)
    torch.testing.assert_close(model(ids, state)[0], plain(ids, state)[0])
    model.train()
    assert not torch.equal(model(ids, state)[0], model(ids, state)[0])


def test_can_be_made_without_memory() -> None:
    with torch.device("meta"):
        model = make()
    assert all(tensor.is_meta for tensor in model.state_dict().values())


def test_bfloat16_autocast_carries_a_state_in_and_out() -> None:
    model = make()
    ids, state = random_ids(2, 8), model.initial_state(2)
    exact = model(ids, state)[0]
    with torch.autocast("cpu", torch.bfloat16):
        first, state = model(ids[:, :3], state)
        second, state = model(ids[:, 3:], state)
    logits = torch.cat([first, second], dim=1).float()
    torch.testing.assert_close(logits, exact, atol=0.1, rtol=0.1)
    F.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
    assert all(weights.grad is not None and weights.grad.isfinite().all() for weights in model.parameters())


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_learns_a_periodic_sequence(activation: str) -> None:
    model = make(activation=activation, vocab_size=4, order=3).train()
    ids = torch.tensor([0, 1, 0, 2, 0, 3] * 5).expand(2, -1)  # what follows a 0 depends on the token before it
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        logits, _ = model(ids[:, :-1], model.initial_state(2))
        loss = F.cross_entropy(logits[:, 1:].flatten(0, 1), ids[:, 2:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


@pytest.mark.parametrize("preset", presets.__all__)
def test_the_presets_make_models(preset: str) -> None:
    data = getattr(presets, preset)
    assert (data.model, data.tokenizer) == tuple(preset.lower().split("_"))
    config = from_dict(NnlmConfig, {"vocab_size": 50, **data.model_settings})
    if data.tokenizer == "char":
        assert config == NnlmConfig(vocab_size=50)
    with torch.device("meta"):
        Nnlm(config)


def test_in_training_some_rows_begin_anew_as_texts_do():
    """From some token on, such a row's logits are those of a text that begins there."""
    model = Nnlm(NnlmConfig(vocab_size=9, order=4, embedding_size=3, hidden_size=5))
    ids = torch.randint(9, (200, 6))
    state = torch.randint(9, (200, 3))
    with torch.no_grad():
        plain, after = model.eval()(ids, state)
        found, state_after = model.train()(ids, state)
        fresh = [model.eval()(ids[:, begin:], model.initial_state(200))[0] for begin in range(6)]
    assert torch.equal(after, state_after)
    begun = 0
    for row in range(200):
        fits = [
            begin
            for begin in range(6)
            if torch.allclose(found[row, begin:], fresh[begin][row], atol=1e-6)
            and torch.allclose(found[row, :begin], plain[row, :begin], atol=1e-6)
        ]
        is_plain = torch.allclose(found[row], plain[row], atol=1e-6)
        assert fits or is_plain
        begun += not is_plain
    assert 25 < begun < 80  # one in four
