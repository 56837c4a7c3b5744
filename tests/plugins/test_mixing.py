"""The mixing model: against the same in plain Python, the laws of each of its settings, and what a
text may change, which is its own state only.
"""

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from reviewgen_mixing import training
from reviewgen_mixing.config import TECHNIQUES
from reviewgen_mixing.stepping import MixingStepper
from torch import Tensor

import reviewgen
from reviewgen.compiled import feed
from reviewgen.errors import ConfigError, TrainingError
from reviewgen.testing import check_model, check_stepper, make_model
from reviewgen.training.counting import train_by_counting
from tests.support.brute_mixing import BruteMixing
from tests.support.mixtures import (
    Mixing,
    Prose,
    count_mixing,
    ids_of,
    make_prose,
    random_expert,
    score_of,
    with_expert,
)
from tests.support.trainings import TRAINING

FROZEN = {"local_slots": 0, "adapt_weights": False}
MANY_SLOTS = {"local_slots": 1 << 20}  # no slot of a short text is replaced
SETTINGS: dict[str, dict[str, Any]] = {
    "whole": {},
    "conditions": {"condition_ids": 2},
    "text kept": {"keep_text": True},
    "frozen": FROZEN,
    "counts only": {"adapt_weights": False},
    "not gated": {"gated": False},
    "no maps": {"maps": False},
    "no words": {"words": False},
    "not sparse": {"sparse": False},
    "frequent slots": {"min_count": 3},
}


@functools.cache
def prose(name: str, characters: int = 6000) -> Prose:
    """Return a model with some of the ``SETTINGS``, and its texts."""
    settings = (MANY_SLOTS if characters == 6000 else {}) | SETTINGS[name]
    return Prose(characters, **settings)


def query_of(corpus: Prose) -> list[int]:
    """Return a text that repeats itself and the training text, with symbols that are rare."""
    known = corpus.texts[3]
    text = f"{known} {known[:50]}\nÉté ß, {corpus.texts[5][:20]}"
    return corpus.spell(text.replace("t", "o", 1))


