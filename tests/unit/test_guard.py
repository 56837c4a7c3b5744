"""Decoding with a copy limit: the guarantee, dead ends, and a model's own sampling loop compared with the generic one."""

import pickle
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from reviewgen_ngram.model import Ngram, NgramConfig
from reviewgen_word.tokenizer import WordConfig, WordTokenizer
from scipy.stats import chi2_contingency
from torch import Tensor

from reviewgen.config import GenerationConfig
from reviewgen.generation import Generator, Pieces, Request
from reviewgen.generation.decode import MAX_RETRIES
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.generation.rows import Row
from reviewgen.model import GeneratedText, ReviewModel
from reviewgen.novelty import build_index
from reviewgen.protocols import SupportsSample
from tests.support.fakes import GRU, LETTERS, TEXTS, TableModel, review_model, table, train_tiny

WORD = WordTokenizer.train(TEXTS * 3, WordConfig(vocab_size=400))
LOOP = ["abcdefg" * 6, "ga cafe bad" * 3]  # no h
SHAPES = [{"temperature": 0.5}, {"temperature": 1.0}, {"temperature": 1.5, "top_k": 5}, {"temperature": 1.0, "top_p": 0.8}]


class Plain:
    """An n-gram model without its own sampling loop."""

    Config = NgramConfig

    def __init__(self, model: Ngram) -> None:
        self.model, self.config = model, model.config
        self.initial_state, self.state_dict, self.load_state_dict = model.initial_state, model.state_dict, model.load_state_dict

    def __call__(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.model(ids, state)


def counted(texts: Sequence[str], tokenizer: Any = LETTERS, **settings: Any) -> Ngram:
    """Return an n-gram model of texts."""
    model = Ngram(NgramConfig(vocab_size=tokenizer.vocab_size, **settings))
    for text in texts:
        model.observe(np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]))
    model.finish()
    return model


def indexed(model: Any, texts: Sequence[str], tokenizer: Any = LETTERS, **generation: Any) -> ReviewModel:
    """Return a ReviewModel with an exact index of texts."""
    ids = [token for text in texts for token in (tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id)]
    frame = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "vocab_size": tokenizer.vocab_size}
    found = review_model(model, tokenizer, **generation)
    characters = sum(map(len, texts))
    found._bundle.index = build_index(np.array(ids), **frame, characters=characters, fingerprint="", form="exact")
    return found


def looping(eos: float = -3.0) -> TableModel:
    """Return a model that favours abcdefgabcdefg... and can generate any token."""
    logits = table(LETTERS.vocab_size, scale=0.5, eos=eos)
    for letter in range(7):
        logits[2 + letter, 2 + (letter + 1) % 7] = 6.0
    return TableModel(logits)


def only(paths: dict[str, str], tokenizer: Any = LETTERS) -> TableModel:
    """Return a model that allows only some tokens after each piece; "" is bos as a key, and eos as a value."""
    pieces = {piece: token for token, piece in enumerate(Pieces(tokenizer).texts) if piece}
    logits = torch.full((tokenizer.vocab_size,) * 2, -torch.inf)
    logits[:, tokenizer.eos_id] = -1e9  # for rows that are never used
    for before, afters in paths.items():
        row = pieces[before] if before else tokenizer.bos_id
        logits[row] = -torch.inf
        for after in afters.split("|"):
            logits[row, pieces[after] if after else tokenizer.eos_id] = 0.0
    return TableModel(logits)


def written(
    model: ReviewModel, prompts: Sequence[str], max_copy: int | None, stops: Sequence[str] = (), seed: int = 0, **settings: Any
) -> list[Row]:
    """Return the generated rows, which have the ids and why each ended, not only the texts."""
    config = GenerationConfig(**({"temperature": 1.0, "max_new_tokens": 40, "stop_strings": tuple(stops)} | settings))
    novelty = None if max_copy is None else "filter"
    generator = Generator(make_stepper(model.model), model.tokenizer, index=model.bundle.index)
    return list(generator.generate(Request(prompts, config, seed, novelty=novelty, max_copy=max_copy)))


def longest_copy(ids: Sequence[int], texts: Sequence[str], tokenizer: Any = LETTERS) -> int:
    """Return the length in tokens of the longest span of ids that occurs in one of the texts."""
    corpus = ["".join(map(chr, tokenizer.encode(text))) for text in texts]
    found = "".join(map(chr, ids))
    spans = [(end - start) for start in range(len(ids)) for end in range(start + 1, len(ids) + 1)
             if any(found[start:end] in text for text in corpus)]  # fmt: skip
    return max(spans, default=0)


