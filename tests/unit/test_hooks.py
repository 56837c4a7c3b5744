"""transformers' own logits processors, stopping criteria and streamers, unchanged; and what goes wrong in a caller's own."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reviewgen_char.tokenizer import CharTokenizer
from transformers import (
    EosTokenCriteria,
    LogitsProcessorList,
    MaxLengthCriteria,
    MaxTimeCriteria,
    NoBadWordsLogitsProcessor,
    SequenceBiasLogitsProcessor,
    StoppingCriteriaList,
    SuppressTokensLogitsProcessor,
    TextIteratorStreamer,
    TextStreamer,
    TypicalLogitsWarper,
)

from reviewgen.errors import ConfigError, GenerationError
from reviewgen.model import ReviewModel
from tests.support.fakes import LETTERS, QueueModel, TableModel, review_model, table
from tests.support.foreign import foreign, foreign_texts
from tests.unit.test_guard import LOOP, WORD, Plain, counted, indexed, only

V = LETTERS.vocab_size
LOGITS = table(V, 2, eos=-1.0)
A, B = LETTERS.encode("ab")

PROCESSORS: dict[str, Callable[[], Any]] = {
    "bias": lambda: SequenceBiasLogitsProcessor([[[A], -4.0], [LETTERS.encode("ca"), 6.0]]),
    "bad words": lambda: NoBadWordsLogitsProcessor([[A], LETTERS.encode("ch")], eos_token_id=1),
    "suppress": lambda: SuppressTokensLogitsProcessor([A, B]),
    "typical": lambda: TypicalLogitsWarper(mass=0.6),
}


def models() -> list[ReviewModel]:
    """A model without a loop of its own, and an n-gram with one and without."""
    ngram = counted(LOOP, order=3)
    return [review_model(inner, LETTERS) for inner in (TableModel(LOGITS), ngram, Plain(ngram))]


# Processors.


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_of_transformers_do_what_they_do_there(name: str) -> None:
    processors, hf, model = LogitsProcessorList([PROCESSORS[name]()]), foreign(LOGITS), models()[0]
    given = {"do_sample": False, "max_new_tokens": 20, "repetition_penalty": 1.2, "logits_processor": processors}
    for prompt in ("", "ch", "bad"):
        wanted = foreign_texts(hf, LETTERS.encode(prompt), **given)
        assert model.generate(prompt, **given) == wanted
        assert model.generate(prompt, **(given | {"logits_processor": PROCESSORS[name]()})) == wanted  # not in a list


def test_what_is_suppressed_is_not_written() -> None:
    processor = LogitsProcessorList([SuppressTokensLogitsProcessor([A, B])])
    for model in models():
        given = {"num_return_sequences": 20, "max_new_tokens": 30, "seed": 1}
        assert "a" in "".join(model.generate(**given))
        assert not {"a", "b"} & set("".join(model.generate(**given, logits_processor=processor)))


def test_a_processor_that_changes_nothing_changes_no_text() -> None:
    table_model, _, plain = models()  # a loop of its own spends its random numbers otherwise
    for model in (table_model, plain):
        for shape in ({}, {"temperature": 0.6, "top_p": 0.9}, {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}):
            given = shape | {"num_return_sequences": 5, "max_new_tokens": 20, "seed": 1}
            hooked = model.generate("ba", **given, logits_processor=lambda ids, scores: scores.clone())
            assert model.generate("ba", **given) == hooked


def test_processors_see_bos_the_prompt_and_what_was_written() -> None:
    seen: list[torch.Tensor] = []

    def look(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        assert ids.dtype == torch.int64 and ids.shape[0] == 1
        assert scores.dtype == torch.float32 and scores.shape == (1, V)
        assert scores[0, LETTERS.bos_id] == -torch.inf
        seen.append(ids)
        return scores

    model = review_model(QueueModel(LETTERS.encode("bad"), LETTERS, skip=3), LETTERS)
    assert model.generate("ca", logits_processor=look) == ["cabad"]
    assert [ids[0].tolist() for ids in seen] == [[0, *LETTERS.encode("cabad"[:size])] for size in range(2, 6)]


def test_the_scores_are_the_logits_after_penalties() -> None:
    seen: list[torch.Tensor] = []
    model = review_model(TableModel(LOGITS), LETTERS)

    def look(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(scores.clone())
        return scores

    given = {"max_new_tokens": 1, "repetition_penalty": 2.0, "min_new_tokens": 1, "temperature": 0.5, "top_k": 3}
    model.generate("ab", logits_processor=look, **given)
    wanted = LOGITS[B].clone()
    for token in (0, A, B):
        wanted[token] = wanted[token] / 2 if wanted[token] > 0 else wanted[token] * 2
    wanted[[0, 1]] = -torch.inf
    torch.testing.assert_close(seen[0][0], wanted)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (lambda ids, scores: scores * torch.nan, "returns scores that are not numbers"),
        (lambda ids, scores: torch.full_like(scores, -torch.inf), "rule out every token after 1 token,"),
        (lambda ids, scores: scores[:, :-1], r"should return scores of shape \(1, 11\); it returned \(1, 10\)"),
        (lambda ids, scores: scores[0], r"it returned \(11,\)"),
        (lambda ids, scores: None, "it returned NoneType"),
        (lambda ids, scores: scores.tolist(), "it returned list"),
        (lambda ids, scores: scores.fill_(torch.inf), "returns scores that are not numbers"),
    ],
)
@pytest.mark.parametrize("beams", [1, 2])
def test_a_processor_that_returns_nonsense_is_one_sentence(processor: Any, message: str, beams: int) -> None:
    for model in models():
        with pytest.raises(GenerationError, match=message) as caught:
            model.generate("a", logits_processor=processor, num_beams=beams)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupt_in_a_processor_leaves_the_model_usable(error: type[BaseException]) -> None:
    def interrupt(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] > 5:
            raise error
        return scores

    for model in models():
        before = model.generate("ab", seed=1, max_new_tokens=20, num_return_sequences=3)
        with pytest.raises(error):
            model.generate("ab", seed=1, max_new_tokens=20, min_new_tokens=20, logits_processor=interrupt)
        assert model.generate("ab", seed=1, max_new_tokens=20, num_return_sequences=3) == before


@pytest.mark.parametrize("wrong", [{"logits_processor": 3}, {"logits_processor": [3]}, {"stopping_criteria": "end"}], ids=str)
def test_what_cannot_be_called_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name} is a function of ids and scores"):
        models()[0].generate(**wrong)


# Stopping criteria.


def test_criteria_end_a_text() -> None:
    def after_d(ids: torch.Tensor, scores: torch.Tensor) -> bool:
        assert scores.shape == (1, V) and ids[0, 0] == LETTERS.bos_id
        return int(ids[0, -1]) == LETTERS.encode("d")[0]

    model = review_model(QueueModel(LETTERS.encode("bad cafe"), LETTERS), LETTERS)
    for criteria, text in (
        (after_d, "bad"),
        ([after_d], "bad"),
        (StoppingCriteriaList([after_d]), "bad"),
        (lambda ids, scores: torch.tensor([ids.shape[1] == 3]), "ba"),
        (StoppingCriteriaList([MaxLengthCriteria(6)]), "bad c"),  # bos among them
        (StoppingCriteriaList([EosTokenCriteria(LETTERS.encode("c")[0])]), "bad c"),
        (StoppingCriteriaList([MaxTimeCriteria(1e-9)]), "b"),
        (StoppingCriteriaList([MaxTimeCriteria(1000), EosTokenCriteria(LETTERS.eos_id)]), "bad cafe"),
        ([], "bad cafe"),
    ):
        (found,) = model.generate(stopping_criteria=criteria, return_dict_in_generate=True)
        assert found.text == text
        assert found.finish_reason == ("end" if text == "bad cafe" else "criteria")
        assert LETTERS.decode(found.tokens) == text


def test_criteria_end_each_text_by_itself() -> None:
    for model in models():
        texts = model.generate(
            ["", "ab"], num_return_sequences=10, seed=2, max_new_tokens=30, stopping_criteria=lambda ids, _: ids[0, -1] == A
        )
        assert {text.removeprefix("ab").find("a") for text in texts} > {-1}
        assert all("a" not in text.removeprefix("ab")[:-1] for text in texts)


def test_criteria_wait_for_the_first_new_token() -> None:
    """The prompt's last word is spelled again, token by token, of which none is new."""
    model = review_model(TableModel(table(WORD.vocab_size)), WORD)
    for prompt in ("the mov", "the movie was g", ""):
        (found,) = model.generate(prompt, seed=2, stopping_criteria=lambda ids, _: True, return_dict_in_generate=True)
        assert found.finish_reason == "criteria" and found.new_tokens == 1
        assert len(found.text) > len(prompt) and WORD.decode(found.tokens) == found.text


