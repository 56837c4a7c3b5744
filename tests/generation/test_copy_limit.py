"""Decoding with a copy limit: no longer span is copied, dead ends are left; a model's own loop
against the generic one.
"""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from reviewgen import ReviewModel
from tests.support.fakes import LETTERS, TEXTS, TableModel, table
from tests.support.ngrams import (
    LOOP,
    WORD,
    Plain,
    counted,
    indexed,
    longest_copy,
    looping,
    only,
    rows_of,
)

SHAPES: list[dict[str, Any]] = [
    {"temperature": 0.5},
    {"temperature": 1.0},
    {"temperature": 1.5, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.8},
]
RETRIES = 12  # after these, a text takes the forbidden token
MODELS = {
    "table": (looping(), LOOP, LETTERS),
    "ngram": (counted(LOOP, order=5), LOOP, LETTERS),
    "ngram of words": (counted(TEXTS, WORD, order=4), TEXTS, WORD),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, max_copy",
    [("table", 0), ("table", 3), ("ngram", 0), ("ngram", 8), ("ngram of words", 3)],
)
def test_no_text_has_a_longer_copied_span(name, max_copy):
    inner, texts, tokenizer = MODELS[name]
    model = indexed(inner, texts, tokenizer)
    # where all but a few tokens are forbidden, top_p may leave none
    for shape in SHAPES[: 2 if max_copy == 0 else 4]:
        rows = rows_of(model, [""] * 6, max_copy, **shape)
        assert max(longest_copy(row.ids, texts, tokenizer) for row in rows) <= max_copy
        assert not any(row.exceeds_limit for row in rows)
        free = rows_of(model, [""] * 6, None, **shape)
        assert max(longest_copy(row.ids, texts, tokenizer) for row in free) > max_copy
        assert max(len(row.ids) for row in rows) > 5 or max_copy == 0


def test_a_limit_of_exactly_the_longest_span_changes_nothing_and_one_less_does():
    ngram = counted(["bad cafe"] * 3, order=5, smoothing="none")
    for inner in (ngram, Plain(ngram)):
        model = indexed(inner, ["bad cafe"] * 3)
        (text,) = model.generate("", novelty="filter", max_copy=8, seed=1)
        assert (text, text.exceeds_max_copy) == ("bad cafe", False)
        for max_copy in (0, 3, 7):
            for text in model.generate(
                ["", "bad", "bad c"],
                num_return_sequences=2,
                novelty="filter",
                max_copy=max_copy,
                seed=1,
            ):
                # nothing else is possible
                assert (text, text.exceeds_max_copy) == ("bad cafe", True)


# Dead ends.


def test_a_model_of_one_token_ends_in_bounded_time():
    inner = only({"": "a", "a": "a"})
    (text,) = indexed(inner, ["a" * 50]).generate(
        novelty="filter", max_copy=5, max_new_tokens=30, seed=0
    )
    assert (text, text.exceeds_max_copy) == ("a" * 30, True)
    assert RETRIES < len(inner.calls) <= (RETRIES + 1) * 32


@pytest.mark.parametrize("is_block", [False, True])
def test_backtracking_finds_another_continuation(is_block):
    """After abc only d is possible, which the limit forbids; two tokens earlier, h is possible."""
    paths = {"": "a", "a": "b|h", "b": "c", "c": "d", "d": "e", "e": "f", "f": "", "h": "h|"}
    inner = counted(["abcdef", "ah", "hh"], order=2, smoothing="none") if is_block else only(paths)
    model = indexed(inner, ["abcdef"])
    rows = rows_of(model, [""] * 50, 3)
    assert not any(row.exceeds_limit for row in rows) and all("d" not in row.text for row in rows)
    assert {row.retries for row in rows} > {0, 1}
    assert any("d" in row.text for row in rows_of(model, [""] * 50, None))
    assert all(row.new_tokens == len(row.ids) for row in rows)


def test_a_token_that_runs_on_from_the_prompt_may_not_complete_a_copy():
    paths = {
        "": "the",
        "the": " movie| acting",
        " movie": " was",
        " was": " good",
        " good": "",
        " acting": ".",
    }
    model = indexed(only(paths | {".": ""}, WORD), ["the movie was good"], WORD)
    rows = rows_of(model, ["the mov"] * 20, 2)
    assert {row.text for row in rows} == {"the movie was good"} and all(
        row.exceeds_limit for row in rows
    )
    assert {row.text for row in rows_of(model, ["the"] * 20, 2)} == {"the acting."}
    logits = table(WORD.vocab_size, eos=-1.0)
    logits[:, WORD.encode(" movie")[0]] = 12.0
    model = indexed(TableModel(logits), ["the movie was good"], WORD)
    rows, free = (rows_of(model, ["the mov"] * 20, limit, max_new_tokens=3) for limit in (1, None))
    pair = WORD.encode("the movie")
    assert len(pair) == 2 and any(row.ids[:2] == pair for row in free)
    assert all(
        row.text.startswith("the mov") and row.ids[:2] != pair and not row.exceeds_limit
        for row in rows
    )
    forced = indexed(only({"": "the", "the": " movie", " movie": ""}, WORD), ["the movie"], WORD)
    (row,) = rows_of(forced, ["the mov"], 1)
    assert row.text == "the movie" and row.exceeds_limit


