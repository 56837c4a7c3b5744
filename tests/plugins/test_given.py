"""What a text is given, held at every step: against a loop over the ids, and learned at the far end of texts."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from reviewgen.protocols import hold_given
from reviewgen.testing.models import call
from tests.support.plugin_models import BOS, GIVEN, make_network

pytestmark = pytest.mark.usefixtures("one_thread")


def by_hand(config: Any, table: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Return the vector after each id of a row: the sum since bos of conditions, markers and what stands in fields."""
    given: list[int] = []
    vectors, is_open = [], False
    end = config.vocab_size
    for token in ids:
        if token == BOS:
            given, is_open = [], False
        elif token >= end - 6:
            is_open = config.field_ids == 3 and token in (end - 3, end - 2)
            given.append(token)
        elif is_open:
            given.append(token)
        vectors.append(sum((table[each] for each in given), torch.zeros(table.shape[1])) / max(1, len(given)) ** 0.5)
    return torch.stack(vectors)


@pytest.mark.parametrize("pieces", [[40], [1, 2, 17, 20]], ids=str)
def test_the_vector_is_that_of_a_loop_over_the_ids(pieces: list[int]) -> None:
    torch.manual_seed(0)
    for settings in GIVEN, GIVEN | {"condition_ids": 6, "field_ids": 0}:
        config, table = SimpleNamespace(vocab_size=14, **settings), torch.randn(14, 5)
        ids, held, found = torch.randint(0, 14, (20, 40)), torch.zeros(20, 7), []
        ids[0] = torch.tensor([0, 8, 9, 11, 3, 4, 12, 5, 13, 6] * 4)  # as a text is read
        for piece in ids.split(pieces, dim=1):
            vectors, held = hold_given(config, table, piece, held)
            found.append(vectors)
        expected = torch.stack([by_hand(config, table, row) for row in ids.tolist()])
        torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=1e-5, rtol=1e-5)


LENGTH, V, FIRST = 40, 14, 12  # tokens of a text; the last two of the ids are those of a condition


def draw_texts(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return texts of random tokens, whose last one is 10 or 11 as the condition says that follows bos."""
    texts = torch.randint(2, 10, (count, LENGTH), generator=generator)
    condition = torch.randint(2, (count,), generator=generator)
    texts[:, 0], texts[:, 1], texts[:, -1] = BOS, FIRST + condition, 10 + condition
    return texts


def learned(name: str, **settings: Any) -> float:
    """Return how often the last token of a text is right after training in pieces, between which no gradient flows."""
    generator = torch.Generator().manual_seed(0)
    model = make_network(name, vocab_size=V, hidden_size=24, embedding_size=16, **settings).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(80):
        texts, state = draw_texts(16, generator), model.initial_state(16)
        for ids, targets in zip(texts[:, :-1].split(13, dim=1), texts[:, 1:].split(13, dim=1), strict=True):
            state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
            logits, state = model(ids, state)
            optimizer.zero_grad()
            F.cross_entropy(logits[:, -3:].flatten(0, 1), targets[:, -3:].flatten()).backward()
            optimizer.step()
    texts = draw_texts(200, generator)
    logits, _ = call(model.eval(), texts[:, :-1])
    return float((logits[:, -1, 10:12].argmax(-1) + 10 == texts[:, -1]).float().mean())


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "nnlm"])
def test_a_network_learns_what_a_condition_says_about_the_far_end_of_a_text(name: str) -> None:
    more = {"order": 3} if name == "nnlm" else {}
    assert learned(name, bos_id=BOS, condition_ids=2, **more) > 0.9
    assert learned(name, **more) < 0.7