# Streamers.


class Recorder:
    """A streamer that keeps all it gets."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.ids: list[int] = []
        self.ends = 0

    def put(self, ids: torch.Tensor) -> None:
        self.shapes.append(tuple(ids.shape))
        self.ids += ids.flatten().tolist()

    def end(self) -> None:
        self.ends += 1


@pytest.mark.parametrize("prompt", ["", "ab", "bad cafe"])
def test_text_streamers_say_the_text(prompt: str, capsys: pytest.CaptureFixture[str]) -> None:
    for model in models():
        given = {"seed": 4, "max_new_tokens": 25}
        text = model.generate_one(prompt, **given, logits_processor=lambda ids, scores: scores)
        capsys.readouterr()
        assert model.generate_one(prompt, **given, streamer=TextStreamer(LETTERS)) == text
        assert capsys.readouterr().out == text + "\n"
        assert model.generate_one(prompt, **given, streamer=TextStreamer(LETTERS, skip_prompt=True)) == text
        printed = capsys.readouterr().out.removesuffix("\n")
        assert printed.rstrip("\ufffd") == text.removeprefix(prompt)  # the last character may be cut off


def test_a_text_streamer_takes_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = "one\ntwo\n\nthree words\n"
    for tokenizer in (CharTokenizer.train([lines], CharTokenizer.Config()), WORD):
        model = review_model(QueueModel(tokenizer.encode(lines), tokenizer), tokenizer, max_new_tokens=100)
        assert model.generate_one(streamer=TextStreamer(tokenizer)) == lines
        assert capsys.readouterr().out == lines + "\n"


@pytest.mark.parametrize("prompt", ["the mov", "the movie was g", "the "])
def test_a_prompt_is_skipped_whole(prompt: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its last word is spelled by the model, which may run on from it."""
    model = review_model(TableModel(table(WORD.vocab_size, eos=-2.0)), WORD, max_new_tokens=8)
    for seed in range(5):
        text = model.generate_one(prompt, seed=seed)
        capsys.readouterr()
        assert model.generate_one(prompt, seed=seed, streamer=TextStreamer(WORD, skip_prompt=True)) == text
        printed = capsys.readouterr().out.removesuffix("\n")
        assert printed.rstrip("\ufffd") == text.removeprefix(prompt)  # the last character may be cut off


