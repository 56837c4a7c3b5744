"""The dropouts of rnn, gru and lstm: statistics of their masks, and models equal to torch's own layers given the same masks."""

import copy
import itertools

import pytest
import torch
from reviewgen_recurrent import dropout
from reviewgen_recurrent.dropout import drop
from reviewgen_recurrent.gru import Gru
from reviewgen_recurrent.lstm import Lstm
from reviewgen_recurrent.rnn import Rnn
from torch import nn

import reviewgen
from reviewgen.errors import ConfigError
from reviewgen.testing.models import some_ids, tensors

MODELS = {"rnn": (Rnn, nn.RNN), "gru": (Gru, nn.GRU), "lstm": (Lstm, nn.LSTM)}
EVERY_DROPOUT = {
    "dropout": 0.5,
    "embedding_dropout": 0.3,
    "output_dropout": 0.4,
    "locked_dropout": True,
    "token_dropout": 0.2,
    "weight_dropout": 0.5,
}
LAYERS = ("fused", "reference")
every_model = pytest.mark.parametrize("name", MODELS)
every_layer = pytest.mark.parametrize("layer", LAYERS)
B, T, E, H, V = 3, 9, 5, 7, 11


def make(name, **settings):
    torch.manual_seed(0)
    cls = MODELS[name][0]
    return cls(cls.Config(**{"vocab_size": V, "embedding_size": E, "hidden_size": H, "layers": 2, **settings})).train()


def run(model, seed=0):
    """Return the logits and the state of a call in training, each seed with its own dropout."""
    torch.manual_seed(seed)
    return model(some_ids(model, B, T), model.initial_state(B))


@pytest.fixture
def masks(monkeypatch):
    """Collect each mask, as the factors that it stands for."""
    kept, make_mask = [], dropout.make_mask

    def make_and_keep(shape, share, device):
        dropped = make_mask(shape, share, device)
        kept.append(~dropped / (1 - share))
        return dropped

    monkeypatch.setattr(dropout, "make_mask", make_and_keep)
    return kept


class TestDrop:
    @pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
    def test_a_share_is_zero_and_the_rest_is_scaled(self, share):
        torch.manual_seed(0)
        count, x = 200_000, torch.rand(200_000) + 1
        dropped = drop(x, share, training=True)
        gone = dropped == 0
        torch.testing.assert_close(dropped[~gone], x[~gone] / (1 - share))
        sigma = (share * (1 - share) / count) ** 0.5
        assert abs(gone.double().mean() - share) < 4 * sigma + 1e-5
        other = drop(x, share, training=True) == 0  # nor does the next mask know of this one
        assert abs((gone & other).double().mean() - share**2) < 6 * sigma
        for step in 1, 2, 3, 8, 16, 64, 1024:  # neighbours know nothing of one another
            both = (gone[step:] & gone[:-step]).double().mean()
            assert abs(both - share**2) < 6 * sigma
        assert abs(dropped.mean() / x.mean() - 1) < 0.02

    @pytest.mark.parametrize("share", [0.0, 1e-9])
    def test_nothing_is_dropped(self, share):
        x = torch.randn(1000)
        assert torch.equal(drop(x, share, training=True), x)
        assert torch.equal(drop(x, 0.5, training=False), x)

    def test_nearly_everything_is_dropped(self):
        dropped = drop(torch.ones(100_000), 1 - 1e-9, training=True)
        assert dropped.isfinite().all()
        assert (dropped == 0).double().mean() > 0.999

    @pytest.mark.parametrize("is_locked", [False, True])
    def test_locked_is_the_same_at_every_step_and_only_there(self, is_locked):
        dropped = drop(torch.ones(20, 8, 16), 0.5, training=True, is_locked=is_locked)
        assert torch.equal(dropped, dropped[:1].expand(20, -1, -1)) == is_locked
        for one, other in itertools.combinations(dropped[0], 2):  # rows
            assert not torch.equal(one, other)
        assert len(dropped[0].T.unique(dim=0)) > 10  # units

    def test_the_gradient_is_that_of_a_product(self):
        x = torch.randn(6, 7, dtype=torch.double, requires_grad=True)
        dropped = drop(x, 0.5, training=True)
        dropped.sum().backward()
        torch.testing.assert_close(x.grad * x, dropped)

    def test_a_seed_gives_the_same_mask_and_later_masks_differ(self):
        torch.manual_seed(3)
        first, second = (drop(torch.ones(99), 0.5, training=True) for _ in range(2))
        torch.manual_seed(3)
        assert torch.equal(drop(torch.ones(99), 0.5, training=True), first)
        assert not torch.equal(first, second)

    def test_any_layout_and_dtype_will_do(self):
        for x in torch.ones(6, 5, 4).transpose(0, 2), torch.ones(4, 5).half(), torch.ones(0, 3), torch.ones(3)[:2]:
            dropped = drop(x, 0.5, training=True, is_locked=len(x) == 4)
            assert (dropped.shape, dropped.dtype) == (x.shape, x.dtype)
            assert set(dropped.unique().tolist()) <= {0.0, 2.0}
            assert (x == 1).all()

    def test_what_is_infinite_can_be_dropped(self):
        assert drop(torch.full((1000,), torch.inf), 1 - 1e-7, training=True).isnan().sum() == 0

    def test_half_precision_keeps_the_expectation(self):
        dropped = drop(torch.ones(1000, dtype=torch.bfloat16), 0.4, training=True)
        assert dropped.dtype == torch.bfloat16
        assert dropped.max() == torch.tensor(1 / 0.6).bfloat16()


