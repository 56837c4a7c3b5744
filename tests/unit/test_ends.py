"""Where texts end: whole sentences, words they must include, every reason there is, and the time."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from reviewgen.config import GenerationConfig
from reviewgen.errors import ConfigError, GenerationError
from reviewgen.generation.prompts import Pieces
from reviewgen.generation.rows import Row
from reviewgen.generation.stopping import Stopping
from reviewgen.model import Generation, ReviewModel
from tests.support.fakes import LETTERS, TEXTS, LetterTokenizer, QueueModel, TableModel, review_model, table
from tests.unit.test_guard import LOOP, WORD, Plain, counted, indexed

V, V_WORD = LETTERS.vocab_size, WORD.vocab_size


def told(model: ReviewModel, prompt: str = "", **given: Any) -> Generation:
    (found,) = model.generate(prompt, **given, return_dict_in_generate=True)
    return found


# Whole sentences.


def saying(text: str, prompt: str = "") -> ReviewModel:
    """Return a model that writes a text after a prompt, character by character."""
    tokenizer = LetterTokenizer("".join(sorted(set(text + prompt))))
    return review_model(QueueModel(tokenizer.encode(text), tokenizer, skip=1 + len(prompt)), tokenizer)


SENTENCES = [
    ("Good. And th", "Good."),
    ("Good! Bad? And th", "Good! Bad?"),
    ("It costs 3.5 dol", "It costs 3.5 dol"),  # no end at all
    ("Good. It costs 3.5 dol", "Good."),
    ("See www.site.com for", "See www.site.com for"),
    ('He said "go." And', 'He said "go."'),
    ("He said “go!” And", "He said “go!”"),
    ("It was (as ever) bad.) So", "It was (as ever) bad.)"),
    ("Well... I do", "Well..."),
    ("Well… I do", "Well…"),
    ("What?! No wa", "What?!"),
    ("One.\nTwo.\nThr", "One.\nTwo."),
    ("Good.\u00a0And", "Good."),
    ("Good.And bad. So", "Good.And bad."),
    ("很好。我喜欢。但是", "很好。我喜欢。"),
    ("很好！但是", "很好！"),
    ("他说：“好。”然后", "他说：“好。”"),
    ("彼は「はい。」と", "彼は「はい。」"),
    ("『何？』と", "『何？』"),
    ("no end at all", "no end at all"),
    (". and", "."),
    ("", ""),
]


@pytest.mark.parametrize("prompt", ["", "P. Q", "Really."])
@pytest.mark.parametrize(("written", "kept"), SENTENCES, ids=ascii)
def test_a_text_that_was_cut_off_ends_with_a_whole_sentence(written: str, kept: str, prompt: str) -> None:
    model = saying(written + "~", prompt)
    found = told(model, prompt, max_new_tokens=len(written), finish="sentence")
    assert found.text == prompt + kept
    assert found.finish_reason == "length"
    assert model.tokenizer.decode(found.tokens) == found.text
    assert found.new_tokens == len(kept)
    assert told(model, prompt, max_new_tokens=len(written)).text == prompt + written


@pytest.mark.parametrize(
    ("reason", "given"),
    [
        ("criteria", {"stopping_criteria": lambda ids, _: ids.shape[1] == 6}),
        ("criteria", {"stopping_criteria": lambda ids, _: ids.shape[1] == 4}),
        ("stuck", {"no_repeat_ngram_size": 1, "min_new_tokens": 9}),
        ("length", {"max_new_tokens": 4}),
    ],
)
def test_all_ways_of_being_cut_off_count(reason: str, given: dict[str, Any]) -> None:
    found = told(saying("Ab. xy"), finish="sentence", **given)
    assert (found.text, found.finish_reason, found.new_tokens) == ("Ab.", reason, 3)
    assert told(saying(". Good day"), finish="sentence", max_time=1e-9).finish_reason == "time"


def test_a_text_that_ended_by_itself_is_left_alone() -> None:
    model = saying("Good. And th")
    assert told(model, finish="sentence").text == "Good. And th"
    assert told(model, finish="sentence").finish_reason == "end"
    assert told(model, finish="sentence", stop_strings=["And"]).text == "Good. And"


def test_a_sentence_that_ends_inside_the_prompt_is_not_cut_there() -> None:
    assert told(saying(" and so on", "Good. Bad."), "Good. Bad.", max_new_tokens=4, finish="sentence").text == "Good. Bad. and"
    assert told(saying(". And", "Good"), "Good", max_new_tokens=4, finish="sentence").text == "Good."


def test_tokens_of_several_characters_agree_with_the_cut_text() -> None:
    logits = table(WORD.vocab_size, eos=-9.0)
    logits[:, [*WORD.encode(". the")]] += 4.0
    model = review_model(TableModel(logits), WORD)
    cut = 0
    for prompt in ("", "the mov", "the movie was good. "):
        for found in model.generate_each(prompt, num_return_sequences=12, max_new_tokens=40, finish="sentence", seed=5):
            plain = next(model.generate_each([""] * found.number + [prompt], first=found.number, max_new_tokens=40, seed=5))
            assert plain.text.startswith(found.text) and found.text.startswith(prompt)
            assert WORD.decode(found.tokens).startswith(found.text)
            if found.text != plain.text:
                assert not WORD.decode(found.tokens[:-1]).startswith(found.text)
                assert plain.new_tokens - found.new_tokens == len(plain.tokens) - len(found.tokens)
                cut += found.new_tokens < plain.new_tokens
    assert cut > 10


@given(st.lists(st.one_of(st.integers(0, V_WORD - 1), st.sampled_from(WORD.encode("é👍 the movie"))), max_size=30), st.data())
def test_no_token_is_kept_behind_the_end_of_a_text(ids: list[int], data: st.DataObject) -> None:
    row = Row("", [WORD.bos_id], ids, "", 0, np.random.default_rng(0), prompt_tokens=data.draw(st.integers(0, len(ids))))
    row.prompt = WORD.decode(ids[: row.prompt_tokens]).rstrip("\ufffd")  # a part of a character belongs to what follows
    row.prompt_length = len(row.prompt)
    whole = WORD.decode(ids)
    text = whole[: data.draw(st.integers(len(row.prompt), len(whole)))]
    counts = range(row.prompt_tokens, len(ids) + 1)
    kept = next(count for count in counts if WORD.decode(ids[:count]).startswith(text))
    assert Stopping(WORD, Pieces(WORD), GenerationConfig())._count_tokens(row, text) == kept


def test_an_ngram_with_its_own_loop_ends_with_sentences_too() -> None:
    for inner in (counted(TEXTS, WORD, order=4), Plain(counted(TEXTS, WORD, order=4))):
        model = review_model(inner, WORD)
        texts = model.generate_each("the ", num_return_sequences=40, max_new_tokens=12, finish="sentence", seed=1)
        cut = [found for found in texts if found.finish_reason == "length"]
        assert cut and all(found.text.endswith(".") or ". " not in found.text for found in cut)


# Words that a text must include.


def including() -> list[ReviewModel]:
    ngram = counted(LOOP, order=3)
    given = {"max_new_tokens": 25}
    flat = table(V, 1, scale=0.5, eos=-2.0)
    return [review_model(inner, LETTERS, **given) for inner in (TableModel(flat), ngram, Plain(ngram))]


@pytest.mark.parametrize("words", ["a", "ba", ["ba", "g"], ("E", "F"), {"AB"}], ids=str)
def test_found_texts_hold_the_words(words: Any) -> None:
    for model in including():
        rare = [word.lower() for word in ([words] if isinstance(words, str) else words)]
        given = {"num_return_sequences": 2, "seed": 3, "must_include": words}
        texts = model.generate(["", "h"], **given)
        assert all(word in text for word in rare for text in texts)
        assert texts == model.generate(["", "h"], **given)  # by the seed
        assert texts[3] == next(model.generate_each(["", "h"], **given, first=3)).text
        assert len(set(texts)) > 1


def test_case_is_no_difference_either_way() -> None:
    tokenizer = LetterTokenizer("BADßS")
    model = review_model(QueueModel(tokenizer.encode("BADß"), tokenizer), tokenizer)
    assert model.generate(must_include=["bad", "Ss"]) == ["BADß"]


def test_the_word_may_stand_in_the_prompt() -> None:
    for model in including():
        assert all(text.startswith("bad cafe") for text in model.generate("bad cafe", must_include="BAD", max_new_tokens=0))


def test_the_most_probable_fitting_text_of_a_round_is_taken() -> None:
    model = including()[0]
    found = told(model, "a", must_include="b", seed=9)
    plain = next(model.generate_each("a", seed=9))
    if "b" in plain.text:  # try 0 is the text without the wish
        assert sum(found.log_probabilities) / len(found.tokens) >= sum(plain.log_probabilities) / len(plain.tokens)
    assert "b" in found.text


def test_what_cannot_be_found_says_how_often_it_was_tried() -> None:
    model = review_model(QueueModel(LETTERS.encode("bad cafe"), LETTERS), LETTERS)
    with pytest.raises(GenerationError) as caught:
        model.generate(must_include=["bad", "zebra"])
    assert "None of 128 tries includes 'bad' and 'zebra'; 128 of them lack 'zebra'." in str(caught.value)
    assert "'bad';" not in str(caught.value)
    with pytest.raises(GenerationError, match=r"None of 128 tries includes 'zebra'\. Put"):
        next(model.generate_each(must_include="zebra"))


def test_a_word_that_time_does_not_suffice_for_says_so() -> None:
    model = review_model(QueueModel(LETTERS.encode("bad cafe"), LETTERS), LETTERS)
    with pytest.raises(GenerationError, match=r"None of 16 tries includes 'cafe'.*\(max_time\)"):
        model.generate(must_include="cafe", max_time=1e-9)
    assert model.generate(["", ""], must_include="b", max_time=1e-9) == ["b", "b"]  # a round for each text


def test_a_text_without_tokens_may_hold_the_word() -> None:
    model = review_model(QueueModel([], LETTERS), LETTERS)
    assert model.generate("xyz", must_include="Y") == ["xyz"]  # the tokenizer has none of these letters


@pytest.mark.parametrize("wrong", ["", [""], [3], 3, ["a", ""]], ids=str)
def test_words_are_strings(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="must_include is a non-empty string or a list of such strings"):
        including()[0].generate(must_include=wrong)


def test_no_words_are_no_wish() -> None:
    model = including()[0]
    assert model.generate(must_include=[], seed=1) == model.generate(seed=1) == model.generate(must_include=None, seed=1)


def test_words_go_with_whole_sentences_and_novelty() -> None:
    model = indexed(counted(LOOP, order=3), LOOP, max_new_tokens=30)
    (text,) = model.generate(must_include="ga", novelty="filter", max_copy=4, seed=1)
    assert "ga" in text and text.novelty.longest_tokens <= 4
    talking = saying("Good. And bad")
    with pytest.raises(GenerationError):  # it stands behind the last whole sentence
        talking.generate(must_include="And", finish="sentence", max_new_tokens=12)
    assert talking.generate(must_include="good", finish="sentence", max_new_tokens=12) == ["Good."]


# Reasons, and time.


class Slow(TableModel):
    """Takes a while for each token."""

    seconds = 0.05

    def __call__(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        return super().__call__(ids, state)


@pytest.mark.parametrize("beams", [1, 2])
def test_time_stops_a_slow_model_and_keeps_what_was_written(beams: int) -> None:
    model = review_model(Slow(table(V, eos=-99.0)), LETTERS, max_new_tokens=10_000)
    begun = time.monotonic()
    found = told(model, "abc", max_time=0.2, num_beams=beams)
    assert time.monotonic() - begun < 5  # all of them would take minutes
    assert found.finish_reason == "time" and found.text.startswith("abc") and 1 <= found.new_tokens <= 5
    assert LETTERS.decode(found.tokens) == found.text and 0.1 < found.seconds < 5


def test_time_is_that_of_the_call_and_not_of_the_batch() -> None:
    model = review_model(Slow(table(V, eos=-99.0)), LETTERS, max_new_tokens=10_000)
    begun = time.monotonic()
    texts = model.generate("ab", num_return_sequences=130, max_time=0.5, return_dict_in_generate=True)
    assert time.monotonic() - begun < 5
    assert {found.finish_reason for found in texts} == {"time"} and texts[0].new_tokens > texts[129].new_tokens == 1
    assert "".join(model.stream("ab", max_time=0.15)).startswith("ab")


def test_time_stops_a_loop_of_its_own() -> None:
    model = review_model(counted(["a" * 30] * 50, order=4, smoothing="none"), LETTERS)
    found = told(model, max_time=1e-9, min_new_tokens=10**9, max_new_tokens=10**9)
    assert found.finish_reason in ("time", "stuck") and len(found.text) < 1000
    assert told(model, max_time=100.0, min_new_tokens=5, max_new_tokens=5).finish_reason == "length"


def test_the_reasons_to_end() -> None:
    model = review_model(QueueModel(LETTERS.encode("bad cafe"), LETTERS), LETTERS)
    for settings, reason, text in (
        ({}, "end", "bad cafe"),
        ({"max_new_tokens": 3}, "length", "bad"),
        ({"max_new_tokens": 8}, "length", "bad cafe"),  # its end would be the ninth
        ({"max_new_tokens": 9}, "end", "bad cafe"),
        ({"max_new_tokens": 0}, "length", ""),
        ({"stop_strings": "d c"}, "stop", "bad c"),
        ({"stop_strings": "bad cafe and more"}, "end", "bad cafe"),
        ({"max_time": 1e-9}, "time", "b"),
        ({"stopping_criteria": lambda ids, _: ids.shape[1] > 2}, "criteria", "ba"),
    ):
        found = told(model, **settings)
        assert (found.finish_reason, found.text, found.new_tokens) == (reason, text, len(text))
    for inner in (TableModel(table(V)), counted(LOOP, order=2)):
        found = told(review_model(inner, LETTERS), no_repeat_ngram_size=1, min_new_tokens=20, seed=1)
        assert found.finish_reason == "stuck" and sorted(found.text) == sorted(LETTERS.characters)
    assert told(review_model(TableModel(torch.full((V, V), -torch.inf)), LETTERS)).finish_reason == "stuck"
