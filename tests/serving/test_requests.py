"""What a server answers besides texts, and what it refuses: over HTTP in this process."""

import gzip
import math
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import chain

import numpy as np
import pytest
import torch
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from reviewgen.errors import ConfigError
from reviewgen.serving.options import accepted_hosts, digest_key, read_keys
from tests.support.fakes import LETTERS, TableModel, review_model, table
from tests.support.live_server import (
    KEY,
    PATH,
    PATIENCE,
    error_of,
    in_process,
    slow_model,
    wait_for,
)

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def models(micro):
    never = table(LETTERS.vocab_size, eos=-1e9)
    never[:, LETTERS.encode("h")[0]] = -math.inf
    never[LETTERS.encode("g")[0]] = float("nan")
    letters = review_model(TableModel(never), LETTERS)
    return {
        "chars": micro("exact"),
        "a/<b>": micro("ngram-word"),
        "gru": micro("gru-word"),
        "no h": letters,
    }


@pytest.fixture(scope="module")
def server(models):
    with in_process(models) as running:
        yield running


# Scores of prompts: echo with logprobs


def by_steps(model, ids):
    """Return the log probabilities (nats) of all tokens after each of some ids, fed one by one: (T
    + 1, V).
    """
    state = model.model.initial_state(1)
    rows = []
    with torch.inference_mode():
        for token in (model.tokenizer.bos_id, *ids):
            logits, state = model.model(torch.tensor([[token]]), state)
            rows.append(torch.log_softmax(logits[0, 0].double(), 0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("name", ["chars", "a/<b>", "gru"])
def test_prompts_have_the_scores_of_the_model(server, models, name):
    model = models[name]
    prompts = ["the movie was", "the ", "I liked th", "", "Très 日 😀 x", "the movie was"]
    answer = server.complete(model=name, prompt=prompts, echo=True, logprobs=3, max_tokens=0).json()
    assert answer["usage"]["completion_tokens"] == 0
    for choice, prompt in zip(answer["choices"], prompts, strict=True):
        probs = choice["logprobs"]
        ids = model.tokenizer.encode(prompt)
        assert (
            choice["text"] == prompt == "".join(probs["tokens"])
            and choice["finish_reason"] == "length"
        )
        rows = by_steps(model, ids)
        known = [row[token] for row, token in zip(rows, ids, strict=False)]
        np.testing.assert_allclose(probs["token_logprobs"], known, atol=1e-4)
        bits = [token.bits for token in model.score(prompt).tokens[:-1]] if prompt else []
        np.testing.assert_allclose(
            probs["token_logprobs"], [-each * math.log(2) for each in bits], rtol=1e-3, atol=1e-3
        )
        assert probs["text_offset"] == [
            len("".join(probs["tokens"][:place])) for place in range(len(ids))
        ]
        rows[:, model.tokenizer.bos_id] = -math.inf
        for row, top, token in zip(rows, probs["top_logprobs"], probs["tokens"], strict=False):
            assert token in top and (
                not token or max(top.values()) == pytest.approx(row.max(), abs=1e-4)
            )


def parts_of(chunks, choice):
    """Return the parts of a stream that belong to a choice."""
    parts = chain.from_iterable(chunk["choices"] for chunk in chunks)
    return [part for part in parts if part["index"] == choice["index"]]


PROMPTS = ["the movie was", "", "I liked"]
ASK = {"prompt": PROMPTS, "logprobs": 2, "max_tokens": 12, "seed": 4, "n": 2, "echo": True}


@pytest.mark.parametrize("name", ["chars", "gru"])
def test_an_echo_has_the_tokens_of_the_prompt_with_their_probabilities(server, models, name):
    model = models[name]
    choices = server.choices(model=name, **ASK)
    for choice in choices:
        tokens = choice["logprobs"]["tokens"]
        probs = choice["logprobs"]
        ended = tokens[-1:] == ["<|endoftext|>"]
        assert choice["text"] == "".join(tokens[: len(tokens) - ended]) and ended == (
            choice["finish_reason"] == "stop"
        )
        assert choice["text"].startswith(PROMPTS[choice["index"] // 2])
        ids = model.tokenizer.encode(choice["text"])
        if ended and len(ids) == len(tokens) - 1:
            assert sum(probs["token_logprobs"]) == pytest.approx(
                -model.score(choice["text"]).bits * math.log(2), rel=1e-3
            )


@pytest.mark.parametrize("name", ["chars", "gru"])
def test_a_stream_has_the_tokens_and_probabilities_of_the_whole_answer(server, name):
    chunks = server.stream(model=name, **ASK)
    for choice in server.choices(model=name, **ASK):
        parts = parts_of(chunks, choice)
        for field, values in choice["logprobs"].items():
            streamed = chain.from_iterable(part["logprobs"][field] for part in parts)
            assert list(streamed) == values, field
        assert "".join(part["text"] for part in parts) == choice["text"]


@pytest.mark.parametrize("name", ["chars", "gru"])
def test_new_tokens_follow_a_prompt_of_ids_as_they_follow_its_text(server, models, name):
    choices = server.choices(model=name, **ASK)
    ids = models[name].tokenizer.encode(PROMPTS[0])
    own = ASK | {"model": name, "prompt": ids, "echo": False}
    for plain, choice in zip(
        server.choices(**own, finish="anywhere"),
        choices[:2],
        strict=True,
    ):
        assert PROMPTS[0] + plain["text"] == choice["text"]
        new = choice["logprobs"]["token_logprobs"][len(ids) :]
        assert new[: len(plain["logprobs"]["tokens"])] == pytest.approx(
            plain["logprobs"]["token_logprobs"], abs=1e-6
        )


def test_bos_has_no_score_and_what_the_model_rules_out_a_finite_one(server, models):
    tokenizer = models["chars"].tokenizer
    ask = {"echo": True, "logprobs": 2, "max_tokens": 3, "seed": 1, "model": "chars"}
    (without,) = server.choices(prompt=tokenizer.encode("the "), **ask)
    (given,) = server.choices(prompt=[tokenizer.bos_id, *tokenizer.encode("the ")], **ask)
    assert given["text"] == without["text"]
    for field, nothing in (
        ("tokens", ""),
        ("token_logprobs", None),
        ("top_logprobs", None),
        ("text_offset", 0),
    ):
        assert given["logprobs"][field] == [nothing, *without["logprobs"][field]]
    ask = {"model": "no h", "echo": True, "logprobs": 1, "max_tokens": 0}
    probs = server.choices(prompt="aha", **ask)[0]["logprobs"]
    assert (
        probs["token_logprobs"][1]
        == min(probs["top_logprobs"][1].values())
        == -9999.0
        < -20
        < probs["token_logprobs"][0]
    )
    damaged = server.complete(prompt="ga", **ask)
    assert damaged.status_code == 422 and "NaN" in error_of(damaged)["message"]


def test_the_time_of_a_request_holds_while_its_prompt_is_scored():
    with in_process({"slow": slow_model()}, {"request_seconds": 0.3}) as server:
        response = server.complete(prompt="ab" * 1000, echo=True, logprobs=0, max_tokens=0)
        assert response.status_code == 503 and "scored" in error_of(response)["message"]


# Novelty


def test_others_go_on_while_an_index_is_built_once_for_each_limit(micro, monkeypatch):
    built = []
    may_go_on = threading.Event()
    exact = import_module("reviewgen.novelty.index")
    build_windows = exact.build_windows

    def build(ids, ends, length, bits):
        built.append(length)
        assert may_go_on.wait(PATIENCE)
        return build_windows(ids, ends, length, bits)

    monkeypatch.setattr(exact, "build_windows", build)
    ask = {"prompt": "the ", "max_tokens": 5}
    with in_process({"m": micro("exact")}) as server, ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(server.complete, **ask, novelty="filter", max_copy=most)
            for most in (30, 31, 30, 31)
        ]
        wait_for(lambda: built)
        assert server.complete(**ask).status_code == 200 and not any(each.done() for each in asked)
        may_go_on.set()
        assert {each.result().status_code for each in asked} == {200}
    assert sorted(built) == [31, 32]


# Models, documents, numbers


def test_models_are_listed_and_named(server, models):
    listed = server.http.get("/v1/models").json()
    assert listed["object"] == "list" and [each["id"] for each in listed["data"]] == list(models)
    assert server.http.get("/v1/models/a/<b>").json() == listed["data"][1]


def test_a_model_has_its_settings_and_facts(server, models):
    own = server.http.get("/v1/models/chars").json()["reviewgen"]
    assert (
        own.keys() == {"preset", "conditions", "defaults", "has_index", "facts", "card"}
        and own["has_index"] is True
    )
    assert own["defaults"]["max_new_tokens"] == models["chars"].generation_config.max_new_tokens
    assert ["Preset", "ngram-char"] in own["facts"]


def test_an_unknown_model_suggests_the_closest(server):
    assert "Did you mean 'chars'?" in error_of(server.http.get("/v1/models/charz"))["message"]


def test_health_docs_and_openapi(server):
    assert server.http.get("/health").json() == server.http.get("/ready").json() == {"status": "ok"}
    document = server.http.get("/openapi.json").json()
    validate(document)
    bodies = {
        path: item["post"]["requestBody"]["content"]
        for path, item in document["paths"].items()
        if "post" in item
    }
    assert {
        path: body["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for path, body in bodies.items()
    } == {
        "/v1/completions": "CompletionRequest",
        "/v1/chat/completions": "ChatCompletionRequest",
        "/v1/embeddings": "EmbeddingRequest",
    }
    fields = document["components"]["schemas"]["CompletionRequest"]["properties"]
    assert fields["max_tokens"]["maximum"] == 4096 and all(
        field["description"] for field in fields.values()
    )
    page = server.http.get("/docs").text
    assert (
        all(f"<code>{name}</code>" in page for name in fields)
        and "a/&lt;b&gt;" in page
        and "<b>" not in page
    )
    # nothing of another server
    assert "<script" not in page and "http://" not in page and "https://" not in page


def test_the_page_only_where_asked(server, models):
    assert server.http.get("/").status_code == server.http.get("/static/app.js").status_code == 404
    with in_process({"m": models["chars"]}, page=True) as other:
        assert "<title>reviewgen</title>" in other.http.get("/").text
        assert (
            other.http.get("/static/app.js").headers["content-type"].startswith("text/javascript")
        )
        for path in ("none.js", "..%2f..%2fmodules.py"):
            assert other.http.get(f"/static/{path}").status_code == 404


def test_metrics_count_what_happened(models):
    with in_process({"m": models["chars"]}) as server:
        server.complete(prompt="the ", max_tokens=5, n=2)
        server.stream(prompt="the ", max_tokens=5)
        server.complete(max_tokens=-1)
        families = text_string_to_metric_families(server.metrics())
        samples = chain.from_iterable(family.samples for family in families)
        values = {
            (each.name, *map(each.labels.get, sorted(each.labels))): each.value for each in samples
        }
    counts = {
        key[1:]: value for key, value in values.items() if key[0] == "reviewgen_requests_total"
    }
    assert (
        counts == {("m", "200"): 2.0, ("", "400"): 1.0} and values["reviewgen_live_rows", "m"] == 0
    )
    assert (
        values["reviewgen_tokens_total", "prompt", "m"] == 8
        and values["reviewgen_tokens_total", "completion", "m"] <= 15
    )
    assert values["reviewgen_time_to_first_token_seconds_count", "m"] == 1


# What it refuses

BAD = [  # fields, the field at fault, and a word of the message
    ({"temprature": 1}, "temprature", "Did you mean 'temperature'"),
    ({"n": True}, "n", "got True"),
    ({"max_tokens": "5"}, "max_tokens", "whole number"),
    ({"max_tokens": 5000}, "max_tokens", "4,096"),
    ({"max_tokens": 10**90}, "max_tokens", "max_tokens"),
    ({"n": 1_000_000, "max_tokens": 1000}, "n", "128 texts"),
    ({"prompt": [[]] * 300_000}, "prompt", "300,000"),
    ({"prompt": [0] * 300_000}, "prompt", "token ids"),
    ({"prompt": "a" * 20_000}, "prompt", "16,384 characters"),
    ({"prompt": ["True", None]}, "prompt", "['True', None]"),
    ({"prompt": [100_000]}, "prompt", "token id"),
    ({"prompt": [3, 1]}, "prompt", "beginning and end"),
    ({"stop": ["a"] * 10_000}, "stop", "16"),
    ({"logprobs": 100}, "logprobs", "20"),
    ({"n": 100, "max_tokens": 4000, "logprobs": 20}, "logprobs", "2,000,000"),
    (
        {"prompt": "a" * 9000, "n": 50, "logprobs": 9, "echo": True, "stream": True},
        "logprobs",
        "4,500,000",
    ),
    ({"logit_bias": {"3": 1}}, "logit_bias", "leave it out"),
    ({"presence_penalty": "high"}, "presence_penalty", "number"),
    ({"best_of": 2, "stream": True}, "best_of", "stream"),
    ({"stream": True, "stream_options": {"include_usage": None}}, "stream_options", "None"),
    ({"conditions": {"stars": 5}}, "conditions", "stars"),
    ({"max_copy": 5}, "max_copy", "novelty"),
    ({"novelty": "report", "model": "no h"}, "novelty", "index"),
    ({"words": "known", "model": "no h"}, "words", "lexicon"),
    ({"min_tokens": 9, "max_tokens": 3}, "min_tokens", "min_tokens=9"),
    ({"must_include": "e"}, "must_include", "in Python"),
    ({"num_beams": 2}, "num_beams", "in Python"),
    ({"model": "n" * 900_000}, "model", "no model"),
    ({"model": None}, "model", "missing"),
]


@pytest.mark.wrong_types
def test_a_bad_field_is_refused_and_named(server):
    for fields, param, word in BAD:
        response = server.complete(**({"model": "chars"} | fields))
        error = error_of(response)
        status = 404 if word == "no model" else 400
        assert (response.status_code, error["param"]) == (status, param) and word in error[
            "message"
        ], (str(fields)[:80], error)
    neutral = {
        "presence_penalty": 0.5,
        "frequency_penalty": -1,
        "logit_bias": {},
        "suffix": "",
        "user": "a" * 99_999,
        "stop": None,
        "n": None,
    }
    assert server.complete(model="chars", max_tokens=3, **neutral).status_code == 200


BODIES = {
    b"": "JSON",
    b"{": "JSON",
    b"[1]": "got [1]",
    b'{"prompt": "\xff"}': "at byte 12",
    b'{"temperature": NaN}': "NaN",
    b'{"model": "chars", "temperature": 1e999}': "finite",
    b'{"prompt": "\\ud800"}': "surrogate",
    b'{"prompt": ' + b"[" * 200_000 + b"]" * 200_000 + b"}": "nested",
    b'{"max_tokens": ' + b"9" * 10_000 + b"}": "10,000 digits",
}


def test_a_bad_body_is_refused(server):
    for body, word in BODIES.items():
        response = server.http.post(PATH, content=body, headers=JSON)
        assert response.status_code == 400 and word in error_of(response)["message"], body[:40]
    packed = server.http.post(
        PATH, content=gzip.compress(b"{}"), headers=JSON | {"content-encoding": "gzip"}
    )
    assert packed.status_code == 415 and "compressed" in error_of(packed)["message"]
    assert server.http.post(PATH, data={"prompt": "a"}).status_code == 415
    assert server.http.post(PATH, content=b" " * 1_000_001, headers=JSON).status_code == 413
    for length, status in ((b"\xb2", 200), (b"9" * 5000, 413)):  # a digit that is not a decimal: ²
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        body = b'{"model": "chars", "max_tokens": 1}'
        assert server.http.post(PATH, content=body, headers=headers).status_code == status


def test_paths_and_methods_that_are_not_there(server):
    for method, path, status, word in (
        ("GET", PATH, 405, "GET"),
        ("GET", "/v2", 404, "/v2"),
        ("GET", "/v1/embeddings", 405, "GET"),
        ("DELETE", "/health", 405, "DELETE"),
        # not redirected to whatever host the request names
        ("POST", PATH + "/", 404, "There is no"),
    ):
        response = server.http.request(method, path)
        assert (
            response.status_code == status
            and word in error_of(response)["message"]
            and "location" not in response.headers
        )


@pytest.mark.parametrize(
    "content", [None, 5, [], ["the "], [{"type": "image_url", "image_url": {"url": "data:,"}}]]
)
def test_a_chat_without_a_text_of_the_user_is_refused(server, content):
    for messages in (
        [{"role": "user", "content": content}],
        [{"role": "system", "content": "the "}],
        "the ",
        None,
    ):
        response = server.http.post(
            "/v1/chat/completions", json={"model": "chars", "messages": messages}
        )
        assert response.status_code == 400 and error_of(response)["param"] == "messages"


@pytest.mark.parametrize(
    "fields, param, word",
    [
        ({"input": [1, 2]}, "input", "token ids"),
        ({"input": []}, "input", "list of strings"),
        ({"input": ["a"] * 10_000}, "input", "10,000 texts"),
        ({"input": "a" * 20_000}, "input", "16,384 characters"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "base64"),
        ({"input": "a", "dimensions": 8}, "dimensions", "leave it out"),
        ({"input": "a", "model": "chars"}, None, "no hidden state"),
        ({"input": ""}, None, "at least one character"),
    ],
)
def test_bad_requests_for_embeddings_are_refused(server, fields, param, word):
    response = server.http.post("/v1/embeddings", json={"model": "gru"} | fields)
    error = error_of(response)
    assert (response.status_code, error["param"]) == (400, param) and word in error["message"]


def test_a_fault_of_the_server_is_one_request_s(models, monkeypatch):
    with in_process({"m": models["chars"]}) as server:
        monkeypatch.setattr(type(models["chars"].tokenizer), "encode", lambda *_: 1 / 0)
        response = server.complete(prompt="the ", echo=True, logprobs=1)
        assert (
            response.status_code == 500
            and error_of(response)["type"] == "server_error"
            and "division" not in response.text
        )
        monkeypatch.undo()
        assert server.complete(max_tokens=3).status_code == 200


# Keys, origins, hosts


def test_keys(models, caplog):
    wrong = ["", "Bearer sk-wrong", KEY, f"Basic {KEY}"]
    right = [f"Bearer {KEY}", f"bearer {KEY}"]
    with in_process({"m": models["chars"]}, key=KEY) as server:
        for given in wrong + right:
            response = server.http.get("/v1/models", headers={"authorization": given})
            assert (
                response.status_code == (200 if given in right else 401)
                and KEY not in response.text
            )
            assert ("no API key" in response.text) == (given == "")
        for path, status in {"/metrics": 401, "/health": 200, "/ready": 200, "/docs": 200}.items():
            assert server.http.get(path, headers={"authorization": ""}).status_code == status
    assert KEY not in caplog.text


def test_files_of_keys(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# mine\n{KEY}\n\n{KEY}2\n")
    file.chmod(0o600)
    assert read_keys(file) == ([digest_key(KEY), digest_key(f"{KEY}2")], [])
    file.chmod(0o644)
    assert "chmod 600" in read_keys(file)[1][0]
    for content, word in (
        (b"# none\n", "empty"),
        (b"short\n", "Line 1"),
        (b"a b c d e f g\n", "Line 1"),
        (b"\xff\n", "utf-8"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=word):
            read_keys(file)


def test_other_origins_only_where_allowed(server, models):
    ask = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    with in_process({"m": models["chars"]}, cors_origins=["https://a.org"], key=KEY) as other:
        for app, origin in (
            (other, "https://a.org"),
            (other, "https://b.org"),
            (server, "https://a.org"),
        ):
            answer = app.http.options(PATH, headers=ask | {"origin": origin})
            assert ("access-control-allow-origin" in answer.headers) is (
                app is other and origin == "https://a.org"
            )


OWN = ["localhost:8000", "LOCALHOST:1", "127.0.0.1", "[::1]", "[::1]:8000"]
FOREIGN = [
    *(
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:localhost",
        "",
        "e" * 5000,
    ),
    *(
        "10.0.0.5",
        "0.0.0.0:8000",
        "[::]:8000",
        "[::1].evil.example",
        "[",
        "a@127.0.0.1",
        "evil.example:127.0.0.1",
        "\xff",
    ),
]
HOSTS = [  # where a server listens, the names that it is given, and which it answers to
    ("127.0.0.1", "127.0.0.1", (), OWN, FOREIGN),
    ("reviews.lan", "127.0.1.1", (), ["reviews.lan:80", "Reviews.LAN", "localhost"], ["other.lan"]),
    ("::1", "::1", (), ["[::1]:8000"], ["[::2]"]),
    (
        "127.0.0.1",
        "127.0.0.1",
        ("Example.org",),
        ["example.org", "EXAMPLE.org:80", "127.0.0.1"],
        ["www.example.org"],
    ),
    ("127.0.0.1", "127.0.0.1", ("*",), FOREIGN[:2], []),
    ("0.0.0.0", "0.0.0.0", (), FOREIGN[:2], []),
    (
        "0.0.0.0",
        "0.0.0.0",
        ("example.org",),
        ["example.org", "localhost"],
        ["evil.example", "10.0.0.5"],
    ),
]


def test_a_server_answers_to_its_own_names_only():
    """A page whose own name leads to this machine (DNS rebinding) gets nothing, whatever origin or
    key it has.
    """
    options = {"page": True, "cors_origins": ["http://evil.example"], "key": KEY}
    for host, address, more, accepted, refused in HOSTS:
        with in_process({}, hosts=accepted_hosts(host, address, more), **options) as app:
            for name in [*accepted, *refused]:
                for path in ("/v1/models", "/", "/health", "/static/page.css"):
                    headers = [
                        (b"host", name.encode("latin-1")),
                        (b"origin", b"http://evil.example"),
                    ]
                    answer = app.http.get(path, headers=headers)
                    assert answer.status_code == (200 if name in accepted else 400), (
                        host,
                        name,
                        path,
                    )
                    if name in refused:
                        assert "access-control-allow-origin" not in answer.headers


def test_what_is_not_the_name_of_a_host():
    for name in (
        "",
        "http://example.org",
        "example.org:80",
        "example.org/",
        "*.example.org",
        "[::1]",
        "a b",
    ):
        with pytest.raises(ConfigError, match="name of a host"):
            accepted_hosts("127.0.0.1", "127.0.0.1", [name])


# The commands


def test_what_cannot_be_served_is_said_before_it_serves(
    model_folder, tmp_path, monkeypatch, run_command
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    mine = str(model_folder("exact"))
    monkeypatch.delattr(socket, "AF_UNIX")  # as on Windows
    for words, status, part in (
        (["serve", "x=" + mine, "--port", "0", "--workers", "2"], 2, "on Windows, one process"),
        (["serve", "./broken", "--port", "0"], 1, "./broken cannot be served"),
        (["serve", "./a", "./b/a"], 2, "./a and ./b/a"),
        (["serve", "x=" + mine, "--api-key-file", "none"], 2, "cannot be read"),
        (["serve", "x=" + mine, "--host", "no.such.host.invalid"], 2, "is not an address"),
        (["serve", "x=" + mine, "--cors-origin", "example.org"], 2, "is not an origin"),
        (["serve", "x=" + mine, "--max-rows", "0"], 2, "max_rows"),
        (["demo", "a=lstm-word", "a=ngram-char", "--no-browser"], 2, "'a'"),
        (["demo", "ngram-char", "--bits", "7", "--no-browser"], 2, "32, 16 or 8"),
    ):
        code, out, said = run_command(*words)
        errors = re.findall("^error: .*", said, re.MULTILINE)
        assert (code, out, len(errors)) == (status, "", 1) and part in " ".join(said.split()), said
