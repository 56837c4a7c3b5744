"""One call of ``generate``: its settings, seeds, what it returns, and that nothing a caller does breaks the model."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from reviewgen.errors import ConfigError, DataError, GenerationError
from reviewgen.model import Generation, ReviewModel
from tests.support.fakes import LETTERS, QueueModel, TableModel, review_model, table
from tests.support.forked import run_python
from tests.unit.test_guard import LOOP, WORD, Plain, counted, indexed

V = LETTERS.vocab_size
NGRAM = counted(LOOP, order=3)
MODELS = {"table": TableModel(table(V, 1, eos=-1.0)), "ngram": NGRAM, "plain ngram": Plain(NGRAM)}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> ReviewModel:
    """A model without a loop of its own, one with it, and the same without."""
    return review_model(MODELS[request.param], LETTERS)


# Seeds.


@pytest.mark.parametrize("count", [1, 2, 65])
def test_text_i_of_a_seed_is_the_same_wherever_it_is_written(model: ReviewModel, count: int) -> None:
    given: dict[str, Any] = {"seed": 8, "max_new_tokens": 20, "temperature": [0.7, 1.2]}
    texts = model.generate("a", num_return_sequences=count, **given)
    assert [found.text for found in model.generate_each("a", num_return_sequences=count, **given)] == texts
    assert texts[0] == "".join(model.stream("a", **given)) == model.generate_one("a", **given)
    for number in {0, count // 2, count - 1}:
        alone = next(model.generate_each("a", num_return_sequences=count, first=number, **given))
        assert (alone.text, alone.number, alone.seed) == (texts[number], number, 8)
        among = list(model.generate_each(["h"] * number + ["a"], first=number, **given))
        assert [found.text for found in among] == [texts[number]]
    assert model.generate("a", num_return_sequences=count, **(given | {"seed": 9})) != texts


def test_a_seed_that_was_drawn_gives_the_text_again(model: ReviewModel) -> None:
    found = model.generate(["a", "b"], return_dict_in_generate=True, max_new_tokens=20)
    assert found[0].seed == found[1].seed != model.generate("a", return_dict_in_generate=True)[0].seed
    assert model.generate(["a", "b"], seed=found[0].seed, max_new_tokens=20) == [one.text for one in found]


def test_texts_beyond_the_last_are_none_and_what_is_no_number_is_refused(model: ReviewModel) -> None:
    assert list(model.generate_each("a", num_return_sequences=2, first=2)) == []
    assert list(model.generate_each("a", first=10**9)) == []
    for wrong in (-1, True):
        with pytest.raises(ConfigError, match="first must be a whole number of at least 0"):
            model.generate_each("a", first=wrong)


def test_global_random_state_is_untouched() -> None:
    """In a process of its own: the checker of annotations in this one draws random numbers."""
    script = """
