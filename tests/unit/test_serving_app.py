"""The server over HTTP, with httpx and bare sockets: what it answers, what it refuses, and what becomes of rude clients."""

import asyncio
import contextlib
import gzip
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPResponse
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from reviewgen.errors import BrokenPlugin, ConfigError, WorkerError
from reviewgen.serving import app, workers
from reviewgen.serving.app import create_app
from reviewgen.serving.choices import Piece, logprobs_of
from reviewgen.serving.engine import Engine
from reviewgen.serving.events import Alternative, TokenEvent
from reviewgen.serving.keys import ApiKeys, read_keys
from reviewgen.serving.models import check_names, name_source
from reviewgen.serving.server import ServerOptions
from tests.support.fakes import LETTERS, NGRAM, review_model, run_command, train_tiny
from tests.support.live_server import PATIENCE, LiveServer, SlowModel, serve, slow_model, wait_for

PATH = "/v1/completions"
KEY = "sk-0123456789abcdef"
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def ngram(tmp_path_factory):
    return train_tiny("ngram-char", tmp_path_factory.mktemp("ngram"), **NGRAM)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    settings = {"model": {"hidden_size": 8, "embedding_size": 4}, "tokenizer": {"vocab_size": 300}}
    return train_tiny("gru-word", tmp_path_factory.mktemp("words"), training={"batch_size": 4}, **settings)


@pytest.fixture(scope="module")
def server(ngram, words):
    with serve({"ngram-char": ngram, "a/<b>": words, "slow": slow_model()}) as running:
        yield running


def error_of(response: httpx.Response) -> dict:
    """Return the error of a response, after checking its form."""
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"][-1] in ".)]" and len(error["message"]) <= 510 and len(error["param"] or "") <= 100
    return error


def stream_of(server: LiveServer, **fields) -> tuple[list[dict], str]:
    """Return the chunks of a stream, and its last data."""
    response = server.complete(stream=True, **fields)
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
    parts = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [json.loads(part) for part in parts[:-1]], parts[-1]


def connect(server: LiveServer) -> socket.socket:
    """Return a bare connection."""
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=PATIENCE)


# What it answers


