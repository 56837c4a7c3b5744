"""Generated texts: prompts, seeds, streams and ends, of models that need no training. Reference
texts are in test_sampling.
"""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reviewgen import ReviewModel
from reviewgen.errors import ConfigError, GenerationError
from reviewgen.evaluation.metrics import judge_by_metric
from reviewgen.generation.generator import Generation
from reviewgen.generation.pieces import TokenTexts
from tests.support.fakes import (
    LETTERS,
    LetterTokenizer,
    QueueModel,
    SlowModel,
    TableModel,
    review_model,
    table,
)
from tests.support.ngrams import CHAR, LOOP, WORD, Plain, counted

V = LETTERS.vocab_size
NGRAM = counted(LOOP, order=3)
MODELS = {"table": TableModel(table(V, 1, eos=-1.0)), "ngram": NGRAM, "plain ngram": Plain(NGRAM)}
TOKENIZERS = {"char": CHAR, "word": WORD}


@pytest.fixture(params=MODELS)
def model(request) -> ReviewModel:
    """A model without a loop of its own, one with it, and the same without."""
    return review_model(MODELS[request.param], LETTERS)


def one_of(model: ReviewModel, prompt: str = "", **options: Any) -> Generation:
    (found,) = model.generate(prompt, **options, return_dict_in_generate=True)
    return found


def writes(text: str, tokenizer: Any = LETTERS, prompt: str = "", **settings: Any) -> ReviewModel:
    """Return a model that writes a text after a prompt."""
    return review_model(
        QueueModel(tokenizer.encode(text), tokenizer, 1 + len(tokenizer.encode(prompt))),
        tokenizer,
        **settings,
    )


# Seeds and rows.


OPTIONS: dict[str, Any] = {"seed": 8, "max_new_tokens": 20, "temperature": [0.7, 1.2]}


def test_text_i_of_a_seed_depends_on_neither_the_others_nor_the_batch(model):
    texts = model.generate("a", num_return_sequences=65, **OPTIONS)  # two batches
    assert len(set(texts)) > 40
    assert model.generate("a", num_return_sequences=2, **OPTIONS) == texts[:2]
    assert texts[0] == "".join(model.stream("a", **OPTIONS)) == model.generate_one("a", **OPTIONS)
    assert model.generate("a", num_return_sequences=65, **(OPTIONS | {"seed": 9})) != texts


def test_texts_can_be_generated_from_any_number_on(model):
    each = list(model.generate_each("a", num_return_sequences=65, **OPTIONS))
    texts = [found.text for found in each]
    assert texts == model.generate("a", num_return_sequences=65, **OPTIONS)
    for number in (0, 32, 64):
        alone = next(model.generate_each("a", num_return_sequences=65, first=number, **OPTIONS))
        assert (alone.text, alone.number, alone.seed) == (texts[number], number, 8)
        among = list(model.generate_each(["h"] * number + ["a"], first=number, **OPTIONS))
        assert [found.text for found in among] == [texts[number]]
    assert list(model.generate_each("a", first=10**9)) == [] == model.generate([])


def test_a_seed_is_drawn_for_each_call_and_gives_the_text_again(model):
    chosen = next(model.generate_each("a"))
    assert (
        model.generate_one("a", seed=chosen.seed) == chosen.text
        and chosen.seed != next(model.generate_each("a")).seed
    )


def test_global_random_state_and_the_tensors_of_the_model_stay():
    logits = table(V)
    before = logits.clone()
    model = review_model(TableModel(logits), LETTERS)
    states = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # type: ignore[index]
    model.generate(["ab", ""], num_return_sequences=2, top_k=3)
    model.generate("ab", num_beams=3, num_return_sequences=2, max_new_tokens=9)
    model.generate(["a"] * 3, must_include="a", max_new_tokens=9)
    list(model.stream("ab", seed=1))
    assert (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()) == states  # type: ignore[index]
    assert torch.equal(logits, before)


