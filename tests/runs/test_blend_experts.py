"""Blends whose last model mixes the others (``SupportsExpert``), against the same computed in plain
numpy.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen import ReviewModel
from reviewgen.blending import stepper as blend_steppers
from reviewgen.blending.config import BlendConfig
from reviewgen.blending.model import Blend, CharacterModel
from reviewgen.blending.stepper import BlendStepper, CompiledBlendStepper
from reviewgen.compiled import feed
from reviewgen.errors import ConfigError
from reviewgen.protocols import SupportsExpert
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import THIS_PROCESS, find_model, find_stepper, register_model
from reviewgen.runs import blend as blending
from reviewgen.runs.blend import fit_blend
from reviewgen.testing import MODEL_LAWS, make_model
from reviewgen.testing.laws import assert_same
from tests.support.experts import (
    WEB_STEPPER,
    Pairs,
    PairsConfig,
    PairsStepper,
    Thirds,
    count_pairs,
    halves,
)
from tests.support.fakes import LETTERS, LetterTokenizer, review_model
from tests.support.node import why_no_node
from tests.support.plugin_models import make_blend
from tests.support.saved import edit_json, letters, refusal
from tests.support.trainings import MODEL, trained
from tests.support.web_steppers import logits_in_node, logits_in_python, sources, write_model

VOCABULARY = 18
GATE = {"coefficients": [[0.3, -0.4, 0.2, 0.1, -0.1, 0.05], [-0.3, 0.4, -0.2, -0.1, 0.1, -0.05]]}
SMALL = {"hidden_size": 6, "embedding_size": 4}
ALPHABET = LetterTokenizer("abcdefghijklmnop")
HELD_OUT = [(text, len(text) - 2) for text in halves(40, 1)]


@pytest.fixture(autouse=True)
def registered() -> None:
    register_model("pairs", Pairs)
    register_model("thirds", Thirds)


def pairs(is_fitted: bool = True) -> Any:
    """Return a ``Pairs``, by default with an expert that it was fitted to."""
    model = count_pairs(halves(300, 0), VOCABULARY)
    if not is_fitted:
        return model
    fitted = model.fit_expert([])
    fitted.scales = torch.tensor([0.75, 0.5])
    return fitted


def thirds() -> Any:
    return Thirds(PairsConfig(vocab_size=VOCABULARY)).eval()


def one() -> Any:
    """Return a blend of a network and a model that mixes it."""
    gru = make_model("gru", VOCABULARY, 0, **SMALL)
    return make_blend([gru, pairs()], ("gru", "pairs"), (1.0, 0.0))


def two() -> Any:
    """Return a blend of two models with a gate, and of one that mixes them."""
    parts = [make_model("ngram", VOCABULARY, 1), make_model("gru", VOCABULARY, 0, **SMALL), pairs()]
    return make_blend(parts, ("ngram", "gru", "pairs"), (0.3, 0.7, 0.0), GATE)


def nested() -> Any:
    """Return a blend of such a blend and another model, with one more that mixes them."""
    parts = [two(), make_model("ngram", VOCABULARY, 2), pairs()]
    return make_blend(parts, ("blend", "ngram", "pairs"), (0.5, 0.5, 0.0))


def inside() -> Any:
    """Return an average of such a blend and another model."""
    parts = [two(), make_model("ngram", VOCABULARY, 2)]
    return make_blend(parts, ("blend", "ngram"), (0.5, 0.5))


def in_characters() -> Any:
    """Return a blend whose expert has another tokenizer: its tokens are spelled with two ids."""
    blend = one()
    entry = {"bos_id": 0, "tokens": " ".join(["0", "1", *(f"{2 + i},{3 + i}" for i in range(9))])}
    other = CharacterModel(make_model("gru", 11, 0, **SMALL), entry, VOCABULARY)
    return make_blend([other, blend.components[-1]], ("gru", "pairs"), (1.0, 0.0))


def some_ids(batch: int = 3, time: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, (batch, time), generator=torch.Generator().manual_seed(seed))


def log_softmax(logits: Any) -> Any:
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def expected(blend: Any, ids: torch.Tensor) -> Any:
    """Return the log probabilities of such a blend, in plain float64."""
    *others, last = blend.components
    calls = [part(ids, part.initial_state(len(ids)))[0].detach() for part in others]
    expert = log_softmax(calls[0])
    if len(others) > 1:
        average = make_blend(
            others,
            [entry["name"] for entry in blend.config.models[:-1]],
            blend.config.weights[:-1],
            blend.config.gate,
        )
        expert = average(ids, average.initial_state(len(ids)))[0].detach().numpy()
    own = last(ids, last.initial_state(len(ids)))[0].numpy()
    a, b = last.scales.tolist()
    trust = np.ones(len(ids))
    probs = np.ones(expert[:, 0].shape)
    logits = []
    for t, token in enumerate(ids.T.numpy()):
        trust = 0.75 * trust + 0.25 * probs[range(len(token)), token]
        probs = np.exp(expert[:, t])
        logits.append(a * (0.5 + trust[:, None]) * expert[:, t] + b * own[:, t])
    return log_softmax(np.stack(logits, axis=1))


@pytest.mark.parametrize("make", [one, two, nested, in_characters])
def test_the_last_model_mixes_the_others(make):
    blend = make()
    ids = some_ids()
    targets = some_ids(seed=1)
    with torch.no_grad():
        wanted = expected(blend, ids)
        logits, _ = blend(ids, blend.initial_state(3))
        scores, _ = blend.score(ids, targets, blend.initial_state(3))
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    np.testing.assert_allclose(scores, logits.gather(-1, targets[..., None])[..., 0], atol=1e-5)
    step, _ = blend.stepper().forward(ids.numpy(), blend.stepper().initial_state(3))
    np.testing.assert_allclose(step, wanted[:, -1], atol=1e-4)


@pytest.mark.parametrize("make", [one, two, nested, inside])
@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_such_a_blend_keeps_every_law(law, make):
    law(make)


@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_the_model_keeps_every_law(law):
    law(lambda: pairs(is_fitted=False))


@pytest.mark.parametrize("make", [one, two, nested, inside])
def test_every_token_of_a_prompt_is_read_with_its_expert(make):
    blend = make()
    ids = some_ids()
    with torch.no_grad():
        wanted = blend(ids, blend.initial_state(3))[0][:, -1]
    stepper: Any = blend.stepper()
    state = stepper.initial_state(3)
    single = BlendStepper(stepper._steppers, stepper.config)
    logits, after = single.forward(ids.numpy(), state)
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    for forward in stepper.forward, partial(feed, stepper, VOCABULARY):
        logits, own_after = forward(ids.numpy(), state)
        np.testing.assert_allclose(logits, wanted, atol=1e-4)
        assert_same(own_after, after, 1e-4)


def test_without_an_expert_only_the_last_logits_are_computed():
    gru = make_model("gru", VOCABULARY, 0, **SMALL)
    average: Any = make_blend([gru, gru], ("gru", "gru"), (0.5, 0.5)).stepper()
    assert not average.needs_early_logits and pairs().stepper().needs_early_logits


@pytest.mark.parametrize("make", [one, two, nested])
def test_the_compiled_loop_writes_the_texts_of_single_steps(make, monkeypatch):
    blend = make()
    options = {"num_return_sequences": 4, "seed": 1, "max_new_tokens": 30}
    compiled: Any = blend.stepper()
    assert isinstance(compiled, CompiledBlendStepper)
    texts = review_model(blend, ALPHABET).generate("abc", **options)
    single = BlendStepper(compiled._steppers, compiled.config)
    monkeypatch.setattr(Blend, "stepper", lambda self, weight_bits=32: single)
    assert review_model(make(), ALPHABET).generate("abc", **options) == texts
    assert len(set(texts)) == 4


def test_a_saved_blend_is_built_without_torch(monkeypatch):
    monkeypatch.setattr(
        blend_steppers,
        "find_stepper",
        lambda plugin: PairsStepper if plugin.name == "pairs" else find_stepper(plugin),
    )
    factory: Any = find_stepper("blend")
    blend = two()
    tensors = {name: tensor.numpy() for name, tensor in blend.state_dict().items()}
    saved = factory(blend.config, tensors)
    ids = some_ids()
    step, _ = saved.forward(ids.numpy(), saved.initial_state(3))
    np.testing.assert_allclose(step, expected(blend, ids)[:, -1], atol=1e-4)
    assert set(factory.expect(blend.config)) == set(tensors)


def plugins_of(*names: str) -> list[Plugin]:
    return [find_model(name)[1] for name in names]


def test_mixing_is_better_than_any_average_where_two_models_know_two_halves():
    models = [pairs(is_fitted=False), thirds()]
    before = {name: tensor.clone() for name, tensor in models[0].state_dict().items()}
    blend, facts = fit_blend(models, plugins_of("pairs", "thirds"), HELD_OUT, VOCABULARY)
    bits = facts["bits_per_character"]
    assert [entry["name"] for entry in blend.config.models] == ["thirds", "pairs"]
    assert blend.config.weights == (1.0, 0.0) and not blend.config.gate
    assert facts["method"] == "mixing" and facts["order"] == [1, 0]
    assert bits["fitted_weights"] < bits["fixed_weights"] - 0.5 < bits["equal_weights"]
    assert len(bits["parts"]) == 2 and bits["fitted_weights"] < min(bits["parts"]) - 0.5
    assert all(torch.equal(models[0].state_dict()[name], before[name]) for name in before)
    others = [(text, len(text) - 2) for text in halves(20, 2)]
    scores, characters = blending.score_tokens([blend], others, VOCABULARY)
    assert -scores.sum() / characters / np.log(2) < bits["fixed_weights"] - 0.5


def test_the_average_of_several_others_is_fitted_first():
    models = [pairs(is_fitted=False), pairs(is_fitted=False), thirds()]
    names = ("pairs", "pairs", "thirds")
    blend, facts = fit_blend(models, plugins_of(*names), HELD_OUT, VOCABULARY)
    average, _ = fit_blend([thirds(), thirds()], plugins_of("thirds", "thirds"), HELD_OUT, 18)
    assert facts["order"] == [0, 2, 1] and blend.config.weights[-1] == 0
    assert blend.config.has_expert and not average.config.has_expert
    assert [entry["config"]["expert"] for entry in blend.config.models] == [False, False, True]
    assert len(blend.config.gate["coefficients"]) == 2
    assert sum(blend.config.weights) == pytest.approx(1)


class Recorder(Pairs):
    """Keeps the texts that it is fitted to."""

    texts: list[Any]

    def fit_expert(self, texts: Any) -> Any:
        self.texts = list(texts)
        return pairs()


@pytest.mark.parametrize("tokens", [20, 100])
def test_the_expert_is_computed_for_some_texts_of_a_limited_length(tokens, monkeypatch):
    monkeypatch.setattr(blending, "MAX_LOGITS", VOCABULARY * tokens)
    monkeypatch.setattr(blending, "FIT_TOKENS", 400)
    recorder = Recorder(PairsConfig(vocab_size=VOCABULARY))
    model = thirds()
    fit_blend([recorder, model], plugins_of("pairs", "thirds"), HELD_OUT, VOCABULARY)
    assert len(recorder.texts) == 400 // len(HELD_OUT[0][0])
    assert {len(ids) for ids, _ in recorder.texts} == {min(tokens, len(HELD_OUT[0][0]))}
    for ids, log_probs in recorder.texts:
        logits, _ = model(torch.from_numpy(ids)[None], model.initial_state(1))
        np.testing.assert_allclose(log_probs, logits.log_softmax(-1)[0], atol=1e-6)


@pytest.mark.skipif(why_no_node() is not None, reason=str(why_no_node()))
@pytest.mark.parametrize("make", [one, two, nested, inside])
def test_a_page_computes_the_same(make, tmp_path):
    blend = make()
    texts = [[row[:4], row[4:5], row[5:]] for row in some_ids(5).tolist()]
    folder = write_model(tmp_path, "blend", blend, sources() | {"pairs": WEB_STEPPER})
    actual = logits_in_node(folder, texts, VOCABULARY)
    np.testing.assert_allclose(actual, logits_in_python(blend.stepper(), texts), atol=1e-4)


# Blends as ReviewModels.

TEXTS = ["abc abd", "bca hag", "gab cab"] * 9


def pairs_review() -> ReviewModel:
    """Return a ReviewModel of a ``Pairs``, which can be saved."""
    texts = [np.array([0, *LETTERS.encode(text), 1]) for text in TEXTS]
    model = review_model(count_pairs(texts, LETTERS.vocab_size), LETTERS)
    plugins = {
        "model_plugin": Plugin("model", "pairs", THIS_PROCESS, ""),
        "tokenizer_plugin": Plugin("tokenizer", "letters", THIS_PROCESS, ""),
    }
    return ReviewModel(replace(model.bundle, **plugins))


@pytest.fixture
def reviews() -> list[ReviewModel]:
    return [pairs_review(), letters()]


def test_a_saved_blend_scores_and_writes_the_same(reviews, tmp_path):
    blend = reviewgen.blend(reviews, data=TEXTS)
    options = {"num_return_sequences": 3, "seed": 1, "max_new_tokens": 20}
    texts = blend.generate("ab", **options)
    blend.save_pretrained(tmp_path / "blend")
    again = reviewgen.load(tmp_path / "blend")
    assert again.model.config.has_expert
    assert again.generate("ab", **options) == texts
    assert again.score("abc hag") == blend.score("abc hag")
    assert [part["preset"] for part in again.training["parts"]] == [
        reviews[1].preset,
        reviews[0].preset,
    ]
    card = (tmp_path / "blend" / "README.md").read_text(encoding="utf-8")
    assert "mixes the probabilities of the others" in card and "mixes the others, " in card
    outer = reviewgen.blend([again, reviews[0]], data=TEXTS)
    assert outer.model.config.models[0]["name"] == "blend" and outer.model.config.has_expert


PRESETS = """
from reviewgen.config import Preset