MODELS = {
    "table": (looping(), LOOP, LETTERS),
    "ngram": (counted(LOOP, order=5), LOOP, LETTERS),
    "ngram of words": (counted(TEXTS, WORD, order=4), TEXTS, WORD),
}


@pytest.mark.parametrize("max_copy", [0, 1, 3, 8])
@pytest.mark.parametrize("name", MODELS)
def test_no_text_has_a_longer_copied_span(name: str, max_copy: int) -> None:
    inner, texts, tokenizer = MODELS[name]
    model = indexed(inner, texts, tokenizer)
    for shape in SHAPES[: 2 if max_copy == 0 else 4]:  # where all but a few tokens are forbidden, top_p may leave none
        rows = written(model, [""] * 8, max_copy, **shape)
        assert max(longest_copy(row.ids, texts, tokenizer) for row in rows) <= max_copy
        assert not any(row.exceeds_limit for row in rows)
        free = written(model, [""] * 8, None, **shape)
        assert max(longest_copy(row.ids, texts, tokenizer) for row in free) > max_copy
        assert max(len(row.ids) for row in rows) > 5 or max_copy == 0


@pytest.mark.parametrize("name", MODELS)
def test_generate_reports_what_the_filter_did(name: str) -> None:
    inner, texts, tokenizer = MODELS[name]
    model = indexed(inner, texts, tokenizer)
    found = model.generate(num_return_sequences=8, seed=3, novelty="filter", max_copy=3, max_new_tokens=40)
    assert found == [row.text for row in written(model, [""] * 8, 3, seed=3)]
    for text in found:
        assert isinstance(text, GeneratedText)
        assert text.novelty.longest_tokens <= 3 and not text.exceeds_max_copy
    free = model.generate(num_return_sequences=8, seed=3, novelty="report", max_new_tokens=40)
    assert free == model.generate(num_return_sequences=8, seed=3, max_new_tokens=40)
    assert max(text.novelty.longest_tokens for text in free if isinstance(text, GeneratedText)) > 3


# Dead ends.


@pytest.mark.parametrize("max_copy", [0, 3])
@pytest.mark.parametrize("is_block", [False, True])
def test_a_text_that_cannot_avoid_a_copy_is_marked(is_block: bool, max_copy: int) -> None:
    ngram = counted(["bad cafe"] * 3, order=5, smoothing="none")
    model = indexed(ngram if is_block else Plain(ngram), ["bad cafe"] * 3)
    for text in model.generate(["", "bad", "bad c"], num_return_sequences=3, novelty="filter", max_copy=max_copy, seed=1):
        assert text == "bad cafe"
        assert isinstance(text, GeneratedText) and text.exceeds_max_copy
    free = model.generate("", novelty="filter", max_copy=8, seed=1)[0]
    assert free == "bad cafe" and isinstance(free, GeneratedText) and not free.exceeds_max_copy


def test_a_model_of_one_token_ends_in_bounded_time() -> None:
    inner = only({"": "a", "a": "a"})
    model = indexed(inner, ["a" * 50])
    (text,) = model.generate(novelty="filter", max_copy=5, max_new_tokens=30, seed=0)
    assert text == "a" * 30
    assert isinstance(text, GeneratedText) and text.exceeds_max_copy
    assert MAX_RETRIES < len(inner.calls) <= (MAX_RETRIES + 1) * 32


@pytest.mark.parametrize("is_block", [False, True])
def test_backtracking_finds_another_continuation(is_block: bool) -> None:
    """After abc only d is possible, which the limit forbids; two tokens earlier, h is possible."""
    inner = counted(["abcdef", "ah", "hh"], order=2, smoothing="none") if is_block else only(
        {"": "a", "a": "b|h", "b": "c", "c": "d", "d": "e", "e": "f", "f": "", "h": "h|"})  # fmt: skip
    model = indexed(inner, ["abcdef"])
    rows = written(model, [""] * 50, 3)
    assert not any(row.exceeds_limit for row in rows)
    assert all("d" not in row.text for row in rows)
    assert {row.retries for row in rows} > {0, 1}
    assert any("d" in row.text for row in written(model, [""] * 50, None))
    assert all(row.new_tokens == len(row.ids) for row in rows)


def test_backtracking_keeps_the_prompt() -> None:
    """The token that extends the prompt " mov" is part of it: backtracking past it would change the prompt."""
    paths = {"": "the", "the": " movie| acting", " movie": " was", " was": " good", " good": "", " acting": "."}
    model = indexed(only(paths | {".": ""}, WORD), ["the movie was good"], WORD)
    rows = written(model, ["the mov"] * 20, 2)
    assert {row.text for row in rows} == {"the movie was good"}
    assert all(row.exceeds_limit for row in rows)
    assert {row.text for row in written(model, ["the"] * 20, 2)} == {"the acting."}


