"""``ReviewModel.next_tokens``, the walk and ``reviewgen play``: what a model expects next, and a text taken along it."""

import io
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from reviewgen_ngram.model import Ngram, NgramConfig

from reviewgen.errors import ConfigError, GenerationError
from tests.support.brute_ngram import BruteNgram
from tests.support.fakes import (
    LETTERS,
    NGRAM,
    LetterTokenizer,
    QueueModel,
    TableModel,
    review_model,
    run_command,
    table,
    train_tiny,
)
from tests.unit.test_lazy import RUN, loaded

LINES = ["a bad cab", "a bad bag", "feed a bee", "a cage", "bad beef"] * 3 + ["gab a face", "he had a bag", "a head"]
ROOT = Path(__file__).parents[2]
IDS = [[0, *LETTERS.encode(line), 1] for line in LINES]


class PairTokenizer(LetterTokenizer):
    """Spells each "ab" by one id, the last."""

    def __init__(self) -> None:
        super().__init__("ab")
        self.vocab_size = 5

    def encode(self, text):
        return [4 if piece == "X" else 2 + "ab".index(piece) for piece in text.replace("ab", "X")]

    def decode(self, ids):
        return "".join(["", "", "a", "b", "ab"][i] for i in ids)


def ngram(smoothing="kneser-ney", order=4, **more):
    model = Ngram(NgramConfig(vocab_size=LETTERS.vocab_size, order=order, smoothing=smoothing, **more))
    for text in IDS:
        model.observe(np.array(text, np.int64))
    model.finish()
    return review_model(model, LETTERS)


@pytest.fixture(scope="module")
def random_model():
    return review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("play")
    train_tiny("ngram-char", place / "cache", LINES * 2, **NGRAM).save_pretrained(place / "model")
    return place / "model"


@pytest.fixture
def play(folder, monkeypatch, capsys):
    def run(*lines, words=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return run_command(monkeypatch, capsys, "play", folder, "--seed", 3, *words)

    return run


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2])
def test_the_probabilities_are_the_softmax_of_the_plain_call_without_bos(random_model, temperature):
    found = random_model.next_tokens("bad", k=100, temperature=temperature)
    ids = torch.tensor([[0, *LETTERS.encode("bad")]])
    logits = random_model.model(ids, random_model.model.initial_state(1))[0][0, -1].double()
    logits[0] = -math.inf
    expected = (logits / temperature).softmax(-1)
    got = {each.token: each.probability for each in found.alternatives}
    assert got == pytest.approx({n: float(expected[n]) for n in range(1, LETTERS.vocab_size)}, abs=1e-12)
    assert [each.bits for each in found.alternatives] == sorted(-math.log2(p) for p in got.values())
    assert found.entropy_bits == pytest.approx(-sum(p * math.log2(p) for p in got.values()))
    assert found.possible == LETTERS.vocab_size - 1 and (found.tokens, found.text) == (3, "bad")
    assert [each.shown for each in found.alternatives if each.is_end] == ["(end)"]
    assert found.contexts == () and found.alternatives[0].support is None


def test_a_certain_model_has_no_entropy():
    found = review_model(QueueModel([3, 4], LETTERS), LETTERS).next_tokens()
    assert (found.entropy_bits, found.possible, len(found.alternatives)) == (0.0, 1, 1)
    assert (found.alternatives[0].text, found.alternatives[0].bits) == ("b", 0.0)


@pytest.mark.parametrize("smoothing", ["kneser-ney", "witten-bell", "none"])
@pytest.mark.parametrize("text", ["", "a b", "bad", "ggg"])
def test_an_ngram_agrees_with_brute_force(smoothing, text):
    brute, history = BruteNgram(IDS, LETTERS.vocab_size, 4, smoothing), [0, *LETTERS.encode(text)]
    found = ngram(smoothing).next_tokens(text, k=LETTERS.vocab_size)
    expected = {n: p for n in range(1, LETTERS.vocab_size) if (p := brute.probability(n, history)) > 0}
    assert {each.token: each.probability for each in found.alternatives} == pytest.approx(expected, rel=1e-5)
    assert found.possible == len(expected)
    for each in found.alternatives:
        orders = [
            n
            for n in range(min(4, len(history) + 1), 0, -1)
            if each.token in brute.after.get(tuple(history[len(history) - n + 1 :]), {})
        ]
        assert each.support.order == (orders[0] if orders else 0)
        assert sum(each.support.shares) <= 1 + 1e-6
        if smoothing == "none":
            assert each.support.shares[0] == pytest.approx(1) and each.support.count is None


