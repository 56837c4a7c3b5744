"""A trie as named tensors and back. Reading trusts nothing: a damaged array is an error here, never a wrong probability later.

Names, dtypes and numbers of axes follow from vocabulary and order alone; only sizes depend on the data.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from reviewgen.errors import BundleError
from reviewgen_ngram.counts import token_dtype
from reviewgen_ngram.trie import Level

__all__ = ["empty_tensors", "read_tensors", "write_tensors"]

LEVEL_FIELDS = ("keys", "offsets", "words", "mass", "gamma")


def empty_tensors(vocab_size: int, order: int) -> dict[str, Tensor]:
    """Return the tensors of a model that has seen nothing: every name and dtype, no values."""
    dtypes = {"keys": np.int64, "offsets": np.int64, "words": token_dtype(vocab_size), "mass": np.float32, "gamma": np.float32}
    levels = {
        f"depth{depth}.{name}": torch.from_numpy(np.empty(0, dtypes[name])) for depth in range(order) for name in LEVEL_FIELDS
    }
    return {"bos_id": torch.empty(0, dtype=torch.int64), "discounts": torch.empty((0, 3), dtype=torch.float64), **levels}


def write_tensors(levels: list[Level], bos_id: int, discounts: list[tuple[float, float, float]]) -> dict[str, Tensor]:
    """Return the model as tensors that share its memory."""
    arrays = {
        f"depth{depth}.{name}": torch.from_numpy(getattr(level, name))
        for depth, level in enumerate(levels)
        for name in LEVEL_FIELDS
    }
    return {"bos_id": torch.tensor([bos_id]), "discounts": torch.tensor(discounts, dtype=torch.float64), **arrays}


def read_tensors(
    tensors: Mapping[str, Tensor], vocab_size: int, order: int
) -> tuple[list[Level], int, list[tuple[float, float, float]]]:
    """Return levels, bos id and discounts.

    Raises:
        BundleError: A tensor is missing, extra, of another dtype or shape, or holds what no trained model holds.
    """
    _check_form(tensors, empty_tensors(vocab_size, order))
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}
    _require(arrays["bos_id"].size == 1, "bos_id", "holds one id, of a trained model")
    bos_id = int(arrays["bos_id"][0])
    _require(0 <= bos_id < vocab_size, "bos_id", f"lies in 0..{vocab_size - 1}")
    discounts = arrays["discounts"]
    _require(discounts.shape == (order, 3) and bool(np.isfinite(discounts).all()), "discounts", f"holds {order} x 3 numbers")
    levels: list[Level] = []
    for depth in range(order):
        name = f"depth{depth}"
        parents = len(levels[-1].keys) if levels else 1
        _check_level(name, {field: arrays[f"{name}.{field}"] for field in LEVEL_FIELDS}, parents, vocab_size, bos_id)
        levels.append(Level(**{field: arrays[f"{name}.{field}"] for field in LEVEL_FIELDS}))
    _require(levels[0].keys.tolist() == [0], "depth0.keys", "holds the one empty context, 0")
    return levels, bos_id, [(float(a), float(b), float(c)) for a, b, c in discounts]


def _check_form(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for word, names in ("missing", expected.keys() - tensors.keys()), ("not one of its own", tensors.keys() - expected.keys()):
        if names:
            raise BundleError(f"The n-gram tensors do not fit the settings: {min(names)!r} is {word}. Save the model again.")
    for name, like in expected.items():
        tensor = tensors[name]
        _require(tensor.dtype == like.dtype, name, f"has the dtype {like.dtype}, not {tensor.dtype}")
        _require(tensor.ndim == like.ndim, name, f"has {like.ndim} axes, not {tensor.ndim}")


def _check_level(name: str, level: Mapping[str, np.ndarray], parents: int, vocab_size: int, bos_id: int) -> None:
    keys, offsets, words, mass, gamma = (level[field] for field in LEVEL_FIELDS)
    _require(len(offsets) == len(keys) + 1, f"{name}.offsets", f"holds {len(keys) + 1} numbers, not {len(offsets)}")
    _require(len(gamma) == len(keys), f"{name}.gamma", f"holds {len(keys)} numbers, not {len(gamma)}")
    _require(len(mass) == len(words), f"{name}.mass", f"holds {len(words)} numbers, not {len(mass)}")
    _require(_ascends(keys), f"{name}.keys", "ascends")
    inside = not len(keys) or bool(keys[0] >= 0 and keys[-1] < parents * vocab_size)
    _require(inside, f"{name}.keys", f"lies in 0..{parents * vocab_size - 1}")
    whole = bool(offsets[0] == 0 and offsets[-1] == len(words))
    _require(whole and _ascends(offsets), f"{name}.offsets", f"ascends from 0 to {len(words)}")
    _check_words(f"{name}.words", words, offsets, vocab_size, bos_id)
    for part, values in (("mass", mass), ("gamma", gamma)):
        _require(bool(((values >= 0) & (values <= 1)).all()), f"{name}.{part}", "lies in 0..1")
    if len(keys):
        sums = np.add.reduceat(mass.astype(np.float64), offsets[:-1]) + gamma
        _require(bool(np.abs(sums - 1).max() < 1e-4), f"{name}.mass", "sums to one with gamma at every context")


def _check_words(name: str, words: np.ndarray, offsets: np.ndarray, vocab_size: int, bos_id: int) -> None:
    inside = not len(words) or bool(words.min() >= 0 and words.max() < vocab_size and not (words == bos_id).any())
    _require(inside, name, f"holds ids in 0..{vocab_size - 1} other than bos")
    ascending = words[1:] > words[:-1]
    ascending[offsets[1:-1] - 1] = True  # from one context to the next anything goes
    _require(bool(ascending.all()), name, "ascends within every context")


def _ascends(values: np.ndarray) -> bool:
    return bool((values[1:] > values[:-1]).all())


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise BundleError(f"The n-gram tensors are damaged or belong to other settings: {name!r} should be such that it {what}.")
