"""Greedy texts, beams and hooks against transformers with the same logits; beams also against all
texts that there are.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    EosTokenCriteria,
    GenerationMixin,
    LogitsProcessorList,
    MaxLengthCriteria,
    MaxTimeCriteria,
    NoBadWordsLogitsProcessor,
    PretrainedConfig,
    PreTrainedModel,
    SequenceBiasLogitsProcessor,
    StoppingCriteriaList,
    TextStreamer,
)
from transformers.modeling_outputs import CausalLMOutput

from reviewgen import ReviewModel
from reviewgen.errors import GenerationError
from tests.support.fakes import LETTERS, QueueModel, TableModel, review_model, table
from tests.support.ngrams import LOOP, WORD, Plain, counted, only

V = LETTERS.vocab_size
(A,) = LETTERS.encode("a")
NGRAM = counted(LOOP, order=4)


class TableConfig(PretrainedConfig):
    """The settings that ``generate`` of transformers asks for."""

    model_type = "table"

    def __init__(self, vocab_size: int = LETTERS.vocab_size, **others: Any) -> None:
        super().__init__(
            **(
                {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "use_cache": False}
                | others
            )
        )
        self.vocab_size = vocab_size
        self.hidden_size = 1
        self.num_hidden_layers = 1
        self.num_attention_heads = 1


class TableForCausalLM(PreTrainedModel, GenerationMixin):
    """Scores the next token by a table of logits, or by any function of ids (B, T) that returns
    logits (B, T, V).
    """

    config_class = TableConfig

    def __init__(self, config: TableConfig, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__(config)
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.scores = scores

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> CausalLMOutput:
        return CausalLMOutput(logits=self.scores(input_ids).float())

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}


def foreign(logits: Tensor | Callable[[Tensor], Tensor]) -> TableForCausalLM:
    """Return the model of a table (V, V), in which bos cannot be written, as here."""
    if isinstance(logits, Tensor):
        masked = logits.clone()
        masked[:, LETTERS.bos_id] = -torch.inf
        return TableForCausalLM(TableConfig(), lambda ids: masked[ids])
    return TableForCausalLM(TableConfig(), logits)


def foreign_texts(model: TableForCausalLM, ids: Sequence[int], **settings: Any) -> list[str]:
    """Return what transformers writes after bos and ids."""
    read = torch.tensor([[LETTERS.bos_id, *ids]])
    written = model.generate(read, attention_mask=torch.ones_like(read), **settings)
    return [LETTERS.decode([token for token in row if token > 1]) for row in written.tolist()]


def of_ngram(ids: Tensor) -> Tensor:
    logits: Tensor = NGRAM(ids, NGRAM.initial_state(len(ids)))[0].clone()
    logits[..., LETTERS.bos_id] = -torch.inf
    return logits


class TimedTable(TableModel):
    """A table for each place: of one for all places, texts of the same pairs in another order are
    equally probable.
    """

    def __call__(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.table[state + torch.arange(ids.shape[1]), ids], state + ids.shape[1]


def timed(vocab_size: int, seed: int, eos: float) -> TimedTable:
    model = TimedTable(table(vocab_size))  # its config is that of a table (V, V)
    model.table = torch.randn(
        40, vocab_size, vocab_size, generator=torch.Generator().manual_seed(seed)
    )
    model.table[..., 0] = -torch.inf
    model.table[..., 1] = eos
    return model


def both(seed: int, eos: float) -> tuple[Any, ReviewModel]:
    """Return transformers' model and this library's of one table."""
    model = timed(V, seed, eos)
    return foreign(lambda ids: model.table[torch.arange(ids.shape[1]), ids]), review_model(
        model, LETTERS
    )


# Greedy texts.

GREEDY: list[dict[str, Any]] = [
    {},
    {"no_repeat_ngram_size": 1, "max_new_tokens": 4},
    {"min_new_tokens": 25, "no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
    {
        "logits_processor": LogitsProcessorList(
            [SequenceBiasLogitsProcessor([[[A], -4.0], [LETTERS.encode("ca"), 6.0]])]
        )
    },
    {
        "logits_processor": LogitsProcessorList(
            [NoBadWordsLogitsProcessor([[A], LETTERS.encode("ch")], eos_token_id=1)]
        )
    },
]


@pytest.mark.parametrize("named", GREEDY)
def test_greedy_texts_are_theirs_token_for_token(named):
    """Of a table, and of an n-gram with its own loop and without."""
    given = {"max_new_tokens": 25, "min_new_tokens": 0, "do_sample": False} | named
    for seed in range(3):
        logits = table(V, seed, eos=1.5 if seed % 2 else -1.0)
        hf = foreign(logits)
        model = review_model(TableModel(logits), LETTERS)
        for prompt in ("", "abc", "ha ha ha") if "max_new_tokens" not in named else ("", "abc"):
            assert model.generate(prompt, **given) == foreign_texts(
                hf, LETTERS.encode(prompt), **given
            )
    for prompt in ("", "abc", "ga c"):
        wanted = foreign_texts(foreign(of_ngram), LETTERS.encode(prompt), **given)
        for inner in (NGRAM, Plain(NGRAM)):
            assert review_model(inner, LETTERS).generate(prompt, **given) == wanted


# Beams.


@pytest.mark.parametrize(
    "beams, length_penalty", [(2, 0.5), (3, 1.0), (5, 2.0), (3, 0.0), (2, -1.0)]
)
def test_beams_are_theirs(beams, length_penalty):
    for seed, prompt in enumerate(("", "abc", "a")):
        hf, model = both(seed, eos=(0.5, 1.5, -0.5)[seed])
        given = {
            "num_beams": beams,
            "num_return_sequences": beams,
            "length_penalty": length_penalty,
            "max_new_tokens": 12,
        }
        wanted = foreign_texts(
            hf, LETTERS.encode(prompt), **given, do_sample=False, early_stopping=False
        )
        assert model.generate(prompt, **given) == wanted
        assert model.generate(prompt, **(given | {"num_return_sequences": 1})) == wanted[:1]


def test_beams_with_penalties_stop_strings_processors_and_of_an_n_gram_are_theirs():
    frame = {"num_beams": 3, "num_return_sequences": 3}
    # a stop string of one token is a stopping criterion on the last token
    (stop,) = LETTERS.encode("a")
    criteria = [lambda ids, scores, **_: ids[:, -1] == stop]
    processor = LogitsProcessorList(
        [SequenceBiasLogitsProcessor([[[A], 3.0], [LETTERS.encode("bc"), -9.0]])]
    )
    named: list[dict[str, Any]] = [
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 6},
        {"max_new_tokens": 1},
        {"temperature": 0.1},  # has no effect
        {"logits_processor": processor},
        {"stop_strings": "a"},
    ]
    for seed, options in itertools.product((5, 6), named):
        hf, model = both(seed, eos=1.0 if seed == 5 else 0.0)
        given = frame | {"max_new_tokens": 10} | options
        theirs = {name: value for name, value in given.items() if name != "stop_strings"} | {
            "do_sample": False
        }
        theirs |= {"stopping_criteria": criteria} if "stop_strings" in given else {}
        wanted = foreign_texts(hf, LETTERS.encode("cbb"), **theirs, early_stopping=False)
        assert model.generate("cbb", **given) == wanted, options
    given = frame | {"max_new_tokens": 15, "no_repeat_ngram_size": 3}
    for inner in (NGRAM, Plain(NGRAM)):
        wanted = foreign_texts(
            foreign(of_ngram), LETTERS.encode("ga "), **given, do_sample=False, early_stopping=False
        )
        assert review_model(inner, LETTERS).generate("ga ", **given) == wanted


def test_each_prompt_is_searched_by_itself():
    _, model = both(3, eos=0.0)
    given: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 9}
    prompts = ["a", "", "bad"]
    together = model.generate(prompts, **given)
    alone = (model.generate(prompt, **given) for prompt in prompts)
    assert together == list(itertools.chain.from_iterable(alone))
    assert model.generate(prompts, **given, seed=5) == together  # nothing is sampled
    for first in range(7):
        found = list(model.generate_each(prompts, **given, first=first))
        assert [(text.text, text.number) for text in found] == list(
            zip(together[first:], range(first, 6), strict=True)
        )


def test_beams_keep_the_prompt_and_their_limit_of_tokens():
    words = review_model(TableModel(table(WORD.vocab_size, 2, scale=1.0)), WORD, max_new_tokens=6)
    for text in words.generate(
        ["the mov", "the ", "สวัส"],
        num_beams=5,
        num_return_sequences=2,
        return_dict_in_generate=True,
    ):
        assert (
            text.text.startswith(text.prompt)
            and WORD.decode(text.tokens) == text.text
            and text.new_tokens <= 6
        )


def test_beams_without_new_tokens_are_the_prompt():
    words = review_model(TableModel(table(WORD.vocab_size, 2, scale=1.0)), WORD)
    one, other = words.generate(
        "the mov",
        num_beams=2,
        num_return_sequences=2,
        max_new_tokens=0,
        return_dict_in_generate=True,
    )
    assert (
        one.text == other.text == "the mov"
        and one.tokens is not other.tokens
        and one.tokens == WORD.encode("the mov")
    )


def test_more_texts_than_a_beam_search_finds_are_an_error():
    few = review_model(only({"": "a", "a": "b", "b": ""}), LETTERS)
    with pytest.raises(GenerationError, match=r"num_return_sequences=3 .* 1\."):
        few.generate("", num_beams=3, num_return_sequences=3)


# Logits processors, stopping criteria and streamers of transformers, unchanged.


def test_criteria_end_a_text():
    def after_d(ids: Tensor, scores: Tensor) -> bool:
        assert scores.shape == (1, V) and ids[0, 0] == LETTERS.bos_id
        return int(ids[0, -1]) == LETTERS.encode("d")[0]

    model = review_model(QueueModel(LETTERS.encode("bad cafe"), LETTERS), LETTERS)
    for criteria, text in (
        (after_d, "bad"),
        (lambda ids, scores: torch.tensor([ids.shape[1] == 3]), "ba"),
        (StoppingCriteriaList([MaxLengthCriteria(6)]), "bad c"),  # bos among them
        (StoppingCriteriaList([MaxTimeCriteria(1e-9)]), "b"),
        (
            StoppingCriteriaList([MaxTimeCriteria(1000), EosTokenCriteria(LETTERS.eos_id)]),
            "bad cafe",
        ),
        ([], "bad cafe"),
    ):
        (found,) = model.generate(stopping_criteria=criteria, return_dict_in_generate=True)
        assert (found.text, found.finish_reason) == (
            text,
            "end" if text == "bad cafe" else "criteria",
        )
        assert LETTERS.decode(found.tokens) == text
    words = review_model(TableModel(table(WORD.vocab_size)), WORD)
    for prompt in ("the mov", "the movie was g", ""):  # they wait for the first new token
        (found,) = words.generate(
            prompt, seed=2, stopping_criteria=lambda ids, _: True, return_dict_in_generate=True
        )
        assert (found.finish_reason, found.new_tokens) == ("criteria", 1) and len(found.text) > len(
            prompt
        )


def test_streamers_print_the_text(capsys):
    letters = [review_model(inner, LETTERS) for inner in (TableModel(table(V, 2, eos=-1.0)), NGRAM)]
    words = review_model(TableModel(table(WORD.vocab_size, eos=-2.0)), WORD)
    for model, prompt in [
        *itertools.product(letters, ("", "ab")),
        (words, "the mov"),
        (words, "the "),
        (words, ""),
    ]:
        given: dict[str, Any] = {"seed": 4, "max_new_tokens": 12}
        text = model.generate_one(prompt, **given, logits_processor=lambda ids, scores: scores)
        for skip in (False, True):
            capsys.readouterr()
            assert (
                model.generate_one(
                    prompt, **given, streamer=TextStreamer(model.tokenizer, skip_prompt=skip)
                )
                == text
            )
            # the last character may be cut off
            printed = capsys.readouterr().out.removesuffix("\n").rstrip("\ufffd")
            assert printed == (text.removeprefix(prompt) if skip else text)