def test_the_counts_behind_an_ngram():
    found = ngram("witten-bell").next_tokens(" ba")
    after = Counter(line[at + 3 : at + 4] for line in LINES for at in range(len(line)) if line[at : at + 3] == " ba")
    context = found.contexts[0]
    assert (context.tokens, context.text, context.total, context.unit) == (3, " ba", after.total(), "occurrences")
    counts = {each.text: each.support.count for each in found.alternatives if each.support.order == 4}
    assert counts == dict(after)
    start = ngram().next_tokens().contexts[0]
    assert (start.tokens, start.text, start.is_start, start.unit) == (1, "", True, "occurrences")


def test_any_text_works(tmp_path):
    model = train_tiny("ngram-char", tmp_path, **NGRAM)
    found = model.next_tokens("日本 \x00")
    assert found.text == "日本 \x00"
    assert sum(each.probability for each in model.next_tokens("日", k=500).alternatives) == pytest.approx(1)
    assert model.next_tokens("the movie was").alternatives[0].shown == "␣"
    json.dumps(found.facts(), allow_nan=False)


def test_conditions_stand_before_the_text(tmp_path, monkeypatch, capsys):
    rows = [{"text": f"{'aaa' if stars == 5 else 'bbb'} {n}", "stars": stars} for n in range(20) for stars in (1, 5)]
    model = train_tiny("ngram-char", tmp_path / "cache", rows, conditions=("stars",), **NGRAM)
    best = [model.next_tokens(conditions={"stars": stars}).alternatives[0].text for stars in (1, 5)]
    assert best == ["b", "a"]
    found = model.next_tokens("aa", k=500, conditions={"stars": 5})
    assert (found.text, found.tokens) == ("aa", 2) and found.contexts[0].is_start and found.contexts[0].text == "aa"
    assert all(0 <= sum(each.support.shares) <= 1 + 1e-6 for each in found.alternatives)
    assert sum(each.probability for each in found.alternatives) == pytest.approx(1)
    with pytest.raises(ConfigError, match="is not a condition"):
        model.next_tokens(conditions={"star": 5})
    model.save_pretrained(tmp_path / "model")
    status, out, _ = run_command(monkeypatch, capsys, "play", tmp_path / "model", "--condition", "stars=1", "--json")
    assert status == 0 and json.loads(out)["alternatives"][0]["text"] == "b"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "at least 1; got 0"),
        ({"k": True}, "at least 1; got True"),
        ({"temperature": 0}, "above 0; got 0"),
        ({"temperature": math.nan}, "above 0; got nan"),
    ],
)
def test_bad_arguments_get_one_sentence(random_model, options, said):
    with pytest.raises(ConfigError, match=said):
        random_model.next_tokens("", **options)