import random, numpy as np, torch
from tests.support.fakes import LETTERS, TableModel, review_model, table
state = lambda: (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())
model = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)
before = state()
model.generate("ab", num_beams=3, num_return_sequences=2, max_new_tokens=9)
model.generate(["a"] * 70, must_include="a", temperature=[0.5, 1.5], max_new_tokens=9)
list(model.generate_each("ab", do_sample=False))
model.generate("ab", logits_processor=lambda ids, scores: scores, stopping_criteria=lambda ids, scores: False)
[found.log_probabilities for found in model.generate("ab", return_dict_in_generate=True)]
assert state() == before
"""
    run_python(["-c", script], check=True, cwd=Path(__file__).parents[2])


# Temperatures that come round.


def test_low_and_high_temperatures_take_turns(model: ReviewModel) -> None:
    """At every second place the temperature is near zero, where all texts of the same beginning go on alike."""
    inner = model.model
    for period, cold in ((2, 0), (2, 1), (3, 1)):
        cycle = [1e-3 if place == cold else 1.5 for place in range(period)]
        texts = model.generate_each("ab", num_return_sequences=60, temperature=cycle, max_new_tokens=9, seed=2)
        warm = 0
        for found in texts:
            ids = [0, *found.tokens] + [1] * (found.finish_reason == "end")
            logits = inner(torch.tensor([ids]), inner.initial_state(1))[0][0].clone()
            logits[:, 0] = -torch.inf
            for place in range(len(ids) - 3):
                is_best = bool(logits[place + 2, ids[place + 3]] > logits[place + 2].max() - 0.03)
                assert is_best or place % period != cold
                warm += not is_best
        assert warm > 30


def test_a_place_s_tokens_follow_the_temperature_of_its_turn(model: ReviewModel) -> None:
    inner, cycle = model.model, [0.5, 1.0, 2.0]
    followers: dict[tuple[int, ...], Counter[int]] = {}
    for found in model.generate_each("a", num_return_sequences=3000, temperature=cycle, max_new_tokens=3, seed=3):
        ids = [0, *found.tokens] + [1] * (found.finish_reason == "end")
        for size in range(2, len(ids)):
            followers.setdefault(tuple(ids[:size]), Counter())[ids[size]] += 1
    tested = Counter[int]()
    for beginning, observed in followers.items():
        place, count = len(beginning) - 2, sum(observed.values())
        logits = inner(torch.tensor([beginning]), inner.initial_state(1))[0][0, -1].double()
        logits[0] = -torch.inf
        expected = (logits / cycle[place]).softmax(-1).numpy() * count
        kept = [token for token in range(V) if expected[token] > 5]
        rare = count - expected[kept].sum()
        if len(kept) > 1 and rare > 1:
            counts = [observed[token] for token in kept]
            found_p = chisquare([*counts, count - sum(counts)], [*expected[kept], rare]).pvalue
            assert found_p > 1e-5
            tested[place] += 1
    assert min(tested[place] for place in range(3)) > 0


def test_a_cycle_of_one_is_a_number(model: ReviewModel) -> None:
    given: dict[str, Any] = {"num_return_sequences": 5, "max_new_tokens": 20, "seed": 1}
    assert model.generate("a", temperature=[0.7], **given) == model.generate("a", temperature=0.7, **given)
    assert model.generate("a", temperature=(0.7, 0.7, 0.7), **given) == model.generate("a", temperature=0.7, **given)


# What is known of a text.


def test_a_generation_agrees_with_the_model(model: ReviewModel) -> None:
    inner, reasons = model.model, set()
    for found in model.generate(["", "ab"], num_return_sequences=15, max_new_tokens=12, seed=4, return_dict_in_generate=True):
        assert LETTERS.decode(found.tokens) == found.text == found.prompt + found.text[len(found.prompt) :]
        assert found.new_tokens == len(found.tokens) - len(found.prompt) <= 12
        ids = [0, *found.tokens] + [1] * (found.finish_reason == "end")
        logs = inner(torch.tensor([ids]), inner.initial_state(1))[0][0].double().log_softmax(-1)
        wanted = [logs[place, ids[place + 1]].item() for place in range(len(ids) - 1)]
        assert found.log_probabilities == pytest.approx(wanted, abs=1e-4)
        assert found.seconds >= 0 and found.novelty is None and not found.exceeds_max_copy
        reasons.add(found.finish_reason)
    assert reasons == {"end", "length"}


def test_facts_are_json(model: ReviewModel) -> None:
    for found in model.generate(["", "ab"], seed=2, max_new_tokens=5, return_dict_in_generate=True):
        facts = json.loads(json.dumps(found.facts(), allow_nan=False))
        assert facts == found.facts() and facts["text"] == found.text and facts["seed"] == 2
        assert facts.keys() == {
            *("text", "prompt", "new_tokens", "finish_reason", "seed", "number", "exceeds_max_copy", "seconds")
        }


def test_novelty_needs_an_index(model: ReviewModel) -> None:
    for wish in ("report", "filter"):
        with pytest.raises(DataError, match="no index"):
            model.generate(novelty=wish)
    with_index = indexed(NGRAM, LOOP)
    (found,) = with_index.generate("abc", max_new_tokens=9, seed=1, return_dict_in_generate=True)
    assert isinstance(found, Generation) and found.novelty == with_index.novelty(found.text)


# Nothing breaks the model.


def test_a_stream_that_is_left_leaves_the_model_as_it_was(model: ReviewModel) -> None:
    before = model.generate("ab", seed=1, max_new_tokens=200, num_return_sequences=2)
    for taken in (0, 1, 3):
        stream = model.stream("ab", seed=1, max_new_tokens=200)
        pieces = list(itertools.islice(stream, taken))
        stream.close()
        assert before[0].startswith("".join(pieces))
    texts = model.generate_each("ab", seed=1, max_new_tokens=200, num_return_sequences=2)
    assert next(texts).text == before[0]
    texts.close()
    assert model.generate("ab", seed=1, max_new_tokens=200, num_return_sequences=2) == before


def test_two_streams_at_once_do_not_mix(model: ReviewModel) -> None:
    one, other = (model.stream("a", seed=seed, max_new_tokens=50) for seed in (1, 2))
    pairs = list(itertools.zip_longest(one, other, fillvalue=""))
    assert ["".join(pieces) for pieces in zip(*pairs, strict=True)] == [
        model.generate_one("a", seed=seed, max_new_tokens=50) for seed in (1, 2)
    ]


def test_a_prompt_of_a_hundred_thousand_characters(model: ReviewModel) -> None:
    prompt = ("bad cafe " * 12_000)[:100_000]
    for given in ({}, {"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 4}, {"num_beams": 2}):
        found = model.generate(prompt, max_new_tokens=2, seed=1, return_dict_in_generate=True, **given)[0]
        assert found.text.startswith(prompt) and len(found.text) <= len(prompt) + 2
        assert LETTERS.decode(found.tokens) == found.text


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_damaged_weights_are_one_sentence(value: float) -> None:
    logits = table(V)
    logits[LETTERS.encode("a")[0], 5] = value
    damaged = review_model(TableModel(logits), LETTERS)
    for given in ({}, {"do_sample": False}, {"top_k": 1}, {"repetition_penalty": 1.1}, {"logits_processor": lambda _, x: x}):
        with pytest.raises(
            GenerationError,
            match=r"^(The model's logits are (not numbers|NaN or infinite)|.*lambda.* returns scores that are not numbers)",
        ):
            damaged.generate("ba", seed=0, **given)
    with pytest.raises(GenerationError):
        list(damaged.stream("ba"))


def test_no_new_tokens_and_no_prompts(model: ReviewModel) -> None:
    assert model.generate("abc", max_new_tokens=0, num_return_sequences=2) == ["abc", "abc"]
    assert model.generate([]) == [] and list(model.generate_each([])) == []
    (found,) = review_model(QueueModel([], WORD), WORD).generate("the mov", max_new_tokens=0, return_dict_in_generate=True)
    assert (WORD.decode(found.tokens), found.new_tokens, found.finish_reason) == ("the mov", 0, "length")
    assert model.generate(max_new_tokens=0, return_dict_in_generate=True)[0].log_probabilities == []
    assert math.isfinite(sum(found.log_probabilities)) and len(found.log_probabilities) == len(found.tokens)
