"""``probe``: agreement of models that follow a rule, bits against a loop over single tokens, and
the marks of given texts.
"""

import itertools
import json

import pytest
import torch

import reviewgen
from reviewgen.errors import DataError
from tests.support.browser import problems
from tests.support.fakes import (
    LetterTokenizer,
    QueueModel,
    TableModel,
    brute_bits,
    review_model,
)

SINGULAR = ["is", "was", "has", "looks"]
PLURAL = ["are", "were", "have", "look"]
KINDS = [
    "agreement",
    "agreement past an attractor",
    "agreement past a relative clause",
    "a word remembered",
]
LETTERS = LetterTokenizer("".join(map(chr, range(32, 127))))


class Words(LetterTokenizer):
    """One id for each word, given when it is seen first; verbs come first."""

    def __init__(self):
        self.words = ["", "", *SINGULAR, *PLURAL]
        self.vocab_size = 200

    def encode(self, text):
        own = text.replace(".", " .").split()
        self.words += [word for word in dict.fromkeys(own) if word not in self.words]
        return [self.words.index(word) for word in own]


class LastNoun(TableModel):
    """The verb after a noun agrees with it, whatever noun stands before; with the weight -1 it
    disagrees.
    """

    def __init__(self, words, weight):
        super().__init__(torch.zeros(words.vocab_size, words.vocab_size))
        self.words = words.words
        self.weight = weight

    def __call__(self, ids, state):
        for number, word in enumerate(self.words):
            is_plural = word in ("men", "women") or (word[-1:] == "s" and word not in SINGULAR)
            self.table[number, 6:10] = self.weight * 5.0 * is_plural
        self.table[:, 2:6] = self.weight  # where no plural is near
        return super().__call__(ids, state)


@pytest.mark.parametrize("weight, near, past", [(1, 1.0, 0.0), (-1, 0.0, 1.0), (0, 0.5, 0.5)])
def test_agreement_of_models_that_follow_a_rule(weight, near, past):
    words = Words()
    rows = reviewgen.probe(review_model(LastNoun(words, weight), words), texts=0).rows
    assert [(row.probe, row.share, row.count) for row in rows] == list(
        zip(KINDS, [near, past, past, 0.5], [60] * 4, strict=True)
    )


def test_own_pairs_are_those_of_a_loop_over_tokens_and_of_the_command(
    micro, model_folder, browser, tmp_path, run_command
):
    model = micro("gru-char")
    things = ["movie", "acting", "music", "ending", "plot", "theme"]
    pairs = [
        {"sentence_good": f"the {a} was so", "sentence_bad": f"the {b} was bad", "UID": "u"}
        for a, b in itertools.product(things, repeat=2)
    ]

    sentences = {f"the {a} was {how}" for a, how in itertools.product(things, ("so", "bad"))}
    bits = {text: sum(brute_bits(model, text)[:-1]) for text in sentences}  # without the end
    expected = sum(
        bits[pair["sentence_good"]] < bits[pair["sentence_bad"]] for pair in pairs
    ) / len(pairs)
    rows = reviewgen.probe([model, model], pairs=pairs, texts=0).rows
    assert [(row.probe, row.share, row.count) for row in rows] == [
        ("u", expected, 36)
    ] * 2 and rows[0].model != rows[1].model
    file = tmp_path / "pairs.jsonl"
    page = tmp_path / "page.html"
    file.write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    options = "--pairs", file, "--plot", tmp_path / "chart.svg", "--html", page, "--json"
    status, out, _ = run_command("probe", model_folder("gru-char"), *options)
    assert status == 0 and json.loads(out)["rows"][0]["share"] == expected
    assert problems(browser, page, 390, "dark") == []
    with pytest.raises(DataError, match="Row 2"):
        reviewgen.probe(model, pairs=[pairs[0], {"sentence_good": "a"}])


def test_marks_of_known_texts_and_words_that_a_model_does_not_know(micro):
    model = review_model(QueueModel(LETTERS.encode('(a) (b "c" "d'), LETTERS), LETTERS)
    assert [(row.share, row.count) for row in reviewgen.probe(model, texts=12).rows[4:]] == [
        (0.5, 24)
    ] * 2
    rows = reviewgen.probe(micro("gru-word"), texts=0).rows
    assert [(row.probe, row.share, row.describe()) for row in rows] == [
        (kind, None, "not known") for kind in KINDS
    ]
