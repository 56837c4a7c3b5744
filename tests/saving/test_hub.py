"""Models to the Hub and back, and a model and its page as a Space, with the real client against the
loopback Hub.
"""

import contextlib
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import SpaceCard, parse_eval_result_entries

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import ConfigError, HubError, NotPublished, SourceError
from reviewgen.hub import find_personal_data, is_written_by_hand, metadata_of
from reviewgen.saving.layout import write_manifest
from tests.support.fakes import TEXTS, run_command
from tests.support.loopback_hub import READ_TOKEN, TOKEN, Fault, LoopbackHub
from tests.support.models import NGRAM, SMALL
from tests.support.saved import edit_json

NAME = "ana/reviews"
KEY = ("model", "ana/reviews")
SPACE = ("space", NAME)
EVERYTHING = ["copies", "email", "url", "phone", "handle"]


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub({}) as running:
        yield running
        assert [request for request in running.requests if request.status in (501, 502)] == []


@pytest.fixture
def ana(hub: LoopbackHub, tmp_path) -> Iterator[None]:
    """The client of this process has the token of a user."""
    with hub.client(tmp_path / "ana", TOKEN):
        yield


@pytest.fixture
def folder(model_folder) -> Path:
    return model_folder("ngram-char")


def push(
    model: ReviewModel | Path, name: str = NAME, license: str | None = "mit", **options: Any
) -> str:
    model = model if isinstance(model, ReviewModel) else reviewgen.load(model)
    return model.push_to_hub(name, license=license, **({"allow": ["copies"]} | options))


def texts_of(source: Any = NAME, **options: Any) -> list[str]:
    return reviewgen.load(source, **options).generate(
        "the ", num_return_sequences=2, seed=5, max_new_tokens=40
    )


def publish(
    hub: LoopbackHub, folder: Path, name: str = NAME, gone: str = "", **more: bytes
) -> None:
    """Store a model in the Hub directly, without a push."""
    if ("model", name) not in hub.repositories:
        hub.add("model", name)
    files = hub.files("model", name) | {
        file.name: file.read_bytes() for file in folder.iterdir() if file.name != gone
    }
    hub.repositories["model", name].commit("main", files | more)


def refuses(error: type[Exception], word: str, call: Callable[[], object]) -> str:
    with pytest.raises(error, match=re.escape(word)) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message and TOKEN not in message
    return message


def log(hub: LoopbackHub, key: tuple[str, str] = KEY) -> list[str]:
    return hub.repositories[key].log if key in hub.repositories else []


# There and back.


WITH_ADDRESSES = [
    f"The {noun} was {kind}, write to ana@example.org"
    for noun, kind in itertools.product(("food", "band"), ("good", "bad", "so"))
]


def test_a_model_is_unchanged_by_a_push_and_a_pull(hub, folder, tmp_path, caplog):
    texts = texts_of(folder)
    with hub.client(tmp_path / "one", TOKEN):
        address = push(folder)
        again = push(folder)
    assert address == again == f"{hub.endpoint}/{NAME}/commit/{hub.sha(*KEY)}"
    assert log(hub) == ["main: initial commit", "main: Publish ngram-char with reviewgen"]
    files = hub.files(*KEY)
    own = {file.name for file in folder.iterdir()}
    assert (
        files.keys() == own | {".gitattributes", "learning_curve.png"}
        and files["learning_curve.png"][1:4] == b"PNG"
    )
    assert all(files[name] == (folder / name).read_bytes() for name in own - {"README.md"})
    caplog.clear()
    with hub.client(tmp_path / "two"):
        assert texts_of() == texts_of(f"hf://{NAME}") == texts and caplog.messages == []


def test_the_cached_version_is_used_while_the_hub_fails(hub, folder, tmp_path, caplog):
    publish(hub, folder)
    with hub.client(tmp_path / "two"):
        texts = texts_of()
    caplog.clear()
    hub.faults = [Fault("^GET .*/api/models", status=400)]
    with hub.client(tmp_path / "two"):
        assert texts_of() == texts and "the cached version is used" in caplog.messages[0]
        refuses(HubError, "could not be downloaded", lambda: texts_of(force_download=True))


