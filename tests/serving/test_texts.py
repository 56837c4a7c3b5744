"""The texts of a server, over HTTP in this process: those of ``generate`` in any company, whole or
as a stream.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen.errors import BrokenPlugin
from reviewgen.generation.request import make_request
from reviewgen.serving.app import create_app
from reviewgen.serving.engine import Engine, EngineRequest
from tests.support.fakes import LETTERS, QueueModel, SlowModel, TableModel, review_model, table
from tests.support.live_server import error_of, in_process, joined, serve, slow_model, wait_for

PRESETS = ["lstm-char", "ngram-word", "blend-char"]
NAMES = {
    "n": "num_return_sequences",
    "max_tokens": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "stop": "stop_strings",
}
CALLS = [  # prompt and fields
    ("the ", {"seed": 1, "n": 3, "max_tokens": 40}),
    ("", {"seed": 2, "temperature": 0.7, "top_p": 0.9, "max_tokens": 60}),
    ("I liked th", {"seed": 3, "words": "any", "finish": "anywhere", "n": 4, "max_tokens": 40}),
    ("The ", {"seed": 4, "words": "known", "finish": "sentence", "n": 4, "max_tokens": 150}),
    ("The ", {"seed": 1, "finish": "sentence", "n": 3, "max_tokens": 90, "min_tokens": 85}),
    ("A film", {"seed": 5, "stop": ["th", "it"], "n": 4, "max_tokens": 60}),
    ("", {"seed": 2, "stop": ["ovi", "il", "ha", "h"], "n": 6, "max_tokens": 100}),
    ("the ", {"seed": 3, "stop": "e", "min_tokens": 30, "n": 2, "max_tokens": 40}),
    (
        "the ",
        {
            "seed": 6,
            "repetition_penalty": 1.2,
            "no_repeat_ngram_size": 4,
            "min_tokens": 20,
            "max_tokens": 40,
        },
    ),
    ("Très 日", {"seed": 7, "top_k": 5, "conditions": {"style": "review"}, "max_tokens": 40}),
    ("the ", {"seed": 8, "temperature": 1.2, "min_p": 0.02, "max_tokens": 33}),
    ("the ", {"seed": 9, "profile": "likeness", "top_p": 0.95, "max_tokens": 40}),
    ("Well, ", {"temperature": 0, "max_tokens": 40}),
    ("", {"seed": 10, "max_tokens": 0}),
    # is fed in parts
    (["the ", "", "I liked th" + "e movie and th" * 200], {"seed": 5, "n": 2, "max_tokens": 40}),
]
COPIES = (
    "the ",
    {"seed": 3, "novelty": "filter", "max_copy": 4, "n": 4, "max_tokens": 40, "temperature": 0.5},
)
LETTER_CALLS = [
    ("ab", {"seed": seed, "n": 3, "stop": ["cab"] if seed % 2 else None}) for seed in range(4)
]


def generated(model, prompt, fields):
    """Return the texts of ``generate`` for the fields of a request."""
    options = {NAMES.get(name, name): value for name, value in fields.items() if value is not None}
    if options.get("temperature") == 0:
        options = {name: value for name, value in options.items() if name != "temperature"} | {
            "do_sample": False
        }
    return model.generate(prompt, return_dict_in_generate=True, **options)


def expect(choices, chunks, texts, fields):
    """Assert that an answer and a stream have the texts of ``generate``, without the stop string
    that ended them.
    """
    stops = [fields["stop"]] if isinstance(fields.get("stop"), str) else fields.get("stop") or []
    assert len(choices) == len(texts) and sorted(choice["index"] for choice in choices) == list(
        range(len(texts))
    )
    for choice, text in zip(choices, texts, strict=True):
        new = text.text[len(text.prompt) :]
        reason = text.finish_reason
        ending = max(
            (stop for stop in stops if reason == "stop" and new.endswith(stop)), key=len, default=""
        )
        assert (choice["text"], choice["reviewgen"]["reason"]) == (new.removesuffix(ending), reason)
        assert choice["reviewgen"]["conditions"] == text.conditions
        assert choice["finish_reason"] == ("stop" if reason in ("stop", "end") else "length")
    assert joined(chunks, len(texts)) == [choice["text"] for choice in choices]
    parts = chain.from_iterable(chunk["choices"] for chunk in chunks)
    ends = {part["index"]: part["finish_reason"] for part in parts if part["finish_reason"]}
    assert ends == {choice["index"]: choice["finish_reason"] for choice in choices}


@pytest.fixture(scope="module")
def models(micro):
    letters = review_model(TableModel(table(LETTERS.vocab_size, eos=-2.0)), LETTERS)
    return {name: reviewgen.load(name) for name in PRESETS} | {
        "exact": micro("exact"),
        "letters": letters,
    }


@pytest.fixture(scope="module")
def server(models):
    with in_process(models | {"slow": slow_model()}, {"max_rows": 8}) as running:
        yield running


@pytest.mark.parametrize("name", [*PRESETS, "exact", "letters"])
def test_texts_in_company_are_those_of_generate(server, models, name):
    calls = {"exact": [*CALLS[:3], COPIES], "letters": LETTER_CALLS}.get(name, CALLS)
    with ThreadPoolExecutor(2 * len(calls)) as pool:
        asked = [
            [
                pool.submit(ask, model=name, prompt=prompt, **fields)
                for ask in (server.choices, server.stream)
            ]
            for prompt, fields in calls
        ]
        reasons = set()
        for (prompt, fields), (whole, stream) in zip(calls, asked, strict=True):
            texts = generated(models[name], prompt, fields)
            expect(whole.result(), stream.result(), texts, fields)
            reasons |= {text.finish_reason for text in texts}
    assert reasons >= ({"stop", "end", "length"} if name == "ngram-word" else {"length"})


def test_prompts_may_be_token_ids_with_or_without_bos(server, models):
    tokenizer = models["exact"].tokenizer
    ask = {"model": "exact", "seed": 2, "max_tokens": 20}
    ids = tokenizer.encode("the ")
    one = server.choices(prompt="the ", **ask)
    assert (
        server.choices(prompt=ids, **ask)
        == server.choices(prompt=[tokenizer.bos_id, *ids], **ask)
        == one
    )
    two = server.complete(prompt=["the ", "a"], n=2, **ask).json()
    same = server.choices(prompt=[ids, tokenizer.encode("a")], n=2, **ask)
    assert [choice["text"] for choice in same] == [choice["text"] for choice in two["choices"]]
    assert two["usage"]["prompt_tokens"] == 5
    assert server.choices(**ask)[0]["text"] == models["exact"].generate_one(
        seed=2, max_new_tokens=20
    )
    inside = tokenizer.encode("a 🎹")[:-1]
    assert "inside a character" in error_of(server.complete(prompt=inside, **ask))["message"]


def test_usage_counts_the_tokens_of_the_texts(server, models):
    ask = {"n": 4, "seed": 3, "max_tokens": 9}
    new = sum(text.new_tokens for text in generated(models["exact"], "the ", ask))
    usage = {"prompt_tokens": 4, "completion_tokens": new, "total_tokens": 4 + new}
    ask |= {"model": "exact", "prompt": "the "}
    assert server.complete(**ask).json()["usage"] == usage
    *chunks, last = server.stream(stream_options={"include_usage": True}, **ask)
    assert (last["usage"], last["choices"]) == (usage, []) and all(
        chunk["usage"] is None for chunk in chunks
    )


def test_the_tokens_are_those_of_the_text_where_a_stop_string_falls_inside_one(server):
    for seed, stop in enumerate([["o"], ["h", "he"], ["ovie w", "vi"], ["a", "nd"]] * 2):
        ask = {
            "model": "ngram-word",
            "seed": seed,
            "n": 4,
            "max_tokens": 40,
            "logprobs": 2,
            "stop": stop,
        }
        streamed = list(chain.from_iterable(chunk["choices"] for chunk in server.stream(**ask)))
        for choice in server.choices(**ask):
            parts = [part for part in streamed if part["index"] == choice["index"]]
            assert all(
                "".join(part["logprobs"]["tokens"]) == part["text"] for part in [choice, *parts]
            )
            assert "".join(part["text"] for part in parts) == choice["text"]
            tokens = chain.from_iterable(part["reviewgen"]["tokens"] for part in parts)
            assert list(tokens) == choice["reviewgen"]["tokens"]


@pytest.mark.parametrize("name", PRESETS)
def test_log_probabilities_and_alternatives_are_those_of_the_model(server, models, name):
    settings = {"seed": 6, "max_tokens": 12, "finish": "anywhere", "temperature": 0.8, "top_p": 0.9}
    choice = server.choices(model=name, prompt="the movie", logprobs=3, **settings)[0]
    (text,) = generated(models[name], "the movie", settings)
    probs = choice["logprobs"]
    own = choice["reviewgen"]["tokens"]
    first = len(text.tokens) - text.new_tokens
    known = text.log_probabilities[first : len(text.tokens)]
    assert (
        probs["token_logprobs"] == pytest.approx(known, abs=1e-4)
        and "".join(probs["tokens"]) == choice["text"]
    )
    assert probs["text_offset"] == [
        9 + len("".join(probs["tokens"][:number])) for number in range(len(own))
    ]
    for place, (token, top) in enumerate(zip(own, probs["top_logprobs"], strict=True)):
        named = [
            ("<|endoftext|>" if other["is_end"] else other["text"], other["logprob"])
            for other in token["alternatives"]
        ]
        most = {text: max(logprob for name, logprob in named if name == text) for text, _ in named}
        assert top == most | {token["text"]: token["logprob"]}
        ids = text.tokens[: first + place]
        before = models[name].tokenizer.decode(ids)
        # else the tokenizer would have cut it differently
        if models[name].tokenizer.encode(before) == ids:
            expected = (
                models[name].next_tokens(before, k=3, conditions=text.conditions).alternatives
            )
            found = [np.exp(other["logprob"]) for other in token["alternatives"]]
            np.testing.assert_allclose(found, [one.probability for one in expected], 5e-3)


def test_the_score_of_a_prompt_depends_on_no_drawn_condition(server):
    ask = {
        "model": "lstm-char",
        "prompt": "a terrible film",
        "echo": True,
        "logprobs": 1,
        "max_tokens": 0,
    }
    scores = [
        server.choices(**ask, seed=seed)[0]["logprobs"]["token_logprobs"] for seed in range(4)
    ]
    assert scores == scores[:1] * 4


def test_best_of_returns_the_most_probable(server, models):
    texts = generated(models["exact"], "the ", {"seed": 7, "n": 6, "max_tokens": 25})

    def mean(text):
        return sum(
            text.log_probabilities[len(text.tokens) - text.new_tokens : len(text.tokens)]
        ) / max(1, text.new_tokens)

    best = sorted(texts, key=mean, reverse=True)[:2]
    answer = server.complete(
        model="exact", prompt="the ", seed=7, max_tokens=25, n=2, best_of=6
    ).json()
    assert [choice["reviewgen"]["text"] for choice in answer["choices"]] == [
        text.text for text in best
    ]
    assert answer["usage"]["completion_tokens"] == sum(text.new_tokens for text in texts)


def test_copied_spans_have_the_offsets_of_javascript(server, models):
    prompt = "😀 the movie was good and I liked the theme."
    reported = server.choices(model="exact", prompt=prompt, seed=1, max_tokens=1, novelty="report")[
        0
    ]["reviewgen"]
    span = reported["copied"][0]
    known = models["exact"].novelty(reported["text"]).spans[0]
    assert (
        reported["text"]
        .encode("utf-16-le")[2 * span["start"] : 2 * span["end"]]
        .decode("utf-16-le")
        == known.text
    )
    assert span["length"] == known.tokens
    assert (
        server.choices(model="exact", prompt=prompt, max_tokens=1)[0]["reviewgen"]["copied"] == []
    )


def test_a_character_in_parts_comes_with_its_last_part(micro):
    tokenizer = micro("exact").tokenizer
    text = "aé🎹b日"
    ids = tokenizer.encode(text)
    assert len(ids) > 5  # bytes
    with in_process({"m": review_model(QueueModel(ids, tokenizer), tokenizer)}) as server:
        (choice,) = server.choices(words="any", logprobs=0)
        assert choice["text"] == text and [
            token for token in choice["logprobs"]["tokens"] if token
        ] == list(text)
        assert len(choice["logprobs"]["tokens"]) == len(ids)
        assert server.choices(words="any", max_tokens=len(ids) - 1)[0]["text"] == text[:-1]


class Fragile(TableModel):
    """Raises for a whole batch if one row's last token is h."""

    def __call__(self, ids, state):
        if (ids == LETTERS.encode("h")[0]).any():
            raise ValueError("h is not for me")
        return super().__call__(ids, state)


