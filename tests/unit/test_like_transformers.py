"""The draw and the greedy text against transformers itself: its logits processors, and its ``generate`` with the same logits."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as processors

from reviewgen.compiled.sampling import NOTHING_LEFT, SamplingParams, apply_penalties, sample_token
from reviewgen.compiled.windows import NO_WINDOWS
from reviewgen.config import GenerationConfig
from reviewgen.generation.decode import make_sampling_params
from tests.support.fakes import LETTERS, TableModel, review_model, table
from tests.support.foreign import foreign, foreign_texts
from tests.support.race import draw
from tests.unit.test_guard import LOOP, Plain, counted

V = LETTERS.vocab_size
LOGITS = st.lists(st.integers(-900, 900).map(lambda x: x / 100), min_size=V, max_size=V, unique=True)
HISTORY = st.lists(st.integers(2, V - 1), max_size=20) | st.lists(st.integers(2, 4), max_size=20)


def drawing_of(**named: Any) -> SamplingParams:
    return make_sampling_params(GenerationConfig(**({"temperature": 1.0} | named)), LETTERS)


def adjusted(logits: list[float], history: list[int], written: int, drawing: SamplingParams) -> np.ndarray:
    scores, text = np.empty(V), np.array([0, *history], np.int64)
    apply_penalties(np.array(logits), text, len(text), written, drawing, scores)
    return scores


def theirs(logits: list[float], history: list[int], *chain: processors.LogitsProcessor) -> np.ndarray:
    """Return the scores after transformers' processors; bos is ruled out first, as here."""
    scores = torch.tensor([logits], dtype=torch.float64)
    scores[0, 0] = -torch.inf
    found: np.ndarray = processors.LogitsProcessorList(chain)(torch.tensor([[0, *history]]), scores)[0].numpy()
    return found


# What rules out and penalises.


@settings(max_examples=40)
@given(LOGITS, HISTORY, st.sampled_from([0.3, 0.9, 1.0, 1.1, 2.0, 30.0]))
def test_the_repetition_penalty_is_theirs(logits: list[float], history: list[int], penalty: float) -> None:
    found = adjusted(logits, history, len(history), drawing_of(repetition_penalty=penalty))
    np.testing.assert_allclose(found, theirs(logits, history, processors.RepetitionPenaltyLogitsProcessor(penalty)), rtol=1e-12)


@settings(max_examples=50)
@given(LOGITS, HISTORY, st.integers(1, 7))
def test_the_ngrams_that_may_not_repeat_are_theirs(logits: list[float], history: list[int], size: int) -> None:
    found = adjusted(logits, history, len(history), drawing_of(no_repeat_ngram_size=size))
    np.testing.assert_array_equal(found, theirs(logits, history, processors.NoRepeatNGramLogitsProcessor(size)))


@settings(max_examples=40)
@given(LOGITS, HISTORY, st.integers(0, 20), st.integers(1, 20))
def test_the_least_new_tokens_are_theirs(logits: list[float], history: list[int], prompt: int, least: int) -> None:
    prompt = min(prompt, len(history))
    chain = processors.MinNewTokensLengthLogitsProcessor(1 + prompt, least, LETTERS.eos_id)
    found = adjusted(logits, history, len(history) - prompt, drawing_of(min_new_tokens=least))
    np.testing.assert_array_equal(found, theirs(logits, history, chain))


SETTINGS = st.fixed_dictionaries(
    {
        "repetition_penalty": st.sampled_from([1.0, 0.8, 1.3]),
        "no_repeat_ngram_size": st.sampled_from([0, 1, 2, 3]),
        "min_new_tokens": st.sampled_from([0, 8]),
        "temperature": st.sampled_from([0.4, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 1, 3, V, 99]),
        "top_p": st.sampled_from([1.0, 0.9, 0.4]),
        "min_p": st.sampled_from([0.0, 0.05, 0.5]),
    }
)


def chain_of(named: dict[str, Any]) -> list[processors.LogitsProcessor]:
    """Return transformers' chain, in the order in which its ``generate`` puts it together."""
    chain: list[processors.LogitsProcessor] = [processors.RepetitionPenaltyLogitsProcessor(named["repetition_penalty"])]
    if named["no_repeat_ngram_size"]:
        chain.append(processors.NoRepeatNGramLogitsProcessor(named["no_repeat_ngram_size"]))
    if named["min_new_tokens"]:
        chain.append(processors.MinNewTokensLengthLogitsProcessor(1, named["min_new_tokens"], LETTERS.eos_id))
    chain.append(processors.TemperatureLogitsWarper(named["temperature"]))
    chain += [processors.TopKLogitsWarper(named["top_k"])] if named["top_k"] else []
    chain += [processors.TopPLogitsWarper(named["top_p"])] if named["top_p"] < 1 else []
    return chain + ([processors.MinPLogitsWarper(named["min_p"])] if named["min_p"] else [])


def chosen(logits: list[float], history: list[int], drawing: SamplingParams, number: float) -> int:
    scores, weights, text = np.empty(V), np.empty(V), np.array([0, *history, 0], np.int64)
    place, written = len(history) + 1, len(history)
    unconstrained = NO_WINDOWS, 0, None, np.zeros(3, np.int64)
    return int(sample_token(np.array(logits), text, place, written, number, drawing, *unconstrained, scores, weights))


