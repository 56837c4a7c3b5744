"""An index on disk: one safetensors file, with its facts as JSON in the header. Equal indexes give equal bytes.

Reading is strict, since the compiled loops do not check bounds: a damaged array must not reach them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from reviewgen.compiled.windows import BLOCK, WindowSet
from reviewgen.config import parse_json
from reviewgen.errors import BundleError, printable, storage_errors
from reviewgen.novelty.compact import CompactIndex
from reviewgen.novelty.exact import ExactIndex, id_dtype
from reviewgen.novelty.report import WINDOWS
from reviewgen.storage import safetensors_file

_SCHEMA = 1
_HEADER = "reviewgen.novelty"  # a single key, since safetensors writes several in random order
_FACTS = {"bos_id": int, "eos_id": int, "vocab_size": int, "characters_per_token": float, "fingerprint": str}
_MIN_CHARACTERS, _MAX_CHARACTERS = 1e-3, 1e5  # per token
_COMPACT_FACTS = {"stride": int, "probes": int}
_SETS = [f"windows_{length}" for length in WINDOWS]
_DTYPES = {"uint8": "U8", "int16": "I16", "int32": "I32", "int64": "I64", "uint64": "U64"}
_LONGEST_INT32 = np.iinfo(np.int32).max


def write_index(index: ExactIndex | CompactIndex, file: Path) -> None:
    """Write an index; an existing file is replaced.

    Raises:
        StorageError: The disk is full, or the file cannot be written.
    """
    facts = {name: getattr(index, name) for name in _FACTS}
    if isinstance(index, ExactIndex):
        tensors = {"ids": index.ids, "suffixes": index.suffixes}
    else:
        tensors = {name: windows.bits for name, windows in zip(_SETS, index.sets, strict=True)}
        facts |= {"stride": index.stride, "probes": index.sets[0].probes}
    header = json.dumps({"schema": _SCHEMA, "form": index.form} | facts)
    with storage_errors(file), safetensors_file(file):
        save_file(tensors, file, metadata={_HEADER: header})


def read_index(file: Path, fingerprint: str, vocab_size: int) -> ExactIndex | CompactIndex:
    """Read an index.

    Args:
        file: A file that ``write_index`` wrote.
        fingerprint: The fingerprint of the model that it should belong to.
        vocab_size: The vocabulary size of that model.

    Raises:
        BundleError: The file is missing, damaged, not an index, of an unknown schema, or belongs to another model.
    """
    if file.exists() and not file.is_file():  # a pipe would not end
        raise BundleError(f"The novelty index {file} cannot be read: it is not a file.")
    try:
        with safe_open(file, framework="numpy") as tensors:
            index = _read_index(tensors)
    except BundleError as error:
        raise BundleError(f"The novelty index {file} {error}") from None
    except OSError as error:
        raise BundleError(f"The novelty index {file} cannot be read: {error.strerror or error}.") from None
    except SafetensorError as error:
        raise BundleError(
            f"The novelty index {file} is damaged, or not a novelty index: {' '.join(str(error).split())}."
        ) from None
    if index.fingerprint != fingerprint:
        raise BundleError(
            f"The novelty index {file} belongs to another model: its fingerprint is {index.fingerprint!r}, not {fingerprint!r}."
        )
    if index.vocab_size != vocab_size:
        raise BundleError(
            f"The novelty index {file} is for a vocabulary of {index.vocab_size} tokens; its model has {vocab_size}."
        )
    return index


def _read_index(tensors: Any) -> ExactIndex | CompactIndex:
    header = _read_header(tensors.metadata() or {})
    if header.get("schema") != _SCHEMA:
        raise BundleError(f"has the schema {header.get('schema')!r}; this version of reviewgen reads schema {_SCHEMA}.")
    form = header.get("form")
    if form == ExactIndex.form:
        return _read_exact(tensors, _read_facts(header, _FACTS))
    if form == CompactIndex.form:
        return _read_compact(tensors, _read_facts(header, _FACTS | _COMPACT_FACTS))
    raise BundleError(f"has the unknown form {form!r}; known: exact, compact.")


def _read_header(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        header = parse_json(metadata[_HEADER])
    except KeyError:
        header = None
    except ValueError as error:
        raise BundleError(f"is damaged: its header cannot be read ({error}).") from None
    if not isinstance(header, dict):
        raise BundleError("is damaged, or not a novelty index: the header of one is missing.")
    return header


def _read_exact(tensors: Any, facts: dict[str, Any]) -> ExactIndex:
    _check_names(tensors, ["ids", "suffixes"])
    ids = _read_array(tensors, "ids", id_dtype(facts["vocab_size"]))
    suffixes = _read_array(tensors, "suffixes", np.int32 if len(ids) <= _LONGEST_INT32 else np.int64)
    if not 0 < len(ids) == len(suffixes):
        raise BundleError(f"is damaged: it has {len(ids)} tokens and {len(suffixes)} suffixes.")
    if not 0 <= int(ids.min()) <= int(ids.max()) < facts["vocab_size"]:
        raise BundleError("is damaged: it contains ids outside its vocabulary.")
    if not 0 <= int(suffixes.min()) <= int(suffixes.max()) < len(ids):
        raise BundleError("is damaged: it contains suffixes outside its text.")
    return ExactIndex(**facts, ids=ids, suffixes=suffixes)


def _read_compact(tensors: Any, facts: dict[str, Any]) -> CompactIndex:
    _check_names(tensors, _SETS)
    stride, probes = facts.pop("stride"), facts.pop("probes")
    if not 1 <= probes <= 7 or not 1 <= stride < 1 << 63 or stride & (stride - 1):
        raise BundleError(f"is damaged: it has {probes} probes and a stride of {stride}.")
    sets = []
    for name, length in zip(_SETS, WINDOWS, strict=True):
        bits = _read_array(tensors, name, np.uint64)
        if not len(bits) or len(bits) % BLOCK:
            raise BundleError(f"is damaged: {name} has {len(bits)} words, which is not a positive multiple of {BLOCK}.")
        sets.append(WindowSet(bits, length, probes, stride))
    return CompactIndex(**facts, sets=tuple(sets))


def _read_facts(header: Mapping[str, Any], kinds: Mapping[str, type]) -> dict[str, Any]:
    """Return the facts in the header, after checking their names, types and ranges."""
    wrong = sorted((kinds.keys() | {"schema", "form"}) ^ header.keys())
    if wrong:
        raise BundleError(f"is damaged: its header has missing or unknown keys: {printable(', '.join(wrong))}.")
    facts = {name: header[name] for name in kinds}
    mistyped = next((name for name, kind in kinds.items() if type(facts[name]) is not kind), None)
    if mistyped is not None:
        raise BundleError(f"is damaged: {mistyped} must be {kinds[mistyped].__name__} in its header, and is {facts[mistyped]!r}.")
    if not all(0 <= facts[name] < facts["vocab_size"] < 1 << 31 for name in ("bos_id", "eos_id")):
        raise BundleError("is damaged: its bos_id or eos_id is outside its vocabulary.")
    if not _MIN_CHARACTERS <= facts["characters_per_token"] <= _MAX_CHARACTERS:
        raise BundleError(f"is damaged: it has {facts['characters_per_token']} characters per token.")
    return facts


def _check_names(tensors: Any, expected: list[str]) -> None:
    names = sorted(tensors.keys())
    if names != sorted(expected):
        found = printable(", ".join(names)) or "nothing"
        raise BundleError(f"is damaged: it contains {found} instead of {', '.join(expected)}.")


def _read_array(tensors: Any, name: str, dtype: type[np.generic]) -> np.ndarray:
    """Return a one-dimensional array, after checking the header. It is a copy: a mapped file that is cut off ends the process."""
    part = tensors.get_slice(name)
    shape, actual, expected = part.get_shape(), part.get_dtype(), _DTYPES[np.dtype(dtype).name]
    if len(shape) != 1 or actual != expected:
        raise BundleError(f"is damaged: {name} is {actual} {shape}, not {expected} with one axis.")
    array: np.ndarray = tensors.get_tensor(name)
    return array
