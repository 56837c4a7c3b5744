"""Live servers: clients that people have (openai, curl, LangChain, llm), rude ones, and the end of
a server.
"""

import asyncio
import contextlib
import json
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import openai
import pytest
import yaml
from pydantic import BaseModel

from tests.support.live_server import KEY, PATH, PATIENCE, error_of, serve, slow_model, wait_for

pytestmark = pytest.mark.server
HEAD = (
    f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nAuthorization: Bearer"
    f" {KEY}\r\n".encode()
)
HOW_TO = Path(__file__).parents[2] / "docs/how-to/serve.md"


@pytest.fixture(scope="module")
def model(micro):
    return micro("exact")


@pytest.fixture(scope="module")
def server(model):
    with serve({"mine": model, "slow": slow_model()}, {"max_waiting": 64}, key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


# Clients


def test_openai_gets_the_texts_of_generate_whole_and_as_a_stream(client, model):
    own = {"min_p": 0.05, "top_k": 5, "no_repeat_ngram_size": 5}
    ask = {"model": "mine", "prompt": ["the ", "a"], "seed": 3, "max_tokens": 20, "extra_body": own}
    raw = client.completions.with_raw_response.create(logprobs=2, **ask)
    done = raw.parse()
    expected = model.generate(["the ", "a"], seed=3, max_new_tokens=20, **own)
    assert raw.headers["x-request-id"] == done.id and done.usage.prompt_tokens == 5
    assert [choice.model_extra["reviewgen"]["text"] for choice in done.choices] == expected
    assert all("".join(choice.logprobs.tokens) == choice.text for choice in done.choices)
    texts = ["the ", "a"]
    for chunk in client.completions.create(stream=True, **ask):
        for part in chunk.choices:
            texts[part.index] += part.text
    assert texts == expected


def test_openai_lists_the_models(client):
    assert [each.id for each in client.models.list()] == ["mine", "slow"]


def test_openai_raises_its_own_exceptions(client, server):
    with pytest.raises(openai.BadRequestError, match="max_tokens") as bad:
        client.completions.create(model="mine", prompt="a", max_tokens=10**9)
    assert (bad.value.param, bad.value.code, bad.value.type) == (
        "max_tokens",
        "limit_exceeded",
        "invalid_request_error",
    )
    with pytest.raises(openai.NotFoundError, match="mine"):
        client.completions.create(model="nine", prompt="a")
    ask = {"model": "slow", "prompt": "a", "n": 64}
    streams = [client.completions.create(stream=True, **ask) for _ in range(2)]
    with (
        contextlib.closing(streams[0]),
        contextlib.closing(streams[1]),
        pytest.raises(openai.RateLimitError, match="waiting"),
    ):
        client.completions.create(**ask)
    with pytest.raises(openai.AuthenticationError, match="API key"):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-other", max_retries=0).models.list()
    server.wait_until_idle()  # the streams were left in the middle


def test_langchain(server, model):
    from langchain_openai import OpenAI

    writer = OpenAI(
        model="mine",
        base_url=f"{server.url}/v1",
        api_key=KEY,
        max_tokens=20,
        temperature=0.7,
        seed=8,
    )
    expected = model.generate_one("the ", seed=8, max_new_tokens=20, temperature=0.7)
    assert "the " + writer.invoke("the ") == "the " + "".join(writer.stream("the ")) == expected


def test_llm(server, model, tmp_path, monkeypatch):
    """The llm command, with the entry that the page shows."""
    pytest.importorskip("llm", reason="the llm command is not installed: pip install llm")
    from click.testing import CliRunner
    from llm.cli import cli

    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    (shown,) = re.findall(
        r"^```yaml\n(.*?)^```", HOW_TO.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    (entry,) = yaml.safe_load(shown.replace("http://127.0.0.1:8000", server.url))
    models = [
        entry | {"model_id": name, "model_name": name, "api_key_name": "mine"}
        for name in ("mine", "other")
    ]
    models.append(models[0] | {"model_id": "chat", "completion": False})
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    (tmp_path / "keys.json").write_text(json.dumps({"mine": KEY}))
    words = [
        "the ",
        "-o",
        "seed",
        "7",
        "-o",
        "max_tokens",
        "20",
        "-o",
        "temperature",
        "0.7",
        "--no-log",
    ]
    expected = model.generate_one("the ", seed=7, max_new_tokens=20, temperature=0.7)
    for name in ("mine", "chat"):
        for more in ([], ["--no-stream"]):
            assert (
                "the "
                + CliRunner().invoke(cli, ["-m", name, *words, *more]).output.removesuffix("\n")
                == expected
            )
    failed = CliRunner().invoke(cli, ["-m", "other", *words])
    assert failed.exit_code == 1 and failed.output.startswith("Error: ") and "mine" in failed.output


CHAT = {
    "model": "mine",
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "th"}, {"type": "text", "text": "e "}],
        },
    ],
    "n": 2,
    "seed": 3,
    "max_completion_tokens": 20,
    "temperature": 0.7,
}


