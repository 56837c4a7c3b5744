"""The blend as a model, its weights and its stepper, against mixtures computed in plain numpy."""

import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.optimize
import torch

from reviewgen import registry
from reviewgen.blending import stepper as stepper_module
from reviewgen.blending.config import BlendConfig, describe_part
from reviewgen.blending.gate import MAX_TOKENS, PRIOR_TOKENS, features_of, fit_gate, gated_weights
from reviewgen.blending.model import Blend, EntropyModel
from reviewgen.blending.stepper import BlendStepper, SavedBlend, make_blend_stepper
from reviewgen.blending.weights import check_weights, fit_weights, mix_scores
from reviewgen.compiled.sampling import NONE, SamplingParams, sample_rows
from reviewgen.compiled.spelling import no_places
from reviewgen.compiled.windows import NO_WINDOWS
from reviewgen.config import from_dict, to_dict
from reviewgen.errors import BundleError, ConfigError, DataError, UnknownPlugin
from reviewgen.generation.model_stepper import ModelStepper
from reviewgen.protocols import LanguageModel, Stepper, SupportsSample, SupportsScore, SupportsStep
from reviewgen.registry import find_model
from reviewgen.testing import MODEL_LAWS, make_model

SMALL = {"hidden_size": 6, "embedding_size": 4}
VOCABULARY = 11
GATE = {"coefficients": [[0.3, -0.4, 0.2, 0.1, -0.1, 0.05], [-0.3, 0.4, -0.2, -0.1, 0.1, -0.05]]}


def make_blend(*names, weights=None, gate=None, **settings):
    models = [make_model(name, VOCABULARY, seed, **settings.get(name, {})) for seed, name in enumerate(names)]
    plugins = [find_model(name)[1] for name in names]
    return Blend.from_models(models, plugins, check_weights(weights, len(models)), gate)


def two():
    """Return a blend of a count model and a network."""
    return make_blend("ngram", "gru", weights=[0.3, 0.7], gru=SMALL)


def gated():
    """Return a blend of a count model and a network whose weights depend on the context."""
    return make_blend("ngram", "lstm", weights=[0.3, 0.7], gate=GATE, lstm=SMALL)


def nested():
    """Return a blend of a blend and a network."""
    parts = [two(), make_model("nnlm", VOCABULARY)]
    return Blend.from_models(parts, [find_model("blend")[1], find_model("nnlm")[1]], (0.6, 0.4))


def unsmoothed():
    """Return a blend of two count models that give most tokens probability zero."""
    return make_blend("ngram", "ngram", ngram={"smoothing": "none", "order": 3})


def some_ids(batch=3, time=9, seed=0):
    return torch.randint(VOCABULARY, (batch, time), generator=torch.Generator().manual_seed(seed))


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def mixture(blend, ids):
    """Return the blend's probabilities (B, T, V), in plain float64."""
    logits = [part(ids, part.initial_state(len(ids)))[0].detach().numpy().astype(np.float64) for part in blend.parts]
    probs = np.stack([softmax(part) for part in logits])  # (M, B, T, V)
    weights = np.array(blend.config.weights)[:, None, None]
    if blend.config.gate:
        one, other = -(probs * np.log(np.where(probs > 0, probs, 1))).sum(-1)  # (B, T)
        features = np.stack([np.ones_like(one), one, other, one * one, one * other, other * other])
        weights = weights * np.exp(np.tensordot(np.array(blend.config.gate["coefficients"]), features, axes=1))
    return ((weights / weights.sum(0))[..., None] * probs).sum(0)


@pytest.mark.parametrize("make", [two, gated, nested], ids=["two", "gated", "nested"])
@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_a_blend_keeps_every_law(law, make):
    law(make)


