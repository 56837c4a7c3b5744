"""Blends of models with different tokenizers, against sums over all tokenizations of short
texts.
"""

import json
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen import ReviewModel
from reviewgen.conditions import Conditions, fit_condition
from reviewgen.errors import BundleError, ConfigError
from reviewgen.registry.plugins import find_model, find_tokenizer
from reviewgen.saving.weights import ModelWeights
from reviewgen.testing import MODEL_LAWS, make_model
from tests.support.fakes import review_model
from tests.support.models import EXAMPLES

SMALL = {"hidden_size": 5, "embedding_size": 4}
DIGITS = 2  # the id of the half byte 0 of a char tokenizer, of which 16 follow one another
WEIGHTS = (0.3, 0.7)
ASCII = [example for example in EXAMPLES if example["text"].isascii()]


def trained(
    model: str, tokenizer: str, texts: list[str], seed: int = 0, **settings: Any
) -> ReviewModel:
    """Return a model of random weights, with a tokenizer of texts."""
    kind, plugin = find_tokenizer(tokenizer)
    config = kind.Config(**settings)
    own = kind.train(texts, config)
    review = review_model(make_model(model, own.vocab_size, seed, **SMALL), own)
    bundle = review.bundle
    bundle.model_plugin = find_model(model)[1]
    bundle.tokenizer_plugin = plugin
    bundle.tokenizer_config = config
    return review


def word() -> ReviewModel:
    model = trained("gru", "word", ["abab caab", "ab ca ab ab caab"] * 9, vocab_size=260)
    assert [bytes(each).decode() for each in model.tokenizer.token_bytes()[256:]] == [
        "ab",
        "ca",
        "",
        "",
    ]
    return model


class Brute:
    """A model as a distribution over ids of a blend, by adding up all of its token strings."""

    def __init__(self, model: ReviewModel, blend: ReviewModel) -> None:
        self.model = model
        alphabet = blend.tokenizer.characters
        tokenizer = model.tokenizer
        self.writes: dict[int, tuple[int, ...]] = {}
        for token, values in enumerate(tokenizer.token_bytes()):
            text = bytes(values).decode(errors="replace") if max(values, default=256) < 256 else ""
            if text and all(each in alphabet for each in text):
                ids: list[int] = blend.tokenizer.encode(text)
            else:
                halves = [
                    (value >> 4, value & 15) if value < 256 else (value - 256,) for value in values
                ]
                ids = [DIGITS + half for half in chain.from_iterable(halves)]
            self.writes[token] = tuple(ids) or (1 if token == tokenizer.eos_id else 0,)
        self.next = cache(self._next)

    def _next(self, tokens: tuple[int, ...]) -> Any:
        ids = torch.tensor([[self.model.tokenizer.bos_id, *tokens]])
        part = self.model.bundle.model
        return part(ids, part.initial_state(1))[0][0, -1].double().softmax(-1).detach().numpy()

    def mass(self, ids: tuple[int, ...], tokens: tuple[int, ...] = ()) -> float:
        """Return the probability of all texts that begin with some ids, after some tokens."""
        if not ids:
            return 1.0
        total = 0.0
        for token, own in self.writes.items():
            if own[: len(ids)] == ids[: len(own)]:
                total += self.next(tokens)[token] * self.mass(ids[len(own) :], (*tokens, token))
        return total


def check(models: list[ReviewModel], text: str) -> None:
    """Check the probability of every id of a text under a blend, and that those of all ids sum to
    one.
    """
    blend = reviewgen.blend(models, WEIGHTS)
    ids = [*blend.tokenizer.encode(text), blend.tokenizer.eos_id]
    fed = torch.tensor([[blend.tokenizer.bos_id, *ids[:-1]]])
    brutes = [Brute(model, blend) for model in models]
    logits = blend.model(fed, blend.model.initial_state(1))[0][0].double().exp()
    np.testing.assert_allclose(logits.sum(-1), 1, atol=1e-5)
    for place, number in enumerate(ids):
        before = tuple(ids[:place])
        each = [brute.mass((*before, number)) / brute.mass(before) for brute in brutes]
        assert logits[place, number] == pytest.approx(np.dot(WEIGHTS, each), rel=1e-4), (
            place,
            number,
        )