@pytest.mark.parametrize("name", ["ngram-char", "a/<b>"])
@pytest.mark.parametrize("prompt", ["", "the movie was", "the mov"])
def test_texts_are_those_of_generate(server, ngram, words, name, prompt):
    model = ngram if name == "ngram-char" else words
    expected = model.generate(prompt, num_return_sequences=3, seed=5, max_new_tokens=40)
    answer = server.complete(model=name, prompt=prompt, n=3, seed=5, max_tokens=40).json()
    assert [prompt + choice["text"] for choice in answer["choices"]] == expected
    assert [choice["reviewgen"]["text"] for choice in answer["choices"]] == expected
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    chunks, last = stream_of(server, model=name, prompt=prompt, n=3, seed=5, max_tokens=40)
    streamed = ["".join(c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == index) for index in range(3)]
    assert [prompt + text for text in streamed] == expected and last == "[DONE]"
    ends = [c["index"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert sorted(ends) == [0, 1, 2]


def test_prompts_of_every_kind(server, ngram):
    ids = ngram.tokenizer.encode("the ")
    ask = {"model": "ngram-char", "seed": 2, "max_tokens": 20}
    one = server.complete(prompt="the ", **ask).json()
    assert server.complete(prompt=ids, **ask).json()["choices"] == one["choices"]
    assert server.complete(prompt=[ngram.tokenizer.bos_id, *ids], **ask).json()["choices"] == one["choices"]
    two = server.complete(prompt=["the ", "a"], n=2, **ask).json()
    expected = ngram.generate(["the ", "a"], num_return_sequences=2, seed=2, max_new_tokens=20)
    assert [choice["reviewgen"]["text"] for choice in two["choices"]] == expected
    same = server.complete(prompt=[ids, ngram.tokenizer.encode("a")], n=2, **ask).json()
    assert [choice["text"] for choice in same["choices"]] == [choice["text"] for choice in two["choices"]]
    assert two["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": two["usage"]["completion_tokens"],
        "total_tokens": 5 + two["usage"]["completion_tokens"],
    }
    empty = server.complete(**ask).json()["choices"][0]["text"]
    assert empty == ngram.generate_one(seed=2, max_new_tokens=20)


def test_usage_counts_the_tokens_of_the_texts(server, ngram):
    answer = server.complete(model="ngram-char", prompt="the ", n=4, seed=3, max_tokens=9).json()
    new = [
        each.new_tokens
        for each in ngram.generate("the ", num_return_sequences=4, seed=3, max_new_tokens=9, return_dict_in_generate=True)
    ]
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": sum(new), "total_tokens": 4 + sum(new)}
    chunks, _ = stream_of(
        server, model="ngram-char", prompt="the ", n=4, seed=3, max_tokens=9, stream_options={"include_usage": True}
    )
    assert chunks[-1]["usage"] == answer["usage"] and chunks[-1]["choices"] == []
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize("stop", ["e", "the ", ["ood", "and I", "o"], ["and", "an", "nd I like"], "zzz"])
def test_the_stop_string_is_left_out_and_never_sent(server, ngram, stop):
    stops = [stop] if isinstance(stop, str) else stop
    ask = {"model": "ngram-char", "prompt": "the ", "n": 8, "seed": 4, "max_tokens": 60}
    plain = ngram.generate("the ", num_return_sequences=8, seed=4, max_new_tokens=60)
    answer = server.complete(stop=stop, **ask).json()
    for choice, text in zip(answer["choices"], plain, strict=True):
        new = text[len("the ") :]
        ends = [(new.find(each) + len(each), -len(each)) for each in stops if each in new]
        cut = new[: min(ends)[0] + min(ends)[1]] if ends else new
        assert choice["text"] == cut
        assert choice["finish_reason"] == ("stop" if ends else choice["finish_reason"])
    chunks, _ = stream_of(server, stop=stop, **ask)
    for index, choice in enumerate(answer["choices"]):
        assert "".join(c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == index) == choice["text"]


def test_of_tokens_with_the_same_text_the_most_probable_is_named():
    alternatives = (Alternative(5, "", -1.0), Alternative(6, "a", -1.5), Alternative(7, "", -2.0), Alternative(1, "", -3.0))
    piece = Piece("a", [(0, TokenEvent(0, 6, "a", -1.5, alternatives))], False)
    assert logprobs_of(piece, 4, eos_id=1)["top_logprobs"] == [{"": -1.0, "a": -1.5, "<|endoftext|>": -3.0}]
    assert logprobs_of(piece, 1, eos_id=1)["top_logprobs"] == [{"": -1.0, "a": -1.5}]


@pytest.mark.parametrize("stop", [["o"], ["h", "he"], ["ovie w", "vi"], ["a", "nd"]])
@pytest.mark.parametrize("seed", range(4))
def test_the_tokens_are_those_of_the_text_where_a_stop_string_falls_inside_one(server, stop, seed):
    ask = {"model": "a/<b>", "seed": seed, "n": 4, "max_tokens": 60, "logprobs": 2, "stop": stop}
    whole = server.complete(**ask).json()["choices"]
    chunks, _ = stream_of(server, **ask)
    for choice in whole:
        parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert all("".join(part["logprobs"]["tokens"]) == part["text"] for part in [choice, *parts])
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert [token for part in parts for token in part["logprobs"]["tokens"]] == choice["logprobs"]["tokens"]
        assert [token for part in parts for token in part["reviewgen"]["tokens"]] == choice["reviewgen"]["tokens"]


def test_log_probabilities_are_those_of_the_model(server, words):
    ask = {"model": "a/<b>", "prompt": "the movie", "seed": 6, "max_tokens": 12, "logprobs": 3}
    answer = server.complete(**ask).json()["choices"][0]
    (expected,) = words.generate("the movie", seed=6, max_new_tokens=12, return_dict_in_generate=True)
    probs = answer["logprobs"]
    prompt = len(expected.tokens) - expected.new_tokens
    known = expected.log_probabilities[prompt : prompt + expected.new_tokens]
    assert probs["token_logprobs"] == pytest.approx(known, abs=1e-4)
    assert "".join(probs["tokens"]) == answer["text"]
    assert probs["text_offset"] == [9 + len("".join(probs["tokens"][:number])) for number in range(len(probs["tokens"]))]
    own = answer["reviewgen"]["tokens"]
    for token, top in zip(own, probs["top_logprobs"], strict=True):
        named = [("<|endoftext|>" if other["is_end"] else other["text"], other["logprob"]) for other in token["alternatives"]]
        most = {text: max(logprob for name, logprob in named if name == text) for text, _ in named}
        assert top == most | {token["text"]: token["logprob"]}
    assert [token["text"] for token in own] == probs["tokens"] and all(len(token["alternatives"]) == 3 for token in own)
    chunks, _ = stream_of(server, **ask)
    parts = [c["logprobs"] for chunk in chunks for c in chunk["choices"]]
    assert [token for part in parts for token in part["tokens"]] == probs["tokens"]
    assert [each for part in parts for each in part["text_offset"]] == probs["text_offset"]


def test_best_of_returns_the_most_probable(server, ngram):
    ask = {"model": "ngram-char", "prompt": "the ", "seed": 7, "max_tokens": 25}
    texts = ngram.generate("the ", num_return_sequences=6, seed=7, max_new_tokens=25, return_dict_in_generate=True)

    def mean(text) -> float:
        new = text.log_probabilities[len(text.tokens) - text.new_tokens : len(text.tokens)]
        return sum(new) / max(1, len(new))

    best = sorted(texts, key=mean, reverse=True)[:2]
    answer = server.complete(n=2, best_of=6, **ask).json()
    assert [choice["reviewgen"]["text"] for choice in answer["choices"]] == [text.text for text in best]
    assert answer["usage"]["completion_tokens"] == sum(text.new_tokens for text in texts)


def test_echo_greedy_and_own_settings(server, ngram):
    ask = {"model": "ngram-char", "prompt": "the ", "max_tokens": 30}
    greedy = ngram.generate_one("the ", do_sample=False, max_new_tokens=30)
    assert server.complete(temperature=0, echo=True, **ask).json()["choices"][0]["text"] == greedy
    same = server.complete(temperature=0, n=2, **ask).json()["choices"]
    assert [choice["text"] for choice in same] == [greedy[4:]] * 2
    chunks, _ = stream_of(server, temperature=0, echo=True, **ask)
    assert "".join(c["text"] for chunk in chunks for c in chunk["choices"]) == greedy
    own = {"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.3, "no_repeat_ngram_size": 4}
    expected = ngram.generate_one("the ", seed=8, max_new_tokens=30, temperature=1.5, top_p=0.9, **own)
    assert server.complete(seed=8, temperature=1.5, top_p=0.9, **own, **ask).json()["choices"][0]["reviewgen"]["text"] == expected
    texts = server.complete(must_include=["music"], seed=1, **ask).json()["choices"]
    assert "music" in texts[0]["reviewgen"]["text"]
    assert server.complete(max_tokens=0, echo=True, model="ngram-char", prompt="the ").json()["choices"][0]["text"] == "the "


def test_copied_spans_have_the_offsets_of_javascript(server, ngram):
    prompt = "\U0001f600 the movie was good and I liked the theme."
    answer = server.complete(model="ngram-char", prompt=prompt, seed=1, max_tokens=1, novelty="report").json()["choices"][0]
    text, spans = answer["reviewgen"]["text"], answer["reviewgen"]["copied"]
    known = ngram.novelty(text).spans[0]
    units = text.encode("utf-16-le")
    assert spans and units[2 * spans[0]["start"] : 2 * spans[0]["end"]].decode("utf-16-le") == known.text
    assert spans[0]["length"] == known.tokens
    assert server.complete(model="ngram-char", prompt=prompt, max_tokens=1).json()["choices"][0]["reviewgen"]["copied"] == []


def test_what_is_said_of_the_models(server, ngram):
    listed = server.http.get("/v1/models").json()
    assert listed["object"] == "list" and [each["id"] for each in listed["data"]] == ["ngram-char", "a/<b>", "slow"]
    one = server.http.get("/v1/models/a/<b>").json()
    assert one == listed["data"][1] and one["object"] == "model" and one["reviewgen"]["preset"] == "gru-word"
    own = listed["data"][0]["reviewgen"]
    assert own.keys() == {"preset", "conditions", "defaults", "has_index", "facts", "card"}
    assert own["has_index"] is True and own["defaults"]["max_new_tokens"] == ngram.generation_config.max_new_tokens
    assert ["Preset", "ngram-char"] in own["facts"]
    refused = server.http.get("/v1/models/ngram-chor")
    assert refused.status_code == 404 and "Did you mean 'ngram-char'?" in error_of(refused)["message"]


def test_health_docs_and_openapi(server):
    assert server.http.get("/health").json() == server.http.get("/ready").json() == {"status": "ok"}
    document = server.http.get("/openapi.json").json()
    validate(document)
    fields = document["components"]["schemas"]["CompletionRequest"]["properties"]
    assert fields["max_tokens"]["maximum"] == 4096 and all(field["description"] for field in fields.values())
    page = server.http.get("/docs").text
    assert all(f"<code>{name}</code>" in page for name in fields)
    assert "a/&lt;b&gt;" in page and "<b>" not in page
    assert "<script" not in page and "http://" not in page and "https://" not in page  # nothing of another server


def test_the_page_only_where_asked(server, ngram):
    assert server.http.get("/").status_code == server.http.get("/static/app.js").status_code == 404
    with serve({"m": ngram}, page=True, keys=ApiKeys.of([KEY])) as other:
        page = other.http.get("/")
        assert page.headers["content-type"].startswith("text/html") and "<title>reviewgen</title>" in page.text
        script = other.http.get("/static/app.js")
        assert script.status_code == 200 and script.headers["content-type"].startswith("text/javascript")
        assert other.http.get("/static/none.js").status_code == 404
        assert other.http.get("/static/..%2f..%2fmodules.py").status_code == 404


def test_metrics_count_what_happened(ngram):
    with serve({"m": ngram}) as server:
        server.complete(prompt="the ", max_tokens=5, n=2)
        stream_of(server, prompt="the ", max_tokens=5)
        server.complete(max_tokens=-1)
        text = server.http.get("/metrics").text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        counts = {
            tuple(sorted(s.labels.items())): s.value for s in families["reviewgen_requests"].samples if s.name.endswith("total")
        }
        assert counts == {(("model", "m"), ("status", "200")): 2.0, (("model", ""), ("status", "400")): 1.0}
        tokens = {s.labels["kind"]: s.value for s in families["reviewgen_tokens"].samples if s.name.endswith("total")}
        assert tokens["prompt"] == 8 and 0 < tokens["completion"] <= 15
        first = families["reviewgen_time_to_first_token_seconds"].samples
        assert [s.value for s in first if s.name.endswith("count")] == [1.0]
        assert [s.value for s in families["reviewgen_live_rows"].samples] == [0.0]


def test_metrics_count_the_tokens_of_texts_that_do_not_end():
    def tokens(server: LiveServer, kind: str) -> float:
        families = text_string_to_metric_families(server.http.get("/metrics").text)
        return sum(
            s.value for f in families for s in f.samples if s.name == "reviewgen_tokens_total" and s.labels["kind"] == kind
        )

    with serve({"slow": slow_model()}) as server:
        read_some(server, 10, prompt=["ab", "abb"], n=2)
        server.wait_until_idle()
        wait_for(lambda: tokens(server, "completion") >= 20)
        assert tokens(server, "prompt") == 5
        before = tokens(server, "completion")
        with pytest.raises(httpx.ReadTimeout):  # not streamed
            server.http.post("/v1/completions", json={"prompt": "ab", "n": 2}, timeout=0.3)
        wait_for(lambda: tokens(server, "completion") > before)
        assert tokens(server, "prompt") == 7


# What it refuses

BAD = {
    "an unknown field": ({"temprature": 1}, 400, "Did you mean 'temperature'?"),
    "an unknown field with a long name": ({"x" * 900_000: 1}, 400, "is not a field of a completion"),
    "true is no number": ({"n": True}, 400, "n must be a whole number"),
    "too many tokens": ({"max_tokens": 5000}, 400, "at most 4,096"),
    "too many texts": ({"n": 1000, "max_tokens": 4000}, 400, "at most 128 texts"),
    "a billion tokens": ({"n": 1_000_000, "max_tokens": 1000}, 400, "1,000,000"),
    "many prompts": ({"prompt": ["a"] * 200}, 400, "at most 128 texts"),
    "a long prompt": ({"prompt": "a" * 20_000}, 400, "at most 16,384 characters"),
    "negative tokens": ({"max_tokens": -1}, 400, "at least 0"),
    "a huge number": ({"max_tokens": 10**400}, 400, "max_tokens"),
    "a prompt of another type": ({"prompt": {"text": "a"}}, 400, "prompt must be"),
    "mixed prompts": ({"prompt": ["a", 1]}, 400, "prompt must be"),
    "no prompts": ({"prompt": []}, 400, "prompt must be"),
    "an unknown token": ({"prompt": [100_000]}, 400, "is not a token id"),
    "the end's token": ({"prompt": [3, 1]}, 400, "beginning or end"),
    "10,000 stops": ({"stop": ["a"] * 10_000}, 400, "at most 16 strings"),
    "an empty stop": ({"stop": [""]}, 400, "stop must be at least 1"),
    "a long stop": ({"stop": "a" * 1000}, 400, "at most 200"),
    "many logprobs": ({"logprobs": 100}, 400, "at most 20"),
    "millions of logprobs": ({"n": 100, "max_tokens": 4000, "logprobs": 20}, 400, "at most 2,000,000 log probabilities"),
    "millions for prompts": ({"prompt": "a" * 9000, "n": 50, "logprobs": 9, "echo": True, "stream": True}, 400, "have 4,500,000"),
    "a presence penalty": ({"presence_penalty": 0.5}, 400, "repetition_penalty"),
    "a logit bias": ({"logit_bias": {"5": 1}}, 400, "not supported"),
    "a suffix": ({"suffix": "end"}, 400, "not supported"),
    "best_of below n": ({"n": 3, "best_of": 2}, 400, "below n=3"),
    "best_of as a stream": ({"n": 1, "best_of": 2, "stream": True}, 400, "stream"),
    "options without a stream": ({"stream_options": {"include_usage": True}}, 400, "stream: true"),
    "unknown options": ({"stream": True, "stream_options": {"usage": True}}, 400, "include_usage"),
    "an unknown condition": ({"conditions": {"stars": 5}}, 400, "stars"),
    "max_copy alone": ({"max_copy": 5}, 400, "novelty"),
    "too few tokens": ({"min_tokens": 9, "max_tokens": 3}, 400, "min_tokens=9"),
    "words that do not come": ({"must_include": "xylophone", "max_tokens": 5}, 422, "allow more tokens (max_tokens)"),
    "a model of another type": ({"model": 5}, 400, "model must be a string"),
    "an unknown model": ({"model": "ngram-cha"}, 404, "Did you mean 'ngram-char'?"),
    "a negative seed": ({"seed": -1}, 400, "seed"),
    "no temperature": ({"temperature": -0.5}, 400, "temperature"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_field_is_refused_in_a_sentence(server, name):
    fields, status, words = BAD[name]
    response = server.complete(**({"model": "ngram-char"} | fields))
    assert response.status_code == status, response.text
    assert words in error_of(response)["message"]


@pytest.mark.parametrize(
    ("fields", "param", "sentence"),
    [
        ({"conditions": {"stars": 5}}, "conditions", "stars"),
        ({"conditions": {"None": None}}, "conditions", "'None'"),
        ({"max_copy": 5}, "max_copy", "novelty"),
        ({"novelty": "report", "model": "slow"}, "novelty", "index"),
        ({"words": "known", "model": "slow"}, "words", "lexicon"),
        ({"must_include": "xylophone", "max_tokens": 5}, "must_include", "None of"),
        ({"n": True}, "n", "n must be a whole number or null; got true."),
        ({"prompt": ["True", None]}, "prompt", "['True', null]"),
        ({"stream": True, "stream_options": {"include_usage": None}}, "stream_options", "'include_usage': null"),
    ],
)
def test_a_refusal_names_the_field_and_has_the_values_of_json(server, fields, param, sentence):
    error = error_of(server.complete(**({"model": "ngram-char"} | fields)))
    assert error["param"] == param and sentence in error["message"]


def test_words_that_do_not_come_in_time_are_said_so(ngram):
    with serve({"m": ngram}, {"request_seconds": 1.0, "max_tokens": 100_000}) as server:
        error = error_of(server.complete(must_include="xylophone", max_tokens=100_000, min_tokens=100_000))
    assert "before the time was over" in error["message"] and "more time (a limit of this server)" in error["message"]


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [([[]] * 300_000, "at most 128 texts.*300,000"), ([0] * 300_000, "16,384 token ids"), ([[0] * 9000] * 2, "18,000")],
)
def test_too_many_prompts_are_refused_before_they_are_decoded(server, ngram, monkeypatch, prompt, sentence):
    monkeypatch.setattr(type(ngram.tokenizer), "decode", lambda *_: pytest.fail("It was decoded."))
    response = server.complete(model="ngram-char", prompt=prompt, max_tokens=1)
    assert response.status_code == 400 and error_of(response)["code"] == "limit_exceeded"
    assert re.search(sentence, error_of(response)["message"])


def test_neutral_values_of_what_is_not_supported_are_accepted(server):
    neutral = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "suffix": "", "user": "ana", "best_of": 1}
    nothing = dict.fromkeys(("stop", "seed", "logprobs", "echo", "stream", "stream_options", "temperature", "top_p", "n"))
    assert server.complete(model="ngram-char", max_tokens=3, **neutral, **nothing).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "not valid JSON"),
        (b"{", 400, "not valid JSON"),
        (b"[1]", 400, "a JSON object; got a list"),
        (b'{"prompt": "\xff"}', 400, "UTF-8, at byte 12"),
        (b'{"temperature": NaN}', 400, "NaN"),
        (b'{"model": "slow", "temperature": 1e999}', 400, "finite"),
        (b'{"prompt": "\\ud800"}', 400, "surrogate"),
        (b'{"prompt": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", 400, "nested too deeply"),
        (b'{"max_tokens": ' + b"9" * 10_000 + b"}", 400, "has 10,000 digits; at most 1,000 are read."),
    ],
    ids=["nothing", "half", "a list", "bytes", "NaN", "infinite", "half a pair", "nested", "10,000 digits"],
)
def test_a_bad_body_is_refused_in_a_sentence(server, body, status, sentence):
    response = server.http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status and sentence in error_of(response)["message"]


def test_a_large_body_is_parsed_by_another_thread(server, monkeypatch):
    threads, parse = [], app.parse_object
    monkeypatch.setattr(app, "parse_object", lambda body: threads.append(threading.current_thread()) or parse(body))
    assert server.complete(model="ngram-char", max_tokens=1).status_code == 200
    assert server.complete(model="ngram-char", max_tokens=1, user="a" * 100_000).status_code == 200
    assert error_of(server.complete(model="ngram-char", stop="a" * 100_000))["param"] == "stop"
    loop, *others = threads
    assert loop not in others and len(others) == 2


def test_a_message_about_a_long_value_is_made_quickly(server):
    for fields in ({"n" * 900_000: 1}, {"model": "n" * 900_000}, {"conditions": {"n" * 900_000: 1}}, {"stop": "n" * 900_000}):
        started = time.process_time()
        assert server.complete(**{"model": "ngram-char"} | fields).status_code in (400, 404)
        assert time.process_time() - started < 0.5  # client and server; a second without limits on what is searched


def test_a_large_body_is_refused_before_it_is_read(server):
    def endless():
        while True:  # sent in chunks, without a length
            yield b" " * 100_000

    headers = {"content-type": "application/json"}
    declared = server.http.post("/v1/completions", content=b" " * 1_000_001, headers=headers)
    assert declared.status_code == 413 and "1,000,000 bytes" in error_of(declared)["message"]
    with connect(server) as raw:
        raw.sendall(HEAD + b"Content-Length: 100000000\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")  # nothing of the 100 MB was sent
        raw.close()
    with pytest.raises(httpx.HTTPError):  # the connection is closed while it still writes
        response = server.http.post("/v1/completions", content=endless(), headers=headers)
        assert response.status_code == 413
        raise httpx.HTTPError("answered")


def test_paths_methods_and_types_that_are_not_there(server):
    for method, path, status, words in (
        ("GET", "/v1/completions", 405, "does not take GET"),
        ("GET", "/v2", 404, "There is no /v2 here"),
        ("POST", "/v1/chat/completions", 404, "/v1/completions"),
        ("DELETE", "/health", 405, "DELETE"),
    ):
        response = server.http.request(method, path)
        assert response.status_code == status and words in error_of(response)["message"]
    response = server.http.post("/v1/completions", data={"prompt": "a"})
    assert response.status_code == 415 and "application/json" in error_of(response)["message"]
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    response = server.http.post("/v1/completions", content=gzip.compress(b"{}"), headers=packed)
    assert response.status_code == 415 and "must not be compressed" in error_of(response)["message"]
    assert server.http.options("/v1/completions", headers={"origin": "https://a.org"}).status_code == 405
    assert "access-control-allow-origin" not in server.http.get("/health", headers={"origin": "https://a.org"}).headers


def test_headers_of_any_size_are_not_read(server):
    assert server.http.get("/health", headers={"x": "a" * 50_000}).status_code == 200
    with connect(server) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 66_000)
        assert raw.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_final_slash_is_not_redirected(server):
    response = server.http.post(PATH + "/", json={}, headers={"host": "elsewhere.example"})
    assert response.status_code == 404 and "location" not in response.headers
    assert error_of(response)["code"] == "not_found"