@pytest.mark.parametrize("make", [two, gated, nested, unsmoothed])
def test_logits_and_scores_are_the_mixture(make):
    blend, ids, targets = make(), some_ids(), some_ids(seed=1)
    assert isinstance(blend, LanguageModel) and isinstance(blend, SupportsScore) and isinstance(blend, SupportsStep)
    expected = mixture(blend, ids)
    with torch.no_grad():
        logits, state = blend(ids, blend.initial_state(3))
        scores, _ = blend.score(ids, targets, blend.initial_state(3))
    assert isinstance(state, tuple) and len(state) == len(blend.parts)
    assert not logits.isnan().any()
    np.testing.assert_allclose(logits.double().exp(), expected, atol=1e-6)
    np.testing.assert_array_equal(logits.isneginf(), expected == 0)
    np.testing.assert_allclose(scores, logits.gather(-1, targets[..., None])[..., 0], atol=1e-4)


def test_unsmoothed_parts_cover_for_each_other():
    blend, ids = unsmoothed(), some_ids()
    zeros = [part(ids, part.initial_state(3))[0].isneginf() for part in blend.parts]
    logits, _ = blend(ids, blend.initial_state(3))
    assert (zeros[0] & zeros[1]).any() and (zeros[0] ^ zeros[1]).any()
    assert torch.equal(logits.isneginf(), zeros[0] & zeros[1])


def test_a_model_with_weight_zero_has_no_influence():
    blend, ids = make_blend("ngram", "gru", gru=SMALL), some_ids()
    alone = Blend.from_models(blend.parts, [find_model("ngram")[1], find_model("gru")[1]], (1.0, 0.0))
    expected, _ = blend.parts[0](ids, blend.parts[0].initial_state(3))
    with torch.no_grad():
        np.testing.assert_allclose(alone(ids, alone.initial_state(3))[0], expected, atol=1e-5)
    np.testing.assert_allclose(
        alone.stepper().forward(ids.numpy(), alone.stepper().initial_state(3))[0], expected[:, -1], atol=1e-5
    )


def test_making_a_blend_uses_no_random_numbers_and_shares_the_models():
    parts = [make_model("ngram", VOCABULARY), make_model("gru", VOCABULARY, **SMALL).train()]
    before = torch.get_rng_state()
    blend = Blend.from_models(parts, [find_model("ngram")[1], find_model("gru")[1]], (0.5, 0.5))
    assert torch.equal(torch.get_rng_state(), before)
    assert blend.parts == tuple(parts)
    assert not parts[1].training
    assert all(tensor.is_meta for name, tensor in Blend(blend.config).state_dict().items() if name.startswith("1."))


def test_tensors_that_do_not_fit_are_refused_and_change_nothing():
    blend = two()
    tensors, ids = dict(blend.state_dict()), some_ids()
    expected, _ = blend(ids, blend.initial_state(3))
    wide = {**tensors, "1.embedding.weight": torch.zeros(VOCABULARY, 5)}
    for wrong, words in (
        (wide, "Model 1 of the blend expects embedding.weight of shape (11, 4); got (11, 5)"),
        ({name: tensor for name, tensor in tensors.items() if name != "1.output.bias"}, "output.bias"),
        ({**tensors, "2.weight": torch.zeros(1)}, "'2.weight' belongs to none of the 2 models"),
        ({**tensors, "weight": torch.zeros(1)}, "'weight' belongs to none"),
    ):
        with pytest.raises(BundleError) as caught:
            blend.load_state_dict(wrong)
        assert words in str(caught.value)
    assert torch.equal(blend(ids, blend.initial_state(3))[0], expected)


