"""The copy rate in characters: against a brute-force search, in a training, on the card, and in folders of earlier versions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reviewgen_char.tokenizer import CharConfig, CharTokenizer
from reviewgen_word.tokenizer import WordConfig, WordTokenizer

import reviewgen
from reviewgen import ReviewModel
from reviewgen.bundle.earlier import rename_copy_rates
from reviewgen.lexicon import decode_texts
from reviewgen.lexicon import decoding as lexicon_decoding
from reviewgen.novelty import characters, copied_share, copied_shares
from reviewgen.pictures import find_curves
from reviewgen.runs import TrainingRun, final
from reviewgen.runs.record import RunRecord
from reviewgen.training import TrainingConfig
from reviewgen.training.evaluator import Evaluator
from tests.support.fakes import LETTERS, train_tiny

REVIEWS = [
    f"{opening}, the {thing} was {how} and I liked the {other} of this film more than anything else in it, number {number}."
    for number, (opening, thing, how, other) in enumerate(
        (opening, thing, how, other)
        for opening in ("Well", "Honestly", "Très bien", "😀 So")
        for thing in ("movie", "acting", "music", "ending")
        for how in ("good", "so so")
        for other in ("theme", "others")
    )
]


def brute_force(texts: Sequence[str], training: Sequence[str], length: int) -> float | None:
    """Return the copy rate by looking for every window in every training text."""
    copied = characters_in_all = 0
    for text in texts:
        starts = range(len(text) - length + 1)
        covered = {
            place
            for start in starts
            if any(text[start : start + length] in other for other in training)
            for place in range(start, start + length)
        }
        copied += len(covered)
        characters_in_all += len(text)
    return copied / characters_in_all if characters_in_all else None


some_texts = st.lists(st.text("aäb😀\x00", max_size=14), max_size=5)


@given(texts=some_texts, training=some_texts, length=st.integers(1, 6), block=st.integers(1, 20))
def test_the_share_equals_a_brute_force_search(texts: list[str], training: list[str], length: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(characters, "_BLOCK", block)
        assert copied_share(texts, iter(training), length) == brute_force(texts, training, length)


@given(groups=st.lists(some_texts, max_size=3), training=some_texts)
def test_groups_of_texts_are_measured_alone(groups: list[list[str]], training: list[str]) -> None:
    assert copied_shares(groups, training, 3) == [brute_force(texts, training, 3) for texts in groups]


def test_the_share_of_plain_cases() -> None:
    long = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals."
    assert copied_share([long], [long]) == 1.0 == copied_share([long], ["Before. " + long + " After."])
    assert copied_share([long], [long[:45], long[45:]]) == 0.0  # a span does not continue in another training text
    assert copied_share([long[:25], long[25:49]], [long]) == 0.0  # nor in another text
    assert copied_share([long[:49]], [long]) == 0.0 and copied_share([long[:50]], [long]) == 1.0
    assert copied_share([long[:60], "?" * 60], [long]) == 0.5
    assert copied_share([], [long]) is None and copied_share(["", ""], [long]) is None
    assert copied_share([long], []) == 0.0 == copied_share([long], ["", ""])
    assert copied_share(["\ud800" * 50], ["a", "\ud800" * 60]) == 1.0


# Decoding the training text.


@pytest.mark.parametrize("kind", ["char", "word", "letters"])
@pytest.mark.parametrize("part", [1, 7, 1 << 16])
def test_texts_are_decoded_as_they_were(kind: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer: Any = {
        "char": lambda: CharTokenizer.train(REVIEWS[:30], CharConfig()),  # later ones need the byte fallback
        "word": lambda: WordTokenizer.train(REVIEWS, WordConfig(vocab_size=400)),
        "letters": lambda: LETTERS,  # does not say which bytes its tokens are
    }[kind]()
    texts = ["bad cafe", "", "a", "head"] if kind == "letters" else [*REVIEWS, "", "ÿ naïve\n line 漢字"]
    framed = [np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id], np.uint16) for text in texts]
    monkeypatch.setattr(lexicon_decoding, "_PART_TOKENS", part)
    blocks = [np.concatenate(framed[:2]), np.concatenate(framed[2:])]
    assert [text for text in decode_texts(blocks, tokenizer) if text] == [text for text in texts if text]


# In a training.


@pytest.mark.parametrize("preset", ["ngram-char", "ngram-word"])
def test_a_training_records_the_rates_of_brute_force(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[list[str]], list[str]]] = []

    def record(groups: list[list[str]], training: Any) -> list[float | None]:
        seen.append((groups, texts := [text for text in training if text]))
        return copied_shares(groups, texts)

    monkeypatch.setattr(final, "copied_shares", record)
    run = TrainingRun(preset, REVIEWS, model={"order": 4})
    reviews = set(run.read().texts("train")), set(run.corpus.texts("test")) or set(run.corpus.texts("validation"))
    run.tokenize()
    list(run)
    found = run.finish().training["novelty"]
    ((generated, held_out), training), *others = seen
    assert not others and set(training) == reviews[0] and len(generated) == 100
    assert all(any(review.startswith(text) for review in reviews[1]) for text in held_out)
    assert found["copy_rate"] == brute_force(generated, training, 50)
    assert found["held_out_copy_rate"] == brute_force(held_out, training, 50)
    assert found["copy_characters"] == 50 and found["held_out_copy_rate"] > 0


def test_a_model_that_has_learnt_its_texts_by_heart_copies(tmp_path: Path) -> None:
    settings = {"model": {"order": 14, "smoothing": "none"}, "training": {"novelty": "none"}}
    model = train_tiny("ngram-char", tmp_path, REVIEWS, **settings)
    found = model.training["novelty"]
    assert found["form"] == "none" and found["copy_rate"] > 0.5 and found["token_copy_rate"] is None
    assert f"Copy rate: {found['copy_rate']:.1%} of the characters of its texts stand in spans of 50" in model._bundle.card
    again = train_tiny("ngram-char", tmp_path, REVIEWS, **settings).training["novelty"]
    assert again == found
    off = {"novelty": "none", "copy_tokens": 0}
    assert train_tiny("ngram-char", tmp_path, REVIEWS, training=off).training["novelty"] is None


def test_a_blend_has_a_rate_of_its_own_and_its_parts_have_none(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "embedding_size": 4, "layer": "fused"}
    model = train_tiny("blend-char", tmp_path, REVIEWS, steps=2, model=sizes, training={"batch_size": 4})
    found = model.training["novelty"]
    assert 0 <= found["copy_rate"] <= 1 and found["held_out_copy_rate"] > 0
    assert all("novelty" not in part for part in model.training["parts"])


# What earlier versions saved.


def aged(training: dict[str, Any]) -> dict[str, Any]:
    """Return a training record as an earlier version wrote it."""
    old = json.loads(json.dumps(training))
    for name in ("copy_characters", "copy_rate", "held_out_copy_rate"):
        del old["novelty"][name]
    for facts in (old["novelty"], *old["evaluations"]):
        for name in ("copy_rate", "held_out_copy_rate"):
            if (later := name.replace("copy_rate", "token_copy_rate")) in facts:
                facts[name] = facts.pop(later)
    return old


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    train_tiny("ngram-char", tmp_path, REVIEWS, out=folder, model={"order": 4})
    file = folder / "training.json"
    file.write_text(json.dumps(aged(json.loads(file.read_text(encoding="utf-8")))), encoding="utf-8")
    (folder / "manifest.json").unlink()  # earlier versions wrote none
    return folder


def test_a_folder_of_an_earlier_version_is_read_with_the_new_names(old_folder: Path, tmp_path: Path) -> None:
    saved = json.loads((old_folder / "training.json").read_text(encoding="utf-8"))
    model = ReviewModel.from_pretrained(old_folder)
    novelty, (evaluation,) = model.training["novelty"], model.training["evaluations"]
    assert "copy_rate" not in novelty and "copy_rate" not in evaluation
    assert novelty["token_copy_rate"] == saved["novelty"]["copy_rate"] == evaluation["token_copy_rate"] > 0
    assert novelty["held_out_token_copy_rate"] == saved["novelty"]["held_out_copy_rate"]
    curves = find_curves(model.training, "old")
    assert curves.column("token_copy_rate") == [novelty["token_copy_rate"]]
    assert curves.held_out_token_copy_rate == novelty["held_out_token_copy_rate"]
    card = str(model.generate_model_card())
    assert "of the 20-token windows of generated texts occur in the training text" in card and "type: token_copy_rate" in card
    reviewgen.plot_training([old_folder], tmp_path / "old.svg")
    model.save_pretrained(tmp_path / "new")
    assert ReviewModel.from_pretrained(tmp_path / "new").training == model.training


def test_new_records_and_those_of_parts_are_renamed_once() -> None:
    new = {"novelty": {"copy_rate": 0.1, "token_copy_rate": None}, "evaluations": [{"token_copy_rate": 0.2}]}
    assert rename_copy_rates(new) == new
    assert rename_copy_rates({"parts": [{"evaluations": [{"copy_rate": 0.2}]}, 3], "novelty": None, "evaluations": "x"}) == {
        "parts": [{"evaluations": [{"token_copy_rate": 0.2}]}, 3],
        "novelty": None,
        "evaluations": "x",
    }


def test_a_checkpoint_of_an_earlier_version_is_resumed() -> None:
    record = RunRecord.restore(1.0, {"evaluations": [{"copy_rate": 0.2}]})
    assert record.curves.evaluations == [{"token_copy_rate": 0.2}]
    state = Evaluator(LETTERS, [], TrainingConfig()).state_dict()
    old = {name.replace("token_copy_rate", "copy_rate"): value for name, value in state.items()} | {"best_copy_rate": 0.3}
    resumed = Evaluator(LETTERS, [], TrainingConfig())
    resumed.load_state_dict(old)
    assert resumed.best_token_copy_rate == 0.3
