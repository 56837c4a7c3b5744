"""Serialisation without pickle: a tree of tensors and JSON values as one JSON value and a flat table of tensors, and back.

Bit for bit, so that checkpoints can hold the state of any optimizer. Knows nothing of training.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_MARKERS = ("$tensor", "$tuple", "$items", "$float")  # keys that stand for what JSON does not have


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return a tree as a JSON value, and its tensors by number and path; no two of them share memory.

    A tensor that stands in several places, as tied weights do, is in the table once.

    The memory order of a tensor's axes is kept, because matrix products may round differently in another order.

    >>> pack({"rate": 0.1, "betas": (0.9, 0.99), "state": {0: {"step": torch.tensor(3.0)}}})[0]   # doctest: +SKIP
    {'rate': 0.1, 'betas': {'$tuple': [0.9, 0.99]},
     'state': {'$items': [[0, {'step': {'$tensor': '0 state.0.step', 'axes': []}}]]}}

    Raises:
        TypeError: The tree holds something other than tensors and JSON values.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, "", tensors, {}), tensors


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


def _pack(tree: Any, path: str, tensors: dict[str, Tensor], names: dict[tuple[Any, ...], str]) -> Any:
    """Return a part of a tree, at ``path``, as a JSON value, and add its tensors to the table.

    Args:
        tree: The part.
        path: Where it is.
        tensors: The table.
        names: The name in it of each tensor so far, by what identifies its memory.
    """
    if isinstance(tree, Tensor):
        axes = _axes_in_memory(tree)
        memory = tree.device, tree.data_ptr(), tree.dtype, tree.shape, tree.stride()
        if tree.numel() and memory in names:
            return {"$tensor": names[memory], "axes": axes}
        name = names[memory] = f"{len(tensors)} {path}"
        plain = tree.detach().cpu().permute(axes).contiguous()
        addresses = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
        is_shared = plain.untyped_storage().data_ptr() in addresses  # as that of tied weights is
        tensors[name] = plain.clone() if is_shared else plain
        return {"$tensor": name, "axes": axes}
    if isinstance(tree, Mapping):
        items = [(key, _pack(part, f"{path}.{key}".lstrip("."), tensors, names)) for key, part in tree.items()]
        is_plain = all(isinstance(key, str) and key not in _MARKERS for key in tree)
        return dict(items) if is_plain else {"$items": items}
    if isinstance(tree, list | tuple):
        parts = [_pack(part, f"{path}.{number}".lstrip("."), tensors, names) for number, part in enumerate(tree)]
        return parts if isinstance(tree, list) else {"$tuple": parts}
    if isinstance(tree, float) and not math.isfinite(tree):
        return {"$float": str(tree)}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"{path or 'The tree'} is a {type(tree).__name__}; a checkpoint holds tensors and JSON values.")


def _axes_in_memory(tensor: Tensor) -> list[int]:
    """Return a tensor's axes from the longest stride to the shortest; in their own order if it has gaps or overlaps in memory."""
    axes = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return axes if tensor.permute(axes).is_contiguous() else list(range(tensor.dim()))
