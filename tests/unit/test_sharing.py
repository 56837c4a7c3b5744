"""Models to the Hub and back, with the real client over HTTP against the loopback Hub, each client in its own process."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import reviewgen
from reviewgen import ReviewModel
from reviewgen.card import is_written_by_hand, metadata_of
from tests.support.fakes import GRU, NGRAM, train_tiny
from tests.support.forked import run_python
from tests.support.loopback_hub import READ_TOKEN, TOKEN, Fault, LoopbackHub

LOAD = "model = reviewgen.load({folder!r})"
PUSH = "model.push_to_hub('ana/reviews', license='mit', allow=['copies'])"
TEXTS = "reviewgen.load('ana/reviews').generate('the ', num_return_sequences=3, seed=5)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a saved n-gram."""
    root = tmp_path_factory.mktemp("saved")
    model = train_tiny("ngram-char", root / "cache", **NGRAM)
    model.save_pretrained(root / "model")
    return root / "model"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub({}) as running:
        yield running
        assert [request for request in running.requests if request.status in (501, 502)] == []


def ask(hub: LoopbackHub, home: Path, *steps: str, token: str | None = TOKEN, **variables: str) -> list[Any]:
    """Run statements and expressions in a subprocess; return each value, or the class and message of its error."""
    home.mkdir(exist_ok=True, parents=True)
    script = f"""
import json, logging, reviewgen
notes = []
handler = logging.Handler()
handler.emit = lambda record: notes.append(record.getMessage())
logging.getLogger("reviewgen").addHandler(handler)
logging.getLogger("reviewgen").setLevel(logging.INFO)
found = []
for step in {list(steps)!r}:
    try:
        found.append(eval(step))
    except SyntaxError:
        exec(step)
    except reviewgen.ReviewgenError as error:
        found.append([type(error).__name__, str(error)])
print(json.dumps(found))
"""
    environment = hub.environment(home, token) | {"REVIEWGEN_CACHE": str(home / "tokens")} | variables
    done = run_python(["-c", script], env=environment, cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def log(hub: LoopbackHub) -> list[str]:
    return hub.repositories["model", "ana/reviews"].log


def refused(answer: Any, error: str, said: str) -> None:
    """Check that an answer is an error whose message is one line."""
    assert isinstance(answer, list) and answer[0] == error, answer
    assert said in answer[1] and "\n" not in answer[1] and "Traceback" not in answer[1], answer[1]


def test_a_model_is_unchanged_by_a_push_and_a_pull(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    load = LOAD.format(folder=str(folder))
    address, again, texts = ask(hub, tmp_path / "one", load, PUSH, PUSH, "model.generate('the ', num_return_sequences=3, seed=5)")
    assert address == again == f"{hub.endpoint}/ana/reviews/commit/{hub.sha('model', 'ana/reviews')}"
    assert log(hub) == ["main: initial commit", "main: Publish ngram-char with reviewgen"]
    files = hub.files("model", "ana/reviews")
    own = {file.name for file in folder.iterdir()}
    assert files.keys() == own | {".gitattributes", "learning_curve.png"}
    same = own - {"README.md"}
    assert {name: files[name] for name in same} == {name: (folder / name).read_bytes() for name in same}
    assert files["learning_curve.png"].startswith(b"\x89PNG")
    fetched, once_more, notes = ask(hub, tmp_path / "two", TEXTS, TEXTS, "notes", token=None)
    assert fetched == once_more == texts
    assert notes == []
    since = len(hub.requests)
    assert ask(hub, tmp_path / "two", TEXTS, token=None, HF_HUB_OFFLINE="1") == [texts]
    local = "reviewgen.load('ana/reviews', local_files_only=True).generate('the ', num_return_sequences=3, seed=5)"
    assert ask(hub, tmp_path / "two", local, token=None) == [texts]
    assert [request for request in hub.requests[since:] if "agent" not in request.target] == []


def test_progress_is_told_in_bytes(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    ask(hub, tmp_path / "one", LOAD.format(folder=str(folder)), PUSH)
    pull = "__import__('reviewgen.hub.pull').hub.pull.pull('ana/reviews', progress=arrived.append)"
    facts, arrived = ask(hub, tmp_path / "two", "arrived = []", pull, "arrived", token=None)[-2:]
    assert len(arrived) > 5 and sum(arrived) == sum(file.stat().st_size for file in Path(facts["folder"]).iterdir())


def test_revisions_and_pull_requests(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    steps = (
        PUSH,
        "model.push_to_hub('ana/reviews@v2', license='mit', allow=['copies'], commit_message='better')",
        "model.push_to_hub('ana/reviews', license='mit', allow=['copies'], create_pr=True, model_card_kwargs={'language': 'en'})",
        "model.push_to_hub('ana/reviews@v2', license='mit', create_pr=True)",
        "reviewgen.load('ana/reviews', revision='v2').preset",
        "reviewgen.ReviewModel.from_pretrained('ana/reviews', revision='refs/pr/1').preset",
        "reviewgen.load('ana/reviews@v3')",
        "reviewgen.load('ana/reviews@v2', revision='main')",
    )
    answers = ask(hub, tmp_path / "home", LOAD.format(folder=str(folder)), *steps)
    assert log(hub)[2:] == ["v2: better", "refs/pr/1: Publish ngram-char with reviewgen"]
    assert answers[2] == f"{hub.endpoint}/ana/reviews/discussions/1"
    refused(answers[3], "ConfigError", "opened against main")
    assert answers[4:6] == ["ngram-char", "ngram-char"]
    refused(answers[6], "HubError", "no revision 'v3'")
    refused(answers[7], "SourceError", "has one revision")


def test_permissions(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    private = "model.push_to_hub('ana/reviews', license='mit', allow=['copies'], private=True)"
    assert "commit" in ask(hub, tmp_path / "one", LOAD.format(folder=str(folder)), private)[0]
    refused(ask(hub, tmp_path / "two", "reviewgen.load('ana/reviews')", token=None)[0], "HubError", "or it is private")
    by_token = f"reviewgen.load('ana/reviews', token={TOKEN!r}).preset"
    assert ask(hub, tmp_path / "two", by_token, token=None) == ["ngram-char"]
    load, other = LOAD.format(folder=str(folder)), PUSH.replace("ana/reviews", "ana/other")
    refused(ask(hub, tmp_path / "three", load, other, token=READ_TOKEN)[0], "HubError", "the token does not grant access")
    refused(ask(hub, tmp_path / "four", load, other, token=None)[0], "HubError", "log in with")
    assert ("model", "ana/other") not in hub.repositories


@pytest.mark.parametrize(
    ("source", "variables", "said"),
    [
        ("ana/missing", {}, "no model repository ana/missing"),
        ("ana/missing", {"HF_HUB_OFFLINE": "1"}, "not in the local cache"),
        ("ana/missing", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "not in the local cache"),
        ("lstm-word@v1", {}, "no model repository reviewgen/lstm-word"),
    ],
)
def test_missing_repositories(hub: LoopbackHub, tmp_path: Path, source: str, variables: dict[str, str], said: str) -> None:
    refused(ask(hub, tmp_path, f"reviewgen.load({source!r})", **variables)[0], "HubError", said)


def publish(hub: LoopbackHub, folder: Path, repository: str = "ana/reviews") -> None:
    """Store a model in the Hub directly, without a push."""
    hub.add("model", repository)
    files = hub.files("model", repository) | {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.repositories["model", repository].commit("main", files)


@pytest.mark.parametrize("pattern", ["lfs-objects", "resolve/.*/(training|generation_config).json"])
def test_files_damaged_in_transfer_are_downloaded_again(hub: LoopbackHub, folder: Path, tmp_path: Path, pattern: str) -> None:
    publish(hub, folder)
    hub.faults.append(Fault(f"^GET .*{pattern}", flips=True, times=2))
    damaged, offline, whole = ask(hub, tmp_path, TEXTS, TEXTS.replace("')", "', local_files_only=True)", 1), TEXTS)
    refused(damaged, "HubError", "damaged in transfer")
    assert len(damaged[1].split(" of ana")[0].split(", ")) == 2
    refused(offline, "HubError", "not in the local cache")
    assert len(whole) == 3


def test_a_failed_download_of_a_newer_commit_keeps_the_older_one(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder)
    before = ask(hub, tmp_path, TEXTS)
    newer = train_tiny("ngram-char", tmp_path / "cache", ["quite another text", "and one more"], **NGRAM)
    newer.save_pretrained(tmp_path / "newer")
    publish(hub, tmp_path / "newer")
    hub.faults.append(Fault("^GET .*(lfs-objects|model.safetensors)", status=403))
    refused(ask(hub, tmp_path, TEXTS)[0], "HubError", "could not be downloaded")
    assert ask(hub, tmp_path, TEXTS, HF_HUB_OFFLINE="1") == before
    hub.faults[:] = [Fault("^GET .*/api/models", status=500)]
    answers = ask(hub, tmp_path, TEXTS, "notes", TEXTS.replace("')", "', force_download=True)", 1))
    assert answers[0] == before[0] and "the cached version is used" in answers[1][0]
    refused(answers[2], "HubError", "could not be downloaded")
    hub.faults.clear()
    assert ask(hub, tmp_path, TEXTS) != before


def test_interrupted_downloads_are_resumed(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder)
    hub.faults += [Fault("^GET .*lfs-objects", kept=0.5, times=1), Fault("^GET .*tokenizer|characters", seconds=2.0, times=1)]
    assert len(ask(hub, tmp_path / "one", TEXTS)[0]) == 3
    assert [fault.times for fault in hub.faults] == [0, 0]
    hub.faults.append(Fault("^(GET|HEAD) .*resolve|/api/models", status=400))
    refused(ask(hub, tmp_path / "two", TEXTS)[0], "HubError", "could not be downloaded from the Hub")
    hub.faults.clear()
    assert len(ask(hub, tmp_path / "two", TEXTS)[0]) == 3


@pytest.mark.parametrize("pattern", ["^PUT .*upload", "^POST .*/commit/", "^POST .*lfs-verify"])
def test_an_upload_that_breaks_leaves_no_half_model_and_is_repeated(
    hub: LoopbackHub, folder: Path, tmp_path: Path, pattern: str
) -> None:
    hub.faults.append(Fault(pattern, status=400, times=1))
    load = LOAD.format(folder=str(folder))
    broken, states, whole = ask(hub, tmp_path / "one", load, PUSH, "1", PUSH)
    refused(broken, "HubError", "ana/reviews could not be published")
    assert states == 1
    assert "/commit/" in whole
    assert log(hub) == ["main: initial commit", "main: Publish ngram-char with reviewgen"]  # one commit, the whole one
    put = [request for request in hub.requests if request.method == "PUT" and request.status == 200]
    assert len(put) == len({request.target for request in put})  # uploaded files are not sent again


def test_other_files_of_a_repository_are_named_and_not_downloaded(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder)
    more = {"pytorch_model.bin": b"\x80\x04", "code.py": b"raise SystemExit(3)\n", "other.json": b"{}", "sub/config.json": b"{}"}
    hub.repositories["model", "ana/reviews"].commit("main", hub.files("model", "ana/reviews") | more)
    texts, notes = ask(hub, tmp_path, TEXTS, "notes")
    assert len(texts) == 3
    (note,) = notes
    assert all(name in note for name in more) and "ignored" in note
    assert not any(name in request.target for request in hub.requests for name in more if "resolve" in request.target)
    # files that another program downloaded into the cache are ignored too
    script = "from huggingface_hub import snapshot_download; snapshot_download('ana/reviews')"
    assert len(ask(hub, tmp_path, script, TEXTS)[0]) == 3


def test_a_newer_model_replaces_all_files_of_an_older_one(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder)
    bare = train_tiny("ngram-char", tmp_path / "cache", **(NGRAM | {"training": {"novelty": "none"}}))
    bare.save_pretrained(tmp_path / "bare")
    answers = ask(hub, tmp_path / "one", LOAD.format(folder=str(tmp_path / "bare")), PUSH, TEXTS)
    assert "novelty.safetensors" not in hub.files("model", "ana/reviews")
    assert len(answers[1]) == 3


def test_the_card_has_the_facts_and_one_by_hand_is_kept(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    load = LOAD.format(folder=str(folder))
    metadata = "model_card_kwargs={'language': ['en', 'fr'], 'tags': ['film']}"
    ask(hub, tmp_path / "one", load, PUSH.replace("allow", f"{metadata}, allow"))
    card = hub.files("model", "ana/reviews")["README.md"].decode()
    block = yaml.safe_load(card.split("---\n")[1])
    training = json.loads((folder / "training.json").read_text())
    assert block["license"] == "mit" and block["language"] == ["en", "fr"] and block["library_name"] == "reviewgen"
    assert block["pipeline_tag"] == "text-generation" and block["tags"] == ["reviewgen", "ngram", "film"]
    metrics = {m["type"]: m["value"] for result in block["model-index"][0]["results"] for m in result["metrics"]}
    assert metrics["bits_per_character"] == round(training["held_out"]["bits_per_character"], 4)
    assert metrics["copy_rate"] == round(training["novelty"]["copy_rate"], 4)
    for said in ("reviewgen.load('ana/reviews')", "![Bits", "Temperature 0.5:", "Temperature 1:", "`order=4`", "Hardware: "):
        assert said in card, said
    # it is generated again with the earlier metadata and a new license
    ask(hub, tmp_path / "one", load, PUSH.replace("'mit'", "'apache-2.0'"))
    again = yaml.safe_load(hub.files("model", "ana/reviews")["README.md"].decode().split("---\n")[1])
    assert again["license"] == "apache-2.0" and again["language"] == ["en", "fr"] and again["tags"] == block["tags"]
    # a user edits it on the Hub
    files = hub.files("model", "ana/reviews")
    by_hand = "---\nlicense: mit\n---\n# Mine\n"
    hub.repositories["model", "ana/reviews"].commit("main", files | {"README.md": by_hand.encode()})
    push = "model.push_to_hub('ana/reviews', allow=['copies'])"
    kept, other = ask(hub, tmp_path / "one", load, push, PUSH.replace("'mit'", "'gpl-3.0'"))
    assert "commit" in kept
    assert hub.files("model", "ana/reviews")["README.md"].decode() == by_hand
    refused(other, "ConfigError", "it names the license 'mit', not 'gpl-3.0'")


def test_a_card_of_an_earlier_version_counts_as_generated() -> None:
    """The last line of a card is a saved format: its words and its digest do not change."""
    body = "---\nlicense: mit\ntags:\n- reviewgen\n- gru\n- film\n---\n\n# gru-char\n\nA small gru language model.\n"
    card = f"{body}<!-- written by reviewgen from what it recorded; bd52ebe33dc2cfc8 -->\n"
    assert not is_written_by_hand(card) and metadata_of(card) == {"license": "mit", "tags": ["film"]}
    assert is_written_by_hand(card.replace("small", "tiny"))


def test_an_edited_card_in_the_folder_is_kept_and_gets_the_license(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    ReviewModel.from_pretrained(folder).save_pretrained(tmp_path / "edited")
    card = (tmp_path / "edited" / "README.md").read_text(encoding="utf-8").replace("# ngram-char", "# Reviews of Ana's")
    (tmp_path / "edited" / "README.md").write_text(card, encoding="utf-8")
    answers = ask(hub, tmp_path / "one", LOAD.format(folder=str(tmp_path / "edited")), PUSH, "notes")
    published = hub.files("model", "ana/reviews")["README.md"].decode()
    assert "# Reviews of Ana's" in published and yaml.safe_load(published.split("---\n")[1])["license"] == "mit"
    assert any("kept as it is" in note for note in answers[1])


def test_a_model_that_generates_addresses_is_published_only_if_allowed(hub: LoopbackHub, tmp_path: Path) -> None:
    texts = [f"The {noun} was {kind}, write to ana@example.org" for noun in ("food", "band") for kind in ("good", "bad", "so")]
    train_tiny("ngram-char", tmp_path / "cache", texts, out=tmp_path / "model", **NGRAM)
    known = "allow=['email', 'url', 'handle', 'copies'{}]"
    pushes = ("license='mit', copy_limit=0", "license='mit', " + known.format(""), known.format(", 'license'"), "allow=['email']")
    steps = [f"model.push_to_hub('ana/reviews', {arguments})" for arguments in pushes]
    found, allowed, unlicensed, none = ask(hub, tmp_path / "one", LOAD.format(folder=str(tmp_path / "model")), *steps)
    refused(found, "NotPublished", "e-mail addresses in ")
    assert "as in 'ana@example.org'" in found[1] and "windows of its texts are copied, which is more than 0%" in found[1]
    assert "--allow email,url," in found[1] and "copies (allow=['email', 'url'," in found[1]
    assert "/commit/" in allowed
    assert unlicensed == allowed  # the existing card names one
    refused(none, "NotPublished", "web addresses in ")
    assert len(log(hub)) == 2


def test_an_index_with_the_text_is_published_only_if_allowed(hub: LoopbackHub, tmp_path: Path) -> None:
    train_tiny("ngram-char", tmp_path / "cache", out=tmp_path / "model", **(NGRAM | {"training": {"novelty": "exact"}}))
    steps = [PUSH, PUSH.replace("['copies']", "['copies', 'text']")]
    found, allowed = ask(hub, tmp_path / "one", LOAD.format(folder=str(tmp_path / "model")), *steps)
    refused(found, "NotPublished", "novelty.safetensors contains the whole training text")
    assert "--allow text " in found[1] and "/commit/" in allowed


@pytest.mark.parametrize("defaults", [{"max_time": 1e-6}, {"max_new_tokens": 1}, {"do_sample": False}, {"num_beams": 3}])
def test_generation_defaults_do_not_change_what_is_scanned(
    hub: LoopbackHub, folder: Path, tmp_path: Path, defaults: dict[str, Any]
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(defaults))
    (tmp_path / "model" / "manifest.json").unlink()  # an edit on purpose
    answer, notes = ask(hub, tmp_path / "one", LOAD.format(folder=str(tmp_path / "model")), PUSH, "notes")
    assert "/commit/" in answer
    assert any("Scanned 203 samples" in note and "a token copy rate of" in note for note in notes)


def test_a_commit_by_another_user_in_the_meantime_is_not_overwritten(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder)
    script = """
import reviewgen.hub.publish as sharing
generate = sharing._generate
def generate_while_another_user_commits(*args):
    from huggingface_hub import HfApi
    HfApi().upload_file(repo_id="ana/reviews", path_or_fileobj=b"by hand", path_in_repo="notes.txt")
    return generate(*args)
sharing._generate = generate_while_another_user_commits
"""
    answers = ask(hub, tmp_path / "one", LOAD.format(folder=str(folder)), script, PUSH)
    refused(answers[0], "HubError", "could not be published")
    assert "notes.txt" in hub.files("model", "ana/reviews") and len(log(hub)) == 3


def test_a_new_branch_keeps_the_card_of_main_and_a_public_one_is_not_private(
    hub: LoopbackHub, folder: Path, tmp_path: Path
) -> None:
    publish(hub, folder)
    by_hand = b"---\nlicense: mit\n---\n# Mine\n"
    hub.repositories["model", "ana/reviews"].commit("main", hub.files("model", "ana/reviews") | {"README.md": by_hand})
    steps = (PUSH.replace("reviews'", "reviews@v2'"), PUSH.replace("allow", "private=True, allow"))
    branch, private = ask(hub, tmp_path / "one", LOAD.format(folder=str(folder)), *steps)
    assert "/commit/" in branch and hub.files("model", "ana/reviews", "v2")["README.md"] == by_hand
    refused(private, "HubError", "exists and is public")


def test_patterns_cannot_leave_out_files_of_the_model(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    pushes = ("allow_patterns='*.json', ", "ignore_patterns=['model*'], ", "allow_patterns=5, ", "ignore_patterns='novelty*', ")
    steps = [PUSH.replace("allow=", f"{each}allow=") for each in pushes]
    torn, without, odd, fine = ask(hub, tmp_path / "one", LOAD.format(folder=str(folder)), *steps)
    refused(torn, "ConfigError", "leave out README.md, model.safetensors: all files of a model must be published together")
    refused(without, "ConfigError", "leave out model.safetensors")
    refused(odd, "ConfigError", "File patterns must be a string")
    assert "/commit/" in fine and "novelty.safetensors" not in hub.files("model", "ana/reviews")
    files = hub.files("model", "ana/reviews")
    listed = {name: entry["sha256"] for name, entry in json.loads(files["manifest.json"])["files"].items()}
    kept = files.keys() - {"README.md", "manifest.json", "learning_curve.png", ".gitattributes"}
    assert listed == {name: hashlib.sha256(files[name]).hexdigest() for name in kept}
    more = {"notes.txt": b"", "more.md": b""}
    hub.repositories["model", "ana/reviews"].commit("main", hub.files("model", "ana/reviews") | more)
    steps = [PUSH.replace("allow=", f"{each}, allow=") for each in ("ignore_patterns='README.md'", "delete_patterns='*.txt'")]
    without, deleted = ask(hub, tmp_path / "one", LOAD.format(folder=str(folder)), *steps)
    refused(without, "ConfigError", "leave out README.md")
    files = hub.files("model", "ana/reviews")
    assert "/commit/" in deleted and "notes.txt" not in files and {"more.md", "novelty.safetensors"} <= files.keys()


def test_another_model_replaces_all_files_of_the_first(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder)
    words = {"model": {"order": 2}, "tokenizer": {"vocab_size": 300}, "steps": 1}
    train_tiny("ngram-word", tmp_path / "cache", out=tmp_path / "words", **words)
    answers = ask(hub, tmp_path / "one", LOAD.format(folder=str(tmp_path / "words")), PUSH, TEXTS, "notes")
    assert "characters.json" not in hub.files("model", "ana/reviews") and "tokenizer.json" in hub.files("model", "ana/reviews")
    assert len(answers[1]) == 3 and not any("ignored" in note for note in answers[2])


def test_a_third_party_s_config_is_not_shown_as_advice(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for number, model in enumerate(
        (
            {"name": "unknown", "distribution": "x --index-url http://evil ; sh\n\x1b[31m"},
            {"name": "unknown", "distribution": "reviewgen-other", "version": "1.2"},
        )
    ):
        changed = json.dumps(config | {"model": config["model"] | model}).encode()
        publish(hub, folder, f"ana/m{number}")
        files = hub.files("model", f"ana/m{number}")
        hub.repositories["model", f"ana/m{number}"].commit("main", files | {"config.json": changed})
    hostile, missing = ask(hub, tmp_path, "reviewgen.load('ana/m0')", "reviewgen.load('ana/m1')")
    refused(hostile, "BundleError", "of a package whose name or version is not valid")
    assert "evil" not in hostile[1]
    refused(missing, "UnknownPlugin", "pip install reviewgen-other")


def test_the_path_of_a_parent_is_not_published_and_its_repository_is(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    parent = tmp_path / "secret client" / "parent"
    train_tiny("gru-char", tmp_path / "cache", out=parent, **GRU)
    train_tiny(reviewgen.load(parent), tmp_path / "cache", out=tmp_path / "child", steps=3, training=GRU["training"])
    push = PUSH.replace("'copies'", "'copies', 'email', 'handle', 'phone', 'url'")  # three steps make no English
    first, second, card = ask(
        hub,
        tmp_path / "one",
        LOAD.format(folder=str(tmp_path / "child")),
        push,
        "grandchild = reviewgen.train(reviewgen.load('ana/reviews'), ['a text', 'another', 'a third'] * 9, steps=2)",
        push.replace("model.", "grandchild.").replace("ana/reviews", "ana/grandchild"),
        "open(__import__('huggingface_hub').hf_hub_download('ana/grandchild', 'README.md')).read()",
    )
    assert "/commit/" in first and "/commit/" in second
    published = hub.files("model", "ana/reviews") | {"more": card.encode()}
    assert not any(b"secret client" in data for data in published.values())
    assert "`hf://ana/reviews`" in card


@pytest.mark.parametrize("source", ["{root}/secret client/reviews.txt", "secret client/reviews.txt"])
def test_local_paths_are_not_published(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    texts = tmp_path / "secret client" / "reviews.txt"
    texts.parent.mkdir()
    texts.write_text("".join(f"The {noun} was {kind}.\n" for noun in ("food", "band", "film") for kind in ("good", "bad", "so")))
    reviewgen.train("ngram-char", source.format(root=tmp_path), out=tmp_path / "model", model={"order": 4}, steps=1)
    steps = (LOAD.format(folder=str(tmp_path / "model")), PUSH)
    assert "commit" in ask(hub, tmp_path / "one", *steps)[0]
    assert not any(b"secret client" in data for data in hub.files("model", "ana/reviews").values())
    assert b"reviews.txt" in hub.files("model", "ana/reviews")["training.json"]


def test_the_commands(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    def run(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = run_python(["-m", "reviewgen", *words], env=hub.environment(tmp_path / "home", TOKEN), cwd=tmp_path)
        assert done.returncode == status, done.stderr
        return done

    assert "no license is named" in run("push", str(folder), "ana/reviews", status=1).stderr
    pushed = run("push", str(folder), "ana/reviews", "--license", "mit", "--language", "en", "--allow", "copies", "-m", "first")
    assert pushed.stdout == f"Published: {hub.endpoint}/ana/reviews/commit/{hub.sha('model', 'ana/reviews')}\n"
    assert "a check, not a guarantee" in pushed.stderr
    assert log(hub)[-1] == "main: first"
    pulled = run("pull", "ana/reviews", "--out", "mine", "--json")
    facts = json.loads(pulled.stdout)
    assert "%|" not in pushed.stderr + pulled.stderr  # the bars of the client, which ours would disturb
    assert facts["preset"] == "ngram-char" and facts["folder"] == "mine"
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert "bits per character" in run("pull", "ana/reviews").stdout
    assert "already exists" in run("pull", "ana/reviews", "--out", "mine", status=1).stderr
    assert "owner/name" in run("pull", "no-such", status=2).stderr
    assert "owner/name" in run("push", str(folder), "reviews", status=2).stderr
    assert "not a kind of finding" in run("push", str(folder), "ana/x", "--allow", "mail", status=2).stderr
    assert run("generate", "ana/reviews", "--seed", "1").stdout == run("generate", str(folder), "--seed", "1").stdout
