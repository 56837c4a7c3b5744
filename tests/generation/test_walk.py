"""``ReviewModel.next_tokens``, the walk and ``reviewgen play``: what a model expects next, and a
text taken along it.
"""

import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest
import torch

from tests.support.fakes import LETTERS, QueueModel, TableModel, review_model, table
from tests.support.ngrams import counted

V = LETTERS.vocab_size
MODEL = review_model(TableModel(table(V)), LETTERS)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2])
def test_the_probabilities_are_the_softmax_of_the_plain_call_without_bos(temperature):
    found = MODEL.next_tokens("bad", k=100, temperature=temperature)
    inner = MODEL.model
    logits = inner(torch.tensor([[0, *LETTERS.encode("bad")]]), inner.initial_state(1))[0][
        0, -1
    ].double()
    logits[0] = -math.inf
    expected = (logits / temperature).softmax(-1)
    got = {each.token: each.probability for each in found.alternatives}
    assert got == pytest.approx({n: float(expected[n]) for n in range(1, V)}, abs=1e-12)
    assert [each.bits for each in found.alternatives] == sorted(-math.log2(p) for p in got.values())
    assert found.entropy_bits == pytest.approx(-sum(p * math.log2(p) for p in got.values()))
    assert found.possible == V - 1 and (found.tokens, found.text) == (3, "bad")
    assert [each.shown for each in found.alternatives if each.is_end] == ["(end)"]


def test_a_certain_token_has_no_entropy():
    certain = review_model(QueueModel([3, 4], LETTERS), LETTERS).next_tokens()
    assert (certain.entropy_bits, certain.possible, certain.alternatives[0].text) == (0.0, 1, "b")


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2])
def test_a_walk_draws_tokens_as_often_as_they_are_probable(temperature):
    alternatives = MODEL.next_tokens("bad", k=100, temperature=temperature).alternatives
    walk = MODEL.walk("bad", temperature=temperature, seed=0)
    drawn = Counter[int]()
    for _ in range(1500):
        walk.draw()
        drawn[1 if walk.has_ended else LETTERS.encode(walk.text)[-1]] += 1
        walk.undo()
    for each in alternatives:
        assert abs(drawn[each.token] / 1500 - each.probability) < 0.05


def test_an_n_gram_shows_how_often_a_token_came_after_the_text():
    """Its parts are compared with dictionaries in ``tests/plugins``."""
    lines = ["a bad cab", "a bad bag", "feed a bee"] * 3 + ["gab a face", "he had a bag"]
    found = review_model(counted(lines, order=4, smoothing="witten-bell"), LETTERS).next_tokens(
        " ba"
    )
    pieces = chain.from_iterable(line.split(" ba")[1:] for line in lines)
    after = Counter(piece[:1] for piece in pieces)
    context = found.contexts[0]
    assert (context.tokens, context.text, context.total, context.unit) == (
        3,
        " ba",
        after.total(),
        "occurrences",
    )
    assert {
        each.text: each.support.count for each in found.alternatives if each.support.order == 4
    } == dict(after)  # type: ignore[union-attr]


def test_a_walk_goes_forward_and_back():
    walk = MODEL.walk("ba", seed=1)
    start = walk.next_tokens()
    walk.take(LETTERS.encode("d")[0])
    walk.write(" bee")
    assert walk.text == "bad bee" and walk.next_tokens() == MODEL.next_tokens("bad bee")
    assert walk.undo() and walk.text == "bad"
    assert walk.undo() and walk.next_tokens() == start and not walk.undo()
    walk.draw(5)
    again = MODEL.walk("ba", seed=1)
    again.draw(5)
    assert again.text == walk.text and walk.undo() and walk.text == "ba"


def test_playing_picks_types_samples_and_undoes(micro, model_folder, monkeypatch, run_command):
    def play(*lines: str, words: Sequence[Any] = ("--prompt", "the ")) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return run_command("play", model_folder("ngram-char"), "--seed", 3, *words)

    status, out, notes = play("+mo", "v", "1", "u", "u", '"s a"', "d 3", "u", "", "u", "q")
    # the hint
    assert (
        status == 0
        and out.splitlines()[-1] == "> the mos a"
        and "entropy" in out
        and notes.count("\n") == 1
    )
    status, out, _ = play("+5", "+u", "+", "d", words=["--prompt", "bad "])  # the pipe ends
    assert status == 0 and out.splitlines()[-1].startswith("bad 5u")
    status, out, notes = play("d 999", "", "u", "q")
    assert (
        status == 0
        and "The review ends here" in out
        and "has ended" in notes
        and out.splitlines()[-1].endswith("the ")
    )
    status, out, _ = play(words=["--prompt", "the m", "--k", 3, "--json"])
    facts = json.loads(json.dumps(micro("ngram-char").next_tokens("the m", k=3).to_dict()))
    assert status == 0 and json.loads(out) == {"model": str(model_folder("ngram-char"))} | facts
