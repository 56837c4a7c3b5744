"""What models have learned of words and texts, against plain Python: cosines, principal components,
Bayes' rule, states.
"""

import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

from reviewgen.conditions import Condition, Conditions, Value
from reviewgen.errors import ConfigError
from tests.support.fakes import LetterTokenizer, TableModel, review_model
from tests.support.models import EXAMPLES

SVG = "{http://www.w3.org/2000/svg}"


class FourWords(LetterTokenizer):
    """One id for each of four words, with the space before it."""

    def decode(self, ids):
        return "".join(
            [" good", " bad", " film", " very"][number - 2] for number in ids if number >= 2
        )


class Conditioned(TableModel):
    """The same distribution after each token, which depends on the condition: its ids are 6 for not
    given, 7 and 8.
    """

    def __call__(self, ids, state):
        seen = torch.cat([state, ids - 6], dim=1).cummax(dim=1).values
        return self.table[seen[:, 1:]], seen[:, -1:]


class Wavering(Conditioned):
    """What the condition does is reversed in texts that begin with an odd id: on average it does
    nothing.
    """

    def __call__(self, ids, state):
        logits, after = super().__call__(ids, state)
        first = ids[:, min(2, ids.shape[1] - 1), None, None]  # after bos and the condition
        return torch.where(first % 2 == 0, logits, logits[..., [0, 1, 5, 4, 3, 2, 6, 7, 8]]), after


def conditioned(kind, low, high):
    """Return a model of a condition with two values, given the chances of the four words with
    each.
    """
    low, high = torch.tensor([low, high])
    chances = torch.nn.functional.pad(
        torch.stack([(low + high) / 2, low, high]), (2, 3), value=1e-9
    )
    model = review_model(kind(chances.log()), FourWords("gbfv"))
    values = Value(label="low", share=0.3), Value(label="high", share=0.7)
    model.bundle.conditions = Conditions(
        (Condition(name="mood", kind="category", values=values),), first_id=6
    )
    return model


def test_contrast_of_known_probabilities():
    model = conditioned(Conditioned, [0.1, 0.6, 0.2, 0.1], [0.5, 0.1, 0.2, 0.2])
    preferred = {
        value: [(each.word, each.log_ratio) for each in words]
        for value, words in model.contrast("mood", k=2).items()
    }
    assert preferred["low"][0] == ("bad", pytest.approx(math.log2(6), rel=1e-4))
    assert preferred["high"] == [
        ("good", pytest.approx(math.log2(5), rel=1e-4)),
        ("very", pytest.approx(1.0, rel=1e-4)),
    ]


@pytest.mark.parametrize(
    "kind, low, high",
    [
        (Wavering, [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]),
        (Conditioned, [0.252, 0.249, 0.249, 0.25], [0.25, 0.25, 0.25, 0.25]),
    ],
    ids=["within the interval", "shown as +0.0"],
)
def test_contrast_says_that_a_condition_has_no_effect(kind, low, high, monkeypatch, run_command):
    model = conditioned(kind, low, high)
    assert model.contrast("mood") == {"low": [], "high": []}
    monkeypatch.setattr("reviewgen.api.load", lambda name: model)
    status, said, _ = run_command("contrast", "a-model", "mood")
    assert status == 0 and said.startswith("No effect: no value of mood makes a word more probable")


