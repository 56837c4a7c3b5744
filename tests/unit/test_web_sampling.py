"""Sampling and decoding in JavaScript: the tokens and texts of Python, for equal logits and equal seeds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from reviewgen_char.tokenizer import CharTokenizer
from reviewgen_word.tokenizer import WordConfig, WordTokenizer

from reviewgen.compiled.sampling import SamplingParams, sample_rows
from reviewgen.compiled.spelling import no_places
from reviewgen.compiled.windows import NO_WINDOWS
from reviewgen.conditions import Condition, Conditions, Value
from reviewgen.lexicon import Lexicon
from reviewgen.registry import Plugin
from tests.support.fakes import TEXTS, TableModel, review_model, table
from tests.support.node import why_no_node
from tests.support.web_engine import ask, complete, write_packed

pytestmark = pytest.mark.skipif(why_no_node() is not None, reason=str(why_no_node()))
TOKENIZERS = {
    "char": CharTokenizer.train(TEXTS, CharTokenizer.Config()),
    "word": WordTokenizer.train(TEXTS * 3, WordConfig(vocab_size=400)),
}
LEXICON = Lexicon.of(["the", "movie", "was", "good", "très", "a", "I"], [" ", ". ", ".", ", "])


def model(name: str, seed: int = 0, *, eos: float = -1.0, lexicon: Lexicon | None = LEXICON, conditions: int = 0, **generation):
    """Return a model of random logits over a real tokenizer, as in ``tests.support.fakes``."""
    tokenizer = TOKENIZERS[name]
    values = tuple(Value(label=str(number), share=0.1, low=number, high=number) for number in range(1, conditions))
    found = Conditions((Condition(name="stars", kind="number", values=values),) if conditions else (), tokenizer.vocab_size)
    logits = table(found.vocab_size, seed)
    logits[:, tokenizer.eos_id] = eos
    made = review_model(TableModel(logits), tokenizer, **generation)
    plugin = Plugin("tokenizer", name, "reviewgen", "0")
    made._bundle = replace(
        made.bundle, tokenizer_plugin=plugin, tokenizer_config=tokenizer.Config(), lexicon=lexicon, conditions=found
    )
    return made


def in_python(made, prompt="", n=1, seed=0, **settings):
    generations = made.generate(prompt, return_dict_in_generate=True, num_return_sequences=n, seed=seed, **settings)
    return [(each.text, each.finish_reason) for each in generations]


def in_javascript(folder, made, requests):
    results = complete(folder, made.bundle, [{"model": "fake-fake", **request} for request in requests])
    return [[(text["text"], text["reason"]) for text in result["texts"]] for result in results]


def assert_equal(folder, made, *requests):
    """Check that both engines give the same texts for the same requests."""
    found = in_javascript(folder, made, requests)
    expected = [in_python(made, **request) for request in requests]
    pairs = [pair for texts, others in zip(found, expected, strict=True) for pair in zip(texts, others, strict=True)]
    different = [pair for pair in pairs if pair[0] != pair[1]]
    assert not different, different[:3]
    return found


SETTINGS = [
    {},
    {"temperature": [0.3, 1.0, 2.5]},
    {"top_k": 5},
    {"top_k": 10**9},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"top_k": 20, "top_p": 0.8, "min_p": 0.05, "temperature": 1.7},
    {"repetition_penalty": 1.5},
    {"repetition_penalty": 0.7, "no_repeat_ngram_size": 3},
    {"no_repeat_ngram_size": 1, "max_new_tokens": 12},
    {"min_new_tokens": 20},
    {"words": "known"},
    {"words": "known", "top_p": 0.5, "min_new_tokens": 5},
    {"words": "known", "top_k": 1},
    {"stop_strings": [".", "the"]},
    {"stop_strings": ["e", "éa", " "], "finish": "sentence"},
    {"finish": "sentence", "max_new_tokens": 60},
    {"finish": "sentence", "max_new_tokens": 25, "min_new_tokens": 10},
    {"max_new_tokens": 0},
    {"max_new_tokens": 1},
]
PROMPTS = ["", "the ", "the mov", "The movie was tr", "xyz très 👍", "a\n", "I liked the o", "zzz \u00a0 q"]


@pytest.mark.parametrize("name", ["char", "word"])
@pytest.mark.parametrize("eos", [-1.0, 3.0])
def test_texts_are_those_of_python_for_all_settings(name, eos, tmp_path):
    made = model(name, eos=eos)
    requests = [
        {"prompt": PROMPTS[(3 * number + step) % len(PROMPTS)], "n": 2, "seed": 7, **settings}
        for number, settings in enumerate(SETTINGS)
        for step in range(3)
    ]
    found = assert_equal(tmp_path, made, *requests)
    known = [texts for texts, request in zip(found, requests, strict=True) if "words" in request]
    assert any(text.split() for texts in known for text, _ in texts)
    reasons = {reason for texts in found for _, reason in texts}
    assert {"length", "stop"} <= reasons and ("end" in reasons or eos < 0)
    assert len({text for texts in found for text, _ in texts}) > 50


@pytest.mark.parametrize("name", ["char", "word"])
def test_greedy_texts(name, tmp_path):
    made = model(name, seed=3)
    assert_equal(tmp_path, made, *({"prompt": prompt, "do_sample": False} for prompt in PROMPTS))


def test_large_and_many_seeds(tmp_path):
    made = model("word", seed=1)
    assert_equal(tmp_path, made, *({"seed": seed, "n": 2} for seed in (0, 1, 2**31, 2**53 - 1)))
    found = in_javascript(tmp_path, made, [{"seed": str(2**64 - 1)}])
    assert found == [in_python(made, seed=2**64 - 1)]


def test_conditions_are_the_ids_after_bos(tmp_path):
    made = model("word", conditions=6)
    requests = [{"seed": 1, "n": 4, "conditions": {"stars": stars}} for stars in (1, 3, "5", None)]
    found = assert_equal(tmp_path, made, *requests, {"seed": 1, "n": 4})
    assert found[3] == found[4] and len({str(each) for each in found}) == 4


def test_a_dead_end_takes_a_token_of_an_unknown_word(tmp_path):
    """Only tokens of unknown words have a probability, and one of them is taken, with the same random numbers as in Python."""
    made = model("char", lexicon=Lexicon.of(["the"], [" "]))
    logits = made.model.table
    allowed = [made.tokenizer.encode(character)[0] for character in "mov"]
    logits[:, [token for token in range(logits.shape[1]) if token not in allowed]] = -math.inf
    assert_equal(tmp_path, made, *({"seed": seed, "n": 2, "words": "known", "max_new_tokens": 8} for seed in range(10)))


def test_nothing_left_and_damaged_logits(tmp_path):
    made = model("char")
    made.model.table[:] = -math.inf
    assert_equal(tmp_path, made, {"prompt": "the "})
    made.model.table[:] = math.nan
    [result] = complete(tmp_path, made.bundle, [{"model": "fake-fake"}])
    assert "not finite" in result["error"]


def test_one_token_from_equal_logits_and_numbers(tmp_path):
    """The compiled function itself, with ties among the logits, infinities and extreme temperatures."""
    draw, cases, expected = np.random.default_rng(0), [], []
    for number in range(400):
        logits = np.round(draw.normal(size=40) * draw.choice([0.5, 3, 30]), draw.integers(0, 4)).astype(np.float32)
        logits[draw.random(40) < 0.1] = -np.inf
        text = draw.integers(0, 40, draw.integers(1, 30))
        settings = {
            "temperature": float(draw.choice([0.01, 0.5, 1, 50])),
            "top_k": int(draw.integers(0, 50)),
            "top_p": float(draw.choice([0.05, 0.5, 0.99, 1])),
            "min_p": float(draw.choice([0, 0.01, 0.9])),
            "repetition_penalty": float(draw.choice([1, 1.3])),
            "no_repeat_ngram_size": int(draw.integers(0, 4)),
            "min_new_tokens": int(draw.integers(0, 2)),
            "do_sample": bool(number % 5),
        }
        uniform = draw.random()
        cases.append(
            {
                "logits": [None if each == -np.inf else float(each) for each in logits],
                "text": text.tolist(),
                "newTokens": 0,
                "uniform": uniform,
                "config": settings,
                "tokenizer": {"vocabSize": 36, "bosId": 0, "eosId": 1},
            }
        )
        expected.append(compiled(logits, text, uniform, settings))
    found = ask(tmp_path, "sample", cases=cases)
    assert found == expected and len(set(found)) > 20


def compiled(logits: np.ndarray, text: np.ndarray, uniform: float, settings: dict) -> int:
    """Return the token that the compiled function samples."""
    params = SamplingParams(
        temperatures=np.array([settings["temperature"]]),
        top_k=settings["top_k"] if settings["top_k"] < 36 else 0,
        **{name: settings[name] for name in ("top_p", "min_p", "repetition_penalty", "no_repeat_ngram_size", "min_new_tokens")},
        max_new_tokens=100,
        is_greedy=not settings["do_sample"],
        eos_id=1,
        bos_id=0,
        vocab_size=36,
    )
    token = np.empty(1, np.int64)
    texts, sizes = np.append(text, 0)[None], np.array([len(text)])
    more = (params, NO_WINDOWS, np.zeros(1, np.int64), None, no_places(1), token)
    sample_rows(logits[None], texts, sizes, np.zeros(1, np.int64), np.array([uniform]), *more)
    return int(token[0])


def test_what_the_tokens_add_is_the_text_and_the_bits_are_the_models(tmp_path):
    made = model("word", seed=5)
    request = {"model": "fake-fake", "prompt": "the mov", "seed": 3, "n": 2, "max_new_tokens": 40, "alternatives": 10}
    [result] = complete(tmp_path, made.bundle, [request])
    settings = {"num_return_sequences": 2, "max_new_tokens": 40, "return_dict_in_generate": True}
    for text, each in zip(result["texts"], made.generate("the mov", seed=3, **settings), strict=True):
        assert text["shown"].rstrip("\ufffd") == text["text"] == each.text
        ids = [made.tokenizer.bos_id, *each.tokens]
        first = len(ids) - len(text["bits"]) + (each.finish_reason == "end")
        logits = made.model.table[ids].double()
        logits[:, made.tokenizer.bos_id] = -math.inf
        log_probs = logits.log_softmax(-1).numpy() / math.log(2)
        targets = [*ids[1:], made.tokenizer.eos_id][first - 1 : first - 1 + len(text["bits"])]
        assert text["bits"] == pytest.approx(
            [-log_probs[first - 1 + place, token] for place, token in enumerate(targets)], abs=1e-5
        )
        for place, alternatives in enumerate(text["alternatives"]):
            best = np.argsort(-log_probs[first - 1 + place], kind="stable")[:10]
            assert [each["probability"] for each in alternatives] == pytest.approx(
                [2 ** log_probs[first - 1 + place, token] for token in best]
            )
            assert [each["isEnd"] for each in alternatives] == [token == made.tokenizer.eos_id for token in best]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"model": "other"}, "There is no model other here; there is fake-fake."),
        ({"top_p": 0}, "top_p must be above 0, and at most 1; got 0."),
        ({"temperature": -1}, "temperature must be"),
        ({"n": 0}, "The number of texts must be a whole number from 1"),
        ({"conditions": {"age": 3}}, "age is not a condition of this model."),
        ({"conditions": {"stars": 9}}, "stars has the values 1, 2, 3, 4, 5; got 9."),
        ({"novelty": "filter"}, "no index"),
        ({"min_new_tokens": 50, "max_tokens": 5}, "min_new_tokens must be at least 0, and at most 5; got 50."),
        ({"temperature": 0, "n": 2}, "ask for one"),
    ],
)
def test_a_bad_request_gives_one_sentence(request_, said, tmp_path):
    [result] = complete(tmp_path, model("char", conditions=6).bundle, [{"model": "fake-fake", **request_}])
    assert said in result["error"]


def test_the_event_loop_goes_on_and_a_signal_stops_the_texts(tmp_path):
    """A text of a million tokens ends soon after a timer has stopped it."""
    request = {"model": "fake-fake", "max_tokens": 10**6, "min_new_tokens": 10**6 - 1, "n": 2}
    packed = write_packed(tmp_path, model("char").bundle)
    found = ask(tmp_path, "stop", model=packed, request=request)
    assert found["timers"] >= 3 and 0 < found["before"] < 10**6 and found["after"] <= 1


def test_known_words_need_a_lexicon(tmp_path):
    [result] = complete(tmp_path, model("char", lexicon=None).bundle, [{"model": "fake-fake", "words": "known"}])
    assert "words=any" in result["error"]


def test_what_a_page_knows_of_a_model(tmp_path):
    made = model("char", conditions=3, max_new_tokens=77)
    [known] = ask(tmp_path, "models", model=write_packed(tmp_path, made.bundle))
    assert known["id"] == known["preset"] == "fake-fake" and known["defaults"]["max_new_tokens"] == 77 and not known["hasIndex"]
    assert [value["label"] for value in known["conditions"][0]["values"]] == ["1", "2"]
    assert ["Texts", "synthetic: not written by a person"] in known["facts"]