def test_a_body_that_does_not_come_is_given_up(ngram):
    with serve({"m": ngram}, {"stall_seconds": 0.3}) as server, connect(server) as raw:
        raw.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")
        assert raw.recv(4096).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(("seconds", "status"), [(60.0, 200), (0.5, 408)], ids=["in time", "not in time"])
def test_a_body_may_come_slowly_but_steadily_within_the_time_of_a_request(ngram, seconds, status):
    body = b'{"max_tokens": 2}'
    with serve({"m": ngram}, {"stall_seconds": 1.2, "request_seconds": seconds}) as server, connect(server) as raw:
        raw.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        for byte in body:
            raw.sendall(bytes([byte]))
            if select.select([raw], [], [], 0.1)[0]:  # it is answered
                break
        answer = HTTPResponse(raw)
        answer.begin()
        assert answer.status == status and (status == 200 or b"within 0.5 seconds" in answer.read())


def test_cors_only_where_asked(ngram):
    with serve({"m": ngram}, cors_origins=["https://a.org"], keys=ApiKeys.of([KEY])) as server:
        ask = {
            "origin": "https://a.org",
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        }
        assert server.http.options("/v1/completions", headers=ask).headers["access-control-allow-origin"] == "https://a.org"
        other = server.http.options("/v1/completions", headers=ask | {"origin": "https://b.org"})
        assert "access-control-allow-origin" not in other.headers


