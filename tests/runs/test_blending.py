"""The blend as a model, its weights and its stepper, against mixtures computed in plain numpy and
optimisers of scipy.
"""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch

from reviewgen.blending.model import Blend
from reviewgen.blending.weights import features_of, fit_gate, fit_weights, gated_weights
from reviewgen.protocols import LanguageModel, Stepper, SupportsSample, SupportsScore, SupportsStep
from reviewgen.registry.plugins import find_stepper
from reviewgen.testing import MODEL_LAWS, make_model
from reviewgen.testing.steppers import step_logits
from tests.support.plugin_models import make_blend

SavedBlend = find_stepper("blend")
SMALL = {"hidden_size": 6, "embedding_size": 4}
VOCABULARY = 11
GATE = {"coefficients": [[0.3, -0.4, 0.2, 0.1, -0.1, 0.05], [-0.3, 0.4, -0.2, -0.1, 0.1, -0.05]]}
PRIOR_TOKENS = 30  # what the prior of the gate counts as


def blend_of(*names: str, weights: Any = (0.5, 0.5), gate: Any = None, **settings: Any) -> Any:
    models = [
        make_model(name, VOCABULARY, seed, **settings.get(name, {}))
        for seed, name in enumerate(names)
    ]
    return make_blend(models, names, weights, gate)


def two() -> Any:
    """Return a blend of a count model and a network."""
    return blend_of("ngram", "gru", weights=[0.3, 0.7], gru=SMALL)


def gated() -> Any:
    """Return a blend of a count model and a network whose weights depend on the context."""
    return blend_of("ngram", "lstm", weights=[0.3, 0.7], gate=GATE, lstm=SMALL)


def three() -> Any:
    """Return a blend of three models with a gate."""
    gate = {"coefficients": np.random.default_rng(0).normal(size=(3, 10)).tolist()}
    return blend_of(
        "ngram", "gru", "lstm", weights=[0.2, 0.3, 0.5], gate=gate, gru=SMALL, lstm=SMALL
    )


def unsmoothed() -> Any:
    """Return a blend of two count models that give most tokens probability zero."""
    return blend_of("ngram", "ngram", ngram={"smoothing": "none", "order": 3})


def one_sided() -> Any:
    """Return a blend of which one model has all the weight."""
    return blend_of("ngram", "gru", weights=(1.0, 0.0), gru=SMALL)


def some_ids(batch: int = 3, time: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, (batch, time), generator=torch.Generator().manual_seed(seed))


def softmax(logits: Any) -> Any:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def mixture(blend: Any, ids: torch.Tensor) -> Any:
    """Return the blend's probabilities (B, T, V), in plain float64."""
    logits = [
        part(ids, part.initial_state(len(ids)))[0].detach().numpy().astype(np.float64)
        for part in blend.components
    ]
    probs = np.stack([softmax(part) for part in logits])  # (M, B, T, V)
    weights = np.array(blend.config.weights)[:, None, None]
    if blend.config.gate:
        entropies = -(probs * np.log(np.where(probs > 0, probs, 1))).sum(-1)  # (M, B, T)
        pairs = [
            one * other for one, other in itertools.combinations_with_replacement(entropies, 2)
        ]
        features = np.stack([np.ones_like(entropies[0]), *entropies, *pairs])
        weights = weights * np.exp(
            np.tensordot(np.array(blend.config.gate["coefficients"]), features, axes=1)
        )
    return ((weights / weights.sum(0))[..., None] * probs).sum(0)


@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_a_gated_blend_keeps_every_law(law):
    law(gated)


def test_a_blend_whose_probabilities_do_not_sum_to_one_breaks_a_law(monkeypatch):
    [law] = [law for law in MODEL_LAWS if law.__name__ == "sums_to_one"]
    for make in two, gated, three, unsmoothed, one_sided:
        law(make)
    weights = Blend.log_weights
    monkeypatch.setattr(
        Blend,
        "log_weights",
        lambda self, log_probs: [weight + 0.01 for weight in weights(self, log_probs)],
    )
    with pytest.raises(AssertionError, match=r"the logits are probabilities that sum to 1\.01"):
        law(gated)