PART = {"name": "ngram", "distribution": "reviewgen", "version": "0", "config": {"vocab_size": 5}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "A blend is not trained"),
        ({"models": [PART], "weights": [1.0]}, "at least two trained models"),
        ({"models": [PART, PART]}, "needs 2 weights; got 0"),
        ({"models": [PART, PART], "weights": [0.5, 0.6]}, "must sum to one; got 0.5, 0.6"),
        ({"models": [PART, PART], "weights": [1.5, -0.5]}, "weights must be at least 0; got -0.5"),
        ({"models": [PART, PART], "weights": [0.5, float("nan")]}, "finite"),
        ({"models": [PART, PART], "weights": [0.5, 0.5], "gate": {"x": 1}}, "must be {'coefficients': 2 lists of 6 finite num"),
        ({"models": [PART, PART], "weights": [0.5, 0.5], "gate": {"coefficients": [[0.0] * 6, [0.0] * 5]}}, "2 lists of 6"),
        ({"models": [PART, PART], "weights": [0.5, 0.5], "gate": {"coefficients": [["a"] * 6] * 2}}, "finite numbers"),
        ({"models": [PART, PART], "weights": [0.5, 0.5], "gate": {"coefficients": [[float("nan")] * 6] * 2}}, "finite numbers"),
        ({"models": [PART, PART | {"x": 1}], "weights": [0.5, 0.5]}, "Model 1 of the blend should have the keys"),
        ({"models": [PART, PART | {"config": {"vocab_size": 6}}], "weights": [0.5, 0.5]}, "has 6 token ids, but the blend has 5"),
    ],
)
def test_a_config_is_strict(settings, words):
    with pytest.raises(ConfigError) as caught:
        from_dict(BlendConfig, {"vocab_size": 5} | settings)
    assert words in str(caught.value)


def test_a_config_without_a_gate_has_fixed_weights():
    config = from_dict(BlendConfig, {"vocab_size": 5, "weights": [0.5, 0.5], "models": [PART, PART]})
    assert config.gate == {} and config.coefficients.shape == (2, 0)


@pytest.mark.parametrize("make", [gated, nested])
def test_a_config_survives_json(make):
    config = make().config
    assert from_dict(BlendConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_a_nested_blend_is_described():
    entry = describe_part(find_model("blend")[1], nested().config)
    assert entry["config"]["models"][0]["config"]["models"][1]["name"] == "gru"


def test_a_part_that_is_not_installed_is_named():
    config = BlendConfig(
        vocab_size=5, weights=(0.5, 0.5), models=(PART, PART | {"name": "gone", "distribution": "reviewgen-gone"})
    )
    with pytest.raises(UnknownPlugin, match=r"the model 'gone' of the package reviewgen-gone 0.*pip install reviewgen-gone"):
        Blend(config)


# --- the stepper


@pytest.mark.parametrize("make", [two, gated, nested, unsmoothed])
def test_the_stepper_equals_the_plain_call(make):
    blend, ids = make(), some_ids()
    stepper = blend.stepper()
    assert isinstance(stepper, Stepper)
    with torch.no_grad():
        expected = blend(ids, blend.initial_state(3))[0].numpy()
    logits, state = stepper.forward(ids[:, :4].numpy(), stepper.initial_state(3))
    kept = json.dumps(state, default=lambda array: array.tolist())
    for t in range(4, 9):
        np.testing.assert_allclose(logits, expected[:, t - 1], atol=1e-4)
        logits, state = stepper.forward(ids[:, t : t + 1].numpy(), state)
    np.testing.assert_allclose(logits, expected[:, -1], atol=1e-4)
    assert logits.dtype == np.float32
    again = stepper.forward(ids[:, :4].numpy(), stepper.initial_state(3))[1]
    assert json.dumps(again, default=lambda array: array.tolist()) == kept


PLAIN = SamplingParams(np.array([0.9]), 0, 1.0, 0.0, 1.0, 0, 0, 1 << 40, False, 1, 0, VOCABULARY)


@pytest.mark.parametrize("make", [two, gated, nested])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"top_k": 4, "top_p": 0.9, "min_p": 0.01},
        {"is_greedy": True, "repetition_penalty": 1.3, "min_new_tokens": 20},
        {"no_repeat_ngram_size": 2},
    ],
    ids=["plain", "filters", "greedy", "ngrams"],
)
def test_its_loop_samples_what_its_logits_say(make, settings):
    stepper, params = make().stepper(), PLAIN._replace(**settings)
    assert isinstance(stepper, SupportsSample)
    ids = some_ids(batch=5).numpy()
    uniform = np.random.default_rng(1).random((5, 42))
    _, state = stepper.forward(ids, stepper.initial_state(5))
    tokens, used, _ = stepper.sample(state, uniform, params, ids, np.zeros(5, np.int64))
    for row in range(5):  # one text after another, token by token
        text = ids[row].tolist()
        logits, state = stepper.forward(ids[row : row + 1], stepper.initial_state(1))
        for place, token in enumerate(tokens[row].tolist()):
            if place and text[-1] == 1:
                assert token == NONE
                break
            scratch, size = np.array([*text, 0]), len(text)
            arguments = np.array([size]), np.array([place]), uniform[row, place : place + 1], params
            unconstrained = NO_WINDOWS, np.array([0]), None, no_places(1)
            drawn = np.empty(1, np.int64)
            sample_rows(logits, scratch[None], *arguments, *unconstrained, drawn)
            assert token == drawn[0], (row, place)
            text.append(token)
            logits, state = stepper.forward(np.array([[token]]), state)
        assert used[row] == (tokens[row] != NONE).sum()


