"""nnlm: equal to a plain Python loop over positions, with no memory beyond its window."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from reviewgen.testing.models import some_ids
from tests.support.plugin_models import make_network


def make(**settings: Any) -> Any:
    return make_network("nnlm", **({"order": 4} | settings))


@pytest.mark.parametrize(("order", "activation"), [(2, "tanh"), (3, "relu"), (6, "tanh")])
@torch.no_grad
def test_logits_are_those_of_a_plain_loop(order: int, activation: str) -> None:
    model = make(order=order, activation=activation)
    ids = some_ids(model, 3, 8)
    logits, after = model(ids, model.initial_state(3))
    assert torch.equal(after, F.pad(ids, (order, 0), value=11)[:, -(order - 1) :])
    for b, t in itertools.product(range(3), range(8)):
        text = [11] * (order - 1) + ids[b].tolist()  # 11, one past the vocabulary, is "before the beginning"
        x = torch.cat([model.embedding.weight[i] for i in text[t + 1 : t + order]])  # the last order-1 ids, ids[b, t] among them
        hidden = getattr(torch, activation)(model.hidden.weight @ x + model.hidden.bias)
        torch.testing.assert_close(logits[b, t], model.output.weight @ hidden + model.output.bias)
    changed = ids.clone()
    changed[:, 1] = (changed[:, 1] + 1) % 11
    later, _ = model(changed, model.initial_state(3))
    torch.testing.assert_close(later[:, order:], logits[:, order:])
    assert not torch.equal(later[:, 1], logits[:, 1])


@torch.no_grad
def test_in_training_some_rows_begin_anew_as_texts_do() -> None:
    """From some token on, such a row's logits are those of a text that begins there."""
    model = make()
    ids, state = torch.randint(11, (200, 6)), torch.randint(11, (200, 3))
    plain, after = model(ids, state)
    fresh = [model(ids[:, start:], model.initial_state(200))[0] for start in range(6)]
    found, state_after = model.train()(ids, state)
    assert torch.equal(after, state_after)
    anew = 0
    for row in range(200):
        is_plain = torch.allclose(found[row], plain[row], atol=1e-6)
        anew += not is_plain
        assert is_plain or any(
            torch.allclose(found[row, start:], fresh[start][row], atol=1e-6)
            and torch.allclose(found[row, :start], plain[row, :start], atol=1e-6)
            for start in range(6)
        )
    assert 25 < anew < 80  # one in four