@pytest.mark.parametrize("length", [0, 1, 30])
def test_a_text_iterator_streamer_ends(length: int) -> None:
    for prompt in ("", "the mov", "the "):
        model = review_model(TableModel(table(WORD.vocab_size, eos=-2.0)), WORD)
        streamer = TextIteratorStreamer(WORD, timeout=300.0)
        given = {"seed": 1, "max_new_tokens": length}
        thread = threading.Thread(target=model.generate_one, args=(prompt,), kwargs={**given, "streamer": streamer})
        thread.start()
        text = "".join(streamer)
        thread.join()
        assert text.rstrip("\ufffd") == model.generate_one(prompt, **given)


def test_a_streamer_gets_the_prompt_once_and_each_token() -> None:
    streamer, model = Recorder(), review_model(QueueModel(LETTERS.encode("bad"), LETTERS, skip=3), LETTERS)
    assert model.generate_one("ca", streamer=streamer) == "cabad"
    assert streamer.shapes == [(1, 3), (1,), (1,), (1,)] and streamer.ids == [0, *LETTERS.encode("cabad")] and streamer.ends == 1


def test_a_streamer_gets_the_tokens_that_spell_the_prompt() -> None:
    logits = torch.full((WORD.vocab_size,) * 2, -torch.inf)
    logits[:, WORD.encode(" ")[0]] = 0.0
    for model in (review_model(TableModel(logits), WORD, max_new_tokens=3), review_model(counted(["the movie"], WORD), WORD)):
        for prompt in ("the movies", "the mo", "the xyz"):
            streamer = Recorder()
            text = model.generate_one(prompt, streamer=streamer, seed=1)
            assert WORD.decode([token for token in streamer.ids if token > 1]) == text and streamer.ends == 1


def test_a_penalty_does_not_keep_a_prompt_from_being_spelled() -> None:
    """Its last word may not be repeated, and nothing else spells it."""
    paths = {"": "the", "the": " movie", " movie": " movie|.", ".": ""}
    model = review_model(only(paths, WORD), WORD, no_repeat_ngram_size=1)
    for hooks in ({}, {"streamer": Recorder()}):
        (found,) = model.generate("the movie movie", **hooks, return_dict_in_generate=True)
        assert (found.text, found.finish_reason) == ("the movie movie.", "end")
        assert WORD.decode(found.tokens) == found.text


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"num_return_sequences": 2}, "A streamer takes one text; this call asks for 2"),
        ({"prompt": ["a", "b"]}, "A streamer takes one text; this call asks for 2"),
        ({"num_beams": 2}, "num_beams cannot be combined with a streamer"),
        ({"must_include": "a"}, "cannot be combined with a streamer"),
        ({"finish": "sentence"}, "cannot be combined with a streamer"),
        ({"novelty": "filter"}, "cannot be combined with a streamer"),
    ],
    ids=str,
)
def test_what_a_streamer_cannot_show_is_refused(named: dict[str, Any], message: str) -> None:
    streamer = Recorder()
    with pytest.raises(ConfigError, match=message):
        indexed(TableModel(LOGITS), LOOP).generate(streamer=streamer, **named)
    assert not streamer.shapes


def test_a_streamer_needs_its_methods() -> None:
    with pytest.raises(ConfigError, match="streamer needs the methods put and end, as transformers' have; got function"):
        models()[0].generate(streamer=lambda ids: None)