def test_a_downloaded_model_needs_no_requests_offline(hub, folder, tmp_path):
    publish(hub, folder)
    with hub.client(tmp_path / "two"):
        texts = texts_of()
    since = len(hub.requests)
    with hub.client(tmp_path / "two", offline=True):
        assert texts_of() == texts
    with hub.client(tmp_path / "two"):
        assert texts_of(local_files_only=True) == texts
    assert hub.requests[since:] == []


@pytest.mark.server
def test_a_dry_run_makes_all_checks_and_publishes_nothing(hub, folder, ana, caplog):
    caplog.set_level("INFO", "reviewgen")
    assert push(folder, dry_run=True) == f"{hub.endpoint}/{NAME}"
    assert log(hub) == [] and "config.json" in caplog.messages[-1]
    refuses(NotPublished, "license", lambda: push(folder, license=None, dry_run=True))


@pytest.mark.server
def test_revisions_and_pull_requests(hub, folder, ana):
    push(folder)
    push(folder, f"{NAME}@v2", commit_message="better")
    pull_request = push(folder, create_pr=True, model_card_kwargs={"language": "en"})
    assert pull_request == f"{hub.endpoint}/{NAME}/discussions/1"
    assert log(hub)[2:] == ["v2: better", "refs/pr/1: Publish ngram-char with reviewgen"]
    assert texts_of(revision="v2") == texts_of(f"{NAME}@refs/pr/1") == texts_of(folder)
    refuses(SourceError, "is not a revision", lambda: texts_of(revision="../../planted"))


@pytest.mark.server
def test_tokens_and_private_repositories(hub, folder, tmp_path):
    with hub.client(tmp_path / "one", TOKEN):
        push(folder, private=True)
    with hub.client(tmp_path / "two"):
        refuses(HubError, "or it is private", texts_of)
        assert texts_of(token=TOKEN) == texts_of(folder)
        refuses(HubError, "log in with", lambda: push(folder, "ana/other"))
    with hub.client(tmp_path / "three", READ_TOKEN):
        refuses(HubError, "the token does not grant access", lambda: push(folder, "ana/other"))
    assert ("model", "ana/other") not in hub.repositories


def test_other_files_are_not_downloaded_and_the_card_may_be_missing(hub, folder, ana):
    more = {
        "pytorch_model.bin": b"\x80\x04",
        "code.py": b"raise SystemExit(3)\n",
        "other.json": b"{}",
        "sub/config.json": b"{}",
    }
    publish(hub, folder, gone="README.md", **more)
    assert texts_of() == texts_of(folder)
    targets = [request.target for request in hub.requests if "resolve" in request.target]
    assert not any(name in "\n".join(targets) for name in more)


# What goes wrong on the way.


@pytest.mark.server
@pytest.mark.parametrize("pattern", ["^PUT .*upload", "^POST .*/commit/"])
def test_an_upload_that_breaks_leaves_no_half_model_and_is_repeated(hub, folder, ana, pattern):
    hub.faults = [Fault(pattern, status=400, times=1)]
    refuses(HubError, "could not be published", lambda: push(folder))
    assert "/commit/" in push(folder)
    # one commit, the whole one
    assert log(hub) == ["main: initial commit", "main: Publish ngram-char with reviewgen"]
    theirs = hub.files(*KEY) | {"notes.txt": b"by hand"}  # of another user in the meantime
    hub.faults = [
        Fault("^POST /api/repos/create", act=lambda: hub.repositories[KEY].commit("main", theirs))
    ]
    refuses(HubError, "could not be published", lambda: push(folder, license="apache-2.0"))
    assert hub.files(*KEY) == theirs


# What is published.


@pytest.mark.server
def test_a_model_replaces_all_files_of_an_older_one(hub, folder, model_folder, ana, caplog):
    publish(hub, folder)
    push(model_folder("ngram-word"), allow=EVERYTHING)
    files = hub.files(*KEY)
    assert "characters.json" not in files and "tokenizer.json" in files
    caplog.clear()
    assert reviewgen.load(NAME).preset == "ngram-word" and caplog.messages == []
    push(folder, ignore_patterns="novelty*")
    files = hub.files(*KEY)
    assert (
        "tokenizer.json" not in files
        and "novelty.safetensors" not in files
        and reviewgen.load(NAME).bundle.index is None
    )
    listed = {
        name: entry["sha256"] for name, entry in json.loads(files["manifest.json"])["files"].items()
    }
    kept = files.keys() - {"README.md", "manifest.json", "learning_curve.png", ".gitattributes"}
    assert listed == {name: hashlib.sha256(files[name]).hexdigest() for name in kept}