def test_a_blend_with_a_part_that_has_no_compiled_step_is_stepped_in_python():
    blend, ids = make_blend("ngram", "gru", gru=SMALL, gate=GATE), some_ids().numpy()
    stepper = make_blend_stepper([blend.parts[0].stepper(), ModelStepper(blend.parts[1])], blend.config)
    assert isinstance(stepper, BlendStepper) and not isinstance(stepper, SupportsSample)
    logits, _ = stepper.forward(ids, stepper.initial_state(3))
    expected, _ = blend.stepper().forward(ids, blend.stepper().initial_state(3))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


class TableStepper:
    """Scores the next token by a table of logits (V, V); built as a StepperFactory builds it."""

    Config = find_model("rnn")[0].Config

    def __init__(self, config, tensors, bits=32):
        self.table = tensors["table"]

    @staticmethod
    def expect(config):
        return {"table": ("float32", (config.vocab_size, config.vocab_size))}

    def initial_state(self, batch_size):
        return np.zeros((batch_size, 1))

    def forward(self, ids, state):
        return self.table[ids[:, -1]], state + ids.shape[1]


def tables():
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(5, 5)).astype(np.float32) * 50 for _ in range(2))
    first[:, 0], second[:, 0], second[:, 1] = -np.inf, -np.inf, -np.inf
    return {"0.table": first, "1.table": second}


def test_a_saved_blend_builds_its_parts_steppers(monkeypatch):
    monkeypatch.setattr(stepper_module, "find_stepper", {"rnn": TableStepper, "blend": SavedBlend}.get)
    part = PART | {"name": "rnn"}
    config = BlendConfig(vocab_size=5, weights=(0.25, 0.75), models=(part, part))
    assert SavedBlend.expect(config) == {"0.table": ("float32", (5, 5)), "1.table": ("float32", (5, 5))}
    stepper = SavedBlend(config, tables())
    ids = np.array([[1, 2], [3, 4]])
    logits, state = stepper.forward(ids, stepper.initial_state(2))
    parts = [table[ids[:, -1]].astype(np.float64) for table in tables().values()]
    np.testing.assert_allclose(np.exp(logits), 0.25 * softmax(parts[0]) + 0.75 * softmax(parts[1]), rtol=1e-4)
    assert np.isneginf(logits[:, 0]).all() and np.isfinite(logits[:, 1:]).all()
    assert [part.tolist() for part in state] == [[[2.0], [2.0]]] * 2

    outer = BlendConfig(vocab_size=5, weights=(0.5, 0.5), models=(describe_part(find_model("blend")[1], config), part))
    assert list(SavedBlend.expect(outer)) == ["0.0.table", "0.1.table", "1.table"]
    named = {f"0.{name}": table for name, table in tables().items()} | {"1.table": tables()["0.table"]}
    stepper = SavedBlend(outer, named)
    both, _ = stepper.forward(ids, stepper.initial_state(2))
    np.testing.assert_allclose(np.exp(both), 0.5 * np.exp(logits) + 0.5 * softmax(parts[0]), rtol=1e-4)


