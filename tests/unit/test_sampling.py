"""Sampling: filters and draws against plain Python, and the decoding loop with models that need no training."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reviewgen_char.tokenizer import CharTokenizer
from reviewgen_word.tokenizer import WordConfig, WordTokenizer
from scipy.stats import chi2
from torch import Tensor

from reviewgen.compiled.sampling import apply_temperature
from reviewgen.compiled.sampling import sample_from as draw_one
from reviewgen.config import GenerationConfig
from reviewgen.errors import ConfigError
from reviewgen.generation import Pieces
from reviewgen.model import ReviewModel
from tests.support.fakes import LETTERS, TEXTS, QueueModel, TableModel, review_model, table
from tests.support.forked import run_python

WORD = WordTokenizer.train(TEXTS * 3, WordConfig(vocab_size=400))
CHAR = CharTokenizer.train(TEXTS, CharTokenizer.Config())


def letter_model(seed: int = 0, eos: float | None = None, **generation: float) -> ReviewModel:
    return review_model(TableModel(table(LETTERS.vocab_size, seed, eos=eos)), LETTERS, **generation)


def word_model(seed: int = 0, eos: float = -3.0, **generation: float) -> ReviewModel:
    """A model over BPE tokens that knows nothing; every prompt must work all the same."""
    return review_model(TableModel(table(WORD.vocab_size, seed, eos=eos)), WORD, **generation)


# The filters.


def distribution(logits: torch.Tensor, config: GenerationConfig) -> torch.Tensor:
    """Return what ``draw`` leaves of the weights, normalised."""
    weights = np.empty(logits.shape)
    for row, scores in zip(weights, logits.double().numpy(), strict=True):
        apply_temperature(scores, scores.max(), float(config.temperature), row)
        draw_one(row, config.top_k, float(config.top_p), float(config.min_p), 0.5)
    return torch.from_numpy(weights / weights.sum(-1, keepdims=True))


def sample_from(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    rows = probabilities.double().numpy().copy()
    return torch.tensor([draw_one(row, 0, 1.0, 0.0, number) for row, number in zip(rows, uniform.tolist(), strict=True)])


def plain_distribution(logits: Sequence[float], temperature: float, top_k: int, top_p: float, min_p: float) -> list[float]:
    """The definitions, one after the other: temperature, top-k, top-p, min-p, each on what the one before left."""
    scaled = [x / temperature for x in logits]
    kept = set(range(len(logits)))
    if top_k:
        kth = sorted(scaled, reverse=True)[min(top_k, len(scaled)) - 1]
        kept = {i for i in kept if scaled[i] >= kth}
    if top_p < 1:
        probabilities = normalise(scaled, kept)
        nucleus, total = set(), 0.0
        for i in sorted(kept, key=lambda i: -probabilities[i]):
            if total >= top_p and nucleus:
                break
            nucleus.add(i)
            total += probabilities[i]
        kept = nucleus
    if min_p:
        probabilities = normalise(scaled, kept)
        kept = {i for i in kept if probabilities[i] >= min_p * max(probabilities)}
    return normalise(scaled, kept)


def normalise(scaled: Sequence[float], kept: set[int]) -> list[float]:
    highest = max(scaled[i] for i in kept)
    weights = [math.exp(x - highest) if i in kept else 0.0 for i, x in enumerate(scaled)]
    return [w / sum(weights) for w in weights]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-800, 800).map(lambda x: x / 100), min_size=1, max_size=12, unique=True),
    st.sampled_from([0.3, 0.8, 1.0, 2.5]),
    st.sampled_from([0, 1, 2, 5, 12, 100]),
    st.sampled_from([1.0, 0.9, 0.5, 0.11, 1e-9]),
    st.sampled_from([0.0, 0.07, 0.4, 1.0]),
)
def test_filters_equal_plain_python(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    config = GenerationConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    found = distribution(torch.tensor([logits], dtype=torch.float64), config)[0]
    assert found.dtype == torch.float64
    wanted = plain_distribution(logits, temperature, top_k, top_p, min_p)
    assert found.sum().item() == pytest.approx(1, abs=1e-12)
    assert found.tolist() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    ("probabilities", "config", "kept"),
    [
        ([0.5, 0.3, 0.2], {"top_k": 1}, [0]),
        ([0.5, 0.3, 0.2], {"top_k": 2}, [0, 1]),
        ([0.5, 0.3, 0.2], {"top_k": 99}, [0, 1, 2]),
        ([0.5, 0.3, 0.2], {"top_p": 0.45}, [0]),
        ([0.5, 0.3, 0.2], {"top_p": 0.55}, [0, 1]),
        ([0.5, 0.3, 0.2], {"top_p": 0.85}, [0, 1, 2]),
        ([0.5, 0.3, 0.2], {"top_p": 1e-12}, [0]),
        ([0.5, 0.3, 0.2], {"min_p": 0.5}, [0, 1]),
        ([0.5, 0.3, 0.2], {"min_p": 1.0}, [0]),
        ([0.4, 0.3, 0.2, 0.1], {"top_k": 3, "top_p": 0.7}, [0, 1]),  # after top-k it is 4/9, 3/9, 2/9
        ([0.4, 0.3, 0.2, 0.1], {"top_p": 0.65, "min_p": 0.8}, [0]),
        ([0.25, 0.25, 0.25, 0.25], {"top_k": 2}, [0, 1, 2, 3]),  # a tie at the k-th place stays, as in transformers
        ([0.0, 1.0, 0.0], {"top_k": 2}, [1]),
        ([0.0, 0.6, 0.4], {}, [1, 2]),
    ],
)
def test_filters_mean_what_transformers_documents(probabilities: list[float], config: dict[str, float], kept: list[int]) -> None:
    found = distribution(torch.tensor([probabilities]).log(), GenerationConfig(**({"temperature": 1.0} | config)))[0]
    assert found.nonzero().flatten().tolist() == kept
    total = sum(probabilities[i] for i in kept)
    assert found[kept].tolist() == pytest.approx([probabilities[i] / total for i in kept], abs=1e-6)


def test_filters_equal_those_of_transformers() -> None:
    from transformers.generation import logits_process as processors

    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    scores = processors.TemperatureLogitsWarper(0.7)(None, logits.double())
    for warper in (processors.TopKLogitsWarper(20), processors.TopPLogitsWarper(0.8), processors.MinPLogitsWarper(0.1)):
        scores = warper(None, scores)
    found = distribution(logits, GenerationConfig(temperature=0.7, top_k=20, top_p=0.8, min_p=0.1))
    torch.testing.assert_close(found, scores.softmax(-1))


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e-3])
def test_a_temperature_near_zero_takes_the_most_probable(temperature: float) -> None:
    found = distribution(torch.tensor([[1.0, 3.0, -math.inf, 2.0]]), GenerationConfig(temperature=temperature))
    assert found.tolist() == [[0, 1, 0, 0]]


def test_an_endless_temperature_makes_the_possible_equal() -> None:
    found = distribution(torch.tensor([[1.0, 3.0, -math.inf, 2.0]]), GenerationConfig(temperature=1e300))
    assert found.tolist()[0] == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])


def test_rows_do_not_mix_and_the_logits_stay() -> None:
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(1))
    before = logits.clone()
    config = GenerationConfig(temperature=0.9, top_k=6, top_p=0.8, min_p=0.05)
    together = distribution(logits, config)
    torch.testing.assert_close(together, torch.cat([distribution(row[None], config) for row in logits]))
    assert torch.equal(logits, before)


# The draw.


def test_frequencies_follow_the_distribution() -> None:
    probabilities = torch.tensor([[0.4, 0.3, 0.0, 0.2, 0.0999, 0.0001]], dtype=torch.float64)
    count = 200_000
    uniform = torch.from_numpy(np.random.default_rng(5).random(count))
    tokens = sample_from(probabilities.expand(count, -1), uniform)
    observed = torch.bincount(tokens, minlength=6).double()
    assert observed[2] == 0
    expected = probabilities[0] * count
    possible = expected > 0
    statistic = (((observed - expected) ** 2 / expected)[possible]).sum().item()
    assert statistic < chi2.ppf(0.9999, possible.sum().item() - 1)


@pytest.mark.parametrize(
    ("probabilities", "uniform", "token"),
    [
        ([1.0], 0.0, 0),
        ([1.0], math.nextafter(1, 0), 0),
        ([0.0, 0.0, 1.0, 0.0], 0.999, 2),
        ([0.0, 5e-324, 0.0], 0.5, 1),
        ([5e-324, 1.0], 0.3, 1),
    ],
)
def test_the_only_likely_token_is_drawn(probabilities: list[float], uniform: float, token: int) -> None:
    drawn = sample_from(torch.tensor([probabilities], dtype=torch.float64), torch.tensor([uniform], dtype=torch.float64))
    assert drawn.tolist() == [token]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 1.0, 7.0]), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True))
def test_no_draw_is_impossible(weights: list[float], uniform: float) -> None:
    if not sum(weights):
        weights = [*weights, 1.0]
    probabilities = torch.tensor([weights], dtype=torch.float64) / sum(weights)
    token = sample_from(probabilities, torch.tensor([uniform], dtype=torch.float64)).item()
    assert probabilities[0, int(token)] > 0


def test_generated_frequencies_follow_the_table() -> None:
    logits = table(LETTERS.vocab_size, 3)
    model = review_model(TableModel(logits), LETTERS, max_new_tokens=1)
    texts = model.generate("a", num_return_sequences=4000, seed=11)
    after_a = logits[LETTERS.encode("a")[0]].double()
    after_a[LETTERS.bos_id] = -math.inf
    expected = after_a.softmax(-1) * len(texts)
    observed = Counter(LETTERS.encode(text[1:])[0] if len(text) > 1 else LETTERS.eos_id for text in texts)
    kept = [token for token in range(LETTERS.vocab_size) if expected[token] > 5]
    statistic = sum((observed[token] - expected[token].item()) ** 2 / expected[token].item() for token in kept)
    assert statistic < chi2.ppf(0.9999, len(kept))


# Seeds and random state.


def test_same_seed_same_text_other_seed_other_text() -> None:
    model = letter_model(eos=-9.0)
    assert model.generate_one("a", seed=4) == model.generate_one("a", seed=4)
    assert model.generate_one("a", seed=4) != model.generate_one("a", seed=5)
    assert model.generate_one("a") != model.generate_one("a")
    assert len(set(model.generate("a", num_return_sequences=20, seed=4))) == 20


def test_text_i_depends_on_neither_the_others_nor_the_batch() -> None:
    model = letter_model(seed=2)
    hundred = model.generate("ab", num_return_sequences=100, seed=7)
    for count in (1, 2, 64, 65):
        assert model.generate("ab", num_return_sequences=count, seed=7) == hundred[:count]
    assert model.generate(["ab", "gh fe", ""], seed=7)[0] == hundred[0]
    assert model.generate(["gh", "ab"], seed=7)[1] == hundred[1]
    assert "".join(model.stream("ab", seed=7)) == hundred[0]


def test_global_random_state_is_untouched() -> None:
    """In a process of its own: the checker of annotations in this one draws random numbers."""
    script = """
