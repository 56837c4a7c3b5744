"""One table of settings against the distribution that they define: compiled code, an n-gram's own
loop, and the loop over torch.

The reference (``tests.support.settings_table``) is plain numpy, checked against transformers'
processors; draws are checked with an exponential race in Python's whole numbers, so that most
comparisons are exact. JavaScript is compared in ``tests/web``.
"""

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, chisquare
from transformers.generation import logits_process as processors

from reviewgen.compiled import (
    NO_WINDOWS,
    NOT_A_NUMBER,
    NOTHING_LEFT,
    SamplingParams,
    apply_penalties,
    apply_temperature,
    build_windows,
    no_places,
    sample_from,
    sample_rows,
)
from reviewgen.config import GenerationConfig
from reviewgen.generation.decode import make_sampling_params
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.protocols import SupportsSample
from tests.support.fakes import LETTERS, TableModel, review_model, table
from tests.support.ngrams import LOOP, Plain, counted
from tests.support.settings_table import SETTINGS, reference, reference_tokens

V = LETTERS.vocab_size
BOS = LETTERS.bos_id
EOS = LETTERS.eos_id


def params_of(**settings: Any) -> SamplingParams:
    return make_sampling_params(GenerationConfig(**({"temperature": 1.0} | settings)), LETTERS)


def sample_compiled(
    logits: np.ndarray,
    texts: np.ndarray,
    new_tokens: np.ndarray,
    uniform: np.ndarray,
    params: SamplingParams,
) -> list[int]:
    """Return the token of each row, (B,); texts (B, T) have no padding."""
    count, size = texts.shape
    windows = None if params.is_plain else NO_WINDOWS
    rows = np.pad(texts, ((0, 0), (0, 1))), np.full(count, size), new_tokens, uniform
    tokens = np.empty(count, np.int64)
    sample_rows(
        logits, *rows, params, windows, np.zeros(count, np.int64), None, no_places(count), tokens
    )
    return tokens.tolist()


# The exponential race that draws a token, plainly; see ``reviewgen.compiled.draw_token``.


def draw(probabilities: np.ndarray, uniform: float) -> int:
    """Return the token whose exponential arrival time is the smallest."""
    with np.errstate(divide="ignore"):
        return int(np.argmin(-np.log1p(-shares(uniform, len(probabilities))) / probabilities))


