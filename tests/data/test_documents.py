"""txt files as lines, paragraphs, sentences or files; hard-wrapped files are those that textwrap would write."""

import random
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.texts import texts_of, write

SENTENCES = [
    "Mr. Doe and J. R. Roe went to the café on Jan. 3 and ordered 3.5 litres of tea.",
    "It was late, the rain had not stopped since the morning, and nobody in the long street had seen the captain again.",
    "“Will you go back?” she asked.",
    "No!",
    "He thought of e.g. the sea, the ships and the harbour where they had spent so many evenings together before the war.",
]
PARAGRAPHS = [" ".join(random.Random(seed).sample(SENTENCES, 4)) for seed in range(12)]


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