def test_what_no_annotation_lets_through_gets_a_sentence_without_the_hook():
    script = """
import torch
from reviewgen.errors import ConfigError
from tests.support.fakes import LETTERS, TableModel, review_model, table
for given in ({"text": 5}, {"text": None}, {"k": 1.5}, {"k": "3"}, {"temperature": "1"}):
    try:
        review_model(TableModel(table(LETTERS.vocab_size)), LETTERS).next_tokens(**given)
    except ConfigError as problem:
        print(problem)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["The", "The", "k,", "k,", "temperature"]


@pytest.mark.parametrize(("logit", "said"), [(math.nan, "weights are damaged"), (-math.inf, "no token can follow")])
def test_logits_of_which_none_can_be_drawn(logit, said):
    with pytest.raises(GenerationError, match=said):
        review_model(TableModel(torch.full((LETTERS.vocab_size,) * 2, logit)), LETTERS).next_tokens()


def test_a_walk_goes_forward_and_back(random_model):
    walk = random_model.walk("ba", seed=1)
    start = walk.next_tokens()
    walk.take(LETTERS.encode("d")[0])
    walk.write(" bee")
    assert walk.text == "bad bee" and walk.next_tokens() == random_model.next_tokens("bad bee")
    assert walk.undo() and walk.text == "bad"
    assert walk.undo() and walk.next_tokens() == start
    assert not walk.undo()
    walk.draw(5)
    again = random_model.walk("ba", seed=1)
    again.draw(5)
    assert again.text == walk.text and walk.undo() and walk.text == "ba"


def test_draws_follow_the_probabilities(random_model):
    expected = {each.token: each.probability for each in random_model.next_tokens("a", k=100, temperature=2.0).alternatives}
    walk, drawn = random_model.walk("a", temperature=2.0, seed=0), Counter()
    for _ in range(4000):
        walk.draw()
        drawn[1 if walk.has_ended else LETTERS.encode(walk.text)[-1]] += 1
        walk.undo()
    assert all(abs(drawn[token] / 4000 - p) < 0.04 for token, p in expected.items())


def test_typed_text_is_spelled_with_what_stands_before():
    model = review_model(TableModel(table(5)), PairTokenizer())
    walk = model.walk("a")
    walk.write("b")
    assert walk.next_tokens() == model.next_tokens("ab") and walk.next_tokens().tokens == 1
    walk.take(2)
    walk.take(3)
    walk.write("a")  # the tokens taken are not the tokenizer's own spelling, and stay
    assert walk.text == "ababa" and walk.next_tokens().tokens == 4


def test_a_failed_step_changes_nothing(random_model):
    walk = random_model.walk("bad")
    for step in (lambda: walk.take(0), lambda: walk.take(99), lambda: walk.write("!"), lambda: walk.draw(0)):
        with pytest.raises(ConfigError):
            step()
    walk.take(1)
    assert walk.has_ended
    for step in (walk.draw, walk.next_tokens, lambda: walk.write("a"), lambda: walk.take(3)):
        with pytest.raises(GenerationError, match="has ended"):
            step()
    assert walk.undo() and walk.text == "bad" and not walk.has_ended


def test_playing_picks_types_draws_and_undoes(play):
    status, out, notes = play("+ca", "b", "1", "u", "u", '"b a"', "d 3", "u", "", "u", "q", words=["--prompt", "a "])
    assert status == 0 and out.splitlines()[-1] == "> a cab a"
    assert "entropy" in out and "possible tokens" in out and "looks back at" in out
    assert notes.count("\n") == 1  # the hint


def test_playing_ends_with_the_pipe_and_prints_the_text(play):
    status, out, _ = play("+5", "+u", "+", "d", words=["--prompt", "bad "])
    assert status == 0 and out.splitlines()[-1].startswith("bad 5u")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("99", "99 is not in the table"),
        ("u", "no step to undo"),
        ('"\\x"', "adds no text"),
        ("d 0", "got 0"),
        ("?", "Ctrl-D"),
    ],
)
def test_a_bad_command_loses_nothing(play, line, said):
    status, out, notes = play(line, "q", words=["--prompt", "a bad"])
    assert status == 0 and said in notes and out.splitlines()[-1] == "> > a bad"


def test_an_ended_review_can_be_taken_back(play):
    status, out, notes = play("d 999", "", "u", "q", words=["--prompt", "a bad bag"])
    assert status == 0 and "The review ends here" in out and "has ended" in notes
    assert out.splitlines()[-1].endswith("a bad bag")


def test_an_interrupt_prints_the_text(play, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    status, out, _ = play(words=["--prompt", "a bad"])
    assert status == 0 and out.splitlines()[-1] == "a bad"


def test_json_is_what_the_library_says(play, folder):
    import reviewgen

    status, out, _ = play(words=["--prompt", "a b", "--k", 3, "--json"])
    expected = reviewgen.load(folder).next_tokens("a b", k=3).facts()
    assert status == 0 and json.loads(out) == {"model": str(folder)} | json.loads(json.dumps(expected))


def test_bad_options_get_one_sentence(play):
    for words in (["--k", 0], ["--temperature", 0], ["--seed", -1]):
        status, _, notes = play(words=words)
        assert status == 2 and notes.splitlines()[-1].startswith("error: ")


def test_a_saved_ngram_plays_without_torch_and_help_loads_nothing(folder):
    assert "torch" not in loaded(RUN.format(words=["play", str(folder), "--json"]).replace("main()", "print(); main(); print()"))
    assert loaded(RUN.format(words=["play", "--help"])) == set()
