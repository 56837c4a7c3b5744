"""The modules that generate in a browser, run in Node: numbers, tokens and texts are those of
Python.
"""

import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reviewgen
from reviewgen import ReviewModel
from reviewgen.conditions import Condition, Conditions, Value
from reviewgen.export.html import pack
from reviewgen.formats.bigrams import count_bigrams
from reviewgen.generation.pieces import TokenTexts
from reviewgen.lexicon.lexicon import Lexicon
from reviewgen.lexicon.token_bytes import alphabet_of
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import (
    find_tokenizer,
    find_web_stepper,
    find_web_tokenizer,
    find_weights,
)
from reviewgen.saving.layout import Bundle
from reviewgen.saving.weights import ModelWeights
from reviewgen.sentences import sentence_ends
from reviewgen.web.composing import PackedModel, compose, static_files
from tests.support.fakes import TEXTS, TableModel, review_model, table
from tests.support.node import run_node, why_no_node
from tests.support.plugin_models import make_network, train_mixing
from tests.support.settings_table import SETTINGS

pytestmark = pytest.mark.skipif(why_no_node() is not None, reason=str(why_no_node()))
CHAR, WORD = (find_tokenizer(name)[0] for name in ("char", "word"))
TOKENIZERS = {
    "char": CHAR.train(TEXTS, CHAR.Config()),
    "word": WORD.train(TEXTS * 3, WORD.Config(vocab_size=400)),
    "shipped char": CHAR.load(find_weights("lstm-char")),
    "shipped word": WORD.load(find_weights("lstm-word")),
    "shipped later word": WORD.load(find_weights("gru-word")),
}
LEXICON = Lexicon.of(["the", "movie", "was", "good", "très", "a", "I"], [" ", ". ", ".", ", "])
MORE_SETTINGS: list[dict[str, Any]] = [  # beyond the table: of texts, not of one token
    {"top_k": 10**9},
    {"temperature": 0.01},
    {"temperature": 50, "min_p": 0.9},
    {"words": "known"},
    {"words": "known", "top_p": 0.5, "min_new_tokens": 5},
    {"words": "known", "top_k": 1},
    {"stop_strings": [".", "the"]},
    {"stop_strings": ["e", "éa", " "], "finish": "sentence"},
    {"finish": "sentence", "max_new_tokens": 60},
    {"finish": "sentence", "max_new_tokens": 25, "min_new_tokens": 10},
    {"max_new_tokens": 0},
]
PROMPTS = [
    "",
    "the ",
    "the mov",
    "The movie was tr",
    "xyz très 👍",
    "a\n",
    "I liked the o",
    "zzz \u00a0 q",
]


FAKE = """export default (name, config, tensors) => {
  const { shape: [, width], data } = tensors.table;
  const row = (id) => data.slice(id * width, (id + 1) * width);
  const forward = (ids, state) => ({ logits: row(ids.at(-1)), state });
  return { initialState: () => 0, forward };
};"""
"""The stepper of ``tests.support.fakes.TableModel`` in JavaScript."""
SCRIPT = Path(__file__).parents[1] / "support/javascript/run_engine.mjs"
"""The browser engine in Node: questions in, answers out."""
TOKENIZER_SOURCES = {
    name: find_web_tokenizer(name).read_text(encoding="utf-8") for name in ("char", "word")
}


