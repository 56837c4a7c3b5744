"""A hostile Hub, mirror or proxy, with the real client: nothing outside of the cache, no token elsewhere, one sentence."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.errors import HubError, ReviewgenError
from tests.support.fakes import run_command
from tests.support.loopback_hub import TOKEN, Fault, LoopbackHub
from tests.support.saved import listing

Edit = Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]


def header(name: str, value: str) -> Edit:
    return lambda status, headers, body: (status, {**headers, name: value}, body)


def info(change: Callable[[dict[str, Any]], Any]) -> Edit:
    """Change what the API says of the repository."""
    return lambda status, headers, body: (status, headers, json.dumps(change(json.loads(body))).encode())


def entry(name: str, **fields: Any) -> Edit:
    """Change what the list of files says of one."""
    return info(
        lambda facts: facts | {"siblings": [each | (fields if each["rfilename"] == name else {}) for each in facts["siblings"]]}
    )


def further(name: str) -> Edit:
    return info(
        lambda facts: facts | {"siblings": [*facts["siblings"], {"rfilename": name, "size": 1, "blobId": "0" * 40, "lfs": None}]}
    )


class Target:
    """A repository of a hostile Hub, and a home folder for each attack."""

    def __init__(self, hub: LoopbackHub, folder: Path, around: Path) -> None:
        self.hub, self.around, self.number = hub, around, 0
        self.text = reviewgen.load(folder).generate_one("the ", seed=1)

    def load(self, fault: Fault | None, call: Callable[[], object] | None = None) -> str:
        """Return the text of the model, or the message of the error; nothing outside of the cache may change."""
        self.number += 1
        home = self.around / "homes" / str(self.number)
        before, since = self.outside(), len(self.hub.requests)
        self.hub.faults = [] if fault is None else [fault]
        with self.hub.client(home, TOKEN):
            try:
                said = reviewgen.load("hf://owner/name").generate_one("the ", seed=1) if call is None else str(call())
            except ReviewgenError as error:
                said = str(error)
                assert isinstance(error, HubError) and "\n" not in said and len(said) < 500, said
        assert self.outside() == before
        assert [path for path in home.rglob("*") if not path.resolve().is_relative_to(home.resolve())] == []
        elsewhere = [each for each in self.hub.requests[since:] if not each.target.startswith(("/api/", "/owner/name/"))]
        assert [each for each in elsewhere if each.token is not None] == [], "the token goes to the Hub alone"
        return said

    def outside(self) -> tuple[dict[str, bytes], list[bool]]:
        inside = {name: data for name, data in listing(self.around).items() if not name.startswith("homes/")}
        return inside, [Path(name).exists() for name in ("/tmp/planted", "/planted")]


@pytest.fixture(scope="module")
def target(model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = model_folder("ngram-char")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    with LoopbackHub({("model", "owner/name"): {"main": files}}) as hub:
        yield Target(hub, folder, tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", ["ETag", "X-Linked-ETag", "X-Repo-Commit"])
def test_a_header_that_leads_outside(target: Target, name: str) -> None:
    for value in (f'"{target.around / "planted"}"', '"../../../../../planted"', "W//../../planted", '".."'):
        said = target.load(Fault("^HEAD .*/resolve/", edit=header(name, value)))
        assert "the header " in said and "hexadecimal" in said, value


def test_lists_of_files_that_are_refused(target: Target) -> None:
    cases: list[tuple[Edit, str]] = [
        *((info(lambda facts, sha=sha: facts | {"sha": sha}), "as a commit")
          for sha in ("../../../../planted", "main", "", None, 5, "A" * 40)),
        *((further(name), "is not a file inside it")
          for name in ("../evil", "/etc/evil", "a/../b", "..", "", "C:\\evil", "C:evil", "a\\b", "a\nb", "a\x1b[2J")),
        (further("Config.json"), "one file on Windows and macOS"),
        *((entry("config.json", size=size), "as the size of config.json")
          for size in (-1, 1.5, "5", None, 10**30, (1 << 20) + 1)),
        (entry("training.json", blobId="0" * 40), "training.json of owner/name was damaged"),
        (entry("training.json", blobId="../" * 13 + "x"), "not hexadecimal"),
    ]  # fmt: skip
    assert target.load(Fault("^GET /api/", edit=info(lambda facts: facts))) == target.text
    wrong = {}
    for number, (edit, word) in enumerate(cases):
        said = target.load(Fault("^GET /api/", edit=edit))
        if word not in said:
            wrong[number, word] = said
    assert wrong == {}


@pytest.mark.server
def test_bodies_and_sizes_that_are_refused(target: Target) -> None:
    wrong = {}
    for fault, word in (
        (Fault("^HEAD .*safetensors", edit=header("X-Linked-Size", "99")), "as the size of a file"),
        (Fault("^GET /api/", is_endless=True), "it sends more than"),
        (Fault("^GET .*config.json", is_endless=True), "it sends more than"),
        (Fault("^GET /lfs-objects", is_endless=True), "it sends more than"),
        (Fault("^GET ", edit=header("Content-Encoding", "gzip")), "a compressed body"),
        (Fault("", status=429, edit=header("Retry-After", "3600")), "3,600 seconds"),
    ):
        said = target.load(fault)
        if word not in said:
            wrong[fault.pattern, word] = said
    assert wrong == {}


@pytest.mark.server
def test_redirects_to_another_host(target: Target) -> None:
    """Of the API they are refused; of files they are followed, without the token."""
    store = target.hub.store

    def redirect(status: int, path: str) -> Edit:
        return lambda _, headers, body: (status, {**headers, "Location": f"{store}{path}"}, body)

    assert "another host" in target.load(Fault("^GET /api/", edit=redirect(307, "/api/models/owner/name")))
    for status in (301, 302, 303, 307, 308):
        assert target.load(Fault("^(HEAD|GET) /owner.*safetensors", edit=lambda _, h, b, s=status: (s, h, b))) == target.text


@pytest.mark.server
def test_headers_that_change_nothing(target: Target) -> None:
    xet = header("X-Xet-Hash", "0" * 64)
    assert target.load(Fault("^HEAD ", edit=xet)) == target.text
    assert target.load(Fault("", edit=header("Set-Cookie", "a=b"))) == target.text


def test_other_ways_to_the_same_client_are_guarded_too(target: Target, tmp_path: Path, capsys: Any) -> None:
    edit = header("ETag", f'"{target.around / "planted"}"')

    def pull() -> str:
        with pytest.MonkeyPatch.context() as patch:
            return run_command(patch, capsys, "pull", "owner/name", "--out", tmp_path / "mine")[2]

    assert "the header ETag" in " ".join(target.load(Fault("^HEAD .*/resolve/", edit=edit), pull).split())
    assert not (tmp_path / "mine").exists()
    said = target.load(Fault("^HEAD .*/resolve/", edit=edit), lambda: reviewgen.load("owner/name", revision="main"))
    assert "the header ETag" in said
