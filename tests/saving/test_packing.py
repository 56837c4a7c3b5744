"""Trees of tensors and JSON values come back as they were, through JSON and safetensors, without a pickle."""

import json
import math
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from reviewgen.training import pack, unpack

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
KEYS = st.text(max_size=5) | st.integers() | st.sampled_from(["$tensor", "$tuple", "$items", "$float", "a.b", ""])
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner), max_leaves=20
)


def through_files(tree: Any) -> Any:
    packed, tensors = pack(tree)
    return unpack(json.loads(json.dumps(packed, allow_nan=False)), load(save(tensors)))


@given(TREES)
def test_any_tree_of_json_values_comes_back(tree: Any) -> None:
    found = through_files(tree)
    assert (found, repr(found)) == (tree, repr(tree))
    assert math.isnan(through_files([math.nan])[0])


def test_tensors_come_back_bit_for_bit_in_the_same_memory_order() -> None:
    plain = torch.randn(3, 4, 5)
    plain[0, 0, 0] = math.nan
    tree = {
        "turned": plain.permute(2, 0, 1),
        "part": plain[:, 1],
        "spread": torch.ones(1, 4).expand(3, 4),
        "none": torch.zeros(0, 3, dtype=torch.float64),
        "half": plain.bfloat16(),
        "deep.0": plain + 1,  # a name that a path could have
    }
    found = through_files(tree | {"deep": [{1: (plain.long(), None)}, math.inf, -math.inf]})
    for name, tensor in tree.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name].nan_to_num(7.0), tensor.nan_to_num(7.0))
    assert found["turned"].stride() == tree["turned"].stride()
    assert torch.equal(found["deep"][0][1][0], plain.long()) and found["deep"][1:] == [math.inf, -math.inf]
