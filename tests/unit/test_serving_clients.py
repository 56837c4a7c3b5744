"""The server with the clients that people have: the openai package, curl, and LangChain."""

import asyncio
import json
import os
import shutil
import subprocess
import sys

import openai
import pytest

from reviewgen.serving.keys import ApiKeys
from tests.support.fakes import NGRAM, train_tiny
from tests.support.live_server import LiveServer, serve, slow_model

KEY = "sk-of-the-tests-0123"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train_tiny("ngram-char", tmp_path_factory.mktemp("clients"), **NGRAM)


@pytest.fixture(scope="module")
def server(model):
    with serve({"mine": model, "slow": slow_model()}, {"max_waiting": 64}, keys=ApiKeys.of([KEY])) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


# openai


def test_openai_completes(client, model):
    done = client.completions.create(model="mine", prompt=["the ", "a"], n=2, seed=3, max_tokens=20, temperature=0.7, top_p=0.9)
    expected = model.generate(["the ", "a"], num_return_sequences=2, seed=3, max_new_tokens=20, temperature=0.7, top_p=0.9)
    prompts = ["the ", "the ", "a", "a"]
    assert [prompt + choice.text for prompt, choice in zip(prompts, done.choices, strict=True)] == expected
    assert done.object == "text_completion" and done.model == "mine" and done.id.startswith("cmpl-")
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert {choice.finish_reason for choice in done.choices} <= {"stop", "length"}
    ids = client.completions.create(
        model="mine", prompt=model.tokenizer.encode("the "), seed=3, max_tokens=20, temperature=0.7, top_p=0.9
    )
    assert ids.choices[0].text == done.choices[0].text


def test_openai_streams(client, model):
    stream = client.completions.create(
        model="mine", prompt="the ", n=3, seed=4, max_tokens=30, stream=True, stream_options={"include_usage": True}
    )
    texts, reasons, usage = ["the "] * 3, {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
    assert texts == model.generate("the ", num_return_sequences=3, seed=4, max_new_tokens=30)
    assert reasons.keys() == {0, 1, 2} and usage.prompt_tokens == 4


def test_openai_reads_log_probabilities_and_stops(client, model):
    (choice,) = client.completions.create(
        model="mine", prompt="the ", seed=5, max_tokens=30, logprobs=2, stop=["o", "zz"]
    ).choices
    assert "o" not in choice.text and "".join(choice.logprobs.tokens) == choice.text
    assert all(logprob <= 0 for logprob in choice.logprobs.token_logprobs)
    assert len(choice.logprobs.top_logprobs) == len(choice.logprobs.text_offset) == len(choice.text)
    assert all(token in top for token, top in zip(choice.logprobs.tokens, choice.logprobs.top_logprobs, strict=True))


def test_openai_sends_our_settings_as_extra_fields(client, model):
    own = {"min_p": 0.05, "top_k": 5, "novelty": "report", "no_repeat_ngram_size": 5}
    (choice,) = client.completions.create(model="mine", prompt="the ", seed=6, max_tokens=40, extra_body=own).choices
    expected = model.generate_one("the ", seed=6, max_new_tokens=40, min_p=0.05, top_k=5, no_repeat_ngram_size=5)
    assert choice.model_extra["reviewgen"]["text"] == expected
    assert [span["length"] for span in choice.model_extra["reviewgen"]["copied"]] == [
        span.tokens for span in model.novelty(expected).spans
    ]


def test_openai_lists_models(client):
    assert [each.id for each in client.models.list()] == ["mine", "slow"]
    assert client.models.retrieve("mine").owned_by == "reviewgen"


def test_openai_raises_its_own_exceptions(client, server):
    with pytest.raises(openai.BadRequestError, match="max_tokens may be at most") as bad:
        client.completions.create(model="mine", prompt="a", max_tokens=10**9)
    assert bad.value.param == "max_tokens" and bad.value.code == "limit_exceeded" and bad.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match="mine"):
        client.completions.create(model="nine", prompt="a")
    with pytest.raises(openai.UnprocessableEntityError, match="xylophone"):
        client.completions.create(model="mine", prompt="a", max_tokens=2, extra_body={"must_include": "xylophone"})
    with pytest.raises(openai.NotFoundError, match="not trained to chat"):
        client.chat.completions.create(model="mine", messages=[{"role": "user", "content": "a"}])
    with pytest.raises(openai.BadRequestError, match="at most 64 texts"):
        client.completions.create(model="slow", prompt=["a"] * 128)
    with (
        client.completions.create(model="slow", prompt="a", n=64, stream=True),
        client.completions.create(model="slow", prompt="a", n=64, stream=True),
        pytest.raises(openai.RateLimitError, match="waiting"),
    ):
        client.completions.create(model="slow", prompt="a", n=64)
    with pytest.raises(openai.AuthenticationError, match="API key"):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-other", max_retries=0).models.list()


