"""A model and its page as a static Space, and what stands in the way of publishing."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import SpaceCard

import reviewgen
from reviewgen.errors import ConfigError, SourceError
from reviewgen.hub import check_kinds, find_personal_data
from tests.support.fakes import run_command
from tests.support.loopback_hub import READ_TOKEN, TOKEN, Fault, LoopbackHub
from tests.support.saved import letters

NAME, MODEL, SPACE = "ana/reviews", ("model", "ana/reviews"), ("space", "ana/reviews")
FILES = {".gitattributes", "README.md", "index.html"}
Push = Callable[..., Any]


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub({}) as running:
        yield running
        assert [request for request in running.requests if request.status in (501, 502)] == []


@pytest.fixture
def push(hub: LoopbackHub, model_folder: Callable[[str], Path], tmp_path: Path, capsys: Any) -> Push:
    """A function that runs ``reviewgen push --space`` and returns what it prints, as JSON; or the error message."""

    def run(*words: str, status: int = 0, token: str | None = TOKEN) -> Any:
        options = ["--license", "mit", "--allow", "copies", "--space", "--json"]
        with hub.client(tmp_path / str(token), token), pytest.MonkeyPatch.context() as patch:
            got, out, said = run_command(patch, capsys, "push", model_folder("ngram-char"), NAME, *options, *words)
        assert got == status, said
        return " ".join(said.split()) if status else json.loads(out)

    return run


def log(hub: LoopbackHub, key: tuple[str, str]) -> list[str]:
    return hub.repositories[key].log if key in hub.repositories else []


@pytest.mark.server
def test_the_model_and_its_page_link_each_other_and_an_edited_readme_is_kept(hub: LoopbackHub, push: Push) -> None:
    said = push()
    assert said == {"url": f"{hub.endpoint}/{NAME}/commit/{hub.sha(*MODEL)}", "space": f"{hub.endpoint}/spaces/{NAME}"}
    card, files = hub.files(*MODEL)["README.md"].decode(), hub.files(*SPACE)
    assert f"[{NAME}]({hub.endpoint}/spaces/{NAME})" in card
    assert files.keys() == FILES  # the example of a new Space is gone
    readme = SpaceCard(files["README.md"].decode())
    assert (readme.data.sdk, readme.data.app_file, readme.data.models) == ("static", "index.html", [NAME])
    assert (readme.data.license, readme.data.title) == ("mit", "reviews")
    assert f"[{NAME}]({hub.endpoint}/{NAME})" in readme.text
    contents = re.search(r'<script type="application/json" id="contents">(.*?)</script>', files["index.html"].decode())
    assert contents is not None
    model = json.loads(contents[1])["models"][0]
    assert model["card"] == card and ["License", "mit"] in model["facts"]
    push()
    assert len(log(hub, MODEL)) == len(log(hub, SPACE)) == 2  # nothing is new: no commit
    by_hand = files["README.md"].replace(b"title: reviews", b"title: Ana's critic")
    hub.repositories[SPACE].commit("main", {**files, "README.md": by_hand, "index.html": b"old"})
    push()
    assert hub.files(*SPACE) == {**files, "README.md": by_hand}


@pytest.mark.server
def test_the_link_stays_with_the_model_and_is_not_copied_to_another(hub: LoopbackHub, push: Push, tmp_path: Path) -> None:
    push()
    with hub.client(tmp_path / "home", TOKEN):
        model = reviewgen.load(NAME)
        model.push_to_hub(NAME, license="apache-2.0", allow=["copies"])
        model.push_to_hub("ana/copy", allow=["copies"])
    card = hub.files(*MODEL)["README.md"].decode()
    assert "license: apache-2.0" in card and f"/spaces/{NAME})" in card
    assert "/spaces/" not in hub.files("model", "ana/copy")["README.md"].decode()


@pytest.mark.server
def test_a_public_space_does_not_get_a_private_model(hub: LoopbackHub, push: Push) -> None:
    push("--private")
    assert hub.repositories[SPACE].private and hub.repositories[MODEL].private
    push()  # the visibility of what exists stays
    assert hub.repositories[SPACE].private
    hub.repositories[SPACE].private = False
    assert "public and the model is private" in push(status=1)
    del hub.repositories[MODEL]
    assert "public and the model is private" in push("--private", status=1) and log(hub, MODEL) == []


@pytest.mark.server
def test_a_space_that_reviewgen_has_not_published_is_left_alone(hub: LoopbackHub, push: Push) -> None:
    for sdk, title, more in (
        ("static", "Duplicate from bob/game", {}),
        ("static", "initial commit", {"game.js": b"42", "levels/1.json": b"{}"}),
        ("static", "Add notes", {"notes.txt": b"mine"}),
        ("gradio", "Add notes", {"notes.txt": b"mine"}),
    ):
        hub.add(*SPACE, sdk=sdk)
        files = hub.files(*SPACE) | {"index.html": b"<p>my game</p>"} | more
        hub.repositories[SPACE].log.clear()  # as in a squashed history
        hub.repositories[SPACE].commit("main", files, title)
        assert "was not published by reviewgen" in push(status=1)
        assert hub.files(*SPACE) == files and log(hub, MODEL) == []


@pytest.mark.server
def test_a_failure_of_the_space_says_that_the_model_is_published_and_is_repeated(hub: LoopbackHub, push: Push) -> None:
    hub.faults = [Fault("^POST /api/spaces/.*/commit/", status=400, times=10)]
    assert "The model is published, and its Space is not" in push(status=1)
    assert len(log(hub, MODEL)) == 2 and hub.files(*SPACE)["index.html"] == b"<p>Welcome</p>\n"
    hub.faults.clear()
    push()
    assert len(log(hub, SPACE)) == 2 and hub.files(*SPACE).keys() == FILES


@pytest.mark.server
def test_nothing_is_published_without_permission(hub: LoopbackHub, push: Push) -> None:
    assert "leave out the revision" in push("--pull-request", status=2)
    assert "log in with" in push(status=1, token=None)
    assert "does not grant access" in push(status=1, token=READ_TOKEN)
    assert hub.repositories == {}


# The scan for personal data, and wrong arguments.

PERSONAL = {
    "email": ["write to ana.b+c@mail.example.org today", "ANA@EXAMPLE.COM!", "(x_y@sub.do-main.de)"],
    "url": ["see http://a.b/c?d=e.", "www.imdb.com/title/tt01", "on imdb.com they say", "HTTPS://X.Y", "bbc.co.uk", "bit.ly/x",
            "ftp://a.b"],
    "phone": ["call 555-1234", "+49 (30) 1234 5678", "(212) 555-0199", "212.555.0199", "0301234567", "+1-212-555-0199",
              "020 7946 0958", "(555) 123 4567", "06 12 34 56 78"],
    "handle": ["follow @ana_music", "@Ana, thanks", "(@bob99)"],
}  # fmt: skip
HARMLESS = [
    "It ran from 1990-2000, at 10/10, for $1,000,000.", "meet me @ 5", "sh@#t happens", "p@ssion", "24-7 fun, 1-2-3",
    "The U.S.A. and e.g. this one...", "A.I. is by Mr.Spielberg", "rated 8.5/10; part 2.5", "2001: A Space Odyssey",
    "good.The next", "100000 people, 12345678 stars", "9783161484100 is a book", "100-1000 times",
]  # fmt: skip


def test_personal_data_is_found_in_texts_and_in_the_vocabulary() -> None:
    for kind, texts in PERSONAL.items():
        for text in texts:
            (found,) = [finding for finding in find_personal_data([text, "nothing"], []) if finding.kind == kind]
            assert "in 1 of 2 samples, as in" in found.description
            (inside,) = [finding for finding in find_personal_data([], [text, "nothing"]) if finding.kind == kind]
            assert "1 pieces of the vocabulary" in inside.description
    for text in HARMLESS:
        assert find_personal_data([text], [text]) == []


def test_arguments_of_a_push_that_are_refused() -> None:
    assert check_kinds(["url", "copies"]) == {"url", "copies"} and check_kinds("email") == {"email"}
    with pytest.raises(ConfigError, match="Did you mean 'email'"):
        check_kinds(["e-mail"])
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"repo_id": "reviews"}, SourceError, "owner/name"),
        ({"repo_id": "ana/reviews@v1", "revision": "v2"}, SourceError, "has one revision"),
        ({"copy_limit": 3}, ConfigError, "from 0 to 1"),
        ({"revision": "a b"}, SourceError, "is not a revision"),
        ({"token": ""}, ConfigError, "token is empty"),
        ({"model_card_kwargs": {"licence": "mit"}}, ConfigError, "Did you mean 'license'"),
        ({"license": "mit", "model_card_kwargs": {"license": "gpl"}}, ConfigError, "give one of them"),
    ]
    for arguments, error, word in cases:
        with pytest.raises(error, match=word):
            letters().push_to_hub(**({"repo_id": NAME} | arguments))