class Growing(SlowModel):
    """Keeps all tokens in its state, so that texts of different lengths cannot be advanced
    together.
    """

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 0)

    def __call__(self, ids, state):
        return self.table[ids], torch.cat([state, ids.float()], dim=1)


@pytest.mark.parametrize("kind, word", [(TableModel, "NaN"), (Fragile, "ValueError")])
def test_what_a_model_raises_ends_its_own_request_only(kind, word):
    logits = table(LETTERS.vocab_size, eos=-30.0)
    h = LETTERS.encode("h")[0]
    # after an h, which only a prompt has
    logits[:, h] = -30.0
    logits[h] = float("nan")
    model = review_model(kind(logits), LETTERS)
    with in_process({"m": model}) as server, ThreadPoolExecutor(6) as pool:
        failed, *others = pool.map(
            lambda seed: server.complete(prompt="a" if seed else "ah", seed=seed, n=3), range(6)
        )
    assert word in error_of(failed)["message"] and failed.status_code == 422
    for seed, response in enumerate(others, 1):
        texts = [choice["reviewgen"]["text"] for choice in response.json()["choices"]]
        assert texts == model.generate("a", seed=seed, num_return_sequences=3)


def test_a_model_whose_state_grows_is_named(models):
    with pytest.raises(BrokenPlugin, match=r"second cannot be served.*shape"):
        create_app({"first": models["letters"], "second": review_model(Growing(), LETTERS)})