def test_a_part_without_a_stepper_is_reported_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(stepper_module, "find_stepper", {"rnn": TableStepper}.get)
    config = BlendConfig(vocab_size=5, weights=(0.5, 0.5), models=(PART | {"name": "rnn"}, PART))
    assert SavedBlend.expect(config) is None


def test_the_stepper_s_module_loads_no_torch():
    script = "import sys, reviewgen.blending.stepper, reviewgen.blending.weights; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_entry_points_name_both():
    assert registry.find_model("blend")[0] is Blend
    assert registry.find_stepper("blend") is SavedBlend


# --- the weights


def likelihoods(tokens=3000, models=3, seed=0):
    """Return log probabilities under models that are each good at different tokens."""
    return np.log(np.random.default_rng(seed).beta(0.6, 2.0, (tokens, models)) + 1e-9)


def average(log_probs, weights):
    return float(mix_scores(log_probs, np.asarray(weights, np.float64)).mean())


def test_two_weights_are_those_of_a_fine_grid():
    log_probs = likelihoods(1000, models=2)
    log_probs[:, 1] -= 0.4
    shares = np.linspace(0, 1, 4_001)
    best = shares[np.argmax([average(log_probs, [share, 1 - share]) for share in shares[1:-1]]) + 1]
    assert fit_weights(log_probs)[0] == pytest.approx(best, abs=3e-4)


def test_four_weights_are_those_of_an_optimiser():
    log_probs = likelihoods(models=4) - np.array([0.0, 0.1, 0.2, 0.3])
    found = scipy.optimize.minimize(
        lambda raw: -average(log_probs, softmax(raw)), np.zeros(4), method="BFGS", options={"gtol": 1e-9}
    )
    fitted = fit_weights(log_probs)
    np.testing.assert_allclose(fitted, softmax(found.x), atol=2e-4)
    assert average(log_probs, fitted) == pytest.approx(-found.fun, abs=1e-8)
    assert fitted.sum() == pytest.approx(1, abs=1e-12)


def test_the_log_likelihood_never_decreases():
    log_probs = likelihoods() - np.array([0.0, 2.0, 5.0])
    averages = [average(log_probs, fit_weights(log_probs, rounds=rounds, tolerance=0)) for rounds in range(40)]
    assert averages[0] < averages[-1]
    assert (np.diff(averages) > -1e-12).all()


def test_zero_probabilities_are_honest():
    log_probs = likelihoods(models=2)
    log_probs[:, 1] = -np.inf
    np.testing.assert_array_equal(fit_weights(log_probs), [1, 0])
    assert average(log_probs, [1, 0]) == log_probs[:, 0].mean()
    half = likelihoods(models=2)
    half[::3, 1] = -np.inf
    impossible = np.concatenate((half, np.full((50, 2), -np.inf)))
    np.testing.assert_array_equal(fit_weights(impossible), fit_weights(half))  # they are left out of the fit
    assert average(impossible, fit_weights(half)) == -np.inf  # but not out of the average


@pytest.mark.parametrize(
    "log_probs", [np.zeros((0, 2)), np.full((3, 2), -np.inf), np.array([[np.nan, -1.0]]), np.array([[0.5, -1.0]])]
)
def test_weights_that_cannot_be_fitted_are_refused(log_probs):
    with pytest.raises(DataError, match="weights cannot be fitted"):
        fit_weights(log_probs)


def test_very_small_probabilities_are_not_zero():
    log_probs = likelihoods(models=2)
    np.testing.assert_allclose(fit_weights(log_probs - 5000), fit_weights(log_probs), atol=1e-9)