def test_what_is_known_of_a_text_agrees_with_the_model(model):
    inner = model.model
    reasons = set()
    for found in model.generate(
        ["", "ab"], num_return_sequences=9, max_new_tokens=12, seed=4, return_dict_in_generate=True
    ):
        assert (
            LETTERS.decode(found.tokens)
            == found.text
            == found.prompt + found.text[len(found.prompt) :]
        )
        assert found.new_tokens == len(found.tokens) - len(found.prompt) <= 12
        ids = torch.tensor([[0, *found.tokens] + [1] * (found.finish_reason == "end")])
        logs = inner(ids, inner.initial_state(1))[0][0].double().log_softmax(-1)
        wanted = [logs[place, token].item() for place, token in enumerate(ids[0, 1:].tolist())]
        assert found.log_probabilities == pytest.approx(wanted, abs=1e-4)
        assert found.seconds >= 0 and found.novelty is None and not found.exceeds_max_copy
        facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert facts == found.to_dict() and (facts["text"], facts["seed"]) == (found.text, 4)
        reasons.add(found.finish_reason)
    assert reasons == {"end", "length"}


def test_a_stream_that_is_closed_leaves_the_model_as_it_was_and_two_streams_do_not_mix(model):
    options: dict[str, Any] = {"seed": 1, "max_new_tokens": 60}
    before = model.generate("ab", num_return_sequences=2, **options)
    for taken in (0, 1, 3):
        stream: Any = model.stream("ab", **options)
        assert before[0].startswith("".join(itertools.islice(stream, taken)))
        stream.close()
    one, other = (model.stream("ab", **options | {"seed": seed}) for seed in (1, 2))
    pairs = list(itertools.zip_longest(one, other, fillvalue=""))
    texts = ["".join(pieces) for pieces in zip(*pairs, strict=True)]
    assert texts == [before[0], model.generate_one("ab", **options | {"seed": 2})]
    assert model.generate("ab", num_return_sequences=2, **options) == before


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_damaged_weights_are_an_error(value):
    logits = table(V)
    logits[LETTERS.encode("a")[0], 5] = value
    model = review_model(TableModel(logits), LETTERS)
    for options in (
        {},
        {"do_sample": False},
        {"top_k": 1},
        {"num_beams": 2},
        {"logits_processor": lambda _, x: x},
    ):
        with pytest.raises(GenerationError, match=r"NaN or infinite|not numbers"):
            model.generate("ba", seed=0, **options)
    with pytest.raises(GenerationError):
        list(model.stream("ba"))


# Prompts.

