"""``reviewgen demo``: the page of a real server in a real Chromium, the browser that it opens, and how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
import torch

import reviewgen
from reviewgen.cli import demo
from reviewgen.cli.serve import leave_out
from reviewgen.errors import BrokenPlugin
from reviewgen.serving import server
from tests.support.examples import install_example
from tests.support.fakes import LETTERS, TableModel, review_model, run_command, table
from tests.support.servers import get, serving

MODELS = ("lstm-word", "ngram-char")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """An installed model of a third party."""
    return install_example("reviewgen-uniform", tmp_path_factory.mktemp("uniform"))


@pytest.fixture(scope="module")
def served(site, tmp_path_factory):
    """A demo of two presets, a model of a plugin, and one that does not exist."""
    folder = tmp_path_factory.mktemp("demo")
    environment = os.environ | {"PYTHONPATH": str(site)}
    (folder / "reviews.txt").write_text("\n".join(f"Review {number} is short." for number in range(40)), encoding="utf-8")
    words = ["train", "uniform-char", "--data", str(folder / "reviews.txt"), "--out", str(folder / "mine")]
    subprocess.run([sys.executable, "-m", "reviewgen", *words], env=environment, check=True, capture_output=True)
    models = [*MODELS, f"plugin={folder / 'mine'}", "broken=./no-such-model"]
    with serving(["demo", *models, "--no-browser"], folder / "log", environment) as running:
        yield running


@pytest.fixture
def page(browser, served):
    """The page; whatever it says on its console fails the test."""
    context, heard = browser.new_context(viewport={"width": 1400, "height": 900}), []
    opened = context.new_page()
    opened.on("console", lambda message: heard.append(message.text))
    opened.on("pageerror", lambda error: heard.append(str(error)))
    opened.goto(served["url"])
    opened.locator("#model option").first.wait_for(state="attached")
    yield opened
    context.close()
    assert heard == []


def write(page, prompt):
    page.fill("#prompt", prompt)
    page.click("#write")
    page.locator(".text .facts", has_text="tokens").last.wait_for()
    page.locator("#write", has_text="Write").wait_for()
    return page.locator(".written").all_text_contents()


def test_every_model_that_loads_is_on_the_page_and_the_others_are_named(page, served):
    assert page.locator("#model option").all_text_contents() == [*MODELS, "plugin"] == served["models"]
    assert served["failed"] == {"broken": "There is no saved model at no-such-model: no such folder."}


@pytest.mark.parametrize("name", MODELS)
def test_the_page_writes_the_text_of_the_model_and_its_tokens_open_the_microscope(page, name):
    page.select_option("#model", name)
    page.fill("#seed", "7")
    (text,) = write(page, "The movie")
    assert text == reviewgen.load(name).generate_one("The movie", seed=7)
    page.locator(".token").nth(3).click()
    assert page.locator(".alternative").count() == 10
    shares = [float(number) for number in re.findall(r"([\d.]+) %", " ".join(page.locator(".alternative").all_text_contents()))]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 100.5
    page.locator(".alternative").nth(1).click()
    page.locator("#write", has_text="Write").wait_for()
    assert page.locator(".token").count() > 3


def test_the_model_of_a_plugin_writes(page):
    page.select_option("#model", "plugin")
    page.fill("#max_tokens", "10")
    lengths = []
    for seed in range(5):  # a text of a model of a few steps may end at once
        page.fill("#seed", str(seed))
        lengths.append(len(write(page, "Review ")[-1]))
    assert max(lengths) > len("Review ")


def test_it_listens_on_loopback_only(served):
    port = int(served["url"].rstrip("/").rpartition(":")[2])
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)} - {"127.0.0.1"}
    for address in addresses:
        with pytest.raises(OSError), socket.create_connection((address, port), timeout=2):
            pass
    assert served["url"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("path", ["", "v1/models", "static/page.css"])
def test_a_page_whose_name_leads_to_this_machine_gets_nothing(served, path):
    answer = httpx.get(served["url"] + path, headers={"Host": "evil.example"})
    assert answer.status_code == 421 and answer.json()["error"]["code"] == "unknown_host"
    assert get(served["url"] + path)


def browser_script(folder, status):
    """Return a program that notes the address it is called with, for the variable BROWSER, and its notes."""
    script, notes = folder / "browser", folder / "opened"
    script.write_text(f'#!/bin/sh\necho "$1" >> {notes}\nexit {status}\n')
    script.chmod(0o755)
    return {"BROWSER": f"{script} %s"}, notes


def test_the_browser_is_opened_and_ctrl_c_ends_it_cleanly(tmp_path):
    environment, opened = browser_script(tmp_path, 0)
    with serving(["demo", "ngram-char"], tmp_path / "log", os.environ | environment) as said:
        assert b"<html" in get(said["url"])
        deadline = time.monotonic() + 30
        while not opened.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert opened.read_text() == f"{said['url']}\n"
        said["process"].send_signal(signal.SIGINT)
        assert said["process"].wait(60) == 0
    assert json.loads((tmp_path / "log").read_text())["url"] == said["url"]  # and nothing else was printed


def test_a_text_that_is_being_written_does_not_hold_up_the_end(tmp_path):
    import httpx

    with serving(["demo", "lstm-char", "--no-browser"], tmp_path / "log") as said:
        body = {"model": "lstm-char", "prompt": ["The"] * 64, "max_tokens": 4000, "stream": True, "stop": "no such text"}
        with httpx.stream("POST", f"{said['url']}v1/completions", json=body, timeout=300) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            said["process"].send_signal(signal.SIGINT)
            rest = b"".join(pieces)
        assert said["process"].wait(60) == 0
    assert rest.endswith(b"data: [DONE]\n\n") and "Traceback" not in (tmp_path / "log").read_text()


def test_without_a_browser_the_address_is_named(tmp_path):
    environment, opened = browser_script(tmp_path, 1)
    with serving(["demo", "ngram-char"], tmp_path / "log", os.environ | environment | {"PATH": "", "DISPLAY": ""}) as said:
        deadline = time.monotonic() + 30
        while "No browser" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert f"No browser was found: open {said['url']} yourself." in " ".join((tmp_path / "log").read_text().split())
    assert opened.exists()


class GrowingModel(TableModel):
    """Keeps all tokens in its state, so that texts of different lengths cannot be written side by side."""

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 0)

    def __call__(self, ids, state):
        return self.table[ids], torch.cat([state, ids.float()], dim=1)


def test_a_model_that_no_engine_can_run_is_left_out(monkeypatch, capsys):
    logits = table(LETTERS.vocab_size)
    models = {name: review_model(kind(logits), LETTERS) for name, kind in (("plain", TableModel), ("growing", GrowingModel))}
    monkeypatch.setattr(server, "load", lambda source, weight_bits: models[source])
    failed = {}
    loaded = server.load_engines({"one": "plain", "two": "growing"}, 32, leave_out(failed))
    assert {name: engine.model for name, engine in loaded.items()} == {"one": models["plain"]}
    assert "different shapes" in failed["two"] and loaded["one"].is_alive
    app = server.make_app(server.ServerOptions(sources={}), loaded)
    assert app.state.service.engines == loaded  # the engine that was tried is the one that serves
    app.state.service.close()
    assert not loaded["one"].is_alive
    assert "two is left out: " in capsys.readouterr().err
    with pytest.raises(BrokenPlugin, match="different shapes"):
        server.load_engines({"two": "growing"}, 32, leave_out(failed))


def test_without_models_it_has_every_preset_with_weights():
    listed = {preset.name for preset in reviewgen.list_presets()}
    installed = demo.installed_models()
    assert installed[0] == "lstm-word" and len(installed) >= 12 and set(installed) <= listed


@pytest.fixture
def fails(monkeypatch, capsys):
    """A function that runs a demo that cannot start, and returns its message."""

    def run(status, *words):
        got, output, problem = run_command(monkeypatch, capsys, "demo", *words, "--no-browser")
        assert (got, output) == (status, "") and "Traceback" not in problem and len(problem) < 500, problem
        return problem

    return run


def test_mistakes_are_one_sentence(fails):
    assert "no such folder" in fails(1, "./none")
    assert "'a'" in fails(2, "a=lstm-word", "a=ngram-char")
    assert "32, 16 or 8" in fails(2, "ngram-char", "--bits", "7")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"Port {port}" in fails(1, "ngram-char", "--port", port)