def test_an_engine_is_closed_in_time():
    model = slow_model()
    model.model.seconds = 2.0
    engine = Engine(model)
    job = engine.submit(
        EngineRequest(make_request("ab", model.generation_config, {}, model.tokenizer)),
        lambda: None,
    )
    wait_for(lambda: engine.live)
    started = time.monotonic()
    engine.close(timeout=0.1)
    assert time.monotonic() - started < 1.5 and engine.thread.is_alive()
    wait_for(lambda: job.error)  # once the model has returned
    assert "shut down" in str(job.error)


def test_a_request_for_many_texts_leaves_room_for_others(server):
    with ThreadPoolExecutor(1) as pool:
        many = pool.submit(server.choices, model="slow", n=60, seed=1, max_tokens=40)
        wait_for(server.live_texts)
        for seed in range(3):
            assert server.choices(model="slow", seed=seed, max_tokens=20)[0]["text"]
        assert not many.done()
        assert len(many.result()) == 60


def test_the_time_limit_cuts_texts_off():
    with in_process({"slow": slow_model()}, {"request_seconds": 0.3}) as server:
        started = time.monotonic()
        (choice,) = server.choices(max_tokens=4000, stop="zzz")  # a stop that never comes
        assert time.monotonic() - started < 10
        assert (choice["finish_reason"], choice["reviewgen"]["reason"]) == (
            "length",
            "time",
        ) and choice["text"]


def test_a_full_queue_answers_429_and_a_request_that_never_fits_400():
    with (
        in_process(
            {"slow": slow_model()}, {"max_rows": 2, "max_waiting": 4, "request_seconds": 1.0}
        ) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        for number in range(2):
            pool.submit(server.complete, n=3, max_tokens=400)
            wait_for(lambda least=3 * number + 3: server.live_texts() >= least)
        busy = server.complete(n=4)
        never = server.complete(n=5)
        assert (
            busy.status_code == 429
            and int(busy.headers["retry-after"]) >= 1
            and error_of(busy)["code"] == "queue_full"
        )
        assert never.status_code == 400 and error_of(never)["code"] == "limit_exceeded"


def test_a_live_server_answers_with_the_text_of_generate(models):
    """The smoke test of sockets; the others are in test_live.py."""
    model = models["exact"]
    with serve({"m": model}) as live:
        expected = model.generate_one("the ", seed=3, max_new_tokens=20)
        assert live.choices(prompt="the ", seed=3, max_tokens=20, echo=True)[0]["text"] == expected
        assert "the " + joined(live.stream(prompt="the ", seed=3, max_tokens=20), 1)[0] == expected
