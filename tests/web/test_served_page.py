"""The page with its two real engines, from a file and over HTTP: texts are those of Python; and
what goes wrong at a server.
"""

import itertools
import json
import math
from urllib.parse import urlencode

import pytest

import reviewgen
from reviewgen.export.html import export_html
from reviewgen.web.composing import page_for_server, static_files
from tests.support.browser import violations
from tests.support.live_server import serve

ROWS = [
    {"review": f"The {noun} was {word}, and the {other} was {word} too.", "stars": stars}
    for (stars, word), noun, other in itertools.product(
        ((1, "cold"), (1, "dull"), (5, "great"), (5, "“good”")),
        ("food", "film", "bill"),
        ("beer", "band", "café", "</script>"),
    )
]
STARS = {
    "name": "stars",
    "kind": "number",
    "values": [{"label": "1", "low": 1, "high": 1}, {"label": "5", "low": 5, "high": 5}],
}
ABOUT = {
    "preset": "lstm-word",
    "conditions": [STARS],
    "defaults": {"temperature": 0.6, "max_new_tokens": 30},
    "has_index": True,
}
ABOUT |= {"facts": [["Licence", "Apache-2.0"]], "card": "# lstm-word"}
TOKENS = [" a", " great", " film", ".", ""]
SITE = "http://page.test/page/"  # a prefix as behind a proxy; nothing is sent there


@pytest.fixture(scope="module")
def model(shared_cache):
    options = {"model": {"order": 6}, "conditions": ["stars"], "training": {"novelty": "exact"}}
    return reviewgen.train("ngram-char", ROWS, progress=False, **options)


def finish(page):
    page.locator(".facts", has_text="tokens").last.wait_for()
    page.locator("#write", has_text="Write").wait_for()
    assert page.text_content("#error") == ""
    return page.locator(".written").all_text_contents()


@pytest.mark.browser
@pytest.mark.server
@pytest.mark.parametrize("kind", ["file", "server"])
def test_a_page_writes_continues_and_shows_what_python_does(kind, browser, model, tmp_path):
    with serve({"ngram-char": model}, page=True) as server:
        file = export_html(model, tmp_path / "page.html", bits=32)
        address = file.as_uri() if kind == "file" else f"{server.url}/"
        page = browser.new_page()
        link = {
            "prompt": "The ",
            "seed": 11,
            "n": 3,
            "max_tokens": 60,
            "temperature": 0.9,
            "c.stars": 5,
        }
        page.goto(f"{address}#{urlencode(link)}")
        settings = {"max_new_tokens": 60, "temperature": 0.9, "conditions": {"stars": 5}}
        assert finish(page) == [
            str(text)
            for text in model.generate("The ", num_return_sequences=3, seed=11, **settings)
        ]
        page.goto("about:blank")
        page.goto(f"{address}#{urlencode({'prompt': 'The f', 'seed': 3, 'max_tokens': 50})}")
        finish(page)
        page.locator(".token").first.click()
        shown = [
            float(each.removesuffix(" %"))
            for each in page.locator(".alternative .share").all_text_contents()
        ]
        expected = [
            100 * each.probability for each in model.next_tokens("The f", k=10).alternatives
        ]
        # the server counts bos in
        assert len(shown) == 10 and shown[:2] == pytest.approx(expected[:2], abs=0.2)
        page.keyboard.press("Escape")
        page.locator(".token").nth(6).click()
        page.locator(".alternative:enabled:not(.chosen)").first.click()
        page.locator(".token.picked").wait_for()
        (text,) = finish(page)
        before = "The f" + "".join(page.locator(".token").all_text_contents()[:7])
        temperature = float(page.input_value("#temperature"))
        assert text == str(
            model.generate_one(before, seed=3, max_new_tokens=50, temperature=temperature)
        )
        page.close()


