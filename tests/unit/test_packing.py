"""Trees of tensors and JSON values come back as they were, through JSON and safetensors; any optimizer's state does."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from reviewgen.training.packing import pack, unpack

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = st.text() | st.integers() | st.sampled_from(["$tensor", "$tuple", "$items", "$float", "a.b", ""])
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner), max_leaves=20
)


def through_files(tree):
    packed, tensors = pack(tree)
    return unpack(json.loads(json.dumps(packed, allow_nan=False)), load(save(tensors)))


@given(TREES)
def test_any_tree_of_json_values_comes_back(tree):
    found = through_files(tree)
    assert (found, repr(found)) == (tree, repr(tree))


def test_tensors_come_back_bit_for_bit_and_as_they_lay():
    plain = torch.randn(3, 4, 5)
    plain[0, 0, 0] = math.nan
    tree = {
        "plain": plain,
        "turned": plain.permute(2, 0, 1),
        "part": plain[:, 1],
        "spread": torch.ones(1, 4).expand(3, 4),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "none": torch.zeros(0, 3),
        "half": plain.bfloat16(),
        "bytes": torch.arange(256, dtype=torch.uint8),
        "deep": [{1: (plain.long(), None)}, math.inf, -math.inf],
        "deep.0": plain + 1,  # a name that a path could have
    }
    found = through_files(tree)
    for name in ("plain", "turned", "part", "spread", "scalar", "none", "half", "bytes", "deep.0"):
        assert found[name].dtype == tree[name].dtype
        assert found[name].shape == tree[name].shape
        assert torch.equal(found[name].nan_to_num(7.0), tree[name].nan_to_num(7.0))
    assert found["turned"].stride() == tree["turned"].stride()
    assert torch.equal(found["deep"][0][1][0], plain.long())
    assert found["deep"][1:] == [math.inf, -math.inf]
    assert math.isnan(through_files([math.nan])[0])


def test_tied_weights_are_two_tensors_of_equal_numbers():
    weight = torch.randn(4, 4)
    found = through_files({"a": weight, "b": weight, "c": weight.T})
    assert torch.equal(found["a"], weight) and torch.equal(found["b"], weight) and torch.equal(found["c"], weight.T)
    found["a"].zero_()
    assert torch.equal(found["b"], weight)


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, b"bytes", {"a": [print]}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(TypeError, match="a checkpoint holds tensors and JSON values"):
        pack({"optimizer": value})


OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True, betas=(0.8, 0.9), amsgrad=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
    "groups": lambda parameters: torch.optim.RMSprop([{"params": [p], "lr": 0.01 * n} for n, p in enumerate(parameters, 1)]),
    "rprop": lambda parameters: torch.optim.Rprop(parameters),
}


def steps(model, optimizer, count):
    for number in range(count):
        loss = model(torch.full((2, 3), 0.1 * number + 0.5)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_any_optimizer_goes_on_as_if_nothing_had_been(make):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = make(list(model.parameters()))
    steps(model, optimizer, 3)
    saved = through_files({"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()})
    again = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    other = make(list(again.parameters()))
    again.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    steps(model, optimizer, 4)
    steps(again, other, 4)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters(), strict=True))