def test_keys(ngram, caplog):
    with serve({"m": ngram}, keys=ApiKeys.of([KEY, KEY + "2"])) as server:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer sk-wrong"}, 401),
            ({"authorization": KEY}, 401),
            ({"authorization": f"Basic {KEY}"}, 401),
            ({"authorization": f"Bearer {KEY}"}, 200),
            ({"authorization": f"bearer {KEY}2"}, 200),
        ):
            response = server.http.get("/v1/models", headers=headers)
            assert response.status_code == status
            assert status == 200 or (headers == {}) == ("has no API key" in error_of(response)["message"])
            assert status == 200 or ("API key" in error_of(response)["message"] and KEY not in response.text)
        assert server.http.get("/metrics").status_code == 401
        assert server.http.post("/v1/completions", content=b"x" * 10).status_code == 401
        assert [server.http.get(path).status_code for path in ("/health", "/ready", "/docs", "/openapi.json")] == [200] * 4
        assert server.http.get("/healthy").status_code == 401
    assert KEY not in caplog.text and KEY not in repr(ApiKeys.of([KEY]))


def test_files_of_keys(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# mine\n{KEY}\n\n{KEY}2\n")
    file.chmod(0o600)
    keys, notes = read_keys(file)
    assert keys.accepts(f"Bearer {KEY}2".encode()) and not keys.accepts(b"Bearer # mine") and notes == []
    file.chmod(0o644)
    assert "chmod 600" in read_keys(file)[1][0]
    for content, words in (
        (b"", "empty"),
        (b"# none\n", "empty"),
        (b"short\n", "Line 1"),
        (b"a b c d e f g\n", "Line 1"),
        (b"\xff\n", "UTF-8"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            read_keys(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(tmp_path / "none")


def test_names_of_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name_source("lstm-word") == ("lstm-word", "lstm-word")
    assert name_source("./some/my-model/") == ("my-model", "./some/my-model/")
    assert name_source("hf://ana/music@v2") == ("ana/music", "hf://ana/music@v2")
    assert name_source("x=./a=b") == ("x", "./a=b")
    (tmp_path / "a=b").mkdir()
    assert name_source("./a=b") == ("a=b", "./a=b")
    for wrong in ("", "=x", "x=", "a\nb"):
        with pytest.raises(ConfigError):
            name_source(wrong)
    with pytest.raises(ConfigError, match=r"\./a and \./b/a"):
        check_names([name_source("./a"), name_source("./b/a")])


# Rude and many clients


def read_some(server: LiveServer, chunks: int, **fields) -> None:
    """Read some parts of a stream and close the connection."""
    with server.http.stream("POST", "/v1/completions", json={"stream": True} | fields) as response:
        parts = response.iter_lines()
        for _ in range(chunks):
            next(parts)


def test_a_client_that_goes_away_stops_its_texts(server):
    read_some(server, 2, model="slow", n=8)
    server.wait_until_idle()
    with pytest.raises(httpx.ReadTimeout):
        server.http.post("/v1/completions", json={"model": "slow", "n": 8}, timeout=0.3)
    server.wait_until_idle()


def test_a_full_queue_answers_429():
    with serve({"slow": slow_model()}, {"max_rows": 2, "max_waiting": 4}) as server:
        threads = [threading.Thread(target=read_some, args=(server, 30), kwargs={"n": 3}) for _ in range(2)]
        for number, thread in enumerate(threads):
            thread.start()
            wait_for(lambda least=3 * number + 3: server.live_rows() >= least)
        response = server.complete(n=4)
        assert response.status_code == 429 and int(response.headers["retry-after"]) >= 1
        assert error_of(response)["code"] == "queue_full"
        for thread in threads:
            thread.join()
        server.wait_until_idle()
        assert server.complete(n=4, max_tokens=2).status_code == 200


def test_more_texts_than_may_ever_wait_are_no_reason_to_try_again():
    with serve({"slow": slow_model()}, {"max_waiting": 4}) as server:
        response = server.complete(n=5)
        assert response.status_code == 400 and "retry-after" not in response.headers
        assert error_of(response)["code"] == "limit_exceeded" and "at most 4 texts" in error_of(response)["message"]


def test_requests_on_their_way_to_the_engine_have_places_in_the_queue(ngram, monkeypatch):
    """With ``novelty`` a thread submits a request, which may take a while."""
    submit, goes_on, statuses = Engine.submit, threading.Event(), []
    monkeypatch.setattr(Engine, "submit", lambda *args, **options: (goes_on.wait(60), submit(*args, **options))[1])
    with serve({"m": ngram}, {"max_waiting": 4}) as server:

        def ask() -> None:
            statuses.append(server.complete(n=2, max_tokens=2, novelty="report").status_code)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(statuses) == 4)
        goes_on.set()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 200, 429, 429, 429, 429]
        assert server.complete(n=4, max_tokens=2, novelty="report").status_code == 200


def test_searches_leave_the_queue_to_others():
    with serve({"slow": slow_model()}, {"max_waiting": 4}) as server:

        def search() -> None:
            with contextlib.suppress(httpx.ReadTimeout):
                server.http.post(PATH, json={"n": 4, "must_include": "\u2603"}, timeout=3)  # which never comes

        thread = threading.Thread(target=search)
        thread.start()
        wait_for(lambda: server.live_rows() == 4)
        assert server.complete(max_tokens=2, n=4).status_code == 200
        assert server.complete(max_tokens=2, must_include="a").status_code == 429
        thread.join()
        server.wait_until_idle()


def test_the_time_limit_cuts_texts_off():
    with serve({"slow": slow_model()}, {"request_seconds": 0.5}) as server:
        started = time.monotonic()
        choice = server.complete(max_tokens=4000, stop="zzz").json()["choices"][0]  # a stop that never comes
        assert 0.4 < time.monotonic() - started < 10
        assert choice["finish_reason"] == "length" and choice["reviewgen"]["reason"] == "time" and choice["text"]


def test_a_reader_that_stalls_loses_its_place_and_others_go_on(ngram):
    with serve({"slow": slow_model(max_new_tokens=100_000), "m": ngram}, {"stall_seconds": 1.0, "max_tokens": 200_000}) as server:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        body = json.dumps({"model": "slow", "n": 64, "logprobs": 20, "stream": True, "max_tokens": 200_000}).encode()
        raw.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_for(lambda: server.live_rows() > 0)
        started = time.monotonic()
        assert server.complete(model="slow", max_tokens=20, n=1).status_code == 200
        assert server.complete(model="m", max_tokens=20).status_code == 200
        assert time.monotonic() - started < 10
        server.wait_until_idle(60)
        server.http.close()
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # the system closes the connection, which the client still holds
            wait_for(lambda: not server.server.server_state.connections)
        raw.close()


def test_many_streams_are_each_the_text_of_their_seed(server, ngram):
    seeds = list(range(24))
    expected = {seed: ngram.generate_one("the ", seed=seed, max_new_tokens=60) for seed in seeds}

    async def one(client: httpx.AsyncClient, seed: int) -> str:
        text = "the "
        fields = {"model": "ngram-char", "prompt": "the ", "seed": seed, "max_tokens": 60, "stream": True}
        await asyncio.sleep(random.Random(seed).random() / 5)
        async with client.stream("POST", "/v1/completions", json=fields) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
                    if seed % 3 == 0 and len(text) > 12:
                        return ""  # goes away
        return text

    async def all_of_them() -> list[str]:
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            return await asyncio.gather(*(one(client, seed) for seed in seeds))

    for seed, text in zip(seeds, asyncio.run(all_of_them()), strict=True):
        goes_away = seed % 3 == 0 and len(expected[seed]) > 12
        assert text == ("" if goes_away else expected[seed])
    assert sum(len(expected[seed]) > 12 for seed in seeds[::3]) >= 3
    server.wait_until_idle()


def test_a_shutdown_lets_requests_end_and_then_ends_them():
    with serve({"slow": slow_model()}, {"shutdown_seconds": 4}) as server:
        results: dict[str, httpx.Response] = {}

        def ask(name: str, **fields) -> None:
            results[name] = httpx.post(f"{server.url}/v1/completions", json=fields, timeout=PATIENCE)

        asks = {"short": {"max_tokens": 50}, "long": {"max_tokens": 4000}, "stream": {"max_tokens": 4000, "stream": True}}
        threads = [threading.Thread(target=ask, args=(name,), kwargs=fields) for name, fields in asks.items()]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.live_rows() == 3)
        server.server.should_exit = True
        for thread in threads:
            thread.join(30)
    assert results["short"].status_code == 200 and results["short"].json()["usage"]["completion_tokens"] == 50
    assert results["long"].status_code == 503 and error_of(results["long"])["code"] == "shutting_down"
    last = results["stream"].text.strip().split("\n\n")
    assert "shutting_down" in last[-2] and last[-1] == "data: [DONE]"


def test_a_second_interrupt_ends_requests_with_an_error(caplog):
    with serve({"slow": slow_model()}, {"shutdown_seconds": 100}) as server:
        results: list[httpx.Response] = []

        def ask(**fields) -> None:
            results.append(httpx.post(server.url + PATH, json={"max_tokens": 4000} | fields, timeout=PATIENCE))

        threads = [threading.Thread(target=ask), threading.Thread(target=ask, kwargs={"must_include": "\u2603"})]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.live_rows() == 2)
        started = time.monotonic()
        server.server.handle_exit(signal.SIGINT, None)
        server.server.handle_exit(signal.SIGINT, None)
        for thread in threads:
            thread.join(30)
        assert time.monotonic() - started < 20
    assert [(each.status_code, error_of(each)["code"]) for each in results] == [(503, "shutting_down")] * 2
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_second_interrupt_leaves_no_traceback_of_a_client_that_does_not_read(folder):
    process, facts = start(folder, "./mine", "--shutdown-timeout", "100s", "--max-tokens-limit", "100000")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", int(facts["url"].rpartition(":")[2])))
    body = json.dumps({"n": 64, "logprobs": 20, "stream": True, "max_tokens": 100_000, "min_tokens": 100_000}).encode()
    raw.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    assert raw.recv(10)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=90)  # less than the shutdown time; other processes may be busy
    raw.close()
    assert process.returncode == 0 and said == ""