def shares(uniform: float, count: int) -> np.ndarray:
    """Return the random number in [0, 1) of each token."""
    high, low = divmod(int(Fraction(uniform) * 2**64), 2**32)
    first = mix((high + low) % 2**32, low)
    second = mix((low + 0x9E3779B9) % 2**32, first)
    upper = [mix((first + token * 0x9E3779B9) % 2**32, second) for token in range(count)]
    return np.array([(bits * 2**21 + mix(bits, first) // 2**11) / 2**53 for bits in upper])


def mix(x: int, key: int) -> int:
    x = (x ^ (x >> 16)) * 0x21F0AAAD % 2**32
    x = (x ^ (x >> 15) ^ key) * 0x735A2D97 % 2**32
    return x ^ (x >> 15)


# The reference is what transformers documents.


def chain_of(prompt: int, **named: Any) -> Any:
    """Return transformers' processors in the order in which its ``generate`` puts them together."""
    chain: list[Any] = [
        processors.RepetitionPenaltyLogitsProcessor(named.get("repetition_penalty", 1.0))
    ]
    if named.get("no_repeat_ngram_size"):
        chain.append(processors.NoRepeatNGramLogitsProcessor(named["no_repeat_ngram_size"]))
    if named.get("min_new_tokens"):
        chain.append(
            processors.MinNewTokensLengthLogitsProcessor(prompt, named["min_new_tokens"], EOS)
        )
    chain.append(processors.TemperatureLogitsWarper(named.get("temperature", 1.0)))
    chain += [processors.TopKLogitsWarper(named["top_k"])] if named.get("top_k") else []
    chain += [processors.TopPLogitsWarper(named["top_p"])] if named.get("top_p", 1.0) < 1 else []
    return processors.LogitsProcessorList(
        chain + ([processors.MinPLogitsWarper(named["min_p"])] if named.get("min_p") else [])
    )


@pytest.mark.parametrize(
    "named", [s for s in SETTINGS if isinstance(s.get("temperature", 1.0), float)], ids=str
)
def test_the_reference_and_the_compiled_penalties_equal_the_processors_of_transformers(named):
    rng = np.random.default_rng(1)
    for size in (0, 1, 2, 9, 20):
        logits = rng.normal(0, 3, V)
        history = rng.integers(2, 5 if size % 2 else V, size).tolist()
        for prompt in {0, size // 2, size}:
            scores = torch.tensor(logits[None])
            scores[0, BOS] = -torch.inf
            theirs = chain_of(1 + prompt, **named)(torch.tensor([[BOS, *history]]), scores)[0]
            if named.get("do_sample") is False:
                wanted = torch.nn.functional.one_hot(theirs.argmax(), V).double()
            else:
                wanted = theirs.softmax(0).nan_to_num(0.0)  # NaN where all are ruled out
            ours = reference(logits, [BOS, *history], size - prompt, EOS, BOS, **named)
            np.testing.assert_allclose(ours, wanted.numpy(), atol=1e-12)
            penalised = np.empty(V)
            largest = apply_penalties(
                logits,
                np.array([BOS, *history]),
                size + 1,
                size - prompt,
                params_of(**named),
                penalised,
            )
            names = ("repetition_penalty", "no_repeat_ngram_size", "min_new_tokens")
            chain = chain_of(1 + prompt, **{name: named[name] for name in names if name in named})
            np.testing.assert_allclose(
                penalised, chain(torch.tensor([[BOS, *history]]), scores)[0].numpy(), rtol=1e-12
            )
            assert largest == penalised.max()


# Compiled code.


@pytest.mark.parametrize("named", SETTINGS, ids=str)
def test_compiled_sampling_draws_from_the_reference(named):
    rng = np.random.default_rng(2)
    params = params_of(**named)
    count = 40
    for size in (1, 2, 7, 16):
        logits = rng.normal(0, 2, (count, V))
        texts = rng.integers(2, V, (count, size))
        texts[:, 0] = BOS
        new_tokens = rng.integers(0, 9, count)
        uniform = rng.random(count)
        for dtype in (np.float64, np.float32) if size == 7 else (np.float64,):
            rows = logits.astype(dtype)
            wanted = []
            for row in range(count):
                probs = reference(
                    rows[row], texts[row].tolist(), int(new_tokens[row]), EOS, BOS, **named
                )
                wanted.append(draw(probs, uniform[row]) if probs.any() else NOTHING_LEFT)
            assert sample_compiled(rows, texts, new_tokens, uniform, params) == wanted


SIXTEENTHS = 16  # shares that a float holds exactly, so that ties are ties


def filtered(weights: list[int], top_k: int, top_p: int, min_p: int) -> np.ndarray:
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


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=20).filter(any),
    st.integers(0, 22),
    st.integers(1, SIXTEENTHS),
    st.integers(0, SIXTEENTHS),
)
def test_filters_equal_sorting_and_the_first_to_arrive_of_what_is_left_is_drawn(
    weights, top_k, top_p, min_p
):
    wanted = filtered(weights, top_k, top_p, min_p).astype(float)
    for uniform in (
        0.0,
        2**-53,
        0.5,
        math.nextafter(1, 0),
        *np.random.default_rng(len(weights)).random(9).tolist(),
    ):
        left = np.array(weights, np.float64)
        assert sample_from(left, top_k, top_p / SIXTEENTHS, min_p / SIXTEENTHS, uniform) == draw(
            wanted, uniform
        )
        assert left.tolist() == wanted.tolist()


def test_ids_of_conditions_are_never_sampled_and_never_penalised():
    """Logits may be wider than the tokenizer's vocabulary; the text has such ids after bos."""
    logits = np.full((1, V + 3), -2.0)
    logits[0, V:] = 50.0
    logits[0, 5] = 1.0
    logits[0, 6] = 0.9
    text = np.array([[BOS, V, V + 2, 5, V, V + 2]])
    for named, token in (
        ({}, 5),
        ({"repetition_penalty": 2.0}, 6),
        ({"no_repeat_ngram_size": 3}, 6),
    ):
        params = params_of(do_sample=False, **named)
        assert sample_compiled(logits, text, np.array([1]), np.array([0.5]), params) == [token]
    params = params_of(no_repeat_ngram_size=2)
    assert sample_compiled(logits, text, np.array([1]), np.array([0.5]), params)[0] < V
    scores = np.empty(V + 3)
    assert (
        apply_penalties(logits[0], text[0], 6, 1, params_of(repetition_penalty=2.0), scores) == 0.9
    )
    assert np.isneginf(scores[[BOS, V, V + 1, V + 2]]).all() and scores[5] == 0.5


def test_logits_that_are_not_numbers_and_rows_without_a_possible_token_get_codes():
    logits = np.zeros((4, V))
    logits[0, 3] = np.nan
    logits[1, 3] = np.inf
    logits[2] = -np.inf
    logits[3, [BOS, EOS]] = 5.0
    logits[3, 2:] = -np.inf
    for named in ({}, {"top_k": 2}, {"do_sample": False}):
        arguments = logits, np.zeros((4, 1), np.int64), np.zeros(4, np.int64), np.full(4, 0.5)
        codes = sample_compiled(*arguments, params_of(**named))
        assert codes == [NOT_A_NUMBER, NOT_A_NUMBER, NOTHING_LEFT, EOS]
    assert sample_compiled(*arguments, params_of(min_new_tokens=1))[3] == NOTHING_LEFT
    logits[0] = np.isin(np.arange(V), (4, 6)) * 2.0
    # a greedy tie goes to the smallest id
    assert sample_compiled(*arguments, params_of(do_sample=False))[0] == 4


@pytest.mark.parametrize(
    "temperature, shares",
    [(5e-324, [0, 1, 0, 0]), (1e-3, [0, 1, 0, 0]), (1e300, [1 / 3, 1 / 3, 0, 1 / 3])],
)
def test_extreme_temperatures(temperature, shares):
    weights = np.empty(4)
    apply_temperature(np.array([1.0, 3.0, -math.inf, 2.0]), 3.0, temperature, weights)
    assert (weights / weights.sum()).tolist() == pytest.approx(shares)


# The draw.


@pytest.mark.parametrize("count", [6, 8006])
def test_each_token_is_drawn_by_its_probability(count):
    """Random and evenly spaced numbers; of many tokens, in groups of neighbours."""
    random = np.random.default_rng(count)
    probs = np.exp(random.normal(0, 2, count))
    probs[3] = 0
    groups = np.arange(count) * 6 // count
    expected = np.bincount(groups, probs) / probs.sum() * 10_000
    possible = expected > 0
    for numbers in (random.random(10_000), (np.arange(10_000) + 0.5) / 10_000):
        observed = np.bincount(
            [groups[sample_from(probs, 0, 1.0, 0.0, uniform)] for uniform in numbers], minlength=6
        )
        assert observed[~possible].sum() == 0
        assert ((observed - expected) ** 2 / np.maximum(expected, 1e-9))[possible].sum() < chi2.ppf(
            0.9999, possible.sum() - 1
        )


def test_tokens_that_a_filter_lets_in_after_a_copy_are_drawn_by_their_probability():
    """Where token 2 would be a copy, top-k lets in token 4, which has not raced against token 3
    before.
    """
    count = 20_000
    logits = np.log(np.tile([1e-9, 1e-9, 0.5, 0.3, 0.2], (count, 1)))
    params = SamplingParams(np.array([1.0]), 2, 1.0, 0.0, 1.0, 0, 0, 9, False, EOS, BOS, 5)
    texts = np.full((count, 2), BOS)
    zeros = np.zeros(count, np.int64)
    tokens = np.empty(count, np.int64)
    copied = build_windows(np.array([BOS, 2, EOS]), (BOS, EOS), 1, bits_per_window=200)
    uniform = np.random.default_rng(6).random(count)
    runs = np.ones(count, np.int64)
    sample_rows(
        logits,
        texts,
        zeros + 1,
        zeros,
        uniform,
        params,
        copied,
        runs,
        None,
        no_places(count),
        tokens,
    )
    first = [
        sample_from(np.array([0, 0, 0.5, 0.3, 0]), 0, 1.0, 0.0, number)
        for number in uniform.tolist()
    ]
    was_copy = np.array(first) == 2
    assert tokens[~was_copy].tolist() == [token for token in first if token != 2]
    found = np.bincount(tokens[was_copy], minlength=5)
    expected = np.array([0, 0, 0, 0.6, 0.4]) * was_copy.sum()
    assert found[:3].sum() == 0
    assert ((found - expected)[3:] ** 2 / expected[3:]).sum() < chi2.ppf(0.9999, 1)


def test_a_draw_hardly_depends_on_rounding():
    """Of 8,000 tokens; a draw by the cumulative sum changes in about 1.5 of 100 cases, each time
    that an end of a share moves.
    """
    random = np.random.default_rng(0)
    changed = 0
    for _ in range(20):
        scores = random.normal(0, 3, 8006)
        one = np.exp(scores)
        other = np.exp(scores + random.normal(0, 1e-4, 8006))
        numbers = random.random(200).tolist()
        changed += sum(
            sample_from(one, 0, 1.0, 0.0, u) != sample_from(other, 0, 1.0, 0.0, u) for u in numbers
        )
    assert changed <= 3


# Whole texts of the loop over torch: exact, since row i has the random numbers of (seed, i).


def replayed(
    logits_after: Callable[[list[int]], np.ndarray],
    prompt: str,
    number: int,
    seed: int,
    settings: dict[str, Any],
) -> Any:
    random = np.random.default_rng((seed, number))
    text = [BOS, *LETTERS.encode(prompt)]
    return reference_tokens(
        logits_after, text, iter(random.random, 2.0), draw, EOS, BOS, **settings
    )


@pytest.mark.parametrize("named", SETTINGS, ids=str)
def test_texts_of_the_torch_loop_are_those_of_the_reference(named):
    settings = {"max_new_tokens": 12} | named
    logits = table(V, 1, eos=0.5)
    model = review_model(TableModel(logits), LETTERS)
    prompts = ["", "abcabdab"] if named.get("no_repeat_ngram_size") != 1 else [""]
    repeat = 1 if "do_sample" in named else 10
    found = model.generate(
        prompts, seed=4, num_return_sequences=repeat, return_dict_in_generate=True, **settings
    )
    for number, text in enumerate(found):
        tokens, reason = replayed(
            lambda ids: logits[ids[-1]].numpy(), text.prompt, number, 4, settings
        )
        assert (text.text, text.finish_reason) == (text.prompt + LETTERS.decode(tokens), reason)
        assert text.new_tokens == len(tokens) and text.number == number


# An n-gram's own loop: it spends its random numbers otherwise, so frequencies are compared.


@pytest.mark.parametrize("named", SETTINGS, ids=str)
def test_the_n_gram_loop_samples_from_the_reference(named):
    inner = counted([*LOOP, "abc", "ab gab", "hag", "cab"], order=3)
    assert isinstance(make_stepper(inner), SupportsSample) and not isinstance(
        make_stepper(Plain(inner)), SupportsSample
    )
    settings = (
        {"max_new_tokens": 3}
        | named
        | {"max_new_tokens": 3, "min_new_tokens": min(3, named.get("min_new_tokens", 0))}
    )
    repeat = 1 if "do_sample" in named else 1500
    texts = review_model(inner, LETTERS).generate(
        "cab", num_return_sequences=repeat, seed=3, return_dict_in_generate=True, **settings
    )
    followers: dict[tuple[int, ...], Counter[int]] = {}
    for text in texts:
        ids = [BOS, *text.tokens] + [EOS] * (text.finish_reason == "end")
        for size in range(4, len(ids)):
            followers.setdefault(tuple(ids[:size]), Counter())[ids[size]] += 1
    tested = 0
    choices = 0
    for before, observed in followers.items():
        logits = inner(torch.tensor([before]), inner.initial_state(1))[0][0, -1].numpy()
        probs = reference(logits, before, len(before) - 4, EOS, BOS, **settings)
        assert all(probs[token] > 0 for token in observed)
        choices = max(choices, int((probs > 0).sum()))
        expected = probs * observed.total()
        frequent = np.flatnonzero(expected > 5)
        counts = [observed[token] for token in frequent]
        wanted = expected[frequent].tolist()
        if (rare := observed.total() - sum(wanted)) > 1e-6:
            counts = [*counts, observed.total() - sum(counts)]
            wanted = [*wanted, rare]
        if len(wanted) > 1 and min(wanted) > 1:
            assert chisquare(counts, wanted).pvalue > 1e-5, before
            tested += 1
    assert tested or choices == 1
