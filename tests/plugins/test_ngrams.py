"""Vectors of n-grams, against a plain table kept by the n-grams themselves."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from reviewgen_recurrent import ngrams
from reviewgen_recurrent.kernels import bucket_of, extend_key
from reviewgen_recurrent.lstm import Lstm
from reviewgen_recurrent.ngrams import NgramEmbedding

from reviewgen.errors import ConfigError


def make(**settings: Any) -> NgramEmbedding:
    torch.manual_seed(0)
    found = NgramEmbedding(Lstm.Config(vocab_size=11, embedding_size=5, **settings))
    torch.nn.init.normal_(found.table.weight)
    return found


def bucket(tokens: tuple[int, ...], buckets: int) -> int:
    """Python's integers, which never overflow."""
    key = 0
    for token in reversed(tokens):
        key = ((key + token + 1) * 0x9E3779B1) % 2**32
        key ^= key >> 15
    return key * buckets // 2**32


def test_each_token_gets_the_sum_of_what_ends_there() -> None:
    layer = make(ngrams=4, ngram_buckets=100)
    torch.manual_seed(1)
    past, ids = torch.randint(0, 12, (3, 2)), torch.randint(0, 11, (6, 2))
    found = layer(ids, past)
    table = layer.table.weight.unflatten(0, (3, 100))
    for row in range(2):
        text = [*past[:, row].tolist(), *ids[:, row].tolist()]
        for t in range(6):
            expected = sum(table[n - 2, bucket(tuple(text[t + 4 - n : t + 4]), 100)] for n in (2, 3, 4))
            torch.testing.assert_close(found[t, row], expected)


def test_the_hash_spreads_and_minds_the_order() -> None:
    """Of 8,000 pairs in 16,384 buckets, chance leaves 6,330 with one of their own or shared; tokens far apart hash as well."""
    for size in 90, 8192, 50_000:
        tokens = np.random.default_rng(0).permutation(size)[:90]
        pairs = list(itertools.product(tokens.tolist(), tokens.tolist()))[:8000]
        used = {bucket_of(extend_key(extend_key(0, second), first), 1 << 14) for first, second in pairs}
        expected = 2**14 * (1 - (1 - 2**-14) ** len(pairs))
        assert 0.9 * expected < len(used) <= len(pairs)
        assert max(used) < 1 << 14


def test_tensors_and_python_agree_at_the_edges() -> None:
    tokens = torch.tensor([0, 1, 2**20, 2**31, 2**40])
    key = extend_key(extend_key(0, tokens), tokens.flip(0))
    for found, (new, old) in zip(
        bucket_of(key, 1 << 24).tolist(), zip(tokens.tolist(), tokens.flip(0).tolist(), strict=True), strict=True
    ):
        assert found == bucket((old, new), 1 << 24)


def test_dropped_ngrams_are_as_if_never_met() -> None:
    layer = make(ngrams=2, ngram_dropout=0.5).train()
    ids, past = torch.randint(0, 11, (200, 10)), torch.randint(0, 11, (1, 10))
    found, whole = layer(ids, past), layer.eval()(ids, past)
    is_out = (found == 0).all(dim=-1)
    assert 0.45 < is_out.float().mean() < 0.55
    assert torch.equal(found[~is_out], whole[~is_out])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_without_torch_s_bags_it_is_the_same(dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make(ngrams=3, ngram_buckets=50, ngram_dropout=dropout).train()
    ids, past = torch.randint(0, 11, (7, 3)), torch.randint(0, 11, (2, 3))

    def learned() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(5)
        found = layer(ids, past)
        (gradient,) = torch.autograd.grad(found.square().sum(), layer.table.weight)
        return found, gradient

    expected = learned()
    monkeypatch.setattr(ngrams, "BAG_DEVICES", set())
    torch.testing.assert_close(learned(), expected)


def test_a_fresh_model_is_the_model_without() -> None:
    torch.manual_seed(0)
    plain = Lstm(Lstm.Config(vocab_size=11)).eval()
    torch.manual_seed(0)
    model = Lstm(Lstm.Config(vocab_size=11, ngrams=3)).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    ids = torch.randint(0, 11, (2, 9))
    assert torch.equal(model(ids, model.initial_state(2))[0], plain(ids, plain.initial_state(2))[0])


@pytest.mark.parametrize("settings", [{"ngrams": 0}, {"ngrams": 17}, {"ngram_buckets": 0}, {"ngram_dropout": 1.0}])
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        make(**settings)
