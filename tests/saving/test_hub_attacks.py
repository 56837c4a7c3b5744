"""A hostile repository and a faulty Hub, with the real client: nothing outside of the cache, no
token elsewhere, one sentence.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.errors import ReviewgenError
from tests.support.loopback_hub import TOKEN, Fault, LoopbackHub

Edit = Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]
INFO = r"^GET /api/models/owner/name(/revision/main)?(\?|$)"
TREE = "^GET /api/models/owner/name/tree/"


def answer(change: Callable[[Any], Any]) -> Edit:
    """Change what the API says."""
    return lambda status, headers, body: (
        status,
        headers,
        json.dumps(change(json.loads(body))).encode(),
    )


class Target:
    """A repository of a hostile Hub, and a home folder for each attack."""

    def __init__(self, hub: LoopbackHub, folder: Path, around: Path) -> None:
        self.hub = hub
        self.around = around
        self.number = 0
        self.text = reviewgen.load(folder).generate_one("the ", seed=1)

    def load(self, fault: Fault) -> str:
        """Return the text of the model, or the message of the error; nothing outside of the cache
        may change.
        """
        self.number += 1
        home = self.around / "homes" / str(self.number)
        since = len(self.hub.requests)
        self.hub.faults = [fault]
        with self.hub.client(home, TOKEN):
            try:
                said = reviewgen.load("hf://owner/name").generate_one("the ", seed=1)
            except ReviewgenError as error:
                said = str(error)
                assert "\n" not in said and len(said) < 500 and TOKEN not in said, said
        assert {path.name for path in self.around.iterdir()} == {"homes"} and not Path(
            "/planted"
        ).exists()
        assert [
            path for path in home.rglob("*") if not path.resolve().is_relative_to(home.resolve())
        ] == []
        elsewhere = [
            each
            for each in self.hub.requests[since:]
            if not each.target.startswith(("/api/", "/owner/name/"))
        ]
        assert [each for each in elsewhere if each.token is not None] == [], (
            "the token goes to the Hub alone"
        )
        return said


@pytest.fixture(scope="module")
def target(model_folder, tmp_path_factory) -> Iterator[Target]:
    folder = model_folder("ngram-char")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    with LoopbackHub({("model", "owner/name"): {"main": files}}) as hub:
        yield Target(hub, folder, tmp_path_factory.mktemp("hostile"))


def test_names_of_files_that_lead_outside_are_not_downloaded(target):
    assert target.load(Fault(INFO, edit=answer(lambda facts: facts))) == target.text
    wrong = {}
    # of files that are not the model's, so ignored
    for name in ("../evil", "/etc/evil", "a/../b", "C:\\evil", "a\\b"):
        file = {"type": "file", "path": name, "size": 1, "oid": "0" * 40}
        said = target.load(Fault(TREE, edit=answer(lambda files, file=file: [*files, file])))
        wrong |= {} if said == target.text else {name: said}
    assert wrong == {}


def test_a_byte_that_changes_on_the_way_is_found(target):
    said = [
        target.load(Fault(f"^GET .*{name}", flips=True))
        for name in ("/characters.json", "/lfs-objects/")
    ]
    assert all(" damaged" in each or "has changed since" in each for each in said), said


def test_an_answer_of_another_form_is_one_sentence(target):
    def say(status: int, text: bytes = b"", **named: str) -> Edit:
        fields = {name.replace("_", "-"): value for name, value in named.items()}
        return lambda _, headers, body: (status, headers | fields, text or body)

    odd_json = (
        b"null",
        b"[1]",
        b"{}",
        b"{",
        b"[" * 200_000,
        b"\xff",
        b'{"error": "\x1b[31m"}',
        b"<html>Log in</html>",
    )
    edits = [(INFO, say(200, text)) for text in odd_json]
    edits += [
        (TREE, say(200, text))
        for text in (b"{}", b"[{}]", b'[{"type": "file", "path": 5}]', b"<html>Log in</html>")
    ]
    edits += [("/resolve/.*/config.json", say(status)) for status in (204, 307, 400, 401, 416)]
    edits += [(INFO, say(status)) for status in (204, 301, 400, 403, 410)]
    edits += [
        ("/resolve/", say(302, Location=place))
        for place in ("", "http://[::1", "javascript:1", "file:///etc/passwd")
    ]
    edits += [
        (INFO, say(404, X_Error_Code=code))
        for code in ("GatedRepo", "EntryNotFound", "\xe2\x80\xae")
    ]
    edits += [("^GET .*/resolve/", say(200, body)) for body in (b"x", b" " * (3 << 20))]
    edits += [
        ("^GET .*/resolve/", say(200, Content_Encoding="gzip, br")),
        ("^HEAD .*/resolve/", say(200, X_Linked_Size="-1")),
    ]
    for pattern, edit in edits:
        said = target.load(Fault(pattern, edit=edit))
        assert said.isprintable() and (said == target.text or len(said) > 10), said
    assert target.load(Fault("^nothing")) == target.text
