"""The sampled softmax against the full cross entropy of torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reviewgen.data.tokens import Tokens
from reviewgen.registry.plugins import find_model
from reviewgen.training.losses import cross_entropy
from reviewgen.training.softmax import SampledSoftmax, sampled_softmax

VOCAB_SIZE = 600
LANES = 4
LENGTH = 16
FREQUENCIES = 1 / np.arange(1, VOCAB_SIZE + 1)


def build(name: str, **settings: int) -> torch.nn.Module:
    """Return a model whose logits are far from uniform."""
    torch.manual_seed(0)
    kind, _ = find_model(name)
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": 12, "embedding_size": 8}
    model = kind(kind.Config(**(sizes | settings))).train()
    with torch.no_grad():
        for weights in model.parameters():
            weights *= 2
    return model


def losses(model, sampled, random):
    """Return the full loss of random tokens, and the sampled one; a few of the tokens are not to be
    predicted.
    """
    ids = torch.from_numpy(
        random.choice(VOCAB_SIZE, (LANES, LENGTH + 1), p=FREQUENCIES / FREQUENCIES.sum())
    )
    targets = ids[:, 1:].clone()
    state = model.initial_state(LANES)
    targets[0, :3] = -100
    torch.manual_seed(int(ids.sum()))  # nnlm restarts rows at random
    logits, after = model(ids[:, :-1], state)
    full = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.manual_seed(int(ids.sum()))
    some, places, own_after = sampled.logits(model, ids[:, :-1], state, targets)
    torch.testing.assert_close(own_after, after)
    return full, cross_entropy(some, places, int((targets >= 0).sum())), some.shape[-1]


@pytest.mark.parametrize(
    "name, settings",
    [("lstm", {}), ("gru", {}), ("rnn", {}), ("nnlm", {}), ("lstm", {"pointer": 9})],
)
def test_with_all_tokens_it_is_the_cross_entropy(name, settings):
    model = build(name, **settings)
    full, every, tokens = losses(
        model, SampledSoftmax(10**9, FREQUENCIES), np.random.default_rng(0)
    )
    assert tokens == (2 if settings else VOCAB_SIZE)
    gradients = [
        torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)
        for loss in (full, every)
    ]
    torch.testing.assert_close(every, full, rtol=1e-4, atol=1e-4)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_with_some_tokens_it_estimates_the_cross_entropy():
    model = build("lstm")
    sampled = SampledSoftmax(60, 1e6 * FREQUENCIES)
    random = np.random.default_rng(0)
    with torch.no_grad():
        pairs = [losses(model, sampled, random) for _ in range(300)]
    full, estimates, tokens = (np.array(column, float) for column in zip(*pairs, strict=True))
    assert tokens.mean() < VOCAB_SIZE / 5
    error = (estimates - full).mean()
    assert abs(error) < 0.03 < 0.1 < (estimates - full).std(), (
        "single estimates are off, their mean is not"
    )


def test_it_is_used_on_a_cpu_for_large_vocabularies_by_models_without_a_loss_of_their_own():
    model = build("gru")
    assert sampled_softmax(model, VOCAB_SIZE // 4, "cpu") and not sampled_softmax(
        model, VOCAB_SIZE // 4 + 1, "cpu"
    )
    assert not sampled_softmax(model, 10, "cuda") and not sampled_softmax(model, 0, "cpu")
    model.losses = lambda logits, targets: {}
    assert not sampled_softmax(model, 10, "cpu")


@pytest.mark.parametrize("sizes", [(3000,), (40, 7000, 0, 900), (2_000_000, 5_000_000)])
def test_tokens_are_drawn_by_their_frequencies_in_all_shards(tmp_path, sizes):
    random = np.random.default_rng(0)
    folders = [tmp_path / str(number) for number in range(len(sizes))]
    for folder, size in zip(folders, sizes, strict=True):
        folder.mkdir()
        random.choice(VOCAB_SIZE, size, p=FREQUENCIES / FREQUENCIES.sum()).astype(np.uint16).tofile(
            folder / "train.uint16"
        )
        np.save(folder / "train.index.npy", np.array([[0, size], [0, 0]]))
    store = Tokens(folders, "train")
    expected = SampledSoftmax(50, np.bincount(store.ids, minlength=VOCAB_SIZE)).draw_probs
    found = sampled_softmax(build("rnn"), 50, "cpu", store)
    assert found is not None
    np.testing.assert_allclose(
        found.draw_probs, expected, rtol=0.15 if sum(sizes) > 10**6 else 1e-9
    )


def test_a_step_without_a_target_has_a_loss_of_zero():
    model = build("lstm")
    ids = torch.zeros(1, 3, dtype=torch.long)
    logits, targets, _ = SampledSoftmax(1, np.ones(VOCAB_SIZE)).logits(
        model, ids, model.initial_state(1), ids - 100
    )
    assert float(cross_entropy(logits, targets, 1).detach()) == 0.0