def test_openai_chats(client, model):
    expected = model.generate(
        "the ", num_return_sequences=2, seed=3, max_new_tokens=20, temperature=0.7
    )
    done = client.chat.completions.create(stop=["zzz"], **CHAT)
    assert ["the " + choice.message.content for choice in done.choices] == expected
    assert {choice.message.role for choice in done.choices} == {
        "assistant"
    } and done.usage.prompt_tokens == 4


def test_a_streamed_chat_is_the_whole_one(client):
    done = client.chat.completions.create(**CHAT)
    streamed = client.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **CHAT
    )
    chunks = list(streamed)
    texts = ["the ", "the "]
    roles = []
    ends = []
    for choice in chain.from_iterable(chunk.choices for chunk in chunks):
        texts[choice.index] += choice.delta.content
        roles += [choice.delta.role] if choice.delta.role else []
        ends += [choice.finish_reason] if choice.finish_reason else []
    assert {each.id[:9] for each in (done, *chunks)} == {"chatcmpl-"}
    assert texts == ["the " + choice.message.content for choice in done.choices]
    assert roles == ["assistant"] * 2
    assert ends == [choice.finish_reason for choice in done.choices]
    assert chunks[-1].usage == done.usage and {chunk.object for chunk in chunks} == {
        "chat.completion.chunk"
    }


class Review(BaseModel):
    """What a client asks for."""

    stars: Literal[1, 2, 3, 4, 5]
    title: str


def test_openai_parses_what_it_asks_for(micro):
    with serve({"words": micro("ngram-word")}) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        ask: Any = {"model": "words", "messages": [{"role": "user", "content": "A review: "}]}
        for seed in range(5):
            answer = client.chat.completions.parse(seed=seed, response_format=Review, **ask)
            assert answer.choices[0].message.parsed.stars in range(1, 6)
        with pytest.raises(openai.BadRequestError, match="json_schema"):
            client.chat.completions.create(response_format={"type": "xml"}, **ask)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_a_text_that_fits(micro):
    with serve({"words": micro("ngram-word")}) as server:
        body = json.dumps({"guided_regex": "[1-5] stars, [a-z ]{5,20}[.]", "words": "any"})
        command = ["curl", "-sS", "--json", body, f"{server.url}/v1/completions"]
        made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
        (choice,) = json.loads(made.stdout)["choices"]
        assert re.fullmatch(r"[1-5] stars, [a-z ]{5,20}[.]", choice["text"])


def test_openai_gets_the_vectors_of_embed(micro, monkeypatch):
    network = micro("gru-word")
    texts = ["The food was good.", "cold"]
    encode = type(network.tokenizer).encode
    loops = list[Any]()

    def noted(self, text):
        loops.append(asyncio._get_running_loop())
        return encode(self, text)

    monkeypatch.setattr(type(network.tokenizer), "encode", noted)
    with serve({"m": network}) as server:
        other = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        whole = other.embeddings.create(model="m", input=texts)  # base64
        numbers = other.embeddings.create(model="m", input=texts[0], encoding_format="float")
        assert (
            'reviewgen_request_seconds_count{model="m"} 2.0'
            in httpx.get(f"{server.url}/metrics").text
        )
    assert loops and not any(loops), "the event loop is for other requests"
    np.testing.assert_allclose(
        [each.embedding for each in whole.data], network.embed(texts), rtol=1e-6
    )
    assert numbers.data[0].embedding == pytest.approx(whole.data[0].embedding)
    assert whole.usage.total_tokens == sum(len(network.tokenizer.encode(text)) for text in texts)