@pytest.mark.parametrize("text", ["abca", "ca b", "é", "abé"])
def test_word_pieces_are_summed_over_all_tokenizations(text):
    check([word(), trained("rnn", "char", ["abc é"])], text)


@pytest.mark.parametrize("text", ["ba", "aé", "ü", "ä€"])
def test_char_models_of_two_alphabets_are_mixed_character_by_character(text):
    check([trained("rnn", "char", ["abé€"]), trained("gru", "char", ["abü"], seed=2)], text)


def mixed() -> Any:
    return reviewgen.blend([word(), trained("rnn", "char", ["abc é"])], WEIGHTS).model


@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_such_a_blend_keeps_every_law(law):
    law(mixed)


def test_any_ids_can_be_written_and_the_sum_stays_one():
    blend = mixed()
    ids = torch.randint(
        blend.config.vocab_size, (5, 40), generator=torch.Generator().manual_seed(0)
    )
    logits, _ = blend(ids, blend.initial_state(5))
    np.testing.assert_allclose(logits.exp().sum(-1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("different")
    options: dict[str, Any] = {
        "conditions": ["stars"],
        "model": {"order": 3},
        "training": {"copy_tokens": 0},
    }
    reviewgen.train("ngram-char", ASCII, out=folder / "ngram-char", **options)
    reviewgen.train(
        "ngram-word", ASCII, out=folder / "ngram-word", tokenizer={"vocab_size": 300}, **options
    )
    (folder / "held-out.txt").write_text(
        "the plot was good.\nthe café was good.\nit was so so.", encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="module")
def both(folders: Path) -> ReviewModel:
    models = [folders / "ngram-word", folders / "ngram-char"]
    return reviewgen.blend(models, data=folders / "held-out.txt")


def test_the_command_blends_fits_and_saves(folders, tmp_path, run_command):
    words = [
        "blend",
        folders / "ngram-word",
        folders / "ngram-char",
        "--data",
        folders / "held-out.txt",
    ]
    status, out, _ = run_command(*words, "--out", tmp_path / "both", "--json")
    facts = json.loads(out)
    alone = [row["bits_per_character"] for row in facts["models"]]
    both = reviewgen.load(tmp_path / "both")
    assert status == 0 and facts["bits_per_character"] < min(alone) + 0.001
    assert both.tokenizer_name == "char" and both.generation_config.max_new_tokens == 600
    assert both.evaluate(folders / "held-out.txt").bits_per_character == pytest.approx(
        facts["bits_per_character"], abs=1e-4
    )


def test_the_index_is_that_of_the_model_over_characters(both):
    text = ASCII[0]["text"]
    assert both.novelty(text).longest_tokens == len(text)


def test_a_score_depends_on_the_condition(both):
    text = ASCII[0]["text"]
    assert (
        both.score(text, conditions={"stars": "1"}).bits
        != both.score(text, conditions={"stars": "2"}).bits
    )


def test_a_saved_blend_writes_the_same_and_is_blended_again(both, folders, tmp_path):
    texts = both.generate("the ", num_return_sequences=2, seed=1, max_new_tokens=30)
    both.save_pretrained(tmp_path / "again")
    again = reviewgen.load(tmp_path / "again")
    assert again.generate("the ", num_return_sequences=2, seed=1, max_new_tokens=30) == texts
    assert reviewgen.blend([again, folders / "ngram-word"]).score("the plot").bits > 0


def test_a_blend_over_characters_is_not_exported(both, tmp_path, run_command):
    both.save_pretrained(tmp_path / "both")
    for option, sentence in (("--html", "A page cannot run"), ("--onnx", "ONNX has")):
        status, _, error = run_command("export", tmp_path / "both", option, tmp_path / "page.html")
        assert status == 2 and sentence in error


# Models with other conditions.

VALUES = {"stars": ["1", "2", "3"], "kind": ["a", "b"]}
GIVEN = {"stars": "2", "kind": "b"}


def conditioned(model: str, tokenizer: str, names: str = "", seed: int = 0) -> ReviewModel:
    """Return a model of random weights with some of the conditions of ``VALUES``."""
    settings = {"vocab_size": 260} if tokenizer == "word" else {}
    review = trained(model, tokenizer, ["abab caab", "ab ca ab ab caab"] * 9, **settings)
    own = review.tokenizer
    fitted = tuple(fit_condition(name, VALUES[name]) for name in names.split())
    conditions = Conditions(fitted).with_ids_from(own.vocab_size, own.encode)
    ids = {"condition_ids": conditions.condition_ids, "bos_id": own.bos_id}
    network = make_model(model, conditions.vocab_size, seed, **SMALL, **ids)
    bundle = replace(review.bundle, conditions=conditions, weights=ModelWeights(network))
    return ReviewModel(bundle)


@pytest.mark.parametrize(
    "names",
    [
        ("char", "", "stars"),
        ("char", "stars", ""),
        ("char", "", "kind stars", "stars"),
        ("word", "stars", ""),
    ],
)
def test_a_condition_that_a_model_lacks_stays_unspecified_for_it(names, tmp_path):
    models = [
        conditioned("gru" if seed else "rnn", names[0], each, seed)
        for seed, each in enumerate(names[1:])
    ]
    weights = np.arange(1, len(models) + 1) / sum(range(1, len(models) + 1))
    blend = reviewgen.blend(models, weights.tolist())
    for given in (GIVEN, {}):

        def score(model: ReviewModel, given: Any = given) -> list[float]:
            known = {name: given[name] for name in model.conditions.names if name in given}
            return [token.bits for token in model.score("ab caab ab", conditions=known).tokens]

        mixed = -np.log2(weights @ np.exp2([[-bits for bits in score(model)] for model in models]))
        assert score(blend) == pytest.approx(mixed.tolist(), abs=1e-4)
    blend.save_pretrained(tmp_path / "blend")
    again = reviewgen.load(tmp_path / "blend")
    options = {"num_return_sequences": 3, "seed": 1, "max_new_tokens": 20}
    given = {name: GIVEN[name] for name in again.conditions.names}
    assert score(again) == score(blend)
    assert again.generate("", conditions=given, **options) == blend.generate(
        "", conditions=given, **options
    )


def test_models_of_other_tokenizers_and_conditions_are_blended():
    blend = reviewgen.blend(
        [conditioned("gru", "word", "stars"), conditioned("rnn", "char", "kind")]
    )
    assert sorted(blend.conditions.names) == ["kind", "stars"]
    scores = {blend.score("ab ca", conditions={name: value}).bits for name, value in GIVEN.items()}
    assert len(scores | {blend.score("ab ca").bits}) == 3


@pytest.mark.parametrize(
    "names, own, other",
    [
        (
            "stars kind",
            "'stars' with the values ['1', '2', '3']",
            "'kind' with the values ['a', 'b']",
        ),
        (
            "stars",
            "'stars' with the values ['bad', 'good']",
            "'stars' with the values ['1', '2', '3']",
        ),
    ],
)
def test_other_values_or_another_order_of_conditions_are_named(names, own, other, monkeypatch):
    first = conditioned("gru", "char", "kind stars")
    if names == "stars":
        monkeypatch.setitem(VALUES, "stars", ["good", "bad"])
    with pytest.raises(ConfigError) as caught:
        reviewgen.blend([first, conditioned("gru", "char", names)])
    assert (
        f"fake-fake has the condition {own}, where another model of the blend has {other}: "
        in str(caught.value)
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tokens", ["0 1", "0 x", "0 999999", None])
def test_damaged_characters_are_refused_in_one_sentence(folders, tmp_path, tokens):
    reviewgen.blend([folders / "ngram-word", folders / "ngram-char"]).save_pretrained(
        tmp_path / "blend"
    )
    file = tmp_path / "blend" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["model"]["config"]["models"][0]["characters"]["tokens"] = tokens
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BundleError, match="characters of a model of a blend should be") as caught:
        reviewgen.load(tmp_path / "blend", accept_changes=True)
    assert "\n" not in str(caught.value)