def ask_all(folder: Path, questions: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the answers to questions, in one run of Node; each has its name under "ask"."""
    file = folder / "questions.json"
    root = static_files()["model.js"].parent
    file.write_text(json.dumps({"root": str(root), "questions": questions}), encoding="utf-8")
    answers: list[Any] = json.loads(run_node(SCRIPT, str(file)))
    return answers


def ask(folder: Path, name: str, **question: Any) -> Any:
    """Return the answer to a question."""
    return ask_all(folder, [{"ask": name, **question}])[0]


def write_packed(folder: Path, bundle: Bundle, bits: int = 32) -> dict[str, Any]:
    """Pack a model into a folder, and return it as a question names it."""
    packed = pack(bundle, bits=bits)
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(packed.manifest), encoding="utf-8")
    (folder / "blob.bin").write_bytes(packed.blob)
    files = {
        name: find_web_stepper(name)
        for name in ("mixing", "ngram", "nnlm", "rnn", "gru", "lstm", "transformer", "blend")
    }
    steppers = {"fake": FAKE} | {
        name: file.read_text(encoding="utf-8") for name, file in files.items() if file is not None
    }
    return {"folder": str(folder), "steppers": steppers, "tokenizers": TOKENIZER_SOURCES}


def complete(
    folder: Path, bundle: Bundle, requests: Sequence[Mapping[str, Any]], bits: int = 32
) -> list[Any]:
    """Return what the browser engine gives for some requests."""
    results: list[Any] = ask(
        folder, "complete", model=write_packed(folder, bundle, bits), requests=requests
    )
    return results


def model(
    name: str,
    seed: int = 0,
    *,
    eos: float = -1.0,
    lexicon: Lexicon | None = LEXICON,
    conditions: int = 0,
    **generation,
):
    """Return a model of random logits over a real tokenizer."""
    tokenizer = TOKENIZERS[name]
    values = tuple(
        Value(label=str(number), share=0.1, low=number, high=number)
        for number in range(1, max(2, conditions))
    )
    given = (
        Condition(name="stars", kind="number", values=values),
        Condition(name="film", kind="text", lowercase=True),
    )
    known = Conditions(given if conditions else (), tokenizer.vocab_size, tokenizer.encode)
    logits = table(known.vocab_size, seed)
    logits[:, tokenizer.eos_id] = eos
    made = review_model(TableModel(logits), tokenizer, **generation)
    ids = [np.array([tokenizer.bos_id, *tokenizer.encode(text)]) for text in TEXTS]
    more = {
        "bigrams": count_bigrams(ids, tokenizer.vocab_size),
        "tokenizer_plugin": Plugin("tokenizer", name, "reviewgen", "0"),
        "tokenizer_config": tokenizer.Config(),
    }
    return ReviewModel(replace(made.bundle, lexicon=lexicon, conditions=known, **more))


def dead_end() -> ReviewModel:
    """Return a model of which only tokens of unknown words have a probability."""
    made = model("char", lexicon=Lexicon.of(["the"], [" "]))
    allowed = [made.tokenizer.encode(character)[0] for character in "mov"]
    made.model.table[
        :, [token for token in range(made.model.table.shape[1]) if token not in allowed]
    ] = -math.inf
    return made


def nothing_left() -> ReviewModel:
    made = model("char")
    made.model.table[:] = -math.inf
    return made


def in_python(
    made: ReviewModel, prompt: str = "", n: int = 1, seed: int = 0, **settings: Any
) -> list[tuple[str, str]]:
    generations = made.generate(
        prompt, return_dict_in_generate=True, num_return_sequences=n, seed=seed, **settings
    )
    return [(each.text, each.finish_reason) for each in generations]


def with_ties() -> ReviewModel:
    made = model("char")
    made.model.table[:] = (made.model.table * 3).round()
    made.model.table[::3, ::5] = -math.inf
    return made


def requests_of_all_settings(step: int) -> list[dict[str, Any]]:
    requests = []
    for number, settings in enumerate([*SETTINGS, *MORE_SETTINGS]):
        n = 1 if settings.get("do_sample") is False else 2
        requests.append(
            {"prompt": PROMPTS[(3 * number + step) % len(PROMPTS)], "n": n, "seed": 7, **settings}
        )
    return requests


@pytest.mark.slow
def test_texts_are_those_of_python_for_all_settings(tmp_path):
    """In one run of Node, with seeds, conditions, ties, dead ends and damaged logits too."""
    given = [{"stars": 1}, {"stars": "5"}, {}, {"film": "Zyx très"}, {"stars": 2, "film": "abc "}]
    stars = [
        {"seed": 1, "n": 4, "conditions": each, "words": words}
        for each, words in itertools.product(given, ("any", "known"))
    ]
    cases = [
        *(
            (model(name, eos=eos), requests_of_all_settings(step))
            for step, (name, eos) in enumerate(
                [("char", -1.0), ("word", -1.0), ("char", 3.0), ("word", 3.0)]
            )
        ),
        (with_ties(), requests_of_all_settings(0)),
        *(
            (model(name, seed=3), [{"prompt": prompt, "do_sample": False} for prompt in PROMPTS])
            for name in ("char", "word")
        ),
        (model("word", seed=1), [{"seed": seed, "n": 2} for seed in (0, 1, 2**31, 2**53 - 1)]),
        (model("word", conditions=6), stars),
        (
            dead_end(),
            [{"seed": seed, "n": 2, "words": "known", "max_new_tokens": 8} for seed in range(10)],
        ),
        (nothing_left(), [{"prompt": "the "}]),
    ]
    questions = []
    for number, (made, requests) in enumerate(cases):
        packed = write_packed(tmp_path / str(number), made.bundle)
        questions.append(
            {
                "ask": "complete",
                "model": packed,
                "requests": [{"model": "fake-fake", **each} for each in requests],
            }
        )
    answers = ask_all(tmp_path, questions)
    reasons = set()
    texts = set()
    for number, ((made, requests), results) in enumerate(zip(cases, answers, strict=True)):
        for request, result in zip(requests, results, strict=True):
            found = [(text["text"], text["reason"]) for text in result.get("texts", [])]
            assert found == in_python(made, **request), (number, request, result.get("error"))
            reasons |= {reason for _, reason in found}
            texts |= {text for text, _ in found}
    assert {"length", "stop", "end"} <= reasons and len(texts) > 150


@pytest.mark.node
def test_random_numbers_are_those_of_numpy_and_base85_that_of_python(tmp_path):
    seeds = [
        0,
        1,
        7,
        2**31,
        2**32 - 1,
        2**32,
        2**53 + 1,
        2**63,
        2**64 - 1,
        2**64,
        2**96 + 5,
        2**128 - 1,
        3**200,
    ]
    streams = list(itertools.product(seeds, (0, 1, 63, 2**32)))
    blobs = [
        b"",
        bytes(4),
        b"\xff" * 8,
        *(random.Random(0).randbytes(length) for length in (1, 2, 3, 4, 5, 1001)),
    ]
    texts = [
        compose([PackedModel({}, blob)], {}, {}).split('id="blob-0">')[1].split("</script>")[0]
        for blob in blobs
    ]
    assert not set("".join(texts)) & set("<>&'\"")  # may stand in HTML
    asked = [
        {
            "ask": "random",
            "streams": [[str(seed), number] for seed, number in streams],
            "count": 50,
        },
        {"ask": "base85", "texts": texts},
    ]
    numbers, decoded = ask_all(tmp_path, asked)
    assert numbers == [np.random.default_rng(stream).random(50).tolist() for stream in streams]
    assert decoded == [list(blob) for blob in blobs]


FORMATS: list[dict[str, Any]] = [
    {"include": ["movie"]},
    {"include": ["movie", "so good"], "max_new_tokens": 40},
    {"include": ["the"], "words": "known"},
    {"include": ["so", "plot"], "temperature": [0.5, 1.2], "prompt": "the mov"},
    {"include": ["movie"], "max_new_tokens": 8, "top_p": 0.9},
    {"include": ["a"], "exclude": ["the", "was"], "repetition_penalty": 1.3},
    {"include": ["movie"], "finish": "sentence", "prompt": "I liked the o"},
    {"include": ["plot"], "stop_strings": ["."], "prompt": "so."},
    {"include": ["good"], "do_sample": False, "n": 1},
    {"exclude": ["a", "é"], "min_new_tokens": 5},
    {"choices": ["good", "so bad", "so"], "prompt": "the movie was "},
    {"choices": ["ovie", "ovies are"], "prompt": "the m", "temperature": 2.0},
    {"choices": ["good", "bad"], "words": "known"},
]
BAD_FORMATS: list[tuple[dict[str, Any], str]] = [
    ({"include": ["日本"]}, "include has “日本”, which has characters"),
    ({"choices": ["good", "日"]}, "choices has “日”, which has characters"),
    ({"include": ["the movie"], "exclude": ["Movie"]}, "include has “the movie”, and exclude has"),
    ({"include": ["plot"], "words": "known"}, "include has “plot”, which is not a known word"),
    ({"choices": ["good"], "include": ["bad"]}, "None of the choices fits include=“bad”"),
    ({"exclude": ["so"], "prompt": "so bad"}, "The beginning of the text does not fit exclude="),
    ({"include": ["movie"], "max_tokens": 1}, "include=“movie” needs at least"),
    ({"choices": ["good" * 501]}, "may have 2000 characters together; these have 2004."),
]


@pytest.mark.node
def test_texts_with_a_format_are_those_of_python(tmp_path):
    questions = []
    cases = []
    for number, (name, eos) in enumerate([("char", -1.0), ("word", 2.0), ("char", 3.0)]):
        made = model(name, eos=eos, seed=number)
        requests = [{"n": 3, "seed": 2, "max_new_tokens": 60, **each} for each in FORMATS]
        packed = write_packed(tmp_path / str(number), made.bundle)
        asked = [{"model": "fake-fake", **each} for each in requests]
        questions.append({"ask": "complete", "model": packed, "requests": asked})
        cases.append((made, requests))
    stuck = dead_end()  # tokens are taken back, in vain
    requests = [{"include": ["the"], "max_new_tokens": 30, "n": 2, "words": "any"}]
    packed = write_packed(tmp_path / "stuck", stuck.bundle)
    asked = [{"model": "fake-fake", "seed": 0, **each} for each in requests]
    questions.append({"ask": "complete", "model": packed, "requests": asked})
    cases.append((stuck, requests))
    for (made, requests), results in zip(cases, ask_all(tmp_path, questions), strict=True):
        for request, result in zip(requests, results, strict=True):
            found = [(text["text"], text["reason"]) for text in result.get("texts", [])]
            assert found == in_python(made, **request), (request, result.get("error"))
            shown = [text["shown"].rstrip("\ufffd") for text in result["texts"]]
            assert "finish" in request or shown == [text for text, _ in found]


@pytest.mark.node
def test_a_format_that_no_text_fits_gives_a_sentence(tmp_path):
    asked = [{"model": "fake-fake", **request} for request, _ in BAD_FORMATS]
    results = complete(tmp_path, model("char").bundle, asked)
    for result, (request, said) in zip(results, BAD_FORMATS, strict=True):
        assert said in result.get("error", ""), (request, result)


@pytest.mark.node
def test_a_model_without_bigrams_has_an_estimate_in_the_page(tmp_path):
    made = model("char", seed=4)
    made = ReviewModel(replace(made.bundle, bigrams=None))
    request = {"include": ["movie"], "n": 3, "seed": 1, "max_new_tokens": 50}
    [result] = complete(tmp_path, made.bundle, [{"model": "fake-fake", **request}])
    found = [(text["text"], text["reason"]) for text in result["texts"]]
    assert found == in_python(made, **request)


@pytest.mark.node
def test_what_the_tokens_add_is_the_text_and_bits_and_alternatives_are_the_models(tmp_path):
    made = model("word", seed=5)
    request = {
        "model": "fake-fake",
        "prompt": "the mov",
        "seed": 3,
        "n": 2,
        "max_new_tokens": 40,
        "alternatives": 10,
    }
    [result] = complete(tmp_path, made.bundle, [request])
    settings = {"num_return_sequences": 2, "max_new_tokens": 40, "return_dict_in_generate": True}
    for text, each in zip(
        result["texts"], made.generate("the mov", seed=3, **settings), strict=True
    ):
        assert text["shown"].rstrip("\ufffd") == text["text"] == each.text
        ids = [made.tokenizer.bos_id, *each.tokens]
        first = len(ids) - len(text["bits"]) + (each.finish_reason == "end")
        logits = made.model.table[ids].double()
        logits[:, made.tokenizer.bos_id] = -math.inf
        log_probs = logits.log_softmax(-1).numpy()[first - 1 :] / math.log(2)
        targets = [*ids[1:], made.tokenizer.eos_id][first - 1 : first - 1 + len(text["bits"])]
        assert text["bits"] == pytest.approx(
            [-log_probs[place, token] for place, token in enumerate(targets)], abs=1e-5
        )
        for row, alternatives in zip(log_probs, text["alternatives"], strict=False):
            best = np.argsort(-row, kind="stable")[:10]
            assert [each["probability"] for each in alternatives] == pytest.approx(
                [2 ** row[token] for token in best]
            )
            assert [each["isEnd"] for each in alternatives] == [
                token == made.tokenizer.eos_id for token in best
            ]


@pytest.mark.node
def test_a_length_below_the_saved_minimum_lowers_it(tmp_path):
    made = model("char", eos=3.0, min_new_tokens=50, max_new_tokens=60)
    [result] = complete(
        tmp_path, made.bundle, [{"model": "fake-fake", "seed": 1, "n": 3, "max_tokens": 20}]
    )
    expected = in_python(made, n=3, seed=1, max_new_tokens=20, min_new_tokens=20)
    assert [(text["text"], text["reason"]) for text in result["texts"]] == expected


@pytest.mark.node
def test_what_cannot_be_written_gives_a_sentence(tmp_path):
    [several] = complete(
        tmp_path, model("char").bundle, [{"model": "fake-fake", "temperature": 0, "n": 2}]
    )
    assert "ask for one" in several["error"]
    damaged = nothing_left()
    damaged.model.table[:] = math.nan
    for made, request, said in (
        (damaged, {}, "not finite"),
        (model("char", lexicon=None), {"words": "known"}, "words=any"),
    ):
        [result] = complete(tmp_path, made.bundle, [{"model": "fake-fake", **request}])
        assert said in result["error"]


@pytest.mark.node
def test_a_model_has_its_facts_defaults_and_conditions(tmp_path):
    packed = write_packed(tmp_path, model("char", conditions=3, max_new_tokens=77).bundle)
    [known] = ask(tmp_path, "models", model=packed)
    assert (
        known["id"] == known["preset"] == "fake-fake"
        and known["defaults"]["max_new_tokens"] == 77
        and "hasIndex" not in known
    )
    assert [value["label"] for value in known["conditions"][0]["values"]] == ["1", "2"]
    assert ["Texts", "synthetic: not written by a person"] in known["facts"]


@pytest.mark.node
def test_a_signal_stops_a_text(tmp_path):
    packed = write_packed(tmp_path, model("char", conditions=3, max_new_tokens=77).bundle)
    endless = {"model": "fake-fake", "max_tokens": 10**6, "min_new_tokens": 10**6 - 1, "n": 2}
    # by a timer: the event loop goes on
    found = ask(tmp_path, "stop", model=packed, request=endless)
    assert found["timers"] >= 3 and 0 < found["before"] < 10**6 and found["after"] <= 1


@pytest.mark.node
@pytest.mark.parametrize(
    "preset", ["nnlm-char", "ngram-char", "lstm-char", "ngram-word", "lstm-word"]
)
def test_shipped_models_generate_the_texts_of_python(preset, tmp_path):
    """The first two in each order of draws that an n-gram has; others may differ by rounding, so
    only at their defaults.
    """
    made = reviewgen.load(preset)
    words = {"include": ["guitar", "wonderful"], "exclude": ["the"], "max_new_tokens": 200}
    settings: list[dict[str, Any]] = [{}, words, {"choices": ["Good film", "Bad"]}]
    if preset in ("nnlm-char", "ngram-char"):
        settings += [
            {"temperature": 1.0},
            {"temperature": [0.3, 1.0, 1.2]},
            {"top_p": 0.8},
            {"min_p": 0.1},
        ]
        settings += [
            {"no_repeat_ngram_size": 4},
            {"do_sample": False, "n": 1},
            {"temperature": 0.5, "words": "known"},
        ]
    requests = [{"n": 4, "seed": 5, "max_new_tokens": 60, **each} for each in settings]
    results = complete(tmp_path, made.bundle, [{"model": preset, **each} for each in requests])
    for request, result in zip(requests, results, strict=True):
        expected = made.generate(
            **{{"n": "num_return_sequences"}.get(key, key): value for key, value in request.items()}
        )
        assert [text["text"] for text in result["texts"]] == expected, request


@pytest.mark.node
@pytest.mark.parametrize("conditions", [0, 3])
def test_a_transformer_generates_the_texts_of_python(conditions, tmp_path):
    made = model("char", lexicon=None, conditions=conditions, max_new_tokens=80)
    known = made.bundle.conditions
    network = make_network(
        "transformer",
        vocab_size=known.vocab_size,
        bos_id=made.tokenizer.bos_id,
        condition_ids=known.vocab_size - made.tokenizer.vocab_size - known.field_ids,
        field_ids=known.field_ids,
        hidden_size=32,
        window=20,
        ngrams=3,
        ngram_buckets=100,
    )
    network.scale_logits(4.0)
    plugin = Plugin("model", "transformer", "reviewgen", "0")
    made = ReviewModel(replace(made.bundle, weights=ModelWeights(network), model_plugin=plugin))
    requests = [{"do_sample": False}, {"n": 3, "seed": 4}, {"seed": 2, "prompt": TEXTS[0][:9]}]
    results = complete(tmp_path, made.bundle, [{"model": "fake-fake", **each} for each in requests])
    for request, result in zip(requests, results, strict=True):
        found = [(text["text"], text["reason"]) for text in result["texts"]]
        assert found == in_python(made, **request)


@pytest.mark.node
def test_a_mixing_model_generates_the_texts_of_python(tmp_path):
    tokenizer = TOKENIZERS["char"]
    texts = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in TEXTS * 8]
    settings = {"alphabet": alphabet_of(tokenizer), "local_slots": 1024}
    trained = train_mixing(texts, tokenizer.vocab_size, **settings)
    made = model("char", lexicon=None, max_new_tokens=300)
    plugin = Plugin("model", "mixing", "reviewgen", "0")
    made = ReviewModel(replace(made.bundle, weights=ModelWeights(trained), model_plugin=plugin))
    requests = [{"do_sample": False}, {"n": 3, "seed": 4}, {"seed": 2, "prompt": TEXTS[0][:9]}]
    results = complete(tmp_path, made.bundle, [{"model": "fake-fake", **each} for each in requests])
    for request, result in zip(requests, results, strict=True):
        found = [(text["text"], text["reason"]) for text in result["texts"]]
        assert found == in_python(made, **request)


ODD = [
    "",
    " ",
    "  ",
    "a",
    " a",
    "a ",
    "don't they'll WE'VE 'S 's",
    "1,000 dollars in 1999",
    "naïve café \u00a0x\u0085y\ufeffz",
    "\r\n\t x \n\n",
    "日本語のテキスト。 good",
    "👍🏽 👨‍👩‍👧",
    "\u0000\u0001\x7f",
    "e\u0301",
    "ｆｕｌｌ",
    "\u2028x\u2029",
    "\u3000\u1680z",
    "½ ² ٣ Ⅷ 〇",
    "_a_b __c",
    "</script><!--",
    "a" * 300,
    " " * 70 + "x",
    "!?!?..., ;",
    "\u200bx\u200d",
    "\U0001d54f\U0001d7d8",
    "x\ufffdy",
    "'",
    "''s",
    "’s",
    "ǅ ß ſ",
    "__proto__ constructor",
    "\u180ex",
    "\ud83d",
    "a\ude00b",
    "x\ud800",
]


def texts() -> list[str]:
    """Return sentences, odd texts, and random mixtures of characters of many scripts."""
    draw = random.Random(0)
    alphabets = [
        "abcdefgh  '.",
        "éàñü ß",
        "日本語 。",
        "абв ",
        " \n\t\r\u00a0\u0085",
        "0123½², ",
        "👍🏽\u200d ",
        "'stmrelvd ",
    ]
    every = "".join(alphabets)
    mixed = [
        "".join(draw.choices(draw.choice([*alphabets, every]), k=draw.randint(1, 40)))
        for _ in range(2000)
    ]
    codes = [code for code in range(0x30000) if not 0xD800 <= code <= 0xDFFF]
    return [
        *TEXTS,
        *ODD,
        *mixed,
        *("".join(map(chr, draw.choices(codes, k=draw.randint(1, 20)))) for _ in range(2000)),
    ]


def plain(text: str) -> str:
    """Return a text in which two neighbouring surrogates are one character, as in every string of
    JavaScript.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


@pytest.mark.node
@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_texts_bytes_and_splits_of_prompts_are_those_of_python(name, tmp_path):
    tokenizer = TOKENIZERS[name]
    given = texts()
    draw = random.Random(1)
    # each character between letters and between marks, since a cut depends on its category
    if name == "word":
        given += [
            f"a{chr(code)}a !{chr(code)}!"
            for code in range(0x20000)
            if not 0xD800 <= code <= 0xDFFF
        ]
    tokenizer.save(tmp_path)
    files = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.glob("*.json")}
    odd_ids = [
        [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randint(0, 12))]
        for _ in range(3000)
    ]
    asked = {"source": TOKENIZER_SOURCES[name.split()[-1]], "files": files, "texts": given}
    whole = [
        text
        for text in given[:1500]
        if not any("\ud800" <= character <= "\udfff" for character in text)
    ]
    found, cut = ask_all(
        tmp_path,
        [{"ask": "tokenize", **asked, "ids": odd_ids}, {"ask": "split", **asked, "texts": whole}],
    )
    assert [found[key] for key in ("vocabSize", "bosId", "eosId")] == [
        tokenizer.vocab_size,
        tokenizer.bos_id,
        tokenizer.eos_id,
    ]
    assert [
        text
        for text, ids in zip(given, found["encoded"], strict=True)
        if ids != tokenizer.encode(text)
    ] == []
    assert found["bytes"] == [list(each) for each in tokenizer.token_bytes()]
    assert [plain(text) for text in found["decoded"]] == [
        plain(tokenizer.decode(ids)) for ids in odd_ids
    ]
    pieces = TokenTexts(tokenizer)
    splits = [pieces.split(text) for text in whole]
    assert [(each["ids"], each["rest"]) for each in cut] == [
        (each.ids, each.rest) for each in splits
    ]


