"""The mixing model on the path of a user: corpora and texts of any kind, and saved folders; damaged
ones must be refused, because compiled code does not check its indexes.
"""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import BundleError, DataError, ReviewgenError, ShapeError
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
from tests.support.saved import edit_json, edit_tensors, refusal
from tests.support.trainings import TRAINING

QUICK = {name: TRAINING[name] for name in ("copy_tokens", "metrics", "calibration")}


def train(source: Any, **options: Any) -> ReviewModel:
    """Train a mixing model without measuring the texts that it generates."""
    training = QUICK | options.pop("training", {})
    return reviewgen.train("mixing-char", source, training=training, progress=False, **options)


def assert_works(model: ReviewModel, text: str) -> None:
    """Score and generate; the probability of the text is a number."""
    assert np.isfinite(model.score(text).bits)
    assert len(model.generate(["", text[:5]], seed=0, max_new_tokens=12)) == 2


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param(make_prose(200), id="200 characters"),
        pytest.param(["a" * number for number in range(1, 40)], id="one symbol"),
        pytest.param([f"a\0b\x01c\x7f{n}\x1b\u200b" for n in range(60)], id="control characters"),
    ],
)
def test_strange_corpora_train(texts):
    model = train(texts)
    assert_works(model, texts[1])
    assert_works(model, "日本 😀\0")  # outside the vocabulary


def test_the_same_line_again_and_again():
    # 1,000 instead of 100,000 lines, so that the test takes a second; the way of each is the same
    line = "the same line again"
    spelled = [[0, *(2 + ord(letter) for letter in line), 1]] * 1_000
    model = count_mixing(spelled, 130)
    assert -score_of(model, spelled[0]).sum() < 1.0  # nats
    with pytest.raises(DataError, match="single review"):  # the data are cleaned of copies
        train([line] * 100_000)


def test_random_bytes_are_not_expanded():
    rng = np.random.default_rng(0)
    texts = [[0, *rng.integers(2, 258, 400).tolist(), 1] for _ in range(101)]
    model = count_mixing(texts[:-1], 258)
    bits = -score_of(model, texts[-1])[:-1].mean() / np.log(2)
    assert bits < 8.1


