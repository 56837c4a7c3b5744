"""Parsing names and sources: forty nasty inputs, and folders that make a name ambiguous."""

from pathlib import Path

import pytest

from reviewgen.errors import SourceError
from reviewgen.names import HubSource, LocalSource, PresetName, PresetSource, parse_hub_id, parse_preset, parse_source

PRESET = PresetSource
HUB = HubSource
NO = None

NASTY = [
    ("lstm-word", PRESET("lstm-word")),
    ("lstm-word-large", PRESET("lstm-word-large")),
    ("lstm2-word-10m", PRESET("lstm2-word-10m")),
    ("a-b", PRESET("a-b")),
    ("lstm-word@v1", HUB("reviewgen/lstm-word", "v1")),
    ("lstm-word@", NO),
    ("lstm-word@v 1", NO),
    ("lstm-word@v1@v2", NO),
    ("a-b-c-d", NO),
    ("lstm", NO),
    ("lstm-", NO),
    ("-word", NO),
    ("lstm--word", NO),
    ("lstm-word-", NO),
    ("LSTM-word", NO),
    ("lstm_word", NO),
    ("lstm-word\n", NO),
    (" lstm-word", NO),
    ("2lstm-word", NO),
    ("lstm-wörd", NO),
    ("lstm‐word", NO),  # another kind of hyphen
    ("ｌstm-word", NO),  # a full-width letter
    ("", NO),
    (" ", NO),
    ("\0", NO),
    ("a\0b", NO),
    ("x" * 5000, NO),
    ("x" * 200 + "/" + "y" * 200, NO),
    ("owner/name", HUB("owner/name")),
    ("owner/name@v1", HUB("owner/name", "v1")),
    ("owner/name@refs/pr/1", HUB("owner/name", "refs/pr/1")),
    ("hf://owner/name", HUB("owner/name")),
    ("hf://owner/name@abc123", HUB("owner/name", "abc123")),
    ("Owner-1/My.Model_v2", HUB("Owner-1/My.Model_v2")),
    ("o/n", HUB("o/n")),
    ("owner/name@", NO),
    ("owner/name@v1@v2", NO),
    ("owner/name@v 1", NO),
    ("owner/na--me", NO),
    ("owner/na..me", NO),
    ("owner/name.git", NO),
    ("owner/.name", NO),
    ("owner/name.", NO),
    ("owner//name", NO),
    ("owner/name/file", NO),
    ("owner/", NO),
    ("/name/", LocalSource(Path("/name"))),
    ("hf://", NO),
    ("hf://name", NO),
    ("hf://hf://owner/name", NO),
    ("hf://../secret", NO),
    ("https://huggingface.co/owner/name", NO),
    ("owner\\name", NO),
    ("作者/模型", NO),
    ("./lstm-word", LocalSource(Path("lstm-word"))),
    ("../x", LocalSource(Path("../x"))),
    (".", LocalSource(Path())),
    ("..", LocalSource(Path(".."))),
    ("~", LocalSource(Path.home())),
    ("~/x", LocalSource(Path.home() / "x")),
    ("~no_such_user_here/x", NO),
    ("reviewgen-mingru:mingru-char", PRESET("reviewgen-mingru:mingru-char")),
    ("lstm-My.Package_2:bytes", PRESET("lstm-My.Package_2:bytes")),
    ("d1:lstm-d2:bytes", PRESET("d1:lstm-d2:bytes")),
    ("reviewgen-mingru:mingru-char@v1", NO),
    ("reviewgen-mingru:mingru", PRESET("reviewgen-mingru:mingru")),  # the tokenizer mingru of the package mingru
    ("reviewgen-mingru:", NO),
    (":mingru-char", NO),
    ("a:b:mingru-char", NO),
    ("lstm-d2:bytes-m10", PRESET("lstm-d2:bytes-m10")),  # the model bytes of the package lstm-d2
    ("lstm-d2:bytes-10m", NO),
    ("-dist:mingru-char", NO),
    ("C:lstm-char", NO),
    ("C:\\models\\lstm-char", NO),
    ("hf:lstm-char/x", NO),
    ("-rf", NO),
    ("lstm-word; rm -rf /", NO),
    ("$(id)", NO),
    ("{0}-{1}", NO),
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("text", "meant"), NASTY, ids=[ascii(text)[:30] for text, _ in NASTY])
def test_nasty_inputs(text: str, meant: PresetSource | HubSource | LocalSource | None) -> None:
    if meant is not None:
        assert parse_source(text) == meant
        return
    with pytest.raises(SourceError) as caught:
        parse_source(text)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_there_are_forty_of_them() -> None:
    assert len(NASTY) >= 40
    assert len({text for text, _ in NASTY}) == len(NASTY)