# --- the gate


def contexts(tokens, seed, clear=True):
    """Return log probabilities and entropies of two models: the one with the lower entropy is mostly right, if ``clear``."""
    rng = np.random.default_rng(seed)
    entropies = rng.uniform(0.1, 3.0, (tokens, 2))
    difference = (entropies[:, 1] - entropies[:, 0]) * (1.5 if clear else 0.0)
    log_probs = -2.0 + np.stack([difference, -difference], axis=1) / 2 + rng.normal(0, 0.8, (tokens, 2))
    return np.minimum(log_probs, -0.01), entropies


def gated_average(log_probs, entropies, weights, gate):
    return float(mix_scores(log_probs, gated_weights(features_of(entropies), weights, gate)).mean())


def test_the_gate_is_that_of_an_optimiser():
    log_probs, entropies = contexts(800, 0)
    weights, features = fit_weights(log_probs), features_of(entropies)
    moments = features.T @ features / len(features)

    def objective(raw):
        gate = np.stack([raw, -raw])
        penalty = PRIOR_TOKENS / len(features) / 2 * np.sum(gate @ moments * gate)
        return -gated_average(log_probs, entropies, weights, gate) + penalty

    found = scipy.optimize.minimize(objective, np.zeros(6), method="BFGS", options={"gtol": 1e-8})
    gate = fit_gate(log_probs, entropies, weights)
    np.testing.assert_allclose(gate.sum(axis=0), 0, atol=1e-9)
    assert objective(gate[0]) == pytest.approx(found.fun, abs=1e-4)
    assert objective(gate[0]) < objective(np.zeros(6)) - 0.01


@pytest.mark.parametrize("tokens", [300, 5000])
def test_the_gate_is_better_on_other_tokens_where_the_context_says_something(tokens):
    log_probs, entropies = contexts(tokens, 1)
    weights = fit_weights(log_probs)
    gate = fit_gate(log_probs, entropies, weights)
    others = contexts(20_000, 2)
    assert gated_average(*others, weights, gate) > average(others[0], weights) + 0.02


@pytest.mark.parametrize("tokens", [1, 5, 100, 1000])
def test_the_gate_stays_near_the_fixed_weights_where_it_says_nothing(tokens):
    for seed in range(5):
        log_probs, entropies = contexts(tokens, seed, clear=False)
        weights = fit_weights(log_probs)
        gate = fit_gate(log_probs, entropies, weights)
        others = contexts(20_000, 99, clear=False)
        assert gated_average(*others, weights, gate) > average(others[0], weights) - 0.02


def test_strange_tokens_break_no_fit():
    log_probs, entropies = contexts(500, 3)
    log_probs[::7, 0], log_probs[::11] = -np.inf, -np.inf
    weights = fit_weights(log_probs)
    assert np.isfinite(fit_gate(log_probs, entropies, weights)).all()
    assert np.isfinite(fit_gate(log_probs, np.zeros_like(entropies), weights)).all()
    alone = fit_gate(log_probs, entropies, np.array([1.0, 0.0]))
    np.testing.assert_array_equal(gated_weights(features_of(entropies), np.array([1.0, 0.0]), alone), [[1, 0]] * 500)
    many = contexts(3 * MAX_TOKENS, 4)
    few = tuple(array[::3] for array in many)
    np.testing.assert_allclose(fit_gate(*many, weights), fit_gate(*few, weights), atol=1e-9)


def test_entropies_are_scored_like_tokens():
    model, ids = make_model("gru", VOCABULARY, **SMALL), some_ids()
    with torch.no_grad():
        logits = model(ids, model.initial_state(3))[0].double()
        scores, _ = EntropyModel(model).score(ids, ids, model.initial_state(3))
    expected = torch.distributions.Categorical(logits=logits).entropy()
    np.testing.assert_allclose(-scores, expected, atol=1e-5)
