"""Every text of a trained model is a haiku, as the counter counts the finished text."""

import pytest
from reviewgen_haiku import LINES, count_syllables

import reviewgen
from reviewgen.errors import ConfigError


def test_100_of_100_texts_are_haiku() -> None:
    model = reviewgen.load("lstm-word")
    texts = model.generate(num_return_sequences=100, seed=1, logits_processor="haiku")
    lines = [text.splitlines() for text in texts]
    assert [tuple(map(count_syllables, each)) for each in lines] == [LINES] * 100
    assert len(set(texts)) > 90


def test_a_haiku_begins_with_its_prompt() -> None:
    model = reviewgen.load("ngram-word")
    text = model.generate_one("The movie", seed=1, logits_processor="haiku")
    assert text.startswith("The movie")
    assert tuple(map(count_syllables, text.splitlines())) == LINES
    with pytest.raises(ConfigError, match="The prompt does not fit"):
        model.generate("A 1 2", logits_processor="haiku")
