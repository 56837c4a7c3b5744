"""The page of a server and its engine over HTTP, in a real Chromium, against a small server that answers as ``serve`` does."""

import itertools
import json
import math
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from reviewgen.web import page_for_server, static_files
from tests.support.browser import violations

TOKENS = [" a", " great", " film", ".", ""]
STARS = {"name": "stars", "kind": "number", "values": [{"label": "1", "low": 1, "high": 1}, {"label": "5", "low": 5, "high": 5}]}
ABOUT = {
    "preset": "lstm-word",
    "conditions": [STARS],
    "defaults": {"temperature": 0.6, "max_new_tokens": 30},
    "has_index": True,
    "facts": [["Licence", "Apache-2.0"]],
    "card": "# lstm-word",
}
TYPES = {".js": "text/javascript", ".css": "text/css"}


class Server(ThreadingHTTPServer):
    """A server on a free port of loopback, with the requests that it got and whether a client went away."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.gone, self.key = [], threading.Event(), None

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/page/"


class Handler(BaseHTTPRequestHandler):
    """The page under /page/, which is a prefix as behind a proxy."""

    def log_message(self, *values):
        pass

    def do_GET(self):
        name = self.path.removeprefix("/page/")
        if name == "":
            self.answer(page_for_server("served").encode(), "text/html; charset=utf-8")
        elif name == "v1/models" and self.server.key not in (None, self.headers["Authorization"]):
            self.answer(b"{}", status=401)
        elif name == "v1/models":
            self.answer(
                json.dumps({"object": "list", "data": [{"id": "lstm-word", "reviewgen": ABOUT}, {"id": "plain"}]}).encode()
            )
        elif (file := static_files().get(name.removeprefix("static/"))) is not None:
            self.answer(file.read_bytes(), TYPES[file.suffix])
        else:
            self.answer(b"", status=204 if name.endswith("favicon.ico") else 404)

    def answer(self, body, kind="application/json", status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        prompt = body["prompt"]
        if "REFUSE" in prompt:
            return self.answer(json.dumps({"error": {"message": "The queue is full: try again in 2 s."}}).encode(), status=429)
        if "CRASH" in prompt:
            return self.answer(b"<html>oops", "text/html", 500)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            self.stream(body, prompt)
        except OSError:
            self.server.gone.set()
        return None

    def stream(self, body, prompt):
        self.send(": keep the connection open\n\n")
        for text in itertools.cycle(TOKENS) if "LONG" in prompt else TOKENS:
            for index in range(body["n"]):
                other = {"text": " bad", "logprob": math.log(0.25), "is_end": False}
                token = {
                    "text": text,
                    "logprob": math.log(0.5),
                    "alternatives": [{"text": text, "logprob": math.log(0.5), "is_end": text == ""}, other],
                }
                self.chunk(index, text, None, {"tokens": [token]} if text else None)
        if "FAIL" in prompt:
            self.send(f"data: {json.dumps({'error': {'message': 'The model has lost its state.'}})}\n\n")
        elif "BREAK" not in prompt:
            for index in range(body["n"]):
                start = len(prompt.encode("utf-16-le")) // 2  # as JavaScript counts
                span = {"start": start, "end": start + 8, "length": 8, "source": None}
                self.chunk(index, "", "stop", {"text": prompt + "".join(TOKENS), "copied": [span]})
            self.send("data: [DONE]\n\n")

    def chunk(self, index, text, reason, ours):
        choice = {"index": index, "text": text, "finish_reason": reason, "logprobs": None} | ({"reviewgen": ours} if ours else {})
        self.send(f"data: {json.dumps({'object': 'text_completion', 'choices': [choice]}, ensure_ascii=False)}\r\n\r\n")

    def send(self, text):
        data = text.encode()
        for place in range(0, len(data), 50):  # events and characters arrive in pieces
            self.wfile.write(data[place : place + 50])
            self.wfile.flush()


@pytest.fixture
def server():
    running = Server()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    with suppress(OSError):
        running.shutdown()
        running.server_close()


@pytest.fixture
def page(browser, server):
    """The page of the server; anything on its console but an answer that is an error fails the test."""
    context, heard = browser.new_context(), []
    page = context.new_page()
    page.on("console", lambda message: heard.append(message.text) if "Failed to load resource" not in message.text else None)
    page.on("pageerror", lambda problem: heard.append(str(problem)))
    page.goto(server.address)
    page.locator("#model option").first.wait_for(state="attached")
    yield page
    context.close()
    assert heard == []


def error(page):
    page.locator("#error:not(:empty)").wait_for()
    return page.text_content("#error")


def press_write(page, prompt):
    page.fill("#prompt", prompt)
    page.click("#write")


def test_texts_come_from_the_server_with_their_probabilities_and_copies(page, server):
    page.select_option("#model", "plain")
    assert page.input_value("#max_tokens") == "300" and not page.is_visible("#copying")
    page.select_option("#model", "lstm-word")
    page.fill("#seed", "7")
    page.fill("#n", "2")
    page.check("#novelty")
    page.locator("#condition-stars").press("End")
    press_write(page, "Ä film \U0001f600")
    page.locator(".facts", has_text="tokens").nth(1).wait_for()
    assert page.locator(".written").all_text_contents() == ["Ä film \U0001f600 a great film."] * 2
    assert page.text_content(".facts") == "4 tokens · 1.0 bits a token · seed 7"
    assert server.bodies == [
        {
            "model": "lstm-word",
            "prompt": "Ä film \U0001f600",
            "n": 2,
            "seed": 7,
            "max_tokens": 30,
            "temperature": 0.6,
            "top_p": 1,
            "min_p": 0,
            "conditions": {"stars": "5"},
            "novelty": "filter",
            "logprobs": 10,
            "stream": True,
        }
    ]
    assert "".join(page.locator(".written mark").all_text_contents()) == " a great" * 2
    page.locator(".token").nth(1).click()
    assert page.locator(".alternative .share").all_text_contents() == ["50.0 %", "25.0 %"]
    page.locator(".alternative").nth(1).click()
    page.locator(".token.picked", has_text="bad").wait_for()
    page.locator(".facts", has_text="tokens").nth(1).wait_for()
    assert (server.bodies[1]["prompt"], server.bodies[1]["n"]) == ("Ä film \U0001f600 a bad", 1)
    assert page.locator(".written").first.text_content() == "Ä film \U0001f600 a bad a great film."


def test_copied_spans_are_asked_for_where_the_server_has_an_index(page, server):
    for model in ("lstm-word", "plain"):
        page.select_option("#model", model)
        press_write(page, model)
        page.locator(".written", has_text=model).wait_for()
        page.locator(".facts", has_text="tokens").wait_for()
    assert [body.get("novelty") for body in server.bodies] == ["report", None]


def test_the_page_of_a_server_says_what_it_knows_of_a_model(page):
    page.click("#about")
    assert page.text_content("#card dd") == "Apache-2.0" and "synthetic" in page.text_content("#card")


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("REFUSE", "The queue is full: try again in 2 s."),
        ("CRASH", "The server answered with the status 500."),
        ("FAIL", "The model has lost its state."),
        ("BREAK", "The server stopped before the text was written."),
    ],
)
def test_what_goes_wrong_at_the_server_is_a_sentence_and_the_page_goes_on(page, prompt, sentence):
    press_write(page, prompt)
    assert error(page) == sentence
    page.locator("#write", has_text="Write").wait_for()
    press_write(page, "A")
    page.locator(".facts", has_text="4 tokens").wait_for()
    assert page.text_content("#error") == ""


def test_stop_closes_the_connection(page, server):
    press_write(page, "LONG")
    page.locator(".token").nth(10).wait_for()
    page.locator("#write", has_text="Stop").click()
    page.locator(".facts", has_text="stopped").wait_for()
    assert server.gone.wait(10) and page.text_content("#error") == ""


def test_a_server_that_is_gone_is_a_sentence(page, server):
    server.shutdown()
    server.server_close()
    press_write(page, "A")
    assert error(page) == "The server cannot be reached: it may have been stopped."


def test_a_server_lists_the_files_that_its_page_needs():
    files = static_files()
    assert {"page.css", "online.js", "app.js", "http_engine.js"} <= files.keys()
    html = page_for_server("</title><script>alert(1)</script>")
    assert html.count("<script") == 1 and "'unsafe" not in html and "</title>&lt;" not in html


def test_a_server_that_asks_for_a_key_gets_the_one_that_the_user_types(browser, server):
    server.key = "Bearer open sesame"
    page = browser.new_page()
    page.goto(server.address)
    for key in ("wrong", "open sesame"):
        page.locator("#key[open]").wait_for()
        page.fill("#key-text", key)
        page.keyboard.press("Enter")
    page.locator("#write:enabled").wait_for()
    page.close()


def test_axe_finds_no_fault(browser, server):
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(server.address)
    page.locator("#write:enabled").wait_for()
    press_write(page, "A")
    page.locator(".facts", has_text="tokens").wait_for()
    assert violations(page) == []
    context.close()
