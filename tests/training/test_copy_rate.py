"""The copy rate in characters: against a brute-force search, in a training, on the card, and in
folders of earlier versions.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewgen.lexicon.token_bytes import decode_texts
from reviewgen.novelty import count_copied
from reviewgen.rates import area_under_curve
from reviewgen.registry.plugins import find_tokenizer
from tests.support.fakes import LETTERS
from tests.support.trainings import texts_of, trained

REVIEWS = [
    f"{opening}, the {thing} was {how} and I liked the {other} of this film more than anything else"
    f" in it, number {len(opening)}."
    for opening, thing, how, other in itertools.product(
        ("Well", "Honestly", "Très bien", "😀 So"),
        ("movie", "acting", "music", "ending"),
        ("good", "so so"),
        ("theme", "others"),
    )
]


def brute_force(texts: Sequence[str], training: Sequence[str], length: int = 50) -> float | None:
    """Return the copy rate by looking for every window in every training text."""
    total = sum(map(len, texts))
    return sum(covered(text, training, length) for text in texts) / total if total else None


def covered(text: str, training: Sequence[str], length: int = 50) -> int:
    starts = [
        n
        for n in range(len(text) - length + 1)
        if any(text[n : n + length] in other for other in training)
    ]
    return len(set(itertools.chain.from_iterable(range(n, n + length) for n in starts)))


some_texts = st.lists(st.text("aäb😀\x00", max_size=14), max_size=5)


@given(texts=some_texts, training=some_texts, length=st.integers(1, 6))
def test_the_copied_characters_equal_a_brute_force_search(texts, training, length):
    assert count_copied(texts, iter(training), length) == [
        covered(text, training, length) for text in texts
    ]


def copied_share(texts: Sequence[str], training: Sequence[str]) -> float:
    return sum(count_copied(texts, training)) / sum(map(len, texts))


def test_fifty_characters_are_a_copy_also_where_long_texts_are_read_in_parts():
    long = (
        "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals."
    )
    assert copied_share([long[:49]], [long]) == 0.0 and copied_share([long[:50]], [long]) == 1.0
    assert copied_share(["\ud800" * 50], ["a", "\ud800" * 60]) == 1.0
    # is read in parts of 65,536 characters
    book = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 200_000))
    ends = itertools.product((1, 2, 3), range(-60, 10, 7))
    places = [*range(0, 199_000, 1999), *((1 << 16) * n + shift for n, shift in ends)]
    assert copied_share([book[place : place + 60] for place in places], [book]) == 1.0


def test_the_training_text_is_decoded_as_it_was():
    # is decoded in parts of 65,536 tokens
    many = [f"{text} {number}" for number, text in itertools.product(range(30), REVIEWS)]
    char = find_tokenizer("char")[0]
    word = find_tokenizer("word")[0]
    for tokenizer, texts in (
        # which need the byte fallback
        (char.train(many[:30], char.Config()), [*many, "", "ÿ naïve\n line 漢字"]),
        (word.train(many, word.Config(vocab_size=400)), [*many, "", "ÿ naïve\n line 漢字"]),
        (LETTERS, ["bad cafe", "", "a", "head"]),  # does not say which bytes its tokens are
    ):
        framed = [
            np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id], np.uint16)
            for text in texts
        ]
        blocks = [np.concatenate(framed[:2]), np.concatenate(framed[2:])]
        assert [text for text in decode_texts(blocks, tokenizer) if text] == [
            text for text in texts if text
        ]


# In a training.


@pytest.mark.parametrize("form", ["none", "compact"])
@pytest.mark.parametrize(
    "preset, model",
    [("ngram-char", {"order": 14, "smoothing": "none"}), ("ngram-word", {"order": 4})],
    ids=["characters", "words"],
)
def test_a_training_records_the_rates_of_brute_force(preset, model, form, install):
    code = "seen = []\nclass Recorder:\n    unit, lower_is_better = 'texts', False\n"
    code += (
        "    def __call__(self, sample):\n        seen.append(list(sample.texts))\n        return"
        " 0\nrecorder = Recorder()"
    )
    install(
        "reviewgen-fakes",
        {"metrics": {"recorder": "fake_recorder:recorder"}},
        {"fake_recorder": code},
    )
    import fake_recorder

    training = {"copy_tokens": 1600, "metrics": ["recorder"], "novelty": form}
    run, _, trained_model = trained(preset, REVIEWS, model=model, training=training)
    texts = texts_of(run, "train")
    # then 11 for the interval
    generated, held_out = fake_recorder.seen[-13:-11]
    novelty = trained_model.training["novelty"]
    assert novelty["copy_rate"] == brute_force(generated, texts) > 0
    assert novelty["held_out_copy_rate"] == brute_force(held_out, texts) > 0
    assert (novelty["copy_characters"], novelty["form"]) == (50, form)
    low, high = novelty["copy_rate_interval"]
    assert 0 < low < novelty["copy_rate"] < high < 1
    assert novelty["copy_rate_characters"] == sum(map(len, generated)) >= 100_000
    assert novelty["copy_rate_texts"] == len(generated)
    assert (novelty["token_copy_rate"] is None) == (form == "none")
    said = f"Copy rate: {novelty['copy_rate']:.1%} (95 %: {low:.1%} to {high:.1%}) of the"
    assert f"{said} characters" in str(trained_model.generate_model_card())


def test_a_training_without_an_index_and_without_texts_has_no_copy_rate():
    off = {"novelty": "none", "copy_tokens": 0}
    assert trained("ngram-char", REVIEWS, training=off)[2].training["novelty"] is None


@pytest.mark.parametrize(
    "order, low, high", [(16, 0.95, 1.0), (1, 0.3, 0.7)], ids=["copies", "learns no text"]
)
def test_membership_is_high_for_a_model_that_knows_its_training_texts(order, low, high):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh "), 80)) for _ in range(1500)]
    model = {"order": order}
    training = {"copy_tokens": 1600}
    run, _, trained_model = trained("ngram-char", texts, model=model, training=training)
    novelty = trained_model.training["novelty"]
    held_out = texts_of(run, run.corpus.final_split)
    members = texts_of(run, "train")[: len(held_out)]
    assert novelty["membership_texts"] == min(100, len(held_out)) > 50

    # scores of all held-out texts, and of as many training texts, through the public interface
    def bits(text):
        return trained_model.score(text).bits_per_character

    area = area_under_curve(map(bits, held_out), map(bits, members))
    assert low <= novelty["membership"] <= high
    assert low - 0.1 <= area <= high + 0.1
    below, above = novelty["membership_interval"]
    assert below <= novelty["membership"] <= above
    said = f"Membership: {novelty['membership']:.2f} (95 %: {below:.2f} to {above:.2f})"
    assert said in str(trained_model.generate_model_card())


def test_membership_is_not_known_of_few_texts():
    assert "membership" not in trained("ngram-char", REVIEWS)[2].training["novelty"]
