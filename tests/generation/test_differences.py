"""Differences in bits per character and their intervals, against scipy and by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from reviewgen.evaluation.differences import (
    SeedSpread,
    compare_bits,
    find_interval,
    find_seed_spread,
    pool_spreads,
)

NATS = math.log(2)


def simulate(generator, *, gain=0.0, seeds=1, texts=60, seed_deviation=0.01, text_deviation=0.05):
    """Return the nats of a base and a candidate for each seed and text, and the characters.

    Each training has a deviation of its own on all texts, and one on each text. The two models
    differ by ``gain`` bits per character on average, and by more or less on each text.
    """
    characters = np.ceil(generator.lognormal(6, 0.8, texts)).astype(int)
    level = 2 + generator.normal(0, 0.3, texts)
    effect = gain + (generator.normal(0, text_deviation, texts) if gain else 0.0)
    nats = []
    for change in (0.0, effect):
        noise = generator.normal(0, seed_deviation, (seeds, 1))
        noise = noise + generator.normal(0, 0.02, (seeds, texts))
        nats.append((level + change + noise) * characters * NATS)
    return nats[0], nats[1], characters


def test_over_texts_of_one_length_the_interval_is_that_of_a_paired_t_test():
    base, candidate, _ = simulate(np.random.default_rng(0), gain=0.1)
    characters = np.full(60, 50)
    difference = compare_bits(base, candidate, characters)
    bits = (candidate - base)[0] / NATS / 50
    expected = scipy.stats.ttest_1samp(bits, 0).confidence_interval(0.95)
    assert difference.value == pytest.approx(bits.mean())
    assert difference.interval == pytest.approx((expected.low, expected.high), rel=1e-5)


def test_over_texts_of_many_lengths_the_interval_is_about_that_of_a_bootstrap():
    base, candidate, characters = simulate(np.random.default_rng(1), gain=0.1, texts=400)
    difference = compare_bits(base, candidate, characters)

    def bits(nats, sizes, axis):
        return nats.sum(axis) / sizes.sum(axis) / NATS

    expected = scipy.stats.bootstrap(
        ((candidate - base)[0], characters), bits, paired=True, rng=np.random.default_rng(2)
    ).confidence_interval
    low, high = difference.interval
    assert low == pytest.approx(expected.low, abs=0.1 * (high - low))
    assert high == pytest.approx(expected.high, abs=0.1 * (high - low))


def test_if_all_texts_agree_the_interval_is_that_of_a_t_test_over_seeds():
    characters = np.array([10, 25, 70])
    base_bits = np.array([2.0, 2.03, 1.99])
    candidate_bits = np.array([1.9, 1.95, 1.97, 1.92])
    base = base_bits[:, None] * characters * NATS
    candidate = candidate_bits[:, None] * characters * NATS
    difference = compare_bits(base, candidate, characters)
    expected = scipy.stats.ttest_ind(candidate_bits, base_bits).confidence_interval(0.95)
    assert difference.interval == pytest.approx((expected.low, expected.high), rel=1e-5)
    assert difference.is_better is True
    assert compare_bits(candidate, base, characters).is_better is False


def test_one_training_of_each_does_not_tell_whether_a_change_is_better():
    base, candidate, characters = simulate(np.random.default_rng(0), gain=-0.5)
    alone = compare_bits(base, candidate, characters)
    assert alone.is_significant
    assert alone.is_better is None
    assert compare_bits(base, candidate, characters, SeedSpread(0.01, 5)).is_better is True
    # one of this size is within the spread of such trainings
    assert compare_bits(base, candidate, characters, SeedSpread(0.3, 5)).is_better is None


def test_spreads_are_pooled_as_in_an_analysis_of_variance():
    groups = [[2.0, 2.1, 2.05], [1.7, 1.9]]
    spreads = [
        find_seed_spread(np.array(group)[:, None] * NATS * np.ones(4), np.ones(4))
        for group in groups
    ]
    pooled = pool_spreads(spreads)
    residuals = np.concatenate([np.array(group) - np.mean(group) for group in groups])
    assert pooled.degrees == 3
    assert pooled.deviation == pytest.approx((residuals @ residuals / 3) ** 0.5)
    assert pool_spreads([]) is None


@pytest.mark.parametrize(
    "first, second, value", [(1.0, math.inf, math.inf), (math.inf,) * 2 + (0,)]
)
def test_infinite_bits_have_no_interval(first, second, value):
    characters = np.array([10, 10])
    base = np.array([[1.0, first]])
    candidate = np.array([[1.0, second]])
    difference = compare_bits(base, candidate, characters, SeedSpread(0.01, 5))
    assert difference.value == value
    assert difference.interval is None
    assert difference.is_better is None
    assert find_interval(np.array([3.0]), np.array([10])) is None  # a single text


@pytest.mark.parametrize("seeds, seed_deviation", [(1, 0.0), (2, 0.01), (3, 0.01), (3, 0.001)])
@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_95_of_100_intervals_hold_the_true_difference(seeds, seed_deviation, gain):
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        drawn = simulate(generator, gain=gain, seeds=seeds, seed_deviation=seed_deviation)
        low, high = compare_bits(*drawn).interval
        held += low <= gain <= high
    assert held >= 930  # at least 950 are expected, with a standard deviation of 7


def test_a_model_that_is_the_same_from_each_seed_does_not_narrow_the_spread_of_the_other():
    generator = np.random.default_rng(0)
    base, candidate, characters = simulate(generator, seeds=3)
    counted = np.repeat(base[:1], 3, axis=0)
    alone = compare_bits(counted[:1], candidate, characters)
    beside = compare_bits(counted, candidate, characters)
    assert beside.is_over_seeds and beside.interval[0] < alone.value < beside.interval[1]
    assert not compare_bits(counted, candidate[:1], characters).is_over_seeds
    both = compare_bits(counted, np.repeat(candidate[:1], 2, axis=0), characters)
    assert both.is_over_seeds  # the seed matters to neither
    one = compare_bits(base[:1], candidate[:1], characters)
    assert both.interval == pytest.approx(one.interval)