def test_a_token_that_runs_on_from_the_prompt_may_not_complete_a_copy() -> None:
    logits = table(WORD.vocab_size, eos=-1.0)
    logits[:, WORD.encode(" movie")[0]] = 12.0
    model = indexed(TableModel(logits), ["the movie was good"], WORD)
    rows, free = (written(model, ["the mov"] * 20, limit, max_new_tokens=3) for limit in (1, None))
    pair = WORD.encode("the movie")
    assert len(pair) == 2
    assert all(row.text.startswith("the mov") and row.ids[:2] != pair and not row.exceeds_limit for row in rows)
    assert any(row.ids[:2] == pair for row in free)
    forced = indexed(only({"": "the", "the": " movie", " movie": ""}, WORD), ["the movie"], WORD)
    (row,) = written(forced, ["the mov"], 1)
    assert row.text == "the movie" and row.exceeds_limit


@pytest.mark.parametrize("name", ["table", "ngram"])
def test_the_end_keeps_its_probability(name: str) -> None:
    """Of the first tokens, all seen ones are forbidden; those rows end that would end without the guard, and no others."""
    inner = looping(eos=0.5) if name == "table" else counted([*LOOP, "", "", ""], order=3)
    model = indexed(inner, LOOP)
    guarded, free = (written(model, [""] * 500, limit, max_new_tokens=1) for limit in (0, None))
    ends = [[number for number, row in enumerate(rows) if row.finish_reason == "end"] for rows in (guarded, free)]
    assert ends[0] == ends[1] and 20 < len(ends[0]) < 400
    assert {row.text for row in guarded} <= {"", "h"} | ({" "} if name == "ngram" else set())


# Same seed, same texts.

PROMPTS = ["", "the mov", "the ", "the movie was g", "สวัส", "the movie was so so and I li"]


@pytest.fixture(scope="module")
def everyone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReviewModel]:
    cache = tmp_path_factory.mktemp("cache")
    exact = {"training": {"novelty": "exact", "threads": 1}}
    gru = {"model": GRU["model"], "training": GRU["training"] | exact["training"]}
    models = {name: train_tiny(name, cache, steps=3, **(gru if "gru" in name else exact)) for name in
              ("ngram-char", "ngram-word", "gru-word")}  # fmt: skip
    return models | {"dead ends": train_tiny("ngram-word", cache, model={"smoothing": "none"}, **exact)}


