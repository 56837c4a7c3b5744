"""txt files as lines, paragraphs, sentences or files; hard-wrapped files are those that textwrap would write."""

import random
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.errors import ConfigError
from tests.support.texts import corpus_of, texts_of, write

SENTENCES = [
    "Mr. Doe and J. R. Roe went to the café on Jan. 3 and ordered 3.5 litres of tea.",
    "It was late, the rain had not stopped since the morning, and nobody in the long street had seen the captain again.",
    "“Will you go back?” she asked.",
    "No!",
    "He thought of e.g. the sea, the ships and the harbour where they had spent so many evenings together before the war.",
]
PARAGRAPHS = [" ".join(random.Random(seed).sample(SENTENCES, 4)) for seed in range(12)]
REVIEWS = [" ".join(random.Random(seed).sample(SENTENCES, 1 + seed % 3)) for seed in range(40)]
VERSE = "The curfew tolls the knell of day\nThe herd winds slowly\nThe ploughman homeward plods his way\nAnd leaves\n\n" * 9
SCENE = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\n"


def wrap(width, paragraphs=PARAGRAPHS):
    return "\n\n".join(textwrap.fill(text, width, break_on_hyphens=False) for text in paragraphs) + "\n"


@pytest.mark.parametrize("width", [40, 60, 72, 75, 80, 100])
def test_the_lines_of_a_hard_wrapped_file_are_joined(tmp_path, width):
    for line_end in ("\n", "\r\n"):
        file = write(tmp_path / "a.txt", wrap(width).replace("\n", line_end))
        assert texts_of(file, documents="paragraph") == PARAGRAPHS
        sentences = texts_of(file, documents="sentence")
        assert sorted(set(sentences)) == sorted(SENTENCES)
        assert " ".join(sentences) == " ".join(PARAGRAPHS)
        assert texts_of(file, documents="line") == wrap(width).split("\n")[:-1]
        assert texts_of(file, documents="file") == [wrap(width)]


def test_what_is_hard_wrapped_is_noted(tmp_path):
    plain = {
        "reviews": "\n".join(REVIEWS),
        "spaced": "\n\n".join(REVIEWS),
        "groups": "\n\n".join("\n".join(REVIEWS[first : first + 5]) for first in range(0, 40, 5)),
        "verse": VERSE,
        "lists": "\n\n".join("- one\n- two\n- three" for _ in range(9)),
        "log": "\n\n".join(
            f"2020-01-0{day} 10:00:00 INFO started.\n2020-01-0{day} 10:00:01 INFO stopped." for day in range(1, 10)
        ),
        "long": "word " * 20_000,
        "paragraph": wrap(72, PARAGRAPHS[:1]),
        "chinese": "一二三四五六七八九十\n" * 60,
        "play": SCENE * 50,
    }
    for name, text in plain.items():
        assert corpus_of(write(tmp_path / f"{name}.txt", text), clean=False).notes == [], name
    file = write(tmp_path / "wrapped.txt", wrap(72))
    for documents in ("line", "paragraph", "sentence"):
        (note,) = corpus_of(file, documents=documents).notes
        assert note.startswith(f"{file} is hard-wrapped") and ("--documents paragraph" in note) == (documents == "line")
        (note,) = corpus_of(str(tmp_path / "[rw]*.txt"), documents=documents).notes
        assert "1 of 2 files are hard-wrapped" in note
    assert "hard-wrapped" in corpus_of(Path(__file__).parents[2] / "LICENSE").notes[0]


def test_sentences(tmp_path):
    for text, sentences in [
        ("One. Two! Three\nFour? Five.", ["One.", "Two!", "Three", "Four?", "Five."]),  # a line for each review
        ("no end\n\n", ["no end"]),
        (" \n\t\n  a.   b. \n", ["a.", "b."]),
        ("First Citizen:\nSpeak, I\nsay. Go.\n\nAll:\nSpeak!\n", ["First Citizen:\nSpeak, I\nsay.", "Go.", "All:\nSpeak!"]),
        ("Mr. Doe gave it 3.5 stars. e.g. No. 5 was good.", ["Mr. Doe gave it 3.5 stars.", "e.g. No. 5 was good."]),
        ("「はい。」それは良い。次", ["「はい。」", "それは良い。", "次"]),
        ("...", ["..."]),
        ("By U.S. customs at 3 p.m. on Monday. In the U.S. It.", ["By U.S. customs at 3 p.m. on Monday.", "In the U.S.", "It."]),
        ("“Why?” he said. “Go!” We went. (Or did we?) yes", ["“Why?” he said.", "“Go!”", "We went.", "(Or did we?) yes"]),
        ("Wait... What?! “Yes.” (No.)", ["Wait...", "What?!", "“Yes.”", "(No.)"]),
        ("a. " * 3, ["a."] * 3),
    ]:
        assert texts_of(write(tmp_path / "a.txt", text), documents="sentence") == sentences


@given(st.text(st.sampled_from("aB .!?\n\r\té。"), max_size=200))
@settings(max_examples=40)
def test_no_word_is_lost(tmp_path_factory, text):
    path = write(tmp_path_factory.mktemp("txt") / "a.txt", "start " + text)
    for documents in ("line", "paragraph", "sentence", "file"):
        assert "".join("".join(texts_of(path, documents=documents)).split()) == "start" + "".join(text.split())


def test_long_and_odd_paragraphs(tmp_path):
    paragraphs = [f"{number} " + "word " * 60_000 + f"\nline {number}" for number in range(40)]  # 12 MB
    assert texts_of(write(tmp_path / "a.txt", "\n\n\n".join(paragraphs)), documents="paragraph") == paragraphs
    text = "A Title\n\nBy an Author\n\n" + textwrap.fill(" ".join(PARAGRAPHS), 60, break_on_hyphens=False) + "\n"
    sentences = texts_of(write(tmp_path / "a.txt", text), documents="sentence")
    assert sentences[:2] == ["A Title", "By an Author"]
    assert all(sentence in " ".join(PARAGRAPHS) for sentence in sentences[2:]), "lines are joined before sentences are cut"


def test_documents_are_for_txt_files(tmp_path):
    for source in (write(tmp_path / "a.csv", "text\na\n"), ["a"], [{"text": "a"}], "owner/name"):
        with pytest.raises(ConfigError, match="documents='file' is for txt files"):
            texts_of(source, documents="file")
    with pytest.raises(ConfigError, match="documents must be"):
        texts_of(["a"], documents="word")