def test_three_thousand_symbols():
    rng = np.random.default_rng(0)
    texts = [[0, *(18 + np.minimum(rng.zipf(1.2, 100), 3_000)).tolist(), 1] for _ in range(101)]
    alphabet = "\0" * 18 + "".join(map(chr, range(0x4E00, 0x4E00 + 3_001)))
    model = count_mixing(texts[:-1], len(alphabet), alphabet=alphabet)
    symbols = np.bincount(np.concatenate(texts[:-1]), minlength=len(alphabet)) + 0.1
    entropy = -np.log(symbols / symbols.sum())[texts[-1][1:]].mean()
    assert -score_of(model, texts[-1]).mean() < 1.2 * entropy
    logits, _ = model(ids_of(texts[-1][:20]), model.initial_state(1))
    assert (logits.double().exp().sum(-1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("characters", [300_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_the_state_of_a_long_text_keeps_its_size(characters):
    corpus = Prose(6_000)
    ids = ids_of(corpus.spell("\n".join(make_prose(characters, 1))))
    state = corpus.model.initial_state(1)
    scores, after = corpus.model.score(ids[:, :-1], ids[:, 1:], state)
    assert scores.isfinite().all()
    assert [part.shape for part in after] == [part.shape for part in state]
    assert after[0].abs().max() < 100


def test_conditions_save_bits(tmp_path):
    rows = [{"text": text, "stars": "1"} for text in make_prose(6_000)]
    rows += [{"text": row["text"].upper(), "stars": "5"} for row in rows]
    np.random.default_rng(0).shuffle(rows)
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "stars"])
        writer.writeheader()
        writer.writerows(rows)
    model = train(tmp_path / "a.csv", conditions=["stars"])
    text = make_prose(300, 1)[0].upper()
    right, wrong = (model.score(text, conditions={"stars": stars}).bits for stars in ("5", "1"))
    assert right + 2 < wrong
    assert right < model.score(text).bits
    assert_works(model, text)


def test_empty_texts_are_one_sentence():
    model = train(make_prose(2_000))
    for call in (lambda: model.score(""), lambda: model.evaluate([""])):
        with pytest.raises(DataError) as error:
            call()
        assert "\n" not in str(error.value)
    assert len(model.generate("", seed=0, max_new_tokens=3)) == 1


def test_saved_and_loaded_it_writes_the_same(tmp_path):
    texts = make_prose(6_000)
    model = train(texts)
    model.save_pretrained(tmp_path / "a")
    assert b"\0" not in (tmp_path / "a" / "README.md").read_bytes()
    again = reviewgen.load(tmp_path / "a")
    options: Any = {"seed": 1, "max_new_tokens": 60, "num_return_sequences": 3}
    assert again.generate("Ka", **options) == model.generate("Ka", **options)
    assert again.score(texts[1]).bits == model.score(texts[1]).bits


def test_only_a_model_that_keeps_its_text_contains_it(tmp_path):
    texts = make_prose(6_000)
    secret = "Zebras quizzically juxtapose a dozen foggy lynxes while vexing my kept jackdaw."
    held_out = make_prose(500, 1)
    kept = train([*texts, secret], model={"keep_text": True}, validation=held_out)
    plain = train([*texts, secret], validation=held_out)
    ids = kept.tokenizer.encode(secret)
    needle = np.array(ids, np.int32).tobytes()
    for model, contains in ((kept, True), (plain, False)):
        folder = tmp_path / str(contains)
        model.save_pretrained(folder)
        arrays = {name: part.numpy() for name, part in model.model.state_dict().items()}
        found = any(needle in np.ascontiguousarray(part).tobytes() for part in arrays.values())
        assert found == contains
        assert (needle in (folder / "model.safetensors").read_bytes()) == contains
    start = secret[:40]
    assert kept.score(secret[40:], start).bits_per_character < 0.6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved model that keeps its text."""
    path = tmp_path_factory.mktemp("mixing") / "model"
    train(make_prose(2_000), model={"keep_text": True}).save_pretrained(path)
    return path


def put(name: str, value: Any) -> Any:
    """Return a damage: the last number of a tensor is another."""
    return lambda tensors: tensors[name].view(-1)[-1:].fill_(value)


def mark_slot(tensors: Any) -> None:
    """Give the first slot the state 255."""
    tensors["slots"][0, :2] |= torch.tensor([0xE0, 0x1F], dtype=torch.uint8)


def make_chain(tensors: Any) -> None:
    """Make a tree of the same symbols in which every second child is a leaf."""
    nodes = len(tensors["tree"])
    leaves = tensors["tree"][tensors["tree"] < 0]
    tensors["tree"][:, 0] = torch.arange(1, nodes + 1)
    tensors["tree"][:, 1] = leaves[:nodes]
    tensors["tree"][-1, 0] = leaves[-1]


DAMAGES: dict[str, Any] = {
    "a cycle": lambda t: t["tree"][-1].fill_(0),
    "a child before its parent": put("tree", 1),
    "a child outside": put("tree", 1 << 40),
    "a leaf outside": put("tree", -(1 << 40)),
    "the smallest leaf": put("tree", -(1 << 63)),
    "a leaf twice": lambda t: t["tree"].masked_fill_(t["tree"] < 0, -5),
    "no tree": lambda t: t.update(tree=t["tree"][:0]),
    "a state outside": mark_slot,
    "half a line": lambda t: t.update(used=t["used"][:-1]),
    "a slot too many": lambda t: t["used"].fill_(255),
    "no slots": lambda t: t.update(used=t["used"][:0], slots=t["slots"][:0]),
    "a symbol of the text": put("text", 1 << 20),
    "a symbol below zero": put("text", -1),
    "a frequency of zero": put("frequencies", 0),
    "a frequency below zero": put("frequencies", -1),
    "a probability of one": put("states", 1),
    "a probability of almost zero": put("states", 1e-40),
    "a map above one": put("maps", 5),
    "a map below zero": put("maps", -1),
    "infinite sums": lambda t: t["sets"].fill_(3e38),
    "another tensor": lambda t: t.update(other=torch.zeros(1)),
}
for _name in ("sets", "final", "maps", "states", "frequencies"):
    DAMAGES[f"{_name} NaN"] = put(_name, float("nan"))
    DAMAGES[f"{_name} infinite"] = put(_name, float("inf"))
for _name in ("tree", "frequencies", "used", "slots", "sets", "final", "maps", "states", "text"):
    DAMAGES[f"{_name} missing"] = lambda t, name=_name: t.pop(name)
    if _name != "text":  # a shorter text is a text
        DAMAGES[f"{_name} cut"] = lambda t, name=_name: t.update({name: t[name][:-1].clone()})
    DAMAGES[f"{_name} of float64"] = lambda t, name=_name: t.update({name: t[name].double()})
    DAMAGES[f"{_name} in bfloat16"] = lambda t, name=_name: t.update({name: t[name].bfloat16()})
    DAMAGES[f"{_name} flat"] = lambda t, name=_name: t.update({name: t[name].reshape(-1, 1, 1, 1)})


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused(damage, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    edit_tensors(tmp_path / "m", DAMAGES[damage])
    assert refusal(tmp_path / "m", accept_changes=True) != "it was read"


def test_a_deep_tree_is_refused_before_memory_is_allocated():
    texts = [[0, *range(2, 40), 1]]
    small = count_mixing(texts, 400)
    tensors = {name: part.clone() for name, part in small.state_dict().items()}
    make_chain(tensors)
    before = score_of(small, texts[0])
    with pytest.raises(BundleError, match="tree"):
        small.load_state_dict(tensors)
    assert torch.equal(score_of(small, texts[0]), before)


@pytest.mark.parametrize(
    "key, value",
    [
        ("alphabet", "a" * 10_000),
        ("vocab_size", 5_000),
        ("condition_ids", 1_000),
        ("local_slots", 77),
        ("words", False),
        ("keep_text", False),
    ],
)
def test_a_config_of_another_model_is_refused(key, value, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    edit_json(tmp_path / "m" / "config.json", "model", "config", key, value=value)
    assert refusal(tmp_path / "m", accept_changes=True) != "it was read"


@pytest.fixture(scope="module")
def corpus() -> Prose:
    return Prose(3_000, keep_text=True)


def test_ids_and_shapes_are_checked(corpus):
    model = corpus.model
    ids = torch.tensor([corpus.spell("Ka")] * 2)
    state = model.initial_state(2)
    for wrong in (ids - 1, ids + corpus.vocab_size, ids + (1 << 40)):
        for call in (
            lambda wrong=wrong: model(wrong, state),
            lambda wrong=wrong: model.score(wrong, ids, state),
            lambda wrong=wrong: model.score(ids, wrong, state),
        ):
            with pytest.raises(DataError):
                call()
    for call in (
        lambda: model(ids, model.initial_state(1)),
        lambda: model(ids[0], state),
        lambda: model(ids.float(), state),
        lambda: model.score(ids, ids[:, :2], state),
        lambda: model.score(ids, ids[:1], state),
        lambda: model.score(ids, ids, model.initial_state(1)),
        lambda: model.score(ids, ids, (state[0], state[1][:, :-1])),
        lambda: model.score(ids, ids, (state[1], state[0])),
    ):
        with pytest.raises(ShapeError):
            call()


# places of the state: the last two symbols, letters of the word, source of a copy
@pytest.mark.parametrize("place", [0, 1, 17, 32, -2_000])
@pytest.mark.parametrize("value", [-1, 70_000, 1 << 40, -(1 << 62)])
def test_states_outside_are_refused_or_used_safely(place, value, corpus):
    ids = ids_of(corpus.spell(corpus.texts[1]))
    _, (floats, ints) = corpus.model(ids[:, :40], corpus.model.initial_state(1))
    ints[0, place] = value
    ints[0, 33] = 9  # length of the copy
    try:
        logits, _ = corpus.model(ids[:, 40:], (floats, ints))
        assert (logits.double().exp().sum(-1) - 1).abs().max() < 1e-5
    except ReviewgenError as error:
        assert isinstance(error, DataError)
    with pytest.raises(DataError):
        corpus.model(ids[:, 40:], (floats * torch.nan, ints.clone()))


def test_experts_are_checked(corpus):
    ids = ids_of(corpus.spell("Ka"))
    time = ids.shape[1]
    model = with_expert(corpus.model, [corpus.spell("Kalo")])
    state = model.initial_state(1)
    expert = random_expert(time, corpus.vocab_size)[None]
    for wrong in (expert[:, 1:], expert[..., 1:]):
        with pytest.raises(ShapeError):
            model.call_with_expert(ids, wrong, state)
    for value in (torch.nan, torch.inf):
        with pytest.raises(DataError):
            model.call_with_expert(ids, torch.full_like(expert, value), state)
    with pytest.raises(DataError, match="fit_expert"):
        corpus.model.call_with_expert(ids, expert, corpus.model.initial_state(1))


def test_an_expert_of_no_symbols_is_ignored(corpus):
    ids = ids_of(corpus.spell("Ka"))
    model = with_expert(corpus.model, [corpus.spell("Kalo")])
    expert = torch.full((1, ids.shape[1], corpus.vocab_size), -torch.inf)
    logits, _ = model.call_with_expert(ids, expert, model.initial_state(1))
    assert (logits.double().exp().sum(-1) - 1).abs().max() < 1e-5


def test_a_model_is_finished_once():
    model = Mixing(Mixing.Config(vocab_size=11))
    with pytest.raises(ReviewgenError, match="not trained"):
        model.initial_state(1)
    with pytest.raises(ReviewgenError, match=r"ids -1\.\.3"):
        model.observe(np.array([0, -1, 3]))
    with pytest.raises(ReviewgenError, match="nothing to predict"):
        model.finish()
    with pytest.raises(BundleError):
        model.load_state_dict(model.state_dict())