@pytest.mark.parametrize(
    "options", [{}, {"novelty": "filter", "max_copy": 4}, {"stop_strings": ["e ", "."], "top_p": 0.9}], ids=str
)
@pytest.mark.parametrize("name", ["ngram-char", "ngram-word", "gru-word", "dead ends"])
def test_a_text_depends_on_its_seed_and_index_only(everyone: dict[str, ReviewModel], name: str, options: dict[str, Any]) -> None:
    repeat, length = (2, 25) if name == "gru-word" else (12, 80)  # 72 rows are two batches, 80 tokens two blocks
    model, given = everyone[name], {"seed": 7, "max_new_tokens": length} | options
    texts = model.generate(PROMPTS, num_return_sequences=repeat, **given)
    assert all(text.startswith(prompt) for prompt, text in zip(np.repeat(PROMPTS, repeat).tolist(), texts, strict=True))
    assert texts[0] == model.generate_one("", **given)
    for number in range(repeat, len(texts), 2 * repeat + 1):
        others = ["bad "] * number
        assert model.generate([*others, PROMPTS[number // repeat]], **given)[-1] == texts[number]


@pytest.mark.parametrize("name", ["ngram-char", "ngram-word"])
def test_the_stream_of_a_model_s_own_loop_joins_to_the_text(everyone: dict[str, ReviewModel], name: str) -> None:
    model = everyone[name]
    for prompt in PROMPTS:
        for settings in ({}, {"stop_strings": ["e ", "."]}, {"max_new_tokens": 1}, {"temperature": 3.0}):
            pieces = list(model.stream(prompt, seed=5, **settings))
            assert "".join(pieces) == model.generate_one(prompt, seed=5, **settings)
            assert all(pieces)


# The model's own loop and the generic one.


def pair(texts: Sequence[str] = TEXTS, **settings: Any) -> list[ReviewModel]:
    """Return an n-gram model over words with its own sampling loop, and one without."""
    model = counted(texts, WORD, **settings)
    assert isinstance(make_stepper(model), SupportsSample) and not isinstance(make_stepper(Plain(model)), SupportsSample)
    return [indexed(inner, texts, WORD) for inner in (model, Plain(model))]


@pytest.mark.parametrize("limit", [1, 2, 63, 64, 65, 200])
@pytest.mark.parametrize("stops", [[], ["e m"], ["ood", " the"], ["never there"]], ids=str)
def test_both_loops_end_texts_alike(stops: list[str], limit: int) -> None:
    for model in pair(["".join(TEXTS)] * 2, order=2):
        rows = written(model, ["", "the mov", "the "] * 4, None, stops, seed=1, max_new_tokens=limit)
        for row in rows:
            assert row.new_tokens <= limit and row.finish_reason in ("end", "length", "stop")
            new = row.text[len(row.prompt) :]
            cuts = [new.find(stop) + len(stop) for stop in stops if stop in new]
            assert (row.finish_reason == "stop") == bool(cuts) and all(cut >= len(new) for cut in cuts)
            assert row.finish_reason != "length" or 0 <= limit - row.new_tokens <= 3  # without bytes of an incomplete character
            assert row.text.startswith(row.prompt)
            assert WORD.decode(row.ids).startswith(row.text)
            assert not row.ids or not WORD.decode(row.ids[:-1]).startswith(row.text)
        assert limit < 63 or stops != ["ood", " the"] or "stop" in {row.finish_reason for row in rows}
        assert limit > 2 or "length" in {row.finish_reason for row in rows}


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 5, "temperature": 1.4}], ids=str)
@pytest.mark.parametrize("max_copy", [None, 1])
def test_both_loops_sample_from_one_distribution(max_copy: int | None, settings: dict[str, Any]) -> None:
    counts = []
    for number, model in enumerate(pair(order=3)):
        rows = written(model, [""] * 1000, max_copy, seed=number, max_new_tokens=2, **settings)
        counts.append(Counter(tuple(row.ids) for row in rows))
    frequent = [key for key, count in (counts[0] + counts[1]).items() if count >= 10]
    observed = np.array([[count[key] for key in frequent] for count in counts])
    observed = np.c_[observed, 1000 - observed.sum(1)]  # and all the rare ones
    observed = observed[:, observed.sum(0) > 0]
    assert observed.shape[1] == 1 or chi2_contingency(observed).pvalue > 1e-4


@pytest.mark.parametrize("is_block", [True, False])
def test_a_report_covers_the_text_and_nothing_after_it(is_block: bool) -> None:
    model = pair(order=4)[0 if is_block else 1]
    for settings in ({"stop_strings": ["ov"]}, {"max_new_tokens": 0}, {"max_new_tokens": 3}):
        for text in model.generate(["", "the mov"], num_return_sequences=5, seed=2, novelty="report", **settings):
            assert isinstance(text, GeneratedText)
            room = 6 if "stop_strings" in settings else 0  # the rest of the last token
            assert len(text) <= text.novelty.characters <= len(text) + room


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 0.1])
def test_a_low_temperature_is_not_a_dead_end(temperature: float) -> None:
    model = indexed(looping(), LOOP)
    for text in model.generate(
        num_return_sequences=4, max_new_tokens=60, temperature=temperature, novelty="filter", max_copy=5, seed=1
    ):
        assert isinstance(text, GeneratedText) and not text.exceeds_max_copy
        assert text.novelty.longest_tokens <= 5


@pytest.mark.parametrize("max_copy", [10**6, 10**9, 10**30])
def test_a_limit_that_no_text_can_reach_costs_nothing(max_copy: int) -> None:
    for model in (indexed(looping(), LOOP), indexed(counted(LOOP, order=4), LOOP)):
        settings = {"max_new_tokens": 50, "seed": 2}
        assert model.generate_one(**settings, novelty="filter", max_copy=max_copy) == model.generate_one(**settings)


def test_a_huge_top_k_is_off() -> None:
    for model in (looping(), counted(LOOP, order=4)):
        found = review_model(model, LETTERS)
        settings = {"seed": 1, "max_new_tokens": 30}
        assert found.generate_one(**settings, top_k=10**30) == found.generate_one(**settings, top_k=0)


def test_a_generated_text_is_pickled_as_a_plain_string() -> None:
    text = indexed(looping(), LOOP).generate_one(novelty="report", max_new_tokens=20, seed=3)
    copied = pickle.loads(pickle.dumps(text))
    assert copied == text and type(copied) is str