PROMPTS = [
    "",
    "the ",
    "the",
    "the movie was g",
    "สวัสดี",
    "👍🏽 ok",
    "ß∂ƒ unseen",
    "\n\n",
    "\ufffd",
    "a\0b",
    " \ufffd the ",
    "a\ud800 b",
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_any_prompt_comes_first_exactly(name):
    tokenizer = TOKENIZERS[name]
    dead = torch.full((tokenizer.vocab_size,) * 2, -math.inf)
    dead[:, tokenizer.eos_id] = 0.0  # every token that would spell the prompt has probability zero
    for logits in (table(tokenizer.vocab_size), dead):
        model = review_model(TableModel(logits), tokenizer, max_new_tokens=9)
        texts = model.generate(PROMPTS, num_return_sequences=2, seed=3)
        for number, prompt in enumerate(PROMPTS):
            assert all(text.startswith(prompt) for text in texts[2 * number : 2 * number + 2])
            assert "".join(model.stream(prompt, seed=3)) == model.generate_one(prompt, seed=3)
            assert model.generate_one(prompt, max_new_tokens=0) == prompt
            assert logits is not dead or model.generate_one(prompt, seed=0) == prompt


def test_a_prompt_is_split_before_its_last_word():
    pieces = TokenTexts(WORD)
    assert (pieces.split("the ").ids, pieces.split("the ").rest) == (WORD.encode("the"), " ")
    assert (
        pieces.split("the mov").rest,
        pieces.split("").ids,
        TokenTexts(CHAR).split("the ").rest,
    ) == (" mov", [], "")


def test_the_model_completes_the_last_word_of_a_prompt():
    (token,) = WORD.encode(" movie")
    logits = torch.zeros(WORD.vocab_size, WORD.vocab_size)
    # wherever it is, it wants to write this token, then the end
    logits[:, token] = 30.0
    logits[token, WORD.eos_id] = 60.0
    model = review_model(TableModel(logits), WORD)
    for prompt in ("the ", "the mov"):
        assert set(model.generate(prompt, num_return_sequences=9, seed=0)) == {"the movie"}
    assert model.generate_one("the ", max_new_tokens=1, seed=0) == "the movie"


def test_a_prompt_without_new_tokens_has_the_probabilities_of_its_tokens():
    found = one_of(review_model(QueueModel([], WORD), WORD), "the mov", max_new_tokens=0)
    assert (WORD.decode(found.tokens), found.new_tokens, found.finish_reason) == (
        "the mov",
        0,
        "length",
    )
    assert len(found.log_probabilities) == len(found.tokens)


def test_a_tokenizer_that_loses_characters_loses_none_of_the_prompt():
    model = writes("bad cafe", prompt="b")
    assert model.generate_one("xyzbxyz") == "".join(model.stream("xyzbxyz")) == "xyzbxyzbad cafe"
    assert model.generate_one("xyzbxyz", stop_strings=["d c"]) == "xyzbxyzbad c"
    model = writes("bad cafe")
    assert model.generate(["", "xa", "bad c", "bad cafe", "h"]) == [
        "bad cafe",
        "xaad cafe",
        "bad cafe",
        "bad cafe",
        "had cafe",
    ]


# Streams.


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_stream_never_yields_half_a_character(name):
    tokenizer = TOKENIZERS[name]
    text = "ab 👍🏽 สวัสดี é\U0001f9d1\u200d\U0001f680 ok"
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)  # bytes
    model = writes(text, tokenizer)
    for length in (*range(1, 9), 500):
        pieces = list(model.stream(max_new_tokens=length))
        assert "".join(pieces) == model.generate_one(max_new_tokens=length) and all(pieces)
        assert not [piece for piece in pieces[:-1] if "\ufffd" in piece]
    assert len(pieces) > 10


@given(st.sampled_from(["char", "word"]), st.integers(0, 10_000))
def test_streams_of_random_bytes_join_to_the_text(name, seed):
    """Half of what this model writes are bytes, which may be parts of no character."""
    tokenizer = TOKENIZERS[name]
    pieces = TokenTexts(tokenizer).texts
    logits = torch.tensor([0.0 if piece else 3.0 for piece in pieces])
    logits[tokenizer.eos_id] = -2.0
    model = review_model(TableModel(logits.expand(len(pieces), -1)), tokenizer, max_new_tokens=40)
    assert "".join(model.stream("ส", seed=seed)) == model.generate_one("ส", seed=seed)


# Ends.


@pytest.mark.parametrize("beams", [1, 2])
def test_every_reason_to_end(beams):
    model = writes("bad cafe")
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, "end", "bad cafe"),
        ({"max_new_tokens": 3}, "length", "bad"),
        ({"max_new_tokens": 8}, "length", "bad cafe"),  # its end would be the ninth
        ({"max_new_tokens": 9}, "end", "bad cafe"),
        ({"max_new_tokens": 0}, "length", ""),
        ({"stop_strings": "d c"}, "stop", "bad c"),
        ({"stop_strings": "bad cafe and more"}, "end", "bad cafe"),
        ({"max_time": 1e-9}, "time", "b"),
    ]
    if beams == 1:
        cases.append(({"stopping_criteria": lambda ids, _: ids.shape[1] > 2}, "criteria", "ba"))
    for options, reason, text in cases:
        found = one_of(model, num_beams=beams, **options)
        assert (found.finish_reason, found.text, found.new_tokens) == (reason, text, len(text))
    for inner in (TableModel(table(V)), counted(LOOP, order=2)):
        found = one_of(
            review_model(inner, LETTERS),
            no_repeat_ngram_size=1,
            min_new_tokens=20,
            seed=1,
            num_beams=beams,
        )
        assert found.finish_reason == "stuck" and sorted(found.text) == sorted(LETTERS.characters)
    assert (
        one_of(review_model(TableModel(torch.full((V, V), -torch.inf)), LETTERS)).finish_reason
        == "stuck"
    )


