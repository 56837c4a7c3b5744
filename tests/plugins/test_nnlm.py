"""nnlm: equal to a plain Python loop over positions, with no memory beyond its window."""

from typing import Any

import torch

from tests.support.plugin_models import make_network


def make(**settings: Any) -> Any:
    return make_network("nnlm", **({"order": 4} | settings))


@torch.no_grad
def test_in_training_some_rows_begin_anew_as_texts_do():
    """From some token on, such a row's logits are those of a text that begins there."""
    model = make()
    ids = torch.randint(11, (200, 6))
    state = torch.randint(11, (200, 3))
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