@pytest.mark.wrong_types
def test_classify_is_bayes_of_scores_and_accuracy_counts_it(micro, model_folder, run_command):
    model = micro("conditional")
    texts = [each["text"] for each in EXAMPLES]
    right = 0
    (stars,) = model.conditions
    found = model.classify(iter(texts), "stars")
    for example, each in zip(EXAMPLES, found, strict=True):
        bits = [
            model.score(example["text"], conditions={"stars": value.label}).bits
            for value in stars.values
        ]
        weights = [
            value.share * 2 ** (min(bits) - own)
            for value, own in zip(stars.values, bits, strict=True)
        ]
        assert list(each.probabilities.values()) == pytest.approx(
            [one / sum(weights) for one in weights], rel=1e-3
        )
        right += each.value == stars.values[stars.find(example["stars"])].label
    accuracy = model.accuracy(EXAMPLES, "stars")
    assert (accuracy.accuracy, accuracy.texts) == (
        right / len(texts),
        len(texts),
    ) and accuracy.baseline >= 0.2
    # sorted by label
    sampled = model.accuracy(
        [{"text": f"f {n}", "stars": 1 + n // 1000} for n in range(2000)], "stars"
    )
    assert sampled.texts == 1000 and 0.5 <= sampled.baseline < 0.6
    command = (
        "classify",
        model_folder("conditional"),
        "--condition",
        "stars",
        "--text",
        texts[0],
        "--json",
    )
    status, out, _ = run_command(*command)
    assert status == 0 and json.loads(out)["probabilities"] == pytest.approx(
        dict(found[0].probabilities), rel=1e-4
    )


def test_neighbours_of_a_blend_are_those_of_its_network(micro):
    blend = micro("blend-char")
    [network] = [each for each in blend.model.components if isinstance(each, nn.Module)]
    table = network.embedding.weight.detach().numpy()
    near = [neighbour.word for neighbour in blend.neighbours("m", k=3)]
    [own] = blend.tokenizer.encode("m")
    cosines = table @ table[own] / np.linalg.norm(table, axis=1) / np.linalg.norm(table[own])
    first = max(
        (n for n in range(len(table)) if n != own and blend.tokenizer.decode([n]) == near[0]),
        key=cosines.__getitem__,
    )
    assert cosines[first] == pytest.approx(blend.neighbours("m", k=1)[0].cosine, abs=1e-5)


def test_neighbours_and_map_of_plain_python(micro, model_folder, run_command):
    model = micro("lstm-char")
    weights = model.model.embedding.weight[: model.tokenizer.vocab_size].double().tolist()
    rows = {model.tokenizer.decode([number]): row for number, row in enumerate(weights)}
    table = {text: row for text, row in rows.items() if text.strip() and "\ufffd" not in text}

    def cosine(one, other):
        return (
            sum(a * b for a, b in zip(one, other, strict=True))
            / math.hypot(*one)
            / math.hypot(*other)
        )

    expected = sorted(
        ((cosine(row, table["m"]), text) for text, row in table.items() if text not in "mM"),
        reverse=True,
    )[:5]
    found = [(each.cosine, each.word) for each in model.neighbours("m", k=5)]
    assert found == [(pytest.approx(value, rel=1e-4), text) for value, text in expected]
    words = model.word_map(words=20)
    vectors = np.array([table[word] for word in words.words])
    centred = vectors - vectors.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    np.testing.assert_allclose(abs(words.points), abs(centred @ axes), rtol=1e-3, atol=1e-4)
    assert words.to_svg().count("<text") == len(words.words) == 20
    assert run_command("neighbours", model_folder("lstm-char"), "m")[1].split()[1] == found[0][1]


def test_one_text_gives_what_a_list_of_it_has(micro):
    model = micro("conditional")
    assert model.classify("a fine record", "stars") == model.classify(["a fine record"], "stars")[0]
    np.testing.assert_array_equal(model.embed("a fine record"), model.embed(["a fine record"])[0])
    assert model.score(["a fine record", "b"], "the ") == [
        model.score("a fine record", "the "),
        model.score("b", "the "),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("count", [600, pytest.param(900, marks=pytest.mark.slow)])
def test_a_map_of_many_words_has_all_of_them_inside_the_picture(micro, count):
    points = np.random.default_rng(0).standard_normal((count, 2)).astype(np.float32)
    words = [f"w{number}" + "e" * (number % 9) for number in range(count)]
    word_map = replace(micro("lstm-char").word_map(), words=words, points=points)
    picture = ElementTree.fromstring(word_map.to_svg())
    across, up = map(float, picture.get("viewBox").split()[2:])
    middles = [(float(text.get("x")), float(text.get("y"))) for text in picture.iter(f"{SVG}text")]
    assert len(middles) == count
    assert [(x, y) for x, y in middles if not (0 < x < across - 16 and 0 < y < up - 16)] == []


def test_a_map_of_words_at_one_point_has_all_of_them(micro):
    word_map = replace(
        micro("lstm-char").word_map(), words=["film"] * 50, points=np.zeros((50, 2), np.float32)
    )
    picture = word_map.to_svg()
    assert len(set(re.findall(r'<text class="word" (x="\S+" y="\S+")', picture))) == 50


def test_embed_is_the_mean_of_the_states_of_a_loop(micro):
    model = micro("lstm-word")
    texts = ["the movie was good", "a", "the plot and the music and the theme were so so " * 3]
    for text, vector in zip(texts, model.embed(texts), strict=True):
        states = []
        state = model.model.initial_state(1)
        for token in [model.tokenizer.bos_id, *model.tokenizer.encode(text)]:
            _, state = model.model(torch.tensor([[token]]), state)
            states.append(torch.cat([part.flatten() for part in state]))
        np.testing.assert_allclose(
            vector, torch.stack(states[1:]).mean(0).detach(), rtol=1e-4, atol=1e-5
        )


def test_what_does_not_apply_is_one_sentence(micro):
    for name, method, arguments, message in (
        ("ngram-word", "neighbours", ["movie"], "no embeddings"),
        ("ngram-word", "embed", [["movie"]], "no hidden state"),
        ("nnlm-char", "embed", [["movie"]], "no hidden state"),
        ("conditional", "contrast", ["stars"], "characters"),
        ("conditional", "classify", [["a"], "mood"], "stars"),
        ("gru-char", "accuracy", [["a"], "mood"], "has none"),
        ("lstm-word", "neighbours", [" "], "empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            getattr(micro(name), method)(*arguments)
