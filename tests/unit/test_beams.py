"""Beam search against transformers' own, and against all texts that there are."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from reviewgen.errors import GenerationError
from reviewgen.model import ReviewModel
from tests.support.fakes import LETTERS, LetterTokenizer, QueueModel, TableModel, review_model, table
from tests.support.foreign import foreign, foreign_texts
from tests.unit.test_guard import LOOP, WORD, Plain, counted, only

V = LETTERS.vocab_size


class TimedTable(TableModel):
    """A table for each place: of one for all places, texts of the same pairs in another order are equally probable."""

    def __call__(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.table[state + torch.arange(ids.shape[1]), ids], state + ids.shape[1]


def timed(vocab_size: int, seed: int, eos: float) -> Tensor:
    logits = torch.randn(40, vocab_size, vocab_size, generator=torch.Generator().manual_seed(seed))
    logits[..., 0], logits[..., 1] = -torch.inf, eos
    return logits


def both(seed: int, eos: float) -> tuple[Any, ReviewModel]:
    """Return transformers' model and this library's of one table."""
    logits = timed(V, seed, eos)
    model = TimedTable(table(V))  # its config is that of a table (V, V)
    model.table = logits
    return foreign(lambda ids: logits[torch.arange(ids.shape[1]), ids]), review_model(model, LETTERS)


# Against transformers.


@pytest.mark.parametrize("length_penalty", [0.5, 1.0, 2.0, 0.0, -1.0])
@pytest.mark.parametrize("beams", [2, 3, 5])
def test_beams_are_theirs(beams: int, length_penalty: float) -> None:
    for seed, prompt in enumerate(("", "abc", "a")):
        hf, model = both(seed, eos=(0.5, 1.5, -0.5)[seed])
        given = {"num_beams": beams, "num_return_sequences": beams, "length_penalty": length_penalty, "max_new_tokens": 12}
        wanted = foreign_texts(hf, LETTERS.encode(prompt), **given, do_sample=False, early_stopping=False)
        assert model.generate(prompt, **given) == wanted
        assert model.generate(prompt, **(given | {"num_return_sequences": 1})) == wanted[:1]


@pytest.mark.parametrize(
    "named",
    [
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 6},
        {"max_new_tokens": 1},
        {"temperature": 0.1},
    ],
    ids=str,
)
def test_beams_with_penalties_are_theirs(named: dict[str, Any]) -> None:
    for seed, prompt in enumerate(("", "cafe bad")):
        hf, model = both(seed + 5, eos=1.0)
        given = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 10} | named
        wanted = foreign_texts(hf, LETTERS.encode(prompt), **given, do_sample=False, early_stopping=False)
        assert model.generate(prompt, **given) == wanted


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_that_meet_a_stop_string_are_theirs(beams: int) -> None:
    """A stop string of one token is to transformers what a stopping criterion on the last token is."""
    (stop,) = LETTERS.encode("a")
    for seed in range(4):
        hf, model = both(seed, eos=0.0)
        given = {"num_beams": beams, "num_return_sequences": beams, "max_new_tokens": 8}
        criteria = [lambda ids, scores, **_: ids[:, -1] == stop]
        assert model.generate("b", **given, stop_strings="a") == foreign_texts(
            hf, LETTERS.encode("b"), **given, do_sample=False, early_stopping=False, stopping_criteria=criteria
        )


@pytest.mark.parametrize("is_block", [True, False])
def test_beams_of_an_ngram_are_theirs(is_block: bool) -> None:
    inner = counted(LOOP, order=4)

    def scores(ids: Tensor) -> Tensor:
        logits = inner(ids, inner.initial_state(len(ids)))[0].clone()
        logits[..., LETTERS.bos_id] = -torch.inf
        return logits

    hf, model = foreign(scores), review_model(inner if is_block else Plain(inner), LETTERS)
    for prompt in ("", "ga "):
        given = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 15, "no_repeat_ngram_size": 3}
        wanted = foreign_texts(hf, LETTERS.encode(prompt), **given, do_sample=False, early_stopping=False)
        assert model.generate(prompt, **given) == wanted


def test_beams_with_a_processor_of_transformers_are_theirs() -> None:
    from transformers import LogitsProcessorList, SequenceBiasLogitsProcessor

    hf, model = both(7, eos=0.0)
    processor = LogitsProcessorList([SequenceBiasLogitsProcessor([[LETTERS.encode("a"), 3.0], [LETTERS.encode("bc"), -9.0]])])
    given = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 8, "logits_processor": processor}
    assert model.generate("b", **given) == foreign_texts(hf, LETTERS.encode("b"), **given, do_sample=False, early_stopping=False)


# Against all texts.


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_enough_beams_find_the_best_of_all_texts(length: int, length_penalty: float) -> None:
    small = LetterTokenizer("ab")
    for seed in range(4):
        inner = TimedTable(table(4))
        inner.table = timed(4, seed, eos=0.0)
        steps = inner.table.double().log_softmax(-1).tolist()
        found: dict[str, float] = {}
        for size in range(length + 1):
            for letters in itertools.product((2, 3), repeat=size):
                ids = [0, *letters, 1] if size < length else [0, *letters]
                likelihood = sum(steps[t][a][b] for t, (a, b) in enumerate(itertools.pairwise(ids)))
                found[small.decode(ids)] = likelihood / (len(ids) - 1) ** length_penalty
        best = sorted(found, key=lambda text: -found[text])
        model = review_model(inner, small, max_new_tokens=length, length_penalty=length_penalty)
        count = len(best) if length_penalty == 0 else 2  # the heuristic of early_stopping=False may stop before the last ones
        assert model.generate(num_beams=64, num_return_sequences=len(best))[:count] == best[:count]


# Prompts, numbers, ends.


def test_each_prompt_is_searched_by_itself() -> None:
    _, model = both(3, eos=0.0)
    given = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 9}
    prompts = ["a", "", "bad"]
    together = model.generate(prompts, **given)
    assert together == [text for prompt in prompts for text in model.generate(prompt, **given)]
    assert model.generate(prompts, **given, seed=5) == together  # nothing is drawn
    for first in range(7):
        found = list(model.generate_each(prompts, **given, first=first))
        assert [text.text for text in found] == together[first:]
        assert [text.number for text in found] == list(range(first, 6))


@pytest.mark.parametrize("beams", [2, 5])
def test_a_prompt_that_is_spelled_again_comes_first(beams: int) -> None:
    logits = table(WORD.vocab_size, 2, scale=1.0)
    model = review_model(TableModel(logits), WORD, max_new_tokens=6)
    for prompt in ("", "the mov", "the ", "สวัส", "the movie was g"):
        for found in model.generate(prompt, num_beams=beams, num_return_sequences=2, return_dict_in_generate=True):
            assert found.text.startswith(prompt)
            assert WORD.decode(found.tokens) == found.text
            assert found.new_tokens <= 6 and found.finish_reason in ("length", "end")


def test_a_prompt_that_no_likely_token_spells() -> None:
    logits = torch.full((WORD.vocab_size,) * 2, -torch.inf)
    logits[:, WORD.encode(" ")[0]] = 0.0  # it can begin " movies" with the space, and then nothing fits
    model = review_model(TableModel(logits), WORD, max_new_tokens=3)
    assert model.generate("the movies", num_beams=2) == ["the movies   "]
    (found,) = model.generate("the movies", num_beams=2, return_dict_in_generate=True)
    assert WORD.decode(found.tokens) == found.text and found.new_tokens == 3


def test_the_reasons_to_end() -> None:
    model = review_model(QueueModel(LETTERS.encode("bad cafe"), LETTERS), LETTERS)

    def ended(**given: Any) -> tuple[str, str, int]:
        (found,) = model.generate(num_beams=2, return_dict_in_generate=True, **given)
        assert LETTERS.decode(found.tokens) == found.text
        return found.text, found.finish_reason, found.new_tokens

    assert ended() == ("bad cafe", "end", 8)
    assert ended(max_new_tokens=3) == ("bad", "length", 3)
    assert ended(stop_strings=["d c"]) == ("bad c", "stop", 5)
    assert ended(max_time=1e-9) == ("b", "time", 1)
    assert ended(max_new_tokens=0) == ("", "length", 0)


def test_no_new_tokens_are_rows_of_their_own() -> None:
    model = review_model(TableModel(table(WORD.vocab_size)), WORD)
    given = {"num_beams": 2, "num_return_sequences": 2, "max_new_tokens": 0}
    one, other = model.generate("the mov", **given, return_dict_in_generate=True)
    assert one.text == other.text == "the mov" and one.tokens == other.tokens == WORD.encode("the mov")
    one.tokens.clear()
    assert other.tokens


def test_beams_with_nothing_left_are_stuck() -> None:
    _, model = both(1, eos=0.0)
    (found,) = model.generate("", num_beams=2, no_repeat_ngram_size=1, min_new_tokens=15, return_dict_in_generate=True)
    assert found.finish_reason == "stuck" and sorted(found.text) == sorted(LETTERS.characters)
    (sampled,) = model.generate("", no_repeat_ngram_size=1, min_new_tokens=15, return_dict_in_generate=True)
    assert sampled.finish_reason == "stuck" and sorted(sampled.text) == sorted(LETTERS.characters)


def test_fewer_texts_than_are_asked_for_are_an_error() -> None:
    model = review_model(only({"": "a", "a": "b", "b": ""}), LETTERS)
    assert model.generate("", num_beams=3) == ["ab"]
    with pytest.raises(GenerationError, match=r"^num_return_sequences=3 is more than .* found after the prompt, 1\.$"):
        model.generate("", num_beams=3, num_return_sequences=3)


def test_log_probabilities_of_beams_are_the_model_s() -> None:
    logits = table(V, 4, eos=0.0)
    model = review_model(TableModel(logits), LETTERS, max_new_tokens=8)
    found = model.generate("ab", num_beams=4, num_return_sequences=4, length_penalty=0.0, return_dict_in_generate=True)
    for text in found:
        ids = [0, *text.tokens] + [1] * (text.finish_reason == "end")
        wanted = [logits.log_softmax(-1)[a, b].item() for a, b in itertools.pairwise(ids)]
        assert text.log_probabilities == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_damaged_weights_are_one_sentence(value: float) -> None:
    model = review_model(TableModel(torch.full((V, V), value)), LETTERS)
    for beams in (1, 2):
        with pytest.raises(GenerationError, match=r"^The model's logits are NaN or infinite[^.]*\.$"):
            model.generate("ab", num_beams=beams)