@pytest.mark.node
def test_sentences_end_where_they_do_in_python(tmp_path):
    draw = random.Random(2)
    parts = [
        "Mr",
        "J",
        "No",
        "I",
        "e.g",
        "etc",
        "3",
        ".",
        ". ",
        "!",
        "?”",
        "…",
        "。",
        "」",
        " Doe",
        " 5",
        "\n",
        "\u00a0",
    ]
    parts += ["\u0085", "é", "(", ")", "👍", "ß"]
    given = ["".join(draw.choices(parts, k=draw.randint(1, 12))) for _ in range(4000)]
    expected = [
        [len(text[:end].encode("utf-16-le")) // 2 for end in sentence_ends(text)] for text in given
    ]
    assert ask(tmp_path, "sentences", texts=given) == expected


def test_the_shipped_vocabularies_are_those_of_all_presets():
    """So the tests above cover the tokenizer of every page, two of words: gru-word and nnlm-word
    were trained later.
    """
    for tokenizer, file, count in (("char", "characters.json", 1), ("word", "tokenizer.json", 2)):
        folders = [
            find_weights(f"{name}-{tokenizer}")
            for name in ("blend", "gru", "lstm", "ngram", "nnlm", "rnn")
        ]
        assert (
            len({(folder / file).read_bytes() for folder in folders if folder is not None}) == count
        )


@pytest.mark.parametrize("name", ["my-reviews", "gru-word"], ids=["name", "preset"])
def test_a_link_finds_a_model_by_its_name_and_by_its_preset(name, tmp_path):
    module = static_files()["links.js"].as_uri()
    script = tmp_path / "link.mjs"
    script.write_text(f"""import {{ decodeFragment }} from "{module}";
        const other = {{ id: "other", preset: "lstm-word" }};
        const models = [other, {{ id: "my-reviews", preset: "gru-word" }}];
        console.log(decodeFragment("#model={name}", models).model);""")
    assert run_node(script).strip() == "my-reviews"
