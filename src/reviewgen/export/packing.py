"""A trained model as a page loads it: a manifest of JSON values, and one blob of arrays, compressed with deflate.

The format is described in docs/reference/page-format.md, and read by ``web/static/model.js``. The matrices of a model that is
trained by gradient are stored in 5, 6 or 8 bits with a scale for each row, in 16 or in 32, of which those of 8 and more are as
``save_pretrained(dtype=...)`` stores them; everything else, such as the arrays of an n-gram, as it is.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from reviewgen.blending.model import Blend
from reviewgen.config import to_dict
from reviewgen.errors import BundleError, ConfigError, quoted
from reviewgen.hub.card import brief_facts
from reviewgen.lexicon import joined_automata
from reviewgen.model import Bundle
from reviewgen.model.write import save_tokenizer
from reviewgen.protocols import CountTrained
from reviewgen.storage import temporary_folder
from reviewgen.web import PackedModel

BITS = (5, 6, 8, 16, 32)
_DEFAULTS = ((8, 4_000_000), (6, 5_000_000))  # bits, of networks of at most that many weights; larger ones have 5
_ALIGNMENT = 8  # bytes
_INTEGERS = {"int64": np.int32, "uint64": np.uint32, "bool": np.uint8}  # what JavaScript has no plain array of


def pack(bundle: Bundle, name: str | None = None, bits: int | None = None) -> PackedModel:
    """Return a trained model as a page loads it.

    Args:
        bundle: The model.
        name: Its name in the page; that of its preset if not given.
        bits: Of each weight of a matrix: 5, 6, 8, 16 or 32. By default 8, in networks of more than 4 million weights 6, and of
            more than 5 million 5, which hardly makes them worse.

    Raises:
        ConfigError: The number of bits is another one.
        BundleError: A tensor or a file of the tokenizer has no form in a page.
    """
    if bits is None:
        weights = sum(each.numel() for each in bundle.model.state_dict().values() if each.ndim == 2)  # arrays of an n-gram have 1
        bits = next((bits for bits, most in _DEFAULTS if weights <= most), 5)
    if not isinstance(bits, int) or bits not in BITS:
        raise ConfigError(f"bits must be one of {', '.join(map(str, BITS))}; got {quoted(bits)}.")
    blob = _Blob()
    manifest = {
        "id": name or bundle.preset,
        "preset": bundle.preset,
        "model": {"name": bundle.model_plugin.name, "config": to_dict(bundle.model.config)},
        "tokenizer": {
            "name": bundle.tokenizer_plugin.name,
            "config": to_dict(bundle.tokenizer_config),
            "files": _tokenizer_files(bundle, blob),
        },
        "tensors": _add_tensors(bundle.model, bits, blob),
        "conditions": bundle.conditions.to_json() if bundle.conditions else [],
        "defaults": to_dict(bundle.generation),
        "facts": brief_facts(bundle),
        "card": bundle.card,
        "spelling": _add_spelling(bundle, blob),
    }
    return PackedModel(manifest, blob.deflated + b"\x03\x00")  # an empty last block


class _Blob:
    """Arrays one after another, little endian, each at a multiple of 8 bytes; each is compressed by itself (RFC 1951)."""

    def __init__(self) -> None:
        self.size, self.deflated = 0, b""

    def add(self, array: np.ndarray, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> dict[str, Any]:
        """Append an array; return its dtype, shape, offset in bytes and length in numbers."""
        padding = -self.size % _ALIGNMENT
        entry = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": self.size + padding, "length": array.size}
        content = bytes(padding) + np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
        self.deflated += deflate.compress(content) + deflate.flush(zlib.Z_FULL_FLUSH)
        self.size += len(content)
        return entry


def _add_tensors(model: Any, bits: int, blob: _Blob) -> dict[str, Any]:
    """Append the tensors of a model, tied ones once; return their entries by name."""
    parts = {f"{number}.": part for number, part in enumerate(model.parts)} if isinstance(model, Blend) else {"": model}
    counted = tuple(prefix for prefix, part in parts.items() if isinstance(part, CountTrained))
    entries: dict[str, Any] = {}
    stored: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, tensor in model.state_dict().items():
        key = tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if key not in stored or not tensor.numel():
            plain = tensor.detach().cpu()
            array = (plain if plain.dtype.itemsize != 2 or not plain.is_floating_point() else plain.float()).numpy()
            stored[key] = _add_tensor(name, array, 32 if name.startswith(counted) else bits, blob)
        entries[name] = stored[key]
    return entries


def _add_tensor(name: str, array: np.ndarray, bits: int, blob: _Blob) -> dict[str, Any]:
    """Append a tensor; a float32 matrix in the given bits."""
    if (narrow := _INTEGERS.get(array.dtype.name)) is not None:
        if array.size and not np.array_equal(array, array.astype(narrow)):
            raise BundleError(f"The tensor {name} holds integers beyond 32 bits, which a page cannot read.")
        array = array.astype(narrow)
    if array.dtype.name not in ("float32", "float64", "int32", "int16", "int8", "uint32", "uint16", "uint8"):
        raise BundleError(f"The tensor {name} has the dtype {array.dtype.name}, which a page cannot read.")
    if array.dtype != np.float32 or array.ndim != 2 or bits == 32 or not np.isfinite(array).all():
        return blob.add(array)
    if bits <= 8:
        numbers, scales = _quantize(array, bits)
        entry, scale = blob.add(numbers, zlib.Z_HUFFMAN_ONLY), blob.add(scales)  # a string that recurs does so by chance
        return entry | {"scales": {"offset": scale["offset"], "length": scale["length"]}}
    return blob.add(array.astype(np.float16))


def _quantize(matrix: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a float32 matrix as integers of up to 8 bits, int8 (R, C), and the scale of each row, (R,)."""
    highest = np.float32(2 ** (bits - 1) - 1)
    largest = np.abs(matrix).max(axis=1, initial=0)
    scales = np.where(largest > 0, largest, highest) / highest
    return np.rint(matrix / scales[:, None]).clip(-highest, highest).astype(np.int8), scales.astype(np.float32)


def _add_spelling(bundle: Bundle, blob: _Blob) -> dict[str, Any]:
    """Append the automata of valid UTF-8 and, if there is a lexicon, of its words and separators; return their entry."""
    nodes, roots, known = joined_automata(bundle.lexicon)
    return blob.add(nodes) | {"roots": roots, "known": known}


def _tokenizer_files(bundle: Bundle, blob: _Blob) -> Mapping[str, Any]:
    """Append the text of each file of the tokenizer, JSON without white space; return their entries by name."""
    name = bundle.tokenizer_plugin.name
    with temporary_folder() as folder:
        files = [folder / file for file in save_tokenizer(bundle.tokenizer, name, folder)]
        try:
            texts = {file.name: _shorten(file.read_text(encoding="utf-8")).encode() for file in files}
        except UnicodeDecodeError:
            raise BundleError(f"The tokenizer {quoted(name)} saves files that are not text, which a page cannot read.") from None
    return {name: blob.add(np.frombuffer(text, np.uint8)) for name, text in texts.items()}


def _shorten(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        return text  # not JSON
