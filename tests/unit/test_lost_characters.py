"""Training says how many characters the tokenizer loses, with an example; it says nothing of a lossless one."""

import pytest

import reviewgen
from reviewgen import registry
from reviewgen.data import lost_characters
from reviewgen.data.lost_characters import LostCharacters
from tests.plugins.faults.tokenizers import Ascii, Bytes

TEXTS = [f"A naïve film, and number {n} of many." for n in range(30)]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry.plugins, "_registered", {})
    registry.register_tokenizer("ascii", Ascii)
    registry.register_tokenizer("bytes", Bytes)


def notes_of(preset, texts):
    return [note for note in reviewgen.train(preset, texts, seed=1).training["notes"] if "loses" in note]


def test_a_lossy_tokenizer_is_counted_with_an_example():
    (note,) = notes_of("ngram-ascii", TEXTS)
    total = sum(map(len, TEXTS))
    assert note.startswith(f"The tokenizer ascii loses 30 of {total:,} characters ({100 * 30 / total:.2g} %): ")
    assert note.endswith("'A naïve film, an' becomes 'A na?ve film, an'.")
    assert len(note) < 500


@pytest.mark.parametrize("tokenizer", ["bytes", "char", "word"])
def test_a_lossless_tokenizer_is_not_mentioned(tokenizer):
    assert notes_of(f"ngram-{tokenizer}", TEXTS) == []


def test_a_large_corpus_is_sampled(monkeypatch):
    monkeypatch.setattr(lost_characters, "_CHECKED_CLOSELY", 100)
    (note,) = notes_of("ngram-ascii", TEXTS)
    assert " of a sample of " in note
    lost, checked = [int(word.replace(",", "")) for word in note.split() if word.replace(",", "").isdecimal()][:2]
    assert 0 < lost < 30
    assert lost * 30 < checked < 200


def test_a_lone_surrogate_can_be_printed():
    assert LostCharacters(1, 9, False, ("a\ud83d", "a")).describe("word").encode()
    assert "\\ud83d" in LostCharacters(1, 9, False, ("a\ud83d", "a")).describe("word")
