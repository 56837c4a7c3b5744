"""Builds an index of a training text, and writes and reads index files.

An index is one safetensors file, with its facts as JSON in the header. Equal indexes give equal
bytes. All arrays are checked when a file is read, since the compiled loops do not check bounds.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from safetensors.numpy import save_file

from reviewgen.compiled.windows import BLOCK, Tokens, WindowSet, cut
from reviewgen.config.bounded import parse_json
from reviewgen.errors import BundleError, ConfigError, quoted, storage_errors
from reviewgen.novelty.index import CompactIndex, ExactIndex, Index, build_sets, id_dtype
from reviewgen.novelty.report import WINDOWS
from reviewgen.storage import open_tensors, read_vectors, safetensors_file

_SCHEMA = 1
# the only key of the header, since safetensors writes several keys in random order
_HEADER = "reviewgen.novelty"
_COMPACT_FACTS = {"stride": int, "probes": int}  # the further facts of the compact form
_SETS = [f"windows_{length}" for length in WINDOWS]  # the names of the compact form's tensors


class IndexFacts(TypedDict):
    """The facts that every index has in addition to its arrays.

    Attributes:
        bos_id: The id before each text.
        eos_id: The id after each text.
        vocab_size: The number of ids.
        characters_per_token: The average number of characters per token in the training texts,
            without bos and eos.
        fingerprint: Identifies the model that the index belongs to.
    """

    bos_id: int
    eos_id: int
    vocab_size: int
    characters_per_token: float
    fingerprint: str


_FACTS = IndexFacts.__annotations__


def check_form(form: str) -> None:
    """Check that the packages for building an index of this form are installed.

    Raises:
        ConfigError: The package that the exact form needs is not installed.
    """
    if form == ExactIndex.form and find_spec("pydivsufsort") is None:
        raise ConfigError(
            "training.novelty=exact needs pydivsufsort: pip install 'reviewgen[exact]'."
        )


def build_index(
    ids: Tokens,
    *,
    form: str = CompactIndex.form,
    max_bytes: int = 4_000_000,
    sets: tuple[WindowSet, ...] | None = None,
    **facts: Unpack[IndexFacts],
) -> Index:
    """Build an index of a training text.

    Args:
        ids: The training texts one after the other, each enclosed in bos and eos. Texts that do not
            fit into memory are given as blocks of whole texts. The compact form iterates over the
            blocks six times; the exact form loads all of them into memory.
        form: "exact" or "compact".
        max_bytes: The maximum size of the compact form, at least 192.
        sets: The sets of the compact form, if ``build_sets`` has already built them (in several
            processes).
        facts: See ``IndexFacts``.

    Raises:
        ConfigError: The package that the exact form needs is not installed.
    """
    check_form(form)
    if form == CompactIndex.form:
        sets = sets or build_sets([ids], (facts["bos_id"], facts["eos_id"]), max_bytes)
        return CompactIndex(**facts, stride=sets[0].stride, sets=sets)
    # The algorithm is that of Mori 2006. It sorts ids of several bytes as byte strings. The package
    # is imported here, since only training needs it.
    from pydivsufsort import divsufsort

    dtype = id_dtype(facts["vocab_size"])
    whole = np.concatenate(list(cut(ids)), dtype=dtype, casting="unsafe")
    suffix_dtype = np.int32 if len(whole) < 1 << 31 else np.int64
    suffixes = divsufsort(whole).astype(suffix_dtype, copy=False)
    return ExactIndex(**facts, ids=whole, suffixes=suffixes)


def write_index(index: Index, file: Path) -> None:
    """Write an index to a file, and replace an existing file.

    Raises:
        StorageError: The disk is full, or the file cannot be written.
    """
    facts = {"schema": _SCHEMA, "form": index.form}
    facts |= {name: getattr(index, name) for name in _FACTS}
    if isinstance(index, CompactIndex):
        tensors = {name: windows.bits for name, windows in zip(_SETS, index.sets, strict=True)}
        facts |= {"stride": index.stride, "probes": index.sets[0].probes}
    else:
        tensors = {name: getattr(index, name) for name in ("ids", "suffixes")}
    with storage_errors(file), safetensors_file(file):
        save_file(tensors, file, metadata={_HEADER: json.dumps(facts)})


def read_index(file: Path, fingerprint: str, vocab_size: int) -> Index:
    """Read an index from a file, and check it.

    Args:
        file: A file that ``write_index`` wrote.
        fingerprint: The fingerprint of the model that the index must belong to.
        vocab_size: The vocabulary size of this model.

    Raises:
        BundleError: The file is missing or damaged, is not an index, has an unknown schema, or
            belongs to another model.
    """
    with open_tensors(file, "novelty index") as tensors:
        facts = _read_facts((tensors.metadata() or {}).get(_HEADER, "null"))
        index = _read_compact(tensors, facts) if "probes" in facts else _read_exact(tensors, facts)
        if index.fingerprint != fingerprint:
            raise BundleError(
                f"belongs to another model: its fingerprint is {index.fingerprint!r}, not"
                f" {fingerprint!r}."
            )
        if index.vocab_size != vocab_size:
            raise BundleError(
                f"is for a vocabulary of {index.vocab_size} tokens; its model has {vocab_size}."
            )
        return index


def _read_facts(header: str) -> dict[str, Any]:
    """Parse the facts in the header of a file, check their names, types and ranges, and return
    them.
    """
    try:
        facts = parse_json(header)
        schema = facts.pop("schema")
        form = facts.pop("form")
    except (ValueError, KeyError, AttributeError):
        raise BundleError(
            "is damaged, or not a novelty index: the header of one is missing."
        ) from None
    if schema != _SCHEMA:
        raise BundleError(
            f"has the schema {quoted(schema)}; this version of reviewgen reads schema {_SCHEMA}."
        )
    types = {name: type(value) for name, value in facts.items()}
    expected = _FACTS | _COMPACT_FACTS if form == CompactIndex.form else _FACTS
    if types != expected:
        raise BundleError(
            f"is damaged: its header does not have the facts of the form {quoted(form)}."
        )
    if not all(0 <= facts[name] < facts["vocab_size"] < 1 << 31 for name in ("bos_id", "eos_id")):
        raise BundleError("is damaged: its bos_id or eos_id is outside its vocabulary.")
    if not 1e-3 <= facts["characters_per_token"] <= 1e5:
        raise BundleError(
            f"is damaged: it has {facts['characters_per_token']} characters per token."
        )
    return dict(facts)


def _read_exact(tensors: Any, facts: dict[str, Any]) -> ExactIndex:
    """Read the arrays of an exact index from a file, and check them."""
    dtypes = {"ids": [id_dtype(facts["vocab_size"]).__name__], "suffixes": ["int32", "int64"]}
    ids, suffixes = read_vectors(tensors, dtypes).values()
    if not 0 < len(ids) == len(suffixes):
        raise BundleError(f"is damaged: it has {len(ids)} tokens and {len(suffixes)} suffixes.")
    for values, limit in ((ids, facts["vocab_size"]), (suffixes, len(ids))):
        if not 0 <= int(values.min()) <= int(values.max()) < limit:
            raise BundleError(
                "is damaged: it contains ids outside its vocabulary, or suffixes outside its text."
            )
    return ExactIndex(**facts, ids=ids, suffixes=suffixes)


def _read_compact(tensors: Any, facts: dict[str, Any]) -> CompactIndex:
    """Read the sets of a compact index from a file, and check them."""
    stride = facts["stride"]
    probes = facts.pop("probes")
    is_power_of_two = 1 <= stride < 1 << 63 and not stride & (stride - 1)
    if not 1 <= probes <= 7 or not is_power_of_two:
        raise BundleError(f"is damaged: it has {probes} probes and a stride of {stride}.")
    arrays = read_vectors(tensors, dict.fromkeys(_SETS, ("uint64",))).values()
    if not all(len(bits) and len(bits) % BLOCK == 0 for bits in arrays):
        raise BundleError(
            f"is damaged: the words of its sets are not positive multiples of {BLOCK}."
        )
    pairs = zip(arrays, WINDOWS, strict=True)
    sets = tuple(WindowSet(bits, length, probes, stride) for bits, length in pairs)
    return CompactIndex(**facts, sets=sets)