def test_a_fault_of_the_model_is_one_request_s(ngram, monkeypatch):
    with serve({"m": ngram}) as server:
        monkeypatch.setattr("reviewgen.serving.service.make_call", lambda *_: 1 / 0)
        response = server.complete()
        assert response.status_code == 500 and error_of(response)["type"] == "server_error" and "division" not in response.text
        monkeypatch.undo()
        assert server.complete(max_tokens=3).status_code == 200


# The command


@pytest.fixture(scope="module")
def folder(ngram, tmp_path_factory):
    path = tmp_path_factory.mktemp("served")
    ngram.save_pretrained(path / "mine")
    return path


WRONG_TYPES = [  # tested in another process: under pytest, beartype notices them first
    ({"max_tokens": "5"}, "max_tokens must be a whole number"),
    ({"max_tokens": 5.5}, "max_tokens must be a whole number"),
    ({"stop": 5}, "stop must be a string"),
    ({"stop": ["a", 5]}, "stop must be"),
    ({"stream": "yes"}, "stream must be true or false"),
    ({"conditions": ["stars"]}, "conditions must be an object"),
    ({"temperature": [0.5]}, "temperature must be a number"),
    ({"novelty": "both"}, 'novelty must be "report" or "filter"'),
    ({"user": {"a": "b" * 5000}}, "user must be a string"),
]


