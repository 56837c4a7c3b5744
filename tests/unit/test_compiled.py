"""The compiled loops that models share, against plain numpy and Python: the draw of a token, the sets of token windows."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from reviewgen.compiled import compiled, drawing
from reviewgen.compiled.sampling import SamplingParams, apply_temperature, sample_from, sample_rows, sharpen
from reviewgen.compiled.spelling import no_places
from reviewgen.compiled.windows import build_windows, copies, count_windows, false_positive_rate, forbid, hash_window
from tests.support import race

SEPARATORS = (0, 1)


@compiled
def draw(probs, uniform):
    return drawing.draw_token(probs, uniform)


SIXTEENTHS = 16  # shares that a float holds exactly, so that ties are ties


def filtered(weights, top_k, top_p, min_p):
    """The filters by sorting whole numbers; top_p and min_p in sixteenths."""
    kept = np.array(weights)
    if 0 < top_k < len(kept):
        kept[kept < np.sort(kept)[-top_k]] = 0
    if top_p < SIXTEENTHS:
        order = np.argsort(-kept, kind="stable")
        before = np.cumsum(kept[order]) - kept[order]
        kept[order[before * SIXTEENTHS >= top_p * kept.sum()]] = 0
    kept[kept * SIXTEENTHS < min_p * kept.max()] = 0
    return kept


def drawn(weights, top_k, top_p, min_p, uniform):
    left = np.array(weights, np.float64)
    return sample_from(left, top_k, top_p / SIXTEENTHS, min_p / SIXTEENTHS, uniform), left


WEIGHTS = st.lists(st.integers(0, 12), min_size=1, max_size=20).filter(any)


@given(WEIGHTS, st.integers(0, 22), st.integers(1, SIXTEENTHS), st.integers(0, SIXTEENTHS))
def test_the_filters_equal_sorting(weights, top_k, top_p, min_p):
    assert drawn(weights, top_k, top_p, min_p, 0.5)[1].tolist() == filtered(weights, top_k, top_p, min_p).tolist()


@given(WEIGHTS, st.integers(0, 22), st.integers(1, SIXTEENTHS))
def test_the_first_to_arrive_is_drawn(weights, top_k, top_p):
    left = filtered(weights, top_k, top_p, 0).astype(float)
    for uniform in (0.0, 2**-53, 0.5, math.nextafter(1, 0), *np.random.default_rng(len(weights)).random(20).tolist()):
        assert drawn(weights, top_k, top_p, 0, uniform)[0] == race.draw(left, uniform)


def test_an_impossible_token_is_never_drawn():
    for uniform in (0.0, 0.3, math.nextafter(1, 0)):
        assert drawn([0, 1, 0], 0, SIXTEENTHS, 0, uniform)[0] == 1


def test_the_second_to_arrive_is_drawn_where_the_first_is_ruled_out():
    """Of all pairs, each in proportion to its probability without replacement."""
    probs, count = np.array([0.5, 0.3, 0.15, 0.05]), 60_000
    pairs = np.zeros((4, 4))
    for uniform in np.random.default_rng(3).random(count).tolist():
        first = draw(probs, uniform)
        pairs[first, draw(np.where(np.arange(4) == first, 0, probs), uniform)] += 1
    expected = np.outer(probs / (1 - probs), probs) * count
    off = ~np.eye(4, dtype=bool)
    assert pairs[~off].sum() == 0
    assert ((pairs - expected) ** 2 / expected)[off].sum() < chi2.ppf(0.9999, 11)


def test_tokens_that_a_filter_lets_in_are_drawn_by_their_probability():
    """Where token 2 would be a copy, top-k lets in token 4, which has not raced against token 3 before."""
    count, eos, bos = 20_000, 1, 0
    logits = np.log(np.tile([1e-9, 1e-9, 0.5, 0.3, 0.2], (count, 1)))
    params = SamplingParams(np.array([1.0]), 2, 1.0, 0.0, 1.0, 0, 0, 9, False, eos, bos, 5)
    texts, zeros, tokens = np.full((count, 2), bos), np.zeros(count, np.int64), np.empty(count, np.int64)
    copied = build_windows(np.array([bos, 2, eos]), SEPARATORS, 1, bits_per_window=200)
    uniform, runs = np.random.default_rng(6).random(count), np.ones(count, np.int64)
    sample_rows(logits, texts, zeros + 1, zeros, uniform, params, copied, runs, None, no_places(count), tokens)
    was_copy = np.array([draw(np.array([0, 0, 0.5, 0.3, 0]), number) for number in uniform.tolist()]) == 2
    found, expected = np.bincount(tokens[was_copy], minlength=5), np.array([0, 0, 0, 0.6, 0.4]) * was_copy.sum()
    assert found[:3].sum() == 0
    assert ((found - expected)[3:] ** 2 / expected[3:]).sum() < chi2.ppf(0.9999, 1)


@pytest.mark.parametrize("count", [7, 200, 8006])
def test_each_token_is_drawn_by_its_probability(count):
    """Random and evenly spaced numbers; of many tokens, in groups of neighbours."""
    random = np.random.default_rng(count)
    probs = np.exp(random.normal(0, 2, count))
    groups = np.arange(count) * 7 // count
    expected = np.bincount(groups, probs) / probs.sum() * 20_000
    for numbers in (random.random(20_000), (np.arange(20_000) + 0.5) / 20_000):
        observed = np.bincount([groups[draw(probs, uniform)] for uniform in numbers], minlength=7)
        assert ((observed - expected) ** 2 / expected).sum() < chi2.ppf(0.9999, 6)


def test_a_draw_hardly_depends_on_rounding():
    """Of 8,000 tokens; a draw by the cumulative sum changes in about 1.5 of 100 cases, each time that an end of a share moves."""
    random, changed = np.random.default_rng(0), 0
    for _ in range(20):
        scores = random.normal(0, 3, 8006)
        one, other = np.exp(scores), np.exp(scores + random.normal(0, 1e-4, 8006))
        changed += sum(draw(one, uniform) != draw(other, uniform) for uniform in random.random(500).tolist())
    assert changed <= 5


def test_the_heaviest_token_always_stays():
    assert [drawn([3, 9, 3], 1, 1, SIXTEENTHS, uniform)[0] for uniform in (0.0, 0.99)] == [1, 1]


@pytest.mark.parametrize("temperature", [0.01, 0.7, 1.0, 1.7])
def test_temperature(temperature):
    logits = np.random.default_rng(0).normal(size=50) * 3
    logits[7] = -math.inf
    expected = np.exp((logits - logits.max()) / temperature)
    weights = np.empty(50)
    apply_temperature(logits, logits.max(), temperature, weights)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    sharpen(probabilities, temperature)
    np.testing.assert_allclose(probabilities / probabilities.sum(), expected / expected.sum(), rtol=1e-4, atol=1e-30)


def test_a_function_without_a_cache_folder_is_compiled_all_the_same():
    names = {}
    exec("def double(x):\n    return 2 * x\n", names)  # it stands in no file, so nothing can be kept beside it
    double = compiled(names["double"])
    assert (double(4), double.signatures != []) == (8, True)


def test_compiled_code_that_a_power_cut_left_empty_is_made_again(tmp_path):
    (tmp_path / "doubled.py").write_text(
        "from reviewgen.compiled import compiled\n@compiled\ndef double(x):\n    return 2 * x\nprint(double(4))\n"
    )

    def run():
        return subprocess.run([sys.executable, "doubled.py"], cwd=tmp_path, capture_output=True, text=True)

    assert run().stdout == "8\n"
    files = list((tmp_path / "__pycache__").glob("*.nb[ic]"))
    for file in files:
        file.write_bytes(b"")
    done = run()
    assert (done.stdout, done.returncode) == ("8\n", 0) and len(files) == 2
    assert all(file.stat().st_size for file in files)


def stream(seed, vocab=5, tokens=900, texts=9):
    """Random texts, framed, one after the other."""
    random = np.random.default_rng(seed)
    parts = np.split(random.integers(2, vocab, tokens), sorted(random.integers(0, tokens, texts - 1)))
    return np.concatenate([[0, *part, 1] for part in parts])


def windows_of(ids, length):
    """Every window without a separator, the slow way."""
    windows = {tuple(ids[end - length : end].tolist()) for end in range(length, len(ids) + 1)}
    return {window for window in windows if not set(window) & set(SEPARATORS)}


@pytest.mark.parametrize("length", [1, 2, 5, 8, 20])
@pytest.mark.parametrize("seed", range(3))
def test_a_set_holds_exactly_the_windows(seed, length):
    ids, text = stream(seed), np.random.default_rng(seed + 99).integers(0, 6, 2000)
    truth, found = windows_of(ids, length), build_windows(ids, SEPARATORS, length, bits_per_window=200)
    assert count_windows(ids, SEPARATORS, length) == len(truth)
    assert all(copies(found, np.array(window), length - 1, 1) for window in truth)
    held = {
        tuple(text[end + 1 - length : end + 1].tolist()) for end in range(length - 1, len(text)) if copies(found, text, end, 1)
    }
    assert len(held - truth) < 10


@pytest.mark.parametrize(("length", "run"), [(3, 1), (3, 2), (2, 5)])
def test_copies_asks_the_last_windows(length, run):
    ids = stream(1, tokens=200)
    truth, found = windows_of(ids, length), build_windows(ids, SEPARATORS, length, bits_per_window=200)
    text = np.random.default_rng(5).integers(2, 6, 3000)
    answers, expected = [], []
    for end in range(len(text)):
        lasts = range(end + 2 - run, end + 2)
        inside = lasts[0] - length >= 0
        expected.append(inside and all(tuple(text[last - length : last].tolist()) in truth for last in lasts))
        answers.append(copies(found, text, end, run))
    assert any(expected)
    assert all(answer for answer, true in zip(answers, expected, strict=True) if true)
    assert sum(answers) - sum(expected) < 15
    assert not any(answers[: length + run - 2])


@pytest.mark.parametrize(("length", "run", "stride"), [(1, 1, 1), (3, 1, 1), (3, 2, 1), (2, 4, 1), (3, 2, 2)])
def test_forbid_drops_the_tokens_that_would_be_copies(length, run, stride):
    found = build_windows(stream(1, tokens=200), SEPARATORS, length, 10, stride)
    text = np.random.default_rng(5).integers(2, 6, 200)
    dropped = 0
    for end in range(len(text)):
        weights = np.ones(8)
        weights[6] = 0
        forbid(found, text, end, run, weights)
        expected = np.array([not copies(found, np.array([*text[:end], token]), end, run) for token in range(8)], float)
        expected[6] = 0
        assert weights.tolist() == expected.tolist()
        dropped += 7 - weights.sum()
    assert dropped > 50


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_the_width_of_ids_changes_nothing(dtype):
    ids = np.array([0, 255, 254, 255, 7, 255, 1, 0, 255, 255, 1])
    wide, found = build_windows(ids, SEPARATORS, 2, 16), build_windows(ids.astype(dtype), SEPARATORS, 2, 16)
    assert found.bits.tolist() == wide.bits.tolist()
    assert hash_window(ids.astype(dtype), 4, 3) == hash_window(ids, 4, 3)


@pytest.mark.parametrize("stride", [2, 16])
def test_a_stride_judges_a_share_and_misses_none(stride):
    ids = stream(3, vocab=30, tokens=30_000)
    found = build_windows(ids, SEPARATORS, 6, 10, stride)
    whole = build_windows(ids, SEPARATORS, 6, 10)
    assert len(found.bits) == pytest.approx(len(whole.bits) / stride, rel=0.1)
    judged = [hash_window(ids, end, 6) % np.uint64(stride) == 0 for end in range(5, len(ids))]
    assert np.mean(judged) == pytest.approx(1 / stride, rel=0.1)
    framed = [bool(set(ids[end - 5 : end + 1].tolist()) & set(SEPARATORS)) for end in range(5, len(ids))]
    held = [copies(found, ids, end, 1) for end in range(5, len(ids))]
    assert all(answer for answer, frame in zip(held, framed, strict=True) if not frame)
    new = np.random.default_rng(8).integers(40, 90, 20_000)
    passed = np.mean([copies(found, new, end, 1) for end in range(5, len(new))])
    assert passed == pytest.approx(1 - (1 - false_positive_rate(found)) / stride, abs=0.01)


@pytest.mark.parametrize(("bits", "rate"), [(4, 0.16), (10, 0.01), (16, 0.001)])
def test_the_false_positive_rate_is_what_new_windows_see(bits, rate):
    found = build_windows(stream(4, vocab=40, tokens=60_000), SEPARATORS, 5, bits)
    new = np.random.default_rng(9).integers(50, 99, 50_000)
    seen = np.mean([copies(found, new, end, 1) for end in range(4, len(new))])
    assert false_positive_rate(found) == pytest.approx(rate, rel=0.35)
    assert seen == pytest.approx(false_positive_rate(found), rel=0.15, abs=3e-4)


@pytest.mark.parametrize("stride", [1, 4])
def test_counting_a_large_stream(stride):
    ids = np.random.default_rng(2).integers(2, 12, 600_000)  # 100,000 possible windows of 5, and nearly all of 8 are new
    for length in (5, 6, 8):
        keys = np.lib.stride_tricks.sliding_window_view(ids, length) @ 16 ** np.arange(length)
        assert count_windows(ids, SEPARATORS, length, stride) == pytest.approx(len(np.unique(keys)) / stride, rel=0.1)


def test_a_large_set_misses_none():
    ids = stream(6, vocab=200, tokens=300_000).astype(np.uint8)  # more than one part, and full queues
    found = build_windows(ids, SEPARATORS, 2, 10)
    assert all(copies(found, ids, end, 1) for end in range(1, len(ids)) if min(ids[end - 1], ids[end]) > 1)


def test_a_stream_without_windows():
    for ids in (np.array([], np.uint8), np.array([0, 1]), np.array([0, 5, 6, 1, 0, 7, 1])):
        found = build_windows(ids, SEPARATORS, 3, 10)
        assert not found.bits.any()
        assert count_windows(ids, SEPARATORS, 3) == 0
        assert not copies(found, np.array([5, 6, 7, 8]), 3, 1)