@pytest.mark.browser
@pytest.mark.server
@pytest.mark.parametrize("kind", ["file", "server"])
def test_words_and_choices_hold_on_both_pages(kind, browser, model, tmp_path):
    with serve({"ngram-char": model}, page=True) as server:
        file = export_html(model, tmp_path / "page.html", bits=32)
        address = file.as_uri() if kind == "file" else f"{server.url}/"
        page = browser.new_page()
        asked = {"prompt": "The film", "seed": 3, "n": 2, "max_tokens": 60}
        page.goto(f"{address}#{urlencode(asked | {'include': 'beer', 'exclude': 'cold, bad'})}")
        settings = {"seed": 3, "num_return_sequences": 2, "max_new_tokens": 60}
        texts = model.generate("The film", **settings, include="beer", exclude=["cold", "bad"])
        assert finish(page) == texts and all("beer" in text for text in texts)
        page.fill("#exclude", "beer")
        page.click("#write")
        page.locator("#error", has_text="include has").wait_for()
        page.fill("#include", "")
        page.fill("#exclude", "")
        page.fill("#choices", "was great | was cold")
        page.click("#write")
        texts = model.generate("The film", **settings, choices=[" was great", " was cold"])
        assert finish(page) == texts
        # a pick leaves the choices that begin like it
        for word, letter in (("great", "g"), ("cold", "c")):
            token = page.locator(".text").first.locator(".token").nth(5)
            if token.text_content() != letter:
                token.click()
                page.locator(".alternative", has_text=letter).first.click()
            finish(page)
            assert page.locator(".written").first.text_content() == f"The film was {word}"
            page.click("#write")
            finish(page)
        page.close()


@pytest.mark.browser
def test_the_page_of_a_network_computes_with_webassembly_and_says_where_there_is_none(
    browser, micro, tmp_path
):
    file = export_html(micro("lstm-word"), tmp_path / "page.html", bits=32)
    page = browser.new_page()
    page.goto(f"{file.as_uri()}#{urlencode({'prompt': 'The ', 'seed': 2, 'max_tokens': 40})}")
    assert finish(page) == [str(micro("lstm-word").generate_one("The ", seed=2, max_new_tokens=40))]
    page.add_init_script("delete globalThis.WebAssembly")
    page.reload()
    page.locator("#error", has_text="it needs WebAssembly with SIMD").wait_for()
    page.close()


def events(body):
    """Return the events of an answer, as ``serve`` sends them."""

    def chunk(index, text, reason, ours):
        choice = {"index": index, "text": text, "finish_reason": reason, "logprobs": None} | (
            {"reviewgen": ours} if ours else {}
        )
        return f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}\r\n\r\n"

    prompt = body["prompt"]
    each_text = range(body["n"])
    yield ": keep the connection open\n\n"
    for text in TOKENS:
        best = {"text": text, "logprob": math.log(0.5), "is_end": text == ""}
        token = best | {
            "alternatives": [best, {"text": " bad", "logprob": math.log(0.25), "is_end": False}]
        }
        yield from (
            chunk(index, text, None, {"tokens": [token]} if text else None) for index in each_text
        )
    if "FAIL" in prompt:
        yield f"data: {json.dumps({'error': {'message': 'The model has lost its state.'}})}\n\n"
    elif "BREAK" not in prompt:
        start = len(prompt.encode("utf-16-le")) // 2  # as JavaScript counts
        copied = [{"start": start, "end": start + 8, "length": 8, "source": None}]
        yield from (
            chunk(index, "", "stop", {"text": prompt + "".join(TOKENS), "copied": copied})
            for index in each_text
        )
        yield "data: [DONE]\n\n"


@pytest.fixture
def page(browser):
    """The page of a server that answers as ``serve`` does; anything on its console but a failed
    answer fails the test.
    """
    context = browser.new_context(bypass_csp=True)
    heard = []
    page = context.new_page()
    page.bodies = []
    page.key = None

    def answer(route):
        name = route.request.url.removeprefix(SITE)
        body = route.request.post_data_json
        if name == "":
            return route.fulfill(body=page_for_server(), content_type="text/html; charset=utf-8")
        if name == "v1/models":
            is_refused = page.key not in (None, route.request.headers.get("authorization"))
            models = [{"id": "lstm-word", "reviewgen": ABOUT}, {"id": "plain"}]
            return route.fulfill(
                status=401 if is_refused else 200,
                json={} if is_refused else {"object": "list", "data": models},
            )
        if body is None:
            file = static_files().get(name.removeprefix("static/"))
            return route.fulfill(path=file) if file else route.fulfill(status=204)
        page.bodies.append(body)
        if "GONE" in body["prompt"]:
            return route.abort()
        if "REFUSE" in body["prompt"]:
            return route.fulfill(
                status=429, json={"error": {"message": "The queue is full: try again in 2 s."}}
            )
        if "CRASH" in body["prompt"]:
            return route.fulfill(status=500, body="<html>oops", content_type="text/html")
        return route.fulfill(
            body="".join(events(body)), content_type="text/event-stream; charset=utf-8"
        )

    page.route(f"{SITE}**", answer)
    page.on(
        "console",
        lambda message: (
            heard.append(message.text) if "Failed to load resource" not in message.text else None
        ),
    )
    page.on("pageerror", lambda problem: heard.append(str(problem)))
    yield page
    context.close()
    assert heard == []


