"""Exact sampling from a small n-gram, compared with the enumeration of all its texts."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from reviewgen.errors import ConfigError
from tests.support.fakes import LetterTokenizer, review_model
from tests.support.ngrams import counted

LETTERS = LetterTokenizer("ab ")
TEXTS = ["ab ba", "a b", "ba ab a", "b ab", "aab", "abba a", "bb a", "a ba"]
MAX_TOKENS = 6
SAMPLES = 20_000


@pytest.fixture(scope="module")
def model() -> Any:
    inner = counted(TEXTS, LETTERS, order=3)
    return review_model(inner, LETTERS, max_new_tokens=MAX_TOKENS)


def enumerate_texts(model: Any) -> dict[str, float]:
    """Return the probability of each text of the model; those of the maximum length do not end."""
    stepper = model.generator.stepper
    found: dict[str, float] = {}
    waiting = [("", 1.0, *stepper.forward(np.array([[LETTERS.bos_id]]), stepper.initial_state(1)))]
    while waiting:
        text, probability, logits, state = waiting.pop()
        if len(text) == MAX_TOKENS:
            found[text] = probability
            continue
        scores = logits[0, : LETTERS.vocab_size].astype(np.float64)
        scores[LETTERS.bos_id] = -np.inf
        probs = np.exp(scores - scores.max())
        probs /= probs.sum()
        for token, share in enumerate(probs.tolist()):
            if token == LETTERS.eos_id:
                found[text] = probability * share
            elif share > 0:
                after = stepper.forward(np.array([[token]]), state)
                waiting.append((text + LETTERS.decode([token]), probability * share, *after))
    return found


def p_value(samples: list[str], expected: dict[str, float]) -> float:
    """Return the p-value of the chi-square test; rare texts count as one."""
    total = sum(expected.values())
    common = {text: value for text, value in expected.items() if value / total * len(samples) >= 5}
    counts = Counter(text if text in common else "rare" for text in samples)
    wanted = {text: value / total for text, value in common.items()}
    rest = 1 - sum(wanted.values())
    observed = [counts[text] for text in wanted]
    shares = list(wanted.values())
    if rest > 1e-9:
        observed.append(counts["rare"])
        shares.append(rest)
    return float(chisquare(observed, np.array(shares) * len(samples)).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({"include": ["ab"]}, re.compile(r"\b[aA]b\b").search),
        ({"exclude": ["a"]}, lambda text: not re.search(r"\ba\b", text)),
        ({"include": ["ab"], "exclude": ["a"]}, re.compile(r"(?!.*\ba\b).*\bab\b").match),
        ({"choices": ["ab", "a ba", "bb a"]}, ["ab", "a ba", "bb a"].__contains__),
        ({"regex": "a|ab|(b ?)+a"}, re.compile("a|ab|(b ?)+a").fullmatch),
        ({"regex": "[ab ]+", "include": ["ab"]}, re.compile(r"[ab ]*\bab\b[ab ]*").fullmatch),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_samples_have_the_distribution_of_the_model(model, settings, fits):
    expected = {text: value for text, value in enumerate_texts(model).items() if fits(text)}
    options: dict[str, Any] = {"num_return_sequences": SAMPLES, "seed": 2, **settings}
    assert p_value(model.generate(**options, exact=True), expected) > 0.01


@pytest.mark.slow
def test_masks_alone_have_another_distribution(model):
    choices = ["ab", "a ba", "bb a"]
    expected = {text: value for text, value in enumerate_texts(model).items() if text in choices}
    masked = model.generate(num_return_sequences=SAMPLES, seed=2, choices=choices)
    assert p_value(masked, expected) < 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exact needs"),
        ({"include": ["ab"], "top_k": 3}, "top_k"),
        ({"sentences": "1", "include": ["ab"]}, "no other format"),
        ({"regex": "(?i)a"}, "no other format"),
    ],
)
def test_what_exact_cannot_do_is_refused(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        model.generate(exact=True, **settings)


def test_a_network_has_no_finite_states(micro):
    with pytest.raises(ConfigError, match="finite number of states"):
        micro("gru-char").generate(
            include=["a"], exact=True, top_p=1.0, words="any", temperature=1.0
        )
