"""A hostile Hub, mirror or proxy, with the real client: nothing outside of the cache, no token elsewhere, one sentence."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.errors import SourceError
from tests.hostile.hub import HubFuzzer
from tests.hostile.hub_server import COMMIT, Answer, Attack
from tests.support.forked import run_python


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubFuzzer]:
    fuzzer = HubFuzzer()
    fuzzer.prepare(tmp_path_factory.mktemp("hostile"))
    yield fuzzer
    fuzzer.close()


def header(name: str, value: str) -> Callable[[Answer], None]:
    return lambda answer: answer.headers.update({name: value})


def info(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Answer], None]:
    def change_answer(answer: Answer) -> None:
        answer.body = json.dumps(change(json.loads(answer.body))).encode()

    return change_answer


def sibling(number: int, **fields: Any) -> Callable[[Answer], None]:
    def change(facts: dict[str, Any]) -> dict[str, Any]:
        facts["siblings"][number] |= fields
        return facts

    return info(change)


def refused(fuzzer: HubFuzzer, attack: Attack, said: str, **options: Any) -> None:
    outcome = fuzzer.attack([attack], **options)
    assert outcome.verdict == "clean", outcome
    assert said in outcome.detail


@pytest.mark.parametrize("action", ["load", "pull", "revision"])
@pytest.mark.parametrize("name", ["ETag", "X-Linked-Etag", "X-Repo-Commit"])
def test_a_header_that_leads_outside(fuzzer: HubFuzzer, name: str, action: str) -> None:
    for value in (f'"{fuzzer.outside / "planted"}"', '"../../../../../planted"', "W//../../planted", '".."'):
        refused(fuzzer, Attack("escape", "/resolve/", header(name, value)), f"the header {name} is", action=action)


@pytest.mark.parametrize("sha", ["../../../../planted", "main", "", None, 5, COMMIT.upper()])
def test_a_commit_that_is_not_one(fuzzer: HubFuzzer, sha: Any) -> None:
    refused(fuzzer, Attack("sha", "/api/", info(lambda facts: facts | {"sha": sha})), "as a commit")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../evil", "..", "", "C:\\evil", "C:evil", "a\\b", "a\nb", "a\x1b[2J"]
)
def test_a_name_that_leads_outside(fuzzer: HubFuzzer, name: str) -> None:
    change = info(lambda facts: facts | {"siblings": [*facts["siblings"], {"rfilename": name, "size": 1, "blobId": "0" * 40}]})
    refused(fuzzer, Attack("name", "/api/", change), "is not a file inside it")


def test_a_name_in_another_case(fuzzer: HubFuzzer) -> None:
    other = {"rfilename": "Config.json", "size": 1, "blobId": "0" * 40}
    change = info(lambda facts: facts | {"siblings": [*facts["siblings"], other]})
    refused(fuzzer, Attack("name", "/api/", change), "one file on Windows and macOS")


@pytest.mark.parametrize("size", [-1, 1.5, "5", None, 10**30, 2 << 20])
def test_a_size_that_is_not_plausible(fuzzer: HubFuzzer, size: Any) -> None:
    place = list(fuzzer.files).index("config.json")
    refused(fuzzer, Attack("size", "/api/", sibling(place, size=size)), "as the size of config.json")


def test_a_size_that_differs(fuzzer: HubFuzzer) -> None:
    refused(fuzzer, Attack("size", "HEAD .*safetensors", header("X-Linked-Size", "99")), "as the size of a file")


def test_another_digest(fuzzer: HubFuzzer) -> None:
    place = list(fuzzer.files).index("training.json")
    refused(fuzzer, Attack("digest", "/api/", sibling(place, blobId="0" * 40)), "training.json of owner/name was damaged")
    refused(fuzzer, Attack("digest", "/api/", sibling(place, blobId="../" * 13 + "x")), "which is not hexadecimal")


def test_an_api_call_is_not_redirected_to_another_host(fuzzer: HubFuzzer) -> None:
    def change(answer: Answer) -> None:
        answer.status, answer.headers["Location"] = 307, f"{fuzzer.other}/api/models/owner/name"

    refused(fuzzer, Attack("redirect", "^GET /api/", change), "another host")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_file_is_redirected_to_another_host_without_the_token(fuzzer: HubFuzzer, status: int) -> None:
    def change(answer: Answer) -> None:
        name = "config.json"
        answer.headers |= {"X-Linked-Etag": answer.headers["ETag"], "X-Linked-Size": str(len(fuzzer.files[name]))}
        answer.status, answer.headers["Location"] = status, f"{fuzzer.other}/large/{name}"

    outcome = fuzzer.attack([Attack("redirect", "^(HEAD|GET) /owner.*/config.json", change)])
    assert outcome.verdict == "same", outcome


def test_a_location_without_a_redirect(fuzzer: HubFuzzer) -> None:
    outcome = fuzzer.attack([Attack("location", "^HEAD .*/config.json", header("Location", f"{fuzzer.other}/large/config.json"))])
    assert outcome.verdict == "same", outcome


def test_hf_xet_is_not_used(fuzzer: HubFuzzer) -> None:
    def change(answer: Answer) -> None:
        answer.headers |= {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{fuzzer.other}/token"}

    assert fuzzer.attack([Attack("xet", "^HEAD ", change)]).verdict == "same"


def test_bodies_without_end(fuzzer: HubFuzzer) -> None:
    def change(answer: Answer) -> None:
        answer.length, answer.is_endless = None, True

    for pattern in ("/api/", "GET .*config.json", "GET .*safetensors"):
        refused(fuzzer, Attack("endless", pattern, change), "it sends more than")


def test_a_compressed_body(fuzzer: HubFuzzer) -> None:
    refused(fuzzer, Attack("gzip", "GET ", header("Content-Encoding", "gzip")), "a compressed body")


def test_a_cookie_is_forgotten(fuzzer: HubFuzzer) -> None:
    assert fuzzer.attack([Attack("cookie", "", header("Set-Cookie", "\u202eabc"))], then_honest=True).verdict == "same"


@pytest.mark.parametrize("revision", ["../../planted", "a/../b", "/etc/passwd", "a\\b", "C:x"])
def test_a_revision_that_leads_outside(revision: str) -> None:
    with pytest.raises(SourceError, match="is not a revision"):
        reviewgen.load("owner/name", revision=revision)


def test_the_client_of_the_user_is_kept(tmp_path: Path) -> None:
    script = """
import huggingface_hub
from huggingface_hub.utils import _http
from reviewgen import hub_client

made = []
def make():
    made.append(_http.default_client_factory())
    made[-1].headers["X-Own"] = "yes"
    return made[-1]

huggingface_hub.set_client_factory(make)
hub_client.guard_client()
hub_client.guard_client()
client = huggingface_hub.get_session()
assert client is made[-1] and client.headers["X-Own"] == "yes"
assert client.event_hooks["response"] == [hub_client._check_response]
huggingface_hub.set_client_factory(make)
with hub_client.restrict_client():
    assert hub_client._check_response in huggingface_hub.get_session().event_hooks["response"]
    huggingface_hub.close_session()  # as the library does after an error of TLS, before it tries again
    assert hub_client._check_response in huggingface_hub.get_session().event_hooks["response"]
"""
    done = run_python(["-c", script], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
