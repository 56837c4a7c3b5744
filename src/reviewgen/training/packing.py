"""A tree of tensors and JSON values as one JSON value and a flat table of tensors, and back, bit for bit.

So a run's state, an optimizer's of any class included, needs no pickle. Knows nothing of training.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["pack", "unpack"]

_MARKS = ("$tensor", "$tuple", "$items", "$float")


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return a tree as a JSON value and its tensors by number and path, none of which share memory.

    The order in which the axes of a tensor lie in memory is kept: matrix products of another order may round otherwise.

    >>> pack({"rate": 0.1, "betas": (0.9, 0.99), "state": {0: {"step": torch.tensor(3.0)}}})[0]   # doctest: +SKIP
    {'rate': 0.1, 'betas': {'$tuple': [0.9, 0.99]},
     'state': {'$items': [[0, {'step': {'$tensor': '0 state.0.step', 'axes': []}}]]}}

    Raises:
        TypeError: The tree holds something else.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, "", tensors), tensors


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the tree that was packed.

    Raises:
        KeyError: A tensor is missing.
    """
    if isinstance(packed, list):
        return [unpack(part, tensors) for part in packed]
    if not isinstance(packed, dict):
        return packed
    if "$tensor" in packed:
        axes = packed["axes"]
        return tensors[packed["$tensor"]].permute([axes.index(axis) for axis in range(len(axes))]).clone()
    if "$tuple" in packed:
        return tuple(unpack(part, tensors) for part in packed["$tuple"])
    if "$items" in packed:
        return {key: unpack(part, tensors) for key, part in packed["$items"]}
    if "$float" in packed:
        return float(packed["$float"])
    return {key: unpack(part, tensors) for key, part in packed.items()}


def _pack(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        name, axes = f"{len(tensors)} {path}", _axes_in_memory(tree)
        plain = tree.detach().cpu().permute(axes).contiguous()
        places = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
        tensors[name] = plain.clone() if plain.untyped_storage().data_ptr() in places else plain  # tied weights share theirs
        return {"$tensor": name, "axes": axes}
    if isinstance(tree, Mapping):
        items = [(key, _pack(part, f"{path}.{key}".lstrip("."), tensors)) for key, part in tree.items()]
        is_plain = all(isinstance(key, str) and key not in _MARKS for key in tree)
        return dict(items) if is_plain else {"$items": items}
    if isinstance(tree, list | tuple):
        parts = [_pack(part, f"{path}.{number}".lstrip("."), tensors) for number, part in enumerate(tree)]
        return parts if isinstance(tree, list) else {"$tuple": parts}
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"$float": str(tree)}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"{path or 'The tree'} is a {type(tree).__name__}; a checkpoint holds tensors and JSON values.")


def _axes_in_memory(tensor: Tensor) -> list[int]:
    """Return a tensor's axes, that of the longest stride first; as they are where the tensor has gaps or overlaps."""
    axes = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return axes if tensor.permute(axes).is_contiguous() else list(range(tensor.dim()))