@pytest.mark.parametrize("make", [two, gated, three, unsmoothed, one_sided])
def test_logits_scores_and_steps_are_the_mixture(make):
    blend = make()
    ids = some_ids()
    targets = some_ids(seed=1)
    assert (
        isinstance(blend, LanguageModel)
        and isinstance(blend, SupportsScore)
        and isinstance(blend, SupportsStep)
    )
    expected = mixture(blend, ids)
    with torch.no_grad():
        logits, state = blend(ids, blend.initial_state(3))
        scores, _ = blend.score(ids, targets, blend.initial_state(3))
    assert (
        isinstance(state, tuple)
        and len(state) == len(blend.components)
        and not logits.isnan().any()
    )
    np.testing.assert_allclose(logits.double().exp(), expected, atol=1e-6)
    np.testing.assert_array_equal(logits.isneginf(), expected == 0)
    np.testing.assert_allclose(scores, logits.gather(-1, targets[..., None])[..., 0], atol=1e-4)
    assert isinstance(blend.stepper(), Stepper) and isinstance(blend.stepper(), SupportsSample)
    step_logits(make)


def test_a_saved_blend_is_built_from_the_steppers_of_its_parts():
    for make in (two, gated):
        blend = make()
        ids = some_ids()
        tensors = {name: tensor.numpy() for name, tensor in blend.state_dict().items()}
        saved = SavedBlend(blend.config, tensors)
        step, _ = saved.forward(ids.numpy(), saved.initial_state(3))
        np.testing.assert_allclose(np.exp(step), mixture(blend, ids)[:, -1], atol=1e-5)
        assert set(SavedBlend.expect(blend.config)) == set(tensors)


def mix(log_probs: Any, weights: Any) -> Any:
    """Return the log probability of each token under a mixture."""
    with np.errstate(divide="ignore"):
        return np.log((np.exp(log_probs) * weights).sum(axis=1))


def average(log_probs: Any, weights: Any) -> float:
    return float(mix(log_probs, np.asarray(weights)).mean())


def test_four_weights_are_those_of_an_optimiser():
    """Of models that are each good at different tokens."""
    log_probs = np.log(np.random.default_rng(0).beta(0.6, 2.0, (3000, 4)) + 1e-9) - np.array(
        [0.0, 0.1, 0.2, 0.3]
    )
    best = scipy.optimize.minimize(
        lambda raw: -average(log_probs, softmax(raw)),
        np.zeros(4),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    fitted = fit_weights(log_probs)
    np.testing.assert_allclose(fitted, softmax(best.x), atol=2e-4)
    assert average(log_probs, fitted) == pytest.approx(-best.fun, abs=1e-8)
    assert fitted.sum() == pytest.approx(1, abs=1e-12)


def test_the_gate_is_that_of_an_optimiser():
    """Of two models, of which the one with the lower entropy is mostly right."""
    rng = np.random.default_rng(0)
    entropies = rng.uniform(0.1, 3.0, (800, 2))
    difference = (entropies[:, 1] - entropies[:, 0]) * 1.5
    log_probs = np.minimum(
        -2.0 + np.stack([difference, -difference], axis=1) / 2 + rng.normal(0, 0.8, (800, 2)), -0.01
    )
    weights = fit_weights(log_probs)
    features = features_of(entropies)
    moments = features.T @ features / len(features)

    def objective(raw: Any) -> float:
        gate = np.stack([raw, -raw])
        penalty = PRIOR_TOKENS / len(features) / 2 * np.sum(gate @ moments * gate)
        return float(penalty - mix(log_probs, gated_weights(features, weights, gate)).mean())

    best = scipy.optimize.minimize(objective, np.zeros(6), method="BFGS", options={"gtol": 1e-8})
    gate = fit_gate(log_probs, entropies, weights)
    np.testing.assert_allclose(gate.sum(axis=0), 0, atol=1e-9)
    assert objective(gate[0]) == pytest.approx(best.fun, abs=1e-4)
    assert objective(gate[0]) < objective(np.zeros(6)) - 0.01