@settings(max_examples=80)
@given(LOGITS, HISTORY, SETTINGS)
def test_the_draw_is_from_their_distribution(logits: list[float], history: list[int], named: dict[str, Any]) -> None:
    """Each number gives the token that it gives with their probabilities."""
    chain = theirs(logits, history, *chain_of(named))
    probabilities = torch.from_numpy(chain).softmax(0).numpy()
    drawing = drawing_of(**named)
    if np.isnan(probabilities).any():  # all are ruled out, which transformers lets become NaN
        assert chosen(logits, history, drawing, 0.5) == NOTHING_LEFT
        return
    for number in np.random.default_rng(0).random(30).tolist():
        assert chosen(logits, history, drawing, number) == draw(probabilities, number)


@settings(max_examples=40)
@given(LOGITS, HISTORY, SETTINGS, st.floats(0, 1, exclude_max=True))
def test_without_do_sample_the_most_probable_is_taken(
    logits: list[float], history: list[int], named: dict[str, Any], number: float
) -> None:
    scores = theirs(logits, history, *chain_of(named)[:-1])
    token = chosen(logits, history, drawing_of(**named, do_sample=False), number)
    assert token == (scores.argmax() if np.isfinite(scores).any() else NOTHING_LEFT)


def test_one_drawing_of_many_rows_equals_one_each() -> None:
    """Rows of different lengths in one batch: the shorter ones are padded for the compiled sample_from, which must not count."""
    model = review_model(TableModel(table(V, 5, eos=-9.0)), LETTERS, max_new_tokens=12, no_repeat_ngram_size=3)
    prompts = ["", "a", "abcabdabe", "a b a c"]
    for named in ({"repetition_penalty": 1.4}, {"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 2, "do_sample": False}):
        together = model.generate(prompts, seed=3, **named)
        for number, prompt in enumerate(prompts):
            assert next(model.generate_each([""] * number + [prompt], first=number, seed=3, **named)).text == together[number]


# Whole texts.

GREEDY = [
    {},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.1},
    {"min_new_tokens": 5},
    {"min_new_tokens": 25, "no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("named", GREEDY, ids=str)
def test_greedy_texts_are_theirs_token_for_token(named: dict[str, Any]) -> None:
    for seed in range(4):
        logits = table(V, seed, eos=1.5 if seed % 2 else -1.0)
        hf, model = foreign(logits), review_model(TableModel(logits), LETTERS)
        for prompt in ("", "abc", "ha ha ha"):
            length = 8 if named.get("no_repeat_ngram_size") == 1 else 25  # there are nine letters
            least = min(named.get("min_new_tokens", 0), length)
            given = named | {"max_new_tokens": length, "min_new_tokens": least, "do_sample": False}
            if named.get("no_repeat_ngram_size") == 1 and prompt:
                given |= {"max_new_tokens": 2}
            assert model.generate(prompt, **given) == foreign_texts(hf, LETTERS.encode(prompt), **given)


@pytest.mark.parametrize("named", GREEDY, ids=str)
@pytest.mark.parametrize("is_block", [True, False])
def test_greedy_texts_of_an_ngram_are_theirs(is_block: bool, named: dict[str, Any]) -> None:
    """With the model's own loop, and without."""
    inner = counted(LOOP, order=4)

    def scores(ids: torch.Tensor) -> torch.Tensor:
        logits = inner(ids, inner.initial_state(len(ids)))[0].clone()
        logits[..., LETTERS.bos_id] = -torch.inf
        return logits

    hf, model = foreign(scores), review_model(inner if is_block else Plain(inner), LETTERS)
    for prompt in ("", "abc", "ga c"):
        length = 4 if named.get("no_repeat_ngram_size") == 1 else 40
        given = named | {"max_new_tokens": length, "do_sample": False}
        given["min_new_tokens"] = min(named.get("min_new_tokens", 0), length)
        assert model.generate(prompt, **given) == foreign_texts(hf, LETTERS.encode(prompt), **given)


def test_greedy_texts_of_a_random_gpt2_are_theirs() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    frame = {"vocab_size": V, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "n_positions": 64}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        gpt = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, initializer_range=0.6, **frame)).eval()

    class Wrapped(TableModel):
        """GPT-2 as a model of this library; its state is all that it has read."""

        def initial_state(self, batch_size: int) -> torch.Tensor:
            return torch.zeros(batch_size, 0, dtype=torch.int64)

        def __call__(self, ids: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            read = torch.cat((state, ids), 1)
            logits = gpt(input_ids=read).logits[:, -ids.shape[1] :]
            return logits, read

    model = review_model(Wrapped(torch.zeros(V, V)), LETTERS)
    gpt.generation_config.suppress_tokens = [0]
    for prompt in ("", "bad ", "cafe"):
        for named in ({}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2, "min_new_tokens": 20}):
            given = named | {"max_new_tokens": 30, "do_sample": False}
            assert model.generate(prompt, **given) == foreign_texts(gpt, LETTERS.encode(prompt), **given)