@pytest.mark.parametrize(
    "stops, text",
    [
        (["d c"], "bad c"),  # spans three tokens
        ("a", "ba"),
        (["z", "fe"], "bad cafe"),
        (["cafe", "ad"], "bad"),  # the first in the text, not the first of the list
        (["d", "ad caf"], "bad"),
        ([], "bad cafe"),
    ],
)
def test_a_text_ends_with_its_first_stop_string(stops, text):
    model = writes("bad cafe")
    assert (
        model.generate_one(stop_strings=stops) == text == "".join(model.stream(stop_strings=stops))
    )
    after = writes("bad cafe", prompt="cab")
    # not the one in the prompt
    assert after.generate_one("cab", stop_strings=["ca"]) == "cabbad ca"
    assert after.generate_one("cab", stop_strings=["bb"]) == "cabbad cafe"  # half in the prompt


@given(st.text(st.sampled_from("the movie was é👍ส."), min_size=1, max_size=20), st.data())
def test_a_text_keeps_exactly_the_tokens_that_it_needs(whole, data):
    """Also where it ends inside a token of several characters, or inside a character of several
    tokens.
    """
    ids = WORD.encode(whole)
    model = review_model(QueueModel(ids, WORD), WORD, max_new_tokens=200)
    start = data.draw(st.integers(0, len(whole) - 1))
    stop = whole[start : data.draw(st.integers(start + 1, min(len(whole), start + 6)))]
    end = whole.find(stop) + len(stop)
    length = data.draw(st.integers(1, len(ids)))
    cut = WORD.decode(ids[:length]).rstrip("\ufffd")
    for options, text, reason in (
        ({"stop_strings": [stop]}, whole[:end], "stop"),
        ({"max_new_tokens": length}, cut, "length"),
    ):
        found = one_of(model, **options)
        kept = next(
            count for count in range(len(ids) + 1) if WORD.decode(ids[:count]).startswith(text)
        )
        assert (found.text, found.finish_reason, found.tokens, found.new_tokens) == (
            text,
            reason,
            ids[:kept],
            kept,
        )


SENTENCES = [
    ("Good. And th", "Good."),
    ("It costs 3.5 dol", "It costs 3.5 dol"),  # no end at all
    ('He said "go." And', 'He said "go."'),
    ("One.\nTwo.\nThr", "One.\nTwo."),
    (". and", "."),
    ("", ""),
]


def test_a_text_that_was_cut_off_ends_with_a_whole_sentence():
    for prompt, (written, kept) in itertools.product(["", "P. Q", "Really."], SENTENCES):
        tokenizer = LetterTokenizer("".join(sorted(set(written + prompt + "~"))))
        model = writes(written + "~", tokenizer, prompt)
        found = one_of(model, prompt, max_new_tokens=len(written), finish="sentence")
        assert (found.text, found.finish_reason, found.new_tokens) == (
            prompt + kept,
            "length",
            len(kept),
        )
        assert tokenizer.decode(found.tokens) == found.text
        assert (
            "".join(model.stream(prompt, max_new_tokens=len(written), finish="sentence"))
            == prompt + kept
        )


# The best of several.


CHOOSING: dict[str, Any] = {"seed": 3, "max_new_tokens": 12}
ALL = {"num_return_sequences": 20, "best_of": 20} | CHOOSING