@pytest.mark.server
def test_the_card_has_the_facts_and_keeps_its_metadata(hub, folder, ana):
    push(folder, model_card_kwargs={"language": ["en", "fr"], "tags": ["film"]})
    card = hub.files(*KEY)["README.md"].decode()
    block = yaml.safe_load(card.split("---\n")[1])
    training = json.loads((folder / "training.json").read_text())
    assert (block["license"], block["language"], block["library_name"]) == (
        "mit",
        ["en", "fr"],
        "reviewgen",
    )
    assert block["tags"] == ["reviewgen", "ngram", "film"]
    results = block["model-index"][0]["results"]
    measured = itertools.chain.from_iterable(result["metrics"] for result in results)
    metrics = {metric["type"]: metric["value"] for metric in measured}
    assert metrics["bits_per_character"] == round(training["held_out"]["bits_per_character"], 4)
    for word in (
        f'reviewgen.load("{NAME}")',
        "![Bits",
        "Temperature 0.5:",
        "`order=4`",
        "Hardware: ",
    ):
        assert word in card, word
    # a generated card is written again, with the earlier metadata
    push(folder, license="apache-2.0")
    again = yaml.safe_load(hub.files(*KEY)["README.md"].decode().split("---\n")[1])
    assert (again["license"], again["language"], again["tags"]) == (
        "apache-2.0",
        ["en", "fr"],
        block["tags"],
    )


@pytest.mark.server
def test_a_card_by_hand_is_kept(hub, folder, ana):
    by_hand = b"---\nlicense: mit\n---\n# Mine\n"
    publish(hub, folder, **{"README.md": by_hand})
    push(folder, license=None)
    push(folder, f"{NAME}@v2", license=None)  # a new branch has the card of main
    assert hub.files(*KEY)["README.md"] == hub.files(*KEY, "v2")["README.md"] == by_hand
    refuses(ConfigError, "'mit', not 'gpl-3.0'", lambda: push(folder, license="gpl-3.0"))


@pytest.mark.server
def test_a_public_model_is_not_made_private(hub, folder, ana):
    publish(hub, folder)
    refuses(HubError, "exists and is public", lambda: push(folder, private=True))


@pytest.mark.server
def test_a_card_that_was_edited_in_the_folder_is_published(hub, folder, ana, tmp_path):
    edited = Path(shutil.copytree(folder, tmp_path / "edited"))
    (edited / "README.md").write_text("# Reviews of Ana's\n", encoding="utf-8")
    push(edited, "ana/edited")
    published = hub.files("model", "ana/edited")["README.md"].decode()
    assert (
        "# Reviews of Ana's" in published
        and yaml.safe_load(published.split("---\n")[1])["license"] == "mit"
    )


def test_a_card_of_an_earlier_version_counts_as_generated():
    """The last line of a card is a saved format: its words and its digest do not change."""
    body = (
        "---\nlicense: mit\ntags:\n- reviewgen\n- gru\n- film\n---\n\n# gru-char\n\nA small gru"
        " language model.\n"
    )
    card = f"{body}<!-- written by reviewgen from what it recorded; bd52ebe33dc2cfc8 -->\n"
    assert not is_written_by_hand(card) and metadata_of(card) == {
        "license": "mit",
        "tags": ["film"],
    }
    assert is_written_by_hand(card.replace("small", "tiny"))


@pytest.mark.server
def test_personal_data_is_published_only_if_allowed(hub, ana):
    model = reviewgen.train("ngram-char", WITH_ADDRESSES, **NGRAM)
    message = refuses(
        NotPublished, "e-mail addresses in ", lambda: push(model, allow=[], copy_limit=0)
    )
    assert (
        "'ana@example.org'" in message
        and "windows of its texts are copied, which is more than 0%" in message
    )
    assert "--allow email,url," in message
    refuses(NotPublished, "no license is given", lambda: push(model, license=None))
    known = ["email", "url", "handle", "copies"]
    address = push(model, allow=known)
    assert push(model, license=None, allow=known) == address  # the existing card names one
    refuses(NotPublished, "web addresses in ", lambda: push(model, allow=["email"]))
    assert len(log(hub)) == 2


