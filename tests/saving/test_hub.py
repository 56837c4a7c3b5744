"""Models to the Hub and back, with the real client over HTTP against the loopback Hub."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import reviewgen
from reviewgen import ReviewModel
from reviewgen.card import is_written_by_hand, metadata_of
from reviewgen.errors import BundleError, ConfigError, HubError, NotPublished, SourceError
from tests.support.fakes import TEXTS, run_command
from tests.support.loopback_hub import READ_TOKEN, TOKEN, Fault, LoopbackHub
from tests.support.models import NGRAM, SMALL

NAME, KEY = "ana/reviews", ("model", "ana/reviews")


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub({}) as running:
        yield running
        assert [request for request in running.requests if request.status in (501, 502)] == []


@pytest.fixture
def ana(hub: LoopbackHub, tmp_path: Path) -> Iterator[None]:
    """The client of this process has the token of a user."""
    with hub.client(tmp_path / "ana", TOKEN):
        yield


@pytest.fixture
def folder(model_folder: Callable[[str], Path]) -> Path:
    return model_folder("ngram-char")


def push(model: ReviewModel | Path, name: str = NAME, license: str | None = "mit", **options: Any) -> str:
    model = model if isinstance(model, ReviewModel) else reviewgen.load(model)
    return model.push_to_hub(name, license=license, **({"allow": ["copies"]} | options))


def texts_of(source: Any = NAME, **options: Any) -> list[str]:
    return reviewgen.load(source, **options).generate("the ", num_return_sequences=2, seed=5, max_new_tokens=40)


def publish(hub: LoopbackHub, folder: Path, name: str = NAME, gone: str = "", **more: bytes) -> None:
    """Store a model in the Hub directly, without a push."""
    if ("model", name) not in hub.repositories:
        hub.add("model", name)
    files = hub.files("model", name) | {file.name: file.read_bytes() for file in folder.iterdir() if file.name != gone}
    hub.repositories["model", name].commit("main", files | more)


def refuses(error: type[Exception], word: str, call: Callable[[], object]) -> str:
    with pytest.raises(error, match=re.escape(word)) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message and TOKEN not in message
    return message


def log(hub: LoopbackHub) -> list[str]:
    return hub.repositories[KEY].log


# There and back.


def test_a_model_is_unchanged_by_a_push_and_a_pull(hub: LoopbackHub, folder: Path, tmp_path: Path, caplog: Any) -> None:
    texts = texts_of(folder)
    with hub.client(tmp_path / "one", TOKEN):
        address, again = push(folder), push(folder)
    assert address == again == f"{hub.endpoint}/{NAME}/commit/{hub.sha(*KEY)}"
    assert log(hub) == ["main: initial commit", "main: Publish ngram-char with reviewgen"]
    files, own = hub.files(*KEY), {file.name for file in folder.iterdir()}
    assert files.keys() == own | {".gitattributes", "learning_curve.png"} and files["learning_curve.png"][1:4] == b"PNG"
    assert all(files[name] == (folder / name).read_bytes() for name in own - {"README.md"})
    caplog.clear()
    with hub.client(tmp_path / "two"):
        assert texts_of() == texts_of(f"hf://{NAME}") == texts and caplog.messages == []
    since = len(hub.requests)
    with hub.client(tmp_path / "two", offline=True):
        assert texts_of() == texts
    with hub.client(tmp_path / "two"):
        assert texts_of(local_files_only=True) == texts
    assert hub.requests[since:] == []


@pytest.mark.server
def test_revisions_and_pull_requests(hub: LoopbackHub, folder: Path, ana: None) -> None:
    push(folder)
    push(folder, f"{NAME}@v2", commit_message="better")
    pull_request = push(folder, create_pr=True, model_card_kwargs={"language": "en"})
    assert pull_request == f"{hub.endpoint}/{NAME}/discussions/1"
    assert log(hub)[2:] == ["v2: better", "refs/pr/1: Publish ngram-char with reviewgen"]
    assert texts_of(revision="v2") == texts_of(f"{NAME}@refs/pr/1") == texts_of(folder)
    refuses(ConfigError, "opened against main", lambda: push(folder, f"{NAME}@v2", create_pr=True))
    refuses(HubError, "no revision 'v3'", lambda: texts_of(f"{NAME}@v3"))
    refuses(SourceError, "has one revision", lambda: texts_of(f"{NAME}@v2", revision="main"))
    for revision in ("../../planted", "a/../b", "/etc/passwd", "a\\b", "C:x"):
        refuses(SourceError, "is not a revision", lambda revision=revision: texts_of(revision=revision))


@pytest.mark.server
def test_tokens_and_private_repositories(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    with hub.client(tmp_path / "one", TOKEN):
        push(folder, private=True)
    with hub.client(tmp_path / "two"):
        refuses(HubError, "or it is private", texts_of)
        assert texts_of(token=TOKEN) == texts_of(folder)
        refuses(HubError, "log in with", lambda: push(folder, "ana/other"))
    with hub.client(tmp_path / "three", READ_TOKEN):
        refuses(HubError, "the token does not grant access", lambda: push(folder, "ana/other"))
    assert ("model", "ana/other") not in hub.repositories


def test_what_cannot_be_loaded(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder, "ana/damaged", **{"model.safetensors": (folder / "model.safetensors").read_bytes()[:100]})
    publish(hub, folder, "ana/changed", **{"generation_config.json": b"{}"})
    hub.add("model", "ana/foreign")
    hub.repositories["model", "ana/foreign"].commit("main", {"config.json": b'{"model_type": "gpt2"}', "README.md": b"# gpt2"})
    hub.add("model", "ana/empty")
    cases: list[tuple[str, type[Exception], str]] = [
        ("ana/missing", HubError, "no model repository ana/missing"),
        ("lstm-word@v1", HubError, "no model repository reviewgen/lstm-word"),
        ("ana/damaged", BundleError, "damaged"),
        ("ana/changed", BundleError, "reviewgen pull OWNER/NAME --out"),
        ("ana/foreign", BundleError, "keys of config.json"),
        ("ana/empty", HubError, "does not contain a saved model"),
    ]
    with hub.client(tmp_path / "home"):
        for source, error, word in cases:
            refuses(error, word, lambda source=source: reviewgen.load(source))
    with hub.client(tmp_path / "home", offline=True):
        refuses(HubError, "not in the local cache", lambda: reviewgen.load("ana/missing"))


def test_other_files_are_not_downloaded_and_the_card_may_be_missing(
    hub: LoopbackHub, folder: Path, ana: None, caplog: Any
) -> None:
    more = {"pytorch_model.bin": b"\x80\x04", "code.py": b"raise SystemExit(3)\n", "other.json": b"{}", "sub/config.json": b"{}"}
    publish(hub, folder, gone="README.md", **more)
    assert texts_of() == texts_of(folder)
    (note,) = caplog.messages
    assert "ignored" in note and all(name in note for name in more)
    assert not any(name in request.target for request in hub.requests for name in more if "resolve" in request.target)
    from huggingface_hub import snapshot_download

    snapshot_download(NAME)  # another program puts them into the cache
    assert texts_of() == texts_of(folder)


def test_an_edit_on_the_hub_is_taken_into_a_folder(hub: LoopbackHub, folder: Path, tmp_path: Path, capsys: Any) -> None:
    publish(hub, folder, **{"generation_config.json": b'{"temperature": 0.25}'})
    out = tmp_path / "mine"

    def pull(*words: Any) -> tuple[int, str]:
        with hub.client(tmp_path / "home"), pytest.MonkeyPatch.context() as patch:
            status, _, said = run_command(patch, capsys, "pull", NAME, *words)
        return status, said

    status, said = pull("--out", out)
    assert status == 1 and "--accept-changes" in said and not out.exists()
    status, said = pull("--accept-changes")
    assert status == 2 and "--out" in said
    assert pull("--out", out, "--accept-changes")[0] == 0
    assert reviewgen.load(out).generation_config.temperature == 0.25


# What goes wrong on the way.


def test_files_that_are_damaged_in_transfer_are_downloaded_again(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder)
    for number, pattern in enumerate(("lfs-objects", "resolve/.*/(training|generation_config).json")):
        with hub.client(tmp_path / str(number)):
            hub.faults = [Fault(f"^GET .*{pattern}", flips=True, times=2)]
            message = refuses(HubError, "damaged in transfer", texts_of)
            assert len(message.split(" of ana")[0].split(", ")) == 2
            refuses(HubError, "not in the local cache", lambda: texts_of(local_files_only=True))
            assert texts_of() == texts_of(folder)


def test_an_interrupted_download_is_resumed(hub: LoopbackHub, folder: Path, ana: None) -> None:
    publish(hub, folder)
    hub.faults = [Fault("^GET .*lfs-objects", kept=0.5, times=1)]
    assert texts_of() == texts_of(folder) and hub.faults[0].times == 0


@pytest.mark.server
def test_a_failed_download_of_a_newer_commit_keeps_the_older_one(
    hub: LoopbackHub, folder: Path, model_folder: Callable[[str], Path], ana: None, caplog: Any
) -> None:
    publish(hub, folder)
    before = texts_of()
    publish(hub, model_folder("exact"))
    hub.faults = [Fault("^GET .*(lfs-objects|model.safetensors)", status=403)]
    refuses(HubError, "could not be downloaded", texts_of)
    assert texts_of(local_files_only=True) == before
    hub.faults = [Fault("^GET .*/api/models", status=400)]
    caplog.clear()
    assert texts_of() == before and "the cached version is used" in caplog.messages[0]
    refuses(HubError, "could not be downloaded", lambda: texts_of(force_download=True))
    hub.faults.clear()
    assert reviewgen.load(NAME).bundle.index.form == "exact"


@pytest.mark.server
@pytest.mark.parametrize("pattern", ["^PUT .*upload", "^POST .*/commit/", "^POST .*lfs-verify"])
def test_an_upload_that_breaks_leaves_no_half_model_and_is_repeated(
    hub: LoopbackHub, folder: Path, ana: None, pattern: str
) -> None:
    hub.faults = [Fault(pattern, status=400, times=1)]
    refuses(HubError, "could not be published", lambda: push(folder))
    assert "/commit/" in push(folder)
    assert log(hub) == ["main: initial commit", "main: Publish ngram-char with reviewgen"]  # one commit, the whole one
    put = [request.target for request in hub.requests if request.method == "PUT" and request.status == 200]
    assert len(put) == len(set(put))  # uploaded files are not sent again


@pytest.mark.server
def test_a_commit_by_another_user_in_the_meantime_is_not_overwritten(hub: LoopbackHub, folder: Path, ana: None) -> None:
    publish(hub, folder)
    theirs = hub.files(*KEY) | {"notes.txt": b"by hand"}
    hub.faults = [Fault("^POST /api/repos/create", act=lambda: hub.repositories[KEY].commit("main", theirs))]
    refuses(HubError, "could not be published", lambda: push(folder))
    assert hub.files(*KEY) == theirs


# What is published.


@pytest.mark.server
def test_a_model_replaces_all_files_of_an_older_one(
    hub: LoopbackHub, folder: Path, model_folder: Callable[[str], Path], ana: None, caplog: Any
) -> None:
    publish(hub, folder)
    everything = ["copies", "email", "url", "phone", "handle"]
    push(model_folder("ngram-word"), allow=everything)
    files = hub.files(*KEY)
    assert "characters.json" not in files and "tokenizer.json" in files
    caplog.clear()
    assert reviewgen.load(NAME).preset == "ngram-word" and caplog.messages == []
    push(folder, ignore_patterns="novelty*")
    files = hub.files(*KEY)
    assert "tokenizer.json" not in files and "novelty.safetensors" not in files and reviewgen.load(NAME).bundle.index is None
    listed = {name: entry["sha256"] for name, entry in json.loads(files["manifest.json"])["files"].items()}
    kept = files.keys() - {"README.md", "manifest.json", "learning_curve.png", ".gitattributes"}
    assert listed == {name: hashlib.sha256(files[name]).hexdigest() for name in kept}
    hub.repositories[KEY].commit("main", files | {"notes.txt": b"", "more.md": b""})
    push(folder, delete_patterns="*.txt")
    assert "notes.txt" not in hub.files(*KEY) and "more.md" in hub.files(*KEY)
    patterns: list[tuple[dict[str, Any], str]] = [
        ({"allow_patterns": "*.json"}, "leave out README.md, model.safetensors"),
        ({"ignore_patterns": ["model*"]}, "leave out model.safetensors"),
        ({"ignore_patterns": "README.md"}, "leave out README.md"),
        ({"allow_patterns": 5}, "File patterns"),
    ]
    for options, word in patterns:
        refuses(ConfigError, word, lambda options=options: push(folder, **options))


@pytest.mark.server
def test_the_card_has_the_facts_and_one_by_hand_is_kept(hub: LoopbackHub, folder: Path, ana: None, caplog: Any) -> None:
    push(folder, model_card_kwargs={"language": ["en", "fr"], "tags": ["film"]})
    card = hub.files(*KEY)["README.md"].decode()
    block, training = yaml.safe_load(card.split("---\n")[1]), json.loads((folder / "training.json").read_text())
    assert (block["license"], block["language"], block["library_name"]) == ("mit", ["en", "fr"], "reviewgen")
    assert block["pipeline_tag"] == "text-generation" and block["tags"] == ["reviewgen", "ngram", "film"]
    metrics = {m["type"]: m["value"] for result in block["model-index"][0]["results"] for m in result["metrics"]}
    assert metrics["bits_per_character"] == round(training["held_out"]["bits_per_character"], 4)
    for word in (f"reviewgen.load('{NAME}')", "![Bits", "Temperature 0.5:", "Temperature 1:", "`order=4`", "Hardware: "):
        assert word in card, word
    push(folder, license="apache-2.0")  # a generated card is written again, with the earlier metadata
    again = yaml.safe_load(hub.files(*KEY)["README.md"].decode().split("---\n")[1])
    assert (again["license"], again["language"], again["tags"]) == ("apache-2.0", ["en", "fr"], block["tags"])
    by_hand = b"---\nlicense: mit\n---\n# Mine\n"
    hub.repositories[KEY].commit("main", hub.files(*KEY) | {"README.md": by_hand})
    push(folder, license=None)
    push(folder, f"{NAME}@v2", license=None)  # a new branch has the card of main
    assert hub.files(*KEY)["README.md"] == hub.files(*KEY, "v2")["README.md"] == by_hand
    refuses(ConfigError, "'mit', not 'gpl-3.0'", lambda: push(folder, license="gpl-3.0"))
    refuses(HubError, "exists and is public", lambda: push(folder, private=True))


def test_a_card_of_an_earlier_version_counts_as_generated() -> None:
    """The last line of a card is a saved format: its words and its digest do not change."""
    body = "---\nlicense: mit\ntags:\n- reviewgen\n- gru\n- film\n---\n\n# gru-char\n\nA small gru language model.\n"
    card = f"{body}<!-- written by reviewgen from what it recorded; bd52ebe33dc2cfc8 -->\n"
    assert not is_written_by_hand(card) and metadata_of(card) == {"license": "mit", "tags": ["film"]}
    assert is_written_by_hand(card.replace("small", "tiny"))


@pytest.mark.server
def test_an_edited_card_in_the_folder_gets_the_license(hub: LoopbackHub, folder: Path, tmp_path: Path, ana: None) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "edited"))
    (copy / "README.md").write_text("# Reviews of Ana's\n", encoding="utf-8")
    push(copy)
    published = hub.files(*KEY)["README.md"].decode()
    assert "# Reviews of Ana's" in published and yaml.safe_load(published.split("---\n")[1])["license"] == "mit"


@pytest.mark.server
def test_personal_data_and_the_whole_text_are_published_only_if_allowed(
    hub: LoopbackHub, model_folder: Callable[[str], Path], ana: None
) -> None:
    texts = [f"The {noun} was {kind}, write to ana@example.org" for noun in ("food", "band") for kind in ("good", "bad", "so")]
    model = reviewgen.train("ngram-char", texts, **NGRAM)
    message = refuses(NotPublished, "e-mail addresses in ", lambda: push(model, allow=[], copy_limit=0))
    assert "'ana@example.org'" in message and "windows of its texts are copied, which is more than 0%" in message
    assert "--allow email,url," in message
    refuses(NotPublished, "no license is named", lambda: push(model, license=None))
    known = ["email", "url", "handle", "copies"]
    address = push(model, allow=known)
    assert push(model, license=None, allow=known) == address  # the existing card names one
    refuses(NotPublished, "web addresses in ", lambda: push(model, allow=["email"]))
    assert len(log(hub)) == 2
    refuses(NotPublished, "contains the whole training text", lambda: push(model_folder("exact"), "ana/exact"))
    assert "/commit/" in push(model_folder("exact"), "ana/exact", allow=["copies", "text"])


@pytest.mark.server
def test_generation_defaults_do_not_change_what_is_scanned(
    hub: LoopbackHub, folder: Path, tmp_path: Path, ana: None, caplog: Any
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    (copy / "manifest.json").unlink()  # an edit on purpose
    for defaults in ({"max_time": 1e-6, "do_sample": False}, {"max_new_tokens": 1, "num_beams": 3}):
        (copy / "generation_config.json").write_text(json.dumps(defaults))
        with caplog.at_level("INFO", "reviewgen"):
            caplog.clear()
            push(copy)
        assert any("Scanned 203 samples" in note and "a token copy rate of" in note for note in caplog.messages)


@pytest.mark.server
def test_paths_of_this_machine_are_not_published(hub: LoopbackHub, tmp_path: Path, ana: None, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "secret client" / "reviews.txt"
    data.parent.mkdir()
    data.write_text("".join(f"{text}\n" for text in TEXTS))
    everything = ["copies", "email", "handle", "phone", "url"]
    parent = data.parent / "parent"
    reviewgen.train("gru-char", "secret client/reviews.txt", out=parent, **SMALL)
    child = reviewgen.train(reviewgen.load(parent), str(data), steps=2)
    for name, model in (("ana/parent", reviewgen.load(parent)), ("ana/child", child)):
        push(model, name, allow=everything)
        assert not [file for file, content in hub.files("model", name).items() if b"secret client" in content]
        assert b"reviews.txt" in hub.files("model", name)["training.json"]
    push(reviewgen.train(reviewgen.load("ana/child"), TEXTS, steps=2), "ana/grandchild", allow=everything)
    assert b"`hf://ana/child`" in hub.files("model", "ana/grandchild")["README.md"]


@pytest.mark.server
def test_the_commands(hub: LoopbackHub, folder: Path, tmp_path: Path, capsys: Any) -> None:
    def run(*words: Any, status: int = 0) -> tuple[str, str]:
        with hub.client(tmp_path / "home", TOKEN), pytest.MonkeyPatch.context() as patch:
            got, out, said = run_command(patch, capsys, *words)
        assert got == status, said
        return out, said

    assert "no license is named" in run("push", folder, NAME, status=1)[1]
    out, said = run("push", folder, NAME, "--license", "mit", "--language", "en", "--allow", "copies", "-m", "first")
    assert out == f"Published: {hub.endpoint}/{NAME}/commit/{hub.sha(*KEY)}\n" and "a check, not a guarantee" in said
    assert log(hub)[-1] == "main: first"
    mine = tmp_path / "mine"
    facts = json.loads(run("pull", NAME, "--out", mine, "--json")[0])
    assert (facts["preset"], facts["folder"]) == ("ngram-char", str(mine))
    assert (mine / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert "bits per character" in run("pull", NAME)[0]
    assert "already exists" in run("pull", NAME, "--out", mine, status=1)[1]
    for words in (("pull", "no-such"), ("push", folder, "reviews")):
        assert "owner/name" in run(*words, status=2)[1]
    assert "not a kind of finding" in run("push", folder, NAME, "--allow", "mail", status=2)[1]
    assert run("generate", NAME, "--seed", "1")[0] == run("generate", folder, "--seed", "1")[0]