def test_a_preset_of_a_package_has_no_revision() -> None:
    said = "'one-package:lstm-char' is of an installed package, which has no revisions. Give a repository: owner/name@v2."
    for call in (lambda: parse_source("one-package:lstm-char@v2"), lambda: parse_source("one-package:lstm-char", revision="v2")):
        with pytest.raises(SourceError) as caught:
            call()
        assert str(caught.value) == said


@pytest.mark.parametrize("text", ["lstm-word", "owner/name"])
def test_a_folder_of_that_name_makes_it_ambiguous(text: str) -> None:
    Path(text).mkdir(parents=True)
    with pytest.raises(SourceError, match="is ambiguous") as caught:
        parse_source(text)
    assert f"./{text}" in str(caught.value)
    assert parse_source(f"./{text}") == LocalSource(Path(text))
    assert parse_source(Path(text)) == LocalSource(Path(text))
    if "/" in text:
        assert f"hf://{text}" in str(caught.value)
        assert parse_source(f"hf://{text}") == HubSource(text)


@pytest.mark.parametrize("text", ["models", "a b", "LSTM-word", "x/y/z", "作者", "ends-with-slash/"])
def test_an_existing_folder_with_no_other_meaning_is_local(text: str) -> None:
    with pytest.raises(SourceError):
        parse_source(text)
    Path(text).mkdir(parents=True)
    assert parse_source(text) == LocalSource(Path(text))


def test_a_path_is_local_whatever_it_looks_like() -> None:
    assert parse_source(Path("lstm-word")) == LocalSource(Path("lstm-word"))
    assert parse_source(Path("~/x")) == LocalSource(Path.home() / "x")
    with pytest.raises(SourceError, match="home folder"):
        parse_source(Path("~no_such_user_here/x"))


def test_parse_preset() -> None:
    assert parse_preset("mingru-char") == PresetName("mingru", "char")
    assert parse_preset("lstm-word-10m") == PresetName("lstm", "word", "10m")
    assert parse_preset("reviewgen-mingru:mingru-char-10m") == PresetName("reviewgen-mingru:mingru", "char", "10m")
    assert parse_preset("lstm-reviewgen-bytes:bytes") == PresetName("lstm", "reviewgen-bytes:bytes")
    assert parse_preset("a1:lstm-b2:bytes") == PresetName("a1:lstm", "b2:bytes")
    for wrong in ("lstm", "", "lstm-word-a-b", "a/b", "lstm-word\n", "x" * 100_000):
        with pytest.raises(SourceError, match="is not a preset name") as caught:
            parse_preset(wrong)
        assert len(str(caught.value)) < 300


def test_parse_hub_id() -> None:
    assert parse_hub_id("hf://a/b@c") == HubSource("a/b", "c")
    for wrong in ("a", "a/b/c", "hf://", "/a", "a/", "a/b.git", "_a/b", "a/b\n"):
        assert parse_hub_id(wrong) is None, wrong


def test_the_hub_client_accepts_every_repository_that_parses() -> None:
    from huggingface_hub.utils import validate_repo_id

    for _, meant in NASTY:
        if isinstance(meant, HubSource):
            validate_repo_id(meant.repo_id)


def test_a_revision_beside_the_source() -> None:
    assert parse_source("a/b", revision="v1") == parse_source("a/b@v1", revision="v1") == HubSource("a/b", "v1")
    assert parse_source("lstm-word", revision="main") == HubSource("reviewgen/lstm-word", "main")
    for source, revision, said in (
        ("./folder", "v1", "is a local folder, which has no revision 'v1'"),
        (Path("folder"), "v1", "is a local folder"),
        ("a/b@v1", "v2", "has one revision and revision='v2' is another"),
        ("a/b", "v 1", "is not a revision"),
        ("a/b", "", "is not a revision"),
    ):
        with pytest.raises(SourceError, match=said):
            parse_source(source, revision=revision)