@every_model
@every_layer
class TestModels:
    def test_weight_dropout_masks_the_recurrent_matrices(self, name, layer, masks):
        model = make(name, layer=layer, weight_dropout=0.5)
        logits, after = run(model)
        logits.square().sum().backward()
        assert [mask.shape for mask in masks] == [model.recurrent.weight_hh_l0.shape] * 2
        reference = copy.deepcopy(model).eval()
        with torch.no_grad():
            for weights, mask in zip((reference.recurrent.weight_hh_l0, reference.recurrent.weight_hh_l1), masks, strict=True):
                weights.mul_(mask)
        reference.zero_grad()
        expected, expected_after = run(reference)
        expected.square().sum().backward()
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(list(tensors(after)), list(tensors(expected_after)))
        for key, weights in model.recurrent.named_parameters():  # the whole matrix learns, by what was left of it
            gradient = reference.recurrent.get_parameter(key).grad
            gradient = gradient * masks[int(key[-1])] if key.startswith("weight_hh") else gradient
            torch.testing.assert_close(weights.grad, gradient, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("is_locked", [False, True])
    def test_dropout_between_layers_is_that_of_two_layers_with_a_mask_between(self, name, layer, is_locked, masks):
        model = make(name, layer=layer, dropout=0.5, locked_dropout=is_locked)
        logits, _ = run(model)
        (mask,) = masks
        assert mask.shape == (1 if is_locked else T, B, H)
        below, above = MODELS[name][1](E, H), MODELS[name][1](H, H)
        below.load_state_dict({key: t for key, t in model.recurrent.state_dict().items() if key.endswith("l0")})
        above.load_state_dict({f"{key[:-1]}0": t for key, t in model.recurrent.state_dict().items() if key.endswith("l1")})
        x, _ = above(below(model.embedding(some_ids(model, B, T)).transpose(0, 1))[0] * mask)
        torch.testing.assert_close(logits, model.output(x, model.embedding.weight).transpose(0, 1))

    @pytest.mark.parametrize("is_tied", [False, True])
    def test_token_dropout_hides_tokens_wherever_they_stand(self, name, layer, is_tied, masks):
        model = make(name, layer=layer, token_dropout=0.5, tied=is_tied)
        logits, _ = run(model)
        (mask,) = masks
        assert mask.shape == (V, 1)
        assert 0 < (mask == 0).sum() < V
        reference = copy.deepcopy(model).eval()
        table = model.embedding.weight.detach()
        with torch.no_grad():
            reference.embedding.weight.mul_(mask)
            x, _ = reference.recurrent(reference.embedding(some_ids(model, B, T).T))
            expected = reference.output(x, table)  # the output layer keeps every token
        torch.testing.assert_close(logits, expected.transpose(0, 1))

    @pytest.mark.parametrize("is_locked", [False, True])
    def test_embeddings_and_outputs_are_masked(self, name, layer, is_locked, masks):
        model = make(name, layer=layer, embedding_dropout=0.5, output_dropout=0.5, locked_dropout=is_locked)
        logits, _ = run(model)
        embedding_mask, output_mask = masks
        assert [mask.shape for mask in masks] == [(1 if is_locked else T, B, width) for width in (E, H)]
        x, _ = model.recurrent(model.embedding(some_ids(model, B, T).T) * embedding_mask)
        torch.testing.assert_close(logits, model.output(x * output_mask, model.embedding.weight).transpose(0, 1))

    def test_in_evaluation_mode_there_is_none(self, name, layer):
        model, plain = make(name, layer=layer, **EVERY_DROPOUT), make(name, layer=layer)
        assert {key: t.shape for key, t in model.state_dict().items()} == {k: t.shape for k, t in plain.state_dict().items()}
        assert not torch.equal(run(model, seed=0)[0], run(model, seed=1)[0])
        assert torch.equal(run(model, seed=2)[0], run(model, seed=2)[0])
        assert torch.equal(run(model.eval(), seed=0)[0], run(plain.eval(), seed=1)[0])


@every_model
@pytest.mark.parametrize("setting", ["token_dropout", "weight_dropout"])
@pytest.mark.parametrize("value", [1.0, -0.1, float("nan")])
def test_a_share_is_at_least_0_and_below_1(name, setting, value):
    with pytest.raises(ConfigError, match=setting):
        make(name, **{setting: value})


def test_training_samples_masks_from_its_own_generator():
    texts = [f"The {noun} was {kind}." for noun in ("food", "band", "film", "beer") for kind in ("good", "bad", "loud", "long")]
    settings = {"hidden_size": 16, "layers": 2, "layer": "fused", **EVERY_DROPOUT}
    alike = {"batch_size": 4, "threads": 1, "precision": "no"}  # no autotuning, which may select another implementation faster
    found = []
    for seed in 0, 1:
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(reviewgen.train("lstm-char", texts, steps=3, model=settings, training=alike))
        assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(*(model.model.state_dict().values() for model in found), strict=True):
        assert torch.equal(one, other)
