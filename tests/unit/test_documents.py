"""txt files as lines, paragraphs, sentences or files; hard-wrapped files are those that textwrap would write."""

import random
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.data import DataConfig, gather, shards
from reviewgen.data.documents import file_layout, read_texts, text_layout
from reviewgen.data.sources import open_texts

SENTENCES = [
    "Mr. Doe and J. R. Roe went to the café on Jan. 3 and ordered 3.5 litres of tea.",
    "It was late, the rain had not stopped since the morning, and nobody in the long street had seen the captain again.",
    "“Will you go back?” she asked.",
    "No!",
    "He thought of e.g. the sea, the ships and the harbour where they had spent so many evenings together before the war.",
]
PARAGRAPHS = [" ".join(random.Random(seed).sample(SENTENCES, 4)) for seed in range(12)]
REVIEWS = [" ".join(random.Random(seed).sample(SENTENCES, 1 + seed % 3)) for seed in range(40)]
VERSE = "\n\n".join(
    ["The curfew tolls the knell of day\nThe herd winds slowly\nThe ploughman homeward plods his way\nAnd leaves"] * 9
)


def wrap(width, paragraphs=PARAGRAPHS):
    return "\n\n".join(textwrap.fill(text, width, break_on_hyphens=False) for text in paragraphs) + "\n"


@pytest.fixture
def texts_of(tmp_path):
    """Write a file and return its texts."""

    def read(data, documents):
        (tmp_path / "a.txt").write_bytes(data.encode())
        return list(read_texts(tmp_path / "a.txt", documents))

    return read


@pytest.mark.parametrize("width", [40, 60, 72, 75, 80, 100])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_lines_of_a_hard_wrapped_file_are_joined(texts_of, width, line_end):
    data = wrap(width).replace("\n", line_end)
    assert texts_of(data, "paragraph") == PARAGRAPHS
    sentences = texts_of(data, "sentence")
    assert sorted(set(sentences)) == sorted(SENTENCES)
    assert " ".join(sentences) == " ".join(PARAGRAPHS)
    assert texts_of(data, "line") == wrap(width).split("\n")[:-1]
    assert texts_of(data, "file") == [wrap(width)]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(REVIEWS),
        "\n\n".join(REVIEWS),
        "\n\n".join("\n".join(REVIEWS[first : first + 5]) for first in range(0, 40, 5)),
        VERSE,
        "\n\n".join("- one\n- two\n- three" for _ in range(9)),
        "\n\n".join(f"2020-01-0{day} 10:00:00 INFO started.\n2020-01-0{day} 10:00:01 INFO stopped." for day in range(1, 10)),
        "word " * 20_000,
        "\n" * 1000,
        "",
        wrap(72, PARAGRAPHS[:1]),  # one paragraph
        "一二三四五六七八九十\n" * 60,
    ],
)
def test_what_is_not_hard_wrapped(text):
    assert not text_layout(text).is_wrapped


def test_a_play_is_not_hard_wrapped_and_the_licence_is(tmp_path):
    scene = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n"
    assert not text_layout(scene * 50).is_wrapped
    assert file_layout(Path(__file__).parents[2] / "LICENSE").is_wrapped


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three\nFour? Five.", ["One.", "Two!", "Three", "Four?", "Five."]),  # a line for each review
        ("no end\n\n", ["no end"]),
        (" \n\t\n  a.   b. \n", ["a.", "b."]),
        ("First Citizen:\nSpeak, I\nsay. Go.\n\nAll:\nSpeak!\n", ["First Citizen:\nSpeak, I\nsay.", "Go.", "All:\nSpeak!"]),
        ("Mr. Doe gave it 3.5 stars. e.g. No. 5 was good.", ["Mr. Doe gave it 3.5 stars.", "e.g. No. 5 was good."]),
        ("「はい。」それは良い。次", ["「はい。」", "それは良い。", "次"]),
        ("...", ["..."]),
        (
            "By U.S. customs at 3 p.m. on Monday. In the U.S. It was.",
            ["By U.S. customs at 3 p.m. on Monday.", "In the U.S.", "It was."],
        ),
        ("“Why?” he said. “Go!” We went. (Or did we?) yes", ["“Why?” he said.", "“Go!”", "We went.", "(Or did we?) yes"]),
        ("Wait... What?! “Yes.” (No.)", ["Wait...", "What?!", "“Yes.”", "(No.)"]),
        ("", []),
        ("\n\n", []),
        ("a. " * 3, ["a."] * 3),
    ],
)
def test_sentences(texts_of, text, sentences):
    assert texts_of(text, "sentence") == sentences


@given(st.text(st.sampled_from("aB .!?\n\r\té。"), max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_word_is_lost(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("txt") / "a.txt"
    path.write_bytes(text.encode())
    for documents in ("line", "paragraph", "sentence", "file"):
        assert "".join("".join(read_texts(path, documents)).split()) == "".join(text.split())


@pytest.mark.parametrize("documents", ["paragraph", "sentence", "line"])
def test_the_user_is_told(tmp_path, documents):
    for name, text in (("a.txt", wrap(72)), ("b.txt", "\n".join(REVIEWS))):
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name, which in (
        ("a.txt", f"{tmp_path / 'a.txt'} is hard-wrapped"),
        ("?.txt", "1 of 2 files are hard-wrapped"),
        ("b.txt", ""),
    ):
        workspace = tmp_path / f"work {documents} {name[0] == '?'} {name[0]}"
        workspace.mkdir()
        notes = open_texts(str(tmp_path / name), workspace, documents=documents).notes
        assert len(notes) == bool(which)
        assert all(which in note and ("--documents paragraph" in note) == (documents == "line") for note in notes)


@pytest.mark.parametrize("documents", ["paragraph", "sentence", "line", "file"])
def test_several_processes_read_the_same_texts(tmp_path, monkeypatch, documents):
    monkeypatch.setattr(shards, "_PART_BYTES", 1)
    for number in range(4):
        text = wrap(60 + number) if number % 2 else "\n".join(REVIEWS[number:])
        (tmp_path / f"{number}.txt").write_text(text.replace("tea", f"tea {number}"), encoding="utf-8")
    prints = []
    for workers in ("1", "2"):
        monkeypatch.setenv("REVIEWGEN_WORKERS", workers)
        (tmp_path / workers).mkdir()
        corpus = gather(str(tmp_path / "*.txt"), tmp_path / workers, DataConfig(documents=documents))
        prints.append((corpus.fingerprint, corpus.notes, corpus.report))
    assert prints[0] == prints[1]
    assert prints[0][2].kept > 3


def test_a_hard_wrapped_file_without_blank_lines_between_long_paragraphs(texts_of):
    text = "A Title\n\nBy an Author\n\n" + textwrap.fill(" ".join(PARAGRAPHS), 60, break_on_hyphens=False) + "\n"
    sentences = texts_of(text, "sentence")
    assert sentences[:2] == ["A Title", "By an Author"]
    assert all(sentence in " ".join(PARAGRAPHS) for sentence in sentences[2:]), "lines are joined before sentences are cut"