PAIRS = Preset(model="pairs", tokenizer="char")
MIXED = Preset(model="blend", tokenizer="char", parts=("gru-char", "pairs-char"))
"""


def test_a_preset_trains_both_and_the_counted_one_mixes_the_network(install):
    points = {
        "models": {"pairs": "tests.support.experts:Pairs"},
        "presets": {"pairs-char": "fake_mixed:PAIRS", "mixed-char": "fake_mixed:MIXED"},
    }
    install("reviewgen-mixed", points, {"fake_mixed": PRESETS})
    _, reports, model = trained("mixed-char", TEXTS * 4, model=MODEL)
    config = model.model.config
    parts = model.training["parts"]
    assert [entry["name"] for entry in config.models] == ["gru", "pairs"] and config.has_expert
    assert [part["preset"] for part in parts] == ["gru-char", "pairs-char"]
    assert [part["weight"] for part in parts] == [1.0, 0.0]
    assert model.training["weights"]["method"] == "mixing"
    assert any("pairs-char mixes the others (alone" in note for note in reports[-1].notes)


@pytest.mark.parametrize("weights", [None, [1, 3]])
def test_without_data_the_blend_is_an_average(reviews, weights):
    blend = reviewgen.blend(reviews, weights)
    assert not blend.model.config.has_expert and len(set(blend.model.config.weights) - {0}) >= 1
    assert isinstance(blend.model.components[0], SupportsExpert)


def test_the_command_says_which_model_mixes_the_others(reviews, tmp_path, run_command):
    for name, model in zip(("pairs", "table"), reviews, strict=True):
        model.save_pretrained(tmp_path / name)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    words = ["blend", tmp_path / "pairs", tmp_path / "table", "--data", tmp_path / "texts.txt"]
    status, out, error = run_command(*words, "--out", tmp_path / "blend")
    lines = out.splitlines()
    assert status == 0 and "weight 1.0000" in lines[0] and "table" in lines[0]
    assert "pairs  mixes the others  " in lines[1] and "has weight 0" not in error


def test_an_explanation_has_the_loss_of_the_blend(reviews):
    blend = reviewgen.blend(reviews, data=TEXTS)
    explanation = reviewgen.explain(blend, "abc hag")
    score = blend.score("abc hag")
    assert explanation.loss.bits_per_character == pytest.approx(score.bits_per_character, abs=1e-4)
    assert [model.name for model in explanation.models] == ["table", "pairs"]
    assert not explanation.mixture


@pytest.mark.parametrize(
    "path, value, sentence",
    [
        (("models", 0, "config", "expert"), True, "Only the last model of a blend can mix the"),
        (("weights",), [0.5, 0.5], "mixes the others, so its weight must be 0; got 0.5"),
        (("models", 1, "characters"), {"bos_id": 0, "tokens": "0"}, "of a model of a blend"),
        (("models",), [], "A blend is not trained but made of at least two"),
        (("gate",), GATE, "The gate of a blend of 1 models must be"),
    ],
)
def test_damaged_configs_are_refused_in_one_sentence(reviews, tmp_path, path, value, sentence):
    reviewgen.blend(reviews, data=TEXTS).save_pretrained(tmp_path / "blend")
    edit_json(tmp_path / "blend" / "config.json", "model", "config", *path, value=value)
    assert sentence in refusal(tmp_path / "blend", accept_changes=True)


def test_the_last_model_must_have_the_tokens_of_the_blend():
    entries = json.loads(json.dumps(in_characters().config.models))
    entries[1]["characters"] = entries[0]["characters"] | {"tokens": " ".join(["0"] * VOCABULARY)}
    with pytest.raises(ConfigError, match="with the tokens of the blend; got it in model 1 of 2"):
        BlendConfig(vocab_size=VOCABULARY, weights=(1.0, 0.0), models=tuple(entries))


def test_the_graph_leads_through_the_last_model(tmp_path: Path):
    edges = {(edge.source, edge.target) for edge in two().describe_graph().edges}
    assert ("mixture", "part2") in edges and ("part2", "logits") in edges
    assert ("part2", "mixture") not in edges and ("mixture", "logits") not in edges
