"""Scores of prompts: ``echo`` with ``logprobs``. They are those of the model, token by token, and hold up no other request."""

import math
import threading
import time

import httpx
import numpy as np
import openai
import pytest
import torch

import reviewgen
from reviewgen.serving import prompt_scores
from reviewgen.serving.engine import Engine
from reviewgen.serving.events import PromptEvent
from tests.support.fakes import LETTERS, NGRAM, TableModel, review_model, table, train_tiny
from tests.support.live_server import serve, slow_model
from tests.unit.test_serving_app import error_of, stream_of
from tests.unit.test_serving_engine import Client, request_of

PROMPTS = ["the movie was", "the ", "I liked th", "", "Très \u65e5 \U0001f600 x"]
MODELS = ["chars", "words"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    words = {"model": {"hidden_size": 8, "embedding_size": 4}, "tokenizer": {"vocab_size": 300}}
    return {
        "chars": train_tiny("ngram-char", tmp_path_factory.mktemp("chars"), **NGRAM),
        "words": train_tiny("gru-word", tmp_path_factory.mktemp("words"), training={"batch_size": 4}, **words),
    }


@pytest.fixture(scope="module")
def server(models):
    never = table(LETTERS.vocab_size, eos=-1e9)
    never[:, LETTERS.encode("h")[0]] = -math.inf
    with serve(models | {"slow": slow_model(), "no h": review_model(TableModel(never), LETTERS)}) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def by_steps(model, ids, prefix=()):
    """Return the log probabilities (nats) of all tokens after each of some ids, fed one by one: (T + 1, V)."""
    stepper = model.generator.stepper
    state, rows = stepper.initial_state(1), []
    for token in (model.tokenizer.bos_id, *prefix, *ids):
        logits, state = stepper.forward(np.array([[token]]), state)
        rows.append(torch.log_softmax(torch.from_numpy(logits[0]).double(), 0).numpy())
    return np.stack(rows[len(prefix) :])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_have_the_scores_of_the_model(client, models, name, prompt):
    model = models[name]
    done = client.completions.create(model=name, prompt=prompt, echo=True, logprobs=3, max_tokens=0)
    (choice,) = done.choices
    probs, ids = choice.logprobs, model.tokenizer.encode(prompt)
    assert choice.text == prompt == "".join(probs.tokens) and choice.finish_reason == "length"
    assert done.usage.completion_tokens == 0 and done.usage.prompt_tokens == len(ids) == len(probs.tokens)
    table = by_steps(model, ids)
    np.testing.assert_allclose(probs.token_logprobs, [row[token] for row, token in zip(table, ids, strict=False)], atol=1e-5)
    if prompt:
        bits = [token.bits for token in model.score(prompt).tokens[:-1]]
        np.testing.assert_allclose(probs.token_logprobs, [-each * math.log(2) for each in bits], rtol=1e-4, atol=1e-4)
    assert probs.text_offset == [len("".join(probs.tokens[:place])) for place in range(len(ids))]
    table[:, model.tokenizer.bos_id] = -math.inf
    for row, top, token in zip(table, probs.top_logprobs, probs.tokens, strict=False):
        assert token in top
        if token:  # parts of a character have no text of their own, so that one stands for all in a mapping
            assert max(top.values()) == pytest.approx(row.max(), abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_new_tokens_follow_those_of_the_prompt(client, server, models, name):
    model, prompt = models[name], "the movie was"
    ids = model.tokenizer.encode(prompt)
    ask = {"model": name, "prompt": [prompt, "", "I liked"], "logprobs": 2, "max_tokens": 12, "seed": 4, "n": 2, "echo": True}
    choices = client.completions.create(**ask).choices
    for choice in choices:
        given = ask["prompt"][choice.index // 2]
        tokens = choice.logprobs.tokens
        ended = tokens[-1] == "<|endoftext|>"
        assert choice.text == "".join(tokens[: len(tokens) - ended]) and choice.text.startswith(given)
        assert choice.logprobs.text_offset == [len("".join(tokens[:place])) for place in range(len(tokens))]
        assert ended == (choice.finish_reason == "stop")
    assert choices[0].logprobs.token_logprobs[: len(ids)] == choices[1].logprobs.token_logprobs[: len(ids)]
    plain = client.completions.create(**ask | {"prompt": ids, "echo": False}, extra_body={"finish": "anywhere"}).choices
    assert [prompt + each.text for each in plain] == [each.text for each in choices[:2]]
    for each, choice in zip(plain, choices, strict=False):
        new = choice.logprobs.token_logprobs[len(ids) :]
        assert new[: len(each.logprobs.tokens)] == pytest.approx(each.logprobs.token_logprobs, abs=1e-6)
    chunks, _ = stream_of(server, **ask)
    for choice in choices:
        parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice.index]
        assert "".join(part["text"] for part in parts) == choice.text
        for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [each for part in parts for each in part["logprobs"][field]] == getattr(choice.logprobs, field), field
        assert len([token for part in parts for token in part["reviewgen"]["tokens"]]) <= 12  # the new ones only


@pytest.mark.parametrize("name", MODELS)
def test_the_end_of_a_text_is_scored_as_the_model_scores_it(client, models, name):
    model = models[name]
    done = client.completions.create(model=name, prompt="the ", echo=True, logprobs=1, max_tokens=300, n=20, seed=1)
    ended = [choice for choice in done.choices if choice.finish_reason == "stop"]
    assert ended
    for choice in ended:
        assert choice.logprobs.tokens[-1] == "<|endoftext|>" and choice.logprobs.text_offset[-1] == len(choice.text)
        if model.tokenizer.encode(choice.text) == _ids_of(model, choice.logprobs.tokens[:-1]):
            assert sum(choice.logprobs.token_logprobs) == pytest.approx(-model.score(choice.text).bits * math.log(2), rel=1e-3)


def _ids_of(model, pieces):
    known = {piece: token for token, piece in enumerate(model.generator.pieces.texts) if piece}
    return [known.get(piece, -1) for piece in pieces]


def test_lm_evaluation_harness_reads_its_scores(client, models):
    """As ``lm_eval.models.openai_completions``, ``parse_logprobs``: one new token, which it cuts off."""
    model = models["chars"]
    context, continuation = "the movie was", " good."
    ids = model.tokenizer.encode(context + continuation)
    ask = {"prompt": [ids, ids[:-3]], "echo": True, "max_tokens": 1, "logprobs": 1, "temperature": 0, "seed": 1234}
    for choice, sent in zip(client.completions.create(model="chars", **ask).choices, ask["prompt"], strict=True):
        cut = len(model.tokenizer.encode(context))
        logprobs, tops = choice.logprobs.token_logprobs[cut:-1], choice.logprobs.top_logprobs[cut:-1]
        assert len(choice.logprobs.tokens) == len(sent) + 1
        table = by_steps(model, sent)
        assert logprobs == pytest.approx([table[place][sent[place]] for place in range(cut, len(sent))], abs=1e-5)
        greedy = [max(top.values()) == each for each, top in zip(logprobs, tops, strict=True)]
        table[:, model.tokenizer.bos_id] = -math.inf
        assert greedy == [int(table[place].argmax()) == sent[place] for place in range(cut, len(sent))]


def test_bos_of_token_ids_has_no_log_probability(server, models):
    model = models["chars"]
    ids = model.tokenizer.encode("the ")
    ask = {"model": "chars", "echo": True, "logprobs": 2, "max_tokens": 3, "seed": 1}
    without = server.complete(prompt=ids, **ask).json()["choices"][0]
    given = server.complete(prompt=[model.tokenizer.bos_id, *ids], **ask).json()["choices"][0]
    assert given["text"] == without["text"]
    assert given["logprobs"]["tokens"] == ["", *without["logprobs"]["tokens"]]
    for field, nothing in (("token_logprobs", None), ("top_logprobs", None), ("text_offset", 0)):
        assert given["logprobs"][field] == [nothing, *without["logprobs"][field]]


def test_what_the_model_rules_out_is_finite_in_json(server):
    probs = server.complete(model="no h", prompt="aha", echo=True, logprobs=1, max_tokens=0).json()["choices"][0]["logprobs"]
    assert probs["token_logprobs"][1] == -9999.0 and probs["token_logprobs"][0] > -20
    assert min(probs["top_logprobs"][1].values()) == -9999.0


def test_damaged_logits_are_an_error():
    damaged = table(LETTERS.vocab_size, eos=-30.0)
    damaged[LETTERS.encode("h")[0]] = float("nan")
    with serve({"m": review_model(TableModel(damaged), LETTERS)}) as server:
        response = server.complete(prompt="aha", echo=True, logprobs=1, max_tokens=0)
        assert response.status_code == 422 and "NaN" in error_of(response)["message"]
        assert server.complete(prompt="ab", echo=True, logprobs=1, max_tokens=0).status_code == 200


def test_words_that_must_be_included_are_refused(server):
    response = server.complete(model="chars", echo=True, logprobs=1, must_include="e")
    assert response.status_code == 400 and "echo and logprobs" in error_of(response)["message"]
    assert error_of(response)["param"] == "echo"


def test_others_go_on_while_a_long_prompt_is_scored(server):
    """Of 1,400 tokens at 2 ms each: other texts, and other prompts, come meanwhile."""
    answers = {}

    def ask():
        answers["long"] = server.complete(model="slow", prompt="ab" * 700, echo=True, logprobs=0, max_tokens=0)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.1)
    assert server.complete(model="slow", prompt="ab", max_tokens=3).status_code == 200
    short = server.complete(model="slow", prompt="abc", echo=True, logprobs=1, max_tokens=2)
    assert len(short.json()["choices"][0]["logprobs"]["tokens"]) == 5
    assert "long" not in answers
    thread.join(60)
    assert len(answers["long"].json()["choices"][0]["logprobs"]["tokens"]) == 1400


def test_a_client_that_goes_away_ends_its_scoring(server):
    with pytest.raises(httpx.ReadTimeout):
        server.http.post(
            "/v1/completions", json={"model": "slow", "prompt": "ab" * 8000, "echo": True, "logprobs": 0}, timeout=0.3
        )
    server.wait_until_idle(5)
    assert server.complete(model="slow", prompt="a", echo=True, logprobs=0, max_tokens=0).status_code == 200


def test_the_time_of_a_request_holds_while_its_prompt_is_scored():
    with serve({"slow": slow_model()}, {"request_seconds": 0.5}) as server:
        response = server.complete(prompt="ab" * 2000, echo=True, logprobs=0, max_tokens=0)
        assert response.status_code == 503 and "before its prompts were scored" in error_of(response)["message"]


def test_a_large_response_is_the_same_as_that_of_its_parts(server, models):
    prompt = "".join(np.random.default_rng(1).permutation(list("the movie was good " * 40)))
    ask = {"model": "chars", "echo": True, "logprobs": 5, "max_tokens": 4, "seed": 1}
    large = server.complete(prompt=prompt, **ask).json()["choices"][0]["logprobs"]
    assert len(large["tokens"]) > len(prompt)
    assert (
        large["token_logprobs"][:30]
        == server.complete(prompt=prompt[:30], **ask).json()["choices"][0]["logprobs"]["token_logprobs"][:30]
    )
    chunks, last = stream_of(server, prompt=prompt, **ask)
    assert [t for chunk in chunks for c in chunk["choices"] for t in c["logprobs"]["tokens"]] == large["tokens"]
    assert last == "[DONE]"


@pytest.mark.parametrize("name", ["lstm-char", "blend-char"])
def test_many_prompts_at_once_in_the_engine_are_those_one_by_one(monkeypatch, name):
    monkeypatch.setattr(prompt_scores, "_SIDE_BY_SIDE", 3)
    monkeypatch.setattr(prompt_scores, "_TURN_TOKENS", 5)
    model = reviewgen.load(name)
    engine = Engine(model)
    texts = ["the movie", "", "a", "the movie", "I liked the acting", "x", "Well, "]
    ids = [model.tokenizer.encode(text) for text in texts]
    request = request_of(model, texts, seed=1, max_new_tokens=2)
    client = Client(engine, request, alternatives=1, prompt_ids=ids, score_prompts=True)
    client.wait()
    prompts = sorted((event for event in client.events if isinstance(event, PromptEvent)), key=lambda event: event.number)
    assert [event.number for event in prompts] == list(range(len(texts)))
    for event, text, given in zip(prompts, texts, ids, strict=True):
        assert "".join(token.text for token in event.tokens) == text and [token.token for token in event.tokens] == given
        table = by_steps(model, given, client.request.prefix)
        expected = [table[place][token] for place, token in enumerate(given)]
        np.testing.assert_allclose([token.logprob for token in event.tokens], expected, atol=1e-4)
        first = client.events.index(event)
        assert all(client.events.index(other) > first for other in client.events if _of(other, event.number))
    engine.close()


def _of(event, number):
    return not isinstance(event, PromptEvent) and event.number == number


def test_conditions_come_before_the_prompt():
    model = reviewgen.load("lstm-char")
    with serve({"m": model}) as server:
        for conditions in ({"style": "review"}, {"style": "snippet", "sentiment": "positive"}):
            ask = {"prompt": "the ", "conditions": conditions, "echo": True, "logprobs": 0, "max_tokens": 0}
            known = server.complete(**ask).json()["choices"][0]["logprobs"]["token_logprobs"]
            bits = [token.bits for token in model.score("the ", conditions=conditions).tokens[:-1]]
            np.testing.assert_allclose(known, [-each * math.log(2) for each in bits], rtol=1e-3, atol=1e-3)
