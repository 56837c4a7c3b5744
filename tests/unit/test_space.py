"""A model and its page as a static Space, with the real client against the loopback Hub; and the page in a real Chromium."""

import json
import re

import pytest
from huggingface_hub import SpaceCard

import reviewgen
from tests.support.fakes import NGRAM, train_tiny
from tests.support.forked import run_python
from tests.support.loopback_hub import READ_TOKEN, TOKEN, Fault, LoopbackHub

NAME = "ana/reviews"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved n-gram."""
    root = tmp_path_factory.mktemp("saved")
    train_tiny("ngram-char", root / "cache", **NGRAM).save_pretrained(root / "model")
    return root / "model"


@pytest.fixture
def hub():
    with LoopbackHub({}) as running:
        yield running
        assert [request for request in running.requests if request.status in (501, 502)] == []


@pytest.fixture
def push(hub, folder, tmp_path):
    """A function that runs ``reviewgen push --space`` and returns what it prints, as JSON; or the error message."""

    def run(*words, status=0, model=folder, token=TOKEN):
        options = ["--license", "mit", "--allow", "copies", "--space", "--json"]
        command = ["-m", "reviewgen", "push", str(model), NAME, *options, *words]
        done = run_python(command, env=hub.environment(tmp_path / "home", token), cwd=tmp_path)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout) if status == 0 else done.stderr

    return run


def packed_model(page):
    """The manifest of the model in a page."""
    return json.loads(re.search(r'<script type="application/json" id="contents">(.*?)</script>', page)[1])["models"][0]


def log(hub, kind):
    return hub.repositories[kind, NAME].log if (kind, NAME) in hub.repositories else []


def test_the_model_and_its_page_are_published_side_by_side_and_link_each_other(hub, push):
    said = push()
    assert said == {
        "url": f"{hub.endpoint}/{NAME}/commit/{hub.sha('model', NAME)}",
        "space": f"{hub.endpoint}/spaces/{NAME}",
    }
    card = hub.files("model", NAME)["README.md"].decode()
    assert f"[{NAME}]({hub.endpoint}/spaces/{NAME})" in card
    files = hub.files("space", NAME)
    assert files.keys() == {".gitattributes", "README.md", "index.html"}  # the example of a new Space is gone
    readme = SpaceCard(files["README.md"].decode())
    assert (readme.data.sdk, readme.data.app_file, readme.data.models) == ("static", "index.html", [NAME])
    assert (readme.data.license, readme.data.title) == ("mit", "reviews")
    assert f"[{NAME}]({hub.endpoint}/{NAME})" in readme.text
    model = packed_model(files["index.html"].decode())
    assert model["card"] == card and ["License", "mit"] in model["facts"]


def test_the_page_writes(hub, push, folder, browser, tmp_path):
    push()
    (tmp_path / "index.html").write_bytes(hub.files("space", NAME)["index.html"])
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.locator("#model option").first.wait_for(state="attached")
    page.fill("#seed", "7")
    page.fill("#prompt", "the ")
    page.click("#write")
    page.locator(".text .facts", has_text="tokens").last.wait_for()
    page.locator("#write", has_text="Write").wait_for()
    assert page.title() == "reviews"
    assert page.locator(".written").all_text_contents() == [reviewgen.load(folder).generate_one("the ", seed=7)]
    page.close()


def test_publishing_again_makes_no_commit_and_an_edited_readme_is_kept(hub, push):
    push()
    push()
    assert len(log(hub, "model")) == len(log(hub, "space")) == 2
    files = hub.files("space", NAME)
    by_hand = files["README.md"].replace(b"title: reviews", b"title: Ana's critic")
    hub.repositories["space", NAME].commit("main", {**files, "README.md": by_hand, "index.html": b"old"})
    push()
    assert hub.files("space", NAME) == {**files, "README.md": by_hand}


def test_the_link_stays_when_the_model_alone_is_published_again(hub, push, folder, tmp_path):
    push()
    script = f"import reviewgen; reviewgen.load({str(folder)!r}).push_to_hub({NAME!r}, license='apache-2.0', allow=['copies'])"
    run_python(["-c", script], env=hub.environment(tmp_path / "home", TOKEN), check=True)
    card = hub.files("model", NAME)["README.md"].decode()
    assert "license: apache-2.0" in card and f"/spaces/{NAME})" in card


def test_the_link_of_another_model_is_not_copied(hub, push, tmp_path):
    push()
    script = f"import reviewgen; reviewgen.load({NAME!r}).push_to_hub('ana/copy', allow=['copies'])"
    run_python(["-c", script], env=hub.environment(tmp_path / "home", TOKEN), check=True)
    assert "/spaces/" not in hub.files("model", "ana/copy")["README.md"].decode()


def test_the_page_of_a_private_model_is_private(hub, push):
    push("--private")
    assert hub.repositories["space", NAME].private and hub.repositories["model", NAME].private
    push()  # the visibility of what exists stays
    assert hub.repositories["space", NAME].private


def test_a_public_space_does_not_get_a_private_model(hub, push):
    push()
    hub.repositories["model", NAME].private = True
    assert "public and the model is private" in push(status=1)
    del hub.repositories["model", NAME]
    assert "public and the model is private" in push("--private", status=1)
    assert log(hub, "model") == []


@pytest.mark.parametrize(
    ("title", "more"),
    [("Duplicate from bob/game", {}), ("initial commit", {"game.js": b"42", "levels/1.json": b"{}"})],
    ids=["duplicate", "game"],
)
def test_a_space_of_one_commit_with_work_in_it_is_left_alone(hub, push, title, more):
    """As that of a duplicate, or of a squashed history."""
    hub.add("space", NAME, sdk="static")
    files = hub.files("space", NAME) | {"index.html": b"<p>my game</p>"} | more
    space = hub.repositories["space", NAME]
    space.log.clear()
    space.commit("main", files, title)
    assert "was not published by reviewgen" in push(status=1)
    assert hub.files("space", NAME) == files and log(hub, "model") == []


@pytest.mark.parametrize("sdk", ["gradio", "static"])
def test_a_space_of_another_kind_is_left_alone(hub, push, sdk):
    hub.add("space", NAME, sdk=sdk)
    hub.repositories["space", NAME].commit("main", hub.files("space", NAME) | {"notes.txt": b"mine"}, "Add notes")
    before = hub.files("space", NAME)
    assert "was not published by reviewgen" in push(status=1)
    assert hub.files("space", NAME) == before and log(hub, "model") == []


def test_a_failure_of_the_space_says_that_the_model_is_published_and_is_repeated(hub, push):
    hub.faults.append(Fault("^POST /api/spaces/.*/commit/", status=500, times=10))
    said = push(status=1)
    assert "The model is published, and its Space is not; the same command tries again." in " ".join(said.split())
    assert len(log(hub, "model")) == 2
    assert hub.files("space", NAME)["index.html"] == b"<p>Welcome</p>\n"
    hub.faults.clear()
    push()
    assert len(log(hub, "space")) == 2 and hub.files("space", NAME).keys() == {".gitattributes", "README.md", "index.html"}


def test_nothing_is_published_without_a_page_or_permission(hub, push, tmp_path):
    assert "leave out the revision" in push("--pull-request", status=2)
    assert "log in with" in push(status=1, token=None)
    assert "does not grant access" in push(status=1, token=READ_TOKEN)
    assert hub.repositories == {}
