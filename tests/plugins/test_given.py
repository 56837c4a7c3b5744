"""What a text is given, held at every step: against a loop over the ids."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reviewgen.protocols import hold_given
from tests.support.plugin_models import BOS, GIVEN


def by_hand(config: Any, table: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Return the vector after each id of a row: the sum since bos of conditions, markers and what
    stands in fields.
    """
    given: list[int] = []
    vectors = []
    is_open = False
    end = config.vocab_size
    for token in ids:
        if token == BOS:
            given = []
            is_open = False
        elif token >= end - 6:
            is_open = config.field_ids == 3 and token in (end - 3, end - 2)
            given.append(token)
        elif is_open:
            given.append(token)
        vectors.append(
            sum((table[each] for each in given), torch.zeros(table.shape[1]))
            / max(1, len(given)) ** 0.5
        )
    return torch.stack(vectors)


@pytest.mark.parametrize("pieces", [[40], [1, 2, 17, 20]], ids=str)
def test_the_vector_is_that_of_a_loop_over_the_ids(pieces):
    torch.manual_seed(0)
    for settings in GIVEN, GIVEN | {"condition_ids": 6, "field_ids": 0}:
        config = SimpleNamespace(vocab_size=14, **settings)
        table = torch.randn(14, 5)
        ids = torch.randint(0, 14, (20, 40))
        held = torch.zeros(20, 7)
        found = []
        ids[0] = torch.tensor([0, 8, 9, 11, 3, 4, 12, 5, 13, 6] * 4)  # as a text is read
        for piece in ids.split(pieces, dim=1):
            vectors, held = hold_given(config, table, piece, held)
            found.append(vectors)
        expected = torch.stack([by_hand(config, table, row) for row in ids.tolist()])
        torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=1e-5, rtol=1e-5)