@pytest.mark.parametrize("name", ["table", "ngram"])
def test_the_end_keeps_its_probability(name):
    """Of the first tokens, all seen ones are forbidden; those rows end that would end without the
    limit, and no others.
    """
    inner = looping(eos=0.5) if name == "table" else counted([*LOOP, "", "", ""], order=3)
    model = indexed(inner, LOOP)
    guarded, free = (rows_of(model, [""] * 300, limit, max_new_tokens=1) for limit in (0, None))
    ends = [
        [number for number, row in enumerate(rows) if row.finish_reason == "end"]
        for rows in (guarded, free)
    ]
    assert ends[0] == ends[1] and 12 < len(ends[0]) < 240
    assert {row.text for row in guarded} <= {"", "h"} | ({" "} if name == "ngram" else set())


def test_a_low_temperature_is_not_a_dead_end():
    model = indexed(looping(), LOOP)
    for temperature in (1e-6, 0.1):
        rows = rows_of(model, [""] * 4, 5, temperature=temperature)
        assert all(
            longest_copy(row.ids, LOOP, LETTERS) <= 5 and not row.exceeds_limit for row in rows
        )


# The model's own loop and the generic one.


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 5, "temperature": 1.4}], ids=str
)
@pytest.mark.parametrize("max_copy", [None, 1])
def test_both_loops_sample_from_one_distribution(max_copy, settings):
    ngram = counted(TEXTS, WORD, order=3)
    counts = []
    for number, inner in enumerate((ngram, Plain(ngram))):
        rows = rows_of(
            indexed(inner, TEXTS, WORD),
            [""] * 600,
            max_copy,
            seed=number,
            max_new_tokens=2,
            **settings,
        )
        counts.append(Counter(tuple(row.ids) for row in rows))
    frequent = [key for key, count in (counts[0] + counts[1]).items() if count >= 10]
    observed = np.array([[count[key] for key in frequent] for count in counts])
    observed = np.c_[observed, 600 - observed.sum(1)]  # and all the rare ones
    observed = observed[:, observed.sum(0) > 0]
    assert observed.shape[1] == 1 or chi2_contingency(observed).pvalue > 1e-4


@pytest.mark.parametrize("stops", [(), ("e m",), ("ood", " the")], ids=str)
def test_both_loops_end_texts_by_the_same_rules(stops):
    ngram = counted(["".join(TEXTS)] * 2, WORD, order=2)
    for inner in (ngram, Plain(ngram)):
        model = indexed(inner, TEXTS, WORD)
        for limit in (1, 2, 32, 33, 64, 65, 150):  # the first block has 64 random numbers
            rows = rows_of(
                model, ["", "the mov", "the "], None, 1, max_new_tokens=limit, stop_strings=stops
            )
            for row in rows:
                assert row.new_tokens <= limit and row.finish_reason in ("end", "length", "stop")
                new = row.text[len(row.prompt) :]
                cuts = [new.find(stop) + len(stop) for stop in stops if stop in new]
                assert (row.finish_reason == "stop") == bool(cuts) and all(
                    cut >= len(new) for cut in cuts
                )
                # bytes of an incomplete character
                assert row.finish_reason != "length" or 0 <= limit - row.new_tokens <= 3
                assert row.text.startswith(row.prompt) and WORD.decode(row.ids).startswith(row.text)
                assert not row.ids or not WORD.decode(row.ids[:-1]).startswith(row.text)
            assert (
                limit < 60 or " the" not in stops or "stop" in {row.finish_reason for row in rows}
            )
            assert limit > 2 or "length" in {row.finish_reason for row in rows}


PROMPTS = ["", "the mov", "the ", "the movie was g", "สวัส", "the movie was so so and I li"]


@pytest.mark.parametrize("smoothing", ["kneser-ney", "none"])
def test_a_text_of_an_own_loop_depends_on_its_seed_and_number_only(smoothing):
    """72 rows are two batches, 80 tokens two blocks; without smoothing there are dead ends."""
    model: ReviewModel = indexed(counted(TEXTS, WORD, order=4, smoothing=smoothing), TEXTS, WORD)
    for options in (
        {},
        {"novelty": "filter", "max_copy": 4},
        {"stop_strings": ["e ", "."], "top_p": 0.9},
    ):
        given: dict[str, Any] = {"seed": 7, "max_new_tokens": 80, **options}
        found = model.generate(PROMPTS, num_return_sequences=12, **given)
        assert all(text.startswith(PROMPTS[number // 12]) for number, text in enumerate(found))
        for number in (12, 62):
            assert (
                model.generate([*["bad "] * number, PROMPTS[number // 12]], **given)[-1]
                == found[number]
            )
    for prompt in PROMPTS:
        for settings in (
            {},
            {"stop_strings": ["e ", "."]},
            {"max_new_tokens": 1},
            {"temperature": 3.0},
        ):
            pieces = list(model.stream(prompt, seed=5, **settings))
            assert "".join(pieces) == model.generate_one(prompt, seed=5, **settings) and all(
                pieces[1:]
            )