def test_openai_gives_the_raw_response_and_its_id(client):
    raw = client.completions.with_raw_response.create(model="mine", prompt="the ", max_tokens=3)
    assert raw.status_code == 200 and raw.headers["x-request-id"] == raw.parse().id


def test_openai_goes_away_in_the_middle(client, server):
    with client.completions.create(model="slow", prompt="a", n=4, stream=True) as stream:
        for chunk, _ in zip(stream, range(3), strict=False):
            assert chunk.object == "text_completion"
    server.wait_until_idle()


def test_openai_from_a_coroutine(server, model):
    async def texts() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY) as many:
            asked = (many.completions.create(model="mine", prompt="the ", seed=seed, max_tokens=25) for seed in range(12))
            return ["the " + done.choices[0].text for done in await asyncio.gather(*asked)]

    assert asyncio.run(texts()) == [model.generate_one("the ", seed=seed, max_new_tokens=25) for seed in range(12)]


# curl


def curl(server: LiveServer, *words: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "--silent", "--max-time", "60", "-H", f"Authorization: Bearer {KEY}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_curl(server, model):
    body = json.dumps({"model": "mine", "prompt": "the ", "seed": 7, "max_tokens": 20})
    url, kind = f"{server.url}/v1/completions", ("-H", "Content-Type: application/json")
    answer = json.loads(curl(server, url, *kind, "-d", body))
    assert "the " + answer["choices"][0]["text"] == model.generate_one("the ", seed=7, max_new_tokens=20)
    lines = curl(server, "-N", url, *kind, "-d", body[:-1] + ', "stream": true}').split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines[:-2]) == answer["choices"][0]["text"]
    assert "application/json" in json.loads(curl(server, url, "-d", body))["error"]["message"]
    assert curl(server, "-o", "/dev/null", "-w", "%{http_code}", url, *kind, "-d", "{").endswith("400")


def test_the_command_prints_a_command_that_calls_it(model, tmp_path):
    model.save_pretrained(tmp_path / "it's <mine>")
    (tmp_path / "keys").write_text(KEY)
    words = ["./it's <mine>", "--port", "0", "--api-key-file", "keys"]
    process = subprocess.Popen(
        [sys.executable, "-m", "reviewgen", "serve", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "stderr").open("w"),
        text=True,
    )
    try:
        said = [process.stdout.readline() for _ in range(7)]
        assert said[0].startswith("Serving it's <mine> at http://127.0.0.1:") and said[1].endswith("Try:\n")
        assert max(map(len, said[:2])) <= 80
        command = "".join(said[3:6])
        done = subprocess.run(["sh", "-c", command], env=os.environ | {"KEY": KEY}, capture_output=True, text=True)
        assert json.loads(done.stdout)["model"] == "it's <mine>" and KEY not in command
    finally:
        process.terminate()
    assert process.wait(30) == 0
    assert "chmod 600" in (tmp_path / "stderr").read_text()


# LangChain


def test_langchain(server, model):
    from langchain_openai import OpenAI

    writer = OpenAI(model="mine", base_url=f"{server.url}/v1", api_key=KEY, max_tokens=20, temperature=0.7, seed=8, max_retries=0)
    expected = model.generate_one("the ", seed=8, max_new_tokens=20, temperature=0.7)
    assert "the " + writer.invoke("the ") == expected
    assert "the " + "".join(writer.stream("the ")) == expected
    both = writer.generate(["the ", "a"])
    assert both.llm_output["token_usage"]["prompt_tokens"] == 5 and len(both.generations) == 2


# The page


def test_the_page_writes_what_generate_does(browser, model):
    with serve({"mine": model}, page=True) as other:
        context = browser.new_context()
        page, heard = context.new_page(), []
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("console", lambda message: heard.append(message.text))
        bodies: list[dict] = []
        page.on("request", lambda request: bodies.append(request.post_data_json) if request.method == "POST" else None)
        page.goto(f"{other.url}/")
        page.locator("#model option").first.wait_for(state="attached")
        page.fill("#prompt", "the ")
        page.fill("#seed", "9")
        page.click("#write")
        page.locator(".text .facts", has_text="tokens").last.wait_for()
        (fields,) = bodies
        names = {"max_tokens": "max_new_tokens", "n": "num_return_sequences"}
        others = ("model", "stream", "logprobs", "novelty")
        own = {names.get(name, name): value for name, value in fields.items() if name not in others}
        assert page.locator(".written").all_text_contents() == model.generate(own.pop("prompt"), **own)
        assert heard == [] and fields["seed"] == 9
        context.close()