def start(folder, *words: str) -> tuple[subprocess.Popen, dict]:
    command = [sys.executable, "-m", "reviewgen", "serve", *words, "--port", "0", "--json"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    while not lines or lines[-1] != "}\n":
        lines.append(process.stdout.readline())
        assert lines[-1], "The server did not start."
    return process, json.loads("".join(lines))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_serves_until_a_signal_ends_it(folder, ngram, workers):
    process, facts = start(folder, "./mine", "two=./mine", "--workers", str(workers))
    try:
        assert facts["models"] == ["mine", "two"] and facts["url"].startswith("http://127.0.0.1:")
        expected = ngram.generate_one("the ", seed=3, max_new_tokens=20)
        for _ in range(8):
            ask = {"model": "two", "prompt": "the ", "seed": 3, "max_tokens": 20, "echo": True}
            assert httpx.post(f"{facts['url']}/v1/completions", json=ask).json()["choices"][0]["text"] == expected
        for fields, sentence in WRONG_TYPES:
            response = httpx.post(f"{facts['url']}/v1/completions", json={"model": "two"} | fields)
            assert response.status_code == 400 and sentence in error_of(response)["message"], response.text
        text = httpx.get(f"{facts['url']}/metrics").text  # of all processes
        (requests,) = [line for line in text.splitlines() if line.startswith('reviewgen_requests_total{model="two",status="200"')]
        assert float(requests.split()[-1]) == 8
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stderr.read() == ""


def test_what_cannot_be_served_is_said_before_it_serves(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "broken").mkdir(exist_ok=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, status, parts in (
            (["./mine", "--port", port], 1, [port, "in use"]),
            (["./broken", "--port", "0"], 1, ["./broken cannot be served"]),
            (["./broken", "--port", "0", "--workers", "2"], 1, ["./broken cannot be served"]),
            (["./mine", "./mine"], 2, ["Two models are named 'mine'"]),
            (["./mine", "--api-key-file", str(tmp_path / "none")], 2, ["cannot be read"]),
            (["./mine", "--host", "no.such.host.invalid"], 2, ["is not an address"]),
            (["./mine", "--cors-origin", "example.org"], 2, ["is not an origin"]),
            (["./mine", "--max-rows", "0"], 2, ["max_rows"]),
            (["./mine", "--request-timeout", "soon"], 2, ["duration"]),
        ):
            code, out, problem = run_command(monkeypatch, capsys, "serve", *words)
            errors = [line for line in problem.splitlines() if line.startswith("error:")]
            assert code == status and len(errors) == 1 and out == "", problem
            assert all(part in errors[0] for part in parts) and "Traceback" not in problem


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_that_does_not_load_is_left_out(workers, folder):
    (folder / "broken").mkdir(exist_ok=True)
    process, facts = start(folder, "./mine", "./broken", "x=./mine", "--workers", workers)
    try:
        assert facts["models"] == ["mine", "x"] and "config.json" in facts["failed"]["broken"]
        listed = httpx.get(f"{facts['url']}/v1/models", timeout=PATIENCE).json()["data"]
        assert [model["id"] for model in listed] == ["mine", "x"]
    finally:
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and said.count("broken is left out: ") == 1


def workers_of(process):
    """Return the ids of the processes that a server has started to serve, by what the system knows of them."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_a_worker_that_cannot_be_replaced_leaves_the_others(folder):
    shutil.copytree(folder / "mine", folder / "copy")
    process, facts = start(folder, "./mine", "x=./copy", "--workers", "2")
    try:
        before = workers_of(process)
        (folder / "copy").rename(folder / "away")
        os.kill(min(before), signal.SIGKILL)
        assert "cannot be started again; the others go on. x cannot be loaded any more" in process.stderr.readline()
        ask = {"model": "x", "max_tokens": 3}
        for _ in range(4):  # meanwhile, other workers that lack the model are started and ended
            assert httpx.post(f"{facts['url']}/v1/completions", json=ask, timeout=PATIENCE).status_code == 200
        (folder / "away").rename(folder / "copy")
        wait_for(lambda: len(workers_of(process) - {min(before)}) == 2, PATIENCE)
    finally:
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "Traceback" not in said and said.count("go on") == 0


class NoWait(threading.Event):
    """Is never set, and takes no time."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


def test_a_failed_replacement_is_tried_again_later_and_said_once(monkeypatch, caplog):
    clock, starts, retries, dead = [0.0], [], workers._Retries(), [get_context("spawn").Process()]  # never started: dead
    monkeypatch.setattr(workers, "mark_process_dead", lambda _: None)
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def fail():
        starts.append(clock[0])
        raise WorkerError("The model is gone.")

    for clock[0] in range(40):
        workers._replace_dead(dead, retries, fail, NoWait())
    assert starts == [0, 2, 6, 14, 30]
    assert [record.getMessage().rpartition(". ")[2] for record in caplog.records] == ["The model is gone."]


def test_a_worker_that_lacks_a_model_does_not_serve(monkeypatch):
    def load(sources, bits, leave_out, rows):
        leave_out("b", WorkerError("Its file is damaged."))
        return {"a": None}

    served, (ours, theirs) = [], get_context("spawn").Pipe()
    monkeypatch.setattr(workers, "load_engines", load)
    monkeypatch.setattr(workers, "make_app", lambda *_: None)
    monkeypatch.setattr(workers, "run", lambda *_: served.append(True))
    with socket.socket() as listening:
        workers._work(ServerOptions(sources={}), listening, theirs, ["a", "b"])
        assert ours.recv() == "b cannot be loaded any more: Its file is damaged." and not served
        workers._work(ServerOptions(sources={}), listening, theirs, ["a"])
        assert served == [True] and not ours.poll()


class GrowingModel(SlowModel):
    """Keeps all tokens in its state."""

    def initial_state(self, batch_size: int) -> torch.Tensor:
        return torch.zeros(batch_size, 0)

    def __call__(self, ids: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.table[ids], torch.cat([state, ids.float()], dim=1)


def test_a_model_that_no_engine_can_run_is_named(ngram):
    before = threading.active_count()
    with pytest.raises(BrokenPlugin, match="second cannot be served: The model's states have different shapes"):
        create_app({"first": ngram, "second": review_model(GrowingModel(), LETTERS)})
    wait_for(lambda: threading.active_count() <= before)  # the engine of the first one has ended


def test_an_open_host_without_a_key_is_warned_of(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("reviewgen.serving.server.run", lambda *_: None)
    _, _, said = run_command(monkeypatch, capsys, "serve", "./mine", "--host", "0.0.0.0", "--port", "0")
    assert "warning: other machines reach 0.0.0.0" in said
    _, _, said = run_command(monkeypatch, capsys, "serve", "./mine", "--port", "0")
    assert "warning" not in said