def assert_equal(log_probs: Tensor, expected: np.ndarray, rare: float = 1e-4) -> None:
    """Compare log probabilities. float32 has few digits for 1 - p if p is near one, so those of
    rare symbols are compared as probabilities. A subtree of about ``rare`` may be divided by the
    frequencies of its symbols in one of the two, and by their decisions in the other.
    """
    actual = log_probs.double().numpy()
    is_common = expected > np.log(rare)
    np.testing.assert_allclose(
        np.exp(actual[is_common]), np.exp(expected[is_common]), rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(np.exp(actual), np.exp(expected), rtol=0, atol=rare)
    is_likely = expected > np.log(1e-3)
    np.testing.assert_allclose(actual[is_likely], expected[is_likely], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_predicts_what_plain_python_predicts(name):
    corpus = prose(name)
    text = query_of(corpus)
    logits, _ = corpus.model(ids_of(text), corpus.model.initial_state(1))
    brute = BruteMixing(corpus.model.config, corpus.model.state_dict())
    expected = []
    lengths = []
    for symbol in text:
        brute.read(symbol)
        expected.append(brute.log_probabilities())
        lengths.append([brute.match[1], brute.copy[1]])
    assert_equal(logits[0], np.array(expected))
    taken = logits[0, range(len(text) - 1), text[1:]]
    scores = score_of(corpus.model, text)
    torch.testing.assert_close(scores, taken, rtol=0, atol=1e-5)
    # the text has what can go wrong: matches, rare subtrees
    assert max(lengths)[0] >= (16 if corpus.model.config.local_slots else 0)
    assert max(length for _, length in lengths) >= (16 if corpus.model.config.keep_text else 0)
    assert taken.exp().min() < brute.rare


def test_predicts_with_an_expert_what_plain_python_predicts():
    corpus = prose("whole")
    model = with_expert(corpus.model, [corpus.spell(text) for text in corpus.texts[:10]])
    text = query_of(corpus)
    expert = random_expert(len(text), corpus.vocab_size, 77)
    logits, _ = model.call_with_expert(ids_of(text), expert[None], model.initial_state(1))
    brute = BruteMixing(model.config, model.state_dict())
    expected = []
    for symbol, log_probs in zip(text, expert.numpy(), strict=True):
        brute.read(symbol)
        brute.hear(log_probs)
        expected.append(brute.log_probabilities())
    assert_equal(logits[0], np.array(expected))


@pytest.mark.parametrize("vocab_size, length", [(400, 62), (5_000, 12)])
def test_predicts_many_symbols_as_plain_python_does(vocab_size, length):
    # with more than 256 decisions, a text does not change the weights of single decisions, and more
    # subtrees are divided by frequencies
    rng = np.random.default_rng(0)
    texts = [[0, *(2 + rng.zipf(1.3, 30) % (vocab_size - 2)).tolist(), 1] for _ in range(100)]
    model = count_mixing(texts, vocab_size, **MANY_SLOTS)
    text = (texts[0][:-1] + texts[0][1:])[:length]
    logits, _ = model(ids_of(text), model.initial_state(1))
    brute = BruteMixing(model.config, model.state_dict())
    expected = []
    for symbol in text:
        brute.read(symbol)
        expected.append(brute.log_probabilities())
    assert_equal(logits[0], np.array(expected), brute.rare)
    assert (logits[0].double().exp().sum(-1) - 1).abs().max() < 1e-6
    taken = logits[0, range(length - 1), text[1:]]
    torch.testing.assert_close(score_of(model, text), taken, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["whole", "frozen", "conditions", "text kept"])
def test_probabilities_sum_to_one(name):
    corpus = prose(name, 60_000)
    text = corpus.spell(" ".join(make_prose(2_000, 1)))
    logits, _ = corpus.model(ids_of(text), corpus.model.initial_state(1))
    places = np.random.default_rng(0).choice(len(text), 1_000, replace=False)
    sums = logits[0, places].double().exp().sum(-1)
    assert (sums - 1).abs().max() < 1e-6


def test_probabilities_sum_to_one_with_an_expert():
    corpus = prose("whole", 60_000)
    model = with_expert(corpus.model, [corpus.spell(text) for text in corpus.texts[:20]])
    text = corpus.spell(" ".join(make_prose(1_000, 1)))
    expert = random_expert(len(text), corpus.vocab_size, 5)
    logits, _ = model.call_with_expert(ids_of(text), expert[None], model.initial_state(1))
    assert (logits[0].double().exp().sum(-1) - 1).abs().max() < 1e-6


def test_nothing_of_a_text_is_left_for_the_next():
    corpus = prose("whole", 60_000)
    texts = [corpus.spell(text) for text in make_prose(1_500, 1)]
    alone = [score_of(corpus.model, text) for text in texts]
    for number in [*reversed(range(len(texts))), 0, 0]:
        assert torch.equal(score_of(corpus.model, texts[number]), alone[number])
    width = max(map(len, texts))
    batch = torch.tensor([text + [1] * (width - len(text)) for text in texts])
    state = corpus.model.initial_state(len(batch))
    scores, _ = corpus.model.score(batch[:, :-1], batch[:, 1:], state)
    for row, expected in zip(scores, alone, strict=True):
        assert torch.equal(row[: len(expected)], expected)
    # a text that follows another in the same state begins again at bos
    both = score_of(corpus.model, texts[0] + texts[1])
    assert torch.equal(both[len(texts[0]) :], alone[1])
    prose("frozen", 60_000)  # another model
    assert torch.equal(score_of(corpus.model, texts[0]), alone[0])


@pytest.mark.parametrize("name", ["whole", "frozen", "counts only"])
def test_a_stepper_does_not_change_the_state_that_it_starts_from(name):
    corpus = prose(name)
    ids = ids_of(corpus.spell("Kalo kalo kalo.")).numpy()
    for model in (corpus.model, with_expert(corpus.model, [corpus.spell("Kalo")])):
        stepper = model.stepper()
        expert = np.zeros((1, ids.shape[1], corpus.vocab_size), np.float32)
        arguments = (expert,) if model.config.expert else ()
        start = stepper.initial_state(1)  # one text: its arrays are contiguous either way
        results = [feed(stepper, corpus.vocab_size, ids, start, *arguments)[0] for _ in range(2)]
        assert np.array_equal(*results)
        assert not any(part.any() for part in start)


def test_users_get_the_same_scores_and_texts_in_any_order(trained):
    texts = make_prose(1_500, 1)
    bits = [score.bits for score in trained.score([*texts, texts[0]])]
    assert bits[-1] == bits[0] == trained.score(texts[0]).bits
    assert [score.bits for score in trained.score(texts[::-1])] == bits[-2::-1]
    twice = trained.evaluate([*texts, *texts], clean=False)
    once = trained.evaluate(texts, clean=False)
    assert twice.bits_per_character == pytest.approx(once.bits_per_character, rel=1e-9)
    options = {"seed": 3, "max_new_tokens": 40}
    pair = trained.generate(["Kalo ", "Ten "], **options)
    other = trained.generate(["Qui qui qui qui.", "Ten "], **options)
    assert pair[1] == other[1] and pair[0] != other[0]
    assert next(trained.generate_each(["Kalo ", "Ten "], first=1, **options)).text == pair[1]


@pytest.fixture(scope="module")
def trained() -> Any:
    """A ReviewModel of prose."""
    quick = {name: TRAINING[name] for name in ("copy_tokens", "metrics", "calibration")}
    return reviewgen.train("mixing-char", make_prose(20_000), training=quick, progress=False)


def nats_of_repetitions(corpus: Prose) -> list[float]:
    """Return the nats of a symbol in each of three copies of letters in random order."""
    letters = "".join(np.random.default_rng(1).choice(list("aeiklmnopqrstuv"), 80))
    scores = score_of(corpus.model, corpus.spell(3 * letters))
    return [-float(scores[start + 16 : start + 80].mean()) for start in (0, 80, 160)]


def test_only_a_model_that_adapts_learns_from_repetitions():
    for name in ("whole", "counts only"):
        first, _, third = nats_of_repetitions(prose(name, 60_000))
        assert third < 0.35 * first
    first, second, third = nats_of_repetitions(prose("frozen", 60_000))
    # the last successors of pairs are remembered without own counts, too
    assert third > 0.75 * first
    assert third == pytest.approx(second, rel=0.03)
    nats = nats_of_repetitions(Prose(6_000, words=False, sparse=False, **FROZEN))
    assert nats == pytest.approx([nats[0]] * 3, rel=1e-6)


def learned_nats(texts: Any, vocab_size: int, monkeypatch: Any) -> float:
    """Train a model; return the nats of each symbol."""
    pieces = []

    def learn(network: Any, ids: Any, *arguments: Any) -> float:
        nats = real_learn(network, ids, *arguments)
        pieces.append((nats, len(ids)))
        return nats

    real_learn = training.learn
    monkeypatch.setattr(training, "learn", learn)
    count_mixing(texts, vocab_size)
    nats, lengths = np.array(pieces).sum(axis=0)
    return float(nats / lengths)


def test_a_block_is_predicted_before_it_is_counted(monkeypatch):
    # random symbols: what is not predicted before it is counted would cost less
    text = [0, *np.random.default_rng(0).integers(2, 18, 6_000).tolist(), 1]
    nats = learned_nats([text], 18, monkeypatch)
    assert 0.995 < nats / np.log(16) < 1.1


def test_copies_of_texts_do_not_fool_the_weights():
    held_out = make_prose(3_000, 1)
    corpus = prose("whole", 60_000)
    texts = [corpus.spell(text) for text in corpus.texts[: len(corpus.texts) // 2]]
    bits = []
    for doubled in (texts, sorted(texts + texts, key=texts.index)):
        model = count_mixing(doubled, corpus.vocab_size, alphabet=corpus.alphabet)
        scores = [score_of(model, corpus.spell(text)).sum() for text in held_out]
        bits.append(-float(sum(scores)) / np.log(2) / sum(map(len, held_out)))
    assert bits[1] < 1.05 * bits[0]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.slow
def test_all_laws_hold_for_each_setting(name):
    settings = {key: value for key, value in SETTINGS[name].items() if key != "condition_ids"}
    make = functools.partial(make_model, "mixing", **settings)
    check_model(make)
    check_stepper(make, MixingStepper)


def test_settings_change_the_model_as_they_say():
    shapes = {
        name: {key: tuple(value.shape) for key, value in prose(name).model.state_dict().items()}
        for name in SETTINGS
    }
    whole = shapes["whole"]
    assert whole["final"][1] == 8 and shapes["not gated"]["final"][1] == 1
    assert whole["maps"][1] > 0 and shapes["no maps"]["maps"][1] == 0
    contexts = {name: shape["states"][0] for name, shape in shapes.items()}
    assert contexts["whole"] == 28  # 20 contexts, 6 of the text's own, 2 matches
    assert contexts["no words"] == 20 and contexts["not sparse"] == 25
    assert contexts["frozen"] == 22 and contexts["conditions"] == 30
    assert shapes["frequent slots"]["slots"][0] < 0.7 * whole["slots"][0]
    sizes = {
        name: [part.shape[1] for part in prose(name).model.initial_state(1)] for name in SETTINGS
    }
    assert sizes["whole"][0] > 400 and sizes["counts only"][0] == sizes["frozen"][0] == 0
    assert sizes["counts only"][1] == 546 + (1 << 20) * 11 // 8 and sizes["frozen"][1] == 546
    text = query_of(prose("whole"))
    scores = {
        name: score_of(prose(name).model, text).sum() for name in SETTINGS if "con" not in name
    }
    assert len({round(float(score), 3) for score in scores.values()}) == len(scores)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"local_slots": 100}, "power of two"),
        ({"local_slots": 32, "adapt_weights": False}, "power of two"),
        ({"local_slots": 1 << 21}, "local_slots"),
        ({"local_slots": 0}, "adapt_weights needs"),
        ({"min_count": 0}, "min_count"),
        ({"vocab_size": 70_000}, "65536"),
        ({"alphabet": "a" * 12}, "alphabet"),
        ({"gated": "yes"}, "gated"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, words):
    with pytest.raises(ConfigError, match=words) as error:
        Mixing.Config(**({"vocab_size": 11} | settings))
    assert "\n" not in str(error.value)


def test_a_vocabulary_needs_two_symbols():
    for settings in ({"vocab_size": 2}, {"vocab_size": 11, "condition_ids": 9}):
        with pytest.raises(TrainingError, match="two symbols"):
            count_mixing([[0, 1]], **settings)


def test_two_ids_may_be_the_same_character():
    model = count_mixing([[0, 2, 3, 4, 1]], 5, alphabet="\0\0aab")
    logits, _ = model(ids_of([0]), model.initial_state(1))
    assert logits[0, 0, 1:].isfinite().all()


@pytest.mark.slow
def test_an_ablation_has_a_row_for_each_technique():
    quick = {name: TRAINING[name] for name in ("copy_tokens", "metrics", "calibration")}
    fixed: Any = {"training": quick}
    rows = reviewgen.ablate("mixing-char", make_prose(4_000), settings=fixed)
    bits = {row.name: row.bits for row in rows}
    assert {technique.name for technique in TECHNIQUES} <= bits.keys()
    assert all(value is None or value > 0 for value in bits.values())
    assert all(bits[technique.name] for technique in TECHNIQUES)


def test_a_model_is_trained_in_one_process():
    model = Mixing(Mixing.Config(vocab_size=11))
    evaluator: Any = SimpleNamespace(processes=SimpleNamespace(world_size=2))
    with pytest.raises(TrainingError, match="one process only"):
        next(train_by_counting(model, None, None, evaluator))