# fields: open-webui/open-webui@05746a9 backend/open_webui/utils/payload.py,
# apply_model_params_to_body_openai
OPEN_WEBUI = {
    "stream": True,
    "model": "mine",
    "messages": [
        {"role": "system", "content": "You write reviews."},
        {"role": "user", "content": "the "},
    ],
    "temperature": 0.7,
    "top_p": 0.9,
    "max_tokens": 20,
    "frequency_penalty": 0.5,
    "seed": 5,
    "stop": ["zzz"],
}
AGENT = {  # fields of openai.types.chat.completion_create_params that agents send
    **OPEN_WEBUI,
    "messages": [{"role": "user", "content": [{"type": "text", "text": "the "}]}],
    "stream_options": {"include_usage": True},
    "presence_penalty": 0.3,
    "user": "6650f1",
    "tools": [
        {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}


@pytest.mark.parametrize("body", [OPEN_WEBUI, AGENT], ids=["Open WebUI", "agent"])
def test_bodies_of_chat_programs_are_answered(server, model, body):
    response = server.http.post("/v1/chat/completions", json=body)
    *parts, last = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    choices = chain.from_iterable(json.loads(part)["choices"] for part in parts)
    deltas = [choice["delta"]["content"] for choice in choices]
    settings = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 20, "stop_strings": ["zzz"]}
    assert last == "[DONE]" and "the " + "".join(deltas) == model.generate_one(
        "the ", seed=5, **settings
    )


# Rude and many clients


def connect(server, body=None, buffer=None):
    """Return a bare connection; a body is sent as a request."""
    raw = socket.socket()
    raw.settimeout(PATIENCE)
    if buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    if body is not None:
        raw.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    return raw


def test_a_client_that_goes_away_stops_its_texts(server):
    long = {"prompt": "ab" * 4000, "logprobs": 0, "echo": True}
    for fields in (
        {"n": 8, "stream": True},
        {"n": 8},
        {"prompt": "ab" * 4000, "stream": True},
        long,
    ):
        asked = server.http.stream("POST", PATH, json={"model": "slow"} | fields, timeout=0.4)
        with contextlib.suppress(httpx.ReadTimeout), asked as response:
            next(response.iter_lines())  # of a stream; the others do not answer in time
        server.wait_until_idle()
    counts = re.findall(
        r'^reviewgen_tokens_total{kind="completion",model="slow"} (\S+)',
        server.metrics(),
        re.MULTILINE,
    )
    assert float(counts[0]) > 10  # those of texts that did not end count, too


def test_others_go_on_while_a_long_prompt_is_scored_or_continued(server):
    for fields in (
        {"prompt": "ab" * 8000, "echo": True, "logprobs": 0, "max_tokens": 0},
        {"prompt": "ab" * 8000, "n": 60},
    ):
        with connect(server, json.dumps({"model": "slow"} | fields).encode()) as long:
            wait_for(server.live_texts)
            assert server.complete(model="slow", prompt="ab", max_tokens=3, n=8).status_code == 200
            short = server.choices(model="slow", prompt="abc", echo=True, logprobs=1, max_tokens=2)[
                0
            ]
            assert len(short["logprobs"]["tokens"]) == 5 and not select.select([long], [], [], 0)[0]
        server.wait_until_idle()


def test_a_large_body_is_refused_before_it_is_read_and_long_headers_too(server):
    with connect(server) as raw:
        raw.sendall(HEAD + b"Content-Length: 100000000\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")  # nothing of the 100 MB was sent
    with connect(server) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 66_000)
        assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
    assert server.http.get("/health", headers={"x": "a" * 50_000}).status_code == 200