def test_the_best_of_several_are_the_most_probable_with_their_numbers(model):
    drawn = model.generate(["a", "h"], num_return_sequences=20, **CHOOSING)

    def bits(number: int) -> float:
        text = drawn[number]
        prompt = "ah"[number // 20]
        if not text[1:]:
            return math.inf
        score = model.score(text[1:], prompt)
        ended = len(text) < 13  # else the end token is not scored
        return (score.bits - (0 if ended else score.tokens[-1].bits)) / len(text[1:])

    best = [sorted(range(first, first + 20), key=bits)[:3] for first in (0, 20)]
    found = model.generate(
        ["a", "h"], num_return_sequences=3, best_of=20, return_dict_in_generate=True, **CHOOSING
    )
    numbers = [*best[0], *best[1]]
    assert [each.text for each in found] == [drawn[number] for number in numbers]
    assert [each.text for each in found] == [drawn[each.number] for each in found]


def test_a_function_or_a_metric_chooses_the_best(model, install):
    drawn = model.generate("a", num_return_sequences=20, **CHOOSING)
    fewest = (
        "class Fewest:\n unit, lower_is_better = 'letters', True\n __call__ = lambda self, sample:"
        " len(sample.texts[0])"
    )
    install(
        "reviewgen-fakes",
        {"metrics": {"fewest": "fakes:fewest"}},
        {"fakes": f"{fewest}\nfewest = Fewest()"},
    )
    for judge, is_reversed in ((lambda text, prompt: len(text), True), ("fewest", False)):
        every = model.generate("a", judge=judge, **ALL)
        assert every == sorted(drawn, key=len, reverse=is_reversed)


def test_a_metric_judges_so_that_more_is_better():
    # 4 of 5 runs of 4 words
    assert judge_by_metric("self-repetition", set())("a a a a a a a a", "") == pytest.approx(-0.8)


def test_a_model_chooses_the_best_by_its_bits(model):
    drawn = model.generate("a", num_return_sequences=20, **CHOOSING)
    own = {
        text: model.score(text[1:], "a").bits_per_character if text[1:] else math.inf
        for text in drawn
    }
    assert model.generate("a", judge=model, **ALL) == sorted(drawn, key=own.__getitem__)


def test_wrong_settings_of_a_choice_are_refused(model):
    wrong: list[dict[str, Any]] = [
        {"num_return_sequences": 3},
        {"num_beams": 2},
        {"do_sample": False},
    ]
    for more in (
        *wrong,
        {"judge": 3},
        {"judge": "distinct-2"},
        {"best_of": 0},
        {"best_of": None, "judge": model},
    ):
        with pytest.raises(ConfigError, match=r"best_of|judge"):
            model.generate("a", **CHOOSING | {"best_of": 2} | more)


# Time.


@pytest.fixture
def slow() -> ReviewModel:
    """A model with which all tokens would take minutes."""
    inner = SlowModel()
    inner.seconds = 0.03
    return review_model(inner, LETTERS, max_new_tokens=10_000)


@pytest.mark.parametrize("beams", [1, 2])
def test_max_time_ends_a_text_and_keeps_what_was_written(slow, beams):
    found = one_of(slow, "abc", max_time=0.15, num_beams=beams)
    assert found.finish_reason == "time" and found.text.startswith("abc")
    assert 1 <= found.new_tokens <= 6
    assert LETTERS.decode(found.tokens) == found.text and 0.1 < found.seconds < 5


def test_max_time_is_that_of_the_call(slow):
    texts = slow.generate(
        "ab", num_return_sequences=130, max_time=0.3, return_dict_in_generate=True
    )
    assert {found.finish_reason for found in texts} == {"time"} and texts[0].new_tokens > texts[
        129
    ].new_tokens == 1
    assert "".join(slow.stream("ab", max_time=0.1)).startswith("ab")


def test_max_time_ends_an_n_gram_that_cannot_go_on():
    ngram = review_model(counted(["a" * 30] * 50, order=4, smoothing="none"), LETTERS)
    found = one_of(ngram, max_time=1e-9, min_new_tokens=10**9, max_new_tokens=10**9)
    assert found.finish_reason in ("time", "stuck") and len(found.text) < 1000
    assert (
        one_of(ngram, max_time=100.0, min_new_tokens=5, max_new_tokens=5).finish_reason == "length"
    )
