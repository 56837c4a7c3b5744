"""The random stream of a text in JavaScript is numpy's, bit for bit."""

import numpy as np
import pytest

from tests.support.node import why_no_node
from tests.support.web_engine import ask

pytestmark = pytest.mark.skipif(why_no_node() is not None, reason=str(why_no_node()))
SEEDS = [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63, 2**64 - 1, 2**64, 2**96 + 5, 2**128 - 1, 3**200]


def test_numbers_are_those_of_numpy(tmp_path):
    streams = [(seed, number) for seed in SEEDS for number in (0, 1, 63, 2**32)]
    found = ask(tmp_path, "random", streams=[[str(seed), number] for seed, number in streams], count=50)
    assert found == [np.random.default_rng(stream).random(50).tolist() for stream in streams]


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="whole number of at least 0"):
        ask(tmp_path, "random", streams=[["-1", 0]], count=1)