def press_write(page, prompt):
    page.fill("#prompt", prompt)
    page.click("#write")


@pytest.mark.browser
def test_a_model_of_the_server_is_used_with_its_settings_and_its_index(page):
    page.goto(SITE)
    page.select_option("#model", "plain")
    assert page.input_value("#max_tokens") == "300" and not page.is_visible("#copying")
    page.fill("#seed", "7")
    press_write(page, "plain")
    assert finish(page) == ["plain a great film."] and "novelty" not in page.bodies.pop()
    page.select_option("#model", "lstm-word")
    press_write(page, "reported")
    # there is an index
    assert finish(page) == ["reported a great film."] and page.bodies.pop()["novelty"] == "report"


@pytest.mark.browser
def test_texts_come_from_the_server_with_their_probabilities_and_copies(page):
    page.goto(SITE)
    page.fill("#seed", "7")
    page.select_option("#model", "lstm-word")
    page.fill("#n", "2")
    page.check("#novelty")
    page.locator("#condition-stars").press("End")
    press_write(page, "Ä film \U0001f600")
    page.locator(".facts", has_text="tokens").nth(1).wait_for()
    assert finish(page) == ["Ä film \U0001f600 a great film."] * 2
    assert page.text_content(".facts") == "4 tokens · 1.0 bits a token · seed 7"
    sent = {
        "model": "lstm-word",
        "prompt": "Ä film \U0001f600",
        "n": 2,
        "seed": 7,
        "max_tokens": 30,
        "temperature": 0.6,
    }
    sent |= {
        "top_p": 1,
        "min_p": 0,
        "conditions": {"stars": "5"},
        "novelty": "filter",
        "logprobs": 10,
        "stream": True,
    }
    assert page.bodies == [sent]
    assert "".join(page.locator(".written mark").all_text_contents()) == " a great" * 2
    page.locator(".token").nth(1).click()
    assert page.locator(".alternative .share").all_text_contents() == ["50.0 %", "25.0 %"]
    page.locator(".alternative").nth(1).click()
    page.locator(".token.picked", has_text="bad").wait_for()
    assert finish(page)[0] == "Ä film \U0001f600 a bad a great film."
    assert (page.bodies[1]["prompt"], page.bodies[1]["n"]) == ("Ä film \U0001f600 a bad", 1)
    assert violations(page) == []


@pytest.mark.browser
def test_a_model_of_the_server_has_its_card(page):
    page.goto(SITE)
    page.select_option("#model", "lstm-word")
    page.click("#about")
    assert page.text_content("#card dd") == "Apache-2.0" and "synthetic" in page.text_content(
        "#card"
    )


@pytest.mark.browser
def test_what_goes_wrong_at_the_server_is_a_sentence_and_a_key_is_asked_for(page):
    page.key = "Bearer open sesame"
    page.goto(SITE)
    for key in ("wrong", "open sesame"):
        page.locator("#key[open]").wait_for()
        page.fill("#key-text", key)
        page.keyboard.press("Enter")
    page.locator("#write:enabled").wait_for()
    for prompt, sentence in (
        ("REFUSE", "The queue is full: try again in 2 s."),
        ("CRASH", "The server answered with the status 500."),
        ("FAIL", "The model has lost its state."),
        ("BREAK", "The server stopped before the text was written."),
        ("GONE", "The server cannot be reached: it may have been stopped."),
    ):
        press_write(page, prompt)
        page.locator("#error", has_text=sentence).wait_for()
        page.locator("#write", has_text="Write").wait_for()
        press_write(page, "A")  # the page goes on
        assert finish(page) == ["A a great film."]


def test_a_server_lists_the_files_that_its_page_needs():
    assert {"page.css", "main.js", "app.js", "http_engine.js"} <= static_files().keys()
    html = page_for_server()
    assert html.count("<script") == 2 and "'unsafe" not in html