import random, numpy as np, torch
from tests.support.fakes import LETTERS, TableModel, review_model, table
state = lambda: (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())
model = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)
before = state()
model.generate(["ab", ""], num_return_sequences=2, seed=1)
model.generate_one()
list(model.stream("ab", seed=1))
assert state() == before
"""
    run_python(["-c", script], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("seed", [0, 1, (1 << 64) - 1])
def test_seeds_at_the_edges(seed: int) -> None:
    assert letter_model().generate_one(seed=seed) == letter_model().generate_one(seed=seed)


# Ends.


def test_stops_at_eos_and_says_the_prompt_first() -> None:
    answers = LETTERS.encode("bad")
    model = review_model(QueueModel(answers, LETTERS, skip=2), LETTERS)
    assert model.generate_one("a") == "abad"
    assert model.generate("a", num_return_sequences=3) == ["abad"] * 3


def test_rows_that_end_at_different_times() -> None:
    model = review_model(QueueModel(LETTERS.encode("bad cafe"), LETTERS, skip=1), LETTERS)
    assert model.generate(["", "xa", "bad c", "bad cafe", "h"]) == ["bad cafe", "xaad cafe", "bad cafe", "bad cafe", "had cafe"]


def test_bos_is_never_drawn() -> None:
    logits = torch.full((LETTERS.vocab_size,) * 2, -50.0)
    logits[:, LETTERS.bos_id] = 50.0
    logits[:, 2] = 0.0
    assert review_model(TableModel(logits), LETTERS, max_new_tokens=20).generate_one("", seed=0) == "a" * 20


@pytest.mark.parametrize("prompt", ["", "abc", "สวัสดี", "the "])
def test_no_new_tokens_is_the_prompt(prompt: str) -> None:
    for model in (letter_model(), word_model()):
        assert model.generate_one(prompt, max_new_tokens=0) == prompt
        assert "".join(model.stream(prompt, max_new_tokens=0)) == prompt


@pytest.mark.parametrize("count", [1, 2, 29])
def test_max_new_tokens_counts_new_tokens(count: int) -> None:
    assert len(letter_model(eos=-99.0).generate_one("abc", max_new_tokens=count)) == 3 + count


def test_reading_stops_when_every_row_has_ended() -> None:
    inner = QueueModel(LETTERS.encode("ab"), LETTERS, skip=1)
    review_model(inner, LETTERS, max_new_tokens=500).generate("", num_return_sequences=5)
    assert inner.calls == [] or len(inner.calls) < 5


@pytest.mark.parametrize(
    ("stops", "text"),
    [
        (["d c"], "bad c"),  # spans three tokens
        ("a", "ba"),
        (["z", "fe"], "bad cafe"),
        (["cafe", "ad"], "bad"),  # the first that it writes, not the first of the list
        (["ad", "bad"], "bad"),
        (["not in there"], "bad cafe"),
        (["bad cafe and far longer than the text"], "bad cafe"),
        ([], "bad cafe"),
        (["bad cafe"], "bad cafe"),
    ],
)
def test_stop_strings(stops: str | list[str], text: str) -> None:
    model = review_model(QueueModel(LETTERS.encode("bad cafe"), LETTERS), LETTERS)
    assert model.generate_one(stop_strings=stops) == text
    assert "".join(model.stream(stop_strings=stops)) == text


def test_a_stop_string_inside_the_prompt_does_not_count() -> None:
    model = review_model(QueueModel(LETTERS.encode("bad cafe"), LETTERS, skip=4), LETTERS)
    assert model.generate_one("cab", stop_strings=["ca"]) == "cabbad ca"
    assert model.generate_one("cab", stop_strings=["bb"]) == "cabbad cafe"  # half in the prompt


def test_a_stop_string_inside_a_bpe_token_cuts_the_text_there() -> None:
    ids = WORD.encode("the movie was good")
    model = review_model(QueueModel(ids, WORD), WORD)
    assert model.generate_one(stop_strings=["mov"]) == "the mov"
    assert model.generate_one(stop_strings=["e m"]) == "the m"
    assert "".join(model.stream(stop_strings=["e m"])) == "the m"


def test_a_stop_string_of_bytes() -> None:
    text = "ab👍cd สวัสดี"
    for tokenizer in (WORD, CHAR):
        model = review_model(QueueModel(tokenizer.encode(text), tokenizer), tokenizer, max_new_tokens=200)
        assert model.generate_one() == text
        assert model.generate_one(stop_strings=["👍"]) == "ab👍"
        assert model.generate_one(stop_strings=["วัส"]) == "ab👍cd สวัส"


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"top_p": 0.0},
        {"max_new_tokens": -1},
        {"min_p": 2.0},
        {"top_k": -1},
        {"seed": -1},
        {"seed": 1 << 64},
        {"stop_strings": [""]},
        {"stop_strings": ""},
    ],
)
def test_settings_out_of_range_are_refused_before_any_work(wrong: dict[str, float]) -> None:
    model = letter_model()
    with pytest.raises(ConfigError):
        model.generate("a", **wrong)
    with pytest.raises(ConfigError):
        model.stream("a", **wrong)
    with pytest.raises(ConfigError):
        model.generate("a", num_return_sequences=0)


# Prompts.

PROMPTS = [
    "",
    "the ",
    "the",
    "th",
    "the movie was g",
    "สวัสดีครับ",
    "👍🏽 ok",
    "ß∂ƒ unseen",
    "\n\n",
    "  ",
    "\ufffd",
    "a\0b",
    " \ufffd the ",
]


@pytest.mark.parametrize("tokenizer", [CHAR, WORD], ids=["char", "word"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
def test_any_prompt_comes_first_exactly(tokenizer: CharTokenizer | WordTokenizer, prompt: str) -> None:
    model = review_model(TableModel(table(tokenizer.vocab_size)), tokenizer)
    for text in model.generate(prompt, num_return_sequences=5, seed=3):
        assert text.startswith(prompt)
    assert "".join(model.stream(prompt, seed=3)) == model.generate_one(prompt, seed=3)


def test_prompts_of_different_lengths_in_one_call() -> None:
    model = word_model()
    texts = model.generate(PROMPTS, num_return_sequences=2, seed=5)
    assert len(texts) == 2 * len(PROMPTS)
    for prompt, pair in zip(PROMPTS, zip(texts[::2], texts[1::2], strict=True), strict=True):
        assert all(text.startswith(prompt) for text in pair)
    assert model.generate([], seed=5) == []


def test_a_prompt_of_a_hundred_thousand_characters() -> None:
    prompt = ("the movie was good, " * 5000)[:100_000]
    for tokenizer in (CHAR, WORD):
        inner = TableModel(table(tokenizer.vocab_size))
        model = review_model(inner, tokenizer, max_new_tokens=5)
        texts = model.generate(prompt, num_return_sequences=3, seed=1)
        assert all(text.startswith(prompt) for text in texts)
        assert max(shape[1] for shape in inner.calls) <= 512
        assert (
            sum(shape[1] for shape in inner.calls if shape[1] > 1) <= len(tokenizer.encode(prompt)) + 1
        )  # read once for all three


def test_a_lone_surrogate_in_the_prompt_comes_back() -> None:
    for model in (word_model(), review_model(TableModel(table(CHAR.vocab_size)), CHAR)):
        text = model.generate_one("a\ud800 b", seed=1)
        assert text.startswith("a\ud800 b")
        assert "".join(model.stream("a\ud800 b", seed=1)) == text


def test_a_tokenizer_that_loses_characters_loses_none_of_the_prompt() -> None:
    model = review_model(QueueModel(LETTERS.encode("bad cafe"), LETTERS, skip=2), LETTERS)
    assert model.generate_one("xyzbxyz") == "xyzbxyzbad cafe"
    assert "".join(model.stream("xyzbxyz")) == "xyzbxyzbad cafe"
    assert model.generate_one("xyzbxyz", stop_strings=["d c"]) == "xyzbxyzbad c"


# Token healing.


def favourite(first: str) -> ReviewModel:
    """A model that, wherever it is, wants to write the given token, then the end."""
    (token,) = WORD.encode(first)
    logits = torch.zeros(WORD.vocab_size, WORD.vocab_size)
    logits[:, token] = 30.0
    logits[token, WORD.eos_id] = 60.0
    return review_model(TableModel(logits), WORD)


def test_a_prompt_that_ends_in_a_space_continues_with_a_word_token() -> None:
    assert len(WORD.encode(" movie")) == 1
    model = favourite(" movie")
    assert set(model.generate("the ", num_return_sequences=20, seed=0)) == {"the movie"}
    assert set(model.generate("the mov", num_return_sequences=20, seed=0)) == {"the movie"}
    assert model.generate_one("the ", max_new_tokens=1, seed=0) == "the movie"


def test_the_model_reads_the_prompt_without_its_last_word() -> None:
    pieces = Pieces(WORD)
    assert pieces.split("the ").ids == WORD.encode("the")
    assert pieces.split("the ").rest == " "
    assert pieces.split("the mov").rest == " mov"
    assert pieces.split("").ids == []
    assert Pieces(CHAR).split("the ").rest == ""


def test_a_dead_end_is_spelled_as_the_tokenizer_does() -> None:
    """The model gives every token that would spell the prompt probability zero."""
    ends = torch.full((WORD.vocab_size, WORD.vocab_size), -math.inf)
    ends[:, WORD.eos_id] = 0.0
    model = review_model(TableModel(ends), WORD)
    for prompt in PROMPTS:
        assert model.generate_one(prompt, seed=0) == prompt
        assert "".join(model.stream(prompt, seed=0)) == prompt


def test_a_dead_end_in_the_middle_of_the_last_word() -> None:
    only = torch.full((WORD.vocab_size, WORD.vocab_size), -math.inf)
    only[:, WORD.encode(" ")[0]] = 0.0  # it can begin " movies" with the space, and then nothing fits
    model = review_model(TableModel(only), WORD, max_new_tokens=3)
    assert model.generate_one("the movies", seed=0) == "the movies   "


def test_the_forced_tokens_are_no_new_tokens() -> None:
    (dot,) = WORD.encode(".")
    only = torch.full((WORD.vocab_size, WORD.vocab_size), -math.inf)
    only[:, dot] = 0.0
    model = review_model(TableModel(only), WORD, max_new_tokens=3)
    assert model.generate_one("the ", seed=0) == "the ..."


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("the movie was.é👍ส\n\ufffd ") | st.characters(), max_size=20), st.integers(0, 99))
def test_every_text_begins_with_its_prompt(prompt: str, seed: int) -> None:
    model = word_model(seed % 3, max_new_tokens=6)
    text = model.generate_one(prompt, seed=seed)
    assert text.startswith(prompt)
    assert "".join(model.stream(prompt, seed=seed)) == text


# The stream.


def half_characters(pieces: list[str], text: str) -> list[str]:
    """Return the pieces, but for the last, that hold U+FFFD where the finished text has something else."""
    assert "".join(pieces) == text
    return [piece for piece in pieces[:-1] if "\ufffd" in piece]


@pytest.mark.parametrize("tokenizer", [CHAR, WORD], ids=["char", "word"])
def test_the_stream_never_yields_half_a_character(tokenizer: CharTokenizer | WordTokenizer) -> None:
    text = "ab 👍🏽 สวัสดี é\U0001f9d1\u200d\U0001f680 ok"
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)  # bytes
    model = review_model(QueueModel(ids, tokenizer), tokenizer, max_new_tokens=500)
    pieces = list(model.stream())
    assert half_characters(pieces, text) == []
    assert len(pieces) > 10


@pytest.mark.parametrize("tokenizer", [CHAR, WORD], ids=["char", "word"])
@pytest.mark.parametrize("length", range(1, 9))
def test_a_stream_cut_inside_a_character_equals_generate_one(tokenizer: CharTokenizer | WordTokenizer, length: int) -> None:
    model = review_model(QueueModel(tokenizer.encode("👍👍"), tokenizer), tokenizer, max_new_tokens=length)
    pieces = list(model.stream())
    assert half_characters(pieces, model.generate_one()) == []


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([CHAR, WORD]), st.integers(0, 10_000))
def test_streams_of_random_bytes_join_to_the_text(tokenizer: CharTokenizer | WordTokenizer, seed: int) -> None:
    """Half of what this model writes are bytes of the fallback, which may be no character at all."""
    pieces = Pieces(tokenizer).texts
    logits = torch.tensor([0.0 if piece else 3.0 for piece in pieces])
    logits[tokenizer.eos_id] = -2.0
    model = review_model(TableModel(logits.expand(len(pieces), -1)), tokenizer, max_new_tokens=40)
    assert "".join(model.stream("ส", seed=seed)) == model.generate_one("ส", seed=seed)


def test_the_stream_yields_the_prompt_first_and_no_empty_piece() -> None:
    model = word_model(eos=-9.0)
    pieces = list(model.stream("the mov", seed=1))
    assert pieces[0] == "the mov"
    assert all(pieces)
    assert len(pieces) > 5


def test_decoding_does_not_change_the_model_s_tensors() -> None:
    logits: Tensor = table(LETTERS.vocab_size)
    before = logits.clone()
    review_model(TableModel(logits), LETTERS).generate("a", num_return_sequences=3, seed=0, top_k=3)
    assert torch.equal(logits, before)
