"""Names of presets and sources of models: what each input means."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import validate_repo_id

from reviewgen.config.names import HubSource, parse_source
from reviewgen.errors import SourceError

PRESETS = ["lstm-word", "lstm-word-large", "lstm2-word-10m", "a-b"]
OTHERS = {
    "lstm-word@v1": HubSource("reviewgen/lstm-word", "v1"),
    "owner/name": HubSource("owner/name"),
    "owner/name@refs/pr/1": HubSource("owner/name", "refs/pr/1"),
    "hf://owner/name": HubSource("owner/name"),
    "hf://owner/name@abc123": HubSource("owner/name", "abc123"),
    "Owner-1/My.Model_v2": HubSource("Owner-1/My.Model_v2"),
    "/name/": Path("/name"),
    "./lstm-word": Path("lstm-word"),
    "../x": Path("../x"),
    "..": Path(".."),
    "~/x": Path.home() / "x",
}
REFUSED = [
    *(
        "lstm-word@",
        "lstm-word@v 1",
        "lstm-word@v1@v2",
        "a-b-c-d",
        "lstm",
        "lstm-",
        "-word",
        "lstm--word",
        "lstm-word-",
    ),
    *(
        "LSTM-word",
        "lstm_word",
        "lstm-word\n",
        " lstm-word",
        "2lstm-word",
        "lstm-wörd",
        "lstm‐word",
        "ｌstm-word",
        "",
        " ",
    ),
    *(
        "\0",
        "a\0b",
        "x" * 5000,
        "x" * 200 + "/" + "y" * 200,
        "owner/name@",
        "owner/name@v1@v2",
        "owner/name@v 1",
    ),
    *(
        "owner/na--me",
        "owner/na..me",
        "owner/name.git",
        "owner/.name",
        "owner/name.",
        "owner//name",
        "owner/name/file",
    ),
    *(
        "owner/",
        "hf://",
        "hf://name",
        "hf://hf://owner/name",
        "hf://../secret",
        "https://huggingface.co/owner/name",
    ),
    *("owner\\name", "作者/模型", "~no_such_user_here/x"),
    *("hf:lstm-char/x", "-rf", "lstm-word; rm -rf /", "$(id)", "{0}-{1}"),
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def refuses(word: str | None, *arguments: Any, **options: Any) -> str:
    with pytest.raises(SourceError, match=word) as caught:
        parse_source(*arguments, **options)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)
    return str(caught.value)


def test_each_source_has_one_meaning_or_is_refused():
    meant = {name: name for name in PRESETS} | OTHERS
    assert {text: parse_source(text) for text in meant} == meant
    for source in OTHERS.values():
        if isinstance(source, HubSource):
            validate_repo_id(source.repo_id)  # the client accepts what parses
    for text in REFUSED:
        refuses(None, text)
    assert (
        parse_source("a/b", revision="v1")
        == parse_source("a/b@v1", revision="v1")
        == HubSource("a/b", "v1")
    )
    for source, revision, word in (
        (Path("folder"), "v1", "local folder"),
        ("a/b@v1", "v2", "has one revision"),
        ("a/b", "v 1", "not a revision"),
        ("a/b", "", "not a revision"),
    ):
        refuses(word, source, revision=revision)


def test_an_existing_folder_without_another_meaning_is_local():
    for text in ("models", "a b", "LSTM-word", "x/y/z", "作者", "ends-with-slash/"):
        refuses(None, text)
        Path(text).mkdir(parents=True)
        assert parse_source(text) == Path(text)
    assert parse_source(Path("gru-word")) == Path("gru-word")
    assert parse_source(Path("~/x")) == Path.home() / "x"
    refuses("home folder", Path("~no_such_user_here/x"))


def test_a_saved_model_wins_over_a_repository_and_not_over_a_preset():
    Path("runs/model").mkdir(parents=True)
    assert parse_source("runs/model", PRESETS) == HubSource("runs/model", None)
    Path("runs/model", "config.json").touch()
    assert parse_source("runs/model", PRESETS) == Path("runs/model")
    assert parse_source("runs/model@v1") == HubSource("runs/model", "v1")
    Path("lstm-word").mkdir()
    refuses("ambiguous", "lstm-word", PRESETS)
