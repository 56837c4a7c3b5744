"""Logits processors, stopping criteria and streamers of a caller; processors by name, as installed
packages provide them.
"""

import json
import sys
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen import ReviewModel
from reviewgen.config import from_dict
from reviewgen.errors import BundleError, UnknownPlugin
from reviewgen.saving.read import read_bundle
from reviewgen.tables.receipts import Receipt, make_receipt, replay
from tests.support.fakes import LETTERS, QueueModel, TableModel, review_model, table
from tests.support.ngrams import LOOP, WORD, Plain, counted, only

V = LETTERS.vocab_size
LOGITS = table(V, 2, eos=-1.0)
A, B = LETTERS.encode("ab")


def models() -> list[ReviewModel]:
    """Return a model without a loop of its own, and an n-gram with one and without."""
    ngram = counted(LOOP, order=3)
    return [review_model(inner, LETTERS) for inner in (TableModel(LOGITS), ngram, Plain(ngram))]


# Functions of the caller.


def test_a_processor_sees_bos_the_prompt_what_was_written_and_the_logits_after_penalties():
    seen: list[Any] = []

    def look(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        assert (ids.dtype, ids.shape[0], scores.dtype, scores.shape) == (
            torch.int64,
            1,
            torch.float32,
            (1, V),
        )
        seen.append((ids[0].tolist(), scores[0].clone()))
        return scores

    model = review_model(QueueModel(LETTERS.encode("bad"), LETTERS, skip=3), LETTERS)
    assert model.generate("ca", logits_processor=look) == ["cabad"]
    assert [ids for ids, _ in seen] == [
        [0, *LETTERS.encode("cabad"[:size])] for size in range(2, 6)
    ]
    settings: dict[str, Any] = {
        "repetition_penalty": 2.0,
        "min_new_tokens": 1,
        "temperature": 0.5,
        "top_k": 3,
    }
    review_model(TableModel(LOGITS), LETTERS).generate(
        "ab", logits_processor=look, max_new_tokens=1, **settings
    )
    wanted = LOGITS[B].clone()
    for token in (0, A, B):
        wanted[token] = wanted[token] / 2 if wanted[token] > 0 else wanted[token] * 2
    wanted[[0, 1]] = -torch.inf
    torch.testing.assert_close(seen[-1][1], wanted)


def test_a_processor_without_effect_changes_no_text_and_one_that_fails_no_model():
    def interrupt(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] > 5:
            raise KeyboardInterrupt
        return scores

    for number, model in enumerate(models()):
        for shape in (
            {},
            {"temperature": 0.6, "top_p": 0.9},
            {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        ):
            options: dict[str, Any] = {
                "num_return_sequences": 5,
                "max_new_tokens": 20,
                "seed": 1,
                **shape,
            }
            before = model.generate("ba", **options)
            if number != 1:  # a loop of its own uses its random numbers otherwise
                assert (
                    model.generate(
                        "ba", **options, logits_processor=lambda ids, scores: scores.clone()
                    )
                    == before
                )
            with pytest.raises(KeyboardInterrupt):
                model.generate(
                    "ab", seed=1, max_new_tokens=20, min_new_tokens=20, logits_processor=interrupt
                )
            assert model.generate("ba", **options) == before


class Recorder:
    """A streamer that keeps all it gets."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.ids: list[int] = []
        self.ends = 0

    def put(self, ids: torch.Tensor) -> None:
        self.shapes.append(tuple(ids.shape))
        self.ids += ids.flatten().tolist()

    def end(self) -> None:
        self.ends += 1


def test_a_streamer_gets_the_prompt_once_and_then_each_token():
    streamer = Recorder()
    model = review_model(QueueModel(LETTERS.encode("bad"), LETTERS, skip=3), LETTERS)
    assert model.generate_one("ca", streamer=streamer) == "cabad"
    assert (
        streamer.shapes == [(1, 3), (1,), (1,), (1,)]
        and streamer.ids == [0, *LETTERS.encode("cabad")]
        and streamer.ends == 1
    )
    paths = {"": "the", "the": " movie", " movie": " movie|.", ".": ""}
    repeated = review_model(only(paths, WORD), WORD, no_repeat_ngram_size=1)
    for model, prompt in (
        (review_model(counted(["the movie"], WORD), WORD), "the mo"),
        (repeated, "the movie movie"),
    ):
        streamer = Recorder()
        text = model.generate_one(prompt, streamer=streamer, seed=1)
        assert (
            WORD.decode([token for token in streamer.ids if token > 1]) == text
            and streamer.ends == 1
        )


# Processors by name.

CODE = """
import torch

class NoVowels:
    def __init__(self, tokenizer):
        texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        self.banned = [token for token, text in enumerate(texts) if set(text) & set("aeiou")]

    def __call__(self, ids, scores):
        scores[:, self.banned] = -torch.inf
        return scores

def add_e(tokenizer):
    (token,) = tokenizer.encode("e")
    def process(ids, scores):
        scores = scores.clone()
        scores[:, token] = scores.max() + 50
        return scores
    return process

def raises(tokenizer): raise ValueError("no such tokenizer")
def fails(tokenizer): return lambda ids, scores: scores[7]
"""
NAMES = {
    "no-vowels": "NoVowels",
    "add-e": "add_e",
    "raises": "raises",
    "fails": "fails",
    "gone": "not_there",
}


@pytest.fixture
def model(install) -> ReviewModel:
    """A model, with a package of processors installed."""
    points = {"logits_processors": {name: f"fake_filters:{value}" for name, value in NAMES.items()}}
    install("reviewgen-filters", points, {"fake_filters": CODE})
    return review_model(TableModel(table(V, 2, eos=-3.0)), LETTERS)


def count(texts: list[str], letters: str) -> int:
    return sum(map("".join(texts).count, letters))


OPTIONS: dict[str, Any] = {"num_return_sequences": 30, "seed": 3}


def test_a_processor_by_name_rules_tokens_out_of_texts(model):
    assert count(model.generate("b", **OPTIONS), "ae") > 50
    given = (["b", "bad cafe"],)
    options = OPTIONS | {"logits_processor": "no-vowels"}
    texts = model.generate(*given, **options)
    assert count(texts[:30], "bcdfgh") > 50 and count(texts[:30], "ae") == 0
    assert next(model.generate_each(*given, first=41, **options)).text == texts[41]
    assert "".join(model.stream("b", seed=3, logits_processor="no-vowels")) == texts[0]


def test_a_processor_by_name_rules_tokens_out_of_a_beam_search(model):
    beams: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 12}
    assert (
        count(model.generate(**beams), "ae")
        > 0
        == count(model.generate(**beams, logits_processor="no-vowels"), "ae")
    )


def test_a_processor_by_name_rules_tokens_out_of_a_walk(model):
    walk = model.walk("b", logits_processor="no-vowels", seed=1)
    plain = {
        each.text: each.probability
        for each in model.walk("b").next_tokens(V).alternatives
        if each.text not in ("a", "e")
    }
    left = {each.text: each.probability for each in walk.next_tokens(V).alternatives}
    assert left == pytest.approx(
        {text: value / sum(plain.values()) for text, value in plain.items()}, rel=1e-5
    )
    walk.draw(60)
    assert count([walk.text], "ae") == 0


def test_names_and_functions_are_called_in_order(model):
    seen: list[bool] = []

    def watch(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(bool(scores[0].argmax() == LETTERS.encode("e")[0]))
        return scores

    options: dict[str, Any] = {"max_new_tokens": 5, "seed": 1, "return_dict_in_generate": True}
    (output,) = model.generate(logits_processor=[watch, "add-e", watch], **options)
    assert output.text == "eeeee" and all(seen[1::2]) and not all(seen[::2])
    assert output.request.config.logits_processors == ("add-e",)
    (output,) = model.generate(logits_processor=["add-e"], **options)
    receipt = json.loads(json.dumps(make_receipt(model, output)))
    assert (
        receipt["versions"]["reviewgen-filters"] == "1.2.3"
        and replay(from_dict(Receipt, receipt), model).is_equal
    )


@pytest.mark.wrong_types
def test_saved_names_are_used_and_code_in_the_folder_is_not_run(
    model, micro, tmp_path, run_command
):
    folder = tmp_path / "m"
    plain = micro("ngram-char")
    plain.save_generation_config(folder, logits_processors=["no-vowels"])
    saved = reviewgen.load(folder)
    options: dict[str, Any] = {
        "seed": 1,
        "num_return_sequences": 10,
        "words": "any",
        "max_new_tokens": 40,
    }
    texts = saved.generate(**options)
    assert count(texts, "aeiou") == 0 < count(texts, "tdsm")
    assert texts == plain.generate(**options, logits_processor=["no-vowels"])
    for off in ({"logits_processors": []}, {"logits_processor": []}):
        assert saved.generate(**options, **off) == plain.generate(**options)
    words = [
        "generate",
        folder,
        "-n",
        "9",
        "--seed",
        "1",
        "--words",
        "any",
        "--logits-processor",
        "no-vowels",
    ]
    status, printed, _ = run_command(*words)
    assert (status, count([printed], "aeiou")) == (0, 0)
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"logits_processors": ["evil"]}))
    (folder / "evil.py").write_text("raise SystemExit('was run')")
    (folder / "evil-1.dist-info").mkdir()
    (folder / "evil-1.dist-info" / "entry_points.txt").write_text(
        "[reviewgen.logits_processors]\nevil = evil:make\n"
    )
    (folder / "evil-1.dist-info" / "METADATA").write_text("Name: evil\nVersion: 1\n")
    with pytest.raises(UnknownPlugin, match="not installed"):
        ReviewModel(read_bundle(folder, strict=False, accept_changes=True)).generate()
    assert "evil" not in sys.modules
    for names in ("add-e", ["a" * 101], ["x", "x"], ["os.path:join/x"], [3]):
        file.write_text(json.dumps(settings | {"logits_processors": names}))
        with pytest.raises(BundleError, match="logits_processors"):
            read_bundle(folder, strict=False, accept_changes=True)
