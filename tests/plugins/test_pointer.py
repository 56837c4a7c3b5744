"""The pointer of the recurrent models: against the mixture written out in NumPy, its state, and bad
settings.
"""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from reviewgen.errors import ConfigError
from reviewgen.protocols.model import flatten_state
from reviewgen.testing.models import call, some_ids
from tests.support.plugin_models import GIVEN, PLAIN, make_network

V = 17
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"pointer": 6},
    "one token": {"pointer": 1, "bos_id": 0},
    "long": {"pointer": 90, "tied": True, "bos_id": 0},
    "given": {"pointer": 8, "tied": True, "ngrams": 3, "ngram_buckets": 20} | GIVEN,
}
every_kind = pytest.mark.parametrize("kind", SETTINGS)


def make(kind: str = "plain", **settings: Any) -> Any:
    return make_network("lstm", **({"vocab_size": V} | SETTINGS[kind] | settings))


def softmax(numbers: Any) -> Any:
    powers = np.exp(numbers - np.max(numbers))
    return powers / powers.sum()


@torch.no_grad
def by_hand(model: Any, ids: list[int]) -> np.ndarray:
    """Return the probabilities after each token of one row, (T, V), token by token."""
    config = model.config
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    tensor = torch.tensor([ids])
    features, _ = model.features(tensor, model.initial_state(1))
    output, bias = (part.double().numpy() for part in model.output_layer())
    first_condition_id = V - config.condition_ids - config.field_ids
    tokens: list[tuple[int, Any]] = []  # each token of the text with its key
    key = np.zeros(64)
    rows = []
    for token, x in zip(ids, features[0].double().numpy(), strict=True):
        n = x / np.sqrt((x**2).mean() + 1e-6) * weights["pointer.norm.weight"]
        if config.bos_id is not None and token == config.bos_id:
            tokens = []
        tokens.append((token, key))
        key = weights["pointer.key.weight"] @ n
        query = weights["pointer.query.weight"] @ n
        probabilities = softmax(output @ x + bias)
        pairs = [
            (token, query @ key / 8)
            for token, key in tokens[-config.pointer :]
            if token != config.bos_id and token < first_condition_id
        ]
        if pairs:
            z = weights["pointer.gate.weight"][0] @ n + weights["pointer.gate.bias"][0]
            gate = 1 / (1 + np.exp(-z))
            probabilities *= 1 - gate
            shares = softmax([score for _, score in pairs])
            for (token, _), share in zip(pairs, shares, strict=True):
                probabilities[token] += gate * share
        rows.append(probabilities)
    return np.stack(rows)


@every_kind
def test_probabilities_are_those_of_the_mixture_by_hand(kind):
    model = make(kind)
    ids = some_ids(model, 3, 60)
    logits, _ = call(model, ids)
    for row, text in zip(logits, ids.tolist(), strict=True):
        np.testing.assert_allclose(row.double().exp(), by_hand(model, text), atol=1e-6, rtol=1e-4)


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("bits, tolerance", [(32, 1e-4), (16, 2e-3), (8, 0.3)])
def test_a_stepper_has_the_logits_and_states_of_a_call_in_any_chunks(kind, bits, tolerance):
    model = make(kind)
    stepper = model.stepper(weight_bits=bits)
    ids = some_ids(model, 2, 300)
    expected, memory = call(model, ids)
    state = stepper.initial_state(2)
    own = model.initial_state(2)
    start = 0
    for size in itertools.cycle((1, 30, 2, 7)):
        chunk = ids[:, start : start + size]
        logits, state = stepper.forward(chunk.numpy(), state)
        again, own = call(model, chunk, own)
        start += chunk.size(1)
        torch.testing.assert_close(again[:, -1], expected[:, start - 1], atol=1e-4, rtol=0)
        assert np.abs(logits - expected[:, start - 1].numpy()).max() < tolerance
        if start == ids.size(1):
            break
    for found, chunked, wanted in zip(
        flatten_state(state), flatten_state(own), flatten_state(memory), strict=True
    ):
        torch.testing.assert_close(chunked, wanted, atol=1e-4, rtol=0)
        assert np.abs(found - wanted.numpy()).max() < 4 * tolerance


@every_kind
def test_a_row_is_the_same_to_the_bit_among_others(kind):
    stepper = make(kind).stepper()
    rows = 7
    ids = np.random.default_rng(0).integers(2, 11, (rows, 30))
    logits, state = stepper.forward(ids, stepper.initial_state(rows))
    uniform = np.random.default_rng(0).random((rows, 100))
    count = np.zeros(rows, np.int64)
    params = PLAIN._replace(vocab_size=V)
    together, used, _ = stepper.sample(state, uniform, params, ids[:, :0], count)
    for row in range(rows):
        one = slice(row, row + 1)
        alone, state_alone = stepper.forward(ids[one], stepper.initial_state(1))
        assert np.array_equal(alone, logits[one])
        tokens, used_alone, _ = stepper.sample(
            state_alone, uniform[one], params, ids[one, :0], count[one]
        )
        assert np.array_equal(tokens, together[one]) and used_alone == used[row]


@torch.no_grad
def test_improbable_tokens_and_closed_gates_stay_finite():
    """Logits far apart, and a gate of 0 or 1 in float32."""
    for bias in -200.0, 200.0:
        model = make()
        model.pointer.gate.bias.fill_(bias)
        model.output.bias[3] = 300.0
        ids = some_ids(model, 1, 20)
        logits, _ = call(model, ids)
        found, _ = model.stepper().forward(ids.numpy(), model.stepper().initial_state(1))
        assert logits.isfinite().all()
        np.testing.assert_allclose(found[0], logits[0, -1], rtol=1e-5)
        with torch.enable_grad():
            model(ids, model.initial_state(1))[0].logsumexp(-1).sum().backward()
        assert all(each.grad.isfinite().all() for each in model.parameters())


@every_kind
@torch.no_grad
def test_explained_weights_and_gates_give_the_probabilities(kind):
    model = make(kind)
    ids = some_ids(model, 2, 12)
    _, state = call(model, ids)
    named = {op.name: op for op in model.operations(ids, state)}
    weights = named["pointer"].values[:, :, 0]
    gate = named["copy gate"].values
    assert named["pointer"].kind == "attention" and named["copy gate"].kind == "gate"
    expected = (1 - gate) * named["output layer"].values.softmax(-1)
    seen = state[-1][:, :-1]
    window = torch.cat([seen, ids], dim=1).unfold(1, model.config.pointer, 1)[:, 1:]
    # a token that is not copied has no weight, unless the gate is 0
    expected.scatter_add_(2, window.clamp(min=0), gate * weights)
    torch.testing.assert_close(named["logits"].values.exp(), expected)


def test_parameters_scales_and_bad_settings():
    model = make()
    k = model.config.hidden_size
    assert model.parameter_kinds()["pointer"] == 2 * 64 * k + k + k + 1
    assert model.scale_logits(0.5) is False
    assert "pointer.key.weight" in type(model.stepper()).expect(model.config)
    for pointer in -1, 5000:
        with pytest.raises(ConfigError, match="pointer must be"):
            make(pointer=pointer)


def test_without_a_pointer_nothing_is_added():
    model = make(pointer=0)
    ids = some_ids(model, 1, 3)
    state = model.initial_state(1)
    assert model.copies(model.features(ids, state)[0], ids, state) is None
    assert len(flatten_state(state)) == 2