@pytest.mark.parametrize(
    "seconds, status", [(60.0, 200), (0.5, 408)], ids=["in time", "not in time"]
)
def test_a_body_may_come_slowly_but_steadily_within_the_time_of_a_request(model, seconds, status):
    body = b'{"max_tokens": 2}'
    with (
        serve({"m": model}, {"stall_seconds": 1.2, "request_seconds": seconds}) as server,
        connect(server) as raw,
    ):
        raw.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        for byte in body:
            raw.sendall(bytes([byte]))
            if select.select([raw], [], [], 0.1)[0]:  # it is answered
                break
        assert raw.recv(4096).startswith(b"HTTP/1.1 %d" % status)
        with connect(server) as other:
            other.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")  # and no more
            assert other.recv(4096).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "first, slowly",
    [
        (b"", b""),
        (b"GET /health HTT", b""),
        (b"", b"GET /health" * 9),
        (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET", b" /health"),
    ],
    ids=["silent", "half a header", "slow header", "second request"],
)
def test_a_connection_is_closed_if_the_headers_of_a_request_do_not_come_in_time(
    model, first, slowly
):
    with serve({"m": model}, {"stall_seconds": 0.8}) as server, connect(server) as raw:
        raw.sendall(first)
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):  # once it is closed
            for byte in slowly:
                raw.sendall(bytes([byte]))
                time.sleep(0.05)
            while raw.recv(4096):
                pass
        assert 0.7 < time.monotonic() - started < 4


def test_a_stream_may_take_longer_than_the_headers_of_a_request():
    ask = {"max_tokens": 4000, "stream": True}
    with (
        serve({"slow": slow_model()}, {"stall_seconds": 0.3}) as server,
        server.http.stream("POST", PATH, json=ask) as response,
    ):
        until = time.monotonic() + 1
        lines = response.iter_lines()
        while time.monotonic() < until:
            next(lines)


def test_requests_on_too_many_connections_are_answered_with_503():
    body = json.dumps({"stream": True, "max_tokens": 4000}).encode()
    with serve({"slow": slow_model()}) as server, contextlib.ExitStack() as stack:
        server.uvicorn.config.limit_concurrency = 3
        for _ in range(2):
            stack.enter_context(connect(server, body))
        wait_for(lambda: len(server.uvicorn.server_state.tasks) == 2)
        assert httpx.get(f"{server.url}/health").status_code == 503


def test_a_reader_that_stalls_loses_its_place_and_others_go_on(model):
    limits = {"stall_seconds": 1.0, "max_tokens": 200_000}
    body = json.dumps(
        {"model": "slow", "n": 64, "logprobs": 20, "stream": True, "max_tokens": 200_000}
    ).encode()
    with (
        serve({"slow": slow_model(), "m": model}, limits) as server,
        connect(server, body, buffer=4096),
    ):
        wait_for(server.live_texts)
        for name in ("slow", "m"):
            assert server.complete(model=name, max_tokens=20).status_code == 200
        server.wait_until_idle()


# The end


def test_a_shutdown_lets_requests_end_and_then_ends_them():
    asks = ({"max_tokens": 50}, {"max_tokens": 4000}, {"max_tokens": 4000, "stream": True})
    with (
        serve({"slow": slow_model()}, {"shutdown_seconds": 3}) as server,
        ThreadPoolExecutor(3) as pool,
    ):
        asked = [
            pool.submit(httpx.post, server.url + PATH, json=fields, timeout=PATIENCE)
            for fields in asks
        ]
        wait_for(lambda: server.live_texts() == 3)
        server.uvicorn.should_exit = True
        short, long, stream = [each.result() for each in asked]
    assert short.status_code == 200 and short.json()["usage"]["completion_tokens"] == 50
    assert long.status_code == 503 and error_of(long)["code"] == "shutting_down"
    *_, failed, last = stream.text.strip().split("\n\n")
    assert "shutting_down" in failed and last == "data: [DONE]"


def test_a_second_interrupt_ends_requests_with_an_error_and_readers_that_stall(caplog):
    body = json.dumps({"n": 64, "logprobs": 20, "stream": True}).encode()
    asks = ({"max_tokens": 4000}, {"prompt": "ab" * 8000})
    running = serve({"slow": slow_model()}, {"shutdown_seconds": 100})
    with running as server, connect(server, body, 4096), ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(httpx.post, server.url + PATH, json=fields, timeout=PATIENCE)
            for fields in asks
        ]
        wait_for(lambda: server.live_texts() == 66)
        started = time.monotonic()
        for _ in range(2):
            server.uvicorn.handle_exit(signal.SIGINT, None)
        results = [each.result() for each in asked]
    assert time.monotonic() - started < 60
    assert [(each.status_code, error_of(each)["code"]) for each in results] == [
        (503, "shutting_down")
    ] * 2
    assert [record for record in caplog.records if record.exc_info] == []