@pytest.mark.server
def test_all_that_keeps_a_model_from_the_hub_is_said_at_once(hub, model_folder, ana):
    french: dict[str, Any] = {"model_card_kwargs": {"language": 5}}
    said = refuses(
        SourceError,
        "is not a repository",
        lambda: push(model_folder("exact"), "ana", None, allow=[], **french),
    )
    for word in ("language must be", "no license is given", "contains the whole training text"):
        assert word in said


@pytest.mark.server
def test_the_whole_text_is_published_only_if_allowed(hub, model_folder, ana):
    refuses(
        NotPublished,
        "contains the whole training text",
        lambda: push(model_folder("exact"), "ana/exact"),
    )
    assert "/commit/" in push(model_folder("exact"), "ana/exact", allow=["copies", "text"])


@pytest.mark.server
def test_a_push_reports_the_license_personal_data_and_the_card_at_once(hub, tmp_path, capsys):
    known: list[str] = []  # before the scan
    generate = ReviewModel.generate

    def noted(*arguments: Any, **options: Any) -> Any:
        known.append(capsys.readouterr().err)
        return generate(*arguments, **options)

    reviewgen.train("ngram-char", WITH_ADDRESSES, out=tmp_path / "m", **NGRAM)
    (tmp_path / "m" / "README.md").write_text("---\ntags: [\n---\n# Mine\n", encoding="utf-8")
    with hub.client(tmp_path / "home", TOKEN), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReviewModel, "generate", noted)
        status, _, error = run_command(
            patch, capsys, "push", tmp_path / "m", NAME, "--language", "e\tn"
        )
    assert status == 2
    assert (
        "no license is given" in known[0]
        and "language must be" in known[0]
        and "e-mail" not in known[0]
    )
    assert "no license is given" in error
    assert "e-mail addresses in " in error
    assert "The YAML front matter of the card" in error
    assert "language must be a string" in error
    assert log(hub) == []


