"""The transformer: against ``MistralForCausalLM`` of the library transformers, its state, its
stepper, and bad settings.
"""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from reviewgen_transformer.network import mistral_name

from reviewgen.errors import BundleError, ConfigError, ShapeError
from reviewgen.protocols.model import flatten_state
from reviewgen.registry.plugins import find_model, find_stepper
from reviewgen.testing import MODEL_LAWS, STEPPER_LAWS
from reviewgen.testing.models import call, some_ids
from tests.support.plugin_models import GIVEN, PLAIN

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shared": {"heads": 4, "key_value_heads": 2, "feed_forward_size": 24},
    "one token": {"window": 1},
    "long window": {"window": 70},
    "n-grams": {"ngrams": 3, "ngram_buckets": 50},
    "given": GIVEN | {"ngrams": 2, "ngram_buckets": 50},
}
every_kind = pytest.mark.parametrize("kind", SETTINGS)


def make(kind: str = "plain", **settings: Any) -> Any:
    """Return a transformer with random weights; those that are constant in a fresh model, too."""
    cls: Any = find_model("transformer")[0]
    torch.manual_seed(0)
    common = {"vocab_size": 11, "hidden_size": 16, "layers": 2, "heads": 2, "window": 9}
    model = cls(cls.Config(**(common | SETTINGS[kind] | settings))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


@every_kind
@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_laws_of_models(law, kind):
    law(lambda: make(kind))


@every_kind
@pytest.mark.parametrize("law", STEPPER_LAWS, ids=lambda law: law.__name__)
def test_laws_of_steppers(law, kind):
    law(lambda: make(kind), find_stepper("transformer"))


@pytest.mark.parametrize("kind", ["plain", "shared", "long window"])
@torch.no_grad
def test_logits_are_those_of_mistral_at_once_and_token_by_token(kind):
    transformers = pytest.importorskip("transformers")
    model = make(kind, hidden_size=32, layers=3, vocab_size=50)
    config = model.config
    mistral = transformers.MistralForCausalLM(
        transformers.MistralConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.inner_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_value_heads or config.heads,
            head_dim=config.head_size,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            sliding_window=config.window,
            tie_word_embeddings=True,
            max_position_embeddings=1 << 12,
            attn_implementation="eager",
        )
    ).eval()
    tensors = {mistral_name(name): tensor for name, tensor in model.state_dict().items()}
    result = mistral.load_state_dict(tensors, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["lm_head.weight"], [])
    mistral.tie_weights()
    stepper = model.stepper()
    for text in range(20):
        ids = some_ids(model, 1, 40, seed=text)
        expected = mistral(ids).logits
        torch.testing.assert_close(call(model, ids)[0], expected, atol=1e-4, rtol=0)
        state = stepper.initial_state(1)
        cache = None
        for t in range(ids.size(1)):
            given = mistral(ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            cache = given.past_key_values
            logits, state = stepper.forward(ids[:, t : t + 1].numpy(), state)
            torch.testing.assert_close(given.logits[:, 0], expected[:, t], atol=1e-4, rtol=0)
            assert np.abs(logits - expected[:, t].numpy()).max() < 1e-4
    again = make(kind, hidden_size=32, layers=3, vocab_size=50)
    assert again.initial_weights(tensors).keys() == model.state_dict().keys()


@every_kind
def test_a_long_text_in_any_chunks_is_the_whole_text(kind):
    """Far beyond the window, with the keys and values of the state equal in both."""
    model = make(kind)
    ids = some_ids(model, 2, 400)
    expected, memory = call(model, ids)
    stepper = model.stepper()
    state = model.initial_state(2)
    steps = stepper.initial_state(2)
    start = 0
    for size in itertools.cycle((1, 30, 2, 7)):
        chunk = ids[:, start : start + size]
        logits, state = call(model, chunk, state)
        last, steps = stepper.forward(chunk.numpy(), steps)
        start += chunk.size(1)
        part = expected[:, start - chunk.size(1) : start]
        torch.testing.assert_close(logits, part, atol=1e-4, rtol=0)
        assert np.abs(last - expected[:, start - 1].numpy()).max() < 1e-4
        if start == ids.size(1):
            break
    torch.testing.assert_close(state, memory, atol=1e-4, rtol=0)
    for found, wanted in zip((*steps[:2], *steps[3:]), memory, strict=True):
        assert np.abs(found - wanted.numpy()).max() < 1e-4


def test_a_token_reads_the_last_window_of_each_layer():
    model = make(layers=1, window=4)
    ids = some_ids(model, 1, 12)
    before = call(model, ids)[0][0]
    ids[0, 5] = (ids[0, 5] + 1) % 11
    changed = (call(model, ids)[0][0] - before).abs().amax(-1) > 1e-6
    assert changed.nonzero().flatten().tolist() == [5, 6, 7, 8]


@pytest.mark.slow
@pytest.mark.parametrize("bits, tolerance", [(16, 2e-3), (8, 0.5)])
def test_logits_with_fewer_bits(bits, tolerance):
    model = make("n-grams")
    stepper = model.stepper(weight_bits=bits)
    ids = some_ids(model, 2, 60)
    logits, _ = stepper.forward(ids.numpy(), stepper.initial_state(2))
    assert np.abs(logits - call(model, ids)[0][:, -1].numpy()).max() < tolerance


@every_kind
def test_a_row_is_the_same_to_the_bit_among_others(kind):
    stepper = make(kind).stepper()
    rows = 7
    ids = np.random.default_rng(0).integers(2, 11, (rows, 30))
    logits, state = stepper.forward(ids, stepper.initial_state(rows))
    uniform = np.random.default_rng(0).random((rows, 100))
    count = np.zeros(rows, np.int64)
    together, used, _ = stepper.sample(state, uniform, PLAIN, ids[:, :0], count)
    for row in range(rows):
        one = slice(row, row + 1)
        logits_alone, state_alone = stepper.forward(ids[one], stepper.initial_state(1))
        assert np.array_equal(logits_alone, logits[one])
        tokens, used_alone, _ = stepper.sample(
            state_alone, uniform[one], PLAIN, ids[one, :0], count[one]
        )
        assert np.array_equal(tokens, together[one]) and used_alone == used[row]


def test_dropout_is_for_training_only():
    model = make("n-grams", dropout=0.5, embedding_dropout=0.5, ngram_dropout=0.5)
    ids = some_ids(model, 2, 9)
    expected = call(make("n-grams"), ids)[0]
    torch.testing.assert_close(call(model, ids)[0], expected)
    assert not torch.allclose(call(model.train(), ids)[0], expected)


def test_damaged_weights_are_refused():
    model = make()
    arrays = {key: tensor.numpy().copy() for key, tensor in model.state_dict().items()}
    arrays["norm.weight"][1] = np.nan
    with pytest.raises(BundleError, match=r"norm\.weight"):
        type(model.stepper())(model.config, arrays)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"window": 0}, "window must be at least 1"),
        ({"heads": 3}, "hidden_size=16 cannot be divided among heads=3"),
        ({"heads": 4, "key_value_heads": 3}, "heads=4 cannot be divided among key_value_heads=3"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        make(**settings)


def test_a_state_of_another_model_is_refused():
    model = make()
    state = make(window=5).initial_state(2)
    with pytest.raises(ShapeError, match="cache of the state"):
        model(some_ids(model, 2, 3), state)
    assert len(flatten_state(state)) == 2


@every_kind
@torch.no_grad
def test_the_weights_of_the_heads_are_torchs_softmax_and_give_what_torchs_attention_reads(kind):
    model = make(kind)
    ids = some_ids(model, 2, 14)
    _, state = call(model, ids)
    names = {op.name: op.values for op in model.operations(ids, state)}
    positions, _ = model.positions(ids, state[1])
    window = model.config.window
    inputs = model.embed(ids, state)[0], names["feed-forward, layer 1"]
    for number, (layer, x) in enumerate(zip(model.layers, inputs, strict=True), 1):
        cache = state[0][:, number - 1]
        q, k, v, _ = layer.self_attn.project(layer.input_layernorm(x), cache, positions)
        k, v = (part.repeat_interleave(q.size(2) // part.size(2), 2) for part in (k, v))
        scores = torch.einsum("btnd,bsnd->bnts", q, k) * q.size(-1) ** -0.5 + positions.mask
        expected = scores.softmax(-1)
        weights = names[f"softmax, layer {number}"]
        for time in range(ids.size(1)):
            seen = expected[:, :, time, time + 1 : time + 1 + window]
            torch.testing.assert_close(weights[:, time], seen)
        read, _ = layer.self_attn(layer.input_layernorm(x), cache, positions)
        torch.testing.assert_close(names[f"mix, layer {number}"], x + read)