@pytest.mark.server
def test_paths_of_this_machine_are_not_published(hub, tmp_path, ana):
    parent = tmp_path / "secret client" / "parent"
    parent.parent.mkdir()
    (parent.parent / "reviews.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    reviewgen.train("gru-char", parent.parent / "reviews.txt", out=parent, **SMALL)
    push(reviewgen.train(reviewgen.load(parent), TEXTS, steps=2), "ana/child", allow=EVERYTHING)
    push(parent, "ana/parent", allow=EVERYTHING)
    for name in ("ana/parent", "ana/child"):
        assert not [
            file
            for file, content in hub.files("model", name).items()
            if b"secret client" in content
        ]
    assert b"reviews.txt" in hub.files("model", "ana/parent")["training.json"]
    push(
        reviewgen.train(reviewgen.load("ana/child"), TEXTS, steps=2),
        "ana/grandchild",
        allow=EVERYTHING,
    )
    assert b"`hf://ana/child`" in hub.files("model", "ana/grandchild")["README.md"]


@pytest.mark.server
def test_the_commands(hub, folder, tmp_path, capsys):
    publish(hub, folder, "ana/changed", **{"generation_config.json": b'{"temperature": 0.25}'})
    mine = tmp_path / "mine"
    commands: list[tuple[int, str, list[Any]]] = [
        (1, "no license is given", ["push", folder, NAME]),
        (
            0,
            "a check, not a guarantee",
            ["push", folder, NAME, "--license", "mit", "--allow", "copies", "-m", "first"],
        ),
        (0, "", ["pull", NAME, "--out", mine]),
        (1, "already exists", ["pull", NAME, "--out", mine]),
        (1, "--accept-changes", ["pull", "ana/changed", "--out", tmp_path / "changed"]),
        (0, "", ["pull", "ana/changed", "--out", tmp_path / "changed", "--accept-changes"]),
        (0, "", ["generate", NAME, "--seed", "1"]),
    ]
    for status, word, words in commands:
        with hub.client(tmp_path / "home", TOKEN), pytest.MonkeyPatch.context() as patch:
            got, out, said = run_command(patch, capsys, *words)
        assert got == status and word in said, words
        if words[-1] == "first":
            assert (
                out == f"Published: {hub.endpoint}/{NAME}/commit/{hub.sha(*KEY)}\n"
                and log(hub)[-1] == "main: first"
            )
    assert (mine / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert out.strip() == reviewgen.load(folder).generate_one(seed=1)
    assert reviewgen.load(tmp_path / "changed").generation_config.temperature == 0.25


def test_results_on_a_dataset_of_the_hub_are_published(hub, folder, tmp_path, ana):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    edit_json(copy / "training.json", "data", "source", value="hf://ana/words@main")
    write_manifest(copy)
    push(copy)
    bits = round(reviewgen.load(copy).training["held_out"]["bits_per_character"], 4)
    content = hub.files(*KEY)[".eval_results/reviewgen.yaml"]
    entries = parse_eval_result_entries(yaml.safe_load(content))
    assert {entry.dataset_id for entry in entries} == {"ana/words"}
    found = next(entry for entry in entries if entry.task_id == "bits_per_character")
    assert found.value == bits and "held out; test split; lower is better" in found.notes
    # a clone of the repository is a saved model
    clone = tmp_path / "clone"
    for name, content in hub.files(*KEY).items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(content)
    assert texts_of(clone) == texts_of(folder)
    push(copy, f"{NAME}@without", ignore_patterns=[".eval_results/*"])
    assert ".eval_results/reviewgen.yaml" not in hub.files(*KEY, "without")
    # a file is not a dataset of the Hub, and earlier results go
    push(folder)
    assert ".eval_results/reviewgen.yaml" not in hub.files(*KEY)


def test_models_are_found_by_the_tag_and_words(hub, folder, tmp_path, capsys):
    with hub.client(tmp_path / "ana", TOKEN):
        push(folder)
    publish(hub, folder, "ana/other", **{"README.md": b"---\ntags: [music]\n---\n# Mine\n"})
    odd = b"---\ntags: [reviewgen]\nlicense: [mit]\nreviewgen: {preset: 3}\n---\n# Mine\n"
    publish(hub, folder, "bea/reviews-odd", **{"README.md": odd})

    def search(*words: str, offline: bool = False) -> tuple[int, str, str]:
        home = hub.client(tmp_path / "home", offline=offline)
        with home, pytest.MonkeyPatch.context() as patch:
            return run_command(patch, capsys, "search", *words)

    status, out, _ = search("ana", "reviews", "--json")
    bits = round(reviewgen.load(folder).training["held_out"]["bits_per_character"], 4)
    assert status == 0 and json.loads(out)["models"] == [
        {
            "repository": NAME,
            "preset": "ngram-char",
            "bits_per_character": bits,
            "license": "mit",
        }
    ]
    _, out, _ = search("reviews")
    assert re.search(rf"ana/reviews +ngram-char +{bits} +mit", out)
    assert re.search(r"bea/reviews-odd +– +– +–", out) and "ana/other" not in out
    assert search("--limit", "1")[1].count("/reviews") == 1
    assert search("music")[1] == "No model has the tag reviewgen and 'music'.\n"
    hub.faults.append(Fault("GET /api/models", status=503))
    status, out, said = search("music")
    assert (status, out) == (1, "") and said.startswith("error: The search for 'music' could not")
    status, out, said = search("music", offline=True)
    assert (status, out) == (1, "") and said.count("\n") == 1 and "the Hub is not asked" in said


def test_a_search_without_a_network_is_refused_in_one_line(tmp_path, capsys):
    with contextlib.ExitStack() as stack:
        with LoopbackHub({}) as gone:
            stack.enter_context(gone.client(tmp_path / "home"))
        with pytest.MonkeyPatch.context() as patch:
            status, out, said = run_command(patch, capsys, "search", "music")
    assert (status, out) == (1, "") and said.count("\n") == 1 and "was not reached" in said


# A Space: the model's page.


@pytest.fixture
def push_space(hub: LoopbackHub, model_folder, tmp_path, capsys) -> Any:
    """A function that runs ``reviewgen push --space`` and returns what it prints, as JSON; or the
    error message.
    """

    def run(*words: str, status: int = 0) -> Any:
        options = ["--license", "mit", "--allow", "copies", "--space", "--json"]
        with hub.client(tmp_path / "home", TOKEN), pytest.MonkeyPatch.context() as patch:
            got, out, said = run_command(
                patch, capsys, "push", model_folder("ngram-char"), NAME, *options, *words
            )
        assert got == status, said
        return " ".join(said.split()) if status else json.loads(out)

    return run


@pytest.mark.server
def test_the_model_and_its_page_link_each_other(hub, push_space):
    said = push_space()
    assert said == {
        "url": f"{hub.endpoint}/{NAME}/commit/{hub.sha(*KEY)}",
        "space": f"{hub.endpoint}/spaces/{NAME}",
    }
    card = hub.files(*KEY)["README.md"].decode()
    files = hub.files(*SPACE)
    assert f"[{NAME}]({hub.endpoint}/spaces/{NAME})" in card
    # the example of a new Space is gone
    assert files.keys() == {".gitattributes", "README.md", "index.html"}
    readme = SpaceCard(files["README.md"].decode())
    assert (readme.data.sdk, readme.data.app_file, readme.data.models) == (
        "static",
        "index.html",
        [NAME],
    )
    assert (readme.data.license, readme.data.title) == ("mit", "reviews")
    assert "synthetic" in readme.data.tags and b"/trainedAlgorithmicMedia" in files["index.html"]
    assert f"[{NAME}]({hub.endpoint}/{NAME})" in readme.text
    contents = re.search(
        r'<script type="application/json" id="contents">(.*?)</script>',
        files["index.html"].decode(),
    )
    assert contents is not None
    model = json.loads(contents[1])["models"][0]
    assert model["card"] == card and ["License", "mit"] in model["facts"]


@pytest.mark.server
def test_a_page_is_pushed_again_without_its_edited_readme(hub, push_space):
    push_space()
    files = hub.files(*SPACE)
    push_space()
    assert len(log(hub, KEY)) == len(log(hub, SPACE)) == 2  # nothing is new: no commit
    by_hand = files["README.md"].replace(b"title: reviews", b"title: Ana's critic")
    hub.repositories[SPACE].commit("main", {**files, "README.md": by_hand, "index.html": b"old"})
    push_space()
    assert hub.files(*SPACE) == {**files, "README.md": by_hand}


@pytest.mark.server
def test_a_space_that_reviewgen_has_not_published_is_left_alone(hub, push_space):
    for sdk, title in ("static", "Duplicate from bob/game"), ("gradio", "Add notes"):
        hub.add(*SPACE, sdk=sdk)
        files = hub.files(*SPACE) | {"index.html": b"<p>my game</p>"}
        hub.repositories[SPACE].log.clear()  # as in a squashed history
        hub.repositories[SPACE].commit("main", files, title)
        assert "was not published by reviewgen" in push_space(status=1)
        assert hub.files(*SPACE) == files and log(hub, KEY) == []


# The scan for personal data.

PERSONAL = {
    "email": [
        "write to ana.b+c@mail.example.org today",
        "ANA@EXAMPLE.COM!",
        "(x_y@sub.do-main.de)",
    ],
    "url": [
        "see http://a.b/c?d=e.",
        "www.imdb.com/title/tt01",
        "on imdb.com they say",
        "HTTPS://X.Y",
        "bbc.co.uk",
        "bit.ly/x",
        "ftp://a.b",
    ],
    "phone": [
        "call 555-1234",
        "+49 (30) 1234 5678",
        "(212) 555-0199",
        "212.555.0199",
        "0301234567",
        "+1-212-555-0199",
        "020 7946 0958",
        "(555) 123 4567",
        "06 12 34 56 78",
    ],
    "handle": ["follow @ana_music", "@Ana, thanks", "(@bob99)"],
}
HARMLESS = [
    "It ran from 1990-2000, at 10/10, for $1,000,000.",
    "meet me @ 5",
    "sh@#t happens",
    "p@ssion",
    "24-7 fun, 1-2-3",
    "The U.S.A. and e.g. this one...",
    "A.I. is by Mr.Spielberg",
    "rated 8.5/10; part 2.5",
    "2001: A Space Odyssey",
    "good.The next",
    "100000 people, 12345678 stars",
    "9783161484100 is a book",
    "100-1000 times",
]


def test_personal_data_is_found_in_texts_and_in_the_vocabulary():
    for kind, texts in PERSONAL.items():
        for text in texts:
            assert "in 1 of 2 samples, as in" in find_personal_data([text, "nothing"], [])[kind]
            assert "1 pieces of the vocabulary" in find_personal_data([], [text, "nothing"])[kind]
    for text in HARMLESS:
        assert find_personal_data([text], [text]) == {}
